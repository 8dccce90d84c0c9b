/*
 * States of sessions. TCP is followed by its flags alone, whatever the sequence numbers are, but
 * strictly: what RFC 9293 gives no reason to send in a state does not pass. RFC 5382 sections 4 and
 * 5, RFC 7857 section 2.
 */
#include "session/session_internal.h"

/* What is still under way that long after an RST which has overtaken it, comes no more. */
enum { OVERTAKEN_TICKS = SESSION_TICKS };

enum {
    FIN_BOTH = SESSION_FIN_FORWARD | SESSION_FIN_BACKWARD,
    RST_BOTH = SESSION_RST_FORWARD | SESSION_RST_BACKWARD,
};

const char *const session_state_names[SESSION_STATES] = {
    [SESSION_FREE] = "free",
    [SESSION_ENDING] = "ending",
    [SESSION_TCP_OPENING] = "tcp_opening",
    [SESSION_TCP_ANSWERED] = "tcp_answered",
    [SESSION_TCP_ESTABLISHED] = "tcp_established",
    [SESSION_TCP_CLOSING] = "tcp_closing",
    [SESSION_TCP_CLOSED] = "tcp_closed",
    [SESSION_UDP_NEW] = "udp_new",
    [SESSION_UDP] = "udp",
    [SESSION_ICMP] = "icmp",
    [SESSION_OTHER] = "other",
};

enum session_state session_first_state(uint8_t protocol, bool answered) {
    switch (protocol) {
    case IPPROTO_TCP:
        return answered ? SESSION_TCP_ESTABLISHED : SESSION_TCP_OPENING;
    case IPPROTO_UDP:
    case IPPROTO_UDPLITE:
        return SESSION_UDP_NEW;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        return SESSION_ICMP;
    default:
        return SESSION_OTHER;
    }
}

/* Not: SYN with FIN or RST, RST with FIN, FIN without ACK, none of SYN, RST and ACK. PSH and URG
 * may go with anything. */
static bool tcp_flags_possible(uint8_t flags) {
    switch (flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) {
    case TCP_SYN:
    case TCP_SYN | TCP_ACK:
    case TCP_ACK:
    case TCP_FIN | TCP_ACK:
    case TCP_RST:
    case TCP_RST | TCP_ACK:
        return true;
    default:
        return false;
    }
}

enum session_drop session_may_begin(uint8_t flags) {
    if (!tcp_flags_possible(flags))
        return SESSION_DROP_TCP_FLAGS;
    if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
        return SESSION_PASS;
    if (atomic_load_explicit(&session_limits.tcp_pickup, memory_order_relaxed) &&
        (flags & (TCP_SYN | TCP_RST | TCP_FIN)) == 0)
        return SESSION_PASS;
    return SESSION_DROP_TCP_NO_SESSION;
}

static void set_quick(uint32_t flow, bool quick) {
    uint8_t *flags = &session_flows[flow].flags;

    if (quick)
        __atomic_fetch_or(flags, FLOW_QUICK, __ATOMIC_RELAXED);
    else
        __atomic_fetch_and(flags, (uint8_t)~FLOW_QUICK, __ATOMIC_RELAXED);
}

static void set_flag(struct session *session, uint8_t flag) {
    __atomic_fetch_or(&session->flags, flag, __ATOMIC_RELAXED);
}

/* Not from SESSION_ENDING, in which somebody else is at it. */
static bool set_state(uint32_t flow, uint8_t from, enum session_state to) {
    struct session *session = &sessions[flow_session(flow)];

    if (!__atomic_compare_exchange_n(&session->state, &from, (uint8_t)to, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_RELAXED))
        return false;
    set_quick(flow, to == SESSION_TCP_ESTABLISHED || to == SESSION_UDP);
    set_quick(flow_other(flow), to == SESSION_TCP_ESTABLISHED || to == SESSION_UDP);
    return true;
}

static void clear_flags(struct session *session, unsigned flags) {
    __atomic_fetch_and(&session->flags, (uint8_t)~flags, __ATOMIC_RELAXED);
}

/* Another connection between the same ports: RFC 6191, and RFC 9293 section 3.6.1. */
static void reopen(uint32_t flow, uint8_t from) {
    clear_flags(&sessions[flow_session(flow)], FIN_BOTH | RST_BOTH);
    set_state(flow, from, SESSION_TCP_OPENING);
}

static bool is_finished(const struct session *session) {
    return (__atomic_load_n(&session->flags, __ATOMIC_RELAXED) & FIN_BOTH) == FIN_BOTH;
}

static void finish(uint32_t flow, uint8_t state) {
    struct session *session = &sessions[flow_session(flow)];

    set_flag(session, flow_is_backward(flow) ? SESSION_FIN_BACKWARD : SESSION_FIN_FORWARD);
    if (is_finished(session))
        set_state(flow, state, SESSION_TCP_CLOSING);
    else if (state != SESSION_TCP_ESTABLISHED)
        set_state(flow, state, SESSION_TCP_ESTABLISHED);
}

