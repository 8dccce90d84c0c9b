/*
 * What an IKE daemon can send to the router's socket: netlink messages of the XFRM protocol,
 * through the real server, its records and the databases that packets meet.
 *
 * An input is a sequence of records: a control byte, two bytes of length (less significant first)
 * and one packet of messages, the last one as long as what is left. The control byte:
 *
 *   bit 0     repair: the packet is one message of its whole length, a request of a known type that
 *             asks for an acknowledgement
 *   bit 1     of a repaired one: as it says itself, it is not to be acknowledged, or a dump
 *   bits 2-3  time that passes afterwards: none, 1 s, 2 minutes, 20 days
 *
 * Each request is answered as it asks for and no more, dumps end, answers carry the number and the
 * port of who asked. An association or policy that can be read says the same when it is written and
 * read again. When an input ends, FLUSHSA and FLUSHPOLICY leave nothing behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/event.h"
#include "ipsec/xfrm_internal.h"
#include "ipsec/xfrm_socket.h"
#include "router.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    RECORDS_PER_INPUT = 32,
    RECORD_HEAD = 3,
    LENGTH_MAX = 9000,   /* more than the server takes */
    PER_PACKET_MAX = 64, /* messages: their answers have to fit into the socket's buffer */
    REQUESTS_MAX = RECORDS_PER_INPUT * PER_PACKET_MAX + 2,
    PORT = 4242,
    FIRST_NUMBER = 1000,
    TYPES = XFRM_MSG_NEWSPDINFO - XFRM_MSG_NEWSA + 1,
};

static char directory[] = "/tmp/fuzz_xfrm-XXXXXX";
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int client;
static uint32_t port;

/* A message that the server has got, and what came back. */
static struct request {
    struct nlmsghdr header;
    bool answered; /* is there any answer to it? */
    bool too_long, dump;
    unsigned errors, data, ends;
    int error;
} requests[REQUESTS_MAX];
static unsigned request_count;

static void require_of(bool condition, const char *what, const struct request *request) {
    if (condition)
        return;
    fprintf(stderr,
            "%s: type %u flags 0x%x number %u; %u errors (%d), %u messages, %u ends came back\n",
            what, request->header.nlmsg_type, request->header.nlmsg_flags,
            request->header.nlmsg_seq, request->errors, request->error, request->data,
            request->ends);
    abort();
}

/* --- answers --- */

static void take_answer(const struct nlmsghdr *answer) {
    unsigned number = answer->nlmsg_seq - FIRST_NUMBER;
    struct request *request = &requests[number < request_count ? number : 0];
    bool event = answer->nlmsg_type == XFRM_MSG_EXPIRE || answer->nlmsg_type == XFRM_MSG_ACQUIRE;

    if (event && answer->nlmsg_seq == 0)
        return;
    require_of(number < request_count, "an answer to nobody", request);
    require_of(answer->nlmsg_pid == port, "an answer to somebody else", request);
    if (answer->nlmsg_type == NLMSG_ERROR) {
        const struct nlmsgerr *error = mnl_nlmsg_get_payload(answer);

        require_of(mnl_nlmsg_get_payload_len(answer) == sizeof(*error), "length", request);
        require_of(memcmp(&error->msg, &request->header, sizeof(error->msg)) == 0,
                   "an error about another message", request);
        request->errors++;
        request->error = error->error;
    } else if (answer->nlmsg_type == NLMSG_DONE) {
        request->ends++;
    } else {
        require_of((bool)(answer->nlmsg_flags & NLM_F_MULTI) == request->dump, "dump", request);
        request->data++;
    }
}

