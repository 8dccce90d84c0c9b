/* ESP packets that come in fragments (RFC 4303 section 3.4.1), and what else comes in fragments
 * from the same peer. */
#include "core/event.h"
#include "ipsec_network.h"

enum {
    DATAGRAMS = 128,   /* that may wait */
    FRAGMENTS = 64,    /* of one */
    BUFFERS = 512,     /* that may wait altogether */
    WAIT_LEAST = 2000, /* msec */
    WAIT_MOST = 3200,
    SEED = 20261128,
};

#define for_each_kind(sa) for_each_kind_of(sa, &in4, &in6)

static unsigned payload_of(const struct frame *whole) {
    return whole->length - (is_ipv6(whole) ? IP6_PAYLOAD : IP4_PAYLOAD);
}

/* IPv6 has its number in the fragments alone. */
static struct frame *piece_of(const struct frame *whole, unsigned id, unsigned from,
                              unsigned length) {
    return is_ipv6(whole) ? fragment6_of(whole, from, length, id)
                          : fragment4(patch(whole, IP + 4, text("%04x", id)), from, length);
}

/* The n-th of pieces of `each` bytes. */
#define piece(whole, id, n, each) piece_of((whole), (id), (n) * (each), (each))

/* --- that arrive --- */

CASE(in_order) {
    for_each_kind(sa) {
        start(tunnel(NULL, &sa, ", 'replay_window': 64"));
        for (unsigned number = 1; number < 20; number++) {
            struct frame *inner = from_far(.size = 1000 + number);
            struct frame *whole = esp(&sa, inner, .sequence = number);

            for (unsigned n = 0; n < 3; n++)
                inject(WAN, piece(whole, number, n, 400));
            expect(LAN, hop(inner));
        }
        contains(rpc("ipsec.sa.list", "{}"), "'packets':19,");
    }
}

/* Between the fragments of one there are turns of the worker, other packets, or nothing. */
CASE(one_by_one) {
    for_each_kind(sa) {
        struct frame *inner = from_far6(.size = 1000), *whole = esp(&sa, inner);

        start(tunnel(NULL, &sa, ""));
        for (unsigned n = 0; n < 3; n++) {
            expect_nothing(ANYWHERE);
            if (n == 1)
                comes_in(&sa, from_far(), .sequence = 2);
            inject(WAN, piece(whole, 7, n, 400));
            turn();
        }
        expect(LAN, hop(inner));
    }
}

static void each_order(const struct esp_sa *sa, unsigned count, unsigned *sequence) {
    unsigned orders = 1;

    for (unsigned n = 2; n <= count; n++)
        orders *= n;
    for (unsigned order = 0; order < orders; order++) {
        struct frame *inner = from_far(.size = 997), *whole;
        unsigned left[8], remaining = count, choice = order;

        whole = esp(sa, inner, .sequence = ++*sequence);
        for (unsigned n = 0; n < count; n++)
            left[n] = n;
        while (remaining > 0) {
            unsigned at = choice % remaining, n = left[at];

            choice /= remaining;
            left[at] = left[--remaining];
            inject(WAN, piece(whole, *sequence, n, (1100 / count + 7) / 8 * 8));
        }
        expect(LAN, hop(inner));
    }
}

CASE(in_every_order) {
    for_each_kind(sa) {
        unsigned sequence = 0;

        start(tunnel(NULL, &sa, ""));
        for (unsigned count = 1; count <= 5; count++)
            each_order(&sa, count, &sequence);
    }
}

CASE(datagrams_side_by_side) {
    for_each_kind(sa) {
        enum { MANY = 60 };
        struct frame *whole[MANY];

        start(tunnel(NULL, &sa, ""));
        for (unsigned i = 0; i < MANY; i++)
            whole[i] = esp(&sa, from_far(.size = 800 + i), .sequence = i + 1);
        for (unsigned n = 0; n < 3; n++) {
            for (unsigned i = 0; i < MANY; i++)
                inject(WAN, piece(whole[i], 1000 + i, n, 400));
            turn();
        }
        for (unsigned i = 0; i < MANY; i++)
            expect(LAN, hop(from_far(.size = 800 + i)));
    }
}

/* One number, but other ends, or another protocol: another datagram (RFC 791). */
CASE(numbers_are_each_paths_own) {
    struct esp_sa plain = in4, other = in4, udp = esp_kind(&in4, &in6, 2), ipv6 = in6;
    const struct esp_sa *sas[] = {&plain, &other, &udp, &ipv6};
    struct frame *whole[4];
    const char *list = "", *policies = "";

    other.source = "203.0.113.10";
    for (unsigned i = 0; i < 4; i++) {
        ((struct esp_sa *)(uintptr_t)sas[i])->spi = SPI_IN + i;
        list = text("%s%s%s", list, i ? ", " : "", sa_json(sas[i], "in", ""));
        policies = text("%s%s{'direction': 'in', 'source': '10.9.%u.0/24', 'action': 'protect',"
                        " 'spi': %u}",
                        policies, i ? ", " : "", i, sas[i]->spi);
        whole[i] = esp(sas[i], udp4(.source = text("10.9.%u.1:1", i), .destination = INSIDE ":2",
                                    .size = 1000));
    }
    start(with_sas(list, policies));
    for (unsigned n = 0; n < 3; n++) {
        for (unsigned i = 0; i < 4; i++)
            inject(WAN, piece(whole[i], 4711, n, 400));
    }
    turn();
    for (unsigned i = 0; i < 4; i++)
        expect(LAN, hop(udp4(.source = text("10.9.%u.1:1", i), .destination = INSIDE ":2",
                             .size = 1000)));
}

