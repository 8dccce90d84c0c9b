/*
 * Neighbour Discovery for IPv6 over Ethernet (RFC 4861): solicitations and advertisements of
 * neighbours, and what interfaces' addresses need of the protocol.
 *
 * A hop limit of 255 proves that a packet comes from the link, nothing more: its contents may be
 * forged. Nothing is learnt about addresses that the link cannot have, nor about the router's own,
 * and what a host did not ask the router for only changes entries that exist. Redirects and other
 * routers' advertisements are for hosts; the router counts and ignores them.
 *
 * What can go wrong: buffers run out; the packet is not sent then, and whoever needed it tries
 * again.
 */
#include <string.h>

#include "core/counters.h"
#include "core/log.h"
#include "core/packet.h"
#include "core/punt.h"
#include "core/worker.h"
#include "l3/link.h"
#include "l3/nd.h"
#include "l3/neighbour.h"
#include "l3/protocol.h"

enum {
    TARGET = 8, /* offset of the target address in solicitations and advertisements */
    NEIGHBOUR_HEADER = 24,
    ROUTER_SOLICITATION_HEADER = 8,
    ROUTER_ADVERTISEMENT_HEADER = 16,
    REDIRECT_HEADER = 40,

    FLAG_ROUTER = 0x80, /* in byte 4 of an advertisement */
    FLAG_SOLICITED = 0x40,
    FLAG_OVERRIDE = 0x20,
};

static struct drop_group nd_drops = {
    .name = "nd",
    .reasons =
        (const char *const[]){
            [ND_SHORT] = "short",
            [ND_TOO_LONG] = "too_long",
            [ND_NO_INTERFACE] = "no_interface", /* gone or down since it was received */
            [ND_NOT_ICMPV6] = "not_icmpv6",
            [ND_FRAGMENTED] = "fragmented", /* RFC 6980 */
            [ND_HOP_LIMIT_BAD] = "hop_limit",
            [ND_CHECKSUM] = "checksum",
            [ND_CODE] = "code",
            [ND_TYPE] = "type",
            [ND_OPTION_LENGTH] = "option_length", /* zero, or more than there is */
            [ND_SOURCE] = "source_address",
            [ND_DESTINATION] = "destination_address",
            [ND_TARGET] = "target_address",
            [ND_LINK_OPTION] = "link_layer_option",  /* no host's, or where none may be */
            [ND_SOLICITED_FLAG] = "solicited_flag",  /* in an advertisement to a group */
            [ND_OWN_PACKET] = "own_packet",          /* the router's own, come back */
            [ND_CONFLICT] = "conflict",              /* another host claims an own address */
            [ND_NOT_ON_LINK] = "source_not_on_link", /* answered, but not learnt */
            [ND_IGNORED_ADVERTISEMENT] = "router_advertisement", /* another router's */
            [ND_IGNORED_REDIRECT] = "redirect",
            [ND_NO_BUFFER] = "no_buffer", /* not sent */
            NULL,
        },
};
DROP_GROUP(nd_drops)

void nd_count(enum nd_drop reason) {
    counters_drop(control_counters(), &nd_drops, reason);
}

/* ---- sending ---- */

void nd_send_solicitation(const struct interface *interface, const struct ip_address *target,
                          const uint8_t *unicast_mac) {
    const struct ip_address *source = link_source(interface, target);
    struct ip_address destination = unicast_mac ? *target : nd_solicited_node(target);
    struct nd_message message;

    if (!source)
        return; /* no address is valid yet: nobody could answer */
    nd_start(&message, ND_NEIGHBOUR_SOLICITATION, NEIGHBOUR_HEADER);
    memcpy(message.bytes + TARGET, target->bytes, 16);
    nd_add_link_option(&message, ND_OPTION_SOURCE_LINK, interface->mac);
    nd_transmit(interface, unicast_mac, source, &destination, ND_HOP_LIMIT, false, &message);
}

