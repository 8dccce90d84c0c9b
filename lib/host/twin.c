/*
 * Twins: TAP devices that follow the router's interfaces.
 *
 * Addresses appear on the twin when they are valid: an IPv6 address that may be a duplicate must
 * not be used (RFC 4862 section 5.4), by Linux as little as by the router. Linux keeps off ARP,
 * duplicate detection and router discovery on the device, because the router does those for the
 * same addresses.
 *
 * What can go wrong: a twin cannot be made (see host.h), or somebody deletes or reconfigures the
 * device behind the router's back. The first two end in an interface without a twin; settings are
 * made again only when the interface changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/log.h"
#include "host/host_internal.h"

#define TUN_DEVICE "/dev/net/tun"

enum { IPV6_MTU_MIN = 1280 /* RFC 8200 section 5; Linux has no IPv6 on devices below it */ };

static struct twin *twins[INTERFACES_MAX];

struct twin *twin_of(uint16_t interface) {
    return interface < INTERFACES_MAX ? twins[interface] : NULL;
}

/* --- settings --- */

/* Writes a setting of the device under /proc/sys/net. Silent where there is no such file: no IPv6,
 * or no /proc; the defaults then do no harm that could be helped. */
static void set_sysctl(const struct twin *twin, const char *family, const char *setting,
                       const char *value) {
    char path[128];

    snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family, twin->name, setting);

    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return;
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        log_notice("host", "%s: cannot write %s to %s: %m", twin->interface->name, value, path);
    if (fd >= 0)
        close(fd);
}

static void set_sysctls(const struct twin *twin) {
    /* The router advertises; it takes no advice from advertisements that it sees itself. */
    set_sysctl(twin, "ipv6", "accept_ra", "0");
    /* Answers may leave by another interface than requests came by: loose check (RFC 3704 2.4). */
    set_sysctl(twin, "ipv4", "rp_filter", "2");
    /* When an address goes, others in its prefix stay, as in the router. */
    set_sysctl(twin, "ipv4", "promote_secondaries", "1");
}

static void set_carrier(const struct twin *twin, bool up) {
    int carrier = up;

    if (ioctl(twin->tap.fd, TUNSETCARRIER, &carrier) < 0)
        log_warning("host", "%s: cannot set the carrier of host twin %s: %m", twin->interface->name,
                    twin->name);
}

static void add_address(const struct twin *twin, const struct interface_address *address) {
    char text[IP_PREFIX_TEXT];

    if (address->state != ADDRESS_VALID)
        return;

    int error = twin_netlink_add_address(twin->index, &address->prefix);

    if (error)
        log_error("host", "%s: cannot add %s to host twin %s: %s%s", twin->interface->name,
                  ip_prefix_text(&address->prefix, text), twin->name, strerror(-error),
                  error == -EACCES && address->prefix.address.family == AF_INET6
                      ? " (IPv6 is disabled on it in Linux)"
                      : "");
}

static void add_addresses(const struct twin *twin, uint8_t family) {
    const struct interface *interface = twin->interface;

    for (unsigned i = 0; i < interface->address_count; i++) {
        if (family == 0 || interface->addresses[i].prefix.address.family == family)
            add_address(twin, &interface->addresses[i]);
    }
}

static void remove_address(const struct twin *twin, const struct interface_address *address) {
    char text[IP_PREFIX_TEXT];
    int error = twin_netlink_remove_address(twin->index, &address->prefix);

    if (error)
        log_error("host", "%s: cannot remove %s from host twin %s: %s", twin->interface->name,
                  ip_prefix_text(&address->prefix, text), twin->name, strerror(-error));
}

/* --- making and removing --- */