/* Lengths up to those of the largest packet; what comes out is cut for the LAN. */
CASE(long_packets) {
    for_each_kind(sa) {
        static const unsigned sizes[] = {1472, 2000, 4000, 9000, 30000, 65000};
        unsigned sequence = 0;

        start(tunnel(NULL, &sa, ""));
        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            struct frame *inner = from_far(.size = sizes[i]);
            struct frame *whole = esp(&sa, inner, .sequence = ++sequence);
            unsigned payload = sizes[i] + 8;

            for (unsigned from = 0; from < payload_of(whole); from += 1400)
                inject(WAN, piece_of(whole, sequence, from, 1400));
            for (unsigned from = 0; sizes[i] > 1472 && from < payload; from += 1480)
                expect(LAN, fragment4(hop(inner), from, 1480));
            if (sizes[i] <= 1472)
                expect(LAN, hop(inner));
        }
    }
}

/* A link of 68 bytes: neither ESP's header nor the inner one is in one fragment. */
CASE(tiny_fragments) {
    for_each_kind(sa) {
        unsigned sequence = 0;

        start(tunnel(NULL, &sa, ""));
        for (unsigned each = 8; each <= 48; each += 8) {
            struct frame *inner = from_far6(.size = 6 * each), *whole;

            whole = esp(&sa, inner, .sequence = ++sequence);
            for (unsigned from = payload_of(whole) / each * each + each; from > 0; from -= each) {
                if (from - each < payload_of(whole))
                    inject(WAN, piece_of(whole, sequence, from - each, each));
            }
            expect(LAN, hop(inner));
        }
    }
}

CASE(fragments_in_several_buffers) {
    for_each_kind(sa) {
        unsigned sequence = 0;

        start(tunnel(NULL, &sa, ""));
        for (unsigned each = 128; each < 300; each += 7) {
            struct frame *inner = from_far(.size = 1300);
            struct frame *whole = esp(&sa, inner, .sequence = ++sequence);

            for (unsigned n = 3; n-- > 0;)
                inject_segments(WAN, piece(whole, sequence, n, 480), each);
            expect(LAN, hop(inner));
        }
    }
}

/* Options stand before the first fragment's payload, and some of them before all. */
CASE(headers_of_other_lengths) {
    struct frame *inner = from_far(.size = 1000), *whole = esp(&in4, inner), *with, *pieces[3];
    struct frame *inner6 = from_far6(.size = 1000), *whole6 = esp(&in6, inner6);

    start(tunnel(NULL, &in4, ""));
    with = frame_new(whole->length + 8);
    memcpy(with->bytes, whole->bytes, IP4_PAYLOAD);
    memcpy(with->bytes + IP4_PAYLOAD, "\x01\x01\x01\x01\x94\x04\x00\x00", 8);
    memcpy(with->bytes + IP4_PAYLOAD + 8, whole->bytes + IP4_PAYLOAD, payload_of(whole));
    with->bytes[IP] = 0x47;
    with = patch(with, IP + 2, text("%04x", with->length - IP));
    for (unsigned n = 3; n-- > 0;)
        inject(WAN, piece(with, 9, n, 400));
    expect(LAN, hop(inner));
    /* Hop-by-hop options before the fragment header. */
    start(tunnel(NULL, &in6, ""));
    for (unsigned n = 0; n < 3; n++) {
        struct frame *plain = piece(whole6, 9, n, 400);

        pieces[n] = frame_new(plain->length + 8);
        memcpy(pieces[n]->bytes, plain->bytes, IP6_PAYLOAD);
        memcpy(pieces[n]->bytes + IP6_PAYLOAD, "\x2c\x00\x01\x04\x00\x00\x00\x00", 8);
        memcpy(pieces[n]->bytes + IP6_PAYLOAD + 8, plain->bytes + IP6_PAYLOAD,
               plain->length - IP6_PAYLOAD);
        pieces[n] = poke(pieces[n], IP + 4, text("%04x", pieces[n]->length - IP6_PAYLOAD));
        pieces[n] = poke(pieces[n], IP + 6, "00");
    }
    for (unsigned n = 3; n-- > 0;)
        inject(WAN, pieces[n]);
    expect(LAN, hop(inner6));
}

