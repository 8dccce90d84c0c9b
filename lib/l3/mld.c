/*
 * Multicast Listener Discovery, the listener's part (RFC 3810): the router tells which groups it
 * listens to, so that switches which look into these messages pass the neighbours' solicitations.
 *
 * Groups are the solicited-node groups of all addresses, and all-routers. State-change reports are
 * sent when a group is joined and again when the interface's first address is valid (RFC 3590:
 * reports from :: may be ignored); a query is answered with all groups after a random part of the
 * time it allows. Queries for one group get the same answer: it says more than was asked, but no
 * wrong thing.
 */
#include <rte_random.h>
#include <string.h>

#include "core/counters.h"
#include "core/event.h"
#include "l3/link.h"
#include "l3/nd.h"

/* Record types of RFC 3810 section 5.2.12. */
enum {
    MODE_IS_EXCLUDE = 2,   /* listens, in answer to a query */
    CHANGE_TO_INCLUDE = 3, /* with no sources: has left */
    CHANGE_TO_EXCLUDE = 4, /* with no sources: has joined */
};

enum {
    REPORT_HEADER = 8,
    RECORD = 20,
    HOP_LIMIT = 1,
    RECORDS_MAX = (ND_MESSAGE_MAX - 8 /* hop-by-hop */ - REPORT_HEADER) / RECORD,
    RESPONSE_MAX_MSEC = 10000,
};

static struct event_timer answers[INTERFACES_MAX];

static const struct ip_address all_mld_routers = {
    .family = AF_INET6, .bytes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16}};

static void add_record(struct nd_message *message, uint8_t type, const struct ip_address *group) {
    uint8_t *record = message->bytes + message->length;

    memset(record, 0, 4); /* type, no auxiliary data, no sources */
    record[0] = type;
    memcpy(record + 4, group->bytes, 16);
    message->length += RECORD;
    message->bytes[7]++; /* RECORDS_MAX fits into the low byte of the count */
}

static void send_report(const struct interface *interface, struct nd_message *message) {
    const struct interface_address *own = interface_link_local(interface);
    bool usable = own && own->state == ADDRESS_VALID;

    nd_transmit(interface, NULL, usable ? &own->prefix.address : &nd_unspecified, &all_mld_routers,
                HOP_LIMIT, true, message);
}

static void report_one(const struct interface *interface, uint8_t type,
                       const struct ip_address *group) {
    struct nd_message message;

    nd_start(&message, MLD_REPORT, REPORT_HEADER);
    add_record(&message, type, group);
    send_report(interface, &message);
}

/* Has an address before number `end` (all: address_count) the same group? */
static bool group_used(const struct interface *interface, unsigned end,
                       const struct ip_address *group) {
    for (unsigned i = 0; i < end; i++) {
        const struct interface_address *own = &interface->addresses[i];
        struct ip_address other = nd_solicited_node(&own->prefix.address);

        if (own->prefix.address.family == AF_INET6 && own->state != ADDRESS_DUPLICATE &&
            ip_address_compare(&other, group) == 0)
            return true;
    }
    return false;
}

static void report_all(const struct interface *interface, uint8_t type) {
    struct nd_message message;

    nd_start(&message, MLD_REPORT, REPORT_HEADER);
    for (unsigned i = 0; i < interface->address_count; i++) {
        const struct interface_address *own = &interface->addresses[i];
        struct ip_address group = nd_solicited_node(&own->prefix.address);

        if (own->prefix.address.family != AF_INET6 || own->state == ADDRESS_DUPLICATE ||
            group_used(interface, i, &group))
            continue;
        if (message.bytes[7] == 0)
            add_record(&message, type, &nd_all_routers);
        if (message.bytes[7] == RECORDS_MAX) {
            send_report(interface, &message);
            nd_start(&message, MLD_REPORT, REPORT_HEADER);
        }
        add_record(&message, type, &group);
    }
    if (message.bytes[7] > 0)
        send_report(interface, &message);
}

void mld_join(const struct interface *interface, const struct ip_address *address) {
    struct ip_address group = nd_solicited_node(address);

    report_one(interface, CHANGE_TO_EXCLUDE, &group);
}

void mld_leave(const struct interface *interface, const struct ip_address *address) {
    struct ip_address group = nd_solicited_node(address);

    if (!group_used(interface, interface->address_count, &group))
        report_one(interface, CHANGE_TO_INCLUDE, &group);
}

void mld_join_all(const struct interface *interface) {
    report_all(interface, CHANGE_TO_EXCLUDE);
}

static void answer(struct event_timer *timer) {
    const struct interface *interface = interface_by_id((uint16_t)(timer - answers));

    if (interface && interface->up)
        report_all(interface, MODE_IS_EXCLUDE);
}

/* RFC 3810 section 5.1.3; 0 in MLDv2 means at once. */
static uint32_t response_msec(uint16_t code) {
    uint32_t msec = code;

    if (code >= 0x8000)
        msec = (uint32_t)((code & 0xfff) | 0x1000) << (((code >> 12) & 7) + 3);
    return msec < RESPONSE_MAX_MSEC ? msec : RESPONSE_MAX_MSEC;
}

void mld_query(const struct nd_packet *packet) {
    struct event_timer *timer = &answers[packet->interface->id];
    uint32_t most;

    if (packet->hop_limit != HOP_LIMIT) {
        nd_count(ND_HOP_LIMIT_BAD);
        return;
    }
    if (!ip_address_is_link_local(&packet->source)) {
        nd_count(ND_SOURCE);
        return;
    }
    if (packet->length < 24) {
        nd_count(ND_SHORT);
        return;
    }
    if (link_own(packet->interface, &packet->source)) {
        nd_count(ND_OWN_PACKET);
        return;
    }
    if (event_timer_armed(timer))
        return; /* that answer serves this query too */
    most = response_msec((uint16_t)(packet->message[4] << 8 | packet->message[5]));
    timer->expired = answer;
    event_timer_start(timer, rte_rand_max((uint64_t)most + 1));
}

void mld_stop(const struct interface *interface) {
    event_timer_stop(&answers[interface->id]);
}
