/*
 * The JSON-RPC server: what is said on a connection (without a socket, so that every way to cut the
 * bytes can be tried), and then real UNIX sockets, with client and server in this one process.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/connection.h"
#include "control/json_text.h"
#include "control/server.h"
#include "core/event.h"
#include "core/log.h"
#include "json/rpc.h"
#include "skip.h"

/* ---- methods ---- */

static unsigned calls;

static json_t *test_echo(struct rpc_request *request) {
    calls++;
    return request->params ? json_incref((json_t *)(uintptr_t)request->params) : json_null();
}
RPC_METHOD(test_echo, "test.echo", "Returns its parameters.")

static json_t *test_fail(struct rpc_request *request) {
    calls++;
    request->code = RPC_NOT_FOUND;
    problems_add(&request->problems, "$.name", "there is no interface of this name");
    problems_add(&request->problems, "$.x", "caf\303");
    return NULL;
}
RPC_METHOD(test_fail, "test.fail", "Fails with two problems.")

static json_t *test_dumb(struct rpc_request *request) {
    (void)request;
    return NULL;
}
RPC_METHOD(test_dumb, "test.dumb", "Fails without a word.")

enum { BIG = 256 << 10 };
static json_t *test_big(struct rpc_request *request) {
    (void)request;
    static char text[BIG + 1];
    if (!text[0]) {
        memset(text, 'x', BIG);
    }
    calls++;
    return json_string(text);
}
RPC_METHOD(test_big, "test.big", "Returns a quarter of a megabyte.")

/* ---- connections without sockets ---- */

static char *text_of(const struct connection *c) {
    size_t length;
    const char *data = connection_output(c, &length);
    return strndup(data, length);
}

/* The output for an input that comes in pieces of `piece` bytes, the first of `first`. */
static char *converse(const char *input, size_t length, size_t first, size_t piece) {
    struct connection c;
    connection_init(&c);
    for (size_t at = 0; at < length;) {
        size_t n = at == 0 ? first : piece;
        n = n < length - at ? n : length - at;
        /* In a block of its own, so that reading past a piece is noticed. */
        char *block = malloc(n ? n : 1);
        memcpy(block, input + at, n);
        connection_feed(&c, block, n);
        free(block);
        at += n;
        while (connection_runnable(&c)) {
            connection_run(&c);
        }
        size_t waiting;
        connection_output(&c, &waiting);
        assert_true(connection_wants_input(&c) || c.closing || waiting > CONNECTION_UNSENT_MAX);
    }
    connection_end_input(&c);
    while (connection_runnable(&c)) {
        connection_run(&c);
    }
    assert_false(c.failed);
    char *text = text_of(&c);
    connection_sent(&c, strlen(text));
    assert_true(connection_finished(&c));
    connection_free(&c);
    return text;
}

static void expect(const char *input, const char *output) {
    size_t length = strlen(input);
    char *whole = converse(input, length, length, length);
    assert_string_equal(whole, output);
    free(whole);
    for (size_t first = 1; first < length; first++) { /* every cut in two */
        char *text = converse(input, length, first, length);
        assert_string_equal(text, output);
        free(text);
    }
    for (size_t piece = 1; piece < 4; piece++) {
        char *text = converse(input, length, piece, piece);
        assert_string_equal(text, output);
        free(text);
    }
}

#define ECHO(id, params) \
    "{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\",\"params\":" params ",\"id\":" id "}"
#define RESULT(id, result) "{\"jsonrpc\":\"2.0\",\"result\":" result ",\"id\":" id "}"
#define ERROR(id, code, message) \
    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":" code ",\"message\":\"" message "\"},\"id\":" id "}"
#define FAULT(code, message, position, line, column)                                            \
    "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":" code ",\"message\":\"" message " at line " line \
    ", column " column " of the request\",\"data\":{\"position\":" position ",\"line\":" line   \
    ",\"column\":" column "}},\"id\":null}\n"

