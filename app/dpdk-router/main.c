/*
 * The router appliance: puts the parts together, runs the control thread's loop, and takes everything
 * down again.
 */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_random.h>
#include <rte_version.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "control/control.h"
#include "core/event.h"
#include "core/log.h"
#include "core/mbuf_pool.h"
#include "core/packet.h"
#include "core/punt.h"
#include "core/rcu.h"
#include "core/section.h"
#include "core/worker.h"
#include "host/host.h"
#include "interface/interface.h"
#include "l3/l3.h"
#include "session/session.h"
#include "options.h"

static bool stop_wanted;
static struct event_fd signals = {.fd = -1};
static unsigned worker_lcores[WORKERS_MAX];
static bool shared_lcore; /* control thread and the only worker are one */

static void notify_systemd(const char *state) {
#ifdef HAVE_SYSTEMD
    sd_notify(0, state);
#else
    (void)state;
#endif
}

static void print_problems(const char *where, const struct problems *problems) {
    for (size_t i = 0; i < problems->count; i++) {
        const char *path = problems->list[i].path;

        /* One of the text, or of the file itself, begins with its name already. */
        if (strncmp(path, where, strlen(where)) == 0)
            fprintf(stderr, "%s: %s\n", path, problems->list[i].message);
        else
            fprintf(stderr, "%s: %s: %s\n", where, path, problems->list[i].message);
    }
    if (problems->omitted > 0)
        fprintf(stderr, "%s: %zu more problems are not shown\n", where, problems->omitted);
}

static int check_only(const char *config_file) {
    struct problems problems = {0};
    int status = control_check(config_file, &problems) == 0 ? 0 : EXIT_USAGE;

    print_problems(config_file, &problems);
    problems_free(&problems);
    return status;
}

/* --- signals --- */

static void signal_arrived(struct event_fd *self, uint32_t events) {
    struct signalfd_siginfo info;

    (void)events;
    while (read(self->fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGHUP) {
            notify_systemd("RELOADING=1");
            control_reload();
            notify_systemd("READY=1");
        } else {
            log_notice("main", "stopping on %s", strsignal((int)info.ssi_signo));
            stop_wanted = true;
        }
    }
}

/* Blocks the signals in every thread (EAL's too) and reads them from a descriptor. */
static int watch_signals(void) {
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    signals.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals.fd < 0)
        return -errno;
    signals.ready = signal_arrived;
    return event_fd_add(&signals, EPOLLIN);
}

/* --- start and stop --- */

static unsigned find_workers(void) {
    unsigned count = 0, lcore;

    RTE_LCORE_FOREACH_WORKER(lcore) {
        if (count < WORKERS_MAX)
            worker_lcores[count++] = lcore;
    }
    shared_lcore = count == 0;
    if (shared_lcore)
        worker_lcores[count++] = rte_lcore_id();
    return count;
}

/* Between the commit and the release of a configuration: new pipelines for all workers. */
static void plan_workers(void) {
    struct port *ports[PORTS_MAX];
    int error = workers_plan(ports, interface_ports(ports));

    if (error) {
        /* Ports are about to be closed that workers still poll: start afresh rather than go on. */
        log_error("main", "the workers could not be given their new pipelines: %s; giving up",
                  strerror(-error));
        _exit(EXIT_FAILURE);
    }
}

static int start_parts(unsigned workers, struct problems *problems) {
    int error = packet_meta_init();

    if (error == 0)
        error = rcu_init(workers);
    if (error == 0)
        error = workers_create(worker_lcores, workers);
    if (error == 0)
        error = punt_init();
    if (error == 0)
        error = config_init(problems);
    if (error == 0 && shared_lcore)
        rcu_set_shared_thread(0);
    config_after_commit = plan_workers;
    return error;
}

static void run(void) {
    /* On a shared lcore the control side is looked at now and then, and more often while it has work. */
    enum { TURNS_WHEN_IDLE = 64, TURNS_WHEN_BUSY = 4 };
    unsigned turns = TURNS_WHEN_IDLE;

    while (!stop_wanted) {
        if (!shared_lcore) {
            event_turn(-1);
            continue;
        }
        for (unsigned turn = 0; turn < turns; turn++) {
            worker_turn(worker_get(0));
            rcu_shared_quiescent();
        }
        turns = event_turn(0) > 0 ? TURNS_WHEN_BUSY : TURNS_WHEN_IDLE;
    }
}

