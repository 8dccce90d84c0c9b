/* The command line. EAL's part stands before "--" and is completed with this program's defaults. */
#include "options.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SOCKET "/run/dpdk-router/control.sock"

static const char usage[] =
    "usage: dpdk-router [EAL options] -- -c FILE [-s SOCKET] [--check] [--log-level LEVEL]\n"
    "\n"
    "  -c, --config FILE      configuration, see router.json(5)\n"
    "  -s, --socket SOCKET    control socket (default " DEFAULT_SOCKET ")\n"
    "      --check            only check the configuration; exit 0, or 2 with every mistake\n"
    "      --log-level LEVEL  error, warning, notice, info (default) or debug\n"
    "  -h, --help             this text\n"
    "  -V, --version          the version\n"
    "\n"
    "EAL options choose lcores and memory, for example -l 0-3: lcore 0 is the control thread, 1-3\n"
    "are workers. Devices come from the configuration; none needs to be named here.\n";

static bool wrong(int *status, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool wrong(int *status, const char *format, ...) {
    va_list arguments;

    fputs("dpdk-router: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    *status = EXIT_USAGE;
    return false;
}

static bool said(int *status, const char *text) {
    fputs(text, stdout);
    *status = 0;
    return false;
}

/* Does any of EAL's arguments start with one of the NULL-terminated prefixes? */
static bool eal_has(int argc, char **argv, const char *const *prefixes) {
    for (int i = 1; i < argc; i++) {
        for (const char *const *prefix = prefixes; *prefix; prefix++) {
            if (strncmp(argv[i], *prefix, strlen(*prefix)) == 0)
                return true;
        }
    }
    return false;
}

/* EAL's arguments with our defaults in front, so that the user's, which come later, win. */
static bool complete_eal(int argc, char **argv, struct options *options) {
    static const char *const chooses_memory[] = {"--in-memory", "--file-prefix", "--huge-dir",
                                                 "--huge-unlink", "--proc-type",  NULL};
    static const char *const no_hugepages[] = {"--no-huge", NULL};
    static const char *const chooses_devices[] = {"-a", "--allow", "-b", "--block", "--no-pci", NULL};
    enum { DEFAULTS_MAX = 8 };
    char **eal = calloc((size_t)argc + DEFAULTS_MAX, sizeof(*eal));
    int count = 0;

    if (!eal)
        return false;
    eal[count++] = argv[0];
    eal[count++] = (char *)(uintptr_t)"--no-telemetry";
    eal[count++] = (char *)(uintptr_t)"--log-level=warning";
    /* Leave no files behind and let several routers run on one machine. */
    if (eal_has(argc, argv, no_hugepages))
        eal[count++] = (char *)(uintptr_t)"--no-shconf"; /* refuses to go with --in-memory */
    else if (!eal_has(argc, argv, chooses_memory))
        eal[count++] = (char *)(uintptr_t)"--in-memory";
    /* An allow list that names nothing real: no device is probed before router.json names it. */
    if (!eal_has(argc, argv, chooses_devices)) {
        eal[count++] = (char *)(uintptr_t)"-a";
        eal[count++] = (char *)(uintptr_t)"0000:00:00.0";
    }
    for (int i = 1; i < argc; i++)
        eal[count++] = argv[i];
    options->eal_argc = count;
    options->eal_argv = eal;
    return true;
}

/* The arguments behind "--", with the program's name in their place 0. */
static bool parse_own(int argc, char **argv, struct options *options, int *status) {
    enum { CHECK = 256, LOG_LEVEL };
    static const struct option long_options[] = {
        {"config", required_argument, NULL, 'c'},  {"socket", required_argument, NULL, 's'},
        {"check", no_argument, NULL, CHECK},       {"log-level", required_argument, NULL, LOG_LEVEL},
        {"help", no_argument, NULL, 'h'},          {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    int option;

    opterr = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, ":c:s:hV", long_options, NULL)) != -1) {
        switch (option) {
        case 'c':
            options->config_file = optarg;
            break;
        case 's':
            options->socket_path = optarg;
            break;
        case CHECK:
            options->check = true;
            break;
        case LOG_LEVEL:
            if (log_level_parse(optarg, &options->log_level) < 0)
                return wrong(status,
                             "unknown log level \"%s\"; use error, warning, notice, info or debug",
                             optarg);
            break;
        case 'h':
            return said(status, usage);
        case 'V':
            return said(status, "dpdk-router " ROUTER_VERSION "\n");
        case ':':
            return wrong(status, "option %s needs a value", argv[optind - 1]);
        default:
            return wrong(status, "unknown option %s; try dpdk-router --help", argv[optind - 1]);
        }
    }
    if (optind < argc)
        return wrong(status, "unexpected argument \"%s\"; try dpdk-router --help", argv[optind]);
    if (!options->config_file)
        return wrong(status, "no configuration given; use -c FILE behind \"--\"");
    if (!*options->socket_path)
        return wrong(status, "the socket's path is empty");
    return true;
}

bool options_parse(int argc, char **argv, struct options *options, int *status) {
    int separator = 1;

    *options = (struct options){.socket_path = DEFAULT_SOCKET, .log_level = LOG_LEVEL_INFO};
    while (separator < argc && strcmp(argv[separator], "--") != 0)
        separator++;
    if (separator == argc) {
        /* Without "--" everything is EAL's, but these two are what people try first. */
        for (int i = 1; i < argc; i++) {
            if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
                return said(status, usage);
            if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0)
                return said(status, "dpdk-router " ROUTER_VERSION "\n");
        }
        return wrong(status, "no configuration given; EAL options come first, then \"--\", then "
                             "-c FILE; try dpdk-router --help");
    }
    if (!complete_eal(separator, argv, options))
        return wrong(status, "out of memory");
    argv[separator] = argv[0];
    return parse_own(argc - separator, argv + separator, options, status);
}
