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
