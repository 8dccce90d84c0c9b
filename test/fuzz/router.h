/*
 * What the targets share that turn the whole router: frames go in, what leaves has to be a frame
 * that a router may send, and after some inputs every packet buffer has to be back in its pool.
 *
 * What the router has learnt stays for the next inputs; after every FUZZ_CHECK_EACH of them (an
 * environment variable; 64 without it) it is made to forget, and the buffers are counted. An input
 * alone is best repeated with FUZZ_CHECK_EACH=1.
 */
#pragma once

#include "harness.h"

enum { FUZZ_MTU_MAX = 1500 };

/* The longest packet that may leave by each port. Set before the first input, if it is not
 * FUZZ_MTU_MAX. */
extern unsigned fuzz_mtu[PLACES];
/* When not NULL: looks at each frame that has left and passed the usual checks. */
extern void (*fuzz_has_left)(enum place place, const struct frame *frame);
/* When not NULL: run before the buffers are counted, for what a target itself keeps. */
extern void (*fuzz_forgets)(void);

/* The router with this configuration, once. */
void fuzz_start(const char *program, const char *configuration);
/* Prints the frame and ends the program, unless the condition holds. */
void fuzz_check(bool condition, const char *what, const struct frame *frame);
/* Lengths and checksum as they should be, and mostly the router's MAC address; whatever else it is
 * stays. */
void fuzz_repair(enum place place, struct frame *frame);
/* Time passes: 0 to 3 = none, 0.1 s, 1.2 s, 31 s. */
void fuzz_pass(unsigned pause);
/* Turns the router, and looks at what it sends. `back`: it comes back by the same port. */
void fuzz_take_all(bool back);
/* The end of an input. */
void fuzz_end_input(void);