static void send_advertisement(const struct interface *interface, const struct ip_address *target,
                               uint8_t flags, const struct ip_address *destination,
                               const uint8_t *link_destination) {
    struct nd_message message;

    nd_start(&message, ND_NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_HEADER);
    message.bytes[4] = flags;
    memcpy(message.bytes + TARGET, target->bytes, 16);
    nd_add_link_option(&message, ND_OPTION_TARGET_LINK, interface->mac);
    nd_transmit(interface, link_destination, target, destination, ND_HOP_LIMIT, false, &message);
}

void nd_send_announcement(const struct interface *interface, const struct ip_address *address) {
    send_advertisement(interface, address, FLAG_ROUTER | FLAG_OVERRIDE, &nd_all_nodes, NULL);
}

/* ---- receiving ---- */

/* Another host has an address that is the router's already. RFC 4862 leaves what to do to the node;
 * a router keeps its address and says so. */
static void handle_conflict(const struct interface *interface, const struct ip_address *address,
                            const uint8_t mac[6]) {
    static struct log_limit limit;
    char text[IP_ADDRESS_TEXT], mac_text[MAC_ADDRESS_TEXT];

    nd_count(ND_CONFLICT);
    log_limited(&limit, LOG_LEVEL_WARNING, "nd",
                "the address %s of interface %s is also used by the host %s",
                ip_address_text(address, text), interface->name, mac_address_text(mac, mac_text));
    if (link_may_defend(interface->id, address))
        nd_send_announcement(interface, address);
}

/* RFC 4861 section 7.2.3: what a question says about who asks. */
static void learn_source(const struct nd_packet *packet, const uint8_t *mac, bool create,
                         bool router) {
    bool possible = link_neighbour_possible(packet->interface, &packet->source);
    struct neighbour_view view;
    bool known = neighbour_find(packet->interface->id, &packet->source, &view);

    if (!possible && !known) {
        nd_count(ND_NOT_ON_LINK);
        return;
    }
    neighbour_learn(packet->interface->id, &packet->source, mac, false, true,
                    router && known && view.is_router, create && possible);
}

static void answer(const struct nd_packet *packet, const struct ip_address *target,
                   const uint8_t *source_link) {
    const uint8_t flags = FLAG_ROUTER | FLAG_OVERRIDE;

    if (ip_address_is_unspecified(&packet->source))
        send_advertisement(packet->interface, target, flags, &nd_all_nodes, NULL);
    else
        send_advertisement(packet->interface, target, flags | FLAG_SOLICITED, &packet->source,
                           source_link ? source_link : packet->link_source);
}

static bool is_solicited_node(const struct ip_address *address) {
    struct ip_address group = nd_solicited_node(address);

    return ip_address_compare(&group, address) == 0;
}

/* RFC 4862 section 5.4.3: a solicitation for an address that is not yet the router's. */
static void solicited_tentative(const struct nd_packet *packet, const struct ip_address *target,
                                const uint8_t *nonce) {
    if (!ip_address_is_unspecified(&packet->source))
        return; /* somebody wants to talk to it: too early */
    if (dad_is_own(packet->interface, target, nonce)) {
        nd_count(ND_OWN_PACKET);
        return;
    }
    nd_count(ND_CONFLICT);
    dad_conflict(packet->interface, target, packet->link_source);
}

/* RFC 4861 sections 7.1.1 and 7.2.3. */
static void solicitation(const struct nd_packet *packet) {
    struct interface *interface = packet->interface;
    bool probe = ip_address_is_unspecified(&packet->source);
    const struct interface_address *own;
    struct ip_address target;
    struct nd_options options;

    if (packet->length < NEIGHBOUR_HEADER) {
        nd_count(ND_SHORT);
        return;
    }
    target = ip6_address(packet->message + TARGET);
    if (ip_address_is_multicast(&target)) {
        nd_count(ND_TARGET);
        return;
    }
    if (!nd_read_options(packet, NEIGHBOUR_HEADER, &options))
        return;
    if (probe && !is_solicited_node(&packet->destination)) {
        nd_count(ND_DESTINATION);
        return;
    }
    if (probe && options.source_link) {
        nd_count(ND_LINK_OPTION);
        return;
    }
    if (!probe && link_own(interface, &packet->source)) {
        nd_count(ND_OWN_PACKET); /* a conflict would show by its advertisements */
        return;
    }

    own = link_own(interface, &target);
    if (own && own->state == ADDRESS_TENTATIVE) {
        solicited_tentative(packet, &target, options.nonce);
        return;
    }
    if (own && own->state != ADDRESS_VALID)
        own = NULL;
    if (!probe && options.source_link)
        learn_source(packet, options.source_link, own != NULL, true);
    if (own)
        answer(packet, &target, options.source_link);
}

