/*
 * Router advertisements: RFC 4861 section 6.2.
 *
 * An interface advertises while that is configured, the interface is up and its link-local address
 * is valid. The first three go out quickly, later ones at random times; solicitations are answered
 * by multicast, not more than one advertisement in MIN_DELAY_BETWEEN_RAS. When the configuration
 * ends the advertising, or the router ends, a last one with lifetime zero sends the hosts away. An
 * interface that is disabled cannot send it any more: it goes down at once.
 *
 * What can go wrong: more prefixes than fit into one packet; they are spread over several.
 */
#include <rte_random.h>
#include <stdlib.h>
#include <string.h>

#include "core/counters.h"
#include "core/event.h"
#include "core/log.h"
#include "l3/nd.h"

enum {
    INITIAL_INTERVAL_MSEC = 16000, /* MAX_INITIAL_RTR_ADVERT_INTERVAL */
    INITIAL_COUNT = 3,             /* MAX_INITIAL_RTR_ADVERTISEMENTS */
    MIN_DELAY_MSEC = 3000,         /* MIN_DELAY_BETWEEN_RAS */
    ANSWER_DELAY_MSEC = 500,       /* MAX_RA_DELAY_TIME */
    INTERVAL_MIN = 4,              /* seconds, of MaxRtrAdvInterval */

    HOP_LIMIT_ADVERTISED = 64,
    HEADER = 16,
    PREFIX_OPTION = 32,

    FLAG_MANAGED = 0x80,
    FLAG_OTHER = 0x40,
    FLAG_ON_LINK = 0x80,
    FLAG_AUTONOMOUS = 0x40,

    DEFAULT_VALID = 2592000,    /* AdvValidLifetime, seconds */
    DEFAULT_PREFERRED = 604800, /* AdvPreferredLifetime */
};

struct advertiser {
    uint16_t interface;
    bool active;
    unsigned initial; /* advertisements of the first burst that are still to come */
    uint64_t last;    /* when the last one was sent; 0 = none yet */
    struct router_advertisement config;
    uint16_t mtu;
    struct event_timer timer;
};

static struct advertiser *advertisers[INTERFACES_MAX]; /* made when first needed */

/* ---- the message ---- */

static void put32(uint8_t *place, uint32_t value) {
    place[0] = (uint8_t)(value >> 24);
    place[1] = (uint8_t)(value >> 16);
    place[2] = (uint8_t)(value >> 8);
    place[3] = (uint8_t)value;
}

/* An advertisement under way: full ones are sent and another is begun. */
struct writer {
    const struct interface *interface;
    const struct ip_address *source;
    bool final;
    struct nd_message message;
};

static void begin(struct writer *w) {
    const struct router_advertisement *config = &w->interface->router_advertisement;
    uint16_t lifetime = w->final ? 0 : config->lifetime;
    uint8_t *bytes = w->message.bytes;

    nd_start(&w->message, ND_ROUTER_ADVERTISEMENT, HEADER);
    bytes[4] = HOP_LIMIT_ADVERTISED;
    bytes[5] = (uint8_t)((config->managed ? FLAG_MANAGED : 0) | (config->other ? FLAG_OTHER : 0));
    bytes[6] = (uint8_t)(lifetime >> 8);
    bytes[7] = (uint8_t)lifetime;
    nd_add_link_option(&w->message, ND_OPTION_SOURCE_LINK, w->interface->mac);
    if (config->send_mtu)
        put32(nd_add_option(&w->message, ND_OPTION_MTU, 8) + 4, w->interface->mtu);
}

static void end(struct writer *w) {
    nd_transmit(w->interface, NULL, w->source, &nd_all_nodes, ND_HOP_LIMIT, false, &w->message);
}

static void add_prefix(struct writer *w, const struct advertised_prefix *prefix) {
    uint8_t *option;

    if (w->message.length + PREFIX_OPTION > ND_MESSAGE_MAX) {
        end(w);
        begin(w);
    }
    option = nd_add_option(&w->message, ND_OPTION_PREFIX, PREFIX_OPTION);
    option[2] = prefix->prefix.length;
    option[3] = (uint8_t)((prefix->on_link ? FLAG_ON_LINK : 0) |
                          (prefix->autonomous ? FLAG_AUTONOMOUS : 0));
    put32(option + 4, prefix->valid_lifetime);
    put32(option + 8, prefix->preferred_lifetime);
    memcpy(option + 16, prefix->prefix.address.bytes, 16);
}

static bool listed(const struct interface *interface, unsigned own_count,
                   const struct ip_prefix *prefix) {
    const struct router_advertisement *config = &interface->router_advertisement;

    for (unsigned i = 0; i < config->prefix_count; i++) {
        if (ip_prefix_compare(&config->prefixes[i].prefix, prefix) == 0)
            return true;
    }
    for (unsigned i = 0; i < own_count; i++) {
        struct ip_prefix other = ip_prefix_network(&interface->addresses[i].prefix);

        if (ip_prefix_compare(&other, prefix) == 0)
            return true;
    }
    return false;
}

