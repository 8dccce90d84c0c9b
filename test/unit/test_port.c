/*
 * Ports that need neither root nor hardware: device strings without EAL, then net_null, net_ring,
 * net_pcap, net_memif and net_vhost with EAL.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <rte_eal.h>
#include <rte_mbuf.h>
#include <rte_version.h>

#include "core/log.h"
#include "core/port.h"
#include "core/problem.h"
#include "skip.h"

static const char path[] = "$.interfaces.wan";
static struct rte_mempool *buffers;
static char directory[] = "/tmp/test_port.XXXXXX";

static struct rte_mempool *pool(int numa_node) {
    (void)numa_node;
    return buffers;
}

static struct rte_mempool *no_pool(int numa_node) {
    (void)numa_node;
    return NULL;
}

static struct port_request request_for(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
static struct port_request request_for(const char *format, ...) {
    struct port_request request = {0};
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(request.device, sizeof(request.device), format, arguments);
    va_end(arguments);
    return request;
}

/* Exactly one problem, with this text. */
static void assert_problem(struct problems *problems, const char *text) {
    assert_int_equal(problems->count, 1);
    assert_string_equal(problems->list[0].path, path);
    assert_string_equal(problems->list[0].message, text);
    problems_free(problems);
}

static void assert_refused(const struct port_request *request, int error, const char *text) {
    struct problems problems = {0};
    struct port *port = (struct port *)1;

    assert_int_equal(port_open(request, 1, pool, path, &port, &problems), error);
    assert_null(port);
    assert_problem(&problems, text);
}

static struct port *open_port(const struct port_request *request, unsigned workers) {
    struct problems problems = {0};
    struct port *port;
    int error = port_open(request, workers, pool, path, &port, &problems);

    if (problems.count > 0) {
        fail_msg("%s", problems.list[0].message);
    }
    assert_int_equal(error, 0);
    return port;
}

/* ---- without EAL ---- */

static void assert_device(const char *device, const char *text) {
    struct problems problems = {0};

    port_check_device(device, path, &problems);
    if (text) {
        assert_problem(&problems, text);
    } else if (problems.count > 0) {
        fail_msg("%s: %s", device, problems.list[0].message);
    }
}

static void good_devices(void **state) {
    (void)state;
    const char *const devices[] = {
        "0000:03:00.0",
        "03:00.0",
        "0000:04:00.0,port=1",
        "0000:04:00.0,some_driver_argument=1",
        "net_tap0",
        "net_tap0,iface=lan",
        "net_tap_lan,iface=lan,mac=fixed",
        "net_tap0,iface=lan,mac=02:00:00:00:00:01",
        "net_af_packet0,iface=eth1,qpairs=2",
        "net_af_xdp0,iface=eth1,queue_count=2,force_copy=1",
        "net_memif0,role=server,id=0,socket=/run/m.sock,socket-abstract=no",
        "net_pcap0,rx_pcap=a.pcap,rx_pcap=b.pcap,infinite_rx=1",
        "net_null0,size=64,copy=0",
        "net_ring0",
        "eth_ring0",
        "net_vhost0,iface=/run/dpdk-router/vm1.sock,queues=1",
        "net_virtio_user0,path=/run/vm.sock",
        "virtio_user0,path=/run/vm.sock",
        "net_bonding0,mode=1",
    };
    for (size_t i = 0; i < RTE_DIM(devices); i++) {
        assert_device(devices[i], NULL);
    }
}