/* The last router advertisements; workers get two turns, enough to empty their rings of them. */
static void say_farewell(void) {
    enum { TURNS = 2 };

    l3_farewell();
    for (unsigned turn = 0; turn < TURNS; turn++) {
        if (shared_lcore)
            worker_turn(worker_get(0));
        rcu_synchronize();
    }
}

/* Where sessions wait for the next start, unless the configuration names another file. */
static char sessions_beside_socket[PATH_MAX];

static void keep_sessions(void) {
    const char *file = session_file(sessions_beside_socket);

    if (file)
        session_save(file);
}

static void take_back_sessions(void) {
    const char *file = session_file(sessions_beside_socket);

    if (file)
        session_load(file);
}

/* Order matters: interfaces go down in good order while workers still send, then the workers stop. */
static void stop_parts(bool forwarding) {
    if (forwarding) {
        keep_sessions();
        say_farewell();
    }
    control_unload();
    workers_stop();
    control_stop();
    host_free();
    interface_free();
    punt_free();
    rcu_free();
    workers_free();
    mbuf_pools_free();
}

static int run_router(const struct options *options, uint64_t start_tsc) {
    static char config_path[PATH_MAX];
    struct problems problems = {0};
    unsigned workers = find_workers();
    struct control_facts facts = {
        .version = ROUTER_VERSION,
        .dpdk_version = rte_version(),
        .config_file = realpath(options->config_file, config_path) ? config_path
                                                                   : options->config_file,
        .start_msec = event_now(),
        .control_lcore = rte_lcore_id(),
        .workers = worker_lcores,
        .worker_count = workers,
    };
    int error = start_parts(workers, &problems);

    if (error == 0)
        error = control_start(&facts, options->socket_path, &problems);
    if (error == 0)
        error = control_load(&problems);
    if (error == 0) {
        snprintf(sessions_beside_socket, sizeof(sessions_beside_socket), "%s.sessions",
                 options->socket_path);
        take_back_sessions();
        error = workers_start();
    }
    print_problems(options->config_file, &problems);
    problems_free(&problems);
    if (error == 0) {
        log_notice("main", "forwarding with %u worker%s after %.2f s", workers,
                   workers == 1 ? "" : "s",
                   (double)(rte_rdtsc() - start_tsc) / (double)rte_get_tsc_hz());
        notify_systemd("READY=1");
        run();
        notify_systemd("STOPPING=1");
    } else {
        log_error("main", "cannot start: %s", strerror(-error));
    }
    stop_parts(error == 0);
    return error == 0 ? 0 : error == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
}

/* A change of 10,000 rules needs some 200 MB for less than a second. Given back to Linux each time,
 * a fifth of that second goes into taking pages anew. */
static void keep_freed_memory(void) {
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* the most that glibc takes */
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

int main(int argc, char **argv) {
    struct options options;
    uint64_t start_tsc = rte_rdtsc();
    int status;

    if (!options_parse(argc, argv, &options, &status))
        return status;
    log_set_level(options.log_level);
    if (event_init() < 0) {
        fprintf(stderr, "dpdk-router: cannot make the event loop: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    if (options.check)
        return check_only(options.config_file);
    if (watch_signals() < 0) {
        fprintf(stderr, "dpdk-router: cannot watch signals: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    /* A wrong configuration is told before hugepages and lcores are asked for. */
    status = check_only(options.config_file);
    if (status != 0)
        return status;
    if (rte_eal_init(options.eal_argc, options.eal_argv) < 0) {
        fprintf(stderr,
                "dpdk-router: DPDK's EAL did not start: %s; check the EAL options, hugepages "
                "(/proc/sys/vm/nr_hugepages, a mounted hugetlbfs) and permissions\n",
                rte_strerror(rte_errno));
        return rte_errno == EINVAL ? EXIT_USAGE : EXIT_FAILURE;
    }
    keep_freed_memory();
    /* No rte_eal_cleanup(): it races with EAL's interrupt thread (seen to crash in 22.11), and with
     * --in-memory it has nothing to put back that the end of the process does not. */
    return run_router(&options, start_tsc);
}