static void test_framing(void **state) {
    (void)state;
    expect("", "");
    expect(" \n\r\n\t ", "");
    expect(ECHO("1", "[]"), RESULT("1", "[]") "\n");
    expect(ECHO("1", "[1]") "\n" ECHO("2", "{}") "\r\n",
           RESULT("1", "[1]") "\n" RESULT("2", "{}") "\n");
    expect(ECHO("1", "[]") ECHO("2", "[]"), RESULT("1", "[]") "\n" RESULT("2", "[]") "\n");
    /* Pretty-printed; brackets, quotes and backslashes inside strings; and RFC 7464. */
    expect("{\n  \"jsonrpc\" : \"2.0\",\n\t\"method\" : \"test.echo\",\n  \"params\" : [\n    "
           "\"}]\\\"\\\\\", { \"a\\\\\" : [ ] }\n  ],\n  \"id\" : \"x\"\n}\n\n\x1e" ECHO("2",
                                                                                         "[]") "\n",
           RESULT("\"x\"", "[\"}]\\\"\\\\\",{\"a\\\\\":[]}]") "\n" RESULT("2", "[]") "\n");
    expect("{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\",\"id\":1}", RESULT("1", "null") "\n");
}

static void test_ids(void **state) {
    (void)state;
    expect(ECHO("null", "[]"), RESULT("null", "[]") "\n");
    expect(ECHO("\"\303\251\"", "[]"), RESULT("\"\303\251\"", "[]") "\n");
    expect(ECHO("-9223372036854775808", "[]"), RESULT("-9223372036854775808", "[]") "\n");
    expect(ECHO("1.5", "[]"), RESULT("1.5", "[]") "\n");
    expect(ECHO("[1]", "[]"),
           ERROR("null", "-32600", "\\\"id\\\" must be a string, a number or null") "\n");
}

static void test_invalid_requests(void **state) {
    (void)state;
    expect("1 \"a\" null\n",
           ERROR("null", "-32600", "a request must be an object") "\n" ERROR(
               "null", "-32600",
               "a request must be an object") "\n" ERROR("null", "-32600",
                                                         "a request must be an object") "\n");
    expect("{}", ERROR("null", "-32600", "\\\"jsonrpc\\\" must be \\\"2.0\\\"") "\n");
    expect("{\"jsonrpc\":\"2.0\",\"method\":1,\"params\":\"bar\"}",
           ERROR("null", "-32600", "\\\"method\\\" must be a string") "\n");
    expect("{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\",\"params\":\"bar\",\"id\":7}",
           ERROR("7", "-32600", "\\\"params\\\" must be an object or an array") "\n");
    expect("{\"jsonrpc\":\"2.0\",\"method\":\"no.such\",\"id\":\"7\"}",
           ERROR("\"7\"", "-32601",
                 "there is no method \\\"no.such\\\"; system.methods lists all") "\n");
}

static void test_failing_methods(void **state) {
    (void)state;
    expect("{\"jsonrpc\":\"2.0\",\"method\":\"test.fail\",\"id\":1}",
           "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32001,\"message\":\"there is no interface of "
           "this name\",\"data\":{\"path\":\"$.name\",\"problems\":[{\"path\":\"$.name\","
           "\"message\":\"there is no interface of this name\"},{\"path\":\"$.x\",\"message\":"
           "\"caf?\"}]}},\"id\":1}\n");
    expect("{\"jsonrpc\":\"2.0\",\"method\":\"test.dumb\",\"id\":1}",
           ERROR("1", "-32603", "the method failed and did not say why") "\n");
}

static void test_notifications(void **state) {
    (void)state;
    calls = 0;
    static const char input[] = "{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\"}"
                                "{\"jsonrpc\":\"2.0\",\"method\":\"test.fail\"}"
                                "{\"jsonrpc\":\"2.0\",\"method\":\"no.such\"}";
    char *text = converse(input, strlen(input), strlen(input), 1);
    assert_string_equal(text, "");
    assert_int_equal(calls, 2);
    free(text);
}

