/* Sessions over a restart, and events about them. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "harness.h"
#include "session/session.h"

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
    char bytes[2000];
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

CASE(events_that_cannot_be_written_hold_nobody_up) {
    start(ROUTER(LAN_OUT "," MASQUERADE ", 'sessions': {'events': 'unix:/nowhere/at/all'}"));
    for (unsigned port = 2000; port < 2100; port++)
        inject(LAN, udp4(.source = text(INSIDE ":%u", port), .destination = SERVER ":53"));
    require(discard(WAN) == 100, "packets were lost");
    advance(500);
}

HARNESS_MAIN()
