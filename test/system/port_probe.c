/*
 * A wire between two ports, for tests: opens both through port_open(), passes every frame on for
 * some seconds, prints what it saw, closes and detaches them.
 *
 *   port_probe EAL-OPTIONS -- [-t SECONDS] [-m MTU] [-q QUEUES] [-w WORKERS] [-v] DEVICE [DEVICE]
 *
 * One device alone gets its frames back. Lines on stdout: "port ..." for each port, "ready", at the
 * end "counters ..." for each port. Problems go to stderr as "PATH: SENTENCE", and the exit status
 * is then 1. -v: VLAN interfaces will sit on the ports.
 */
#include <errno.h>
#include <inttypes.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_mbuf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/port.h"
#include "core/problem.h"

enum { BURST = 32, BUFFERS = 16384 };

static struct rte_mempool *buffers;
static volatile sig_atomic_t stopped;

static struct rte_mempool *pool(int numa_node) {
    (void)numa_node;
    return buffers;
}

static void stop(int signal_number) {
    (void)signal_number;
    stopped = 1;
}

/* A driver that takes no chains gets one buffer: copies the frame together. */
static struct rte_mbuf *one_buffer(struct rte_mbuf *frame) {
    if (frame->nb_segs == 1) {
        return frame;
    }
    struct rte_mbuf *copy = rte_pktmbuf_copy(frame, buffers, 0, UINT32_MAX);
    rte_pktmbuf_free(frame);
    return copy;
}

static void forward(const struct port *from, const struct port *to) {
    struct rte_mbuf *frames[BURST];

    for (uint16_t queue = 0; queue < from->rx_queues; queue++) {
        uint16_t count = rte_eth_rx_burst(from->id, queue, frames, BURST);
        if (!to->tx_multi_segment) {
            uint16_t kept = 0;
            for (uint16_t i = 0; i < count; i++) {
                struct rte_mbuf *frame = one_buffer(frames[i]);
                if (frame) {
                    frames[kept++] = frame;
                }
            }
            count = kept;
        }
        uint16_t sent = rte_eth_tx_burst(to->id, queue % to->tx_queues, frames, count);
        rte_pktmbuf_free_bulk(frames + sent, count - sent);
    }
}

static void describe(const struct port *port) {
    printf("port driver=%s mac=" RTE_ETHER_ADDR_PRT_FMT " mtu=%u rx_queues=%u tx_queues=%u link=%s "
           "speed=%" PRIu32 " rss=%d scatter=%d chains=%d promiscuous=%d device=%s\n",
           port_driver_name(port), port->mac[0], port->mac[1], port->mac[2], port->mac[3],
           port->mac[4], port->mac[5], port->mtu, port->rx_queues, port->tx_queues,
           port->link_up ? "up" : "down", port->speed_mbps, port->rss, port->rx_scatter,
           port->tx_multi_segment, port->promiscuous, port->device);
}

static void print_counters(struct port *port) {
    struct rte_eth_stats stats;

    port_link_poll(port);
    port_stats(port, &stats);
    printf("counters driver=%s link=%s rx_packets=%" PRIu64 " tx_packets=%" PRIu64
           " rx_missed=%" PRIu64 "\n",
           port_driver_name(port), port->link_up ? "up" : "down", stats.ipackets, stats.opackets,
           stats.imissed);
}

int main(int argc, char **argv) {
    struct port_request request = {0};
    struct problems problems = {0};
    struct port *ports[2] = {NULL, NULL};
    unsigned count = 0, workers = 1;
    double seconds = 5;
    int option, status = 0;

    int used = rte_eal_init(argc, argv);
    if (used < 0) {
        fprintf(stderr, "EAL does not start\n");
        return 2;
    }
    argc -= used;
    argv += used;
    optind = 1;
    while ((option = getopt(argc, argv, "t:m:q:w:vd")) != -1) {
        switch (option) {
        case 't':
            seconds = strtod(optarg, NULL);
            break;
        case 'm':
            request.mtu = (uint16_t)strtoul(optarg, NULL, 10);
            break;
        case 'q':
            request.rx_queues = request.tx_queues = (uint16_t)strtoul(optarg, NULL, 10);
            break;
        case 'w':
            workers = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'v':
            request.vlans = true;
            break;
        case 'd':
            log_set_level(LOG_LEVEL_DEBUG);
            break;
        default:
            return 2;
        }
    }
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    buffers = rte_pktmbuf_pool_create("probe", BUFFERS, 256, 0, 2048 + RTE_PKTMBUF_HEADROOM,
                                      SOCKET_ID_ANY);
    if (!buffers) {
        fprintf(stderr, "no memory for buffers\n");
        return 2;
    }
    for (; optind < argc && count < 2; optind++) {
        char path[32];
        snprintf(path, sizeof(path), "$.interfaces.p%u", count);
        snprintf(request.device, sizeof(request.device), "%s", argv[optind]);
        if (port_open(&request, workers, pool, path, &ports[count], &problems) != 0) {
            status = 1;
            break;
        }
        describe(ports[count++]);
    }
    for (size_t i = 0; i < problems.count; i++) {
        fprintf(stderr, "%s: %s\n", problems.list[i].path, problems.list[i].message);
    }
    problems_free(&problems);
    if (status == 0 && count > 0) {
        puts("ready");
        fflush(stdout);
        uint64_t end = rte_get_timer_cycles() + (uint64_t)(seconds * rte_get_timer_hz());
        while (!stopped && rte_get_timer_cycles() < end) {
            forward(ports[0], ports[count - 1]);
            if (count > 1) {
                forward(ports[1], ports[0]);
            }
        }
        for (unsigned i = 0; i < count; i++) {
            print_counters(ports[i]);
        }
    }
    while (count > 0) {
        port_close(ports[--count]);
    }
    /* Whatever is missing now has leaked. */
    if (status == 0) {
        printf("buffers out=%u\n", rte_mempool_in_use_count(buffers));
    }
    rte_eal_cleanup();
    return status;
}
