/*
 * Ports: what is common to all devices. Finds the glue of a device's kind, completes its arguments,
 * probes it, configures queues and offloads, starts it, and undoes all that in reverse order.
 *
 * What can go wrong: the device does not exist or belongs to somebody else, DPDK was installed
 * without its driver, there is no memory, or the device cannot do what the configuration asks. A
 * driver tells its reasons only to DPDK's log, so that log is listened to while a device is opened
 * and its last error becomes part of the problem.
 */
#define _GNU_SOURCE /* fopencookie() */

#include "core/port.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_pci.h>
#include <rte_version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "core/log.h"

enum {
    MTU_DEFAULT = 1500,
    DESCRIPTORS_DEFAULT = 1024,
    RSS_KEY_MAX = 128,
    /* What a frame has besides the IP packet: Ethernet header, two VLAN tags, CRC, and the 12 bytes
     * that virtio puts in front; rounded up. A buffer must hold all of it. */
    FRAME_OVERHEAD = 40,
    REASON_TEXT = 200,
    DEVICE_KEYS_MAX = 64,
};

static const char area[] = "port";

static struct port_driver *drivers;

void port_driver_register(struct port_driver *driver) {
    driver->next = drivers;
    drivers = driver;
}

const struct port_driver *port_driver_first(void) {
    return drivers;
}

static const struct port_driver *driver_named(const char *name) {
    for (const struct port_driver *driver = drivers; driver; driver = driver->next) {
        if (strcmp(driver->name, name) == 0) {
            return driver;
        }
    }
    return NULL;
}

/* ---- device strings ---- */

static size_t device_name_length(const char *device) {
    return strcspn(device, ",");
}

static bool device_is_pci(const char *device, struct rte_pci_addr *address) {
    char name[PORT_DEVICE_TEXT];
    size_t length = device_name_length(device);

    if (length >= sizeof(name)) {
        return false;
    }
    memcpy(name, device, length);
    name[length] = '\0';
    return rte_pci_addr_parse(name, address) == 0;
}

/* "net_tap0": the name of its kind, then digits or letters that tell it from others. The longest
 * match wins, as net_virtio_user begins like net_virtio. */
static const struct port_driver *driver_of_virtual(const char *device) {
    const struct port_driver *best = NULL;
    size_t best_length = 0, name_length = device_name_length(device);

    for (const struct port_driver *driver = drivers; driver; driver = driver->next) {
        const char *names[] = {driver->name, driver->alias};
        for (unsigned i = 0; i < 2; i++) {
            size_t length = names[i] ? strlen(names[i]) : 0;
            if (length > best_length && length <= name_length && driver->devices &&
                strncmp(device, names[i], length) == 0) {
                best = driver;
                best_length = length;
            }
        }
    }
    return best;
}

bool port_device_argument(const char *device, const char *key, unsigned index, char *value,
                          size_t size) {
    size_t key_length = strlen(key);
    const char *at = device + device_name_length(device);

    while (*at == ',') {
        const char *argument = at + 1;
        size_t length = strcspn(argument, ",");
        if (length > key_length && argument[key_length] == '=' &&
            strncmp(argument, key, key_length) == 0 && index-- == 0) {
            if (value && size > 0) {
                snprintf(value, size, "%.*s", (int)(length - key_length - 1),
                         argument + key_length + 1);
            }
            return true;
        }
        at = argument + length;
    }
    return false;
}

int port_device_complete(char *device, const char *key, unsigned long value, const char *path,
                         struct problems *problems) {
    if (port_device_argument(device, key, 0, NULL, 0)) {
        return 0;
    }
    size_t length = strlen(device);
    int added = snprintf(device + length, PORT_DEVICE_TEXT - length, ",%s=%lu", key, value);
    if (added < 0 || (size_t)added >= PORT_DEVICE_TEXT - length) {
        device[length] = '\0';
        problems_add(problems, path,
                     "the device's arguments are too long: with %s=%lu they pass %d bytes", key,
                     value, PORT_DEVICE_TEXT - 1);
        return -ENAMETOOLONG;
    }
    return 0;
}

static uint16_t queues_wanted(uint16_t requested, unsigned workers,
                              const struct port_driver *driver) {
    unsigned queues = requested;
    if (queues == 0) {
        queues = driver->default_queues ? driver->default_queues : workers;
    }
    return (uint16_t)RTE_MIN(RTE_MAX(queues, 1u), (unsigned)PORT_QUEUES_MAX);
}

int port_device_complete_queues(const struct port_request *request, unsigned workers, char *device,
                                const char *key, const char *path, struct problems *problems) {
    unsigned asked = RTE_MAX(request->rx_queues, request->tx_queues);
    unsigned queues = asked ? asked : RTE_MIN(RTE_MAX(workers, 1u), (unsigned)PORT_QUEUES_MAX);
    char text[32];

    if (port_device_argument(device, key, 0, text, sizeof(text))) {
        unsigned long given = strtoul(text, NULL, 10);
        if (asked && asked != given) {
            problems_add(
                problems, path, "the device is made with %s=%lu, but %s asks for %u queues", key,
                given, request->rx_queues >= request->tx_queues ? "rx_queues" : "tx_queues", asked);
            return -EINVAL;
        }
        return 0;
    }
    return port_device_complete(device, key, queues, path, problems);
}

static bool interface_name_valid(const char *name) {
    size_t length = strlen(name);
    if (length == 0 || length >= IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return false;
    }
    for (const char *c = name; *c; c++) {
        if (*c == '/' || *c == ':' || isspace((unsigned char)*c)) {
            return false;
        }
    }
    return true;
}

