/*
 * The JSON-RPC server's sockets.
 *
 * A client's descriptor is watched only for what its connection can use: for input while it wants
 * some, for output while it has some. Work that is left over when a client's share of a turn is
 * used up is queued and goes on in the next turn, one share per client.
 *
 * What can go wrong: the path (too long, occupied, not writable), which stops the program's start;
 * too few descriptors or too little memory for another client, which refuses that client.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4() */
#endif

#include "control/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control/connection.h"
#include "core/event.h"
#include "core/log.h"
#include "json/rpc.h"

enum {
    BACKLOG = 128,
    ACCEPT_PAUSE_MSEC = 200, /* when the system is short of descriptors or memory */
    FILES_BESIDES = 256,     /* open files of the rest of the program */
    LOCK_ATTEMPTS = 10,      /* for the directory's lock, 50 ms apart */
};

struct client {
    struct server *server;
    TAILQ_ENTRY(client) all;
    TAILQ_ENTRY(client) queued;
    bool in_queue;
    bool deaf;      /* takes no more replies: they are dropped */
    bool lingering; /* refused; what it still sends is thrown away */
    uint32_t watched;
    struct event_fd fd;
    struct event_timer patience;
    struct connection connection;
};

TAILQ_HEAD(client_list, client);

struct server {
    struct event_fd listener;
    struct event_timer work;         /* due at once while clients are queued */
    struct event_timer accept_pause; /* armed while new clients are not accepted */
    struct client_list clients;
    struct client_list queue; /* clients with work left, in the order of their turns */
    size_t client_count;
    size_t queue_count;
    struct sockaddr_un address;
    dev_t device; /* of the socket's file, to remove no other's */
    ino_t inode;
    char scratch[CONNECTION_READ_SIZE];
};

/* ---- clients ---- */

static void client_close(struct client *client) {
    struct server *server = client->server;
    event_fd_remove(&client->fd);
    event_timer_stop(&client->patience);
    close(client->fd.fd);
    if (client->in_queue) {
        TAILQ_REMOVE(&server->queue, client, queued);
        server->queue_count--;
    }
    TAILQ_REMOVE(&server->clients, client, all);
    server->client_count--;
    connection_free(&client->connection);
    free(client);
}

static void client_enqueue(struct client *client) {
    struct server *server = client->server;
    if (!client->in_queue) {
        TAILQ_INSERT_TAIL(&server->queue, client, queued);
        client->in_queue = true;
        server->queue_count++;
        if (!event_timer_armed(&server->work)) {
            event_timer_start(&server->work, 0);
        }
    }
}

/* Sends what the socket takes. True when it took something. */
static bool client_send(struct client *client) {
    size_t length;
    const char *data = connection_output(&client->connection, &length);
    if (length == 0) {
        return false;
    }
    if (!client->deaf) {
        ssize_t sent = send(client->fd.fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            connection_sent(&client->connection, (size_t)sent);
            return sent > 0;
        }
        if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS) {
            return false;
        }
        client->deaf = true; /* it is gone; its requests may still be waiting to be read */
    }
    connection_sent(&client->connection, length);
    return true;
}

/* After anything has happened to the client: sends replies, sees to the queue, the timer and what
 * is watched, or closes. The client may be gone afterwards. */
static void client_settle(struct client *client, bool progress) {
    struct connection *connection = &client->connection;
    progress |= client_send(client);
    if (connection_finished(connection)) {
        /* A refused client may be in the middle of a long request: closing now would make its
         * write fail before it has read why. */
        if (!connection->closing || connection->failed || client->deaf || connection->ended) {
            client_close(client);
            return;
        }
        if (!client->lingering) {
            client->lingering = true;
            shutdown(client->fd.fd, SHUT_WR);
            event_timer_start(&client->patience, SERVER_LINGER_MSEC);
        }
    }
    size_t output;
    connection_output(connection, &output);

    if (connection_runnable(connection)) {
        client_enqueue(client);
    }
    if (!client->lingering) {
        if (output == 0 && !connection_midway(connection)) {
            event_timer_stop(&client->patience);
        } else if (progress || !event_timer_armed(&client->patience)) {
            event_timer_start(&client->patience, SERVER_PATIENCE_MSEC);
        }
    }

    uint32_t wanted = 0;
    if (client->lingering || (connection_wants_input(connection) && !client->in_queue)) {
        wanted |= EPOLLIN;
    }
    if (output > 0) {
        wanted |= EPOLLOUT;
    }
    if (wanted != client->watched) {
        client->watched = wanted;
        event_fd_modify(&client->fd, wanted);
    }
}

static void client_ready(struct event_fd *fd, uint32_t events) {
    struct client *client = fd->context;
    struct server *server = client->server;
    struct connection *connection = &client->connection;
    bool progress = false;

    if (client->lingering || connection_wants_input(connection)) {
        ssize_t got = recv(fd->fd, server->scratch, sizeof(server->scratch), MSG_DONTWAIT);
        /* ECONNRESET: it closed without reading all its replies. That is an end like any other. */
        bool ended = got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
        if (ended && client->lingering) {
            client_close(client);
            return;
        }
        if (client->lingering) {
            return;
        }
        if (ended) {
            connection_end_input(connection);
        } else if (got > 0) {
            progress = true;
            connection_feed(connection, server->scratch, (size_t)got);
        }
    }
    if (events & (EPOLLHUP | EPOLLERR)) {
        client->deaf = true;
    }
    if (!client->in_queue) {
        connection_run(connection);
    }
    client_settle(client, progress);
}