static void bad_devices(void **state) {
    (void)state;
    assert_device("",
                  "the device is empty; expected a PCI address such as 0000:03:00.0 or a virtual "
                  "device such as net_tap0,iface=lan");
    assert_device("eth0",
                  "`eth0` is neither a PCI address such as 0000:03:00.0 nor a virtual device "
                  "such as net_tap0");
    assert_device("0000:03:00", "`0000:03:00` is neither a PCI address such as 0000:03:00.0 nor a "
                                "virtual device such as net_tap0");
    assert_device("net_tap0,ifcae=lan",
                  "net_tap0: there is no argument `ifcae`; it takes iface, mac, remote, persist");
    assert_device("net_tap0,lan", "net_tap0: `lan` is no argument of the form key=value");
    assert_device("net_tap0,iface=a,iface=b", "net_tap0: argument `iface` stands there twice");
    assert_device(
        "net_tap0,iface=abcdefghijklmnop",
        "net_tap0: `abcdefghijklmnop` in argument `iface` is no Linux interface name (1 to "
        "15 characters, no slash, colon or space)");
    assert_device("net_tap0,mac=1", "net_tap0: argument `mac` must be a MAC address such as "
                                    "02:00:00:00:00:01, but is `1`");
    assert_device("net_vhost0", "net_vhost0 needs the argument `iface`: "
                                "net_vhost0,iface=/run/dpdk-router/vm1.sock[,queues=N][,client=1]");
    assert_device("net_vhost0,iface=vm.sock",
                  "net_vhost0: argument `iface` must be an absolute path, but is `vm.sock`");
    assert_device("net_vhost0,iface=/run/vm.sock,queues=65",
                  "net_vhost0: argument `queues` must be a number from 1 to 64, but is `65`");
    assert_device("net_vhost0,iface=/run/vm.sock,queues=two",
                  "net_vhost0: argument `queues` must be a number from 1 to 64, but is `two`");
    assert_device("net_memif0,zero-copy=1",
                  "net_memif0: argument `zero-copy` must be `yes` or `no`, but is `1`");
    assert_device("0000:04:00.0,port=x",
                  "pci: argument `port` must be a number from 0 to 31, but is `x`");
    assert_device("net_pcap0,rx_pcap=", "net_pcap0: argument `rx_pcap` has no value");

    char text[512];
    memset(text, 'a', sizeof(text));
    memcpy(text, "net_tap0,iface=", 15);
    text[300] = '\0';
    assert_device(text, "the device is too long: 300 bytes, the most is 255");
    text[100] = '\0';
    memcpy(text, "net_tapaaaaaaaa", 15);
    assert_device(text, "the device's name is too long: 100 bytes, the most is 63");
}

static void several_problems(void **state) {
    (void)state;
    struct problems problems = {0};

    port_check_device("net_vhost0,queues=0,colour=red", path, &problems);
    assert_int_equal(problems.count, 3);
    problems_free(&problems);
    port_check_device("nonsense", path, NULL);
}

static void arguments(void **state) {
    (void)state;
    char device[PORT_DEVICE_TEXT] = "net_x0,iface=eth1,n=3,iface=eth2", value[8];
    struct problems problems = {0};

    assert_true(port_device_argument(device, "iface", 0, value, sizeof(value)));
    assert_string_equal(value, "eth1");
    assert_true(port_device_argument(device, "iface", 1, value, sizeof(value)));
    assert_string_equal(value, "eth2");
    assert_false(port_device_argument(device, "iface", 2, value, sizeof(value)));
    assert_false(port_device_argument(device, "fac", 0, NULL, 0));
    assert_false(port_device_argument("net_x0", "iface", 0, NULL, 0));
    assert_int_equal(port_device_complete(device, "n", 4, path, &problems), 0);
    assert_int_equal(port_device_complete(device, "m", 4, path, &problems), 0);
    assert_string_equal(device, "net_x0,iface=eth1,n=3,iface=eth2,m=4");

    struct port_request request = {.rx_queues = 2, .tx_queues = 4};
    assert_int_equal(port_device_complete_queues(&request, 1, device, "n", path, &problems),
                     -EINVAL);
    assert_problem(&problems, "the device is made with n=3, but tx_queues asks for 4 queues");
    assert_int_equal(port_device_complete_queues(&request, 1, device, "q", path, &problems), 0);
    request.tx_queues = 1;
    assert_int_equal(port_device_complete_queues(&request, 1, device, "n", path, &problems),
                     -EINVAL);
    assert_problem(&problems, "the device is made with n=3, but rx_queues asks for 2 queues");
    request.rx_queues = request.tx_queues = 0;
    assert_int_equal(port_device_complete_queues(&request, 5, device, "w", path, &problems), 0);
    assert_string_equal(device, "net_x0,iface=eth1,n=3,iface=eth2,m=4,q=4,w=5");
    memset(device, 'x', sizeof(device) - 2);
    device[sizeof(device) - 2] = '\0';
    assert_int_equal(port_device_complete(device, "n", 4, path, &problems), -ENAMETOOLONG);
    assert_int_equal(strlen(device), sizeof(device) - 2);
    problems_free(&problems);
}