static bool mac_valid(const char *text) {
    for (unsigned i = 0; i < 17; i++) {
        if (i % 3 == 2 ? text[i] != ':' : !isxdigit((unsigned char)text[i])) {
            return false;
        }
    }
    return text[17] == '\0';
}

static void check_argument(const char *name, const struct port_argument *argument,
                           const char *value, const char *path, struct problems *problems) {
    char *end;
    long number;

    switch (argument->kind) {
    case PORT_ARGUMENT_TEXT:
    case PORT_ARGUMENT_FILE:
        if (*value == '\0') {
            problems_add(problems, path, "%s: argument `%s` has no value", name, argument->key);
        }
        break;
    case PORT_ARGUMENT_NUMBER:
        errno = 0;
        number = strtol(value, &end, 10);
        if (errno != 0 || end == value || *end != '\0' || number < argument->min ||
            number > argument->max) {
            problems_add(problems, path,
                         "%s: argument `%s` must be a number from %ld to %ld, but is `%s`", name,
                         argument->key, argument->min, argument->max, value);
        }
        break;
    case PORT_ARGUMENT_YES_NO:
        if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0) {
            problems_add(problems, path, "%s: argument `%s` must be `yes` or `no`, but is `%s`",
                         name, argument->key, value);
        }
        break;
    case PORT_ARGUMENT_INTERFACE:
        if (!interface_name_valid(value)) {
            problems_add(
                problems, path,
                "%s: `%s` in argument `%s` is no Linux interface name (1 to %d characters, "
                "no slash, colon or space)",
                name, value, argument->key, IFNAMSIZ - 1);
        }
        break;
    case PORT_ARGUMENT_MAC:
        if (!mac_valid(value) && !(argument->max && strcmp(value, "fixed") == 0)) {
            problems_add(
                problems, path,
                "%s: argument `%s` must be a MAC address such as 02:00:00:00:00:01, but is "
                "`%s`",
                name, argument->key, value);
        }
        break;
    case PORT_ARGUMENT_PATH:
        if (value[0] != '/') {
            problems_add(problems, path, "%s: argument `%s` must be an absolute path, but is `%s`",
                         name, argument->key, value);
        } else if (strlen(value) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
            problems_add(problems, path,
                         "%s: argument `%s` is too long for the path of a UNIX socket: %zu bytes, "
                         "the most is %zu",
                         name, argument->key, strlen(value),
                         sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
        }
        break;
    }
}

static void list_keys(const struct port_argument *arguments, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (; arguments->key && used < size; arguments++) {
        used +=
            (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", arguments->key);
    }
}

static void check_arguments(const struct port_driver *driver, const char *device, const char *path,
                            struct problems *problems) {
    char name[PORT_DEVICE_TEXT], argument[PORT_DEVICE_TEXT], known[256];
    unsigned seen[DEVICE_KEYS_MAX] = {0};
    size_t name_length = device_name_length(device);

    snprintf(name, sizeof(name), "%.*s", (int)name_length, device);
    for (const char *at = device + name_length; *at == ',';) {
        size_t length = strcspn(++at, ",");
        snprintf(argument, sizeof(argument), "%.*s", (int)length, at);
        at += length;
        char *value = strchr(argument, '=');
        if (!value) {
            problems_add(problems, path, "%s: `%s` is no argument of the form key=value", name,
                         argument);
            continue;
        }
        *value++ = '\0';
        unsigned i = 0;
        while (driver->arguments[i].key && strcmp(driver->arguments[i].key, argument) != 0) {
            i++;
        }
        if (!driver->arguments[i].key) {
            list_keys(driver->arguments, known, sizeof(known));
            if (known[0] == '\0') {
                problems_add(problems, path, "%s: there is no argument `%s`; it takes none", name,
                             argument);
            } else {
                problems_add(problems, path, "%s: there is no argument `%s`; it takes %s", name,
                             argument, known);
            }
            continue;
        }
        if (seen[i]++ > 0 && !driver->arguments[i].repeated) {
            problems_add(problems, path, "%s: argument `%s` stands there twice", name, argument);
        }
        check_argument(name, &driver->arguments[i], value, path, problems);
    }
    for (unsigned i = 0; driver->arguments[i].key; i++) {
        if (driver->arguments[i].required && seen[i] == 0) {
            problems_add(problems, path, "%s needs the argument `%s`: %s", name,
                         driver->arguments[i].key, driver->devices);
        }
    }
}

/* Is it "net_something", as all of DPDK's virtual network devices are? */
static bool name_plausible(const char *device, size_t length) {
    if (strncmp(device, "net_", 4) != 0 && strncmp(device, "eth_", 4) != 0) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)device[i]) && !strchr("_-.", device[i])) {
            return false;
        }
    }
    return length > 4;
}