CASE(padded_to_the_least_frame) {
    start(tunnel(NULL, &in4, ""));
    for (unsigned last = 1; last <= 24; last++) {
        struct frame *inner = from_far(.size = 960 + last),
                     *whole = esp(&in4, inner, .sequence = last);
        unsigned first = (payload_of(whole) - 1) / 8 * 8;

        inject(WAN, padded(piece_of(whole, last, first, 8), 60));
        inject(WAN, piece_of(whole, last, 0, first));
        expect(LAN, hop(inner));
    }
}

CASE(transport_mode) {
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        struct esp_sa sa = {.spi = SPI_IN,
                            .source = ipv6 ? FAR6 : FAR,
                            .destination = ipv6 ? INSIDE6 : INSIDE,
                            .transport = true,
                            GCM};
        struct frame *inner = ipv6 ? from_far6(.size = 1000) : from_far(.size = 1000);
        struct frame *whole = esp(&sa, inner);

        start(with_sas(sa_json(&sa, "in", ""), "{'direction': 'in', 'source': '10.9.0.0/16',"
                                               " 'action': 'protect', 'spi': 8192},"
                                               "{'direction': 'in', 'source': '2001:db8:9::/48',"
                                               " 'action': 'protect', 'spi': 8192}"));
        for (unsigned n = 3; n-- > 0;)
            inject(WAN, piece(whole, 0, n, 400));
        expect(LAN, hop(inner));
    }
}

/* RFC 3168 section 5.3: congestion that one fragment met is met by all. */
CASE(congestion) {
    enum { ECT0 = 2, CE = 3 };

    for_each_kind(sa) {
        struct frame *inner = from_far(.size = 1000, .tos = ECT0);
        struct frame *whole = esp(&sa, inner, .tos = ECT0), *marked = esp(&sa, inner, .tos = CE);
        struct frame *without = esp(&sa, from_far(.size = 1000), .tos = 0, .sequence = 2);
        struct frame *forged = esp(&sa, from_far(.size = 1000), .tos = CE, .sequence = 2);

        start(tunnel(NULL, &sa, ""));
        inject(WAN, piece(whole, 1, 0, 600));
        inject(WAN, piece(marked, 1, 1, 600));
        expect(LAN, hop(from_far(.size = 1000, .tos = CE)));
        inject(WAN, piece(without, 2, 0, 600));
        inject(WAN, piece(forged, 2, 1, 600));
        expect_nothing(ANYWHERE);
        expect_drop("ipsec_in.fragment_malformed", 2);
    }
}

/* Packets of any length in any pieces in any order, several at once. */
CASE(at_random) {
    draw_from(SEED);
    for_each_kind(sa) {
        unsigned sequence = 0, id = 0;

        start(tunnel(NULL, &sa, ""));
        for (unsigned round = 0; round < 60; round++) {
            enum { ALL = 200 };
            struct frame *pieces[ALL];
            unsigned count = 0, wholes = 1 + draw(5);

            for (unsigned i = 0; i < wholes; i++) {
                struct frame *whole =
                    esp(&sa, from_far(.size = 1 + draw(1400)), .sequence = ++sequence);

                id++;
                for (unsigned from = 0, length; from < payload_of(whole); from += length) {
                    length = 8 * (1 + draw(draw(2) ? 90 : 30));
                    pieces[count++] = piece_of(whole, id, from, length);
                }
            }
            for (unsigned i = count; i > 1; i--) {
                unsigned other = draw(i);
                struct frame *swapped = pieces[other];

                pieces[other] = pieces[i - 1];
                pieces[i - 1] = swapped;
            }
            for (unsigned i = 0; i < count; i++) {
                if (draw(2))
                    inject(WAN, pieces[i]);
                else
                    inject_segments(WAN, pieces[i], 128 + draw(600));
                if (draw(4) == 0)
                    turn();
            }
            turn();
            require(discard(LAN) == wholes, "round %u: some were lost", round);
        }
        contains(rpc("ipsec.sa.list", "{}"), text("'packets':%u,", sequence));
        expect_no_drops();
    }
}

/* --- that do not --- */

CASE(twice) {
    for_each_kind(sa) {
        struct frame *inner = from_far(.size = 1000), *whole = esp(&sa, inner);

        start(tunnel(NULL, &sa, ""));
        for (unsigned n = 3; n-- > 1;) {
            inject(WAN, piece(whole, 1, n, 400));
            inject(WAN, piece(whole, 1, n, 400));
            inject(WAN, piece(whole, 1, n, 400));
        }
        turn();
        expect_drop("ipsec_in.fragment_duplicate", 4);
        inject(WAN, piece(whole, 1, 0, 400));
        expect(LAN, hop(inner));
    }
}

