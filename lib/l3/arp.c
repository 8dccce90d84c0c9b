/*
 * ARP for IPv4 over Ethernet (RFC 826), with address conflict detection (RFC 5227).
 *
 * What arrives may be forged: nothing is believed that the link could not say. A sender outside the
 * connected prefixes, one that claims one of the router's addresses, or one with a group address as
 * hardware address is never learnt, and who did not ask for us only updates an entry that exists.
 *
 * What can go wrong: buffers run out; the frame is not sent then, and whoever needed it tries
 * again.
 */
#include <errno.h>
#include <rte_arp.h>
#include <rte_ether.h>
#include <string.h>

#include "core/counters.h"
#include "core/drops.h"
#include "core/event.h"
#include "core/log.h"
#include "core/packet.h"
#include "core/worker.h"
#include "l3/link.h"
#include "l3/neighbour.h"
#include "l3/protocol.h"

enum {
    FRAME_MIN = 60,                /* IEEE 802.3, without FCS: not every driver pads */
    ANNOUNCE_INTERVAL_MSEC = 2000, /* RFC 5227 section 1.1: two announcements */
};

enum arp_drop {
    ARP_SHORT,
    ARP_NO_INTERFACE,
    ARP_HARDWARE_TYPE,
    ARP_PROTOCOL_TYPE,
    ARP_ADDRESS_LENGTH,
    ARP_OPERATION,
    ARP_SENDER_MAC,
    ARP_SENDER_ADDRESS,
    ARP_OWN_FRAME,
    ARP_CONFLICT,
    ARP_NOT_ON_LINK,
    ARP_NO_BUFFER,
};

static struct drop_group arp_drops = {
    .name = "arp",
    .reasons =
        (const char *const[]){
            [ARP_SHORT] = "short",
            [ARP_NO_INTERFACE] = "no_interface",      /* gone or down since it was received */
            [ARP_HARDWARE_TYPE] = "hardware_type",    /* not Ethernet */
            [ARP_PROTOCOL_TYPE] = "protocol_type",    /* not IPv4 */
            [ARP_ADDRESS_LENGTH] = "address_length",  /* not 6 and 4 */
            [ARP_OPERATION] = "operation",            /* neither request nor reply */
            [ARP_SENDER_MAC] = "sender_mac",          /* group or zero hardware address */
            [ARP_SENDER_ADDRESS] = "sender_address",  /* no host can have this address */
            [ARP_OWN_FRAME] = "own_frame",            /* the router's own, come back */
            [ARP_CONFLICT] = "conflict",              /* another host claims an own address */
            [ARP_NOT_ON_LINK] = "sender_not_on_link", /* answered, but not learnt */
            [ARP_NO_BUFFER] = "no_buffer",            /* not sent */
            NULL,
        },
};
DROP_GROUP(arp_drops)

static void count(enum arp_drop reason) {
    counters_drop(control_counters(), &arp_drops, reason);
}

/* ---- sending ---- */

static const uint8_t broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t zero_mac[6];

struct arp_frame {
    struct rte_ether_hdr ether;
    struct rte_arp_hdr arp;
};
_Static_assert(sizeof(struct arp_frame) == 42, "as it is sent");

/* `sender` and `target` are four bytes each. */
static void send_frame(const struct interface *interface, uint16_t operation,
                       const uint8_t link_destination[6], const uint8_t sender[4],
                       const uint8_t target_mac[6], const uint8_t target[4]) {
    struct packet_meta *meta;
    struct arp_frame *frame;
    struct rte_mbuf *mbuf;
    char *room;

    if (interface->if_id != 0)
        return; /* a tunnel has no link layer */
    mbuf = control_mbuf();
    room = mbuf ? rte_pktmbuf_append(mbuf, FRAME_MIN) : NULL;
    if (!room) {
        rte_pktmbuf_free(mbuf);
        count(ARP_NO_BUFFER);
        return;
    }
    memset(room, 0, FRAME_MIN);
    frame = (struct arp_frame *)room;
    memcpy(&frame->ether.dst_addr, link_destination, 6);
    memcpy(&frame->ether.src_addr, interface->mac, 6);
    frame->ether.ether_type = RTE_BE16(RTE_ETHER_TYPE_ARP);
    frame->arp.arp_hardware = RTE_BE16(RTE_ARP_HRD_ETHER);
    frame->arp.arp_protocol = RTE_BE16(RTE_ETHER_TYPE_IPV4);
    frame->arp.arp_hlen = 6;
    frame->arp.arp_plen = 4;
    frame->arp.arp_opcode = rte_cpu_to_be_16(operation);
    memcpy(&frame->arp.arp_data.arp_sha, interface->mac, 6);
    memcpy(&frame->arp.arp_data.arp_sip, sender, 4);
    memcpy(&frame->arp.arp_data.arp_tha, target_mac, 6);
    memcpy(&frame->arp.arp_data.arp_tip, target, 4);

    meta = packet_meta(mbuf);
    meta->l3_offset = sizeof(frame->ether);
    meta->vrf = interface->vrf;
    control_transmit(mbuf, interface->id, interface->port->id);
}