static void write_file(const char *name, char *out, const void *data, size_t size) {
    sprintf(out, "%s/%s", directory, name);
    FILE *file = fopen(out, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

enum { FRAMES = 5, FRAME_LENGTH = 60 };

/* A capture of FRAMES frames, the nth filled with n; in the other byte order if `swapped`. */
static void write_pcap(const char *name, char *out, bool swapped) {
    uint8_t data[4096], *at = data;
    const uint32_t header[] = {0xa1b2c3d4, 4u << 16 | 2, 0, 0, 65535, 1};
    for (unsigned i = 0; i < 6; i++, at += 4) {
        /* The version is two 16-bit numbers; nobody looks at it here but libpcap. */
        uint32_t value = i == 1 ? (swapped ? 0x04000200 : 0x00040002) : header[i];
        value = swapped && i != 1 ? __builtin_bswap32(value) : value;
        memcpy(at, &value, 4);
    }
    for (unsigned i = 0; i < FRAMES; i++) {
        const uint32_t record[] = {0, 0, FRAME_LENGTH, FRAME_LENGTH};
        for (unsigned j = 0; j < 4; j++, at += 4) {
            uint32_t value = swapped ? __builtin_bswap32(record[j]) : record[j];
            memcpy(at, &value, 4);
        }
        memset(at, (int)i, FRAME_LENGTH);
        at += FRAME_LENGTH;
    }
    write_file(name, out, data, (size_t)(at - data));
}

static void mbufs(void **state) {
    (void)state;
    char file[128];
    struct port_request request = request_for("0000:03:00.0");

    assert_int_equal(port_request_mbufs(&request, 2), 2 * (1024 + 1024));
    request.rx_queues = 4;
    request.rx_descriptors = 512;
    assert_int_equal(port_request_mbufs(&request, 2), 4 * 512 + 2 * 1024);

    request = request_for("net_af_xdp0,iface=eth1");
    assert_int_equal(port_request_mbufs(&request, 1), 3 * 2048);
    request = request_for("net_memif0");
    assert_int_equal(port_request_mbufs(&request, 4), 2 * 64);

    request = request_for("net_pcap0,rx_pcap=/none,infinite_rx=1");
    assert_int_equal(port_request_mbufs(&request, 1), 128);
    write_pcap("frames.pcap", file, false);
    request = request_for("net_pcap0,rx_pcap=%s", file);
    assert_int_equal(port_request_mbufs(&request, 1), 128);
    request = request_for("net_pcap0,rx_pcap=%s,rx_pcap=%s,infinite_rx=1", file, file);
    assert_int_equal(port_request_mbufs(&request, 1), 128 + 2 * FRAMES);
    write_pcap("swapped.pcap", file, true);
    request = request_for("net_pcap0,rx_pcap=%s,infinite_rx=1", file);
    assert_int_equal(port_request_mbufs(&request, 1), 128 + FRAMES);

    /* A cut-off last record is none. */
    assert_int_equal(truncate(file, 24 + FRAMES * (16 + FRAME_LENGTH) - 1), 0);
    assert_int_equal(port_request_mbufs(&request, 1), 128 + FRAMES - 1);

    /* pcapng: section, interface, two frames, statistics. */
    const uint32_t section[] = {0x0a0d0d0a, 28, 0x1a2b3c4d, 1, UINT32_MAX, UINT32_MAX, 28};
    const uint32_t interface[] = {1, 20, 1, 0, 20};
    const uint32_t frame[] = {6, 36, 0, 0, 0, 4, 4, 0, 36};
    const uint32_t statistics[] = {5, 24, 0, 0, 0, 24};
    uint8_t data[sizeof(section) + sizeof(interface) + 2 * sizeof(frame) + sizeof(statistics)];
    uint8_t *at = data;
    at = (uint8_t *)memcpy(at, section, sizeof(section)) + sizeof(section);
    at = (uint8_t *)memcpy(at, interface, sizeof(interface)) + sizeof(interface);
    at = (uint8_t *)memcpy(at, frame, sizeof(frame)) + sizeof(frame);
    at = (uint8_t *)memcpy(at, frame, sizeof(frame)) + sizeof(frame);
    memcpy(at, statistics, sizeof(statistics));
    write_file("frames.pcapng", file, data, sizeof(data));
    request = request_for("net_pcap0,rx_pcap=%s,infinite_rx=1", file);
    assert_int_equal(port_request_mbufs(&request, 1), 128 + 2);
}

/* ---- with EAL ---- */

static void null_port(void **state) {
    (void)state;
    struct port_request request = request_for("net_null0,size=100");
    struct port *port = open_port(&request, 2);
    struct rte_mbuf *frames[8];
    struct rte_eth_stats stats;

    assert_string_equal(port_driver_name(port), "net_null");
    assert_int_equal(port->rx_queues, 2);
    assert_int_equal(port->tx_queues, 2);
    assert_int_equal(port->mtu, 1500);
    assert_true(port->started);
    assert_true(port->link_up);
    assert_true(port->tx_multi_segment);
    assert_false(port_link_poll(port));
    /* Locally administered, unicast. */
    assert_int_equal(port->mac[0] & 3, 2);
    assert_int_equal(rte_eth_rx_burst(port->id, 1, frames, 8), 8);
    assert_int_equal(frames[0]->pkt_len, 100);
    assert_int_equal(rte_eth_tx_burst(port->id, 0, frames, 8), 8);
    port_stats(port, &stats);
    assert_int_equal(stats.ipackets, 8);
    assert_int_equal(stats.opackets, 8);
    port_close(port);
    assert_int_equal(rte_eth_dev_count_avail(), 0);
    assert_int_equal(rte_mempool_in_use_count(buffers), 0);
    port_close(NULL);
}

static void open_again(void **state) {
    (void)state;
    uint8_t mac[6];

    for (unsigned i = 0; i < 20; i++) {
        struct port_request request = request_for("net_null0,size=%u", 64 + i);
        struct port_request other = request_for("net_ring0");
        struct port *port = open_port(&request, 1), *ring = open_port(&other, 1);
        if (i == 0) {
            memcpy(mac, ring->mac, 6);
        }
        assert_memory_equal(mac, ring->mac, 6);
        assert_memory_not_equal(mac, port->mac, 6);
        port_close(port);
        port_close(ring);
    }
    assert_int_equal(rte_eth_dev_count_avail(), 0);
}

static void ring_port(void **state) {
    (void)state;
    struct port_request request = request_for("net_ring0");
    struct rte_mbuf *frame = rte_pktmbuf_alloc(buffers), *back;

    request.rx_queues = 3;
    struct port *port = open_port(&request, 1);
    assert_int_equal(port->rx_queues, 3);
    assert_int_equal(port->tx_queues, 3);
    assert_int_equal(rte_eth_tx_burst(port->id, 2, &frame, 1), 1);
    assert_int_equal(rte_eth_rx_burst(port->id, 0, &back, 1), 0);
    assert_int_equal(rte_eth_rx_burst(port->id, 2, &back, 1), 1);
    assert_ptr_equal(frame, back);
    rte_pktmbuf_free(back);
    port_close(port);
}

static void pcap_port(void **state) {
    (void)state;
    char in[128], out[128];
    struct rte_mbuf *frames[16];

    write_pcap("in.pcap", in, false);
    sprintf(out, "%s/out.pcap", directory);
    struct port_request request = request_for("net_pcap0,rx_pcap=%s,tx_pcap=%s", in, out);
    struct port *port = open_port(&request, 4);
    assert_int_equal(port->rx_queues, 1);
    assert_int_equal(port->tx_queues, 1);
    assert_int_equal(rte_eth_rx_burst(port->id, 0, frames, 16), FRAMES);
    assert_int_equal(rte_pktmbuf_mtod(frames[4], uint8_t *)[0], 4);
    assert_int_equal(rte_eth_tx_burst(port->id, 0, frames, FRAMES), FRAMES);
    assert_int_equal(rte_eth_rx_burst(port->id, 0, frames, 16), 0);
    port_close(port);
    request = request_for("net_pcap1,rx_pcap=%s,infinite_rx=1", out);
    assert_int_equal(port_request_mbufs(&request, 1), 128 + FRAMES);
    port = open_port(&request, 1);
    assert_int_equal(rte_mempool_in_use_count(buffers), FRAMES);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(rte_eth_rx_burst(port->id, 0, frames, 16), 16);
        rte_pktmbuf_free_bulk(frames, 16);
    }
    port_close(port);
    assert_int_equal(rte_mempool_in_use_count(buffers), 0);

    char sentence[256];
    request = request_for("net_pcap0,rx_pcap=%s/none.pcap", directory);
    sprintf(sentence, "the capture file `%s/none.pcap` cannot be read: No such file or directory",
            directory);
    assert_refused(&request, -EINVAL, sentence);
    request = request_for("net_pcap0");
    assert_refused(&request, -EINVAL,
                   "net_pcap needs a file or interface to read or write: rx_pcap=FILE, "
                   "tx_pcap=FILE or iface=NAME");
    request = request_for("net_pcap0,iface=nowhere");
    assert_refused(&request, -EINVAL, "there is no Linux interface `nowhere`");
}

static void memif_ports(void **state) {
    (void)state;
    struct port_request server = request_for("net_memif0,role=server,socket=%s/m.sock,"
                                             "socket-abstract=no",
                                             directory),
                        client = request_for("net_memif1,role=client,socket=%s/m.sock,"
                                             "socket-abstract=no",
                                             directory);
    server.mtu = client.mtu = 9000;
    struct port *a = open_port(&server, 4), *b = open_port(&client, 4);
    struct rte_mbuf *frame = NULL, *back;

    assert_int_equal(a->rx_queues, 1);
    assert_int_equal(a->mtu, 9000);
    assert_true(a->rx_scatter);
    for (unsigned i = 0; i < 200 && !(a->link_up && b->link_up); i++) {
        port_link_poll(a);
        port_link_poll(b);
        usleep(10000);
    }
    assert_true(a->link_up);
    assert_true(b->link_up);
    /* Longer than a buffer: two of them, on both sides. */
    for (unsigned i = 0; i < 2; i++) {
        struct rte_mbuf *part = rte_pktmbuf_alloc(buffers);
        memset(rte_pktmbuf_append(part, 1800), (int)i + 1, 1800);
        if (frame) {
            assert_int_equal(rte_pktmbuf_chain(frame, part), 0);
        } else {
            frame = part;
        }
    }
    assert_int_equal(rte_eth_tx_burst(b->id, 0, &frame, 1), 1);
    uint16_t received = 0;
    for (unsigned i = 0; i < 100 && received == 0; i++) {
        received = rte_eth_rx_burst(a->id, 0, &back, 1);
        usleep(1000);
    }
    assert_int_equal(received, 1);
    assert_int_equal(back->pkt_len, 3600);
    assert_int_equal(back->nb_segs, 2);
    rte_pktmbuf_free(back);
    port_close(b);
    port_close(a);
    assert_int_equal(rte_mempool_in_use_count(buffers), 0);

    server = request_for("net_memif0,role=king");
    assert_refused(&server, -EINVAL,
                   "net_memif: `role` must be `server` or `client`, but is `king`");
}

static void vhost_socket(void **state) {
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    char sentence[256];

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/vm.sock", directory);
    struct port_request request = request_for("net_vhost0,iface=%s", address.sun_path);
    struct port *port = open_port(&request, 2);
    assert_int_equal(port->rx_queues, 2);
    assert_int_equal(port->tx_queues, 2);
    assert_false(port->link_up);
    assert_int_equal(stat(address.sun_path, &status), 0);
    port_close(port);
    assert_int_not_equal(stat(address.sun_path, &status), 0);

    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    sprintf(sentence, "another program listens on the vhost socket `%s`", address.sun_path);
    assert_refused(&request, -EADDRINUSE, sentence);
    close(listener);
    /* Now it is stale. A guest may use every queue the device was made with. */
    request = request_for("net_vhost0,iface=%s,queues=3", address.sun_path);
    port = open_port(&request, 1);
    assert_int_equal(port->rx_queues, 3);
    port_close(port);

    write_file("vm.sock", sentence, "x", 1);
    sprintf(sentence, "`%s` exists and is no socket, so it cannot be the vhost socket",
            address.sun_path);
    assert_refused(&request, -EEXIST, sentence);
    request = request_for("net_vhost0,iface=%s/none/vm.sock", directory);
    sprintf(sentence, "there is no directory `%s/none` for the vhost socket", directory);
    assert_refused(&request, -ENOENT, sentence);
    request = request_for("net_virtio_user0,path=%s/none.sock", directory);
    sprintf(sentence, "there is no vhost backend at `%s/none.sock`: No such file or directory",
            directory);
    assert_refused(&request, -ENOENT, sentence);
}

static void refused(void **state) {
    (void)state;
    struct problems problems = {0};
    struct port *port;
    struct port_request request = request_for("nonsense");

    assert_refused(&request, -EINVAL,
                   "`nonsense` is neither a PCI address such as 0000:03:00.0 nor a virtual device "
                   "such as net_tap0");
    request = request_for("net_nonsense0");
    assert_refused(&request, -ENODEV,
                   "the installed DPDK 22.11.11 has no driver for net_nonsense0");
    request = request_for("ffff:ff:1f.7");
    assert_refused(&request, -ENODEV, "this machine has no PCI device ffff:ff:1f.7");
    request = request_for("net_af_packet0,iface=nowhere");
    assert_refused(&request, -ENODEV, "there is no Linux interface `nowhere`");
    request = request_for("net_af_xdp0,iface=nowhere");
    assert_refused(&request, -ENODEV, "there is no Linux interface `nowhere`");

    request = request_for("net_ring0");
    request.rx_queues = 17;
    assert_refused(&request, -EINVAL, "rx_queues is 17, but net_ring has only 16");
    request.rx_queues = 2;
    request.tx_queues = 3;
    assert_refused(&request, -EINVAL,
                   "rx_queues is 2 and tx_queues is 3, but net_ring needs as many of the one as of "
                   "the other");
    request = request_for("net_null0");
    request.mtu = 9300;
    assert_refused(&request, -EINVAL, "the MTU is 9300, but net_null carries at most 9216");
    request.mtu = 0;
    assert_int_equal(port_open(&request, 1, no_pool, path, &port, &problems), -ENOMEM);
    assert_problem(&problems, "there is no memory for packet buffers");
    assert_int_equal(port_open(&request, 1, no_pool, path, &port, NULL), -ENOMEM);
    assert_int_equal(rte_eth_dev_count_avail(), 0);

    port = open_port(&request, 1);
    assert_refused(&request, -EBUSY, "the device net_null0 is in use by another interface");
    port_close(port);
    port_close(open_port(&request, 1));
}

static void update(void **state) {
    (void)state;
    struct problems problems = {0};
    struct port_request request = request_for("net_ring0");
    struct port *port = open_port(&request, 1);
    const uint8_t mac[6] = {2, 0, 0, 0, 0, 7};
    uint8_t first[6];

    memcpy(first, port->mac, 6);
    assert_true(port_request_compatible(port, &request));
    request.mtu = 9000;
    request.has_mac = true;
    memcpy(request.mac, mac, 6);
    request.promiscuous = request.vlans = true;
    assert_true(port_request_compatible(port, &request));
    assert_int_equal(port_update(port, &request, path, &problems), 0);
    assert_int_equal(port->mtu, 9000);
    assert_memory_equal(port->mac, mac, 6);
    assert_true(port->promiscuous);

    request.mtu = 9217;
    assert_false(port_request_compatible(port, &request));
    request = request_for("net_ring0");
    assert_int_equal(port_update(port, &request, path, &problems), 0);
    assert_int_equal(port->mtu, 1500);
    assert_memory_equal(port->mac, first, 6);
    assert_false(port->promiscuous);
    request.rx_queues = 2;
    assert_false(port_request_compatible(port, &request));
    request = request_for("net_ring1");
    assert_false(port_request_compatible(port, &request));
    assert_int_equal(problems.count, 0);
    port_close(port);
}

/* A driver that nobody here knows: net_softnic's, bonding's and others' are such. */
static void unknown_driver(void **state) {
    (void)state;
    struct port_request request = request_for("net_failsafe0,dev(net_null5)");
    struct problems problems = {0};
    struct port *port;

    if (port_open(&request, 2, pool, path, &port, &problems) != 0) {
        problems_free(&problems);
        SKIP_CASE("the installed DPDK has no net_failsafe");
    }
    assert_string_equal(port_driver_name(port), "net_failsafe");
    port_close(port);
}

static int start_directory(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int start_eal(void **state) {
    (void)state;
    char *arguments[] = {"test_port", "--no-huge",    "--no-shconf", "-m",
                         "256",       "-l",           "0",           "--no-telemetry",
                         "-a",        "0000:00:00.0", "--log-level", "error"};

    if (rte_eal_init(RTE_DIM(arguments), arguments) < 0) {
        return -1;
    }
    buffers =
        rte_pktmbuf_pool_create("buffers", 8191, 0, 0, 2048 + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
    return buffers ? 0 : -1;
}

static int stop_eal(void **state) {
    (void)state;
    char command[64];

    rte_mempool_free(buffers);
    /* No rte_eal_cleanup(): once a driver has used an alarm (failsafe does), it frees an interrupt
     * handle that EAL's interrupt thread still looks at, and now and then crashes (DPDK 22.11). */
    snprintf(command, sizeof(command), "rm -r %s", directory);
    return system(command);
}

/* In the same group as the rest, so that the program prints one plan. */
static void eal_starts(void **state) { assert_int_equal(start_eal(state), 0); }

int main(void) {
    const struct CMUnitTest tests[] = {
        /* Device strings, before there is an EAL. */
        cmocka_unit_test(good_devices),
        cmocka_unit_test(bad_devices),
        cmocka_unit_test(several_problems),
        cmocka_unit_test(arguments),
        cmocka_unit_test(mbufs),
        cmocka_unit_test(eal_starts),
        cmocka_unit_test(null_port),
        cmocka_unit_test(open_again),
        cmocka_unit_test(ring_port),
        cmocka_unit_test(pcap_port),
        cmocka_unit_test(memif_ports),
        cmocka_unit_test(vhost_socket),
        cmocka_unit_test(refused),
        cmocka_unit_test(update),
        cmocka_unit_test(unknown_driver),
    };

    return cmocka_run_group_tests_name("port", tests, start_directory, stop_eal);
}