/* RFC 5722: then all of it is dropped, and what is still to come. */
CASE(overlaps) {
    static const struct {
        unsigned from, length;
    } second[] = {{200, 400}, {392, 400}, {0, 800}, {8, 200}, {0, 200}, {200, 200}, {392, 8}};

    for_each_kind(sa) {
        struct frame *inner = from_far(.size = 1000), *whole = esp(&sa, inner);
        unsigned id = 0;

        start(tunnel(NULL, &sa, ""));
        for (unsigned i = 0; i < sizeof(second) / sizeof(second[0]); i++) {
            for (unsigned order = 0; order < 2; order++) {
                id++;
                if (order == 0)
                    inject(WAN, piece_of(whole, id, 0, 400));
                inject(WAN, piece_of(whole, id, second[i].from, second[i].length));
                if (order == 1)
                    inject(WAN, piece_of(whole, id, 0, 400));
                turn();
                expect_drop("ipsec_in.fragment_overlap", 2);
                inject(WAN, piece_of(whole, id, 400, 400));
                inject(WAN, piece_of(whole, id, 800, 400));
                inject(WAN, piece_of(whole, id, 0, 400));
                expect_nothing(ANYWHERE);
                expect_drop("ipsec_in.fragment_refused", 3);
            }
        }
        /* Its number is free again after a while. */
        advance(WAIT_MOST);
        for (unsigned n = 0; n < 3; n++)
            inject(WAN, piece(whole, id, n, 400));
        expect(LAN, hop(inner));
    }
}

/* Teardrop: the end of one inside another. */
CASE(inside_another) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 1000));
        unsigned length = payload_of(whole);
        struct frame *shorter = truncated(whole, whole->length - length + 24);

        shorter = is_ipv6(whole) ? poke(shorter, IP + 4, "0018") : patch(shorter, IP + 2, "002c");
        start(tunnel(NULL, &sa, ""));
        inject(WAN, piece_of(whole, 1, 0, 400));
        inject(WAN, piece_of(shorter, 1, 16, 8));
        turn();
        expect_drop("ipsec_in.fragment_overlap", 2);
    }
}

/* Two last ones, or something behind the last. */
CASE(ends_that_contradict_each_other) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 1000));
        unsigned header = whole->length - payload_of(whole);
        struct frame *shorter = truncated(whole, header + 808);

        shorter = is_ipv6(whole) ? poke(shorter, IP + 4, "0328") : patch(shorter, IP + 2, "033c");
        start(tunnel(NULL, &sa, ""));
        inject(WAN, piece_of(whole, 1, 960, 400));
        inject(WAN, piece_of(shorter, 1, 800, 8));
        turn();
        expect_drop("ipsec_in.fragment_malformed", 2);
        inject(WAN, piece_of(shorter, 2, 800, 8));
        inject(WAN, piece_of(whole, 2, 960, 400));
        turn();
        expect_drop("ipsec_in.fragment_malformed", 2);
        inject(WAN, piece_of(shorter, 3, 800, 8));
        inject(WAN, piece_of(whole, 3, 808, 80));
        turn();
        expect_drop("ipsec_in.fragment_malformed", 2);
        inject(WAN, piece_of(whole, 4, 808, 80));
        inject(WAN, piece_of(shorter, 4, 800, 8));
        turn();
        expect_drop("ipsec_in.fragment_malformed", 2);
    }
}

CASE(lengths_that_cannot_be) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 1000)), *bad;

        start(tunnel(NULL, &sa, ""));
        /* Nothing in it. */
        bad = truncated(piece_of(whole, 1, 400, 8), is_ipv6(whole) ? IP6_PAYLOAD + 8 : IP4_PAYLOAD);
        bad = is_ipv6(whole) ? poke(bad, IP + 4, "0008") : patch(bad, IP + 2, "0014");
        inject(WAN, piece_of(whole, 1, 0, 400));
        inject(WAN, bad);
        turn();
        expect_drop("ipsec_in.fragment_malformed", 2);
        /* Not the last, and no multiple of 8. */
        bad = truncated(piece_of(whole, 2, 400, 80),
                        (is_ipv6(whole) ? IP6_PAYLOAD + 8 : IP4_PAYLOAD) + 79);
        bad = is_ipv6(whole) ? poke(bad, IP + 4, "0057") : patch(bad, IP + 2, "0063");
        inject(WAN, bad);
        inject(WAN, piece_of(whole, 2, 0, 400));
        turn();
        expect_drops({"ipsec_in.fragment_malformed", 1}, {"ipsec_in.fragment_refused", 1});
        /* Beyond the longest packet: the ping of death. */
        bad = piece_of(whole, 3, 400, 800);
        bad = is_ipv6(whole) ? poke(bad, IP6_PAYLOAD + 2, "fff8") : patch(bad, IP + 6, "1fff");
        inject(WAN, piece_of(whole, 3, 0, 400));
        inject(WAN, bad);
        turn();
        expect_drop("ipsec_in.fragment_too_long", 2);
    }
}

