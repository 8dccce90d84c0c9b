/* See ipsec_audit.h. */
#include "ipsec/ipsec_audit.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/worker_log.h"
#include "l3/header.h"

enum { KINDS = 32, SEQUENCE_TEXT = 32 };

/* Not: what the network or a busy machine does (busy, ecn_congestion), what the peer sends on
 * purpose (dummy_packet), and what a policy throws away. */
static const char *const audited[] = {
    "fragment",    "truncated",     "bad_length",  "wrong_source",       "replayed",
    "too_old",     "sequence_zero", "integrity",   "bad_padding",        "wrong_next_header",
    "unknown_spi", "no_policy",     "unprotected", "sequence_exhausted",
};
_Static_assert(RTE_DIM(audited) <= KINDS, "each has a limit of its own");

_Atomic bool ipsec_audits;
static struct worker_log logs[KINDS];

/* NULL: no such event, or not now. */
static struct worker_log *log_of(const struct worker *worker, const char *event) {
    if (!atomic_load_explicit(&ipsec_audits, memory_order_relaxed))
        return NULL;
    for (unsigned i = 0; i < RTE_DIM(audited); i++) {
        if (strcmp(audited[i], event) == 0)
            return worker_may_log(&logs[i], worker) ? &logs[i] : NULL;
    }
    return NULL;
}

static void read_addresses(struct rte_mbuf *mbuf, char source[IP_ADDRESS_TEXT],
                           char destination[IP_ADDRESS_TEXT]) {
    const uint8_t *packet = packet_l3(mbuf, const uint8_t *);
    struct ip_address from, to;

    if (packet_meta(mbuf)->flags & PACKET_IPV6) {
        from = ip6_address(packet + 8);
        to = ip6_address(packet + 24);
    } else {
        from = ip4_address(packet + 12);
        to = ip4_address(packet + 16);
    }
    ip_address_text(&from, source);
    ip_address_text(&to, destination);
}

void ipsec_audit_esp(const struct worker *worker, const struct drop_group *drops, unsigned reason,
                     struct rte_mbuf *mbuf, unsigned at) {
    struct worker_log *log = log_of(worker, drops->reasons[reason]);
    const uint8_t *esp = rte_pktmbuf_mtod_offset(mbuf, const uint8_t *, at);
    char source[IP_ADDRESS_TEXT], destination[IP_ADDRESS_TEXT], numbers[SEQUENCE_TEXT + 32] = "";

    if (!log)
        return;
    /* Of a number with 64 bits the packet carries half. */
    if (!(packet_meta(mbuf)->flags & PACKET_LATER_FRAGMENT) && at + ESP_HEADER <= mbuf->data_len)
        snprintf(numbers, sizeof(numbers), " spi=0x%08x seq=%u", rte_be_to_cpu_32(load32(esp)),
                 rte_be_to_cpu_32(load32(esp + 4)));
    read_addresses(mbuf, source, destination);
    log_limited(&log->limit, LOG_LEVEL_NOTICE, "ipsec", "event=%s%s src=%s dst=%s",
                drops->reasons[reason], numbers, source, destination);
}

static void describe_sa(const struct ipsec_sa *sa, uint64_t sequence, char *out, size_t size) {
    char source[IP_ADDRESS_TEXT], destination[IP_ADDRESS_TEXT], number[SEQUENCE_TEXT] = "";

    if (sequence != 0)
        snprintf(number, sizeof(number), " seq=%" PRIu64, sequence);
    snprintf(out, size, " spi=0x%08x%s sa_src=%s sa_dst=%s", sa->settings.spi, number,
             ip_address_text(&sa->settings.source, source),
             ip_address_text(&sa->settings.destination, destination));
}

void ipsec_audit_clear(const struct worker *worker, const struct drop_group *drops, unsigned reason,
                       struct rte_mbuf *mbuf, const struct ipsec_sa *sa, uint64_t sequence) {
    enum { SA_TEXT = 2 * IP_ADDRESS_TEXT + SEQUENCE_TEXT + 64 };
    struct worker_log *log = log_of(worker, drops->reasons[reason]);
    char source[IP_ADDRESS_TEXT], destination[IP_ADDRESS_TEXT], of_sa[SA_TEXT] = "";
    char protocol[IP_PROTOCOL_TEXT];

    if (!log)
        return;
    if (sa)
        describe_sa(sa, sequence, of_sa, sizeof(of_sa));
    read_addresses(mbuf, source, destination);
    log_limited(&log->limit, LOG_LEVEL_NOTICE, "ipsec", "event=%s%s src=%s dst=%s proto=%s",
                drops->reasons[reason], of_sa, source, destination,
                ip_protocol_text(packet_meta(mbuf)->l4_protocol, protocol));
}
