/* The stage `output`, for stages before it that make several packets of one. */
#pragma once

#include <stdbool.h>

#include "core/worker.h"

/* Does with a packet what the stage would do, and puts it into the transmit buffer, in front of all
 * that the running burst sends. So numbers that receivers expect in order (ESP) leave in order,
 * which they would not by way of the router ring. Takes the packet. False: its next hop is not just
 * to be sent to, or the packet does not fit; then nothing was done. Worker side. */
bool output_now(struct worker *worker, struct rte_mbuf *mbuf);
