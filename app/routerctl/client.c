/*
 * The JSON-RPC client. Requests and replies may be large (a configuration with a million routes),
 * so both directions are served at once: a router that refuses a request early may answer and close
 * while the rest is still being sent, and that answer must reach the user.
 *
 * What can go wrong: nobody listens, the router dies in the middle of a reply, falls silent, or
 * something else entirely sits at the socket. Each gets its own sentence.
 */
#include "client.h"

#include "interrupt.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct client {
    char *path;
    int fd; /* -1: not connected */
    json_int_t last_id;
    char *reply; /* bytes received, not yet used */
    size_t reply_length;
    size_t reply_capacity;
    bool in_step; /* the request was sent whole, so that the next one may follow */
};

struct client *client_new(const char *path) {
    struct client *client = calloc(1, sizeof(*client));

    if (client == NULL || (client->path = strdup(path)) == NULL)
        abort();
    client->fd = -1;
    return client;
}

static void disconnect(struct client *client) {
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->reply_length = 0;
}

void client_free(struct client *client) {
    if (client == NULL)
        return;
    disconnect(client);
    free(client->reply);
    free(client->path);
    free(client);
}

void failure_free(struct failure *failure) {
    free(failure->text);
    json_decref(failure->data);
    *failure = (struct failure){0};
}

/* No usable answer: notes the sentence and gives the connection up. Always returns false. */
static bool fail(struct client *client, struct failure *failure, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool fail(struct client *client, struct failure *failure, const char *format, ...) {
    va_list arguments;

    disconnect(client);
    failure->status = STATUS_CONNECT;
    va_start(arguments, format);
    if (vasprintf(&failure->text, format, arguments) < 0)
        abort();
    va_end(arguments);
    return false;
}

static bool fail_interrupted(struct client *client, struct failure *failure) {
    failure->interrupted = true;
    return fail(client, failure, "interrupted");
}

static const char *connect_reason(int error) {
    switch (error) {
    case ENOENT:
        return "no such file; is dpdk-router running?";
    case ECONNREFUSED:
        return "nobody listens there; is dpdk-router running?";
    case EACCES:
        return "permission denied; try as root or as a member of the socket's group";
    default:
        return strerror(error);
    }
}

static bool connect_router(struct client *client, struct failure *failure) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(client->path) >= sizeof(address.sun_path))
        return fail(client, failure, "cannot connect to %s: a socket's path has at most %zu bytes",
                    client->path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, client->path, strlen(client->path));
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fail(client, failure, "cannot connect to %s: %s", client->path,
                    connect_reason(errno));
    return true;
}

bool client_connected(const struct client *client) {
    struct pollfd watch = {.fd = client->fd, .events = POLLIN};

    /* Between calls the router has nothing to say: readable means closed (or out of step). */
    return client->fd >= 0 && poll(&watch, 1, 0) == 0;
}

/* Reads what is there. Returns 1 for data, 0 at the end of the stream, -1 with errno. */
static int receive(struct client *client) {
    if (client->reply_capacity - client->reply_length < 65536) {
        size_t capacity = client->reply_capacity ? client->reply_capacity * 2 : 131072;
        char *grown = realloc(client->reply, capacity);
        if (grown == NULL) {
            errno = ENOMEM;
            return -1;
        }
        client->reply = grown;
        client->reply_capacity = capacity;
    }
    ssize_t got = recv(client->fd, client->reply + client->reply_length,
                       client->reply_capacity - client->reply_length, MSG_DONTWAIT);
    if (got > 0)
        client->reply_length += (size_t)got;
    return got > 0 ? 1 : (int)got;
}

