/* Sessions over a restart, and events about them. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/log.h"
#include "harness.h"
#include "nat/nat_mapping.h"
#include "session/session.h"
#include "session/session_event.h"

enum { SYN = 0x02, ACK = 0x10 };

#define INSIDE "192.168.1.10"
#define OUTSIDE "198.51.100.1"
#define SERVER "203.0.113.1"

#define ROUTER(sections)                                     \
    "{'interfaces': {"                                       \
    "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"              \
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"             \
    "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "]," \
    "'routes': [" DEFAULT_ROUTES "]," sections "," UNLIMITED "}"
#define LAN_OUT                                  \
    "'firewall': {'default': 'drop', 'rules': [" \
    "{'name': 'out', 'in': 'lan', 'out': 'wan', 'action': 'accept'}]}"
#define MASQUERADE "'nat': {'source': [{'out': 'wan', 'to': 'interface'}]}"

static const char *const usual = ROUTER(LAN_OUT "," MASQUERADE);

static const char *path(void) {
    return text("/tmp/packet_session_file.%d", (int)getpid());
}

/* UDP, an established TCP connection, and IPv6; all answered. */
static void talk(void) {
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
    inject(LAN, tcp4(.source = INSIDE ":5001", .destination = SERVER ":80", .tcp_flags = SYN));
    inject(WAN,
           tcp4(.source = SERVER ":80", .destination = OUTSIDE ":5001", .tcp_flags = SYN | ACK));
    inject(LAN, tcp4(.source = INSIDE ":5001", .destination = SERVER ":80", .tcp_flags = ACK));
    turn();
    inject(WAN,
           tcp4(.source = SERVER ":80", .destination = OUTSIDE ":5001", .tcp_flags = SYN | ACK));
    turn();
    inject(LAN, tcp4(.source = INSIDE ":5001", .destination = SERVER ":80", .tcp_flags = ACK));
    inject(LAN, udp6(.source = "[2001:db8:1::10]:5002", .destination = "[2001:db8:f::1]:53"));
    discard(ANYWHERE);
    forget_drops();
}

/* What was open still is: answers come in that no rule would let in. */
static void talk_goes_on(void) {
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
    expect(LAN, udp4(.source = SERVER ":53", .destination = INSIDE ":5000", .ttl = 63));
    inject(WAN, tcp4(.source = SERVER ":80", .destination = OUTSIDE ":5001", .tcp_flags = ACK));
    expect(LAN, tcp4(.source = SERVER ":80", .destination = INSIDE ":5001", .tcp_flags = ACK,
                     .ttl = 63));
    inject(WAN, udp6(.source = "[2001:db8:f::1]:53", .destination = "[2001:db8:1::10]:5002"));
    expect(LAN, udp6(.source = "[2001:db8:f::1]:53", .destination = "[2001:db8:1::10]:5002",
                     .hop_limit = 63));
}

static void restart(const char *config) {
    require(session_save(path()) == 0, "the sessions could not be saved");
    harness_clear();
    require(strstr(rpc("session.count", "{}"), "'size':0") != NULL, "there still is a table");
    start(config);
    require(session_load(path()) == 0, "the sessions could not be loaded");
    turn();
    require(access(path(), F_OK) != 0 && errno == ENOENT, "the file is still there");
}

static void sessions_are(unsigned number) {
    const char *counts = rpc("session.count", "{}");

    require(strstr(counts, text("{'sessions':%u,", number)) != NULL, "expected %u sessions: %s",
            number, counts);
}

static void mappings_are(unsigned number) {
    require(nat_mapping_count() == number && nat_mapping_ports_taken() == number,
            "%u mappings and %u ports, %u expected", nat_mapping_count(), nat_mapping_ports_taken(),
            number);
}

CASE(sessions_come_back) {
    start(usual);
    talk();
    sessions_are(3);
    restart(usual);
    sessions_are(3);
    talk_goes_on();
    /* The mapping is the same one, so another destination sees the same port. */
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = "203.0.113.2:53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = "203.0.113.2:53", .ttl = 63));
}

