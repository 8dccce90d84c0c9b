/*
 * The socket for an IKE daemon. Each connection is what a netlink socket is to a daemon: requests
 * are answered in their order, with an acknowledgement where one is asked for, and events come on
 * those that listen to their group. A dump goes on when the daemon has read what was sent.
 */
#include "ipsec/xfrm_server.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/log.h"
#include "ipsec/xfrm_internal.h"
#include "ipsec/xfrm_socket.h"

enum {
    BACKLOG = 16,
    CLIENTS_MAX = 64,
    PACKETS_PER_TURN = 32,
    DUMPED_PER_TURN = 64,
    POLL_MSEC = 500,
    ACCEPT_PAUSE_MSEC = 200,
    SOCKET_MODE = 0600,
    DIRECTORY_MODE = 0755,
    PROTOCOL_ANY = 255, /* IPSEC_PROTO_ANY of Linux */
};

struct client {
    TAILQ_ENTRY(client) listed;
    struct event_fd fd;
    uint32_t port, groups;
    bool failed;        /* to be closed when its turn ends */
    uint16_t dump;      /* XFRM_MSG_GETSA or XFRM_MSG_GETPOLICY; 0 = none */
    uint64_t dumped;    /* serial of what was sent last */
    uint32_t dump_asks; /* nlmsg_seq */
};

TAILQ_HEAD(client_list, client);

struct listener {
    int fd; /* -1 = none */
    struct sockaddr_un address;
    dev_t device; /* of the socket's file, to remove no other's */
    ino_t inode;
};

static struct client_list clients = TAILQ_HEAD_INITIALIZER(clients);
static unsigned client_count;
static struct listener listening = {.fd = -1}, prepared = {.fd = -1};
static bool keep; /* what was prepared is what there is */
static struct event_fd accepting = {.fd = -1};

/* Messages may hold keys. */
static char request_buffer[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));
static char reply_buffer[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));

/* --- sending --- */

static bool send_message(struct client *client, const struct nlmsghdr *message) {
    ssize_t sent = send(client->fd.fd, message, message->nlmsg_len, MSG_NOSIGNAL | MSG_DONTWAIT);

    return sent == (ssize_t)message->nlmsg_len;
}

/* Who does not read its answers gets no more. */
static void answer(struct client *client, const struct nlmsghdr *message) {
    if (!send_message(client, message))
        client->failed = true;
    explicit_bzero(reply_buffer, sizeof(reply_buffer));
}

bool xfrm_notify(unsigned group, const struct nlmsghdr *message) {
    static struct log_limit limit;
    struct client *client;
    bool any = false;

    TAILQ_FOREACH (client, &clients, listed) {
        if (!(client->groups & UINT32_C(1) << (group - 1)))
            continue;
        if (send_message(client, message))
            any = true;
        else
            log_limited(&limit, LOG_LEVEL_WARNING, "ipsec",
                        "an event is lost, since the IKE daemon does not read: %s",
                        strerror(errno));
    }
    return any;
}

static struct xfrm_reply reply_to(const struct client *client, const struct nlmsghdr *request) {
    return (struct xfrm_reply){.sequence = request->nlmsg_seq, .port = client->port};
}

/* --- polling --- */

static void poll_now(struct event_timer *timer) {
    bool sad = xfrm_sad_poll(), spd = xfrm_spd_poll();

    if (sad || spd)
        event_timer_start(timer, POLL_MSEC);
}

static struct event_timer poll_timer = {.expired = poll_now};

void xfrm_poll_start(void) {
    if (!event_timer_armed(&poll_timer))
        event_timer_start(&poll_timer, POLL_MSEC);
}

/* --- dumps --- */

/* Where a dump is. Pointers are good for a turn, serials for ever. */
struct place {
    const struct xfrm_sa_record *sa;
    const struct xfrm_policy_record *policy;
};