static void test_batches(void **state) {
    (void)state;
    expect("[]", ERROR("null", "-32600", "a batch must hold at least one request") "\n");
    expect("[1,[]]", "[" ERROR("null", "-32600", "a request must be an object") "," ERROR(
                         "null", "-32600", "a request must be an object") "]\n");
    expect(
        "[" ECHO("1", "[]") ",{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\"}, {\"foo\":1},\n" ECHO(
            "2", "{\"a\":1}") "]\n" ECHO("3", "[]"),
        "[" RESULT("1", "[]") "," ERROR(
            "null", "-32600",
            "\\\"jsonrpc\\\" must be \\\"2.0\\\"") "," RESULT("2",
                                                              "{\"a\":1}") "]\n" RESULT("3",
                                                                                        "[]") "\n");
    expect("[{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\"},"
           "{\"jsonrpc\":\"2.0\",\"method\":\"no.such\"}]\n" ECHO("1", "[]"),
           RESULT("1", "[]") "\n");
}

static void test_garbage(void **state) {
    (void)state;
    /* One error per bad line, and the next line is understood. */
    expect("GET / HTTP/1.1\r\nHost: x\r\n\r\n" ECHO("1", "[]") "\n",
           FAULT("-32700", "invalid token", "2", "1", "3")
               FAULT("-32700", "invalid token", "3", "1", "4") RESULT("1", "[]") "\n");
    expect("}{}\n" ECHO("1", "[]"),
           FAULT("-32700", "expected a value, found '}'", "0", "1", "1") RESULT("1", "[]") "\n");
    expect("{\"jsonrpc\":\"2.0\", method:\"x\"}\n" ECHO("1", "[]"),
           FAULT("-32700", "expected a key in double quotes, found 'm'", "18", "1", "19")
               RESULT("1", "[]") "\n");
    /* A bracket or quote left open is noticed before it swallows what follows. */
    expect("{\"a\":\"b}\n" ECHO("1", "[]"),
           FAULT("-32700", "expected the closing '\\\"' of a string, found the end of the line",
                 "8", "1", "9") RESULT("1", "[]") "\n");
    expect("{\"a\":[1}\n" ECHO("1", "[]"),
           FAULT("-32700", "expected ',' or ']', found '}'", "7", "1", "8") RESULT("1", "[]") "\n");
    expect("{\"a\":\n1\n\"b\"}\n" ECHO("1", "[]"),
           FAULT("-32700", "expected ',' or '}', found '\\\"'", "8", "3", "1")
               RESULT("1", "[]") "\n");
    /* The parser's own faults, inside brackets that are right. */
    expect("[01]" ECHO("1", "[]"),
           FAULT("-32700", "invalid token", "1", "1", "2") RESULT("1", "[]") "\n");
    expect("{\"a\":1,\"a\":2}" ECHO("1", "[]"),
           FAULT("-32700", "duplicate object key", "9", "1", "10") RESULT("1", "[]") "\n");
    /* The end. */
    expect("{\"a\":", FAULT("-32700", "expected a value, found the end", "5", "1", "6"));
    expect("[\"", FAULT("-32700", "expected the closing '\\\"' of a string, found the end", "2",
                        "1", "3"));
    expect("tru", FAULT("-32700", "invalid token", "2", "1", "3"));
}

static void test_bytes_that_are_no_text(void **state) {
    (void)state;
    char input[256];
    for (unsigned byte = 0; byte < 256; byte++) {
        int length = snprintf(input, sizeof(input), "[\"x\"x]\n%s\n", ECHO("1", "[]"));
        for (int at = 0; at < 6; at++) {
            char copy[256];
            memcpy(copy, input, (size_t)length);
            copy[at] = (char)byte;
            char *text = converse(copy, (size_t)length, 1, 1);
            assert_non_null(strstr(text, "}\n")); /* something was said, on whole lines */
            size_t said = strlen(text);
            assert_int_equal(text[said - 1], '\n');
            for (char *line = text; *line; line = strchr(line, '\n') + 1) {
                json_t *reply = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
                assert_non_null(reply);
                json_decref(reply);
            }
            free(text);
        }
    }
}