CASE(a_port_of_the_router_s_host_is_kept_over_a_restart) {
    struct frame *found;

    start(usual);
    inject_from_host(udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53"));
    restart(usual);
    sessions_are(1);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = "203.0.113.2:53"));
    found = take_one(WAN);
    require(memcmp(found->bytes + IP4_PAYLOAD, "\x13\x88", 2) != 0, "its port was given away");
}

CASE(counters_and_age_come_back) {
    start(usual);
    talk();
    advance(5000);
    restart(usual);
    const char *list = rpc("session.list", "{'port': 5000}");

    require(strstr(list, "'forward':{'packets':1,'bytes':35}") != NULL, "%s", list);
    require(strstr(list, "'backward':{'packets':1,'bytes':35}") != NULL, "%s", list);
    require(strstr(list, "'state':'udp'") != NULL, "%s", list);
}

CASE(what_the_rules_no_longer_allow_stays_out) {
    start(usual);
    talk();
    restart(ROUTER("'firewall': {'default': 'drop', 'rules': [{'name': 'tcp', 'protocol': 'tcp', "
                   "'in': 'lan', 'out': 'wan', 'action': 'accept'}]}," MASQUERADE));
    advance(3000);
    sessions_are(1);
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
    expect_nothing(ANYWHERE);
    expect_drop("firewall.default", 1);
}

CASE(what_is_not_translated_so_any_more_stays_out) {
    start(usual);
    talk();
    restart(ROUTER(LAN_OUT ", 'nat': {'source': [{'out': 'wan', 'to': '198.51.100.7'}]}"));
    advance(3000);
    sessions_are(1); /* the one with IPv6 */
}

CASE(without_nat_translated_sessions_stay_out) {
    start(usual);
    talk();
    restart(ROUTER(LAN_OUT));
    sessions_are(1);
}

CASE(what_has_timed_out_stays_out) {
    start(usual);
    talk();
    advance(20000);
    restart(
        ROUTER(LAN_OUT "," MASQUERADE ", 'sessions': {'timeouts': {'udp': 10, 'udp_new': 10}}"));
    sessions_are(1);
}

CASE(an_interface_that_is_gone) {
    start(usual);
    talk();
    restart("{'interfaces': {'lan2': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT
            ", " WAN_ADDRESSES "}}, 'firewall': {'default': 'accept'}," MASQUERADE "," UNLIMITED
            "}");
    sessions_are(0);
    discard(ANYWHERE);
    forget_drops();
}

/* --- files that are not to be trusted --- */

static void damaged(long offset, int whence, const char *bytes, size_t count) {
    FILE *file;

    start(usual);
    talk();
    require(session_save(path()) == 0, "the sessions could not be saved");
    harness_clear();
    file = fopen(path(), "r+");
    fseek(file, offset, whence);
    fwrite(bytes, 1, count, file);
    fclose(file);
    start(usual);
    require(session_load(path()) == -EINVAL, "a damaged file was taken");
    sessions_are(0);
    unlink(path());
}

CASE(a_wrong_checksum) {
    damaged(-100, SEEK_END, "x", 1);
}

CASE(another_version) {
    damaged(8, SEEK_SET, "\xff", 1);
}

CASE(another_kind_of_file) {
    damaged(0, SEEK_SET, "{\"", 2);
}

CASE(more_than_the_header_says) {
    damaged(0, SEEK_END, "more", 4);
}

CASE(a_file_of_every_shorter_length) {
    char bytes[4000];
    size_t length;
    FILE *file;

    start(usual);
    talk();
    require(session_save(path()) == 0, "the sessions could not be saved");
    file = fopen(path(), "r");
    length = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    require(length > 100 && length < sizeof(bytes), "%zu bytes", length);
    for (size_t shorter = 0; shorter < length; shorter++) {
        file = fopen(path(), "w");
        fwrite(bytes, 1, shorter, file);
        fclose(file);
        require(session_load(path()) == -EINVAL, "a file of %zu bytes was taken", shorter);
    }
    unlink(path());
}

CASE(no_file_is_no_fault) {
    start(usual);
    require(session_load("/nowhere/at/all") == 0, "a file that is not there is a fault");
    require(session_save("/nowhere/at/all") < 0, "sessions were saved nowhere");
}