CASE(too_many_pieces) {
    for_each_kind(sa) {
        struct frame *inner = from_far(.size = 600), *whole = esp(&sa, inner);
        struct frame *more = esp(&sa, from_far(.size = 600), .sequence = 2);
        unsigned rest = payload_of(whole) - (FRAGMENTS - 1) * 8;

        start(tunnel(NULL, &sa, ""));
        for (unsigned n = 0; n < FRAGMENTS - 1; n++)
            inject(WAN, piece(whole, 1, n, 8));
        inject(WAN, piece_of(whole, 1, (FRAGMENTS - 1) * 8, rest));
        expect(LAN, hop(inner));
        for (unsigned n = 0; n <= FRAGMENTS; n++)
            inject(WAN, piece(more, 2, n, 8));
        inject(WAN, piece_of(more, 2, (FRAGMENTS + 1) * 8, rest));
        expect_nothing(ANYWHERE);
        expect_drops({"ipsec_in.fragment_too_long", FRAGMENTS + 1},
                     {"ipsec_in.fragment_refused", 1});
    }
}

CASE(missing_ones) {
    for_each_kind(sa) {
        struct frame *inner = from_far(.size = 1000), *whole = esp(&sa, inner);
        unsigned before;

        start(tunnel(NULL, &sa, ""));
        before = buffers_in_use();
        for (unsigned missing = 0; missing < 3; missing++) {
            for (unsigned n = 0; n < 3; n++) {
                if (n != missing)
                    inject(WAN, piece(whole, 1 + missing, n, 400));
            }
        }
        turn();
        require(buffers_in_use() >= before + 6, "the fragments do not wait");
        advance(WAIT_LEAST - 100);
        expect_no_drops();
        advance(WAIT_MOST - WAIT_LEAST);
        expect_drop("ipsec_in.fragment_timeout", 6);
        require(buffers_in_use() == before, "buffers are still held");
        inject(WAN, piece(whole, 1, 0, 400)); /* too late */
        expect_nothing(ANYWHERE);
        advance(WAIT_MOST);
        expect_drop("ipsec_in.fragment_timeout", 1);
        inject(WAN, whole);
        expect(LAN, hop(inner));
    }
}

/* The one that has waited longest goes. */
CASE(full_table) {
    for_each_kind(sa) {
        struct frame *whole[DATAGRAMS + 1];

        start(tunnel(NULL, &sa, ""));
        for (unsigned i = 0; i <= DATAGRAMS; i++) {
            whole[i] = esp(&sa, from_far(.size = 500 + i), .sequence = 1 + i);
            inject(WAN, piece(whole[i], i, 0, 400));
            turn();
            expect_drops({"ipsec_in.fragment_table_full", i == DATAGRAMS});
        }
        for (unsigned i = DATAGRAMS; i > 0; i--) {
            inject(WAN, piece(whole[i], i, 1, 400));
            expect(LAN, hop(from_far(.size = 500 + i)));
        }
        inject(WAN, piece(whole[0], 0, 1, 400));
        expect_nothing(ANYWHERE);
        inject(WAN, piece(whole[0], 0, 0, 400));
        expect(LAN, hop(from_far(.size = 500)));
    }
}

/* Packets whose fragments come close together get through a flood of others. */
CASE(flood) {
    enum { PACKETS = 50, BETWEEN = 100 };

    for_each_kind(sa) {
        struct frame *forged = esp(&sa, from_far(.size = 1000), .sequence = 9999);
        unsigned before, id = 1000;

        start(tunnel(NULL, &sa, ""));
        before = buffers_in_use();
        for (unsigned i = 0; i < PACKETS; i++) {
            struct frame *whole = esp(&sa, from_far(.size = 1000), .sequence = 1 + i);

            inject(WAN, piece(whole, i, 0, 600));
            for (unsigned n = 0; n < BETWEEN; n++, id++)
                inject(WAN, piece(forged, id, id % 2, 400));
            inject(WAN, piece(whole, i, 1, 600));
            expect(LAN, hop(from_far(.size = 1000)));
        }
        expect_drop("ipsec_in.fragment_table_full", PACKETS * BETWEEN - DATAGRAMS + 1);
        require(buffers_in_use() <= before + DATAGRAMS, "too many buffers are held");
        advance(WAIT_MOST);
        expect_drop("ipsec_in.fragment_timeout", DATAGRAMS - 1);
    }
}

/* Those that were refused make room for others. */
CASE(table_full_of_refused_ones) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 1000));

        start(tunnel(NULL, &sa, ""));
        for (unsigned id = 0; id < 3 * DATAGRAMS; id++) {
            inject(WAN, piece_of(whole, id, 0, 400));
            inject(WAN, piece_of(whole, id, 200, 400));
            turn();
        }
        expect_drop("ipsec_in.fragment_overlap", 6 * DATAGRAMS);
        for (unsigned n = 0; n < 3; n++)
            inject(WAN, piece(whole, 9999, n, 400));
        expect(LAN, hop(from_far(.size = 1000)));
    }
}

