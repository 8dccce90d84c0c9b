/*
 * Inside lib/ipsec: ESP packets that come in fragments are put together before anything else is
 * done with them (RFC 4303 section 3.4.1).
 *
 * Each worker has a table of its own, because NICs spread fragments by their addresses alone, so
 * that all of a datagram come to the same worker. Only fragments on a path of an inbound
 * association (esp_path.h) are kept: those of ESP, and those of UDP until the first one says
 * whether the datagram is ESP in UDP. If it is not, its fragments go on as they are; but where a
 * later one came before the first, all of it is put together and goes on as one packet.
 */
#pragma once

#include "ipsec/esp_packet.h"

/* Reasons of `ipsec_in`, behind those of esp_open(). */
enum esp_reassembly_reason {
    ESP_FRAGMENT_MALFORMED = ESP_OPEN_REASONS, /* empty, cut in the midst of 8 octets, or ends that
                                                  contradict each other */
    ESP_FRAGMENT_DUPLICATE,                    /* came already: only this one is dropped */
    ESP_FRAGMENT_OVERLAP,
    ESP_FRAGMENT_TOO_LONG, /* more than an IP packet, or in too many pieces */
    ESP_FRAGMENT_TIMEOUT,
    ESP_FRAGMENT_TABLE_FULL,
    ESP_FRAGMENT_REFUSED, /* of a datagram that another fragment was refused of */
    ESP_REASSEMBLY_REASONS
};

enum {
    ESP_DATAGRAMS = 128,      /* that wait at a time */
    ESP_FRAGMENTS = 64,       /* of a datagram */
    ESP_FRAGMENTS_HELD = 512, /* buffers of a worker, at most */
    /* A path's latencies do not differ by more, and the 16 bits of IPv4's identification come round
     * within seconds on a fast one (RFC 4963). RFC 8200 section 4.5 has hosts wait for 60. */
    ESP_FRAGMENT_SECONDS = 2,
};

struct esp_reassembly *esp_reassembly_create(void);     /* NULL: memory */
void esp_reassembly_free(struct esp_reassembly *table); /* NULL is allowed */
/* Frees what waits, uncounted. The worker must not run the stage. */
void esp_reassembly_clear(struct esp_reassembly *table);
/* Buffers that a worker may hold, from now on: a small part of all there are. Control thread. */
void esp_reassembly_set_limit(void);

/* Takes the fragments that are to wait out of the burst. The one that makes a datagram whole has
 * the whole in its place, which is as if it had come in so. Worker side. */
void esp_reassemble(struct worker *worker, struct burst *burst, const struct drop_group *drops);

/* Once per turn: gives up what has waited for too long. Worker side. */
void esp_reassembly_turn(struct worker *worker, const struct drop_group *drops);