/* Nobody reads from it: to wait for that would keep the router from ending. */
CASE(a_fifo_in_the_way_of_a_new_file) {
    const char *temporary = text("%s.new", path());
    struct stat status;

    start(usual);
    talk();
    require(mkfifo(temporary, 0600) == 0, "no FIFO");
    require(session_save(path()) < 0, "sessions were saved into a FIFO");
    require(lstat(path(), &status) != 0, "there is a file");
    unlink(temporary);
    require(session_save(path()) == 0, "the sessions could not be saved");
    unlink(path());
}

/* --- files made by hand --- */

/* As lib/session/session_file.c writes them, in the version that it writes now. */
enum { HEADER = 32, VERSION_AT = 8, CHECKSUM_AT = 12, NAMES_AT = 16, RECORDS_AT = 20, NAME = 32 };
enum { ANSWERS_TO_PORT = 10 };

struct record {
    /* IPv4: addresses, ports, and from byte 12 on the protocol; of its packets and of the answers
     */
    uint8_t key[48], answers[48];
    uint8_t flow_flags, state, flags, traffic_class, mapped, reserved[3];
    uint16_t in, out, vrf, out_vrf;
    uint32_t idle, age;
    uint64_t packets[2], bytes[2];
} __attribute__((aligned(16)));

static struct {
    union {
        uint8_t bytes[4000];
        struct record aligned;
    };
    size_t length;
} made;

static uint32_t *number_at(unsigned offset) {
    return (uint32_t *)(void *)&made.bytes[offset];
}

static char *name(unsigned i) {
    return (char *)&made.bytes[HEADER + i * NAME];
}

static struct record *record(unsigned i) {
    return (struct record *)(void *)&made.bytes[HEADER + *number_at(NAMES_AT) * NAME] + i;
}

/* The one of this protocol and family. */
static struct record *record_of(uint8_t protocol, bool ipv6) {
    for (unsigned i = 0; i < *number_at(RECORDS_AT); i++) {
        if (!(record(i)->flow_flags & FLOW_IPV6) == !ipv6 &&
            record(i)->key[ipv6 ? 36 : 12] == protocol)
            return record(i);
    }
    failed_at(__FILE__, __LINE__, "no record has protocol %u", protocol);
}

/* Takes the file of three sessions as a pattern; its checksum is worked out anew at the end. */
static void make(void) {
    FILE *file;

    start(usual);
    talk();
    require(session_save(path()) == 0, "the sessions could not be saved");
    file = fopen(path(), "r");
    made.length = fread(made.bytes, 1, sizeof(made.bytes), file);
    fclose(file);
    unlink(path());
    require(*number_at(RECORDS_AT) == 3, "%u records", *number_at(RECORDS_AT));
    require(made.length == HEADER + *number_at(NAMES_AT) * NAME + 3 * sizeof(struct record),
            "the records have another size than here");
    harness_clear();
    start(usual);
}

/* RFC 3720 appendix B.4, without the inversions. */
static uint32_t crc32c(const uint8_t *bytes, size_t length) {
    uint32_t crc = 0;

    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return crc;
}

static void write_made(void) {
    FILE *file = fopen(path(), "w");

    fwrite(made.bytes, 1, made.length, file);
    fclose(file);
}

static void seal(void) {
    *number_at(CHECKSUM_AT) = crc32c(made.bytes + NAMES_AT, made.length - NAMES_AT);
    write_made();
}

/* Loads the file and looks for the message among those of that time. */
static int load_says(const char *part) {
    static struct log_line lines[LOG_RING_LINES];
    enum log_level level = log_get_level();
    size_t count = log_read(0, lines, LOG_RING_LINES), found = 0;
    uint64_t before = count ? lines[count - 1].sequence : 0;
    int result;

    log_set_level(LOG_LEVEL_NOTICE);
    result = session_load(path());
    log_set_level(level);
    count = log_read(before, lines, LOG_RING_LINES);
    for (size_t i = 0; i < count; i++)
        found += strcmp(lines[i].area, "session") == 0 && strstr(lines[i].text, part) != NULL;
    require(found == 1, "%zu lines say \"%s\"", found, part);
    return result;
}