void port_check_device(const char *device, const char *path, struct problems *problems) {
    static const struct port_argument pci_arguments[] = {
        {.key = "port", .kind = PORT_ARGUMENT_NUMBER, .max = RTE_MAX_ETHPORTS - 1},
        {0},
    };
    static const struct port_driver pci = {.name = "pci", .arguments = pci_arguments};
    struct rte_pci_addr address;
    size_t length = device_name_length(device);

    if (length == 0) {
        problems_add(
            problems, path,
            "the device is empty; expected a PCI address such as 0000:03:00.0 or a virtual "
            "device such as net_tap0,iface=lan");
        return;
    }
    if (strlen(device) >= PORT_DEVICE_TEXT) {
        problems_add(problems, path, "the device is too long: %zu bytes, the most is %d",
                     strlen(device), PORT_DEVICE_TEXT - 1);
        return;
    }
    if (device_is_pci(device, &address)) {
        /* Other arguments are for the PCI driver, which alone knows them. */
        char value[32];
        if (port_device_argument(device, "port", 0, value, sizeof(value))) {
            check_argument(pci.name, &pci_arguments[0], value, path, problems);
        }
        return;
    }
    const struct port_driver *driver = driver_of_virtual(device);
    if (driver && length >= RTE_DEV_NAME_MAX_LEN) {
        problems_add(problems, path, "the device's name is too long: %zu bytes, the most is %d",
                     length, RTE_DEV_NAME_MAX_LEN - 1);
    } else if (driver && driver->arguments) {
        check_arguments(driver, device, path, problems);
    } else if (!driver && !name_plausible(device, length)) {
        problems_add(
            problems, path,
            "`%.*s` is neither a PCI address such as 0000:03:00.0 nor a virtual device such "
            "as net_tap0",
            (int)length, device);
    }
}

/* ---- DPDK's log while a device is opened ---- */

/* One stream for the whole process: a worker may be about to write to it when it is taken away, so
 * it is never closed. */
static struct {
    FILE *stream, *usual;
    char line[REASON_TEXT * 2];
    size_t used;
    char reason[REASON_TEXT]; /* the first error since dpdk_log_forget() */
    bool from_eal;
    unsigned depth;
} dpdk_log;

static void dpdk_log_line(char *line) {
    /* "eth_dev_start(): text" or "EAL: text": the text is what helps a user. */
    char *text = strstr(line, "(): ");
    text = text ? text + 4 : line;
    while (isspace((unsigned char)*text)) {
        text++;
    }
    if (*text == '\0') {
        return;
    }
    log_debug(area, "DPDK: %s", text);
    /* The first error is the cause, later ones are callers giving up; EAL's are always those. */
    bool from_eal = strncmp(text, "EAL: ", 5) == 0;
    if (rte_log_cur_msg_loglevel() <= (int)RTE_LOG_ERR &&
        (dpdk_log.reason[0] == '\0' || (dpdk_log.from_eal && !from_eal))) {
        snprintf(dpdk_log.reason, sizeof(dpdk_log.reason), "%.*s", REASON_TEXT - 1, text);
        dpdk_log.from_eal = from_eal;
    }
}

/* Before a step that may fail: what was logged up to here is not its reason. */
static void dpdk_log_forget(void) {
    dpdk_log.reason[0] = '\0';
    dpdk_log.from_eal = false;
}

static ssize_t dpdk_log_write(void *cookie, const char *text, size_t size) {
    (void)cookie;
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '\n' && dpdk_log.used < sizeof(dpdk_log.line) - 1) {
            dpdk_log.line[dpdk_log.used++] = text[i];
        }
        if (text[i] == '\n') {
            dpdk_log.line[dpdk_log.used] = '\0';
            dpdk_log.used = 0;
            dpdk_log_line(dpdk_log.line);
        }
    }
    return (ssize_t)size;
}

static void dpdk_log_begin(void) {
    if (dpdk_log.depth++ > 0) {
        return;
    }
    if (!dpdk_log.stream) {
        cookie_io_functions_t functions = {.write = dpdk_log_write};
        dpdk_log.stream = fopencookie(NULL, "w", functions);
        if (!dpdk_log.stream) {
            return;
        }
        setvbuf(dpdk_log.stream, NULL, _IOLBF, BUFSIZ);
        /* Every guest that comes and goes makes a dozen lines at the usual level. */
        rte_log_set_level_pattern("lib.vhost.*", RTE_LOG_WARNING);
    }
    dpdk_log_forget();
    dpdk_log.usual = rte_log_get_stream();
    rte_openlog_stream(dpdk_log.stream);
}

static void dpdk_log_end(void) {
    if (--dpdk_log.depth == 0 && dpdk_log.stream) {
        fflush(dpdk_log.stream);
        rte_openlog_stream(dpdk_log.usual);
    }
}

/* A failure of DPDK, with its own words if it had any. Returns `error`, made negative. */
__attribute__((format(printf, 4, 5))) static int
dpdk_failed(int error, const char *path, struct problems *problems, const char *format, ...) {
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (dpdk_log.stream) {
        fflush(dpdk_log.stream);
    }
    /* Virtual drivers often return a bare -1, which as an errno would mislead. */
    error = error < -1 ? error : -EIO;
    if (dpdk_log.reason[0]) {
        problems_add(problems, path, "%s; DPDK says: %s", text, dpdk_log.reason);
    } else {
        problems_add(problems, path, "%s: %s", text, strerror(-error));
    }
    return error;
}

/* ---- opening ---- */

/* Devices this process probed. A PCI device may carry several ports (a ConnectX-3 has both of its
 * ports on one PCI function): it is probed with the first and removed with the last. */
struct probed_device {
    struct probed_device *next;
    char name[RTE_DEV_NAME_MAX_LEN];
    unsigned users;
};
static struct probed_device *probed_devices;

static struct probed_device *probed_find(const char *name) {
    for (struct probed_device *device = probed_devices; device; device = device->next) {
        if (strcmp(device->name, name) == 0) {
            return device;
        }
    }
    return NULL;
}

static void probed_free(struct probed_device *device) {
    for (struct probed_device **at = &probed_devices; *at; at = &(*at)->next) {
        if (*at == device) {
            *at = device->next;
            break;
        }
    }
    free(device);
}