CASE(buffers_are_bounded) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 600)), *last;
        enum { EACH = 50 };
        unsigned before, id;

        start(tunnel(NULL, &sa, ""));
        before = buffers_in_use();
        for (id = 1; id <= BUFFERS / EACH; id++) {
            for (unsigned n = 0; n < EACH; n++)
                inject(WAN, piece(whole, id, n, 8));
            turn();
        }
        expect_no_drops();
        /* Room for twelve more, and for the others that of the oldest. */
        for (unsigned n = 0; n < EACH; n++)
            inject(WAN, piece(whole, id, n, 8));
        turn();
        expect_drop("ipsec_in.fragment_table_full", EACH);
        require(buffers_in_use() <= before + BUFFERS, "%u buffers are held",
                buffers_in_use() - before);
        last = esp(&sa, from_far(.size = 601), .sequence = 2);
        inject(WAN, piece(last, 99, 0, 400));
        inject(WAN, piece(last, 99, 1, 400));
        expect(LAN, hop(from_far(.size = 601)));
        advance(WAIT_MOST);
        expect_drop("ipsec_in.fragment_timeout", BUFFERS / EACH * EACH);
        require(buffers_in_use() == before, "buffers are still held");
    }
}

/* A packet that does not fit alone is of no use. */
CASE(more_buffers_than_there_may_be) {
    struct frame *whole = esp(&in4, from_far(.size = 30000));
    unsigned before;

    start(tunnel(NULL, &in4, ""));
    before = buffers_in_use();
    for (unsigned from = 0; from < payload_of(whole); from += 1400)
        inject_segments(WAN, piece_of(whole, 1, from, 1400), 40);
    turn();
    require(drops_so_far("ipsec_in.fragment_table_full") > 0, "it would be %u buffers",
            payload_of(whole) / 40);
    forget_drops();
    require(buffers_in_use() == before, "buffers are still held");
}

/* Fragments that fit together by chance only: each ends somewhere, and nothing is left of them. */
CASE(nonsense) {
    draw_from(SEED);
    for_each_kind(sa) {
        enum { ROUNDS = 4000, IDS = 40 };
        struct frame *whole = esp(&sa, from_far(.size = 1400));
        unsigned before;

        start(tunnel(NULL, &sa, ""));
        before = buffers_in_use();
        for (unsigned i = 0; i < ROUNDS; i++) {
            bool ipv6 = is_ipv6(whole);
            unsigned field = draw(8) ? draw(200) * 8 : draw(65536), length = 8 * (1 + draw(160));
            struct frame *any = piece_of(whole, draw(IDS), 8 * draw(150), length);
            unsigned header = ipv6 ? IP6_PAYLOAD + 8 : IP4_PAYLOAD;

            if (draw(3) == 0) {
                any = truncated(any, header + draw(any->length - header + 1));
                any = ipv6 ? poke(any, IP + 4, text("%04x", any->length - IP6_PAYLOAD))
                           : patch(any, IP + 2, text("%04x", any->length - IP));
            }
            if (draw(3) == 0)
                any = ipv6 ? poke(any, IP6_PAYLOAD + 2, text("%04x", (field & 0xfff8) | draw(2)))
                           : patch(any, IP + 6,
                                   text("%04x", field / 8 | (draw(2) ? MORE_FRAGMENTS : 0u)));
            if (draw(4))
                inject(WAN, any);
            else
                inject_segments(WAN, any, 80 + draw(200));
            if (draw(20) == 0)
                turn();
            if (draw(500) == 0)
                advance(WAIT_MOST);
        }
        turn();
        discard(LAN);
        discard(WAN); /* errors about UDP that is none of ESP */
        advance(WAIT_MOST);
        require(buffers_in_use() == before, "buffers are still held");
        forget_drops();
    }
}

/* --- what is not for an association --- */

CASE(of_strangers) {
    struct esp_sa other = in4, other6 = in6;
    struct frame *whole;

    other.source = "203.0.113.10";
    other6.source = "2001:db8:99::a";
    start(tunnel(NULL, &in4, ""));
    whole = esp(&other, from_far(.size = 1000));
    is_dropped(WAN, piece(whole, 1, 0, 400), "ipsec_in.fragment");
    is_dropped(WAN, piece(whole, 1, 2, 400), "ipsec_in.fragment");
    whole = esp(&in6, from_far(.size = 1000));
    is_dropped(WAN, piece(whole, 1, 0, 400), "ipsec_in.fragment");
    is_dropped(WAN, piece(whole, 1, 2, 400), "ipsec_in.fragment");
    start(tunnel(NULL, &in6, ""));
    whole = esp(&other6, from_far(.size = 1000));
    is_dropped(WAN, piece(whole, 1, 0, 400), "ipsec_in.fragment");
    is_dropped(WAN, piece(whole, 1, 2, 400), "ipsec_in.fragment");
}

