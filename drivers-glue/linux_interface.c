/*
 * Linux interfaces by ioctl: rte_ethdev's way to them checks limits that are not the kernel's (its
 * af_packet refuses any MTU above 1500), or does not exist (af_xdp has no MAC address).
 */
#include "linux_interface.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/log.h"

struct borrowed {
    struct borrowed *next;
    char name[IFNAMSIZ];
    short flags;
    int mtu;
    struct sockaddr mac;
    uint32_t gro, ethtool_flags;
    bool has_gro, has_ethtool_flags;
    char forwarding[2]; /* '0' or '1' for IPv4 and IPv6; 0 = unknown */
};
static struct borrowed *borrowed_list;

static const char area[] = "port";

static int interface_ioctl(unsigned long request, struct ifreq *ifr, const char *name) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", name);
    int error = ioctl(fd, request, ifr) == 0 ? 0 : -errno;
    close(fd);
    return error;
}

static int ethtool(const char *name, void *command) {
    struct ifreq ifr = {.ifr_data = command};
    return interface_ioctl(SIOCETHTOOL, &ifr, name);
}

bool linux_interface_check(const char *name, const char *path, struct problems *problems) {
    if (if_nametoindex(name) == 0) {
        problems_add(problems, path, "there is no Linux interface `%s`", name);
        return false;
    }
    return true;
}

static int change_flags(const char *name, short set, short clear) {
    struct ifreq ifr;
    int error = interface_ioctl(SIOCGIFFLAGS, &ifr, name);
    short wanted = (short)((ifr.ifr_flags & ~clear) | set);
    if (error != 0 || wanted == ifr.ifr_flags) {
        return error;
    }
    ifr.ifr_flags = wanted;
    return interface_ioctl(SIOCSIFFLAGS, &ifr, name);
}

static void keep_frames_whole(struct borrowed *it, bool vlan_tags) {
    struct ethtool_value value = {.cmd = ETHTOOL_GGRO};

    if (ethtool(it->name, &value) == 0) {
        it->has_gro = true;
        it->gro = value.data;
        value = (struct ethtool_value){.cmd = ETHTOOL_SGRO};
        ethtool(it->name, &value);
    }
    value = (struct ethtool_value){.cmd = ETHTOOL_GFLAGS};
    if (ethtool(it->name, &value) == 0) {
        it->has_ethtool_flags = true;
        it->ethtool_flags = value.data;
        value.cmd = ETHTOOL_SFLAGS;
        value.data &= ~(uint32_t)(ETH_FLAG_LRO | (vlan_tags ? ETH_FLAG_RXVLAN : 0));
        if (value.data != it->ethtool_flags && ethtool(it->name, &value) != 0) {
            it->has_ethtool_flags = false;
        }
    }
}

static const char *const families[] = {"ipv4", "ipv6"};

/* Exchanges the interface's "forwarding" for `value`; returns the old one, 0 if there is none. */
static char exchange_forwarding(const char *name, const char *family, char value) {
    char path[80];
    char old = 0;

    snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/forwarding", family, name);
    FILE *file = fopen(path, "r+e");
    if (file) {
        int now = fgetc(file);
        if (now == '0' || now == '1') {
            old = (char)now;
        }
        if (old && old != value) {
            rewind(file);
            fputc(value, file);
        }
        fclose(file);
    }
    return old;
}

static void give_back(const struct borrowed *it) {
    struct ifreq ifr;
    struct ethtool_value value;

    if (if_nametoindex(it->name) == 0) {
        return; /* deleted meanwhile */
    }
    for (unsigned i = 0; i < 2; i++) {
        if (it->forwarding[i]) {
            exchange_forwarding(it->name, families[i], it->forwarding[i]);
        }
    }
    if (it->has_gro) {
        value = (struct ethtool_value){.cmd = ETHTOOL_SGRO, .data = it->gro};
        ethtool(it->name, &value);
    }
    if (it->has_ethtool_flags) {
        value = (struct ethtool_value){.cmd = ETHTOOL_SFLAGS, .data = it->ethtool_flags};
        ethtool(it->name, &value);
    }
    ifr.ifr_mtu = it->mtu;
    interface_ioctl(SIOCSIFMTU, &ifr, it->name);
    if (interface_ioctl(SIOCGIFHWADDR, &ifr, it->name) == 0 &&
        memcmp(ifr.ifr_hwaddr.sa_data, it->mac.sa_data, 6) != 0) {
        ifr.ifr_hwaddr = it->mac;
        interface_ioctl(SIOCSIFHWADDR, &ifr, it->name);
    }
    ifr.ifr_flags = it->flags;
    interface_ioctl(SIOCSIFFLAGS, &ifr, it->name);
}

static void interface_name(const char *device, char name[IFNAMSIZ]) {
    name[0] = '\0';
    port_device_argument(device, "iface", 0, name, IFNAMSIZ);
}

