/*
 * Many commands in one run: the interactive shell and scripts.
 */
#pragma once

#include "session.h"

#include <stdio.h>

/* Reads commands from the terminal until the user leaves. Always returns STATUS_OK. */
int shell_interactive(struct session *session);

/* Runs the commands of a stream, one per line; `name` is for error messages. Stops at the first one
 * that fails and returns its status; with `keep_going` runs all and returns the first failure. */
int shell_script(struct session *session, FILE *in, const char *name, bool keep_going);