/* Nothing of it is taken, it stays where it is, and the router goes on. */
static void refused_with(int error, const char *part) {
    struct stat status;

    require(load_says(part) == error, "another result than %s", strerror(-error));
    require(lstat(path(), &status) == 0, "the file is gone");
    sessions_are(0);
    mappings_are(0);
    talk();
    sessions_are(3);
    rpc("session.flush", "{}");
    advance(3000);
    sessions_are(0);
}

CASE(what_is_no_file) {
    const char *good = text("%s.good", path());

    make();
    require(mkfifo(path(), 0600) == 0, "no FIFO");
    refused_with(-EINVAL, "cannot be read: Invalid argument; starting without it");
    unlink(path());
    require(mkdir(path(), 0700) == 0, "no directory");
    refused_with(-EINVAL, "cannot be read: Invalid argument; starting without it");
    rmdir(path());
    /* Whoever may make one there could have the router read, and remove, anything. */
    seal();
    require(rename(path(), good) == 0 && symlink(good, path()) == 0, "no symbolic link");
    refused_with(-ELOOP, "starting without it");
    require(access(good, F_OK) == 0, "the file behind the link is gone");
    unlink(path());
    rename(good, path());
    require(load_says("3 sessions are taken back") == 0, "the file itself is not good");
    sessions_are(3);
    talk_goes_on();
}

CASE(headers_made_by_hand) {
    static const struct {
        unsigned offset;
        uint32_t value;
        const char *part;
    } wrong[] = {
        {VERSION_AT, 0, "another version of the router has written it"},
        {VERSION_AT, 3, "another version of the router has written it"},
        {NAMES_AT, 0, "it is not complete"},
        {NAMES_AT, 0x7fffffff, "it is not complete"},
        {NAMES_AT, UINT32_MAX, "it is not complete"},
        {RECORDS_AT, 0, "it is not complete"},
        {RECORDS_AT, 2, "it is not complete"},
        {RECORDS_AT, 4, "it is not complete"},
        /* So many that the size would be right again in 32 bits. */
        {RECORDS_AT, 3 + (UINT32_C(1) << 25), "it is not complete"},
        {RECORDS_AT, UINT32_MAX, "it is not complete"},
    };

    make();
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint32_t right = *number_at(wrong[i].offset);

        *number_at(wrong[i].offset) = wrong[i].value;
        seal();
        refused_with(-EINVAL, wrong[i].part);
        *number_at(wrong[i].offset) = right;
    }
    seal();
    *number_at(CHECKSUM_AT) ^= 1;
    write_made();
    refused_with(-EINVAL, "its checksum is wrong");
    made.bytes[made.length++] = 0;
    seal();
    refused_with(-EINVAL, "it is not complete");
    made.length--;
    seal();
    require(load_says("3 sessions are taken back") == 0, "the pattern is not good");
}

CASE(names_without_an_end) {
    make();
    for (unsigned i = 0; i < *number_at(NAMES_AT); i++) {
        char right[NAME];

        memcpy(right, name(i), NAME);
        memset(name(i), 'x', NAME);
        seal();
        refused_with(-EINVAL, "a name in it has no end");
        memcpy(name(i), right, NAME);
    }
    unlink(path());
}

/* Those of another protocol, and those that no session has. The other two come back. */
CASE(states_that_do_not_fit_the_protocol) {
    static const struct {
        uint8_t protocol;
        bool ipv6;
        uint8_t first, last; /* that fit */
    } kinds[] = {
        {6, false, SESSION_TCP_OPENING, SESSION_TCP_CLOSED},
        {17, false, SESSION_UDP_NEW, SESSION_UDP},
        {17, true, SESSION_UDP_NEW, SESSION_UDP},
    };

    make();
    for (unsigned kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
        struct record *of = record_of(kinds[kind].protocol, kinds[kind].ipv6);
        uint8_t right = of->state;

        for (unsigned state = 0; state < 256; state += state < 24 ? 1 : 29) {
            bool fits = state >= kinds[kind].first && state <= kinds[kind].last;

            of->state = (uint8_t)state;
            of->age = of->idle = 0;
            seal();
            require(load_says(fits ? "3 sessions are taken back" : "2 sessions are taken back") ==
                        0,
                    "the file was refused");
            sessions_are(fits ? 3 : 2);
            rpc("session.flush", "{}");
            advance(3000);
            mappings_are(0);
            unlink(path());
        }
        of->state = right;
    }
}