/* The prefixes of the interface's own addresses, each once, but for those that the configuration
 * says more about. Hosts make addresses only from /64 (RFC 2464). */
static void add_own_prefixes(struct writer *w) {
    for (unsigned i = 0; i < w->interface->address_count; i++) {
        const struct interface_address *own = &w->interface->addresses[i];
        struct advertised_prefix prefix = {.prefix = ip_prefix_network(&own->prefix),
                                           .valid_lifetime = DEFAULT_VALID,
                                           .preferred_lifetime = DEFAULT_PREFERRED,
                                           .on_link = true,
                                           .autonomous = own->prefix.length == 64};

        if (own->prefix.address.family == AF_INET6 && own->prefix.length < IP6_MAX_LENGTH &&
            own->state != ADDRESS_DUPLICATE && !ip_address_is_link_local(&own->prefix.address) &&
            !listed(w->interface, i, &prefix.prefix))
            add_prefix(w, &prefix);
    }
}

static void advertise(const struct interface *interface, bool final) {
    const struct router_advertisement *config = &interface->router_advertisement;
    const struct interface_address *source = interface_link_local(interface);
    struct writer w = {.interface = interface, .final = final};

    if (!source || source->state != ADDRESS_VALID)
        return;
    w.source = &source->prefix.address;
    begin(&w);
    for (unsigned i = 0; i < config->prefix_count; i++)
        add_prefix(&w, &config->prefixes[i]);
    if (config->default_prefixes)
        add_own_prefixes(&w);
    end(&w);
}

/* ---- when ---- */

static uint64_t random_interval(const struct advertiser *a) {
    uint32_t most = a->config.interval < INTERVAL_MIN ? INTERVAL_MIN : a->config.interval;
    uint64_t high = (uint64_t)most * 1000;
    uint64_t low = most >= 9 ? high / 3 : high * 3 / 4;
    uint64_t msec = low + rte_rand_max(high - low + 1);

    return a->initial > 0 && msec > INITIAL_INTERVAL_MSEC ? INITIAL_INTERVAL_MSEC : msec;
}

static void expired(struct event_timer *timer) {
    struct advertiser *a = timer->context;
    const struct interface *interface = interface_by_id(a->interface);

    if (!interface)
        return; /* cannot be: it went down before */
    advertise(interface, false);
    a->last = event_now();
    if (a->initial > 0)
        a->initial--;
    event_timer_start(timer, random_interval(a));
}

/* Sends one as soon as the rules allow, unless one comes sooner anyway. */
static void send_soon(struct advertiser *a) {
    uint64_t now = event_now(), when = now + rte_rand_max(ANSWER_DELAY_MSEC + 1);

    if (a->last != 0 && when < a->last + MIN_DELAY_MSEC)
        when = a->last + MIN_DELAY_MSEC + rte_rand_max(ANSWER_DELAY_MSEC + 1);
    if (!event_timer_armed(&a->timer) || when < a->timer.deadline)
        event_timer_start(&a->timer, when - now);
}

void ra_solicited(const struct interface *interface) {
    struct advertiser *a = advertisers[interface->id];

    if (a && a->active)
        send_soon(a);
}

static void deactivate(const struct interface *interface, struct advertiser *a) {
    a->active = false;
    event_timer_stop(&a->timer);
    if (interface->up) /* otherwise workers do not send any more */
        advertise(interface, true);
}

void ra_update(const struct interface *interface, bool prefixes_changed) {
    const struct router_advertisement *config = &interface->router_advertisement;
    const struct interface_address *source = interface_link_local(interface);
    bool wanted = config->enabled && interface->up && source && source->state == ADDRESS_VALID;
    struct advertiser *a = advertisers[interface->id];
    bool changed;

    if (!a) {
        if (!wanted)
            return;
        a = calloc(1, sizeof(*a));
        if (!a) {
            log_error("nd", "no memory for router advertisements on %s", interface->name);
            return;
        }
        a->interface = interface->id;
        a->timer.expired = expired;
        a->timer.context = a;
        advertisers[interface->id] = a;
    }
    if (!wanted) {
        if (a->active)
            deactivate(interface, a);
        return;
    }
    changed = prefixes_changed || !a->active || a->mtu != interface->mtu ||
              memcmp(&a->config, config, sizeof(*config)) != 0;
    a->config = *config;
    a->mtu = interface->mtu;
    a->active = true;
    if (changed) { /* what is new has to be known soon (RFC 4861 section 6.2.4) */
        a->initial = INITIAL_COUNT;
        send_soon(a);
    }
}

void ra_stop(const struct interface *interface) {
    struct advertiser *a = advertisers[interface->id];

    if (!a)
        return;
    if (a->active)
        deactivate(interface, a);
    free(a);
    advertisers[interface->id] = NULL;
}

void ra_shutdown(void) {
    for (struct interface *i = interface_next(NULL); i; i = interface_next(i))
        ra_stop(i);
}
