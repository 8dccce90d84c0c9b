/*
 * The audit log (RFC 4301 section 5.2 and RFC 4303 section 4): a line for each event that an
 * administrator may want to know of, with what names the packet and never what is in it. A kind of
 * event is a reason for which packets are dropped, and is called like it. Each kind has a limit of
 * its own, so that a flood of one does not hide another. Worker side.
 */
#pragma once

#include "ipsec/esp_packet.h"

/* Are events logged? Set by the configuration. */
extern _Atomic bool ipsec_audits;

/* An ESP packet ends here, for a reason of the group; its outer header is still in front. `at`:
 * where its ESP header is, from the start of the frame. Reasons that are no such event are not
 * logged. */
void ipsec_audit_esp(const struct worker *worker, const struct drop_group *drops, unsigned reason,
                     struct rte_mbuf *mbuf, unsigned at);

/* The same for a packet that is not in ESP, or not any more: `sa` NULL, or the association that it
 * came out of or should have gone into; `sequence` 0: it has no number. */
void ipsec_audit_clear(const struct worker *worker, const struct drop_group *drops, unsigned reason,
                       struct rte_mbuf *mbuf, const struct ipsec_sa *sa, uint64_t sequence);
