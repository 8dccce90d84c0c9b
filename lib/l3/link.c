/*
 * Own addresses, on-link addresses and their defence.
 *
 * What can go wrong: more than DEFENCES addresses under attack within ten seconds; the others are
 * not defended then, which only means that they are announced less often.
 */
#include "l3/link.h"

#include <stddef.h>
#include <string.h>

#include "core/event.h"

enum {
    DEFEND_INTERVAL_MSEC = 10000,
    DEFENCES = 64,
};

const struct interface_address *link_own(const struct interface *interface,
                                         const struct ip_address *address) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];

        if (ip_address_compare(&own->prefix.address, address) == 0)
            return own->state != ADDRESS_DUPLICATE ? own : NULL;
    }
    return NULL;
}

/* The prefix of the interface that makes the address connected, NULL if none does. */
static const struct ip_prefix *connected_by(const struct interface *interface,
                                            const struct ip_address *address) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];

        if (own->state != ADDRESS_DUPLICATE && ip_prefix_contains(&own->prefix, address))
            return &own->prefix;
    }
    return NULL;
}

bool link_connected(const struct interface *interface, const struct ip_address *address) {
    if (address->family == AF_INET6 && ip_address_is_link_local(address))
        return true;
    return connected_by(interface, address) != NULL;
}

/* RFC 922: all host bits zero or all one. A /31 (RFC 3021) and a /32 have no such addresses. */
static bool names_whole_prefix(const struct ip_prefix *prefix, const struct ip_address *address) {
    uint32_t host_bits, host;

    if (address->family != AF_INET || prefix->length > 30)
        return false;
    host_bits = UINT32_MAX >> prefix->length;
    host = ip4_host_order(address) & host_bits;
    return host == 0 || host == host_bits;
}

bool link_neighbour_possible(const struct interface *interface, const struct ip_address *address) {
    const struct ip_prefix *prefix;

    if (interface->if_id != 0) /* a tunnel has no link layer, whatever its peer says */
        return false;
    if (!ip_address_is_host(address) || link_own(interface, address))
        return false;
    if (address->family == AF_INET6 && ip_address_is_link_local(address))
        return true;
    prefix = connected_by(interface, address);
    return prefix && !names_whole_prefix(prefix, address);
}

const struct ip_address *link_source(const struct interface *interface,
                                     const struct ip_address *target) {
    const struct interface_address *source = NULL;

    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];

        if (own->state == ADDRESS_VALID && ip_prefix_contains(&own->prefix, target))
            return &own->prefix.address;
    }
    if (target->family == AF_INET6 && ip_address_is_link_local(target))
        source = interface_link_local(interface);
    if (!source)
        source = interface_source(interface, target->family);
    return source && source->state == ADDRESS_VALID ? &source->prefix.address : NULL;
}

bool link_mac_is_host(const uint8_t mac[6]) {
    static const uint8_t zero[6];

    return (mac[0] & 1) == 0 && memcmp(mac, zero, sizeof(zero)) != 0;
}

bool link_may_defend(uint16_t interface, const struct ip_address *address) {
    static struct {
        struct ip_address address;
        uint16_t interface;
        uint64_t until; /* event_now(); 0 = place never used */
    } defences[DEFENCES];
    uint64_t now = event_now();
    unsigned place = DEFENCES;

    for (unsigned i = 0; i < DEFENCES; i++) {
        if (defences[i].until <= now) {
            place = i;
        } else if (defences[i].interface == interface &&
                   ip_address_compare(&defences[i].address, address) == 0) {
            return false;
        }
    }
    if (place == DEFENCES)
        return false;
    defences[place].address = *address;
    defences[place].interface = interface;
    defences[place].until = now + DEFEND_INTERVAL_MSEC;
    return true;
}