static void test_nesting(void **state) {
    (void)state;
    enum { LEVELS = JSON_SCAN_MAX_DEPTH };
    char input[4 * LEVELS + 256];
    size_t n = (size_t)sprintf(input, "{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\",\"params\":");
    memset(input + n, '[', LEVELS - 1);
    memset(input + n + LEVELS - 1, ']', LEVELS - 1);
    strcpy(input + n + 2 * (LEVELS - 1), ",\"id\":1}\n");
    char *text = converse(input, strlen(input), strlen(input), 1);
    assert_memory_equal(text, "{\"jsonrpc\":\"2.0\",\"result\":[[", 28);
    free(text);

    memset(input + n, '[', LEVELS);
    memset(input + n + LEVELS, ']', LEVELS);
    strcpy(input + n + 2 * LEVELS, ",\"id\":1}\n" ECHO("2", "[]"));
    text = converse(input, strlen(input), strlen(input), 1);
    assert_string_equal(text, FAULT("-32005", "nested deeper than 512 levels", "558", "1", "559")
                                  RESULT("2", "[]") "\n");
    free(text);

    /* Megabytes of brackets cost neither stack nor memory. */
    struct connection c;
    connection_init(&c);
    char block[CONNECTION_READ_SIZE];
    memset(block, '[', sizeof(block));
    for (unsigned i = 0; i < 1000; i++) {
        connection_feed(&c, block, sizeof(block));
        while (connection_runnable(&c)) {
            connection_run(&c);
        }
    }
    assert_true(c.in.capacity <= 2 * CONNECTION_READ_SIZE);
    assert_true(connection_wants_input(&c));
    connection_free(&c);
}

/* A connection takes part of a turn only: a limited number of requests per run. */
static void test_runs_are_bounded(void **state) {
    (void)state;
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\"},";
    struct connection c;
    connection_init(&c);
    connection_feed(&c, "[", 1);
    for (unsigned i = 0; i < 1000; i++) {
        connection_feed(&c, request, sizeof(request) - (i == 999 ? 2 : 1));
    }
    connection_feed(&c, "]", 1);
    calls = 0;
    unsigned before = 0;
    unsigned runs = 0;
    while (connection_runnable(&c)) {
        connection_run(&c);
        assert_true(calls - before <= CONNECTION_RUN_REQUESTS);
        before = calls;
        runs++;
    }
    assert_int_equal(calls, 1000);
    assert_true(runs >= 1000 / CONNECTION_RUN_REQUESTS);
    connection_free(&c);
}

/* Within a batch, too, work stops when too much output waits, and goes on when it was sent. */
static void test_output_is_bounded(void **state) {
    (void)state;
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"method\":\"test.big\",\"id\":1},";
    struct connection c;
    connection_init(&c);
    connection_feed(&c, "[", 1);
    for (unsigned i = 0; i < 50; i++) {
        connection_feed(&c, request, sizeof(request) - (i == 49 ? 2 : 1));
    }
    connection_feed(&c, "]", 1);
    calls = 0;
    size_t total = 0;
    size_t length;
    while (!connection_wants_input(&c) || connection_runnable(&c)) {
        while (connection_runnable(&c)) {
            connection_run(&c);
        }
        const char *data = connection_output(&c, &length);
        assert_true(length <= CONNECTION_UNSENT_MAX + BIG + 100);
        assert_true(length > 0);
        assert_int_equal(data[0] == '[', total == 0);
        length = length < 300000 ? length : 300000;
        connection_sent(&c, length);
        total += length;
    }
    connection_output(&c, &length);
    total += length;
    assert_int_equal(calls, 50);
    assert_true(total > (size_t)50 * BIG && total < (size_t)50 * (BIG + 100));
    connection_free(&c);
}