/* Writes the next thing to be sent, or the end; 0 = that was the end. */
static uint64_t next_of_dump(const struct client *client, const struct xfrm_reply *reply,
                             struct place *place, struct nlmsghdr **out) {
    const struct xfrm_policy_record *policy = place->policy;
    const struct xfrm_sa_record *sa = place->sa;
    struct xfrm_sa_state state;

    if (client->dump == XFRM_MSG_GETSA) {
        do
            sa = sa ? TAILQ_NEXT(sa, listed) : xfrm_sad_after(client->dumped);
        while (sa && sa->larval);
        place->sa = sa;
        if (sa) {
            xfrm_sad_state((struct xfrm_sa_record *)(uintptr_t)sa, &state);
            *out = xfrm_write_sa(reply_buffer, reply, &sa->sa, &state);
            return sa->serial;
        }
    } else {
        policy = policy ? TAILQ_NEXT(policy, listed) : xfrm_spd_after(client->dumped);
        place->policy = policy;
        if (policy) {
            *out = xfrm_write_policy(reply_buffer, reply, &policy->policy,
                                     policy->used ? xfrm_real_time(policy->used) : 0);
            return policy->serial;
        }
    }
    *out = xfrm_write_done(reply_buffer, reply);
    return 0;
}

static void go_on_with_dump(struct client *client) {
    const struct xfrm_reply reply = {client->dump_asks, client->port, NLM_F_MULTI};
    struct place place = {0};
    struct nlmsghdr *message;

    for (unsigned i = 0; client->dump != 0 && i < DUMPED_PER_TURN; i++) {
        uint64_t serial = next_of_dump(client, &reply, &place, &message);

        if (send_message(client, message)) {
            client->dumped = serial;
            if (serial == 0)
                client->dump = 0;
        } else {
            client->failed = errno != EAGAIN;
            i = DUMPED_PER_TURN;
        }
        explicit_bzero(reply_buffer, message->nlmsg_len);
    }
    event_fd_modify(&client->fd, client->dump ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Instead of 0: a dump ends with NLMSG_DONE, and is not acknowledged. */
enum { NOT_ACKNOWLEDGED = 1 };

static int start_dump(struct client *client, const struct nlmsghdr *request) {
    if (client->dump != 0)
        return -EBUSY;
    client->dump = request->nlmsg_type;
    client->dumped = 0;
    client->dump_asks = request->nlmsg_seq;
    go_on_with_dump(client);
    return NOT_ACKNOWLEDGED;
}

/* --- requests --- */

static int new_sa(struct client *client, const struct nlmsghdr *request) {
    struct xfrm_sa sa;
    int error = xfrm_read_sa(request, &sa);

    (void)client;
    if (error == 0)
        error = xfrm_sad_put(&sa, request->nlmsg_type == XFRM_MSG_UPDSA);
    explicit_bzero(&sa, sizeof(sa));
    return error;
}

static int delete_sa(struct client *client, const struct nlmsghdr *request) {
    struct xfrm_sa_key key;
    int error = xfrm_read_sa_key(request, &key);

    (void)client;
    return error ? error : xfrm_sad_delete(&key);
}

static int get_sa(struct client *client, const struct nlmsghdr *request) {
    const struct xfrm_reply reply = reply_to(client, request);
    const struct xfrm_sa_record *record;
    struct xfrm_sa_state state;
    struct xfrm_sa_key key;
    int error;

    if ((request->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP)
        return start_dump(client, request);
    error = xfrm_read_sa_key(request, &key);
    if (error)
        return error;
    record = xfrm_sad_find(&key);
    if (!record)
        return -ESRCH;
    if (record->larval) {
        answer(client, xfrm_write_spi(reply_buffer, &reply, &record->sa.info));
        return 0;
    }
    xfrm_sad_state((struct xfrm_sa_record *)(uintptr_t)record, &state);
    answer(client, xfrm_write_sa(reply_buffer, &reply, &record->sa, &state));
    return 0;
}

static int allocate_spi(struct client *client, const struct nlmsghdr *request) {
    const struct xfrm_reply reply = reply_to(client, request);
    const struct xfrm_sa_record *record;
    struct xfrm_spi_request wanted;
    int error = xfrm_read_spi_request(request, &wanted);

    if (error == 0)
        error = xfrm_sad_allocate(&wanted, &record);
    if (error == 0)
        answer(client, xfrm_write_spi(reply_buffer, &reply, &record->sa.info));
    return error;
}

static int flush_sas(struct client *client, const struct nlmsghdr *request) {
    uint8_t protocol;
    int error = xfrm_read_flush(request, &protocol);

    (void)client;
    if (error == 0 && (protocol == 0 || protocol == IPPROTO_ESP || protocol == PROTOCOL_ANY))
        xfrm_sad_flush();
    return error;
}

static int new_policy(struct client *client, const struct nlmsghdr *request) {
    struct xfrm_policy policy;
    int error = xfrm_read_policy(request, &policy);

    (void)client;
    return error ? error : xfrm_spd_put(&policy);
}

static int get_policy(struct client *client, const struct nlmsghdr *request) {
    const struct xfrm_reply reply = reply_to(client, request);
    const struct xfrm_policy_record *record;
    struct xfrm_policy_key key;
    int error;

    if ((request->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP)
        return start_dump(client, request);
    error = xfrm_read_policy_key(request, &key);
    if (error)
        return error;
    record = xfrm_spd_find(&key);
    if (!record)
        return -ENOENT;
    answer(client, xfrm_write_policy(reply_buffer, &reply, &record->policy,
                                     record->used ? xfrm_real_time(record->used) : 0));
    return 0;
}

static int delete_policy(struct client *client, const struct nlmsghdr *request) {
    struct xfrm_policy_key key;
    int error = xfrm_read_policy_key(request, &key);

    (void)client;
    return error ? error : xfrm_spd_delete(&key);
}

static int flush_policies(struct client *client, const struct nlmsghdr *request) {
    (void)client;
    (void)request;
    xfrm_spd_flush();
    return 0;
}

static int get_replay(struct client *client, const struct nlmsghdr *request) {
    const struct xfrm_reply reply = reply_to(client, request);
    const struct xfrm_sa_record *record;
    struct xfrm_sa_state state;
    struct xfrm_sa_key key;
    struct xfrm_sa unused;
    int error = xfrm_read_replay(request, &key, &unused);

    if (error)
        return error;
    record = xfrm_sad_find(&key);
    if (!record || record->larval)
        return -ESRCH;
    xfrm_sad_state((struct xfrm_sa_record *)(uintptr_t)record, &state);
    answer(client, xfrm_write_replay(reply_buffer, &reply, &record->sa, &state));
    return 0;
}

static int new_replay(struct client *client, const struct nlmsghdr *request) {
    struct xfrm_sa_key key;
    struct xfrm_sa from;
    int error = xfrm_read_replay(request, &key, &from);

    (void)client;
    return error ? error : xfrm_sad_set_replay(&key, &from);
}

static int get_sad_info(struct client *client, const struct nlmsghdr *request) {
    const struct xfrm_reply reply = reply_to(client, request);

    answer(client, xfrm_write_sad_info(reply_buffer, &reply, xfrm_sad_count()));
    return 0;
}

static int get_spd_info(struct client *client, const struct nlmsghdr *request) {
    const struct xfrm_reply reply = reply_to(client, request);
    uint32_t policies[XFRM_POLICY_MAX];

    xfrm_spd_count(policies);
    answer(client, xfrm_write_spd_info(reply_buffer, &reply, policies));
    return 0;
}

/* Thresholds of Linux's tables: there are none here, and nobody has to know. */
static int new_spd_info(struct client *client, const struct nlmsghdr *request) {
    (void)client;
    (void)request;
    return 0;
}

typedef int (*request_handler)(struct client *, const struct nlmsghdr *);

static const request_handler handlers[XFRM_MSG_MAX + 1] = {
    [XFRM_MSG_NEWSA] = new_sa,
    [XFRM_MSG_UPDSA] = new_sa,
    [XFRM_MSG_DELSA] = delete_sa,
    [XFRM_MSG_GETSA] = get_sa,
    [XFRM_MSG_ALLOCSPI] = allocate_spi,
    [XFRM_MSG_FLUSHSA] = flush_sas,
    [XFRM_MSG_NEWPOLICY] = new_policy,
    [XFRM_MSG_UPDPOLICY] = new_policy,
    [XFRM_MSG_DELPOLICY] = delete_policy,
    [XFRM_MSG_GETPOLICY] = get_policy,
    [XFRM_MSG_FLUSHPOLICY] = flush_policies,
    [XFRM_MSG_NEWAE] = new_replay,
    [XFRM_MSG_GETAE] = get_replay,
    [XFRM_MSG_GETSADINFO] = get_sad_info,
    [XFRM_MSG_GETSPDINFO] = get_spd_info,
    [XFRM_MSG_NEWSPDINFO] = new_spd_info,
};

static void bind_client(struct client *client, const struct nlmsghdr *message) {
    struct xfrm_socket_bind wanted;

    if (mnl_nlmsg_get_payload_len(message) < sizeof(wanted))
        return;
    memcpy(&wanted, mnl_nlmsg_get_payload(message), sizeof(wanted));
    client->port = wanted.port;
    client->groups = wanted.groups;
}

static void handle(struct client *client, const struct nlmsghdr *request) {
    uint16_t type = request->nlmsg_type;
    int error = -EOPNOTSUPP;

    if (type == XFRM_SOCKET_BIND) {
        bind_client(client, request);
        return;
    }
    if (type < NLMSG_MIN_TYPE || !(request->nlmsg_flags & NLM_F_REQUEST))
        return; /* as Linux does */
    if (type <= XFRM_MSG_MAX && handlers[type])
        error = handlers[type](client, request);
    if (error < 0)
        log_debug("ipsec", "the IKE daemon's request of type %u fails: %s", type, strerror(-error));
    if (error < 0 || (error == 0 && request->nlmsg_flags & NLM_F_ACK))
        answer(client, xfrm_write_answer(reply_buffer, request, client->port, error));
}

static void handle_packet(struct client *client, size_t length) {
    const struct nlmsghdr *message = NULL;

    while (!client->failed &&
           (message = xfrm_next_message(request_buffer, length, message)) != NULL)
        handle(client, message);
}

/* --- connections --- */

static void close_client(struct client *client) {
    event_fd_remove(&client->fd);
    close(client->fd.fd);
    TAILQ_REMOVE(&clients, client, listed);
    if (--client_count == 0)
        log_info("ipsec", "the IKE daemon has gone; %u associations stay", xfrm_sad_count());
    free(client);
}

static void client_ready(struct event_fd *fd, uint32_t events) {
    struct client *client = fd->context;

    if (events & EPOLLOUT && client->dump != 0)
        go_on_with_dump(client);
    for (unsigned i = 0; i < PACKETS_PER_TURN && !client->failed; i++) {
        ssize_t length =
            recv(fd->fd, request_buffer, sizeof(request_buffer), MSG_DONTWAIT | MSG_TRUNC);

        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (length <= 0) {
            client->failed = true;
        } else if ((size_t)length > sizeof(request_buffer)) {
            /* Its header is there, so that it can be answered. */
            answer(client, xfrm_write_answer(reply_buffer, (struct nlmsghdr *)request_buffer,
                                             client->port, -EMSGSIZE));
        } else {
            handle_packet(client, (size_t)length);
        }
        explicit_bzero(request_buffer, sizeof(request_buffer));
    }
    if (client->failed)
        close_client(client);
}

static void accept_again(struct event_timer *timer);
static struct event_timer accept_pause = {.expired = accept_again};

static void accept_again(struct event_timer *timer) {
    (void)timer;
    event_fd_modify(&accepting, EPOLLIN);
}

static void add_client(int fd) {
    struct client *client = client_count < CLIENTS_MAX ? calloc(1, sizeof(*client)) : NULL;

    if (!client) {
        close(fd);
        return;
    }
    client->fd = (struct event_fd){.fd = fd, .ready = client_ready, .context = client};
    if (event_fd_add(&client->fd, EPOLLIN) != 0) {
        close(fd);
        free(client);
        return;
    }
    TAILQ_INSERT_TAIL(&clients, client, listed);
    if (client_count++ == 0)
        log_info("ipsec", "an IKE daemon has connected");
}

static void accept_clients(struct event_fd *fd, uint32_t events) {
    static struct log_limit limit;
    int accepted;

    (void)events;
    for (;;) {
        accepted = accept4(fd->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0)
            break;
        add_client(accepted);
    }
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return;
    log_limited(&limit, LOG_LEVEL_WARNING, "ipsec", "cannot accept an IKE daemon: %s",
                strerror(errno));
    event_fd_modify(fd, 0);
    event_timer_start(&accept_pause, ACCEPT_PAUSE_MSEC);
}

/* --- the listening socket --- */

static void close_listener(struct listener *listener) {
    struct stat status;

    if (listener->fd < 0)
        return;
    close(listener->fd);
    listener->fd = -1;
    if (lstat(listener->address.sun_path, &status) == 0 && status.st_dev == listener->device &&
        status.st_ino == listener->inode)
        unlink(listener->address.sun_path);
}

/* Removes what a router that died has left; errno says what is in the way. */
static int clear_path(const struct sockaddr_un *address) {
    struct stat status;
    int fd, error = 0;

    if (lstat(address->sun_path, &status) != 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode))
        return -EEXIST;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
        error = errno;
    close(fd);
    if (error != ECONNREFUSED && error != ENOENT)
        return -EADDRINUSE;
    return unlink(address->sun_path) == 0 || errno == ENOENT ? 0 : -errno;
}

/* The directory that the path names, if only that is missing. */
static void make_directory(const char *path) {
    char directory[sizeof(listening.address.sun_path)];
    char *slash;

    snprintf(directory, sizeof(directory), "%s", path);
    slash = strrchr(directory, '/');
    if (!slash || slash == directory)
        return;
    *slash = '\0';
    mkdir(directory, DIRECTORY_MODE); /* if it fails, bind() will say why */
}

static int open_listener(struct listener *out) {
    const char *path = out->address.sun_path;
    struct stat status;
    int error;

    make_directory(path);
    error = clear_path(&out->address);
    if (error)
        return error;
    out->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (out->fd < 0)
        return -errno;
    /* Before listen() nobody can connect, so that the mode is right from the first one on. */
    if (bind(out->fd, (const struct sockaddr *)&out->address, sizeof(out->address)) != 0) {
        error = -errno;
        close(out->fd);
        out->fd = -1;
        return error;
    }
    if (lstat(path, &status) == 0) {
        out->device = status.st_dev;
        out->inode = status.st_ino;
    }
    if (chmod(path, SOCKET_MODE) != 0 || listen(out->fd, BACKLOG) != 0) {
        error = -errno;
        close_listener(out);
    }
    return error;
}

int xfrm_server_prepare(const char *path, struct problems *problems) {
    int error;

    keep = path && listening.fd >= 0 && strcmp(path, listening.address.sun_path) == 0;
    if (!path || keep)
        return 0;
    prepared = (struct listener){.fd = -1, .address.sun_family = AF_UNIX};
    snprintf(prepared.address.sun_path, sizeof(prepared.address.sun_path), "%s", path);
    error = open_listener(&prepared);
    if (error == 0)
        return 0;
    problems_add(problems, "$.ipsec.ike.socket", "the socket %s cannot be made: %s", path,
                 error == -EEXIST       ? "a file is in its place"
                 : error == -EADDRINUSE ? "another program listens there"
                                        : strerror(-error));
    return error;
}

void xfrm_server_abort(void) {
    close_listener(&prepared);
}

/* Nobody listens there any more; who is connected stays. */
static void stop_listening(void) {
    event_timer_stop(&accept_pause);
    event_fd_remove(&accepting);
    close_listener(&listening);
}

static void stop(void) {
    stop_listening();
    while (!TAILQ_EMPTY(&clients))
        close_client(TAILQ_FIRST(&clients));
    event_timer_stop(&poll_timer);
    xfrm_sad_flush();
    xfrm_spd_flush();
}

void xfrm_server_commit(void) {
    int error;

    if (keep)
        return;
    if (prepared.fd < 0) {
        if (listening.fd >= 0)
            stop();
        return;
    }
    stop_listening();
    listening = prepared;
    prepared.fd = -1;
    accepting = (struct event_fd){.fd = listening.fd, .ready = accept_clients};
    error = event_fd_add(&accepting, EPOLLIN);
    if (error)
        log_error("ipsec", "cannot watch the socket for IKE: %s", strerror(-error));
    else
        log_info("ipsec", "waiting for an IKE daemon at %s", listening.address.sun_path);
}