void arp_send_request(const struct interface *interface, const struct ip_address *target,
                      const uint8_t *unicast_mac) {
    const struct ip_address *source = link_source(interface, target);

    if (!source)
        return; /* without an address of its own the router has nobody to ask as */
    send_frame(interface, RTE_ARP_OP_REQUEST, unicast_mac ? unicast_mac : broadcast_mac,
               source->bytes, zero_mac, target->bytes);
}

void arp_send_announcement(const struct interface *interface, const struct ip_address *address) {
    send_frame(interface, RTE_ARP_OP_REQUEST, broadcast_mac, address->bytes, zero_mac,
               address->bytes);
}

/* ---- receiving ---- */

/* What a frame says. */
struct arp_message {
    struct interface *interface;
    uint16_t operation;
    uint8_t sender_mac[6];
    struct ip_address sender, target;
};

/* False, with the reason counted, for what is no ARP message that a host could have sent. */
static bool read_message(struct rte_mbuf *mbuf, struct arp_message *out) {
    const struct packet_meta *meta = packet_meta(mbuf);
    struct rte_arp_hdr buffer;
    const struct rte_arp_hdr *arp =
        rte_pktmbuf_read(mbuf, meta->l3_offset, sizeof(buffer), &buffer);
    enum arp_drop reason;

    out->interface = interface_by_id(meta->in_interface);
    if (!arp) {
        reason = ARP_SHORT;
    } else if (!out->interface || !out->interface->up) {
        reason = ARP_NO_INTERFACE;
    } else if (arp->arp_hardware != RTE_BE16(RTE_ARP_HRD_ETHER)) {
        reason = ARP_HARDWARE_TYPE;
    } else if (arp->arp_protocol != RTE_BE16(RTE_ETHER_TYPE_IPV4)) {
        reason = ARP_PROTOCOL_TYPE;
    } else if (arp->arp_hlen != 6 || arp->arp_plen != 4) {
        reason = ARP_ADDRESS_LENGTH;
    } else if (arp->arp_opcode != RTE_BE16(RTE_ARP_OP_REQUEST) &&
               arp->arp_opcode != RTE_BE16(RTE_ARP_OP_REPLY)) {
        reason = ARP_OPERATION;
    } else if (!link_mac_is_host(arp->arp_data.arp_sha.addr_bytes)) {
        reason = ARP_SENDER_MAC;
    } else {
        out->operation = rte_be_to_cpu_16(arp->arp_opcode);
        memcpy(out->sender_mac, &arp->arp_data.arp_sha, 6);
        out->sender = ip4_address(&arp->arp_data.arp_sip);
        out->target = ip4_address(&arp->arp_data.arp_tip);
        return true;
    }
    count(reason);
    return false;
}

/* RFC 5227 section 2.4 (c): a router does not give up its address, but says once that it has it. */
static void handle_conflict(const struct arp_message *message) {
    static struct log_limit limit;
    char address[IP_ADDRESS_TEXT], mac[MAC_ADDRESS_TEXT];

    count(ARP_CONFLICT);
    log_limited(&limit, LOG_LEVEL_WARNING, "arp",
                "the address %s of interface %s is also used by the host %s",
                ip_address_text(&message->sender, address), message->interface->name,
                mac_address_text(message->sender_mac, mac));
    if (link_may_defend(message->interface->id, &message->sender))
        arp_send_announcement(message->interface, &message->sender);
}

