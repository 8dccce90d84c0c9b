/*
 * What it takes to decrypt with a window against replays, beside what it takes to encrypt the same
 * packets. A port that replays a capture cannot tell: its numbers come again. Here the router
 * itself seals the packets that it opens afterwards, so that each number comes once and in order.
 *
 *     window [ROUNDS [WORKERS]]
 *
 * Clear packets arrive on the LAN and leave by the WAN in a tunnel; as they left they arrive on
 * another port, in a VRF where the tunnel ends, and leave in the clear. The pipeline is the real
 * one, between rings, so that no driver is in the times; both ways go through the same stages, and
 * what prepares the packets for either is not timed. They stay in the cache, as they do for a NIC
 * that writes there. With two workers the window has a lock.
 */
#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <stdio.h>

#include "core/event.h"
#include "core/rcu.h"
#include "core/worker.h"
#include "harness.h"

enum { PACKETS = 512, STEPS = 100, ROUNDS = 21, ROUNDS_MAX = 1000, FIRST_SPI = 4096, MAC = 6 };

static const unsigned windows[] = {0, 64, 1024, 4096}, sizes[] = {64, 1400};
enum { WINDOWS = sizeof(windows) / sizeof(windows[0]), SIZES = sizeof(sizes) / sizeof(sizes[0]) };

#define ALGORITHM                                                                              \
    "'algorithm': 'aes-gcm-128', 'key': '000102030405060708090a0b0c0d0e0f10111213', 'source':" \
    " '198.51.100.1', 'destination': '203.0.113.9'"

static struct rte_mbuf *packets[PACKETS];
static double encrypted[ROUNDS_MAX], decrypted[ROUNDS_MAX], ratios[ROUNDS_MAX];

/* --- the router --- */

static const char *associations(void) {
    const char *list = "";

    for (unsigned i = 0; i < WINDOWS; i++)
        list =
            text("%s%s{'direction': 'out', 'spi': %u, " ALGORITHM "},"
                 "{'direction': 'in', 'spi': %u, 'vrf': 'far', 'replay_window': %u, " ALGORITHM "}",
                 list, i ? "," : "", FIRST_SPI + i, FIRST_SPI + i, windows[i]);
    return list;
}

static const char *policies(void) {
    const char *list = "";

    for (unsigned i = 0; i < WINDOWS; i++)
        list = text("%s%s{'direction': 'out', 'destination': '10.9.%u.0/24', 'action': 'protect',"
                    " 'spi': %u}, {'direction': 'in', 'vrf': 'far', 'destination': '10.9.%u.0/24',"
                    " 'action': 'protect', 'spi': %u}",
                    list, i ? "," : "", i, FIRST_SPI + i, i, FIRST_SPI + i);
    return list;
}

static const char *neighbours(void) {
    const char *list = WAN_NEIGHBOURS;

    for (unsigned i = 0; i < WINDOWS; i++)
        list = text("%s, {'interface': 'dmz', 'address': '10.9.%u.5', 'mac': '" HOST_DMZ "'}", list,
                    i);
    return list;
}

static const char *router(void) {
    return text("{'vrfs': {'far': {'table': 10}}, 'interfaces': {"
                "'lan': {" LAN_PORT ", " LAN_ADDRESSES "}, 'wan': {" WAN_PORT ", " WAN_ADDRESSES
                "}, 'isp': {" ISP_PORT ", 'vrf': 'far', 'addresses': ['203.0.113.9/24']},"
                "'dmz': {" DMZ_PORT ", 'vrf': 'far', 'addresses': ['10.9.0.1/16']}},"
                "'neighbours': [%s], 'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}],"
                "'ipsec': {'sas': [%s], 'policies': [%s]}, " UNLIMITED "}",
                neighbours(), associations(), policies());
}

/* --- packets --- */

static void allocate_packets(void) {
    struct frame *any = udp4(.source = "192.168.1.10:1", .destination = "10.9.0.5:1");

    for (unsigned i = 0; i < PACKETS; i++)
        packets[i] = harness_mbuf(LAN, any, 0, 0);
}

