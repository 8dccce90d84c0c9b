/*
 * Events: the beginning and the end of each session, for those who must or want to know afterwards
 * who talked to whom (RFC 6888 section 4 asks it of carriers). Off unless configured.
 *
 * Workers write to a ring each and never wait: when the control thread does not keep up events are
 * lost, and counted. The control thread writes them as lines of JSON to a file, or to a UNIX stream
 * socket that somebody listens on.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/problem.h"
#include "session/session.h"

enum session_event_type { SESSION_EVENT_START, SESSION_EVENT_END };

/* Worker side: notes the event if anybody wants it. The session is still, or already, all there. */
void session_event(unsigned worker, uint32_t number, enum session_event_type type,
                   const char *reason);

/* Are events written? Cheap. */
extern _Atomic bool session_events_on;

struct session_event_stats {
    uint64_t written, lost;
};
void session_event_stats(struct session_event_stats *out);

/* Once, before the first configuration. */
void session_events_init(void);
/* Control side: a path, or "unix:" and a path; "" = off. Opened at once and again when that fails,
 * so that a listener may come later. 0 or -ENOMEM. */
int session_events_set(const char *to, unsigned workers);
void session_events_free(void);
