/*
 * The socket on which an IKE daemon keys the router, as it would key Linux: the XFRM netlink
 * protocol on a UNIX socket (xfrm_socket.h), so that keys never get to the kernel. What a daemon
 * has made stays when it disconnects: a daemon that starts flushes both databases itself.
 *
 * Associations and policies made here belong to IPSEC_OF_IKE. All on the control thread.
 */
#pragma once

#include "core/problem.h"

/* Makes ready to listen at the path; NULL: nowhere. What was prepared is put in force by
 * xfrm_server_commit(), or forgotten by xfrm_server_abort(). 0, or negative errno with a problem at
 * $.ipsec.ike.socket. */
int xfrm_server_prepare(const char *path, struct problems *problems);
/* With no path prepared: nobody can connect any more, and what IKE has made is gone. */
void xfrm_server_commit(void);
void xfrm_server_abort(void);
