/* What workers need, and the clock by which they say when an association was used last and how long
 * fragments have waited. */
#include "ipsec/ipsec.h"

#include <errno.h>

#include "core/event.h"
#include "core/huge_memory.h"
#include "ipsec/esp_packet.h"
#include "ipsec/esp_path.h"
#include "ipsec/esp_reassembly.h"
#include "ipsec/ipsec_internal.h"

enum { CLOCK_MSEC = 1000 };

struct ipsec_worker ipsec_workers[WORKERS_MAX];
bool ipsec_shared;
_Atomic uint64_t ipsec_clock;
_Atomic bool ipsec_has_in_policies, ipsec_has_tunnels;
bool ipsec_configured;
static bool ready;

static void tick(struct event_timer *timer) {
    atomic_store_explicit(&ipsec_clock, event_now(), memory_order_relaxed);
    esp_path_tick();
    event_timer_start(timer, CLOCK_MSEC);
}

static struct event_timer clock_timer = {.expired = tick};

static int need_worker(struct ipsec_worker *worker) {
    if (!worker->engine)
        worker->engine = esp_engine_create();
    if (!worker->cache)
        worker->cache = spd_cache_create();
    if (!worker->scratch)
        worker->scratch = huge_memory_map(IPSEC_SCRATCH);
    if (!worker->reassembly)
        worker->reassembly = esp_reassembly_create();
    return worker->engine && worker->cache && worker->scratch && worker->reassembly ? 0 : -ENOMEM;
}

int ipsec_need(void) {
    int error = 0;

    if (ready)
        return 0;
    if (!__builtin_cpu_supports("aes") || !__builtin_cpu_supports("pclmul"))
        return -ENOTSUP;
    error = esp_packet_init();
    if (error == 0)
        error = sad_init();
    for (unsigned i = 0; i < workers_count() && error == 0; i++)
        error = need_worker(&ipsec_workers[i]);
    if (error)
        return error;
    ipsec_shared = workers_count() > 1;
    tick(&clock_timer);
    ready = true;
    return 0;
}

/* --- tunnel interfaces --- */

static void tunnel_changed(const struct interface *interface, bool there) {
    bool tunnels = false;

    if (interface->if_id == 0)
        return;
    sad_tunnel_changed(interface->if_id, there ? interface->id : SA_NO_INTERFACE);
    for (const struct interface *i = NULL; (i = interface_next(i)) != NULL;)
        tunnels |= i->if_id != 0 && (there || i != interface);
    atomic_store(&ipsec_has_tunnels, tunnels);
    if (ready)
        ipsec_publish_soon();
}

static void interface_added(struct interface *interface) {
    tunnel_changed(interface, true);
}

static void interface_removed(struct interface *interface) {
    tunnel_changed(interface, false);
}

void ipsec_listen(void) {
    static struct interface_listener listener = {.added = interface_added,
                                                 .removed = interface_removed};

    interface_listen(&listener);
}

bool ipsec_wanted(void) {
    return ipsec_configured;
}

void ipsec_free(void) {
    spd_free();
    sad_free();
    event_timer_stop(&clock_timer);
    for (unsigned i = 0; i < WORKERS_MAX; i++) {
        struct ipsec_worker *worker = &ipsec_workers[i];

        esp_engine_free(worker->engine);
        spd_cache_free(worker->cache);
        huge_memory_unmap(worker->scratch, IPSEC_SCRATCH);
        esp_reassembly_free(worker->reassembly);
        *worker = (struct ipsec_worker){0};
    }
    ready = false;
}