/* RFC 4861 sections 7.1.2 and 7.2.5. */
static void advertisement(const struct nd_packet *packet) {
    struct interface *interface = packet->interface;
    const struct interface_address *own;
    struct neighbour_view view;
    struct nd_options options;
    struct ip_address target;
    uint8_t flags;

    if (packet->length < NEIGHBOUR_HEADER) {
        nd_count(ND_SHORT);
        return;
    }
    flags = packet->message[4];
    target = ip6_address(packet->message + TARGET);
    if (ip_address_is_multicast(&target)) {
        nd_count(ND_TARGET);
        return;
    }
    if (ip_address_is_multicast(&packet->destination) && flags & FLAG_SOLICITED) {
        nd_count(ND_SOLICITED_FLAG);
        return;
    }
    if (!nd_read_options(packet, NEIGHBOUR_HEADER, &options))
        return;

    own = link_own(interface, &target);
    if (own) {
        const uint8_t *mac = options.target_link ? options.target_link : packet->link_source;

        if (own->state == ADDRESS_TENTATIVE) { /* RFC 4862 section 5.4.4 */
            nd_count(ND_CONFLICT);
            dad_conflict(interface, &target, mac);
        } else if (memcmp(mac, interface->mac, 6) == 0) {
            nd_count(ND_OWN_PACKET);
        } else if (own->state == ADDRESS_VALID) {
            handle_conflict(interface, &target, mac);
        }
        return;
    }
    /* Without the option it confirms the address that is known. */
    if (!neighbour_find(interface->id, &target, &view) || (!options.target_link && !view.has_mac))
        return;
    neighbour_learn(interface->id, &target, options.target_link ? options.target_link : view.mac,
                    (flags & FLAG_SOLICITED) != 0, (flags & FLAG_OVERRIDE) != 0,
                    (flags & FLAG_ROUTER) != 0, false);
}

/* RFC 4861 sections 6.1.1 and 6.2.6. */
static void router_solicitation(const struct nd_packet *packet) {
    bool unspecified = ip_address_is_unspecified(&packet->source);
    struct nd_options options;

    if (!nd_read_options(packet, ROUTER_SOLICITATION_HEADER, &options))
        return;
    if (unspecified && options.source_link) {
        nd_count(ND_LINK_OPTION);
        return;
    }
    if (!unspecified && link_own(packet->interface, &packet->source)) {
        nd_count(ND_OWN_PACKET);
        return;
    }
    if (!packet->interface->router_advertisement.enabled)
        return;
    if (options.source_link)
        learn_source(packet, options.source_link, true, false); /* a router would not ask */
    ra_solicited(packet->interface);
}

static void ignored(const struct nd_packet *packet, size_t least, enum nd_drop reason) {
    if (packet->length < least)
        nd_count(ND_SHORT);
    else if (!ip_address_is_link_local(&packet->source))
        nd_count(ND_SOURCE);
    else
        nd_count(link_own(packet->interface, &packet->source) ? ND_OWN_PACKET : reason);
}

