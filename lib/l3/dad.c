/*
 * Duplicate address detection: RFC 4862 section 5.4, with the nonce of RFC 7527 so that a probe
 * which the link returns is not taken for another host's.
 *
 * One probe is sent after a short random delay (up to 100 ms instead of a second, so that the
 * router starts fast), and the address is the router's if nobody speaks up within RETRANS_TIMER.
 *
 * What can go wrong: memory; the address then stays tentative, with a message in the log.
 */
#include <rte_random.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/log.h"
#include "l3/link.h"
#include "l3/nd.h"

enum {
    DELAY_MAX_MSEC = 100,
    RETRANS_TIMER_MSEC = 1000,
};

/* One address that is asked about. */
struct detection {
    struct detection *next;
    uint16_t interface;
    struct ip_address address;
    bool sent;
    uint8_t nonce[ND_NONCE_LENGTH];
    struct event_timer timer;
};

static struct detection *detections;

static struct detection **find(const struct interface *interface,
                               const struct ip_address *address) {
    struct detection **link = &detections;

    while (*link && ((*link)->interface != interface->id ||
                     ip_address_compare(&(*link)->address, address) != 0))
        link = &(*link)->next;
    return link;
}

static void unlink_and_free(struct detection **link) {
    struct detection *gone = *link;

    *link = gone->next;
    event_timer_stop(&gone->timer);
    free(gone);
}

static void send_probe(const struct interface *interface, struct detection *detection) {
    struct ip_address group = nd_solicited_node(&detection->address);
    struct nd_message message;
    uint64_t nonce = rte_rand();

    memcpy(detection->nonce, &nonce, sizeof(detection->nonce));
    nd_start(&message, ND_NEIGHBOUR_SOLICITATION, 24);
    memcpy(message.bytes + 8, detection->address.bytes, 16);
    memcpy(nd_add_option(&message, ND_OPTION_NONCE, 8) + 2, detection->nonce, ND_NONCE_LENGTH);
    nd_transmit(interface, NULL, &nd_unspecified, &group, ND_HOP_LIMIT, false, &message);
}

static void expired(struct event_timer *timer) {
    struct detection *detection = timer->context;
    struct interface *interface = interface_by_id(detection->interface);
    struct ip_address address = detection->address;

    if (!interface)
        return; /* cannot be: it was stopped before */
    if (!detection->sent) {
        mld_join(interface, &address); /* RFC 4862 section 5.4.2: before the probe */
        send_probe(interface, detection);
        detection->sent = true;
        event_timer_start(timer, RETRANS_TIMER_MSEC);
        return;
    }
    unlink_and_free(find(interface, &address));
    interface_set_address_state(interface, &address, ADDRESS_VALID);
}

void dad_start(const struct interface *interface, const struct ip_address *address) {
    struct detection *detection = *find(interface, address);
    char text[IP_ADDRESS_TEXT];

    if (!detection) {
        detection = calloc(1, sizeof(*detection));
        if (!detection) {
            log_error("nd", "no memory to check whether %s on %s is free: it stays tentative",
                      ip_address_text(address, text), interface->name);
            return;
        }
        detection->interface = interface->id;
        detection->address = *address;
        detection->timer.expired = expired;
        detection->timer.context = detection;
        detection->next = detections;
        detections = detection;
    }
    detection->sent = false;
    event_timer_start(&detection->timer, rte_rand_max(DELAY_MAX_MSEC + 1));
}

void dad_stop(const struct interface *interface, const struct ip_address *address) {
    struct detection **link = find(interface, address);

    if (*link)
        unlink_and_free(link);
}

void dad_stop_all(const struct interface *interface) {
    for (struct detection **link = &detections; *link;) {
        if ((*link)->interface == interface->id)
            unlink_and_free(link);
        else
            link = &(*link)->next;
    }
}

bool dad_is_own(const struct interface *interface, const struct ip_address *address,
                const uint8_t *nonce) {
    const struct detection *detection = *find(interface, address);

    return detection && detection->sent && nonce &&
           memcmp(nonce, detection->nonce, ND_NONCE_LENGTH) == 0;
}

void dad_conflict(struct interface *interface, const struct ip_address *address,
                  const uint8_t mac[6]) {
    char text[IP_ADDRESS_TEXT], mac_text[MAC_ADDRESS_TEXT];

    log_warning("nd", "the address %s of interface %s is a duplicate: the host %s has it",
                ip_address_text(address, text), interface->name, mac_address_text(mac, mac_text));
    dad_stop(interface, address);
    interface_set_address_state(interface, address, ADDRESS_DUPLICATE);
}