CASE(records_that_contradict_themselves) {
    struct record *udp, *udp6, *tcp, right, right6, right_tcp;

    make();
    udp = record_of(17, false);
    udp6 = record_of(17, true);
    tcp = record_of(6, false);
    right = *udp;
    right6 = *udp6;
    right_tcp = *tcp;
    for (unsigned what = 0; what < 10; what++) {
        *udp = right;
        *udp6 = right6;
        *tcp = right_tcp;
        switch (what) {
        case 0:
            udp->in = UINT16_MAX;
            break;
        case 1:
            udp->out = (uint16_t)(*number_at(NAMES_AT) + 1);
            break;
        case 2:
            udp->in = udp->vrf; /* a VRF's name */
            break;
        case 3:
            udp->vrf = udp->in;
            break;
        case 4:
            udp->vrf = 0;
            break;
        case 5:
            udp->out_vrf = UINT16_MAX;
            break;
        case 6:
            udp->flags |= SESSION_FROM_ROUTER; /* which is never translated */
            break;
        case 7:
            udp6->flow_flags |= FLOW_SOURCE;
            break;
        case 8: /* twice the same */
            *tcp = right;
            break;
        case 9: /* the same, with other answers */
            *tcp = right;
            udp->answers[ANSWERS_TO_PORT] ^= 1;
            break;
        }
        seal();
        require(load_says("2 sessions are taken back") == 0, "the file was refused");
        advance(3000);
        sessions_are(2);
        rpc("session.flush", "{}");
        advance(3000);
        mappings_are(0);
    }
}

/* Whatever else is in the records, it does no harm, and all of it ends. */
CASE(random_records) {
    uint8_t right[sizeof(made.bytes)];
    uint32_t state = 1;

    make();
    memcpy(right, made.bytes, sizeof(right));
    for (unsigned n = 0; n < 400; n++) {
        memcpy(made.bytes, right, sizeof(right));
        for (unsigned i = 0; i < 1 + n % 6; i++) {
            struct record *of = record(state >> 8 & 1 ? 0 : state >> 9 & 1 ? 1 : 2);

            state = state * 1664525 + 1013904223;
            ((uint8_t *)of)[(state >> 8) % sizeof(*of)] ^= (uint8_t)(1u << (state >> 28 & 7));
            state = state * 1664525 + 1013904223;
        }
        seal();
        require(session_load(path()) == 0, "the file was refused");
        turn();
        if (n % 4 == 0) {
            inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
            inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
            inject(WAN,
                   tcp4(.source = SERVER ":80", .destination = OUTSIDE ":5001", .tcp_flags = ACK));
            discard(ANYWHERE);
        }
        rpc("session.flush", "{}");
        advance(3000);
        sessions_are(0);
        mappings_are(0);
        frames_free();
    }
    forget_drops();
}

/* --- events --- */

static const char *lines(void) {
    char *room = room_for(20000);
    FILE *file = fopen(path(), "r");
    size_t length = file ? fread(room, 1, 19999, file) : 0;

    if (file)
        fclose(file);
    room[length] = '\0';
    for (char *c = room; *c; c++)
        *c = *c == '"' ? '\'' : *c;
    return room;
}

