/*
 * IPsec (RFC 4301) with ESP (RFC 4303): security associations and policies as the control thread
 * holds them. What packets meet:
 *
 *   ipsec_in    finds the association of an ESP packet by SPI and destination, decrypts it, and
 * lets on what a policy protects with that association; clear packets that a policy would protect
 * end here ipsec_out   finds the policy of a packet that leaves, behind firewall and NAT, and
 * encrypts it
 *
 * The parts: esp_crypto (algorithms), esp_replay (the window), esp_reassembly (ESP in fragments),
 * esp_path and esp_path_mtu (how long ESP packets may be on their way), sad (associations), spd
 * (policies), ipsec_in_stage and ipsec_out_stage.
 *
 * Associations and policies belong to who made them: the configuration, a client of the control
 * socket, or an IKE daemon. Nobody touches the others' but to list them. All on the control thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/ip.h"
#include "ipsec/esp_crypto.h"

enum ipsec_owner { IPSEC_OF_CONFIG, IPSEC_OF_CLIENT, IPSEC_OF_IKE };
enum ipsec_direction { IPSEC_IN, IPSEC_OUT, IPSEC_DIRECTIONS };
enum ipsec_mode { IPSEC_TUNNEL, IPSEC_TRANSPORT };
enum ipsec_action { IPSEC_PROTECT, IPSEC_BYPASS, IPSEC_DISCARD };
/* The outer header's DF bit: as the inner one's, never or always (RFC 4301 section 8.1). */
enum ipsec_df { IPSEC_DF_COPY, IPSEC_DF_CLEAR, IPSEC_DF_SET };

enum {
    IPSEC_SAS_MAX = 1 << 17,
    IPSEC_POLICIES_MAX = 1 << 15,
    IPSEC_NAME_TEXT = 32,
    IPSEC_SPI_FIRST = 256, /* those below are reserved (RFC 4303 section 2.1) */
};

/* 0 = no limit. */
struct ipsec_sa_limits {
    uint64_t bytes, packets;
    uint64_t seconds;     /* since it was added */
    uint64_t use_seconds; /* since its first packet */
};

/* What an association has been used for. */
struct ipsec_sa_use {
    uint64_t bytes, packets;
    uint64_t added, first_used; /* event_now(); first_used 0 = not yet */
};

struct ipsec_sa_settings {
    uint32_t spi; /* host order */
    enum ipsec_direction direction;
    enum ipsec_mode mode;
    enum ipsec_df df;
    struct ip_address source, destination; /* of the outer header; one family */
    uint16_t vrf; /* the id of the VRF that the outer header is routed in */
    /* UDP encapsulation (RFC 3948), host order; 0 = plain ESP. */
    uint16_t source_port, destination_port;
    uint32_t request; /* ties associations to policies (Linux: reqid); 0 = by SPI */
    /* Of the tunnel interface that what was inside comes in by, or that it is for; 0 = none. */
    uint32_t if_id;
    const struct esp_cipher *cipher;
    const struct esp_auth *auth; /* NULL with a combined cipher */
    uint8_t icv;                 /* bytes; 0 = the algorithm's usual */
    bool esn;
    uint32_t replay_window; /* packets, at most ESP_REPLAY_MAX; 0 = replays are not looked for */
    uint64_t sequence;      /* the number of the packet before the first */
    /* At a soft limit it is time for a successor, at a hard one the association goes. */
    struct ipsec_sa_limits soft, hard;
    struct ipsec_sa_use before;                           /* of one that goes on; `added` 0 = now */
    uint8_t key[ESP_KEY_MAX], auth_key[ESP_AUTH_KEY_MAX]; /* zeroed by ipsec_sa_add() */
};

/* What came by since the association was added. */
struct ipsec_sa_counters {
    uint64_t packets,
        bytes; /* bytes from the inner IP header on; in transport mode the payload's */
    uint64_t replayed, too_old; /* refused by the window, before and after verification */
    uint64_t failed;            /* the check value was wrong */
    uint64_t malformed;         /* bad padding, lengths or next header behind a right check value */
    uint64_t refused;           /* no policy lets the decrypted packet in */
    uint64_t last_used;         /* event_now() of the last packet, within a second; 0 = never */
};

struct ipsec_sa; /* opaque here */

/* Adds an association and takes over the keys: those in `settings` are zeroed, whatever the result.
 * -EEXIST: the SPI is taken in that direction, with that destination; -EINVAL: algorithms or
 * addresses do not go together; -ENOSPC; -ENOMEM. */
int ipsec_sa_add(struct ipsec_sa_settings *settings, enum ipsec_owner owner);
/* The association; NULL if there is none. Good until the control thread's turn ends. */
const struct ipsec_sa *ipsec_sa_find(uint32_t spi, enum ipsec_direction direction,
                                     const struct ip_address *destination);
/* -ENOENT, or -EPERM when it is somebody else's. Packets on their way still use it. */
int ipsec_sa_delete(uint32_t spi, enum ipsec_direction direction,
                    const struct ip_address *destination, enum ipsec_owner owner);