int linux_interface_borrow(const char *device, bool vlan_tags, const char *path,
                           struct problems *problems) {
    char name[IFNAMSIZ];
    struct ifreq ifr;

    interface_name(device, name);
    if (!linux_interface_check(name, path, problems)) {
        return -ENODEV;
    }
    struct borrowed *it = calloc(1, sizeof(*it));
    if (!it) {
        return -ENOMEM;
    }
    snprintf(it->name, sizeof(it->name), "%s", name);
    int error = interface_ioctl(SIOCGIFFLAGS, &ifr, name);
    it->flags = ifr.ifr_flags;
    if (error == 0 && (error = interface_ioctl(SIOCGIFMTU, &ifr, name)) == 0) {
        it->mtu = ifr.ifr_mtu;
        error = interface_ioctl(SIOCGIFHWADDR, &ifr, name);
        it->mac = ifr.ifr_hwaddr;
    }
    if (error == 0 && it->mac.sa_family != ARPHRD_ETHER) {
        problems_add(problems, path, "the Linux interface `%s` is no Ethernet interface", name);
        free(it);
        return -EINVAL;
    }
    if (error == 0) {
        /* Linux answers ARP for all of its addresses on all interfaces, unless told so. */
        error = change_flags(name, IFF_UP | IFF_ALLMULTI | IFF_NOARP, 0);
    }
    if (error != 0) {
        problems_add(problems, path, "the Linux interface `%s` cannot be set up: %s", name,
                     strerror(-error));
        free(it);
        return error;
    }
    keep_frames_whole(it, vlan_tags);
    for (unsigned i = 0; i < 2; i++) {
        it->forwarding[i] = exchange_forwarding(name, families[i], '0');
    }
    it->next = borrowed_list;
    borrowed_list = it;
    return 0;
}

void linux_interface_return(const char *device) {
    char name[IFNAMSIZ];

    interface_name(device, name);
    for (struct borrowed **at = &borrowed_list; *at; at = &(*at)->next) {
        struct borrowed *it = *at;
        if (strcmp(it->name, name) == 0) {
            *at = it->next;
            give_back(it);
            free(it);
            return;
        }
    }
}

int linux_interface_set_mtu(struct port *port, uint16_t mtu) {
    char name[IFNAMSIZ];
    struct ifreq ifr = {.ifr_mtu = mtu};

    interface_name(port->device, name);
    return interface_ioctl(SIOCSIFMTU, &ifr, name);
}

int linux_interface_set_mac(struct port *port, const uint8_t mac[6]) {
    char name[IFNAMSIZ];
    struct ifreq ifr = {0};

    interface_name(port->device, name);
    ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
    return interface_ioctl(SIOCSIFHWADDR, &ifr, name);
}

int linux_interface_set_promiscuous(struct port *port, bool on) {
    char name[IFNAMSIZ];

    interface_name(port->device, name);
    return change_flags(name, on ? IFF_PROMISC : 0, on ? 0 : IFF_PROMISC);
}

void linux_interface_link(const struct port *port, bool *up, uint32_t *speed_mbps) {
    char name[IFNAMSIZ];
    struct ifreq ifr;
    /* IFF_RUNNING lags behind by up to a second; this is the carrier itself. */
    struct ethtool_value carrier = {.cmd = ETHTOOL_GLINK};
    struct ethtool_cmd settings = {.cmd = ETHTOOL_GSET};

    interface_name(port->device, name);
    *up = interface_ioctl(SIOCGIFFLAGS, &ifr, name) == 0 && (ifr.ifr_flags & IFF_UP);
    if (*up && ethtool(name, &carrier) == 0) {
        *up = carrier.data != 0;
    } else if (*up) {
        *up = ifr.ifr_flags & IFF_RUNNING;
    }
    *speed_mbps = 0;
    if (*up && ethtool(name, &settings) == 0 &&
        ethtool_cmd_speed(&settings) != (uint32_t)SPEED_UNKNOWN) {
        *speed_mbps = ethtool_cmd_speed(&settings);
    }
}

unsigned linux_interface_channels(const char *name) {
    struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
    if (ethtool(name, &channels) != 0 || channels.max_combined == 0) {
        return 1;
    }
    return channels.combined_count ? channels.combined_count : 1;
}

int socket_path_prepare(const char *socket_path, const char *what, const char *path,
                        struct problems *problems) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char directory[sizeof(address.sun_path)];
    struct stat status;

    snprintf(directory, sizeof(directory), "%s", socket_path);
    char *slash = strrchr(directory, '/');
    if (slash && slash != directory) {
        *slash = '\0';
        if (stat(directory, &status) != 0 || !S_ISDIR(status.st_mode)) {
            problems_add(problems, path, "there is no directory `%s` for the %s socket", directory,
                         what);
            return -ENOENT;
        }
    }
    if (lstat(socket_path, &status) != 0) {
        return 0;
    }
    if (!S_ISSOCK(status.st_mode)) {
        problems_add(problems, path, "`%s` exists and is no socket, so it cannot be the %s socket",
                     socket_path, what);
        return -EEXIST;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return 0; /* the driver will fail for the same reason and say so */
    }
    memcpy(address.sun_path, socket_path, strnlen(socket_path, sizeof(address.sun_path) - 1));
    bool stale =
        connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && errno == ECONNREFUSED;
    if (!stale && errno == EPROTOTYPE) {
        /* memif's sockets are SOCK_SEQPACKET. */
        close(fd);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        stale = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 &&
                errno == ECONNREFUSED;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (!stale) {
        problems_add(problems, path, "another program listens on the %s socket `%s`", what,
                     socket_path);
        return -EADDRINUSE;
    }
    if (unlink(socket_path) != 0) {
        int error = errno;
        problems_add(problems, path, "the old %s socket `%s` cannot be removed: %s", what,
                     socket_path, strerror(error));
        return -error;
    }
    log_info(area, "removed the old %s socket %s", what, socket_path);
    return 0;
}
