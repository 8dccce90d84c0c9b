/*
 * The command line: dpdk-router [EAL options] -- -c FILE [-s SOCKET] [--check] [--log-level LEVEL].
 */
#pragma once

#include <stdbool.h>

#include "core/log.h"

struct options {
    const char *config_file;
    const char *socket_path;
    bool check;
    enum log_level log_level;
    int eal_argc;     /* the program's name and what stands before "--" */
    char **eal_argv;  /* completed with the defaults of this program; never freed */
};

enum { EXIT_USAGE = 2 };

/* Reads the command line. Returns true to go on; false to exit with *status at once (after --help or
 * --version, or with one sentence on stderr about what is wrong). */
bool options_parse(int argc, char **argv, struct options *options, int *status);