static void learn(const struct arp_message *message, bool for_us, bool to_group) {
    const struct interface *interface = message->interface;
    bool request = message->operation == RTE_ARP_OP_REQUEST;
    bool gratuitous = ip_address_compare(&message->sender, &message->target) == 0;
    bool possible = link_neighbour_possible(interface, &message->sender), override = true;
    struct neighbour_view view;
    bool known = neighbour_find(interface->id, &message->sender, &view);

    if (!possible && !known) {
        count(ARP_NOT_ON_LINK);
        return;
    }
    /* Whoever was confirmed a moment ago is asked before an announcement is believed. */
    if (gratuitous && known && view.state == NEIGHBOUR_REACHABLE)
        override = false;
    neighbour_learn(interface->id, &message->sender, message->sender_mac,
                    !request && for_us && !to_group, override, false,
                    possible && request && for_us);
}

bool (*arp_answers_for)(const struct interface *interface, const struct ip_address *address);

static void handle(const struct arp_message *message, bool to_group) {
    const struct interface *interface = message->interface;
    bool from_mac = memcmp(message->sender_mac, interface->mac, 6) == 0;
    bool probe = ip_address_is_unspecified(&message->sender);
    bool for_us = link_own(interface, &message->target) != NULL ||
                  (arp_answers_for && arp_answers_for(interface, &message->target));

    if (!probe) {
        if (!ip_address_is_host(&message->sender)) {
            count(ARP_SENDER_ADDRESS);
            return;
        }
        if (link_own(interface, &message->sender)) {
            if (from_mac)
                count(ARP_OWN_FRAME);
            else
                handle_conflict(message);
            return;
        }
    }
    if (from_mac) {
        count(ARP_OWN_FRAME); /* or a host with the router's hardware address: beyond help */
        return;
    }
    if (!probe)
        learn(message, for_us, to_group);
    if (for_us && message->operation == RTE_ARP_OP_REQUEST)
        send_frame(interface, RTE_ARP_OP_REPLY, message->sender_mac, message->target.bytes,
                   message->sender_mac, message->sender.bytes);
}

void arp_input(struct rte_mbuf *mbuf) {
    bool to_group = (packet_meta(mbuf)->flags & PACKET_LINK_MULTICAST) != 0;
    struct arp_message message;

    if (read_message(mbuf, &message))
        handle(&message, to_group);
    rte_pktmbuf_free(mbuf);
}

/* ---- announcing ---- */

/* When an interface's addresses are announced for the second time; 0 = not. */
static uint64_t announce_again[INTERFACES_MAX];
static struct event_timer announce_timer;

static void announce_all(const struct interface *interface) {
    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];

        if (own->prefix.address.family == AF_INET && own->state == ADDRESS_VALID)
            arp_send_announcement(interface, &own->prefix.address);
    }
}

static void announce_due(struct event_timer *timer) {
    uint64_t now = event_now(), next = UINT64_MAX;

    for (struct interface *i = interface_next(NULL); i; i = interface_next(i)) {
        uint64_t *when = &announce_again[i->id];

        if (*when != 0 && *when <= now) {
            *when = 0;
            announce_all(i);
        } else if (*when != 0 && *when < next) {
            next = *when;
        }
    }
    if (next != UINT64_MAX)
        event_timer_start(timer, next - now);
}

static void announce_later(const struct interface *interface) {
    announce_again[interface->id] = event_now() + ANNOUNCE_INTERVAL_MSEC;
    if (!event_timer_armed(&announce_timer))
        event_timer_start(&announce_timer, ANNOUNCE_INTERVAL_MSEC);
}

static void on_up(struct interface *interface) {
    announce_all(interface);
    announce_later(interface);
}

static void on_down(struct interface *interface) {
    announce_again[interface->id] = 0;
}

static void on_address_added(struct interface *interface, const struct interface_address *address) {
    if (!interface->up || address->prefix.address.family != AF_INET)
        return; /* announced when it comes up */
    arp_send_announcement(interface, &address->prefix.address);
    announce_later(interface);
}

static struct interface_listener listener = {
    .up = on_up,
    .down = on_down,
    .address_added = on_address_added,
};

int arp_init(void) {
    announce_timer.expired = announce_due;
    interface_listen(&listener);
    return 0;
}