static void client_impatient(struct event_timer *timer) {
    struct client *client = timer->context;
    size_t output;
    connection_output(&client->connection, &output);
    if (!client->lingering && client_send(client)) {
        /* A UNIX socket is not reported as writable before most of what it holds was read, but it
         * takes more after the first byte: the client does read, slowly. */
        client_settle(client, true);
        return;
    }
    if (client->lingering || output > 0) {
        if (!client->lingering) {
            log_notice("control",
                       "closed a client that did not read its replies for %d seconds (%zu bytes)",
                       SERVER_PATIENCE_MSEC / 1000, output);
        }
        client_close(client);
        return;
    }
    connection_refuse(&client->connection, RPC_INVALID_REQUEST,
                      "the request was not finished within %d seconds",
                      SERVER_PATIENCE_MSEC / 1000);
    client_settle(client, false);
}

/* One share of work for each client that was queued when the turn began. */
static void server_work(struct event_timer *timer) {
    struct server *server = timer->context;
    for (size_t i = server->queue_count; i > 0 && !TAILQ_EMPTY(&server->queue); i--) {
        struct client *client = TAILQ_FIRST(&server->queue);
        TAILQ_REMOVE(&server->queue, client, queued);
        client->in_queue = false;
        server->queue_count--;
        connection_run(&client->connection);
        client_settle(client, false);
    }
    if (!TAILQ_EMPTY(&server->queue) && !event_timer_armed(&server->work)) {
        event_timer_start(&server->work, 0);
    }
}

/* ---- accepting ---- */

/* A client that there is no place for gets one line that says so. */
static void turn_away(int fd) {
    static const char format[] = "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":%d,\"message\":"
                                 "\"%d clients are connected already\"},\"id\":null}\n";
    char line[sizeof(format) + 32];
    int length = snprintf(line, sizeof(line), format, RPC_CONFLICT, SERVER_CLIENTS_MAX);
    /* A fresh socket's buffer is empty; if it still does not take the line, so be it. */
    ssize_t sent = send(fd, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)sent;
    close(fd);
}

static bool client_add(struct server *server, int fd) {
    struct client *client = calloc(1, sizeof(*client));
    if (!client) {
        return false;
    }
    client->server = server;
    client->fd = (struct event_fd){.fd = fd, .ready = client_ready, .context = client};
    client->patience = (struct event_timer){.expired = client_impatient, .context = client};
    client->watched = EPOLLIN;
    connection_init(&client->connection);
    if (event_fd_add(&client->fd, client->watched) != 0) {
        free(client);
        return false;
    }
    TAILQ_INSERT_TAIL(&server->clients, client, all);
    server->client_count++;
    return true;
}

static void server_accept(struct event_fd *fd, uint32_t events) {
    static struct log_limit turned_away;
    static struct log_limit failed;
    struct server *server = fd->context;
    (void)events;
    for (unsigned i = 0; i < SERVER_ACCEPTS_PER_TURN; i++) {
        int accepted = accept4(fd->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            if (errno != EAGAIN) {
                /* The listener would stay ready, and the loop spin: look away for a while. */
                log_limited(&failed, LOG_LEVEL_WARNING, "control", "cannot accept a client: %s",
                            strerror(errno));
                event_fd_modify(fd, 0);
                event_timer_start(&server->accept_pause, ACCEPT_PAUSE_MSEC);
            }
            return;
        }
        if (server->client_count >= SERVER_CLIENTS_MAX) {
            log_limited(&turned_away, LOG_LEVEL_WARNING, "control",
                        "turned a client away: %d are connected already", SERVER_CLIENTS_MAX);
            turn_away(accepted);
        } else if (!client_add(server, accepted)) {
            close(accepted);
        }
    }
}

static void server_accept_again(struct event_timer *timer) {
    struct server *server = timer->context;
    event_fd_modify(&server->listener, EPOLLIN);
}

/* ---- the listening socket ---- */

/* Makes the directories above `path`. */
static int make_directories(const char *path) {
    char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t length = (size_t)(slash - path);
        memcpy(directory, path, length);
        directory[length] = '\0';
        if (mkdir(directory, SERVER_DIRECTORY_MODE) == 0) {
            /* Whatever the umask: clients in the socket's group must be able to pass. */
            if (chmod(directory, SERVER_DIRECTORY_MODE) != 0) {
                return -errno;
            }
        } else if (errno != EEXIST) {
            return -errno;
        }
    }
    return 0;
}

/* Two routers started at the same moment must not both take the same stale socket for theirs: the
 * check and what follows it happen under a lock on the directory. Returns a descriptor to close, or
 * -1 when the lock is not to be had, which only loses that protection. */