CASE(events_go_to_a_file) {
    start(text(ROUTER("%s"), text(LAN_OUT "," MASQUERADE ", 'sessions': {'events': '%s', "
                                          "'timeouts': {'udp': 5}}",
                                  path())));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
    discard(ANYWHERE);
    forget_drops();
    inject(WAN, udp4(.source = SERVER ":53", .destination = OUTSIDE ":5000"));
    discard(ANYWHERE);
    advance(300);
    require(strstr(lines(), "'event':'start'") != NULL, "%s", lines());
    require(strstr(lines(), "'event':'end'") == NULL, "%s", lines());
    advance(9000);
    require(strstr(lines(), "'event':'end'") != NULL, "%s", lines());
    require(strstr(lines(), "'reason':'timeout'") != NULL, "%s", lines());
    require(strstr(lines(), "'source':{'address':'" INSIDE "','port':5000},"
                            "'destination':{'address':'" SERVER "','port':53},"
                            "'translated_source':{'address':'" OUTSIDE "','port':5000}") != NULL,
            "%s", lines());
    require(strstr(lines(), "'protocol':'udp','in':'lan','out':'wan'") != NULL, "%s", lines());
    unlink(path());
}

/* A session ends with its interface, and the line about it is written later. */
CASE(events_name_interfaces_that_are_gone) {
    const char *const with = text("'sessions': {'events': '%s'}", path());

    start(text(ROUTER("%s"), text(LAN_OUT ", %s", with)));
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    discard(ANYWHERE);
    apply(text("{'interfaces': {'wan': {" WAN_PORT ", " WAN_ADDRESSES
               "}}, 'neighbours': [" WAN_NEIGHBOURS "], 'routes': [" DEFAULT_ROUTES "],"
               "'firewall': {'default': 'drop', 'rules': []}, %s, " UNLIMITED "}",
               with));
    advance(3000);
    require(strstr(lines(), "'event':'end'") != NULL, "%s", lines());
    require(strstr(strstr(lines(), "'event':'end'"), "'in':'lan'") != NULL, "%s", lines());
    unlink(path());
}

CASE(events_that_cannot_be_written_hold_nobody_up) {
    start(ROUTER(LAN_OUT "," MASQUERADE ", 'sessions': {'events': 'unix:/nowhere/at/all'}"));
    for (unsigned port = 2000; port < 2100; port++)
        inject(LAN, udp4(.source = text(INSIDE ":%u", port), .destination = SERVER ":53"));
    require(discard(WAN) == 100, "packets were lost");
    advance(500);
}

/* Somebody who listens for events at path(). */
static int listen_for_events(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    unlink(path());
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path());
    require(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                listen(listener, 1) == 0,
            "cannot listen at %s", path());
    return listener;
}

/* Reads what waits in the socket. */
static size_t read_waiting(int fd, char *room, size_t size) {
    size_t length = 0;
    ssize_t got;

    while (length < size - 1 &&
           (got = recv(fd, room + length, size - 1 - length, MSG_DONTWAIT)) > 0)
        length += (size_t)got;
    room[length] = '\0';
    return length;
}

static unsigned whole_lines(const char *room) {
    unsigned count = 0;

    for (const char *line = room, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        require(*line == '{' && end[-1] == '}', "no event: %.*s", (int)(end - line), line);
        count++;
    }
    return count;
}

static void open_sessions(unsigned first, unsigned count) {
    for (unsigned port = first; port < first + count; port++) {
        inject(LAN, udp4(.source = text(INSIDE ":%u", port), .destination = SERVER ":53"));
        if (port % 50 == 0)
            discard(ANYWHERE);
    }
    discard(ANYWHERE);
}

CASE(events_wait_for_the_next_listener) {
    enum { ROOM = 1 << 20, FIRST = 3000, SECOND = 200 };
    char *room = room_for(ROOM);
    int listener = listen_for_events(), fd;
    struct session_event_stats before, stats;
    unsigned received;
    size_t length;

    start(text(ROUTER("%s"),
               text(LAN_OUT "," MASQUERADE ", 'sessions': {'events': 'unix:%s'}", path())));
    advance(200);
    session_event_stats(&before);
    fd = accept(listener, NULL, NULL);
    require(fd >= 0, "the router does not connect");
    /* More than the socket takes: it ends in the middle of a line. */
    open_sessions(2000, FIRST);
    advance(2000);
    length = read_waiting(fd, room, ROOM);
    require(length > 0 && room[length - 1] != '\n', "the socket has %zu bytes", length);
    received = whole_lines(room);
    require(received < FIRST, "the socket took all of it");
    close(fd);
    /* Found out with the first line that nobody takes. */
    open_sessions(2000 + FIRST, SECOND);
    advance(3000);
    fd = accept(listener, NULL, NULL);
    require(fd >= 0, "the router does not connect again");
    length = 0;
    for (unsigned i = 0; i < 20; i++) {
        length += read_waiting(fd, room + length, ROOM - length);
        advance(200);
    }
    received += whole_lines(room);
    session_event_stats(&stats);
    require(received == FIRST + SECOND - 1, "%u events have come", received);
    require(stats.written - before.written == received && stats.lost - before.lost == 1,
            "%lu written, %lu lost", (unsigned long)(stats.written - before.written),
            (unsigned long)(stats.lost - before.lost));
    close(fd);
    close(listener);
    unlink(path());
}

