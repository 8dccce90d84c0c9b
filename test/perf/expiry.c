/*
 * How long a worker's turn takes while a million translated sessions come to their end. The
 * pipeline is the real one, between rings and without hugepages, so memory is slower here than in
 * the product.
 *
 * Whatever interrupts the worker (the kernel's timer, another virtual machine) is in these times,
 * too. To tell one from the other, each turn is followed by plain arithmetic that takes about as
 * long and touches no memory: what the longest of those take beyond the usual, the machine adds.
 *
 *     expiry [SESSIONS]
 */
#include <rte_cycles.h>
#include <stdio.h>

#include "core/event.h"
#include "core/rcu.h"
#include "core/worker.h"
#include "harness.h"
#include "session/session.h"

enum { BURST = 64, TURNS_MAX = 4000000 };

static const char *const router =
    "{'interfaces': {'lan': {" LAN_PORT ", 'addresses': ['10.0.0.1/8']},"
    "'wan': {" WAN_PORT ", " WAN_ADDRESSES "}},"
    "'neighbours': [" WAN_NEIGHBOURS
    "], 'routes': [{'prefix': '0.0.0.0/0', 'via': '198.51.100.2'}],"
    "'sessions': {'size': %u, 'timeouts': {'udp_new': 60}},"
    "'firewall': {'default': 'drop', 'rules': [{'name': 'out', 'in': 'lan', 'action': 'accept'}]},"
    "'nat': {'source': [{'out': 'wan', 'to': '203.0.113.0/24'}]}," UNLIMITED "}";

static uint32_t alive(void) {
    struct session_totals totals;

    session_totals(&totals);
    return totals.alive;
}

static void open_sessions(unsigned count) {
    for (unsigned n = 0; n < count; n++) {
        inject(LAN, udp4(.source = text("10.%u.%u.%u:%u", 1 + (n >> 22), n >> 14 & 255,
                                        n >> 6 & 255, 2000 + (n & 63)),
                         .destination = "198.51.100.2:53"));
        if (n % BURST == BURST - 1) {
            turn();
            discard(ANYWHERE);
            frames_free();
        }
    }
    turn();
    discard(ANYWHERE);
}

/* Arithmetic that takes about so many cycles; returns how many it took. */
static uint32_t spin(uint32_t cycles) {
    uint64_t start = rte_rdtsc();
    volatile uint64_t sink;
    uint64_t value = start;

    for (uint32_t i = 0; i < cycles / 4; i++) /* a multiplication takes at least three */
        value = value * UINT64_C(6364136223846793005) + 1;
    sink = value;
    (void)sink;
    return (uint32_t)(rte_rdtsc() - start);
}

static int compare(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

    return (left > right) - (left < right);
}

static unsigned longer_than(const uint32_t *cycles, unsigned count, double most) {
    unsigned longer = 0;

    while (longer < count && cycles[count - 1 - longer] > most)
        longer++;
    return longer;
}

static void say(const char *what, uint32_t *cycles, unsigned count) {
    double usec = (double)rte_get_tsc_hz() / 1e6;

    qsort(cycles, count, sizeof(*cycles), compare);
    printf("%s: median %.1f us, 99.9 %% below %.1f us, 99.99 %% below %.1f us, longest %.1f us; "
           "%u longer than 50 us\n",
           what, cycles[count / 2] / usec, cycles[count - 1 - count / 1000] / usec,
           cycles[count - 1 - count / 10000] / usec, cycles[count - 1] / usec,
           longer_than(cycles, count, 50 * usec));
}

int main(int argc, char **argv) {
    unsigned count = argc > 1 ? (unsigned)atoi(argv[1]) : 1000000, turns = 0;
    uint32_t *cycles = calloc(TURNS_MAX, sizeof(*cycles)), opened;
    uint32_t *idle = calloc(TURNS_MAX, sizeof(*idle));

    harness_init(argv[0], &(struct harness_options){0});
    start(text(router, count + count / 8));
    open_sessions(count);
    opened = alive();
    event_advance(61000);
    while (alive() > 0 && turns < TURNS_MAX) {
        uint64_t before = rte_rdtsc();

        worker_turn(worker_get(0));
        cycles[turns] = (uint32_t)(rte_rdtsc() - before);
        idle[turns] = spin(cycles[turns]);
        turns++;
        rcu_shared_quiescent();
        if (turns % 1024 == 0)
            event_turn(0); /* the clock goes on */
    }
    printf("%u sessions ended in %u turns; %u are left\n", opened, turns, alive());
    say("turns", cycles, turns);
    say("as much arithmetic", idle, turns);
    return alive() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
