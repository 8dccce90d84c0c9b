/*
 * PCI NICs in general. DPDK needs the device for itself, through vfio-pci; only NVIDIA (Mellanox)
 * NICs keep their kernel driver and share the device with it.
 *
 * Probing a device that belongs to a kernel driver gives no error but "no port", so sysfs is asked
 * first and the message says what to do.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <rte_pci.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/port.h"

enum { VENDOR_MELLANOX = 0x15b3, CLASS_NETWORK = 0x02 };

static unsigned long sysfs_number(const char *address, const char *file) {
    char path[128], text[32] = "0";

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", address, file);
    FILE *stream = fopen(path, "re");
    if (stream) {
        if (!fgets(text, sizeof(text), stream)) {
            text[0] = '\0';
        }
        fclose(stream);
    }
    return strtoul(text, NULL, 0);
}

/* The kernel driver that has the device; empty if none has. */
static void kernel_driver(const char *address, char *name, size_t size) {
    char path[128], target[PATH_MAX];

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", address);
    ssize_t length = readlink(path, target, sizeof(target) - 1);
    name[0] = '\0';
    if (length > 0) {
        target[length] = '\0';
        const char *slash = strrchr(target, '/');
        snprintf(name, size, "%.*s", (int)size - 1, slash ? slash + 1 : target);
    }
}

/* The Linux interface on the device, if any: what a user knows it by. */
static void linux_name(const char *address, char *name, size_t size) {
    char path[128];
    const struct dirent *entry;

    name[0] = '\0';
    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/net", address);
    DIR *directory = opendir(path);
    while (directory && (entry = readdir(directory))) {
        if (entry->d_name[0] != '.') {
            snprintf(name, size, "%.*s", (int)size - 1, entry->d_name);
            break;
        }
    }
    if (directory) {
        closedir(directory);
    }
}

static int before_probe(const struct port_request *request, unsigned workers, char *device,
                        const char *path, struct problems *problems) {
    char address[PCI_PRI_STR_SIZE + 1], sysfs[64], name[PORT_DEVICE_TEXT], bound[64], interface[64];
    struct rte_pci_addr parsed;

    (void)request;
    (void)workers;
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(device, ","), device);
    if (rte_pci_addr_parse(name, &parsed) != 0) {
        return -EINVAL; /* the caller has parsed it already */
    }
    rte_pci_device_name(&parsed, address, sizeof(address));
    snprintf(sysfs, sizeof(sysfs), "/sys/bus/pci/devices/%s", address);
    if (access(sysfs, F_OK) != 0) {
        problems_add(problems, path, "this machine has no PCI device %s", address);
        return -ENODEV;
    }
    if (sysfs_number(address, "class") >> 16 != CLASS_NETWORK) {
        problems_add(problems, path, "the PCI device %s is no network controller", address);
        return -EINVAL;
    }
    kernel_driver(address, bound, sizeof(bound));
    linux_name(address, interface, sizeof(interface));
    if (sysfs_number(address, "vendor") == VENDOR_MELLANOX) {
        if (strncmp(bound, "mlx", 3) != 0) {
            problems_add(problems, path,
                         "the PCI device %s is an NVIDIA NIC and works through its kernel driver "
                         "(mlx4_core or mlx5_core), but %s%s has it; bind it back with "
                         "dpdk-devbind.py -b mlx4_core %s",
                         address, bound[0] ? "" : "no driver", bound, address);
            return -ENODEV;
        }
        return 0;
    }
    if (strcmp(bound, "vfio-pci") == 0 || strcmp(bound, "uio_pci_generic") == 0 ||
        strcmp(bound, "igb_uio") == 0) {
        return 0;
    }
    if (bound[0]) {
        problems_add(problems, path,
                     "the PCI device %s belongs to the kernel driver `%s`%s%s%s; give it to DPDK "
                     "first: dpdk-devbind.py -b vfio-pci %s",
                     address, bound, interface[0] ? " (Linux interface `" : "", interface,
                     interface[0] ? "`)" : "", address);
    } else {
        problems_add(problems, path,
                     "no driver has the PCI device %s; give it to DPDK first: "
                     "dpdk-devbind.py -b vfio-pci %s",
                     address, address);
    }
    return -EBUSY;
}

static struct port_driver driver = {
    .name = "pci",
    .before_probe = before_probe,
};
PORT_DRIVER(driver)