/* The device's `index`th ethdev port. */
static int ethdev_of(const char *device_name, unsigned index, uint16_t *id,
                     struct rte_device **device, unsigned *count) {
    uint16_t candidate;
    struct rte_eth_dev_info info;
    bool found = false;

    *count = 0;
    RTE_ETH_FOREACH_DEV(candidate) {
        if (rte_eth_dev_info_get(candidate, &info) != 0 || !info.device ||
            strcmp(rte_dev_name(info.device), device_name) != 0) {
            continue;
        }
        if ((*count)++ == index) {
            *id = candidate;
            *device = info.device;
            found = true;
        }
    }
    return found ? 0 : -ENODEV;
}

/* Ports that are open: one ethdev port belongs to one interface. */
static struct port *open_ports[PORTS_MAX];

static void device_release(struct probed_device *probed, struct rte_device *device) {
    if (--probed->users == 0) {
        int error = device ? rte_dev_remove(device) : 0;
        if (error != 0) {
            log_warning(area, "%s could not be detached: %s", probed->name, strerror(-error));
        }
        probed_free(probed);
    }
}

/* Takes out "port=N", which is the router's own argument: mlx4 would open that port alone and could
 * not open the other one later. */
static unsigned take_port_index(char *device) {
    char value[16];
    if (!port_device_argument(device, "port", 0, value, sizeof(value))) {
        return 0;
    }
    char *start = strstr(device, ",port=");
    char *end = start + 1 + strcspn(start + 1, ",");
    memmove(start, end, strlen(end) + 1);
    return (unsigned)strtoul(value, NULL, 10);
}

static void device_base_name(const char *device, char name[RTE_DEV_NAME_MAX_LEN]) {
    struct rte_pci_addr address;
    if (device_is_pci(device, &address)) {
        rte_pci_device_name(&address, name, RTE_DEV_NAME_MAX_LEN);
    } else {
        snprintf(name, RTE_DEV_NAME_MAX_LEN, "%.*s", (int)device_name_length(device), device);
    }
}

static int probe(struct port *port, unsigned index, const struct port_driver *kind,
                 const char *path, struct problems *problems, struct probed_device **out) {
    struct rte_pci_addr address;
    bool pci = device_is_pci(port->device, &address);
    struct rte_device *device = NULL;
    struct rte_devargs devargs;
    unsigned count;
    char name[RTE_DEV_NAME_MAX_LEN];

    device_base_name(port->device, name);
    struct probed_device *probed = probed_find(name);
    if (probed && !pci) {
        problems_add(problems, path, "the device %s is in use by another interface", name);
        return -EBUSY;
    }
    if (!probed) {
        memset(&devargs, 0, sizeof(devargs));
        int error = rte_devargs_parse(&devargs, port->device);
        free(devargs.data);
        if (error != 0) {
            problems_add(problems, path, "the installed %s has no driver for %s%s%s%s",
                         rte_version(), name, kind->package ? " (Debian package " : "",
                         kind->package ? kind->package : "", kind->package ? ")" : "");
            return -ENODEV;
        }
        probed = calloc(1, sizeof(*probed));
        if (!probed) {
            return -ENOMEM;
        }
        snprintf(probed->name, sizeof(probed->name), "%s", name);
        error = rte_dev_probe(port->device);
        /* A device that somebody named on the command line is there already. */
        if (error != 0 && error != -EEXIST) {
            free(probed);
            return dpdk_failed(error, path, problems, "the device %s could not be opened", name);
        }
        probed->next = probed_devices;
        probed_devices = probed;
    }
    probed->users++;
    if (ethdev_of(name, index, &port->id, &device, &count) != 0) {
        int error;
        if (count > 0) {
            problems_add(problems, path, "the device %s has %u port%s, so there is no port=%u",
                         name, count, count == 1 ? "" : "s", index);
            error = -ENODEV;
        } else {
            error = dpdk_failed(-ENODEV, path, problems,
                                "no DPDK driver made a network port of the device %s", name);
        }
        device_release(probed, device);
        return error;
    }
    if (open_ports[port->id]) {
        problems_add(problems, path, "port %u of the device %s is in use by another interface",
                     index, name);
        device_release(probed, device);
        return -EBUSY;
    }
    *out = probed;
    return 0;
}

/* The largest MTU that ethdev's own checks let pass. */
static uint32_t ethdev_mtu_max(const struct rte_eth_dev_info *info) {
    uint32_t overhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
    if (info->max_mtu != UINT16_MAX && info->max_rx_pktlen > info->max_mtu) {
        overhead = info->max_rx_pktlen - info->max_mtu;
    }
    uint32_t by_frame = info->max_rx_pktlen > overhead ? info->max_rx_pktlen - overhead : 0;
    return RTE_MIN(by_frame, (uint32_t)info->max_mtu);
}

static uint16_t request_mtu(const struct port_request *request) {
    return request->mtu ? request->mtu : MTU_DEFAULT;
}

