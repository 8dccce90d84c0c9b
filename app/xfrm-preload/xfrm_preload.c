/*
 * Preloaded into an IKE daemon, this library leads its netlink sockets for XFRM to the router
 * instead of to Linux, so that an unmodified daemon keys the router:
 *
 *   LD_PRELOAD=libdpdk-router-xfrm.so DPDK_ROUTER_XFRM_SOCKET=PATH charon
 *
 * Such a socket is a connection to the router's UNIX socket, where a packet is what a datagram is
 * to netlink. It looks like a netlink socket: it has its addresses and its options. All other
 * sockets are left alone, but for options that are about XFRM in Linux (a socket's own policies,
 * ESP in UDP): these succeed without effect, since Linux sees no ESP, and the router lets IKE pass.
 *
 * When the router is started anew, the next request connects again. Nothing here ever falls back
 * to Linux: a key in the kernel and in the router would encrypt with the same numbers twice.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ipsec/xfrm_socket.h"

enum {
    FDS = 1 << 16,
    LINUX_IP_XFRM_POLICY = 17, /* <linux/in.h> does not go with <netinet/in.h> */
    LINUX_IPV6_XFRM_POLICY = 35,
    STRONGSWAN_IPV6_XFRM_POLICY = 34, /* what it takes where the headers do not say */
    LINUX_UDP_ENCAP = 100,
};

/* Connections to the router, by descriptor. A daemon uses each from one thread at a time. */
struct connection {
    _Atomic bool is_ours;
    bool waits;        /* for the answer to a request */
    uint32_t sequence; /* of that request */
    uint32_t port, groups;
};
static struct connection connections[FDS];

/* --- libc's own functions --- */

