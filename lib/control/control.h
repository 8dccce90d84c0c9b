/*
 * What the program needs of the control side: the configuration file and the control socket.
 *
 * The order in main(): event_init(), then either control_check() and out; or EAL, config_init(),
 * control_start(), control_load(), the workers, and the event loop, with control_reload() on SIGHUP
 * and control_unload() and control_stop() at the end. Starting before loading finds out that
 * another router runs before any device is touched; clients that connect meanwhile wait for the
 * loop's first turn.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/problem.h"

/* What system.info tells and the other methods rely on. The structure and what it points to are the
 * caller's, and must stay until control_stop(); fields may change in between. */
struct control_facts {
    const char *version;      /* "0.1.0" */
    const char *dpdk_version; /* rte_version(): "DPDK 22.11.11" */
    const char *config_file;  /* absolute path: also what config.save writes and SIGHUP reads */
    uint64_t start_msec;      /* event_now() at the start of the program */
    unsigned control_lcore;
    const unsigned *workers; /* lcores of the workers */
    size_t worker_count;
};

/* Listens on the control socket. 0, or negative errno with a problem. */
int control_start(const struct control_facts *facts, const char *socket_path,
                  struct problems *problems);

/* Reads facts->config_file and puts it in force. 0; -EINVAL with every problem when the file cannot
 * be read or is wrong; another negative errno when a right one could not be put to work. */
int control_load(struct problems *problems);

/* Reads a configuration file and checks it, touching nothing; needs none of the above. 0, or
 * -EINVAL with every problem. */
int control_check(const char *path, struct problems *problems);

/* Reads facts->config_file again and puts it in force for good. If that cannot be, every problem is
 * logged and the configuration in force stays. */
void control_reload(void);

/* Puts the empty configuration in force, so that devices are closed in good order while the workers
 * still run. What goes wrong is logged. Does nothing when no configuration is in force. */
void control_unload(void);

/* Closes the socket and frees the configuration's memory. Harmless when not started. The sections'
 * own state is left alone: control_unload() comes first. */
void control_stop(void);