/* Opens the device under its name. A descriptor, or negative errno with a logged reason. */
static int open_tap(const struct interface *interface) {
    const char *name = interface->host_twin;
    /* EXCL: an existing device of the name is never taken over. */
    struct ifreq request = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL)};
    int fd = open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC), error = 0;

    if (fd < 0) {
        error = -errno;
        log_error("host", "%s: no host twin %s: cannot open " TUN_DEVICE ": %s", interface->name,
                  name,
                  error == -ENOENT ? "it does not exist (is the module \"tun\" loaded?)"
                                   : strerror(-error));
        return error;
    }
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        error = -errno;
        if (error == -EBUSY || error == -EEXIST)
            log_error("host", "%s: no host twin %s: Linux has another device of that name",
                      interface->name, name);
        else if (error == -EPERM)
            log_error("host", "%s: no host twin %s: not permitted (CAP_NET_ADMIN is needed)",
                      interface->name, name);
        else
            log_error("host", "%s: no host twin %s: %s", interface->name, name, strerror(-error));
    } else if (strcmp(request.ifr_name, name) != 0) {
        error = -EINVAL; /* the kernel takes %d for a pattern */
        log_error("host", "%s: no host twin %s: Linux cannot use that name", interface->name, name);
    }
    if (error) {
        close(fd);
        return error;
    }
    return fd;
}

/* Makes the new device what the interface is. */
static int set_up(struct twin *twin) {
    int error;

    twin->index = (int)if_nametoindex(twin->name);
    if (twin->index == 0)
        return -errno;
    /* Frames come whole and with finished checksums: nothing behind the twin could finish them.
     * This is the default; it also keeps ethtool from switching offloads on. */
    if (ioctl(twin->tap.fd, TUNSETOFFLOAD, 0ul) < 0)
        return -errno;
    set_carrier(twin, false);
    error = twin_netlink_setup(twin->index, twin->interface->mac, twin->mtu);
    if (error)
        return error;
    error = twin_netlink_no_own_link_local(twin->index);
    if (error && error != -EAFNOSUPPORT)
        log_warning("host", "%s: host twin %s may get an IPv6 link-local address of its own: %s",
                    twin->interface->name, twin->name, strerror(-error));
    set_sysctls(twin);
    error = twin_netlink_up(twin->index);
    if (error)
        return error;
    return event_fd_add(&twin->tap, EPOLLIN);
}

static void destroy(struct twin *twin) {
    twins[twin->interface->id] = NULL;
    event_fd_remove(&twin->tap);
    close(twin->tap.fd);
    interface_set_twin_working(twin->interface, false);
    free(twin);
}

static void create(struct interface *interface) {
    struct twin *twin = calloc(1, sizeof(*twin));
    int fd = twin ? open_tap(interface) : -1;

    if (fd < 0) {
        if (!twin)
            log_error("host", "%s: no host twin: out of memory", interface->name);
        free(twin);
        return;
    }
    twin->interface = interface;
    memcpy(twin->name, interface->host_twin, sizeof(twin->name));
    twin->mtu = interface->mtu;
    twin->tap = (struct event_fd){.fd = fd, .ready = twin_io_ready, .context = twin};
    twins[interface->id] = twin;

    int error = set_up(twin);

    if (error) {
        log_error("host", "%s: no host twin %s: cannot set it up: %s", interface->name, twin->name,
                  strerror(-error));
        destroy(twin);
        return;
    }
    add_addresses(twin, 0);
    set_carrier(twin, interface->up);
    interface_set_twin_working(interface, true);
    log_info("host", "%s: host twin %s", interface->name, twin->name);
}

void twin_lost(struct twin *twin, int error) {
    log_error("host", "%s: host twin %s is lost: %s; the next configuration makes it again",
              twin->interface->name, twin->name,
              error == EBADFD ? "Linux has removed the device" : strerror(error));
    destroy(twin);
}

static bool name_in_use(const char *name) {
    for (unsigned id = 0; id < INTERFACES_MAX; id++) {
        if (twins[id] && strcmp(twins[id]->name, name) == 0)
            return true;
    }
    return false;
}

