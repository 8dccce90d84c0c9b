/*
 * routerctl: the command line of dpdk-router. Options are read here; one command is run, or many
 * from a script or the shell.
 */
#include "commands.h"
#include "session.h"
#include "shell.h"

#include <getopt.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef ROUTERCTL_VERSION
#define ROUTERCTL_VERSION "0.1.0"
#endif

#define DEFAULT_SOCKET "/run/dpdk-router/control.sock"

static const char usage[] =
    "usage: routerctl [-jk] [-s SOCKET] [VERB OBJECT ...]\n"
    "\n"
    "  -j, --json           print results as JSON\n"
    "  -k, --keep-going     in a script, go on after a command that failed\n"
    "  -s, --socket SOCKET  the router's control socket (" DEFAULT_SOCKET ")\n"
    "  -h, --help           print this and end\n"
    "  -V, --version        print the version and end\n"
    "\n"
    "Without a command: a shell on a terminal, otherwise commands from standard input.\n"
    "\"routerctl help\" lists the commands, routerctl(1) explains them.\n";

/* Names may be UTF-8 whatever the user's locale says; C.UTF-8 always exists on Debian. */
static void set_locale(void) {
    if (setlocale(LC_CTYPE, "") == NULL || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

static bool colours_wanted(void) {
    const char *none = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && (none == NULL || *none == '\0') && term != NULL &&
           strcmp(term, "dumb") != 0;
}

static int run(struct session *session, char *const *words, size_t count, bool keep_going) {
    if (count > 0)
        return session_run(session, words, count);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        return shell_interactive(session);
    return shell_script(session, stdin, "stdin", keep_going);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},         {"keep-going", no_argument, NULL, 'k'},
        {"socket", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
    struct session session = {.socket = DEFAULT_SOCKET};
    bool keep_going = false;
    int option;

    while ((option = getopt_long(argc, argv, "hjks:V", options, NULL)) != -1) {
        switch (option) {
        case 'h':
            fputs(usage, stdout);
            return STATUS_OK;
        case 'V':
            puts("routerctl " ROUTERCTL_VERSION);
            return STATUS_OK;
        case 'j':
            session.json = true;
            break;
        case 'k':
            keep_going = true;
            break;
        case 's':
            session.socket = optarg;
            break;
        default:
            fputs(usage, stderr);
            return STATUS_USAGE;
        }
    }
    set_locale();
    session.terminal = isatty(STDOUT_FILENO);
    session.colour = colours_wanted();
    session.client = client_new(session.socket);
    session.commands = command_set_new(commands, command_count);
    int status = run(&session, argv + optind, (size_t)(argc - optind), keep_going);
    client_free(session.client);
    command_set_free(session.commands);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "routerctl: cannot write the output: %m\n");
        if (status == STATUS_OK)
            status = STATUS_ROUTER;
    }
    return status;
}
