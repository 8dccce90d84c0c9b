/* A burst is what its packets would be one by one. The same random packets of all kinds go through
 * the same router twice, alone and in bursts: the same frames have to come out, those of a flow in
 * the same order, and the same has to be counted. What is right for a packet alone is what the
 * other cases are about. */
#include "ipsec_network.h"

enum {
    ARRIVALS = 12000,
    LEAVING_MAX = 3 * ARRIVALS,
    BURST = 64,
    FIN = 1,
    SYN = 2,
    RST = 4,
    ACK = 16
};

/* --- the router --- */

/* The tunnel by its policies, or as an interface. */
static const char *everything(bool interface) {
    return text(
        "{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['192.168.1.1/24',"
        " '2001:db8:1::1/64'], 'reverse_path': 'strict'}, 'wan': {" WAN_PORT ", " WAN_ADDRESSES
        ", 'tcp_mss': 1400}, 'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "},"
        " 'guest': {'parent': 'dmz', 'vlan': 20, 'addresses': ['10.20.0.1/24']}%s},"
        "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS ","
        "{'interface': 'lan', 'address': '192.168.1.11', 'mac': '" HOST_LAN "'},"
        "{'interface': 'lan', 'address': '192.168.1.20', 'mac': '" HOST_LAN "'},"
        "{'interface': 'guest', 'address': '10.20.0.10', 'mac': '" HOST_DMZ "'}],"
        "'routes': [" DEFAULT_ROUTES ", {'prefix': '10.66.0.0/16', 'blackhole': true}%s],"
        "'sessions': {'size': 4096, 'keep': false},"
        "'firewall': {'default': 'drop', 'router_default': 'drop', 'rules': ["
        "{'name': 'telnet', 'in': 'lan', 'protocol': 'tcp', 'destination_port': 23, 'action':"
        " 'reject'},"
        "{'name': 'lan', 'in': 'lan', 'action': 'accept'},"
        "{'name': 'web', 'in': 'wan', 'protocol': 'tcp', 'destination': '192.168.1.10',"
        " 'destination_port': 80, 'action': 'accept'},"
        "{'name': 'static', 'in': 'wan', 'destination': '192.168.1.20', 'action': 'accept'},"
        "{'name': 'branch', 'source': '10.9.0.0/16', 'action': 'accept'},"
        "{'name': 'branch6', 'source': '2001:db8:9::/48', 'action': 'accept'},"
        "{'name': 'dmz', 'in': 'dmz', 'out': 'wan', 'action': 'accept', 'stateless': true},"
        "{'name': 'ping6', 'in': 'wan', 'protocol': 'icmpv6', 'action': 'accept'}]},"
        "'nat': {'source': [{'out': 'wan', 'source': '192.168.1.0/24', 'to': 'interface'}],"
        "'destination': [{'in': 'wan', 'protocol': 'tcp', 'destination_port': 8080, 'to':"
        " '192.168.1.10:80'}],"
        "'static': [{'outside': '198.51.100.20', 'inside': '192.168.1.20'}],"
        "'nat64': [{'prefix': '64:ff9b:1::/96', 'out': 'wan', 'to': '198.51.100.64'}]},"
        "'ipsec': {'sas': [%s, %s], 'policies': [%s]}, " UNLIMITED "}",
        interface ? ", 'vpn': {'if_id': 7, 'addresses': ['10.255.0.1/30']}" : "",
        interface ? ", {'prefix': '10.9.0.0/16', 'interface': 'vpn'}, {'prefix':"
                    " '2001:db8:9::/48', 'interface': 'vpn'}"
                  : "",
        sa_json(&out4, "out", interface ? ", 'interface': 'vpn'" : ""),
        sa_json(&in4, "in",
                text(", 'replay_window': 1024%s", interface ? ", 'interface': 'vpn'" : "")),
        interface ? "{'direction': 'out', 'interface': 'vpn', 'action': 'protect', 'spi': 4096,"
                    " 'source': '0.0.0.0/0'},"
                    "{'direction': 'out', 'interface': 'vpn', 'action': 'protect', 'spi': 4096,"
                    " 'source': '::/0'},"
                    "{'direction': 'in', 'interface': 'vpn', 'action': 'protect', 'spi': 8192,"
                    " 'source': '0.0.0.0/0'},"
                    "{'direction': 'in', 'interface': 'vpn', 'action': 'protect', 'spi': 8192,"
                    " 'source': '::/0'}"
                  : policies_of(SPI_OUT, SPI_IN));
}