/* Makes the twin unless another twin has the name, which it may be about to give up: when it does,
 * and again at the end of each configuration, twins_create_missing() has its turn. */
static void create_when_free(struct interface *interface) {
    if (interface->host_twin[0] && !name_in_use(interface->host_twin))
        create(interface);
}

void twins_create_missing(void) {
    for (struct interface *interface = NULL; (interface = interface_next(interface));) {
        if (!twin_of(interface->id) && interface->host_twin[0])
            create(interface);
    }
}

/* The name is free now: an interface other than `except` may have waited for it. */
static void name_released(const char *name, const struct interface *except) {
    for (struct interface *interface = NULL; (interface = interface_next(interface));) {
        if (interface != except && !twin_of(interface->id) &&
            strcmp(interface->host_twin, name) == 0) {
            create(interface);
            return;
        }
    }
}

/* Removes the interface's twin, if any, and lets another interface have the name. */
static void remove_twin(struct interface *interface) {
    struct twin *twin = twin_of(interface->id);
    char name[IFNAMSIZ];

    if (!twin)
        return;
    memcpy(name, twin->name, sizeof(name));
    destroy(twin);
    log_info("host", "%s: host twin %s removed", interface->name, name);
    name_released(name, interface);
}

/* --- following the interfaces --- */

static void interface_added(struct interface *interface) {
    create_when_free(interface);
}

static void interface_removed(struct interface *interface) {
    remove_twin(interface);
}

static void interface_changed(struct interface *interface) {
    struct twin *twin = twin_of(interface->id);

    /* Linux forgets all of a device's IPv6 when the MTU is too small for it, and starts anew with
     * defaults when it has grown again; so does the twin. */
    if (twin && (strcmp(twin->name, interface->host_twin) != 0 ||
                 (twin->mtu < IPV6_MTU_MIN && interface->mtu >= IPV6_MTU_MIN))) {
        remove_twin(interface);
        twin = NULL;
    }
    if (!twin) {
        create_when_free(interface);
        return;
    }
    if (twin->mtu == interface->mtu)
        return;
    twin->mtu = interface->mtu;

    int error = twin_netlink_set_mtu(twin->index, twin->mtu);

    if (error)
        log_error("host", "%s: cannot set the MTU of host twin %s to %u: %s", interface->name,
                  twin->name, twin->mtu, strerror(-error));
}

static void interface_up(struct interface *interface) {
    const struct twin *twin = twin_of(interface->id);

    if (twin)
        set_carrier(twin, true);
}

static void interface_down(struct interface *interface) {
    const struct twin *twin = twin_of(interface->id);

    if (twin)
        set_carrier(twin, false);
}

static void address_added(struct interface *interface, const struct interface_address *address) {
    const struct twin *twin = twin_of(interface->id);

    if (twin)
        add_address(twin, address);
}

static void address_removed(struct interface *interface, const struct interface_address *address) {
    const struct twin *twin = twin_of(interface->id);

    if (!twin)
        return;
    remove_address(twin, address);
    /* Without promote_secondaries Linux has removed the others in the prefix with it. */
    if (address->prefix.address.family == AF_INET)
        add_addresses(twin, AF_INET);
}

static void address_changed(struct interface *interface, const struct interface_address *address) {
    const struct twin *twin = twin_of(interface->id);

    if (twin && address->state == ADDRESS_VALID)
        add_address(twin, address);
    else if (twin)
        remove_address(twin, address);
}

static struct interface_listener listener = {
    .added = interface_added,
    .removed = interface_removed,
    .up = interface_up,
    .down = interface_down,
    .address_added = address_added,
    .address_removed = address_removed,
    .address_changed = address_changed,
    .changed = interface_changed,
};

void twins_init(void) {
    interface_listen(&listener);
}

void twins_free(void) {
    for (unsigned id = 0; id < INTERFACES_MAX; id++) {
        if (twins[id])
            destroy(twins[id]);
    }
    twin_netlink_close();
}
