/*
 * What `parse` does to a packet that came inside another one: for the stages that take it out of a
 * tunnel.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/stage.h"

enum parse_inner {
    PARSE_INNER_GONE,  /* dropped under a name of `parse`, or diverted */
    PARSE_INNER_OTHER, /* goes on */
    PARSE_INNER_PLAIN, /* goes on, and fits a burst of plain packets of its family */
};

/* Cuts off what a frame, in one buffer or several, has beyond `length` bytes. False: the first
 * buffer is shorter than what should be taken from it. */
bool parse_trim(struct rte_mbuf *mbuf, uint32_t length);

/* Packet i of the burst is new: an Ethernet header of 14 bytes, whose addresses are worth nothing,
 * and the IP packet behind it, maybe with something behind that in turn, which is cut off.
 * Validates it and sets its metadata, as if it had come in by the interface. Worker side. */
enum parse_inner parse_inner(struct worker *worker, struct burst *burst, unsigned i, bool ipv6,
                             uint16_t interface);