CASE(hairpins_come_back) {
    const char *const open = ROUTER(MASQUERADE);
    struct frame *there = udp4(.source = INSIDE ":6000", .destination = OUTSIDE ":5000");
    struct frame *back = udp4(.source = INSIDE ":5000", .destination = OUTSIDE ":6000");

    start(open);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":5000", .destination = SERVER ":53", .ttl = 63));
    for (unsigned round = 0; round < 2; round++) {
        inject(LAN, there);
        expect(LAN, udp4(.source = OUTSIDE ":6000", .destination = INSIDE ":5000", .ttl = 63));
        inject(LAN, back);
        expect(LAN, udp4(.source = OUTSIDE ":5000", .destination = INSIDE ":6000", .ttl = 63));
        mappings_are(2);
        sessions_are(2);
        if (round == 0)
            restart(open);
        mappings_are(2);
        sessions_are(2);
    }
    /* The mapping is for the outside as well. */
    inject(LAN, udp4(.source = INSIDE ":6000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = OUTSIDE ":6000", .destination = SERVER ":53", .ttl = 63));
    mappings_are(2);
    apply(open); /* and what came back stands */
    advance(1000);
    sessions_are(3);
}

CASE(events_of_the_last_moment_are_written) {
    unlink(path());
    start(
        text(ROUTER("%s"), text(LAN_OUT "," MASQUERADE ", 'sessions': {'events': '%s'}", path())));
    advance(500);
    inject(LAN, udp4(.source = INSIDE ":5000", .destination = SERVER ":53"));
    discard(ANYWHERE);
    apply(usual);
    require(strstr(lines(), "'event':'start'") != NULL, "%s", lines());
    require(strstr(lines(), "'in':'lan','out':'wan'") != NULL, "%s", lines());
    unlink(path());
}

static const char *limited(unsigned per_source) {
    return text(ROUTER("'firewall': {'default': 'accept'}, 'sessions': {'limits': {"
                       "'per_source': %u, 'new_per_second_per_source': 2}}"),
                per_source);
}

/* All of them come back in the same second, and count nevertheless. */
CASE(limits_know_sessions_from_before) {
    start(limited(10));
    for (unsigned i = 0; i < 10; i++) {
        inject(LAN, udp4(.source = text(INSIDE ":%u", 5000 + i), .destination = SERVER ":53"));
        advance(1000);
    }
    discard(ANYWHERE);
    sessions_are(10);
    restart(limited(10));
    sessions_are(10);
    advance(2000);
    inject(LAN, udp4(.source = INSIDE ":6000", .destination = SERVER ":53"));
    expect_nothing(ANYWHERE);
    expect_drop("session.source_limit", 1);
    restart(limited(5)); /* no longer allowed, but there */
    sessions_are(10);
    advance(2000);
    inject(LAN, udp4(.source = INSIDE ":6000", .destination = SERVER ":53"));
    expect_nothing(ANYWHERE);
    expect_drop("session.source_limit", 1);
    advance(130000);
    sessions_are(0);
    inject(LAN, udp4(.source = INSIDE ":6000", .destination = SERVER ":53"));
    expect(WAN, udp4(.source = INSIDE ":6000", .destination = SERVER ":53", .ttl = 63));
}

HARNESS_MAIN()