/* Clear ones of 64 flows, for the tunnel with this window. */
static void make_clear(unsigned window, unsigned size) {
    static struct rte_mbuf *templates[BURST_MAX];

    for (unsigned i = 0; i < BURST_MAX; i++) {
        struct frame *frame =
            udp4(.source = text("192.168.1.10:%u", 1000 + i),
                 .destination = text("10.9.%u.5:2000", window), .size = size - IP4_PAYLOAD - 8);

        templates[i] = harness_mbuf(LAN, frame, 0, 0);
    }
    for (unsigned i = 0; i < PACKETS; i++) {
        rte_pktmbuf_reset(packets[i]);
        memcpy(rte_pktmbuf_append(packets[i], (uint16_t)size),
               rte_pktmbuf_mtod(templates[i % BURST_MAX], void *), size);
    }
    for (unsigned i = 0; i < BURST_MAX; i++)
        rte_pktmbuf_free(templates[i]);
    frames_free();
}

/* What a NIC would have made of the frame, sent to the router's port: in another buffer, where
 * frames begin. */
static void receive_again(void) {
    static const uint8_t mac[MAC] = {2, 0, 0, 0, ISP, 1};

    for (unsigned i = 0; i < PACKETS; i++) {
        const uint8_t *frame = rte_pktmbuf_mtod(packets[i], const uint8_t *);
        uint16_t length = packets[i]->data_len;

        rte_pktmbuf_reset(packets[i]);
        memmove(rte_pktmbuf_append(packets[i], length), frame, length);
        memcpy(rte_pktmbuf_mtod(packets[i], void *), mac, MAC);
    }
}

/* All packets, in by one port and out by the other; cycles, or 0 if some are missing. */
static uint64_t forward(enum place from, enum place to) {
    struct rte_ring *out = harness_tx_ring(to, 0);
    struct worker *worker = worker_get(0);
    unsigned sent = 0;
    uint64_t start, spent;

    if (rte_ring_enqueue_bulk(harness_rx_ring(from, 0), (void **)packets, PACKETS, NULL) == 0)
        return 0;
    start = rte_rdtsc();
    while (worker_turn(worker) > 0)
        ;
    spent = rte_rdtsc() - start;
    rcu_shared_quiescent();
    sent = rte_ring_dequeue_burst(out, (void **)packets, PACKETS, NULL);
    return sent == PACKETS ? spent : 0;
}

/* --- rounds --- */

static int compare(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

static double median(double *values, unsigned count) {
    qsort(values, count, sizeof(*values), compare);
    return values[count / 2];
}

/* Steps in turn, of which the median counts: who else runs on the CPU is in few of them. */
static bool measure(unsigned window, unsigned size, double *encrypt, double *decrypt) {
    double there[STEPS], back[STEPS];

    for (unsigned step = 0; step < STEPS; step++) {
        uint64_t cycles;

        make_clear(window, size);
        cycles = forward(LAN, WAN);
        there[step] = (double)cycles / PACKETS;
        receive_again();
        if (cycles == 0 || (cycles = forward(ISP, DMZ)) == 0)
            return false;
        back[step] = (double)cycles / PACKETS;
    }
    *encrypt = median(there, STEPS);
    *decrypt = median(back, STEPS);
    event_turn(0); /* the clock goes on */
    return true;
}

static bool run(unsigned window, unsigned size, unsigned rounds) {
    for (unsigned i = 0; i < rounds; i++) {
        if (!measure(window, size, &encrypted[i], &decrypted[i])) {
            fprintf(stderr, "packets are missing\n");
            return false;
        }
        ratios[i] = decrypted[i] / encrypted[i];
    }
    printf("%4u bytes, window %4u: encrypt %.1f, decrypt %.1f cycles per packet; decrypt / encrypt "
           "%.3f",
           size, windows[window], median(encrypted, rounds), median(decrypted, rounds),
           median(ratios, rounds));
    printf(" (median of %u from %.3f to %.3f)\n", rounds, ratios[0], ratios[rounds - 1]);
    return true;
}

int main(int argc, char **argv) {
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS;
    unsigned workers = argc > 2 ? (unsigned)atoi(argv[2]) : 1;

    if (rounds == 0 || rounds > ROUNDS_MAX || workers == 0) {
        fprintf(stderr, "usage: window [ROUNDS [WORKERS]]\n");
        return EXIT_FAILURE;
    }
    harness_init(argv[0], &(struct harness_options){.workers = workers, .queues = workers});
    start(router());
    allocate_packets();
    for (unsigned size = 0; size < SIZES; size++) {
        for (unsigned window = 0; window < WINDOWS; window++) {
            if (!run(window, sizes[size], rounds))
                return EXIT_FAILURE;
        }
    }
    return EXIT_SUCCESS;
}