/* It is a packet like others once it is whole. */
CASE(of_unknown_associations) {
    struct esp_sa other = in4;
    struct frame *whole;

    other.spi++;
    whole = esp(&other, from_far(.size = 1000));
    start(tunnel(NULL, &in4, ", 'replay_window': 64"));
    for (unsigned n = 0; n < 3; n++)
        inject(WAN, piece(whole, 1, n, 400));
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_in.unknown_spi", 1);
    whole = esp(&in4, from_far(.size = 1000));
    whole->bytes[whole->length - 1] ^= 1;
    for (unsigned n = 0; n < 3; n++)
        inject(WAN, piece(whole, 2, n, 400));
    expect_nothing(ANYWHERE);
    expect_drop("ipsec_in.integrity", 1);
    whole->bytes[whole->length - 1] ^= 1;
    for (unsigned again = 0; again < 2; again++) {
        for (unsigned n = 0; n < 3; n++)
            inject(WAN, piece(whole, 3 + again, n, 400));
    }
    expect(LAN, hop(from_far(.size = 1000)));
    expect_drop("ipsec_in.replayed", 1);
}

CASE(between_others) {
    struct esp_sa other = in4, other6 = in6;
    struct frame *whole, *whole6;

    other.destination = INSIDE;
    other6.destination = INSIDE6;
    whole = esp(&other, from_far(.size = 1000));
    whole6 = esp(&other6, from_far(.size = 1000));
    start(tunnel(NULL, &in4, ""));
    for (unsigned n = 3; n-- > 0;) {
        passes(WAN, LAN, piece(whole, 1, n, 400));
        passes(WAN, LAN, piece(whole6, 1, n, 400));
    }
    whole = esp(&out4, to_far(.size = 1000)); /* out of the router, were it not forged */
    other = out4;
    other.source = INSIDE;
    whole = esp(&other, to_far(.size = 1000));
    for (unsigned n = 3; n-- > 0;)
        passes(LAN, WAN, piece(whole, 1, n, 400));
}

/* --- other UDP from a peer --- */

