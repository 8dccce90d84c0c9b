/*
 * Ctrl-C (and SIGTERM, SIGHUP) as something to wait for, for what must tidy up before it ends: the
 * shell, live views. Commands that need no tidying keep the default and simply die.
 */
#pragma once

#include <stdbool.h>

/* From now on the signals do not end the program, they only become pending. Idempotent. */
void interrupt_catch(void);

/* Has a signal come since the last interrupt_clear()? */
bool interrupt_pending(void);

/* A descriptor that is readable while an interrupt is pending, to poll() together with others; -1,
 * which poll() skips, before interrupt_catch(). */
int interrupt_fd(void);

/* Was it one that asks the whole program to end, not just the command (SIGTERM, SIGHUP)? */
bool interrupt_ends_program(void);

void interrupt_clear(void);
