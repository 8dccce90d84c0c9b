/*
 * Inside lib/ipsec: paths, that is, pairs of outer addresses in a VRF with associations between
 * them. Fragments that come in on a path are kept for reassembly (esp_reassembly.h); a path that
 * packets leave by has an MTU, learned from ICMP errors (RFC 1191, RFC 8201).
 *
 * An association without a path of its own would forget the MTU whenever it is rekeyed, and each
 * would have to learn it anew: so the path remembers, and its associations have copies, where
 * `ipsec_out` reads them without another cache line.
 */
#pragma once

#include "ipsec/ipsec_internal.h"

enum {
    ESP_PATH_MTU_UNKNOWN = UINT16_MAX,
    /* Anybody on the way may send such an error: what it says is believed down to here. RFC 8201
     * section 4 has the one of IPv6, RFC 1122 section 3.3.3 the one of IPv4. */
    ESP_PATH_MTU_LEAST4 = 576,
    ESP_PATH_MTU_LEAST6 = 1280,
    /* RFC 1191 section 6.3, RFC 8201 section 4. */
    ESP_PATH_MTU_SECONDS = 600,
};

/* Without padding, since it is compared and hashed as a whole. Addresses of IPv4: four bytes, then
 * zeroes. */
struct esp_path_key {
    uint8_t source[16], destination[16];
    uint16_t vrf;
    uint8_t direction; /* enum ipsec_direction */
    uint8_t ipv6;
};
_Static_assert(sizeof(struct esp_path_key) == 36, "no padding");

struct esp_path {
    struct esp_path_key key;
    uint32_t serial;                /* of no other path since the start; below 2^31, never 0 */
    _Atomic uint32_t plain, in_udp; /* associations */
    struct esp_path *_Atomic next;  /* in the same bucket */
    _Atomic uint16_t mtu;           /* ESP_PATH_MTU_UNKNOWN: nothing was learned */
    _Atomic bool reported;          /* is in the list of what the control thread has to look at */
    struct esp_path *reported_next;

    /* The control thread's. */
    struct ipsec_sa *first; /* of its associations */
    uint64_t expires;       /* event_now() when the MTU is forgotten */
    struct esp_path *learned_next, *learned_before;
} __rte_cache_aligned;

/* --- any thread --- */

/* NULL: no association has these ends. For a worker, good until the end of its turn. */
struct esp_path *esp_path_find(const struct esp_path_key *key);

/* The association's path has room for no more than `mtu` bytes. Only lowers what is known. Worker
 * side. */
void esp_path_lower(struct ipsec_sa *sa, uint16_t mtu);

/* --- control thread --- */

/* In two steps, since only the first can fail: sa_create() makes room for a path, sa_insert()
 * joins the one there is. */
struct esp_path *esp_path_alloc(void);          /* NULL: memory */
void esp_path_give_back(struct esp_path *path); /* one that was not used; NULL is allowed */
void esp_path_join(struct ipsec_sa *sa);
void esp_path_leave(struct ipsec_sa *sa);

/* About once a second: tells associations what was learned, and forgets what is old. */
void esp_path_tick(void);
/* At the end: forgets everything that was learned. No association is left. */
void esp_path_forget_all(void);

/* --- ICMP --- */

/* Looks at an ICMP or ICMPv6 packet, which stays as it is: if it says that an ESP packet of this
 * router was too big, the path's MTU is lowered. Worker side. */
void esp_path_mtu_learn(struct rte_mbuf *mbuf);