static int (*real_socket)(int, int, int);
static int (*real_bind)(int, const struct sockaddr *, socklen_t);
static int (*real_connect)(int, const struct sockaddr *, socklen_t);
static int (*real_getsockname)(int, struct sockaddr *, socklen_t *);
static int (*real_setsockopt)(int, int, int, const void *, socklen_t);
static ssize_t (*real_sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static ssize_t (*real_recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
static ssize_t (*real_recvmsg)(int, struct msghdr *, int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_read)(int, void *, size_t);
static int (*real_close)(int);

static void *find(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);

    if (!function)
        abort();
    return function;
}

/* Other libraries' constructors may come before this one's, so each function asks. */
static void find_all(void) {
    static _Atomic bool found;

    if (atomic_load(&found))
        return;
    real_socket = find("socket");
    real_bind = find("bind");
    real_connect = find("connect");
    real_getsockname = find("getsockname");
    real_setsockopt = find("setsockopt");
    real_sendto = find("sendto");
    real_sendmsg = find("sendmsg");
    real_recvfrom = find("recvfrom");
    real_recvmsg = find("recvmsg");
    real_write = find("write");
    real_read = find("read");
    real_close = find("close");
    atomic_store(&found, true);
}

__attribute__((constructor)) static void begin(void) {
    find_all();
}

static struct connection *connection_of(int fd) {
    find_all();
    return fd >= 0 && fd < FDS && atomic_load(&connections[fd].is_ours) ? &connections[fd] : NULL;
}

/* --- to the router --- */

static int say_who(int fd, const struct connection *connection) {
    struct {
        struct nlmsghdr header;
        struct xfrm_socket_bind body;
    } message = {
        .header = {.nlmsg_len = sizeof(message),
                   .nlmsg_type = XFRM_SOCKET_BIND,
                   .nlmsg_flags = NLM_F_REQUEST},
        .body = {.port = connection->port, .groups = connection->groups},
    };

    return real_sendto(fd, &message, sizeof(message), MSG_NOSIGNAL, NULL, 0) < 0 ? -1 : 0;
}

static int connect_to_router(int type) {
    const char *path = getenv(XFRM_SOCKET_VARIABLE);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, error;

    if (!path || path[0] == '\0' || strlen(path) >= sizeof(address.sun_path)) {
        fprintf(stderr, "libdpdk-router-xfrm: " XFRM_SOCKET_VARIABLE
                        " does not name the router's socket\n");
        errno = EINVAL;
        return -1;
    }
    strcpy(address.sun_path, path);
    /* Connected while it blocks: the router may be busy accepting. */
    fd = real_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (fd >= FDS) {
        real_close(fd);
        errno = EMFILE;
        return -1;
    }
    if (real_connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        (type & SOCK_NONBLOCK && fcntl(fd, F_SETFL, O_NONBLOCK) != 0) ||
        (!(type & SOCK_CLOEXEC) && fcntl(fd, F_SETFD, 0) != 0)) {
        error = errno;
        real_close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static bool is_gone(int error) {
    return error == EPIPE || error == ECONNRESET || error == ENOTCONN || error == ECONNREFUSED;
}

/* Puts a new connection in the place of one whose router has ended. */
static int connect_again(int fd, struct connection *connection) {
    int flags = fcntl(fd, F_GETFL), descriptor = fcntl(fd, F_GETFD), new, error;

    if (flags < 0 || descriptor < 0)
        return -1;
    new = connect_to_router(flags & O_NONBLOCK ? SOCK_NONBLOCK | SOCK_CLOEXEC : SOCK_CLOEXEC);
    if (new < 0)
        return -1;
    error = dup3(new, fd, descriptor & FD_CLOEXEC ? O_CLOEXEC : 0) < 0 ? errno : 0;
    real_close(new);
    errno = error;
    return error ? -1 : say_who(fd, connection);
}

/* --- sockets --- */

__attribute__((visibility("default"))) int socket(int domain, int type, int protocol) {
    struct connection *connection;
    int fd;

    find_all();
    if (domain != AF_NETLINK || protocol != NETLINK_XFRM)
        return real_socket(domain, type, protocol);
    fd = connect_to_router(type);
    if (fd < 0)
        return -1;
    connection = &connections[fd];
    connection->waits = false;
    connection->groups = 0;
    /* Linux gives the first socket of a process its pid, and others what is free. */
    connection->port = (uint32_t)getpid() ^ (uint32_t)fd << 22;
    if (say_who(fd, connection) != 0) {
        real_close(fd);
        errno = ECONNREFUSED;
        return -1;
    }
    atomic_store(&connection->is_ours, true);
    return fd;
}

__attribute__((visibility("default"))) int close(int fd) {
    struct connection *connection = connection_of(fd);

    if (connection)
        atomic_store(&connection->is_ours, false);
    return real_close(fd);
}

__attribute__((visibility("default"))) int bind(int fd, __CONST_SOCKADDR_ARG to, socklen_t length) {
    struct connection *connection = connection_of(fd);
    struct sockaddr_nl address;

    if (!connection)
        return real_bind(fd, to.__sockaddr__, length);
    if (length < sizeof(address)) {
        errno = EINVAL;
        return -1;
    }
    memcpy(&address, to.__sockaddr__, sizeof(address));
    if (address.nl_pid != 0)
        connection->port = address.nl_pid;
    connection->groups = address.nl_groups;
    return say_who(fd, connection);
}

__attribute__((visibility("default"))) int connect(int fd, __CONST_SOCKADDR_ARG to,
                                                   socklen_t length) {
    return connection_of(fd) ? 0 : real_connect(fd, to.__sockaddr__, length);
}

static void give_address(uint32_t port, uint32_t groups, void *out, socklen_t *length) {
    const struct sockaddr_nl address = {
        .nl_family = AF_NETLINK, .nl_pid = port, .nl_groups = groups};

    if (!out || !length)
        return;
    memcpy(out, &address, *length < sizeof(address) ? *length : sizeof(address));
    *length = sizeof(address);
}

__attribute__((visibility("default"))) int getsockname(int fd, __SOCKADDR_ARG out,
                                                       socklen_t *length) {
    struct connection *connection = connection_of(fd);

    if (!connection)
        return real_getsockname(fd, out.__sockaddr__, length);
    give_address(connection->port, connection->groups, out.__sockaddr__, length);
    return 0;
}

static int netlink_option(int fd, struct connection *connection, int name, const void *value,
                          socklen_t length) {
    unsigned group = 0;

    if (name != NETLINK_ADD_MEMBERSHIP && name != NETLINK_DROP_MEMBERSHIP)
        return 0; /* how errors and dumps look in detail */
    if (length >= sizeof(group))
        memcpy(&group, value, sizeof(group));
    if (group < 1 || group > 32) {
        errno = EINVAL;
        return -1;
    }
    if (name == NETLINK_ADD_MEMBERSHIP)
        connection->groups |= UINT32_C(1) << (group - 1);
    else
        connection->groups &= ~(UINT32_C(1) << (group - 1));
    return say_who(fd, connection);
}

static bool is_about_xfrm(int level, int name) {
    return (level == IPPROTO_IP && name == LINUX_IP_XFRM_POLICY) ||
           (level == IPPROTO_IPV6 &&
            (name == LINUX_IPV6_XFRM_POLICY || name == STRONGSWAN_IPV6_XFRM_POLICY)) ||
           (level == IPPROTO_UDP && name == LINUX_UDP_ENCAP);
}

__attribute__((visibility("default"))) int setsockopt(int fd, int level, int name,
                                                      const void *value, socklen_t length) {
    struct connection *connection = connection_of(fd);

    if (connection && level == SOL_NETLINK)
        return netlink_option(fd, connection, name, value, length);
    if (!connection && is_about_xfrm(level, name))
        return 0;
    return real_setsockopt(fd, level, name, value, length);
}

/* --- sending --- */

static void note_request(struct connection *connection, const void *bytes, size_t length) {
    struct nlmsghdr header;

    if (length < sizeof(header))
        return;
    memcpy(&header, bytes, sizeof(header));
    connection->sequence = header.nlmsg_seq;
    connection->waits = true;
}

static ssize_t send_request(int fd, struct connection *connection, const struct msghdr *message,
                            int flags) {
    struct msghdr copy = *message;
    ssize_t sent;

    copy.msg_name = NULL;
    copy.msg_namelen = 0;
    if (copy.msg_iovlen > 0)
        note_request(connection, copy.msg_iov[0].iov_base, copy.msg_iov[0].iov_len);
    sent = real_sendmsg(fd, &copy, flags | MSG_NOSIGNAL);
    if (sent < 0 && is_gone(errno) && connect_again(fd, connection) == 0)
        sent = real_sendmsg(fd, &copy, flags | MSG_NOSIGNAL);
    if (sent < 0)
        connection->waits = false;
    return sent;
}

__attribute__((visibility("default"))) ssize_t sendmsg(int fd, const struct msghdr *message,
                                                       int flags) {
    struct connection *connection = connection_of(fd);

    return connection ? send_request(fd, connection, message, flags)
                      : real_sendmsg(fd, message, flags);
}

__attribute__((visibility("default"))) ssize_t sendto(int fd, const void *bytes, size_t length,
                                                      int flags, __CONST_SOCKADDR_ARG to,
                                                      socklen_t to_length) {
    struct connection *connection = connection_of(fd);
    struct iovec part = {(void *)(uintptr_t)bytes, length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    return connection ? send_request(fd, connection, &message, flags)
                      : real_sendto(fd, bytes, length, flags, to.__sockaddr__, to_length);
}

__attribute__((visibility("default"))) ssize_t send(int fd, const void *bytes, size_t length,
                                                    int flags) {
    return sendto(fd, bytes, length, flags, (__CONST_SOCKADDR_ARG){.__sockaddr__ = NULL}, 0);
}

/* libreswan's way. */
__attribute__((visibility("default"))) ssize_t write(int fd, const void *bytes, size_t length) {
    return connection_of(fd) ? send(fd, bytes, length, 0) : real_write(fd, bytes, length);
}

/* --- receiving --- */

/* The router has ended. A request that it will not answer any more has failed; an event socket is
 * connected again when somebody asks for events. */
static ssize_t ended(int fd, struct connection *connection, void *bytes, size_t length) {
    struct {
        struct nlmsghdr header;
        struct nlmsgerr body;
    } answer = {
        .header = {.nlmsg_len = sizeof(answer),
                   .nlmsg_type = NLMSG_ERROR,
                   .nlmsg_seq = connection->sequence,
                   .nlmsg_pid = connection->port},
        .body = {.error = -ECONNRESET},
    };

    if (connection->waits && length >= sizeof(answer)) {
        connection->waits = false;
        memcpy(bytes, &answer, sizeof(answer));
        return sizeof(answer);
    }
    errno = connect_again(fd, connection) == 0 ? EAGAIN : ECONNREFUSED;
    return -1;
}

static ssize_t receive(int fd, struct connection *connection, struct msghdr *message, int flags) {
    ssize_t received;

    if (message->msg_name)
        give_address(0, 0, message->msg_name, &message->msg_namelen); /* from the kernel */
    {
        struct msghdr copy = *message;

        copy.msg_name = NULL;
        copy.msg_namelen = 0;
        received = real_recvmsg(fd, &copy, flags);
        message->msg_flags = copy.msg_flags;
        message->msg_controllen = copy.msg_controllen;
    }
    if (received > 0) {
        connection->waits &= (flags & MSG_PEEK) != 0;
        return received;
    }
    if (received < 0 && !is_gone(errno))
        return received;
    message->msg_flags = 0;
    return message->msg_iovlen > 0
               ? ended(fd, connection, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len)
               : -1;
}

__attribute__((visibility("default"))) ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    struct connection *connection = connection_of(fd);

    return connection ? receive(fd, connection, message, flags) : real_recvmsg(fd, message, flags);
}

__attribute__((visibility("default"))) ssize_t recvfrom(int fd, void *bytes, size_t length,
                                                        int flags, __SOCKADDR_ARG from,
                                                        socklen_t *from_length) {
    struct connection *connection = connection_of(fd);
    struct iovec part = {bytes, length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t received;

    if (!connection)
        return real_recvfrom(fd, bytes, length, flags, from.__sockaddr__, from_length);
    received = receive(fd, connection, &message, flags);
    if (received >= 0)
        give_address(0, 0, from.__sockaddr__, from_length);
    return received;
}

__attribute__((visibility("default"))) ssize_t recv(int fd, void *bytes, size_t length, int flags) {
    return recvfrom(fd, bytes, length, flags, (__SOCKADDR_ARG){.__sockaddr__ = NULL}, NULL);
}

__attribute__((visibility("default"))) ssize_t read(int fd, void *bytes, size_t length) {
    return connection_of(fd) ? recv(fd, bytes, length, 0) : real_read(fd, bytes, length);
}

/* What calls become where a program is built with _FORTIFY_SOURCE. */
ssize_t __read_chk(int fd, void *bytes, size_t length, size_t room);
ssize_t __recv_chk(int fd, void *bytes, size_t length, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *bytes, size_t length, size_t room, int flags,
                       __SOCKADDR_ARG from, socklen_t *from_length);

__attribute__((visibility("default"))) ssize_t __read_chk(int fd, void *bytes, size_t length,
                                                          size_t room) {
    if (length > room)
        abort();
    return read(fd, bytes, length);
}

__attribute__((visibility("default"))) ssize_t __recv_chk(int fd, void *bytes, size_t length,
                                                          size_t room, int flags) {
    if (length > room)
        abort();
    return recv(fd, bytes, length, flags);
}

__attribute__((visibility("default"))) ssize_t __recvfrom_chk(int fd, void *bytes, size_t length,
                                                              size_t room, int flags,
                                                              __SOCKADDR_ARG from,
                                                              socklen_t *from_length) {
    if (length > room)
        abort();
    return recvfrom(fd, bytes, length, flags, from, from_length);
}