#define from_peer(port, ...) \
    udp4(.source = PEER ":4500", .destination = ROUTER ":" #port, .size = 1000, __VA_ARGS__)

static const char *with_forward(const struct esp_sa *sa, const char *port) {
    return with_ipsec_and(
        text("'sas': [%s], 'policies': [%s]", sa_json(sa, "in", ""), policies_of(0, SPI_IN)),
        text("'nat': {'destination': [{'in': 'wan', 'protocol': 'udp',"
             " 'destination_port': %s, 'to': '" INSIDE "'}]}",
             port));
}

/* As the port forward leaves it on the LAN. */
static struct frame *forwarded(const char *port, unsigned id) {
    return hop(udp4(.source = PEER ":4500", .destination = text(INSIDE ":%s", port), .size = 1000,
                    .id = id));
}

/* Nothing is changed about the fragments of those whose first one comes first. */
CASE(other_udp_in_order) {
    struct esp_sa sa = esp_kind(&in4, &in6, 2);

    start(with_forward(&sa, "5000"));
    for (unsigned id = 1; id < 3 * DATAGRAMS; id++) {
        struct frame *whole = from_peer(5000, .id = id);

        for (unsigned n = 0; n < 3; n++)
            inject(WAN, fragment4(whole, n * 400, 400));
        for (unsigned n = 0; n < 3; n++)
            expect(LAN, fragment4(forwarded("5000", id), n * 400, 400));
        /* The middle one last. */
        whole = from_peer(5000, .id = 1000 + id);
        inject(WAN, fragment4(whole, 0, 400));
        inject(WAN, fragment4(whole, 800, 400));
        inject(WAN, fragment4(whole, 400, 400));
        expect(LAN, fragment4(forwarded("5000", 1000 + id), 0, 400));
        expect(LAN, fragment4(forwarded("5000", 1000 + id), 800, 400));
        expect(LAN, fragment4(forwarded("5000", 1000 + id), 400, 400));
    }
}

/* The others are put together, since nothing else is known of them at first. */
CASE(other_udp_out_of_order) {
    struct esp_sa sa = esp_kind(&in4, &in6, 2);
    struct frame *whole = from_peer(5000, .id = 7), *large;

    start(with_forward(&sa, "5000"));
    for (unsigned first = 0; first < 2; first++) {
        inject(WAN, fragment4(whole, 400, 400));
        inject(WAN, fragment4(whole, first ? 0 : 800, 400));
        inject(WAN, fragment4(whole, first ? 800 : 0, 400));
        expect(LAN, forwarded("5000", 7));
    }
    large = udp4(.source = PEER ":4500", .destination = ROUTER ":5000", .size = 3000, .id = 8);
    for (unsigned from = 3 * 1400; from > 0; from -= 1400) {
        if (from - 1400 < 3008)
            inject(WAN, fragment4(large, from - 1400, 1400));
    }
    large = hop(udp4(.source = PEER ":4500", .destination = INSIDE ":5000", .size = 3000, .id = 8));
    for (unsigned from = 0; from < 3008; from += 1480)
        expect(LAN, fragment4(large, from, 1480));
}

/* IKE on the port of ESP begins with four zeroes. */
CASE(ike_in_fragments) {
    struct esp_sa sa = esp_kind(&in4, &in6, 2);
    struct frame *whole = poke(from_peer(4500, .id = 7), IP4_PAYLOAD + 8, "00000000");

    start(tunnel(NULL, &sa, ""));
    whole = poke(whole, IP4_PAYLOAD + 6, "0000");
    /* Without a twin an ICMP error is the sign that it has come to the router itself. */
    inject(WAN, fragment4(whole, 0, 600));
    expect(WAN, icmp4_error(.source = ROUTER, .destination = PEER, .type = 3, .code = 3,
                            .about = fragment4(whole, 0, 600)));
    expect_drop("local.no_listener", 1);
    inject(WAN, fragment4(whole, 600, 600));
    expect_nothing(ANYWHERE);
    expect_drops({"local.no_listener", 1}, {"icmp.error_not_allowed", 1});
    inject(WAN, fragment4(whole, 600, 600));
    expect_nothing(ANYWHERE);
    expect_no_drops();
    inject(WAN, fragment4(whole, 0, 600));
    expect(WAN, icmp4_error(.source = ROUTER, .destination = PEER, .type = 3, .code = 3,
                            .about = whole));
    expect_drop("local.no_listener", 1);
}

CASE(ike_over_ipv6_in_fragments) {
    struct esp_sa sa = esp_kind(&in4, &in6, 3);
    struct frame *whole =
        udp6(.source = "[" PEER6 "]:4500", .destination = "[" ROUTER6 "]:4500", .size = 1000);

    start(tunnel(NULL, &sa, ""));
    whole = poke(whole, IP6_PAYLOAD + 8, "00000000");
    inject(WAN, piece(whole, 7, 1, 600));
    expect_nothing(ANYWHERE);
    inject(WAN, piece(whole, 7, 0, 600));
    expect(WAN, icmp6_error(.source = ROUTER6, .destination = PEER6, .type = 1, .code = 4,
                            .about = whole));
    expect_drop("local.no_listener", 1);
}

/* A number that a packet which was not whole has had. */
CASE(numbers_that_come_round) {
    struct esp_sa sa = esp_kind(&in4, &in6, 2);
    struct frame *other = from_peer(5000, .id = 7), *inner = from_far(.size = 1000);
    struct frame *whole = esp(&sa, inner);

    start(with_forward(&sa, "5000"));
    inject(WAN, fragment4(other, 0, 400));
    expect(LAN, fragment4(forwarded("5000", 7), 0, 400));
    for (unsigned n = 0; n < 3; n++)
        inject(WAN, piece(whole, 7, n, 400));
    expect(LAN, hop(inner));
}

/* Without an association in UDP nothing waits. */
CASE(udp_beside_plain_esp) {
    struct frame *whole = udp4(.source = PEER ":4500", .destination = ROUTER ":4500", .size = 1000);

    start(tunnel(NULL, &in4, ""));
    inject(WAN, fragment4(whole, 600, 600));
    expect_nothing(ANYWHERE);
    expect_drops({"local.no_listener", 1}, {"icmp.error_not_allowed", 1});
}

/* --- beginnings and ends --- */

/* What waits is given back when nobody waits any more; each case ends with no buffer left. */
CASE(configurations_without_ipsec) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 1000));
        unsigned before;

        start(tunnel(NULL, &sa, ""));
        before = buffers_in_use();
        for (unsigned id = 0; id < 10; id++)
            inject(WAN, piece(whole, id, 1 + id % 2, 400));
        turn();
        require(buffers_in_use() >= before + 10, "the fragments do not wait");
        apply(standard);
        turn();
        require(buffers_in_use() == before, "buffers are still held");
        expect_no_drops();
        apply(tunnel(NULL, &sa, ""));
        turn();
        for (unsigned n = 0; n < 3; n++)
            inject(WAN, piece(whole, 1, n, 400));
        expect(LAN, hop(from_far(.size = 1000)));
        inject(WAN, piece(whole, 2, 0, 400));
        turn();
    }
}

/* A reload leaves alone what waits. */
CASE(reloads) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 1000));

        start(tunnel(NULL, &sa, ""));
        inject(WAN, piece(whole, 1, 0, 600));
        turn();
        apply(tunnel(NULL, &sa, ""));
        inject(WAN, piece(whole, 1, 1, 600));
        expect(LAN, hop(from_far(.size = 1000)));
    }
}

CASE(associations_that_go) {
    for_each_kind(sa) {
        struct frame *whole = esp(&sa, from_far(.size = 1000));

        start(tunnel(NULL, &sa, ""));
        inject(WAN, piece(whole, 1, 0, 600));
        turn();
        apply(with_sas("", ""));
        apply(tunnel(NULL, &sa, ""));
        /* It is another path, which has not seen the first fragment. */
        inject(WAN, piece(whole, 1, 1, 600));
        expect_nothing(ANYWHERE);
        advance(WAIT_MOST);
        expect_drop("ipsec_in.fragment_timeout", 2);
    }
}

HARNESS_MAIN(.workers = 1)
