/* The section "sessions" of router.json: size of the table, timeouts, limits. */
#include <stdio.h>
#include <stdlib.h>

#include "core/section.h"
#include "session/session_event.h"
#include "session/session_internal.h"
#include "json/decode.h"

enum { TIMEOUT_MAX = 7 * 86400 };

/* Defaults: RFC 5382 REQ-5 (established 2 hours 4 minutes, transitory 4 minutes), RFC 4787 REQ-5
 * (UDP not below 2 minutes, 5 recommended), RFC 5508 REQ-2 (ICMP 60 seconds). */
static const struct session_settings defaults = {
    .size = SESSIONS_DEFAULT,
    .keep = true,
    .timeouts =
        {
            [SESSION_TCP_OPENING] = 240,
            [SESSION_TCP_ANSWERED] = 240,
            [SESSION_TCP_ESTABLISHED] = 7440,
            [SESSION_TCP_CLOSING] = 240,
            [SESSION_TCP_CLOSED] = 10,
            [SESSION_UDP_NEW] = 120,
            [SESSION_UDP] = 300,
            [SESSION_ICMP] = 60,
            [SESSION_OTHER] = 600,
        },
};

static void decode_timeouts(const struct decode *d, struct session_settings *settings) {
    const char *known[SESSION_STATES + 1] = {NULL};
    unsigned count = 0;

    if (!decode_is_object(d))
        return;
    for (unsigned state = SESSION_TCP_OPENING; state < SESSION_STATES; state++) {
        known[count++] = session_state_names[state];
        decode_member_u32(d, session_state_names[state], 1, TIMEOUT_MAX,
                          &settings->timeouts[state]);
    }
    decode_only_keys(d, known);
}

static void decode_limits(const struct decode *d, struct session_settings *settings) {
    static const char *const keys[] = {"per_source", "new_per_second_per_source", NULL};

    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    decode_member_u32(d, "per_source", 0, SESSIONS_MAX, &settings->per_source);
    decode_member_u32(d, "new_per_second_per_source", 0, SESSIONS_MAX, &settings->rate_per_source);
}

static void decode_file(const struct decode *d, char file[SESSION_PATH_TEXT]) {
    const char *path;

    if (!decode_string(d, &path))
        return;
    if (path[0] != '/' || strlen(path) >= SESSION_PATH_TEXT)
        decode_problem(d, "expected an absolute path of less than %d characters",
                       SESSION_PATH_TEXT);
    else
        snprintf(file, SESSION_PATH_TEXT, "%s", path);
}

static void decode_events(const struct decode *d, char events[SESSION_PATH_TEXT]) {
    const char *to;

    if (!decode_string(d, &to))
        return;
    if ((to[0] != '/' && strncmp(to, "unix:/", 6) != 0) || strlen(to) >= SESSION_PATH_TEXT)
        decode_problem(d,
                       "expected the absolute path of a file, or \"unix:\" and that of a socket");
    else
        snprintf(events, SESSION_PATH_TEXT, "%s", to);
}

static void *sessions_decode(struct decode *d) {
    static const char *const keys[] = {"size", "timeouts", "tcp_pickup", "limits",
                                       "keep", "file",     "events",     NULL};
    struct session_settings *settings = malloc(sizeof(*settings));
    struct decode member;

    if (!settings)
        abort(); /* a few bytes on the control side: there is no sensible way to go on */
    *settings = defaults;
    if (!d || !decode_is_object(d))
        return settings;
    decode_only_keys(d, keys);
    decode_member_u32(d, "size", SESSIONS_MIN, SESSIONS_MAX, &settings->size);
    decode_member_bool(d, "tcp_pickup", &settings->tcp_pickup);
    decode_member_bool(d, "keep", &settings->keep);
    if (decode_member(d, "file", &member))
        decode_file(&member, settings->file);
    if (decode_member(d, "events", &member))
        decode_events(&member, settings->events);
    if (decode_member(d, "timeouts", &member))
        decode_timeouts(&member, settings);
    if (decode_member(d, "limits", &member))
        decode_limits(&member, settings);
    return settings;
}

static int sessions_prepare(const struct config *old, const struct config *new,
                            struct problems *problems);
static void sessions_commit(const struct config *old, const struct config *new);

/* The table goes when nobody wants it any more: firewall and NAT say so in their commits, and no
 * worker has the stages now. */
static void sessions_release(const struct config *old, const struct config *new) {
    (void)old;
    (void)new;
    if (!session_wanted())
        session_free();
    else
        session_tell_size();
}

/* NULL when nothing is configured. */
static const struct session_settings *in_force;

static int sessions_init(void) {
    session_events_init();
    return 0;
}

static struct config_section sessions_section = {
    .name = "sessions",
    .decode = sessions_decode,
    .prepare = sessions_prepare,
    .commit = sessions_commit,
    .init = sessions_init,
    .release = sessions_release,
    .free = free,
};
CONFIG_SECTION(sessions_section)

static int sessions_prepare(const struct config *old, const struct config *new,
                            struct problems *problems) {
    const struct session_settings *settings = config_value(new, &sessions_section);

    (void)old;
    (void)problems;
    if (settings)
        session_prepare_settings(settings);
    return 0;
}

static void sessions_commit(const struct config *old, const struct config *new) {
    const struct session_settings *settings = config_value(new, &sessions_section);

    (void)old;
    if (settings)
        session_set(settings);
    in_force = settings;
}

const char *session_file(const char *beside) {
    if (!in_force || !in_force->keep)
        return NULL;
    return in_force->file[0] ? in_force->file : beside;
}