static int choose_queues(struct port *port, const struct rte_eth_dev_info *info, unsigned workers,
                         const char *path, struct problems *problems) {
    const struct port_request *request = &port->request;
    uint16_t rx = queues_wanted(request->rx_queues, workers, port->driver);
    uint16_t tx = queues_wanted(request->tx_queues, workers, port->driver);
    size_t before = problems->count;

    if (port->driver->queues_exact) {
        rx = request->rx_queues ? rx : RTE_MIN(info->max_rx_queues, (uint16_t)PORT_QUEUES_MAX);
        tx = request->tx_queues ? tx : RTE_MIN(info->max_tx_queues, (uint16_t)PORT_QUEUES_MAX);
    }
    if (request->rx_queues > info->max_rx_queues) {
        problems_add(problems, path, "rx_queues is %u, but %s has only %u", request->rx_queues,
                     info->driver_name, info->max_rx_queues);
    }
    if (request->tx_queues > info->max_tx_queues) {
        problems_add(problems, path, "tx_queues is %u, but %s has only %u", request->tx_queues,
                     info->driver_name, info->max_tx_queues);
    }
    if (port->driver->queues_paired && request->rx_queues && request->tx_queues &&
        request->rx_queues != request->tx_queues) {
        problems_add(
            problems, path,
            "rx_queues is %u and tx_queues is %u, but %s needs as many of the one as of the "
            "other",
            request->rx_queues, request->tx_queues, info->driver_name);
    }
    if (problems->count > before) {
        return -EINVAL;
    }
    rx = RTE_MIN(rx, info->max_rx_queues);
    tx = RTE_MIN(tx, info->max_tx_queues);
    /* Without RSS every frame arrives on the first queue; polling more of them is waste. */
    if (!request->rx_queues && info->flow_type_rss_offloads == 0 && !port->driver->spreads_flows) {
        rx = RTE_MIN(rx, 1);
    }
    if (port->driver->queues_paired) {
        rx = tx = request->rx_queues ? rx : request->tx_queues ? tx : RTE_MIN(rx, tx);
    }
    port->rx_queues = rx;
    port->tx_queues = tx;
    return 0;
}

/* Does a frame with this MTU always fit one buffer of the pool? */
static bool fits_buffer(uint16_t mtu, struct rte_mempool *pool) {
    return mtu + FRAME_OVERHEAD <= rte_pktmbuf_data_room_size(pool) - RTE_PKTMBUF_HEADROOM;
}

static int check_mtu(struct port *port, const struct rte_eth_dev_info *info,
                     struct rte_mempool *pool, uint16_t mtu, const char *path,
                     struct problems *problems) {
    uint32_t ethdev_max = ethdev_mtu_max(info);
    uint32_t max = port->driver->mtu_max ? port->driver->mtu_max : ethdev_max;
    bool chains = port->driver->rx_chains || (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER);

    if (mtu > max) {
        problems_add(problems, path, "the MTU is %u, but %s carries at most %u", mtu,
                     info->driver_name, max);
        return -EINVAL;
    }
    if (!chains && !fits_buffer(mtu, pool)) {
        problems_add(
            problems, path,
            "the MTU is %u, but %s cannot spread a frame over several buffers, so that %d is "
            "the most",
            mtu, info->driver_name,
            rte_pktmbuf_data_room_size(pool) - RTE_PKTMBUF_HEADROOM - FRAME_OVERHEAD);
        return -EINVAL;
    }
    port->mtu_max = max;
    return 0;
}

/* A 16-bit pattern as Toeplitz key makes the hash of (a, b) equal that of (b, a), so both
 * directions of a flow reach the same worker. */
static uint8_t *symmetric_key(void) {
    static uint8_t key[RSS_KEY_MAX]; /* drivers read it when the port starts, some of them later */

    for (unsigned i = 0; i < RSS_KEY_MAX; i++) {
        key[i] = i % 2 == 0 ? 0x6d : 0x5a;
    }
    return key;
}