static bool again(int error) {
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

static bool lost(struct client *client, struct failure *failure) {
    return fail(client, failure, "%s",
                client->reply_length > 0
                    ? "the router closed the connection in the middle of its reply"
                    : "the router closed the connection without a reply; has it been stopped?");
}

/* Sends the request and receives one line. The timeout counts silence, not the whole time. */
static bool exchange(struct client *client, const char *request, size_t length, int timeout,
                     struct failure *failure, size_t *line_length) {
    size_t sent = 0, searched = 0;
    bool writable = true; /* false once the router stopped reading; its answer may still come */

    for (;;) {
        char *newline = client->reply_length > searched ? memchr(client->reply + searched, '\n',
                                                                 client->reply_length - searched)
                                                        : NULL;
        if (newline != NULL) {
            *line_length = (size_t)(newline - client->reply);
            client->in_step = sent == length;
            return true;
        }
        searched = client->reply_length;

        struct pollfd watch[] = {{.fd = client->fd, .events = POLLIN},
                                 {.fd = interrupt_fd(), .events = POLLIN}};
        if (writable && sent < length)
            watch[0].events |= POLLOUT;
        int ready = poll(watch, 2, timeout * 1000);
        if (interrupt_pending())
            return fail_interrupted(client, failure);
        if (ready < 0) {
            if (errno == EINTR)
                continue;
            return fail(client, failure, "cannot wait for the router: %s", strerror(errno));
        }
        if (ready == 0)
            return fail(client, failure, "the router has not answered for %d seconds", timeout);
        if (watch[0].revents & POLLOUT) {
            ssize_t done =
                send(client->fd, request + sent, length - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (done > 0)
                sent += (size_t)done;
            else if (done < 0 && !again(errno))
                writable = false;
        }
        if (watch[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            int got = receive(client);
            if (got < 0 && errno == ENOMEM)
                return fail(client, failure, "out of memory for the router's reply");
            if (got == 0 || (got < 0 && !again(errno)))
                return lost(client, failure);
        }
    }
}

/* Takes the reply apart. Returns the result or NULL with *failure. */
static json_t *read_reply(struct client *client, size_t line_length, struct failure *failure) {
    json_error_t error;
    json_t *reply = json_loadb(client->reply, line_length, JSON_ALLOW_NUL, &error);

    if (client->reply_length > line_length + 1)
        client->in_step = false; /* nobody asked for more */
    client->reply_length = 0;
    if (!client->in_step)
        disconnect(client);
    if (reply == NULL) {
        fail(client, failure, "the reply from %s is not JSON (%s); is it the router's socket?",
             client->path, error.text);
        return NULL;
    }

    json_t *result = json_object_get(reply, "result");
    const json_t *answer = json_object_get(reply, "error");
    const json_t *id = json_object_get(reply, "id");
    /* A parse error carries a null id (JSON-RPC 2.0, section 5). */
    bool ours = json_integer_value(id) == client->last_id || (json_is_null(id) && answer != NULL);
    if (!ours || (result == NULL && !json_is_object(answer))) {
        fail(client, failure, "the reply from %s is no JSON-RPC reply to the request",
             client->path);
        json_decref(reply);
        return NULL;
    }
    if (result != NULL) {
        json_incref(result);
        json_decref(reply);
        return result;
    }
    const char *message = json_string_value(json_object_get(answer, "message"));
    failure->status = STATUS_ROUTER;
    failure->text = strdup(message ? message : "the router reports an error without a message");
    failure->code = (int)json_integer_value(json_object_get(answer, "code"));
    failure->data = json_incref(json_object_get(answer, "data"));
    json_decref(reply);
    return NULL;
}

json_t *client_call(struct client *client, const char *method, json_t *params, int timeout,
                    struct failure *failure) {
    size_t line_length = 0;

    *failure = (struct failure){0};
    json_t *request =
        json_pack("{s:s, s:I, s:s, s:o*}", "jsonrpc", "2.0", "id",
                  (json_int_t)(client->last_id + 1), "method", method, "params", params);
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    if (text == NULL) {
        fail(client, failure, "the request cannot be written as JSON; its text must be UTF-8");
        return NULL;
    }
    client->last_id++;
    if (!client_connected(client)) {
        disconnect(client);
        if (!connect_router(client, failure)) {
            free(text);
            return NULL;
        }
    }
    size_t length = strlen(text);
    text[length] = '\n'; /* the newline takes the place of the terminator, which is not sent */
    bool answered = exchange(client, text, length + 1, timeout, failure, &line_length);
    free(text);
    return answered ? read_reply(client, line_length, failure) : NULL;
}
