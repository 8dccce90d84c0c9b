/*
 * Ctrl-C as something to wait for. A flag alone would be missed when the signal comes just before a
 * poll(); so the handler also writes to a pipe that every poll() watches.
 */
#include "interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t pending;
static volatile sig_atomic_t ends_program;
static int pipe_ends[2] = {-1, -1};

static void handle(int number) {
    int error = errno;

    pending = 1;
    if (number != SIGINT)
        ends_program = 1;
    if (write(pipe_ends[1], "", 1) < 0) {
        /* The pipe is full, so it is readable all the same. */
    }
    errno = error;
}

void interrupt_catch(void) {
    /* Restarting spares stdio a failed write; poll() returns all the same. */
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};

    if (pipe_ends[0] < 0 && pipe2(pipe_ends, O_NONBLOCK | O_CLOEXEC) < 0)
        pipe_ends[0] = pipe_ends[1] = -1; /* out of descriptors: the flag still works mostly */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

bool interrupt_pending(void) {
    return pending != 0;
}

int interrupt_fd(void) {
    return pipe_ends[0];
}

bool interrupt_ends_program(void) {
    return ends_program != 0;
}

void interrupt_clear(void) {
    char bytes[64];

    while (read(pipe_ends[0], bytes, sizeof(bytes)) > 0)
        ;
    pending = 0;
}