/* Everything that is there; true if there was something. */
static bool take_answers(void) {
    static char buffer[XFRM_MESSAGE_MAX + 1] __attribute__((aligned(16)));
    const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;
    bool any = false;
    ssize_t length;

    while ((length = recv(client, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
        if (length > XFRM_MESSAGE_MAX || !mnl_nlmsg_ok(message, (int)length) ||
            message->nlmsg_len != (uint32_t)length)
            abort();
        take_answer(message);
        any = true;
    }
    if (length == 0)
        abort(); /* the server has closed, though its answers were read */
    return any;
}

static void converse(void) {
    do
        turn();
    while (take_answers());
}

static void check_requests(void) {
    for (unsigned i = 0; i < request_count; i++) {
        const struct request *request = &requests[i];
        bool acknowledged = request->header.nlmsg_flags & NLM_F_ACK;

        if (!request->answered)
            require_of(request->errors + request->data + request->ends == 0, "answered", request);
        else if (request->too_long)
            require_of(request->errors == 1 && request->error == -EMSGSIZE, "too long", request);
        else if (request->dump)
            require_of(request->errors + request->ends == 1, "no end of a dump", request);
        else if (acknowledged || request->errors > 0)
            require_of(request->errors == 1 && (acknowledged || request->error < 0), "acknowledged",
                       request);
        require_of(request->errors == 0 || request->error == 0 || request->data == 0,
                   "an error and an answer", request);
        require_of(request->dump || (request->data <= 1 && request->ends == 0), "answers", request);
    }
}

/* --- what is read is what was written --- */

static char written[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));

static void check_sa(const struct nlmsghdr *message) {
    static struct xfrm_sa sa, again;
    struct xfrm_sa_state state = {0};

    if (xfrm_read_sa(message, &sa) != 0)
        return;
    if (xfrm_read_sa(xfrm_write_sa(written, NULL, &sa, &state), &again) != 0)
        abort();
    again.settings.direction = sa.settings.direction; /* which Linux does not write */
    if (memcmp(&sa.settings, &again.settings, sizeof(sa.settings)) != 0)
        abort();
}

static void check_policy(const struct nlmsghdr *message) {
    static struct xfrm_policy policy, again;

    if (xfrm_read_policy(message, &policy) != 0)
        return;
    if (xfrm_read_policy(xfrm_write_policy(written, NULL, &policy, 0), &again) != 0)
        abort();
    if (memcmp(&policy.settings, &again.settings, sizeof(policy.settings)) != 0)
        abort();
}

/* --- requests --- */

static struct request *note(struct nlmsghdr *message) {
    struct request *request = &requests[request_count];
    uint16_t type = message->nlmsg_type;

    message->nlmsg_seq = FIRST_NUMBER + request_count++;
    *request = (struct request){.header = *message};
    request->answered = type >= NLMSG_MIN_TYPE && message->nlmsg_flags & NLM_F_REQUEST;
    request->dump = request->answered && (type == XFRM_MSG_GETSA || type == XFRM_MSG_GETPOLICY) &&
                    (message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    if (type == XFRM_MSG_NEWSA || type == XFRM_MSG_UPDSA)
        check_sa(message);
    if (type == XFRM_MSG_NEWPOLICY || type == XFRM_MSG_UPDPOLICY)
        check_policy(message);
    return request;
}

/* Numbers all messages of the packet; returns how much of it is sent. */
static size_t note_all(char *packet, size_t length) {
    struct nlmsghdr *message = (struct nlmsghdr *)packet;

    if (length > XFRM_MESSAGE_MAX) {
        struct request *request = note(message);

        request->answered = request->too_long = true;
        request->dump = false;
        return length;
    }
    message = (struct nlmsghdr *)(uintptr_t)xfrm_next_message(packet, length, NULL);
    for (unsigned n = 0; message; n++) {
        if (n == PER_PACKET_MAX)
            return (size_t)((char *)message - packet);
        if (message->nlmsg_type == XFRM_SOCKET_BIND) /* whose port would be another one */
            message->nlmsg_type = NLMSG_NOOP;
        note(message);
        message = (struct nlmsghdr *)(uintptr_t)xfrm_next_message(packet, length, message);
    }
    return length;
}

static void repair(struct nlmsghdr *message, size_t length, bool as_it_says) {
    uint16_t flags = as_it_says ? message->nlmsg_flags : NLM_F_ACK;

    message->nlmsg_len = (uint32_t)length;
    message->nlmsg_type = (uint16_t)(XFRM_MSG_NEWSA + message->nlmsg_type % TYPES);
    message->nlmsg_flags = flags | NLM_F_REQUEST;
}

static void send_packet(uint8_t control, const uint8_t *bytes, size_t length) {
    static char packet[LENGTH_MAX] __attribute__((aligned(16)));
    static const unsigned seconds[] = {0, 1, 120, 20 * 86400};

    memset(packet, 0, sizeof(packet));
    memcpy(packet, bytes, length);
    if (control & 1 && length >= sizeof(struct nlmsghdr))
        repair((struct nlmsghdr *)packet, length, control & 2);
    length = note_all(packet, length);
    if (send(client, packet, length, MSG_NOSIGNAL) != (ssize_t)length)
        abort();
    converse();
    if (seconds[control >> 2 & 3] == 0)
        return;
    event_advance(seconds[control >> 2 & 3] * 1000u);
    converse();
}

static void send_flush(uint16_t type) {
    char packet[64] __attribute__((aligned(16)));
    struct nlmsghdr *message = mnl_nlmsg_put_header(packet);

    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    mnl_nlmsg_put_extra_header(message, sizeof(struct xfrm_usersa_flush));
    send_packet(0, (const uint8_t *)packet, message->nlmsg_len);
    require_of(requests[request_count - 1].error == 0, "not flushed", &requests[request_count - 1]);
}

/* --- the connection --- */

static void connect_client(void) {
    struct {
        struct nlmsghdr header;
        struct xfrm_socket_bind bind;
    } hello = {{.nlmsg_len = sizeof(hello), .nlmsg_type = XFRM_SOCKET_BIND},
               {PORT, 1u << (XFRMNLGRP_EXPIRE - 1) | 1u << (XFRMNLGRP_ACQUIRE - 1)}};

    client = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (client < 0 || connect(client, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        send(client, &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello))
        abort();
    port = PORT;
    request_count = 0;
    converse();
}

static void disconnect_client(void) {
    send_flush(XFRM_MSG_FLUSHSA);
    send_flush(XFRM_MSG_FLUSHPOLICY);
    check_requests();
    event_advance(1000); /* what was put off */
    turn();
    if (xfrm_sad_count() != 0 || ipsec_sa_next(NULL) || ipsec_policy_next(NULL))
        abort();
    close(client);
    turn();
    frames_free();
}

static void remove_directory(void) {
    unlink(address.sun_path);
    rmdir(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    if (!mkdtemp(directory))
        abort();
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/xfrm.sock", directory);
    atexit(remove_directory);
    fuzz_start((*argv)[0], text("{'interfaces': {'wan': {" WAN_PORT ", " WAN_ADDRESSES
                                "}}, 'ipsec': {'ike': {'socket': '%s'}}, " UNLIMITED "}",
                                address.sun_path));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    connect_client();
    for (unsigned count = 0; size > RECORD_HEAD && count < RECORDS_PER_INPUT; count++) {
        uint8_t control = data[0];
        size_t length = data[1] | (size_t)data[2] << 8;

        data += RECORD_HEAD;
        size -= RECORD_HEAD;
        length = length == 0 ? 1 : length > LENGTH_MAX ? LENGTH_MAX : length;
        length = length > size ? size : length;
        send_packet(control, data, length);
        data += length;
        size -= length;
    }
    disconnect_client();
    return 0;
}