static void reset(uint32_t flow, uint8_t state) {
    if (state == SESSION_TCP_CLOSED)
        return;
    /* Stays so while the session is closed: see take_flow() in session_stage.c. */
    session_flows[flow].last = atomic_load_explicit(&session_clock, memory_order_relaxed);
    /* Before an answer there is nothing to go on with: only a SYN and an answer count then. */
    if (state != SESSION_TCP_OPENING)
        set_flag(&sessions[flow_session(flow)],
                 flow_is_backward(flow) ? SESSION_RST_BACKWARD : SESSION_RST_FORWARD);
    set_state(flow, state, SESSION_TCP_CLOSED);
}

/* Whoever goes on sending has not sent the RST: somebody has guessed the ports, but not the
 * sequence number, and the other end has taken no notice (RFC 5961 section 3, RFC 7857
 * section 2.2). In the first moment it may as well be older than the RST: that passes, but proves
 * nothing. What the other side sends never does: it may not have got the RST yet. */
static bool was_forged(uint32_t flow, uint8_t flags) {
    struct session *session = &sessions[flow_session(flow)];
    uint8_t mark = flow_is_backward(flow) ? SESSION_RST_BACKWARD : SESSION_RST_FORWARD;
    uint32_t now = atomic_load_explicit(&session_clock, memory_order_relaxed);

    if ((flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) != TCP_ACK ||
        !(__atomic_load_n(&session->flags, __ATOMIC_RELAXED) & mark) ||
        (int32_t)(now - session_flows[flow].last) < OVERTAKEN_TICKS)
        return false;
    clear_flags(session, RST_BOTH);
    return true;
}

/* An ACK, or the answer to a SYN, after an RST. Who answers has not refused: an RST during the
 * handshake was about an old SYN (RFC 9293 section 3.5, figure 8) or forged. As ever it takes an
 * ACK of the first side as well until the connection is established. */
static void go_on(uint32_t flow, uint8_t flags) {
    struct session *session = &sessions[flow_session(flow)];

    if (flags & TCP_SYN && flow_is_backward(flow)) {
        clear_flags(session, RST_BOTH);
        set_state(flow, SESSION_TCP_CLOSED, SESSION_TCP_ANSWERED);
    } else if (was_forged(flow, flags)) {
        set_state(flow, SESSION_TCP_CLOSED,
                  is_finished(session) ? SESSION_TCP_CLOSING : SESSION_TCP_ESTABLISHED);
    }
}

static enum session_drop follow_tcp(uint32_t flow, uint8_t state, uint8_t flags) {
    bool backward = flow_is_backward(flow);
    bool syn = flags & TCP_SYN, ack = flags & TCP_ACK;

    if (!tcp_flags_possible(flags))
        return SESSION_DROP_TCP_FLAGS;
    if (flags & TCP_RST) {
        reset(flow, state);
        return SESSION_PASS;
    }
    switch (state) {
    case SESSION_TCP_OPENING:
        if (backward && syn) /* the usual answer, or both sides at once (RFC 5382 REQ-2) */
            set_state(flow, state, SESSION_TCP_ANSWERED);
        else if (!backward && !syn)
            return SESSION_DROP_TCP_OUT_OF_STATE; /* the other side has not answered */
        else if (backward && flags & TCP_FIN)
            return SESSION_DROP_TCP_OUT_OF_STATE;
        return SESSION_PASS; /* an ACK from the other side: RFC 9293 section 3.5.1, half-open */
    case SESSION_TCP_ANSWERED:
        if (flags & TCP_FIN)
            finish(flow, state);
        else if (!syn && ack && !backward)
            set_state(flow, state, SESSION_TCP_ESTABLISHED);
        else if (syn && ack && !backward) /* both sides at once */
            set_state(flow, state, SESSION_TCP_ESTABLISHED);
        return SESSION_PASS;
    case SESSION_TCP_ESTABLISHED:
        if (flags & TCP_FIN)
            finish(flow, state);
        else if (!(session_flows[flow].flags & FLOW_QUICK) && !syn)
            set_quick(flow, true);
        return SESSION_PASS;
    default: /* closing or closed: the last segments under way still pass */
        if (syn && !ack) {
            if (backward)
                return SESSION_DROP_TCP_OUT_OF_STATE;
            reopen(flow, state);
        } else if (state == SESSION_TCP_CLOSED) {
            go_on(flow, flags);
        }
        return SESSION_PASS;
    }
}

enum session_drop session_follow(uint32_t flow, uint8_t tcp_flags) {
    struct session *session = &sessions[flow_session(flow)];
    uint8_t state = __atomic_load_n(&session->state, __ATOMIC_ACQUIRE);

    switch (state) {
    case SESSION_TCP_OPENING:
    case SESSION_TCP_ANSWERED:
    case SESSION_TCP_ESTABLISHED:
    case SESSION_TCP_CLOSING:
    case SESSION_TCP_CLOSED:
        return follow_tcp(flow, state, tcp_flags);
    case SESSION_UDP_NEW:
        if (flow_is_backward(flow))
            set_state(flow, state, SESSION_UDP);
        return SESSION_PASS;
    default:
        return SESSION_PASS;
    }
}