/* --- what arrives --- */

struct arrival {
    enum place place;
    const struct frame *frame;
    unsigned each; /* bytes of each buffer; 0: in one */
};

static struct arrival arrivals[ARRIVALS];
static unsigned esp_number;

static unsigned random_size(void) {
    return now_and_then(10) ? 1 + draw(2000) : 1 + draw(120);
}

static unsigned random_flags(void) {
    static const unsigned flags[] = {SYN, SYN, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST, 0};

    return flags[draw(sizeof(flags) / sizeof(flags[0]))];
}

/* Whole bursts of plain packets of one family have ways of their own: these are such runs. */
enum run { PLAIN4, PLAIN6, ALL_KINDS, SPOILED, RUNS };

/* Ports are of one host each, so that source NAT keeps them. */
static unsigned port_of(unsigned host) {
    return 2000 + 100 * host + draw(6);
}

static struct frame *from_lan(enum run run) {
    static const char *const servers[] = {"203.0.113.1", "203.0.113.2", FAR,         "10.66.0.1",
                                          ROUTER,        "192.168.1.1", "10.3.0.10", "10.20.0.10"};
    static const char *const hosts[] = {"10", "11", "20", "10", "99"};
    static const unsigned ports[] = {80, 80, 53, 23, 8080};
    unsigned host = draw(5), port = port_of(host);
    const char *source = text("192.168.%u.%s", now_and_then(50) ? 2 : 1, hosts[host]);
    const char *server = servers[now_and_then(2) ? 0 : draw(8)];
    const char *from = text("%s:%u", source, port), *to = text("%s:%u", server, ports[draw(5)]);
    unsigned ttl = run > PLAIN6 && now_and_then(40) ? 1 : 64, size = random_size();
    unsigned df = now_and_then(2) ? DONT_FRAGMENT : 0;

    switch (run == PLAIN4 ? draw(2) * 9 : run == PLAIN6 ? 5 : draw(10)) {
    case 0:
    case 1:
    case 2:
        /* Whether the TTL or the state of the session ends it is not the same in a burst. */
        return tcp4(.source = from, .destination = to, .tcp_flags = random_flags(), .size = size,
                    .fragment = df, .sequence = draw(1000),
                    .options = run > PLAIN6 && now_and_then(30) ? "01010101" : NULL);
    case 3:
        return icmp4_echo(.source = source, .destination = server, .identifier = port, .size = size,
                          .ttl = ttl, .fragment = df);
    case 4:
        return ip4(.source = source, .destination = server, .protocol = now_and_then(2) ? 47 : 50,
                   .size = size, .ttl = ttl);
    case 5:
        return udp6(.source = text("[" INSIDE6 "]:%u", port),
                    .destination = text("[%s]:53", now_and_then(3)   ? FAR6
                                                   : now_and_then(2) ? OUTSIDE6
                                                                     : "64:ff9b:1::203.0.113.1"),
                    .hop_limit = ttl, .size = size);
    case 6:
        return now_and_then(2)
                   ? icmp6_echo(.source = INSIDE6, .destination = OUTSIDE6, .size = size)
                   : tcp6(.source = text("[" INSIDE6 "]:%u", port),
                          .destination = "[" OUTSIDE6 "]:80", .tcp_flags = random_flags(),
                          .size = size);
    default:
        return udp4(.source = from, .destination = to, .ttl = ttl, .size = size, .fragment = df,
                    .id = draw(65536));
    }
}