static int configure(struct port *port, const struct rte_eth_dev_info *info,
                     struct rte_mempool *pool, struct rte_eth_conf *conf, const char *path,
                     struct problems *problems) {
    const struct port_driver *driver = port->driver;
    uint16_t mtu = request_mtu(&port->request);
    uint32_t ethdev_max = ethdev_mtu_max(info);

    dpdk_log_forget();
    conf->rxmode.mtu = RTE_MIN((uint32_t)RTE_MAX(mtu, info->min_mtu), ethdev_max);
    conf->rxmode.offloads = info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
    if (!fits_buffer(mtu, pool)) {
        conf->rxmode.offloads |= info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER;
    }
    /* Never MBUF_FAST_FREE: fragments and copies share buffers. */
    conf->txmode.offloads = info->tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    if (port->rx_queues > 1) {
        conf->rx_adv_conf.rss_conf.rss_hf =
            (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP) & info->flow_type_rss_offloads;
        if (conf->rx_adv_conf.rss_conf.rss_hf) {
            conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        }
        if (conf->rx_adv_conf.rss_conf.rss_hf && info->hash_key_size > 0 &&
            info->hash_key_size <= RSS_KEY_MAX) {
            conf->rx_adv_conf.rss_conf.rss_key = symmetric_key();
            conf->rx_adv_conf.rss_conf.rss_key_len = info->hash_key_size;
        }
    }
    if (driver->configure) {
        driver->configure(&port->request, info, conf, &port->rx_queues, &port->tx_queues);
    }

    int error = rte_eth_dev_configure(port->id, port->rx_queues, port->tx_queues, conf);
    if (error != 0 && conf->rx_adv_conf.rss_conf.rss_key) {
        /* Some drivers know one key only. Workers cope with directions that hash differently. */
        conf->rx_adv_conf.rss_conf.rss_key = NULL;
        conf->rx_adv_conf.rss_conf.rss_key_len = 0;
        error = rte_eth_dev_configure(port->id, port->rx_queues, port->tx_queues, conf);
    }
    if (error != 0) {
        return dpdk_failed(error, path, problems,
                           "%s does not take %u receive and %u transmit queues", info->driver_name,
                           port->rx_queues, port->tx_queues);
    }
    port->rx_ipv4_checksum = conf->rxmode.offloads & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
    port->rx_scatter = driver->rx_chains || (conf->rxmode.offloads & RTE_ETH_RX_OFFLOAD_SCATTER);
    port->tx_multi_segment =
        driver->tx_chains || (conf->txmode.offloads & RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
    port->rss =
        port->rx_queues > 1 && (conf->rxmode.mq_mode == RTE_ETH_MQ_RX_RSS || driver->spreads_flows);
    return 0;
}

static int setup_queues(struct port *port, const struct rte_eth_dev_info *info,
                        struct rte_mempool *pool, const struct rte_eth_conf *conf, const char *path,
                        struct problems *problems) {
    const struct port_request *request = &port->request;
    uint16_t rx = request->rx_descriptors, tx = request->tx_descriptors;

    if (rx == 0) {
        rx = port->driver->rx_descriptors ? port->driver->rx_descriptors
                                          : info->default_rxportconf.ring_size;
    }
    if (tx == 0) {
        tx = info->default_txportconf.ring_size;
    }
    rx = rx ? rx : DESCRIPTORS_DEFAULT;
    tx = tx ? tx : DESCRIPTORS_DEFAULT;
    int error = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &rx, &tx);
    if (error != 0 && error != -ENOTSUP) {
        return dpdk_failed(error, path, problems, "the port's limits of descriptors are unknown");
    }
    struct rte_eth_rxconf rxconf = info->default_rxconf;
    struct rte_eth_txconf txconf = info->default_txconf;
    dpdk_log_forget();
    rxconf.offloads = conf->rxmode.offloads;
    txconf.offloads = conf->txmode.offloads;
    for (uint16_t queue = 0; queue < port->rx_queues; queue++) {
        error = rte_eth_rx_queue_setup(port->id, queue, rx, SOCKET_ID_ANY, &rxconf, pool);
        if (error != 0) {
            return dpdk_failed(error, path, problems,
                               "receive queue %u with %u descriptors cannot be set up", queue, rx);
        }
    }
    for (uint16_t queue = 0; queue < port->tx_queues; queue++) {
        error = rte_eth_tx_queue_setup(port->id, queue, tx, SOCKET_ID_ANY, &txconf);
        if (error != 0) {
            return dpdk_failed(error, path, problems,
                               "transmit queue %u with %u descriptors cannot be set up", queue, tx);
        }
    }
    return 0;
}

static int set_mtu(struct port *port, uint16_t mtu) {
    if (port->driver->set_mtu) {
        return port->driver->set_mtu(port, mtu);
    }
    if (port->driver->mtu_fixed) {
        return 0;
    }
    int error = rte_eth_dev_set_mtu(port->id, mtu);
    return error == -ENOTSUP && mtu <= MTU_DEFAULT ? 0 : error;
}

static int set_mac(struct port *port, const uint8_t mac[6]) {
    if (port->driver->set_mac) {
        return port->driver->set_mac(port, mac);
    }
    if (port->driver->mac_free) {
        return 0;
    }
    if (port->driver->mac_fixed) {
        return -ENOTSUP;
    }
    struct rte_ether_addr address;
    memcpy(address.addr_bytes, mac, 6);
    return rte_eth_dev_default_mac_addr_set(port->id, &address);
}

static int set_promiscuous(struct port *port, bool on) {
    if (port->driver->promiscuous_none) {
        return 0;
    }
    if (port->driver->set_promiscuous) {
        return port->driver->set_promiscuous(port, on);
    }
    return on ? rte_eth_promiscuous_enable(port->id) : rte_eth_promiscuous_disable(port->id);
}

static bool wants_promiscuous(const struct port *port, const struct port_request *request) {
    return request->promiscuous || port->needs_promiscuous ||
           (request->vlans && port->driver->vlans_promiscuous);
}

/* A locally administered address that stays the same over restarts, so that the neighbours' caches
 * stay right, and differs between machines and devices. FNV-1a. */
static void stable_mac(const char *device, uint8_t mac[6]) {
    uint64_t hash = 0xcbf29ce484222325;
    char machine[64] = "";
    FILE *file = fopen("/etc/machine-id", "re");

    if (file) {
        if (!fgets(machine, sizeof(machine), file)) {
            machine[0] = '\0';
        }
        fclose(file);
    }
    const char *texts[] = {machine, device};
    for (unsigned i = 0; i < 2; i++) {
        for (const char *c = texts[i]; *c; c++) {
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
        }
    }
    for (unsigned i = 0; i < 6; i++) {
        mac[i] = (uint8_t)(hash >> (8 * i));
    }
    mac[0] = (uint8_t)((mac[0] & ~1) | 2);
}

static void choose_mac(struct port *port) {
    struct rte_ether_addr address = {0};
    int error = rte_eth_macaddr_get(port->id, &address);

    memcpy(port->device_mac, address.addr_bytes, 6);
    /* Drivers without a wire make addresses up: at random, the same in every process, or none. Only
     * where the user gave the device one it counts. */
    bool own = port->driver->mac_free && (port->driver->mac_of_peer ||
                                          !port_device_argument(port->device, "mac", 0, NULL, 0));
    if (error != 0 || own || rte_is_zero_ether_addr(&address)) {
        stable_mac(port->request.device, port->device_mac);
    }
    memcpy(port->mac, port->request.has_mac ? port->request.mac : port->device_mac, 6);
}