/* The one added last comes first; start with NULL. */
const struct ipsec_sa *ipsec_sa_next(const struct ipsec_sa *previous);
/* Counts associations, in the order in which they were added; never 0. */
uint64_t ipsec_sa_serial(const struct ipsec_sa *sa);
/* Without keys. */
const struct ipsec_sa_settings *ipsec_sa_settings(const struct ipsec_sa *sa);
enum ipsec_owner ipsec_sa_owner(const struct ipsec_sa *sa);
/* event_now() when it was added. */
uint64_t ipsec_sa_created(const struct ipsec_sa *sa);
/* The highest number sent, or accepted. */
uint64_t ipsec_sa_sequence(const struct ipsec_sa *sa);
/* Outbound: bytes that the path has room for, from the outer IP header on, as routers on it have
 * said; 0 = nobody has, or that was long ago. */
unsigned ipsec_sa_path_mtu(const struct ipsec_sa *sa);
void ipsec_sa_counters(const struct ipsec_sa *sa, struct ipsec_sa_counters *out);
/* With what came before it was added. */
void ipsec_sa_use(const struct ipsec_sa *sa, struct ipsec_sa_use *out);
/* An authentic packet of an inbound one of IPSEC_OF_IKE, in UDP, has come from another address or
 * port than the association says: since the last call, and this is one of them. Port in host
 * order. */
bool ipsec_sa_new_source(const struct ipsec_sa *sa, struct ip_address *source, uint16_t *port);
/* Called when one of IPSEC_OF_IKE has reached a limit. At a hard one it goes afterwards, unless
 * it has been deleted meanwhile. */
extern void (*ipsec_ike_limit_reached)(const struct ipsec_sa *sa, bool hard);

/* Packets that a policy is about (RFC 4301 section 4.4.1.1). */
struct ipsec_selector {
    struct ip_prefix source, destination;         /* one family; length 0 = any of that family */
    uint8_t protocol;                             /* 0 = any */
    uint16_t source_port[2], destination_port[2]; /* first and last, host order; {0, 65535} = any.
                                                     ICMP: type and code in destination_port */
};

struct ipsec_policy_settings {
    char name[IPSEC_NAME_TEXT]; /* for people; may be "" */
    enum ipsec_direction direction;
    enum ipsec_action action;
    struct ipsec_selector selector;
    uint16_t vrf;
    /* Only about packets that come out of, or are routed into, the tunnel interface of this number,
     * whatever its VRF; with 0 about all others of the VRF. */
    uint32_t if_id;
    /* The lowest decides first; among equals those of the configuration, then those of clients,
     * then the one added first. */
    uint32_t priority;
    /* With what it protects: the association of this SPI, or of this request. Of several the one
     * that was added last sends; any of them may receive. With both, those of the request, and of
     * them the one of the SPI sends as soon as it is there. */
    uint32_t spi, request;
};

struct ipsec_policy_counters {
    uint64_t packets;
    uint64_t without_sa; /* wanted protection, and there was no association */
};

struct ipsec_policy; /* opaque here */

/* -EEXIST: there is one with this direction, selector, VRF and priority; -ENOSPC; -ENOMEM. It takes
 * effect at the next ipsec_publish(). */
int ipsec_policy_add(const struct ipsec_policy_settings *settings, enum ipsec_owner owner,
                     struct ipsec_policy **out);
void ipsec_policy_delete(struct ipsec_policy *policy);
/* Of the associations of its request, the one of this SPI is to send; 0 = the one added last. Takes
 * effect at once. */
void ipsec_policy_prefer(struct ipsec_policy *policy, uint32_t spi);
/* In the order they decide in; start with NULL. Valid until one is added or deleted. */
struct ipsec_policy *ipsec_policy_next(const struct ipsec_policy *previous);
/* The one with `before` others before it; NULL: there are not so many. */
struct ipsec_policy *ipsec_policy_at(uint32_t before);
const struct ipsec_policy_settings *ipsec_policy_settings(const struct ipsec_policy *policy);
enum ipsec_owner ipsec_policy_owner(const struct ipsec_policy *policy);
void ipsec_policy_counters(const struct ipsec_policy *policy, struct ipsec_policy_counters *out);

/* A packet by what selectors look at; ports in host order. ICMP, as Linux has it: the type in the
 * place of the source port, the code in that of the destination port. */
struct ipsec_flow {
    struct ip_address source, destination;
    uint8_t protocol;
    uint16_t source_port, destination_port;
};
/* The last packet that wanted the policy's protection while there was no association. False: there
 * has been none since the last call. Control thread. */
bool ipsec_policy_unmet(struct ipsec_policy *policy, struct ipsec_flow *out);

/* Gives the workers the policies as they are now. 0, or -ENOMEM: then they have those of before. */
int ipsec_publish(void);

/* Makes what workers need, once somebody wants IPsec. 0, -ENOMEM, or -ENOTSUP: the CPU has no AES
 * instructions. Nothing above may be called before. */
int ipsec_need(void);
/* Are the stages part of the pipelines? So when the configuration has a section "ipsec". */
bool ipsec_wanted(void);