static struct frame *clear_from_wan(void) {
    unsigned host = draw(5), size = random_size();
    const char *server = text("203.0.113.%u", 1 + draw(2));

    switch (draw(9)) {
    case 8: /* answers to NAT64 */
        return udp4(.source = "203.0.113.1:53",
                    .destination = text("198.51.100.64:%u", port_of(host)), .size = size);
    case 0:
        return tcp4(.source = text("%s:%u", server, port_of(9)), .destination = ROUTER ":8080",
                    .tcp_flags = random_flags(), .size = size);
    case 1:
        return udp4(.source = text("%s:%u", server, port_of(9)), .destination = "198.51.100.20:7",
                    .size = size);
    case 2: /* about a packet that may have gone out */
        return icmp4_error(.source = "198.51.100.2", .destination = ROUTER, .type = 3, .code = 1,
                           .about = udp4(.source = text(ROUTER ":%u", port_of(host)),
                                         .destination = text("%s:53", server), .size = 20));
    case 3:
        return udp4(.source = FAR ":9", .destination = text(INSIDE ":%u", port_of(0)));
    case 4:
        return icmp6_echo(.source = OUTSIDE6, .destination = INSIDE6, .size = size);
    case 5:
        return icmp4_echo_reply(.source = server, .destination = ROUTER,
                                .identifier = port_of(host), .size = size);
    case 6:
        return tcp4(.source = text("%s:80", server),
                    .destination = text(ROUTER ":%u", port_of(host)), .tcp_flags = random_flags(),
                    .size = size, .sequence = draw(1000));
    default:
        return udp4(.source = text("%s:%u", server, now_and_then(2) ? 53 : 80),
                    .destination = text(ROUTER ":%u", port_of(host)), .size = size);
    }
}

static struct frame *from_wan(enum run run) {
    unsigned number;

    if (run > PLAIN6 && !now_and_then(3))
        return clear_from_wan();
    number = now_and_then(8) ? esp_number - draw(80) : ++esp_number;
    return esp(
        &in4,
        run == PLAIN6 || (run > PLAIN6 && now_and_then(5)) ? from_far6(.size = random_size() % 1300)
        : now_and_then(5)
            ? tcp4(.source = FAR ":80", .destination = text(INSIDE ":%u", port_of(0)),
                   .tcp_flags = random_flags())
            : udp4(.source = text(FAR ":%u", port_of(9)), .destination = INSIDE ":1000",
                   .size = random_size() % 1300, .ttl = run > PLAIN6 && now_and_then(30) ? 1 : 64),
        .sequence = number, .tos = draw(4));
}

static struct frame *from_dmz(void) {
    const char *from = text("10.3.0.10:%u", port_of(8));

    if (now_and_then(3))
        return vlan(now_and_then(8) ? 21 : 20, udp4(.source = text("10.20.0.10:%u", port_of(8)),
                                                    .destination = "203.0.113.1:53"));
    return now_and_then(4)
               ? udp4(.source = from, .destination = INSIDE ":53")
               : udp4(.source = from, .destination = "203.0.113.1:53", .size = random_size());
}

/* Something that is no good packet any more. */
static struct frame *spoiled(struct frame *frame) {
    switch (draw(5)) {
    case 0:
        return truncated(frame, 1 + draw(frame->length - 1));
    case 1: /* no other inside address of IPv6, which would want the same port */
        return poke(frame, IP + draw(is_ipv6(frame) ? 8 : 20), "a5");
    case 2:
        return patch(frame, IP, text("%02x", draw(256)));
    case 3:
        return patch(frame, 12, text("%04x", draw(65536)));
    default:
        return padded(frame, frame->length + draw(30));
    }
}

