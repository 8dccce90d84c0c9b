/*
 * Views that repeat: call a method every few seconds and draw its result, with the one before it to
 * make rates from. On a terminal the picture is redrawn in place until Ctrl-C or q, elsewhere each
 * picture is printed below the last one. With -j each result is one line of JSON.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "session.h"

/* `before` is NULL in the first picture on a terminal: rates are not known yet. */
typedef void (*live_draw_fn)(struct session *session, const struct match *match, FILE *out,
                             const json_t *now, const json_t *before, double seconds);

/* Gets what is drawn (new reference); NULL with *failure. */
typedef json_t *(*live_fetch_fn)(struct session *session, const struct match *match,
                                 struct failure *failure);

/* Runs until stopped, or for `count` pictures with rates when it is not 0. Returns the exit status;
 * being stopped by the user is success. */
int live_run(struct session *session, const struct match *match, int interval, unsigned count,
             live_fetch_fn fetch, live_draw_fn draw);

/* The rate of a counter; NaN (shown as "-") when `before` lacks it. A counter that went back was
 * cleared in between and counts from zero. */
double live_rate(const json_t *now, const json_t *before, const char *key, double seconds);

/* Waits, but not through Ctrl-C or the key q on a terminal: returns false when the user wants to
 * stop. Call between live_keys(true) and live_keys(false). */
bool live_wait(double seconds);

/* Makes the terminal on stdin deliver single keys without echo, and undoes it. */
void live_keys(bool on);

/* Seconds of a clock that never jumps. */
double live_clock(void);