/* The longest request is taken, one byte more is not. */
static void test_request_size(void **state) {
    (void)state;
    static const char head[] = "{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\",\"params\":[\"";
    static const char tail[] = "\"],\"id\":1}";
    size_t fill = CONNECTION_REQUEST_MAX - strlen(head) - strlen(tail);
    for (unsigned over = 0; over < 2; over++) {
        size_t length = CONNECTION_REQUEST_MAX + over;
        char *input = malloc(length + 1);
        memset(input, 'x', length);
        memcpy(input, head, strlen(head));
        strcpy(input + strlen(head) + fill + over, tail);
        char *text = converse(input, length, CONNECTION_READ_SIZE, CONNECTION_READ_SIZE);
        if (over) {
            assert_string_equal(
                text, ERROR("null", "-32005", "the request is longer than 16777216 bytes") "\n");
        } else {
            assert_memory_equal(text, "{\"jsonrpc\":\"2.0\",\"result\":[\"xxx", 31);
        }
        free(text);
        free(input);
    }
}

/* ---- sockets ---- */

static char directory[64];
static char path[108];
static struct server *server;

static int setup(void **state) {
    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    strcpy(directory, "/tmp/test_server.XXXXXX");
    if (!mkdtemp(directory) || event_init() != 0) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/run/router/control.sock", directory);
    struct problems problems = {0};
    server = server_new(path, &problems);
    return server ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    server_free(server);
    server = NULL;
    event_free();
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static void turns(unsigned count) {
    while (count-- > 0) {
        event_turn(0);
    }
}

static int dial(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    while (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        assert_int_equal(errno, EAGAIN); /* the backlog is full */
        event_turn(0);
    }
    return fd;
}

/* The text many times over, in as few pieces as the socket takes. */
static void say_often(int fd, const char *text, unsigned count) {
    size_t length = strlen(text);
    char *all = malloc(length * count);
    for (unsigned i = 0; i < count; i++) {
        memcpy(all + i * length, text, length);
    }
    assert_int_equal(send(fd, all, length * count, MSG_NOSIGNAL), (ssize_t)(length * count));
    free(all);
}

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads what is there into `text`; true when the other side has closed. */
static bool hear(int fd, char *text, size_t size, size_t *length) {
    while (*length < size - 1) {
        ssize_t got = recv(fd, text + *length, size - 1 - *length, 0);
        if (got <= 0) {
            text[*length] = '\0';
            return got == 0 || errno != EAGAIN;
        }
        *length += (size_t)got;
    }
    text[*length] = '\0';
    return false;
}

/* Turns the loop until the client has a line, or the other side has closed. */
static char *listen_to(int fd) {
    static char text[4096];
    size_t length = 0;
    for (unsigned i = 0; i < 10000; i++) {
        event_turn(0);
        if (hear(fd, text, sizeof(text), &length) || (length > 0 && text[length - 1] == '\n')) {
            break;
        }
    }
    return text;
}

static bool is_closed(int fd) {
    char text[16384];
    size_t length = 0;
    bool closed;
    while (!(closed = hear(fd, text, sizeof(text), &length)) && length > 0) {
        length = 0;
    }
    return closed;
}

static void test_socket_file(void **state) {
    (void)state;
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    assert_int_equal(status.st_mode & 07777, 0660);
    char parent[128];
    snprintf(parent, sizeof(parent), "%s/run/router", directory);
    assert_int_equal(stat(parent, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0755);

    /* A second router is refused, and does the first no harm. */
    struct problems problems = {0};
    assert_null(server_new(path, &problems));
    assert_int_equal(problems.count, 1);
    assert_string_equal(problems.list[0].path, path);
    assert_non_null(strstr(problems.list[0].message, "another program listens"));
    problems_free(&problems);
    int fd = dial();
    say(fd, ECHO("1", "[]"));
    assert_string_equal(listen_to(fd), RESULT("1", "[]") "\n");
    close(fd);

    server_free(server);
    assert_int_not_equal(access(path, F_OK), 0);

    /* An abandoned socket is replaced. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    server = server_new(path, &problems);
    assert_non_null(server);
    fd = dial();
    say(fd, ECHO("1", "[]"));
    assert_string_equal(listen_to(fd), RESULT("1", "[]") "\n");
    close(fd);

    /* What has taken the socket's place meanwhile is not removed. */
    assert_int_equal(unlink(path), 0);
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    server_free(server);
    server = NULL;
    assert_int_equal(access(path, F_OK), 0);
    assert_null(server_new(path, &problems));
    assert_non_null(strstr(problems.list[0].message, "is not a socket"));
    problems_free(&problems);

    char too_long[200];
    memset(too_long, 'x', sizeof(too_long));
    too_long[sizeof(too_long) - 1] = '\0';
    assert_null(server_new(too_long, &problems));
    assert_null(server_new("", &problems));
    assert_null(server_new("/proc/none/x.sock", &problems));
    assert_int_equal(problems.count, 3);
    assert_non_null(strstr(problems.list[0].message, "1 to 107 bytes, this one has 199"));
    assert_non_null(strstr(problems.list[2].message, "cannot make the socket's directory"));
    problems_free(&problems);
}

static void test_many_clients(void **state) {
    (void)state;
    /* The clients are in this process too, so it needs twice what the server makes sure of. */
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t wanted = 2 * SERVER_CLIENTS_MAX + 64;
    if (limit.rlim_max < wanted) {
        SKIP_CASE("a process may have too few open files here");
    }
    limit.rlim_cur = limit.rlim_cur < wanted ? wanted : limit.rlim_cur;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    static int fds[SERVER_CLIENTS_MAX];
    for (unsigned i = 0; i < SERVER_CLIENTS_MAX; i++) {
        fds[i] = dial();
        say(fds[i], ECHO("1", "[]"));
    }
    turns(1000);
    assert_int_equal(server_clients(server), SERVER_CLIENTS_MAX);
    for (unsigned i = 0; i < SERVER_CLIENTS_MAX; i++) {
        assert_string_equal(listen_to(fds[i]), RESULT("1", "[]") "\n");
    }
    /* One too many. */
    int extra = dial();
    assert_string_equal(listen_to(extra),
                        ERROR("null", "-32002", "1024 clients are connected already") "\n");
    assert_true(is_closed(extra));
    close(extra);
    /* The others do not notice, and a place that becomes free is free. */
    close(fds[0]);
    turns(5);
    assert_int_equal(server_clients(server), SERVER_CLIENTS_MAX - 1);
    fds[0] = dial();
    for (unsigned i = 0; i < SERVER_CLIENTS_MAX; i += 100) {
        say(fds[i], ECHO("2", "[]"));
        assert_string_equal(listen_to(fds[i]), RESULT("2", "[]") "\n");
    }
    event_advance(10 * SERVER_PATIENCE_MSEC); /* idle clients may stay */
    turns(5);
    assert_int_equal(server_clients(server), SERVER_CLIENTS_MAX);
    for (unsigned i = 0; i < SERVER_CLIENTS_MAX; i++) {
        close(fds[i]);
    }
    turns(200);
    assert_int_equal(server_clients(server), 0);
}

/* Clients that ask for megabytes and never read them. */
static void test_clients_that_never_read(void **state) {
    (void)state;
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"method\":\"test.big\",\"id\":1}\n";
    int deaf[4];
    for (unsigned i = 0; i < 4; i++) {
        deaf[i] = dial();
    }
    calls = 0;
    for (unsigned i = 0; i < 20000; i++) {
        ssize_t sent = send(deaf[i % 4], request, sizeof(request) - 1, MSG_NOSIGNAL);
        assert_true(sent > 0 || errno == EAGAIN);
        if (i % 16 == 0) {
            event_turn(0);
        }
    }
    turns(100);
    /* So much for each, then no more was carried out. */
    enum { ENOUGH = CONNECTION_UNSENT_MAX / BIG };
    assert_in_range(calls, 4 * ENOUGH, 4 * (ENOUGH + 2));
    int fd = dial();
    say(fd, ECHO("1", "[]"));
    assert_string_equal(listen_to(fd), RESULT("1", "[]") "\n");
    assert_int_equal(server_clients(server), 5);

    /* One of them reads something now and then: that is progress. */
    char text[65536];
    for (unsigned i = 0; i < 3; i++) {
        event_advance(SERVER_PATIENCE_MSEC * 2 / 3);
        assert_true(recv(deaf[0], text, sizeof(text), 0) > 0);
        turns(5);
    }
    assert_int_equal(server_clients(server), 2); /* it, and the good one */
    assert_true(is_closed(deaf[1]));
    say(fd, ECHO("2", "[]"));
    assert_string_equal(listen_to(fd), RESULT("2", "[]") "\n");
    for (unsigned i = 0; i < 4; i++) {
        close(deaf[i]);
    }
    close(fd);
    turns(100);
    assert_int_equal(server_clients(server), 0);
}

static void test_half_requests(void **state) {
    (void)state;
    int half[100];
    for (unsigned i = 0; i < 100; i++) {
        half[i] = dial();
        say(half[i], "{\"jsonrpc\":\"2.0\",\"meth");
    }
    turns(20);
    int fd = dial();
    say(fd, ECHO("1", "[]"));
    assert_string_equal(listen_to(fd), RESULT("1", "[]") "\n");
    event_advance(SERVER_PATIENCE_MSEC - 1000);
    say(half[0], "od\":\"test.echo\",");
    turns(5);
    event_advance(1000);
    turns(5);
    assert_string_equal(
        listen_to(half[1]),
        ERROR("null", "-32600", "the request was not finished within 30 seconds") "\n");
    assert_true(is_closed(half[1]));
    say(half[0], "\"id\":1}");
    assert_string_equal(listen_to(half[0]), RESULT("1", "null") "\n");
    event_advance(SERVER_LINGER_MSEC);
    turns(5);
    assert_int_equal(server_clients(server), 2);
    for (unsigned i = 0; i < 100; i++) {
        close(half[i]);
    }
    close(fd);
}

/* Sends `total` bytes of 'x' as the server takes them; returns what could be sent. */
static size_t flood(int fd, size_t total) {
    static char block[CONNECTION_READ_SIZE];
    memset(block, 'x', sizeof(block));
    size_t sent = 0;
    unsigned stuck = 0;
    while (sent < total && stuck < 1000) {
        ssize_t n = send(fd, block, sizeof(block), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            break;
        }
        sent += n > 0 ? (size_t)n : 0;
        stuck = n > 0 ? 0 : stuck + 1;
        event_turn(0);
    }
    return sent;
}

static void test_a_line_of_100_megabytes(void **state) {
    (void)state;
    int fd = dial();
    say(fd, "[\"");
    size_t sent = flood(fd, 100 << 20);
    assert_true(sent >= 100 << 20); /* so that a client which only writes gets to reading */
    assert_string_equal(listen_to(fd),
                        ERROR("null", "-32005", "the request is longer than 16777216 bytes") "\n");
    assert_true(is_closed(fd));
    close(fd);
    turns(20);
    assert_int_equal(server_clients(server), 0);

    /* One that never stops is cut off. */
    fd = dial();
    say(fd, "[\"");
    flood(fd, 17 << 20);
    event_advance(SERVER_LINGER_MSEC);
    turns(5);
    assert_int_equal(server_clients(server), 0);
    close(fd);

    /* Garbage without an end costs no memory, and is skipped up to the next line. */
    fd = dial();
    say(fd, "@");
    flood(fd, 100 << 20);
    say(fd, "\n" ECHO("1", "[]"));
    char text[1024];
    size_t length = 0;
    turns(20);
    hear(fd, text, sizeof(text), &length);
    assert_string_equal(text, FAULT("-32700", "expected a value, found '@'", "0", "1", "1")
                                  RESULT("1", "[]") "\n");
    close(fd);
}

/* A client that closes its sending side gets all replies, then the end. */
static void test_half_close(void **state) {
    (void)state;
    int fd = dial();
    say_often(fd, ECHO("1", "[]") "\n", 500);
    say(fd, "[1");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    unsigned lines = 0;
    bool closed = false;
    char last[4096] = "";
    for (unsigned i = 0; i < 1000 && !closed; i++) {
        char text[4096];
        size_t length = 0;
        event_turn(0);
        closed = hear(fd, text, sizeof(text), &length);
        for (size_t j = 0; j < length; j++) {
            lines += text[j] == '\n';
        }
        if (length > 0) {
            strcpy(last, text);
        }
    }
    assert_true(closed);
    assert_int_equal(lines, 501);
    assert_non_null(strstr(last, "expected ',' or ']', found the end"));
    assert_int_equal(server_clients(server), 0);
    close(fd);
}

/* One that closes altogether has its requests carried out. */
static void test_close_after_requests(void **state) {
    (void)state;
    calls = 0;
    int fd = dial();
    say_often(fd, ECHO("1", "[]") "{\"jsonrpc\":\"2.0\",\"method\":\"test.echo\"}\n", 250);
    close(fd);
    turns(200);
    assert_int_equal(calls, 500);
    assert_int_equal(server_clients(server), 0);
}

/* A client with a great deal of work does not keep another waiting. */
static void test_fairness(void **state) {
    (void)state;
    int busy = dial();
    int other = dial();
    turns(2);
    say_often(busy, "[1,1,1,1,1,1,1,1]", 1000);
    turns(1);
    say(other, ECHO("1", "[]"));
    turns(2);
    char text[256];
    size_t length = 0;
    hear(other, text, sizeof(text), &length);
    assert_string_equal(text, RESULT("1", "[]") "\n");
    length = 0;
    char many[1 << 16];
    hear(busy, many, sizeof(many), &length);
    assert_true(length > 0 && length < 5 * CONNECTION_RUN_REQUESTS * 100);
    close(busy);
    close(other);
}

/* Clients that come, say parts of things and go, at any moment. */
static void test_chaos(void **state) {
    (void)state;
    static const char *const pieces[] = {
        ECHO("1", "[]") "\n",
        "{\"jsonrpc\":",
        "[",
        "]",
        "\"",
        "garbage\n",
        "[1,2,3]\n",
        "\n",
        "{\"jsonrpc\":\"2.0\",\"method\":\"test.big\",\"id\":1}\n",
        "}",
        ECHO("2", "{}"),
        "\\",
        "[{\"jsonrpc\":\"2.0\",\"method\":\"test.big\",\"id\":1},1,2,3,4,5,6,7,8,9,0,1,2]",
    };
    int fds[32];
    unsigned seed = 7;
    for (unsigned i = 0; i < 32; i++) {
        fds[i] = -1;
    }
    for (unsigned step = 0; step < 5000; step++) {
        int *fd = &fds[(unsigned)rand_r(&seed) % 32];
        if (*fd < 0) {
            *fd = dial();
        }
        const char *piece = pieces[(unsigned)rand_r(&seed) % (sizeof(pieces) / sizeof(pieces[0]))];
        char text[4096];
        switch (rand_r(&seed) % 12) {
        case 0:
            close(*fd);
            *fd = -1;
            break;
        case 1:
            shutdown(*fd, rand_r(&seed) % 2 ? SHUT_WR : SHUT_RD);
            break;
        case 2:
            event_advance(1000);
            break;
        case 3:
        case 4:
            if (recv(*fd, text, sizeof(text), 0) == 0) {
                close(*fd);
                *fd = -1;
            }
            break;
        default:
            if (send(*fd, piece, strlen(piece), MSG_NOSIGNAL) < 0 && errno != EAGAIN) {
                close(*fd);
                *fd = -1;
            }
        }
        turns((unsigned)rand_r(&seed) % 3);
    }
    for (unsigned i = 0; i < 32; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    turns(500);
    assert_int_equal(server_clients(server), 0);
    int fd = dial();
    say(fd, ECHO("1", "[]"));
    assert_string_equal(listen_to(fd), RESULT("1", "[]") "\n");
    close(fd);
    dial(); /* left to server_free(), on purpose; the descriptor goes with the process */
    turns(3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_invalid_requests),
        cmocka_unit_test(test_failing_methods),
        cmocka_unit_test(test_notifications),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_bytes_that_are_no_text),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_runs_are_bounded),
        cmocka_unit_test(test_output_is_bounded),
        cmocka_unit_test(test_request_size),
        cmocka_unit_test_setup_teardown(test_socket_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clients_that_never_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_line_of_100_megabytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_after_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fairness, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chaos, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