/* Whole or in two fragments; runs of packets arrive by one port. */
static void make_arrivals(void) {
    enum place place = LAN;
    enum run run = PLAIN4;
    unsigned left = 0, count = 0;

    esp_number = 1000;
    while (count < ARRIVALS - 1) {
        struct frame *frame;
        unsigned length;

        if (left-- == 0) {
            place = now_and_then(5) ? DMZ : now_and_then(2) ? WAN : LAN;
            left = 1 + draw(2 * BURST);
            run = draw(RUNS);
        }
        frame = place == LAN ? from_lan(run) : place == WAN ? from_wan(run) : from_dmz();
        const bool good = run != SPOILED || !now_and_then(20);

        if (!good)
            frame = spoiled(frame);
        length = frame->length - IP;
        arrivals[count] = (struct arrival){place, frame, 0};
        if (run == SPOILED && now_and_then(10)) {
            arrivals[count].each = 60 + draw(200);
        } else if (good && run == SPOILED && now_and_then(10) && length > 60 &&
                   frame->bytes[12] == 8 && frame->bytes[13] == 0 && frame->bytes[IP] == 0x45 &&
                   frame->bytes[IP + 6] == 0 && frame->bytes[IP + 8] > 1) {
            frame = patch(frame, IP + 4, text("%04x", count + 1));
            arrivals[count].frame = fragment4(frame, 0, 24);
            arrivals[++count] = (struct arrival){place, fragment4(frame, 24, length - 20 - 24), 0};
        }
        count++;
    }
    arrivals[count] = arrivals[0];
}

/* --- what leaves --- */

struct leaving {
    enum place place;
    const struct frame *frame;
    uint64_t flow;
    unsigned position;
};

struct outcome {
    struct leaving leaving[LEAVING_MAX];
    unsigned count, sealed, of_nat, of_nat64, inside;
    const char *counted;
};

static struct outcome alone, together;
static uint64_t number_out;

/* Frames that are the same for this may not change their order. Fragments may, beside what is
 * whole. */
static uint64_t flow_of(enum place place, const struct frame *frame) {
    const uint8_t *ip = frame->bytes + frame_ip_offset(frame);
    uint64_t hash = 14695981039346656037u + place;
    const bool ipv6 = ip[0] >> 4 == 6;
    const unsigned addresses = ipv6 ? 8 : 12, length = ipv6 ? 32 : 8, payload = ipv6 ? 40 : 20;
    const bool fragment = ipv6 ? ip[6] == 44 : (ip[6] & 0x3f) != 0 || ip[7] != 0;
    /* Ports, or the fragment's id. */
    const uint8_t *more = ip + (!fragment ? payload : ipv6 ? payload + 4 : 4);

    hash = (hash ^ ip[ipv6 ? 6 : 9]) * 1099511628211u;
    for (unsigned i = 0; i < length; i++)
        hash = (hash ^ ip[addresses + i]) * 1099511628211u;
    for (unsigned i = 0; i < (fragment && !ipv6 ? 2 : 4) && more + i < frame->bytes + frame->length;
         i++)
        hash = (hash ^ more[i]) * 1099511628211u;
    return hash;
}

/* What was protected is told apart by what is inside; the numbers have to go up. */
static const struct frame *opened(const struct frame *frame) {
    struct esp_found found;

    if (frame->bytes[12] != 8 || frame->bytes[IP + 9] != ESP_PROTOCOL ||
        esp_unwrap(&out4, frame, 0, &found))
        return frame;
    require(found.sequence > number_out, "number %lu left behind %lu",
            (unsigned long)found.sequence, (unsigned long)number_out);
    number_out = found.sequence;
    return found.inner;
}

static bool comes_from(const struct frame *frame, const char *address) {
    return frame->length > IP4_PAYLOAD && frame->bytes[12] == 8 && frame->bytes[13] == 0 &&
           memcmp(frame->bytes + IP + 12,
                  ip4(.source = address, .destination = ROUTER)->bytes + IP + 12, 4) == 0;
}