static int bring_up(struct port *port, unsigned workers, struct rte_mempool *(*pool_of)(int),
                    const char *path, struct problems *problems) {
    struct rte_eth_dev_info info;
    struct rte_eth_conf conf = {0};
    uint16_t mtu = request_mtu(&port->request);

    int error = rte_eth_dev_info_get(port->id, &info);
    if (error != 0) {
        return dpdk_failed(error, path, problems, "the device does not say what it can do");
    }
    port->numa_node = rte_eth_dev_socket_id(port->id);
    struct rte_mempool *pool = pool_of(port->numa_node);
    if (!pool) {
        problems_add(problems, path, "there is no memory for packet buffers");
        return -ENOMEM;
    }
    if ((error = choose_queues(port, &info, workers, path, problems)) != 0 ||
        (error = check_mtu(port, &info, pool, mtu, path, problems)) != 0 ||
        (error = configure(port, &info, pool, &conf, path, problems)) != 0 ||
        (error = setup_queues(port, &info, pool, &conf, path, problems)) != 0) {
        return error;
    }
    dpdk_log_forget();
    choose_mac(port);
    if (port->request.has_mac && (error = set_mac(port, port->mac)) != 0) {
        return dpdk_failed(error, path, problems, "%s does not take another MAC address",
                           info.driver_name);
    }
    if ((error = set_mtu(port, mtu)) != 0) {
        return dpdk_failed(error, path, problems, "%s does not take the MTU %u", info.driver_name,
                           mtu);
    }
    port->mtu = mtu;
    if ((error = rte_eth_dev_start(port->id)) != 0) {
        return dpdk_failed(error, path, problems, "the port cannot be started");
    }
    port->started = true;
    if (port->driver->after_start &&
        (error = port->driver->after_start(port, path, problems)) != 0) {
        return error;
    }
    /* Neighbour discovery and routing protocols are multicast (RFC 4861 section 7.2.1). */
    if (!port->driver->promiscuous_none && !port->driver->set_promiscuous &&
        rte_eth_allmulticast_enable(port->id) != 0) {
        port->needs_promiscuous = true;
    }
    if (wants_promiscuous(port, &port->request)) {
        if ((error = set_promiscuous(port, true)) != 0) {
            return dpdk_failed(error, path, problems, "%s has no promiscuous mode",
                               info.driver_name);
        }
        port->promiscuous = true;
    }
    port_link_poll(port);
    return 0;
}

static void take_down(struct port *port, struct probed_device *probed) {
    struct rte_eth_dev_info info;
    struct rte_device *device = rte_eth_dev_info_get(port->id, &info) == 0 ? info.device : NULL;

    if (port->started) {
        if (port->promiscuous) {
            set_promiscuous(port, false);
        }
        int error = rte_eth_dev_stop(port->id);
        if (error != 0) {
            log_warning(area, "%s could not be stopped: %s", port->device, strerror(-error));
        }
    }
    open_ports[port->id] = NULL;
    int error = rte_eth_dev_close(port->id);
    if (error != 0) {
        log_warning(area, "%s could not be closed: %s", port->device, strerror(-error));
    }
    device_release(probed, device);
    if (port->kind->after_close) {
        port->kind->after_close(port->device);
    }
    free(port);
}

int port_open(const struct port_request *request, unsigned workers,
              struct rte_mempool *(*pool)(int numa_node), const char *path, struct port **out,
              struct problems *problems) {
    struct problems own = {0};
    struct rte_pci_addr address;
    struct probed_device *probed = NULL;
    int error;

    *out = NULL;
    if (!problems) {
        problems = &own;
    }
    size_t before = problems->count;
    port_check_device(request->device, path, problems);
    if (problems->count > before) {
        problems_free(&own);
        return -EINVAL;
    }
    const struct port_driver *generic = driver_named("generic");
    const struct port_driver *kind = device_is_pci(request->device, &address)
                                         ? driver_named("pci")
                                         : driver_of_virtual(request->device);
    kind = kind ? kind : generic;
    struct port *port = calloc(1, sizeof(*port));
    if (!port || !kind) {
        free(port);
        problems_add(problems, path, "there is no memory for a port");
        problems_free(&own);
        return -ENOMEM;
    }
    port->request = *request;
    port->driver = port->kind = kind;
    snprintf(port->device, sizeof(port->device), "%s", request->device);

    dpdk_log_begin();
    unsigned index = device_is_pci(port->device, &address) ? take_port_index(port->device) : 0;
    error = 0;
    if (kind->before_probe) {
        error = kind->before_probe(request, RTE_MAX(workers, 1u), port->device, path, problems);
    }
    bool prepared = error == 0;
    if (prepared) {
        error = probe(port, index, kind, path, problems, &probed);
    }
    if (error != 0) {
        dpdk_log_end();
        if (prepared && kind->after_close) {
            kind->after_close(port->device);
        }
        free(port);
        problems_free(&own);
        return error;
    }
    open_ports[port->id] = port;
    struct rte_eth_dev_info info;
    if (rte_eth_dev_info_get(port->id, &info) == 0 && info.driver_name) {
        const struct port_driver *exact = driver_named(info.driver_name);
        port->driver = exact ? exact : kind;
    }
    error = bring_up(port, RTE_MAX(workers, 1u), pool, path, problems);
    if (error != 0) {
        take_down(port, probed);
    } else {
        *out = port;
    }
    dpdk_log_end();
    problems_free(&own);
    return error;
}

void port_close(struct port *port) {
    char name[RTE_DEV_NAME_MAX_LEN];

    if (!port) {
        return;
    }
    dpdk_log_begin();
    device_base_name(port->device, name);
    take_down(port, probed_find(name));
    dpdk_log_end();
}

