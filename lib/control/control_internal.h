/*
 * Shared between the control side's own RPC methods.
 */
#pragma once

#include <stdbool.h>

#include "control/control.h"
#include "json/decode.h"
#include "json/rpc.h"

/* What main() told control_start(); a structure of empty facts before. Never NULL. */
const struct control_facts *control_facts(void);

/* The request's params as an object (an empty one when absent) whose keys are all in the
 * NULL-terminated list. False with problems otherwise. */
bool control_params(struct rpc_request *request, const char *const *known, struct decode *out);