static void collect(struct outcome *out) {
    for (enum place place = LAN; place < PLACES; place++) {
        const struct frame *frame;

        while ((frame = take(place)) != NULL) {
            const struct frame *inner = opened(frame);

            require(out->count < LEAVING_MAX, "too many frames leave");
            out->inside += place == LAN;
            out->sealed += inner != frame;
            out->of_nat += comes_from(inner, ROUTER);
            if (comes_from(inner, "198.51.100.64")) {
                out->of_nat64++;
                inner = patch(inner, IP + 4, "0000"); /* the router's to choose */
            }
            out->leaving[out->count] =
                (struct leaving){place, inner, flow_of(place, inner), out->count};
            out->count++;
        }
    }
}

static int by_flow(const void *one, const void *other) {
    const struct leaving *a = one, *b = other;

    if (a->flow != b->flow)
        return a->flow < b->flow ? -1 : 1;
    return a->position < b->position ? -1 : a->position > b->position;
}

/* "most": packets that go in at once. */
static void run(struct outcome *out, bool interface, unsigned most) {
    unsigned here = 0, wanted = 1;

    memset(out, 0, sizeof(*out));
    number_out = 0;
    start(everything(interface));
    rpc("stats.clear", "{}");
    for (unsigned i = 0; i < ARRIVALS; i++) {
        const struct arrival *arrival = &arrivals[i];

        if (arrival->each)
            inject_segments(arrival->place, arrival->frame, arrival->each);
        else
            inject(arrival->place, arrival->frame);
        if (++here < wanted && i + 1 < ARRIVALS && arrivals[i + 1].place == arrival->place)
            continue;
        collect(out);
        here = 0;
        wanted = 1 + draw(most);
    }
    out->counted = rpc("stats.get", "{}");
    qsort(out->leaving, out->count, sizeof(out->leaving[0]), by_flow);
    apply("{}");
    forget_drops();
}

static const char *drops_in(const char *counted) {
    const char *drops = strstr(counted, "'drops'"), *end = strchr(drops, '}');

    return text("%.*s", (int)(end - drops), drops);
}

static void compare(uint32_t seed, bool interface) {
    draw_from(seed);
    make_arrivals();
    run(&alone, interface, 1);
    run(&together, interface, BURST);
    require(alone.sealed > 100 && alone.of_nat > 500 && alone.of_nat64 > 50 && alone.inside > 500,
            "too few: %u in ESP, %u behind NAT, %u behind NAT64, %u to the inside", alone.sealed,
            alone.of_nat, alone.of_nat64, alone.inside);
    for (unsigned i = 0; i < alone.count && i < together.count; i++) {
        const struct leaving *one = &alone.leaving[i], *other = &together.leaving[i];

        if (one->flow == other->flow && frame_equal(one->frame, other->frame))
            continue;
        if (one->flow <= other->flow)
            frame_print("alone", one->frame);
        if (one->flow >= other->flow)
            frame_print("in a burst", other->frame);
        require(one->flow == other->flow, "this frame leaves only %s, by port %u",
                one->flow < other->flow ? "alone" : "in a burst",
                one->flow < other->flow ? one->place : other->place);
        require(false, "other frames, or in another order, leave by port %u", one->place);
    }
    require(alone.count == together.count, "%u frames leave alone, %u in bursts", alone.count,
            together.count);
    require(strcmp(drops_in(alone.counted), drops_in(together.counted)) == 0,
            "alone %s\n# in bursts %s", drops_in(alone.counted), drops_in(together.counted));
}

CASE(bursts_of_everything) {
    for (uint32_t seed = 1; seed <= 4; seed++) {
        compare(seed, false);
        frames_free();
    }
}

CASE(bursts_of_everything_and_a_tunnel_interface) {
    for (uint32_t seed = 5; seed <= 8; seed++) {
        compare(seed, true);
        frames_free();
    }
}

HARNESS_MAIN()