static int lock_directory(const char *path) {
    char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    memcpy(directory, length ? path : slash ? "/" : ".", length ? length : 1);
    directory[length ? length : 1] = '\0';
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; fd >= 0 && i < LOCK_ATTEMPTS; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            return fd;
        }
        nanosleep(&(struct timespec){.tv_nsec = 50 * 1000 * 1000}, NULL);
    }
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

/* Removes what a router that died left behind. 0 when nothing is in the way any more. */
static int clear_path(const struct sockaddr_un *address, struct problems *problems) {
    const char *path = address->sun_path;
    struct stat status;
    if (lstat(path, &status) != 0) {
        if (errno == ENOENT) {
            return 0;
        }
        problems_add(problems, path, "cannot be examined: %s", strerror(errno));
        return -1;
    }
    if (!S_ISSOCK(status.st_mode)) {
        problems_add(problems, path, "exists and is not a socket; it is left alone");
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        problems_add(problems, path, "cannot be examined: %s", strerror(errno));
        return -1;
    }
    int error = 0;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) {
        error = errno;
    }
    close(fd);
    if (error == 0 || error == EAGAIN) { /* EAGAIN: somebody listens, with a full backlog */
        problems_add(problems, path,
                     "another program listens on this socket; is the router running already?");
        return -1;
    }
    if (error != ECONNREFUSED && error != ENOENT) {
        problems_add(problems, path, "cannot tell whether another program uses this socket: %s",
                     strerror(error));
        return -1;
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        problems_add(problems, path, "an abandoned socket cannot be removed: %s", strerror(errno));
        return -1;
    }
    return 0;
}

/* Binds and listens. Returns the descriptor, or -1 with a problem. */
static int open_listener(const struct sockaddr_un *address, struct problems *problems) {
    const char *path = address->sun_path;
    if (clear_path(address, problems) != 0) {
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        problems_add(problems, path, "cannot make a socket: %s", strerror(errno));
        return -1;
    }
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) {
        problems_add(problems, path, "cannot bind the control socket: %s", strerror(errno));
        close(fd);
        return -1;
    }
    /* Before listen() nobody can connect, so the mode is right from the first client on. */
    if (chmod(path, SERVER_SOCKET_MODE) != 0 || listen(fd, BACKLOG) != 0) {
        problems_add(problems, path, "cannot listen on the control socket: %s", strerror(errno));
        unlink(path);
        close(fd);
        return -1;
    }
    return fd;
}

static void raise_file_limit(void) {
    struct rlimit limit;
    rlim_t wanted = SERVER_CLIENTS_MAX + FILES_BESIDES;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            log_warning("control", "cannot raise the limit of open files: %s", strerror(errno));
        }
    }
}

struct server *server_new(const char *path, struct problems *problems) {
    struct server *server = calloc(1, sizeof(*server));
    if (!server) {
        problems_add(problems, path, "out of memory");
        return NULL;
    }
    TAILQ_INIT(&server->clients);
    TAILQ_INIT(&server->queue);
    server->address.sun_family = AF_UNIX;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(server->address.sun_path)) {
        problems_add(problems, path, "a socket's path has 1 to %zu bytes, this one has %zu",
                     sizeof(server->address.sun_path) - 1, length);
        free(server);
        return NULL;
    }
    memcpy(server->address.sun_path, path, length + 1);

    int rc = make_directories(path);
    if (rc != 0) {
        problems_add(problems, path, "cannot make the socket's directory: %s", strerror(-rc));
        free(server);
        return NULL;
    }
    int lock = lock_directory(path);
    int fd = open_listener(&server->address, problems);
    if (lock >= 0) {
        close(lock);
    }
    if (fd < 0) {
        free(server);
        return NULL;
    }
    struct stat status;
    if (lstat(path, &status) == 0) {
        server->device = status.st_dev;
        server->inode = status.st_ino;
    }

    server->listener = (struct event_fd){.fd = fd, .ready = server_accept, .context = server};
    server->work = (struct event_timer){.expired = server_work, .context = server};
    server->accept_pause = (struct event_timer){.expired = server_accept_again, .context = server};
    rc = event_fd_add(&server->listener, EPOLLIN);
    if (rc != 0) {
        problems_add(problems, path, "cannot watch the control socket: %s", strerror(-rc));
        unlink(path);
        close(fd);
        free(server);
        return NULL;
    }
    raise_file_limit();
    return server;
}

void server_free(struct server *server) {
    if (!server) {
        return;
    }
    struct client *client;
    while ((client = TAILQ_FIRST(&server->clients))) {
        client_close(client);
    }
    event_timer_stop(&server->work);
    event_timer_stop(&server->accept_pause);
    event_fd_remove(&server->listener);
    close(server->listener.fd);
    struct stat status;
    if (lstat(server->address.sun_path, &status) == 0 && status.st_dev == server->device &&
        status.st_ino == server->inode) {
        unlink(server->address.sun_path);
    }
    free(server);
}

size_t server_clients(const struct server *server) {
    return server->client_count;
}