static void handle(const struct nd_packet *packet) {
    uint8_t type = packet->message[0];

    if (type != MLD_QUERY && packet->hop_limit != ND_HOP_LIMIT) {
        nd_count(ND_HOP_LIMIT_BAD);
        return;
    }
    if (packet->message[1] != 0) {
        nd_count(ND_CODE);
        return;
    }
    switch (type) {
    case MLD_QUERY:
        mld_query(packet);
        break;
    case ND_ROUTER_SOLICITATION:
        router_solicitation(packet);
        break;
    case ND_ROUTER_ADVERTISEMENT:
        ignored(packet, ROUTER_ADVERTISEMENT_HEADER, ND_IGNORED_ADVERTISEMENT);
        break;
    case ND_NEIGHBOUR_SOLICITATION:
        solicitation(packet);
        break;
    case ND_NEIGHBOUR_ADVERTISEMENT:
        advertisement(packet);
        break;
    case ND_REDIRECT:
        ignored(packet, REDIRECT_HEADER, ND_IGNORED_REDIRECT);
        break;
    default:
        nd_count(ND_TYPE);
        break;
    }
}

void nd_input(struct rte_mbuf *mbuf) {
    struct nd_packet packet;
    bool readable = nd_read(mbuf, &packet);

    rte_pktmbuf_free(mbuf);
    if (readable)
        handle(&packet);
}

/* What workers punt as PUNT_ARP. */
static void protocol_input(struct rte_mbuf *mbuf) {
    if (packet_meta(mbuf)->cause == CAUSE_ARP)
        arp_input(mbuf);
    else
        nd_input(mbuf);
}

/* ---- interfaces and their addresses ---- */

static bool is_ipv6(const struct interface_address *address) {
    return address->prefix.address.family == AF_INET6;
}

/* A link that was down may be another link now: duplicates get another chance, and all addresses
 * that were valid are announced. */
static void on_up(struct interface *interface) {
    struct ip_address duplicates[INTERFACE_ADDRESSES_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];

        if (!is_ipv6(own))
            continue;
        if (own->state == ADDRESS_TENTATIVE)
            dad_start(interface, &own->prefix.address);
        else if (own->state == ADDRESS_VALID)
            nd_send_announcement(interface, &own->prefix.address);
        else
            duplicates[count++] = own->prefix.address;
    }
    mld_join_all(interface);
    for (unsigned i = 0; i < count; i++)
        interface_set_address_state(interface, &duplicates[i], ADDRESS_TENTATIVE);
    ra_update(interface, false);
}

static void on_down(struct interface *interface) {
    dad_stop_all(interface);
    mld_stop(interface);
    ra_stop(interface);
}

static void on_address_changed(struct interface *interface,
                               const struct interface_address *address) {
    if (!interface->up || !is_ipv6(address))
        return;
    switch (address->state) {
    case ADDRESS_TENTATIVE:
        dad_start(interface, &address->prefix.address);
        break;
    case ADDRESS_VALID:
        if (ip_address_is_link_local(&address->prefix.address))
            mld_join_all(interface); /* now from an address that all believe */
        else
            mld_join(interface, &address->prefix.address);
        nd_send_announcement(interface, &address->prefix.address);
        break;
    case ADDRESS_DUPLICATE:
        mld_leave(interface, &address->prefix.address);
        break;
    }
    ra_update(interface, true);
}

static void on_address_added(struct interface *interface, const struct interface_address *address) {
    if (!interface->up || !is_ipv6(address))
        return; /* looked at when it comes up */
    if (address->state == ADDRESS_TENTATIVE)
        dad_start(interface, &address->prefix.address);
    else if (address->state == ADDRESS_VALID)
        on_address_changed(interface, address);
}

static void on_address_removed(struct interface *interface,
                               const struct interface_address *address) {
    if (!is_ipv6(address))
        return;
    dad_stop(interface, &address->prefix.address);
    if (!interface->up)
        return;
    if (address->state != ADDRESS_DUPLICATE)
        mld_leave(interface, &address->prefix.address);
    ra_update(interface, true);
}

static void on_changed(struct interface *interface) {
    ra_update(interface, false);
}

static struct interface_listener listener = {
    .up = on_up,
    .down = on_down,
    .removed = on_down,
    .address_added = on_address_added,
    .address_removed = on_address_removed,
    .address_changed = on_address_changed,
    .changed = on_changed,
};

int nd_init(void) {
    interface_listen(&listener);
    punt_set_handler(PUNT_ARP, protocol_input);
    return 0;
}