/* ---- a running port ---- */

const char *port_driver_name(const struct port *port) {
    struct rte_eth_dev_info info;
    const char *name = port->driver->name;

    if (driver_named(name) && port->driver->devices) {
        return name;
    }
    return rte_eth_dev_info_get(port->id, &info) == 0 && info.driver_name ? info.driver_name : name;
}

bool port_request_compatible(const struct port *port, const struct port_request *request) {
    const struct port_request *running = &port->request;

    if (strcmp(running->device, request->device) != 0 || running->rx_queues != request->rx_queues ||
        running->tx_queues != request->tx_queues ||
        running->rx_descriptors != request->rx_descriptors ||
        running->tx_descriptors != request->tx_descriptors) {
        return false;
    }
    uint16_t mtu = request_mtu(request);
    if (mtu == port->mtu) {
        return true;
    }
    return port->driver->mtu_live && mtu <= port->mtu_max &&
           (port->rx_scatter || mtu + FRAME_OVERHEAD <= RTE_MBUF_DEFAULT_DATAROOM);
}

int port_request_check(const struct port *port, const struct port_request *request,
                       unsigned workers, struct rte_mempool *pool, const char *path,
                       struct problems *problems) {
    struct port tried = *port;
    struct rte_eth_dev_info info;
    int error = 0;

    if (strcmp(port->request.device, request->device) != 0 ||
        rte_eth_dev_info_get(port->id, &info) != 0) {
        return 0;
    }
    tried.request = *request;
    /* The others are made with as many queues as they are to have. */
    if (!port->driver->queues_exact) {
        error = choose_queues(&tried, &info, RTE_MAX(workers, 1u), path, problems);
    }
    return error ? error : check_mtu(&tried, &info, pool, request_mtu(request), path, problems);
}

int port_update(struct port *port, const struct port_request *request, const char *path,
                struct problems *problems) {
    uint16_t mtu = request_mtu(request), old_mtu = port->mtu;
    const uint8_t *mac = request->has_mac ? request->mac : port->device_mac;
    bool promiscuous = wants_promiscuous(port, request);
    uint8_t old_mac[6];
    int error;

    memcpy(old_mac, port->mac, 6);
    dpdk_log_begin();
    if (mtu != old_mtu && (error = set_mtu(port, mtu)) != 0) {
        error = dpdk_failed(error, path, problems, "%s does not take the MTU %u",
                            port_driver_name(port), mtu);
        goto out;
    }
    if (memcmp(mac, old_mac, 6) != 0 && (error = set_mac(port, mac)) != 0) {
        error = dpdk_failed(error, path, problems, "%s does not take another MAC address",
                            port_driver_name(port));
        goto undo_mtu;
    }
    if (promiscuous != port->promiscuous && (error = set_promiscuous(port, promiscuous)) != 0) {
        error = dpdk_failed(error, path, problems, "promiscuous mode cannot be switched %s",
                            promiscuous ? "on" : "off");
        goto undo_mac;
    }
    port->mtu = mtu;
    memcpy(port->mac, mac, 6);
    port->promiscuous = promiscuous;
    port->request = *request;
    error = 0;
    goto out;
undo_mac:
    if (memcmp(mac, old_mac, 6) != 0) {
        set_mac(port, old_mac);
    }
undo_mtu:
    if (mtu != old_mtu) {
        set_mtu(port, old_mtu);
    }
out:
    dpdk_log_end();
    return error;
}

bool port_link_poll(struct port *port) {
    bool up = false;
    uint32_t speed = 0;

    if (port->driver->link) {
        port->driver->link(port, &up, &speed);
    } else if (port->driver->link_always_up) {
        up = port->started;
    } else {
        struct rte_eth_link link;
        if (rte_eth_link_get_nowait(port->id, &link) == 0) {
            up = link.link_status == RTE_ETH_LINK_UP;
            speed = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
        }
    }
    speed = up ? speed : 0; /* drivers tell their nominal speed even without a link */
    bool changed = up != port->link_up || speed != port->speed_mbps;
    port->link_up = up;
    port->speed_mbps = speed;
    return changed;
}

void port_stats(const struct port *port, struct rte_eth_stats *out) {
    if (rte_eth_stats_get(port->id, out) != 0) {
        memset(out, 0, sizeof(*out));
    }
}

uint32_t port_request_mbufs(const struct port_request *request, unsigned workers) {
    struct rte_pci_addr address;
    struct port_request complete = *request;
    const struct port_driver *driver = device_is_pci(request->device, &address)
                                           ? driver_named("pci")
                                           : driver_of_virtual(request->device);
    if (!driver) {
        driver = driver_named("generic");
    }
    if (!driver) {
        return 0;
    }
    complete.rx_queues = queues_wanted(request->rx_queues, workers, driver);
    complete.tx_queues = queues_wanted(request->tx_queues, workers, driver);
    if (!complete.rx_descriptors) {
        complete.rx_descriptors =
            driver->rx_descriptors ? driver->rx_descriptors : DESCRIPTORS_DEFAULT;
    }
    if (!complete.tx_descriptors) {
        complete.tx_descriptors = DESCRIPTORS_DEFAULT;
    }
    /* A full transmit ring holds its frames until the wire has taken them. */
    return driver->mbufs ? driver->mbufs(&complete)
                         : (uint32_t)complete.rx_queues * complete.rx_descriptors +
                               (uint32_t)complete.tx_queues * complete.tx_descriptors;
}
