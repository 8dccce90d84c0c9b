/*
 * The security association database (RFC 4301 section 4.4.2): associations in chains by SPI, which
 * workers follow without locks. The control thread alone changes the chains; what it takes out is
 * freed when no worker can see it any more.
 */
#include <errno.h>
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_ip.h>
#include <stdlib.h>
#include <string.h>

#include "core/event.h"
#include "core/huge_memory.h"
#include "core/log.h"
#include "core/rcu.h"
#include "core/slab.h"
#include "ipsec/esp_path.h"
#include "ipsec/ipsec_internal.h"
#include "l3/header.h"

enum { TTL = 64, REQUEST_BUCKETS = 1 << 14 };

LIST_HEAD(request_chain, ipsec_sa);

struct ipsec_sa *_Atomic *sa_buckets[IPSEC_DIRECTIONS];
static struct request_chain requests[REQUEST_BUCKETS]; /* outbound ones, the youngest first */
static struct ipsec_sa *first;
static unsigned count;
static uint64_t serial;
static struct slab slab; /* an association, and its workers' tallies behind it */

int sad_init(void) {
    for (unsigned i = 0; i < IPSEC_DIRECTIONS; i++) {
        if (!sa_buckets[i])
            sa_buckets[i] = huge_memory_map(SA_BUCKETS * sizeof(*sa_buckets[i]));
        if (!sa_buckets[i])
            return -ENOMEM;
    }
    return 0;
}

void sad_free(void) {
    while (first)
        ipsec_sa_delete(first->settings.spi, first->settings.direction,
                        &first->settings.destination, first->owner);
    esp_path_forget_all();
    for (unsigned i = 0; i < IPSEC_DIRECTIONS; i++) {
        huge_memory_unmap(sa_buckets[i], SA_BUCKETS * sizeof(*sa_buckets[i]));
        sa_buckets[i] = NULL;
    }
}

/* --- the outer header --- */

/* `output` takes one off the hop limit of all that is forwarded, and so of this. */
static void make_ipv4(struct ipsec_sa *sa, uint8_t protocol) {
    const struct ipsec_sa_settings *settings = &sa->settings;
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)sa->header;

    ip->version_ihl = RTE_IPV4_VHL_DEF;
    ip->time_to_live = TTL + 1;
    ip->next_proto_id = protocol;
    memcpy(&ip->src_addr, settings->source.bytes, 4);
    memcpy(&ip->dst_addr, settings->destination.bytes, 4);
    ip->hdr_checksum = rte_raw_cksum(ip, sizeof(*ip)); /* the sum of what does not change */
}

static void make_ipv6(struct ipsec_sa *sa, uint8_t protocol) {
    const struct ipsec_sa_settings *settings = &sa->settings;
    uint8_t *ip = sa->header;

    ip[0] = 0x60;
    ip[6] = protocol;
    ip[7] = TTL + 1;
    memcpy(ip + 8, settings->source.bytes, 16);
    memcpy(ip + 24, settings->destination.bytes, 16);
}

static void make_header(struct ipsec_sa *sa) {
    const struct ipsec_sa_settings *settings = &sa->settings;
    uint8_t protocol = sa->flags & SA_UDP ? IPPROTO_UDP : IPPROTO_ESP;

    if (!(sa->flags & SA_TRANSPORT)) {
        if (sa->flags & SA_IPV6)
            make_ipv6(sa, protocol);
        else
            make_ipv4(sa, protocol);
        sa->outer = sa->flags & SA_IPV6 ? IPV6_HEADER : IPV4_HEADER;
    }
    if (sa->flags & SA_UDP) {
        uint16_t ports[2] = {rte_cpu_to_be_16(settings->source_port),
                             rte_cpu_to_be_16(settings->destination_port)};

        memcpy(sa->header + sa->outer, ports, sizeof(ports));
        sa->outer += UDP_HEADER;
    }
}

/* --- making and freeing --- */

void sa_destroy(struct ipsec_sa *sa) {
    if (!sa)
        return;
    esp_key_free((struct esp_key *)(uintptr_t)sa->key);
    esp_path_give_back(sa->spare_path);
    slab_give(&slab, sa);
}

static void destroy_later(void *owner, void *memory, size_t size) {
    (void)owner;
    (void)size;
    sa_destroy(memory);
}

static bool ends_are_possible(const struct ipsec_sa_settings *settings) {
    return settings->source.family == settings->destination.family &&
           ip_address_is_host(&settings->source) && ip_address_is_host(&settings->destination) &&
           (settings->source_port == 0) == (settings->destination_port == 0);
}

struct ipsec_sa *sa_create(const struct ipsec_sa_settings *settings) {
    struct ipsec_sa *sa;

    if (!ends_are_possible(settings) || settings->spi < IPSEC_SPI_FIRST ||
        settings->replay_window > ESP_REPLAY_MAX) {
        errno = EINVAL;
        return NULL;
    }
    slab.size = sizeof(*sa) + workers_count() * sizeof(sa->tallies[0]);
    sa = slab_take(&slab);
    if (!sa) {
        errno = ENOMEM;
        return NULL;
    }
    sa->spare_path = esp_path_alloc();
    if (sa->spare_path)
        sa->key = esp_key_create(settings->cipher, settings->key, settings->auth,
                                 settings->auth_key, settings->icv, settings->esn);
    else
        errno = ENOMEM;
    if (!sa->key) {
        int error = errno;

        sa_destroy(sa);
        errno = error;
        return NULL;
    }
    sa->settings = *settings;
    explicit_bzero(sa->settings.key, sizeof(sa->settings.key));
    explicit_bzero(sa->settings.auth_key, sizeof(sa->settings.auth_key));
    sa->spi = rte_cpu_to_be_32(settings->spi);
    sa->ties = (struct ipsec_ties){settings->if_id, settings->request, settings->spi};
    sa->vrf = settings->vrf;
    sa->flags = (uint8_t)((settings->destination.family == AF_INET6 ? SA_IPV6 : 0) |
                          (settings->destination_port != 0 ? SA_UDP : 0) |
                          (settings->mode == IPSEC_TRANSPORT ? SA_TRANSPORT : 0));
    sa->sizes = esp_key_sizes(sa->key);
    sa->settings.icv = sa->sizes.icv;
    sa->df = (uint8_t)settings->df;
    if (sa->flags & SA_IPV6)
        memcpy(sa->destination6, settings->destination.bytes, 16);
    else
        sa->destination = ip4_host_order(&settings->destination);
    memcpy(sa->source, settings->source.bytes, sizeof(sa->source));
    make_header(sa);
    if (settings->direction == IPSEC_OUT) {
        /* Short of the end by more than all workers can take at once. */
        sa->sequence_last = settings->esn ? UINT64_MAX - UINT16_MAX : UINT32_MAX;
        atomic_init(&sa->sequence, settings->sequence);
    } else {
        esp_replay_init(&sa->replay, settings->replay_window, settings->esn, settings->sequence);
    }
    atomic_init(&sa->path_mtu, ESP_PATH_MTU_UNKNOWN);
    rte_spinlock_init(&sa->lock);
    return sa;
}

/* --- tunnel interfaces --- */

static void settle_interface(struct ipsec_sa *sa) {
    const struct interface *interface;

    if (sa->settings.if_id == 0 || sa->settings.direction != IPSEC_IN)
        return;
    interface = interface_by_if_id(sa->settings.if_id);
    atomic_store_explicit(&sa->interface, interface ? interface->id : SA_NO_INTERFACE,
                          memory_order_relaxed);
}

void sad_tunnel_changed(uint32_t if_id, uint16_t interface) {
    for (struct ipsec_sa *sa = first; sa; sa = sa->listed_next) {
        if (sa->settings.if_id == if_id && sa->settings.direction == IPSEC_IN)
            atomic_store_explicit(&sa->interface, interface, memory_order_relaxed);
    }
}

/* --- limits --- */

void (*ipsec_ike_limit_reached)(const struct ipsec_sa *sa, bool hard);

static struct ipsec_sa *of_life(const struct sa_life *life) {
    return (struct ipsec_sa *)((uintptr_t)life - offsetof(struct ipsec_sa, life));
}

static void count_life(const struct sa_life *life, struct ipsec_sa_counters *out) {
    ipsec_sa_counters(of_life(life), out);
}

void ipsec_sa_use(const struct ipsec_sa *sa, struct ipsec_sa_use *out) {
    sa_life_use(&((struct ipsec_sa *)(uintptr_t)sa)->life, out);
}

/* With IKE the one ends a tunnel, the other is what happens to each of them every hour. By hand
 * both want somebody to do something. */
static void log_limit(const struct ipsec_sa *sa, bool hard) {
    const struct ipsec_sa_settings *settings = &sa->settings;
    char source[IP_ADDRESS_TEXT], destination[IP_ADDRESS_TEXT];
    bool ike = sa->owner == IPSEC_OF_IKE;

    log_write(hard  ? ike ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING
              : ike ? LOG_LEVEL_DEBUG
                    : LOG_LEVEL_NOTICE,
              "ipsec", "association 0x%08x from %s to %s has reached its %s limit%s", settings->spi,
              ip_address_text(&settings->source, source),
              ip_address_text(&settings->destination, destination), hard ? "hard" : "soft",
              hard ? ", and is gone" : "");
}

static void limit_reached(struct sa_life *life, bool hard) {
    struct ipsec_sa *sa = of_life(life);
    const struct ipsec_sa_settings *settings = &sa->settings;
    const struct ip_address destination = settings->destination;
    const enum ipsec_direction direction = settings->direction;
    const enum ipsec_owner owner = sa->owner;
    const uint32_t spi = settings->spi;

    log_limit(sa, hard);
    if (owner == IPSEC_OF_IKE && ipsec_ike_limit_reached)
        ipsec_ike_limit_reached(sa, hard);
    if (hard)
        ipsec_sa_delete(spi, direction, &destination, owner);
}

static void begin_life(struct ipsec_sa *sa) {
    struct sa_life *life = &sa->life;

    life->soft = sa->settings.soft;
    life->hard = sa->settings.hard;
    life->before = sa->settings.before;
    if (life->before.added == 0)
        life->before.added = sa->created;
    life->count = count_life;
    life->reached = limit_reached;
    sa_life_begin(life);
}

/* --- the database --- */

static struct ipsec_sa *find(uint32_t spi, enum ipsec_direction direction,
                             const struct ip_address *destination) {
    struct ipsec_sa *sa;

    if (!sa_buckets[direction])
        return NULL;
    sa = atomic_load(&sa_buckets[direction][sa_bucket(rte_cpu_to_be_32(spi))]);
    for (; sa; sa = atomic_load(&sa->next)) {
        if (sa->settings.spi == spi &&
            ip_address_compare(&sa->settings.destination, destination) == 0)
            return sa;
    }
    return NULL;
}

static struct request_chain *chain_of(uint32_t request) {
    return &requests[(uint32_t)((request * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % REQUEST_BUCKETS];
}

static const struct ipsec_sa *with_request(const struct ipsec_sa *sa, uint32_t request) {
    while (sa && sa->settings.request != request)
        sa = LIST_NEXT(sa, of_request);
    return sa;
}

const struct ipsec_sa *sa_first_of_request(uint32_t request) {
    return with_request(LIST_FIRST(chain_of(request)), request);
}

const struct ipsec_sa *sa_next_of_request(const struct ipsec_sa *sa) {
    return with_request(LIST_NEXT(sa, of_request), sa->settings.request);
}

static const struct ipsec_sa *with_spi(struct ipsec_sa *sa, uint32_t spi) {
    while (sa && sa->settings.spi != spi)
        sa = atomic_load(&sa->next);
    return sa;
}

/* New ones come first in their bucket. */
const struct ipsec_sa *sa_first_of_spi(uint32_t spi) {
    return with_spi(atomic_load(&sa_buckets[IPSEC_OUT][sa_bucket(rte_cpu_to_be_32(spi))]), spi);
}

const struct ipsec_sa *sa_next_of_spi(const struct ipsec_sa *sa) {
    return with_spi(atomic_load(&((struct ipsec_sa *)(uintptr_t)sa)->next), sa->settings.spi);
}

void sa_insert(struct ipsec_sa *sa, enum ipsec_owner owner) {
    struct ipsec_sa *_Atomic *bucket = &sa_buckets[sa->settings.direction][sa_bucket(sa->spi)];

    sa->owner = owner;
    if (owner == IPSEC_OF_IKE && sa->flags & SA_UDP && sa->settings.direction == IPSEC_IN)
        sa->flags |= SA_ANY_SOURCE;
    sa->created = event_now();
    settle_interface(sa);
    esp_path_join(sa);
    sa->serial = ++serial;
    atomic_init(&sa->next, atomic_load(bucket));
    atomic_store_explicit(bucket, sa, memory_order_release);
    sa->listed_next = first;
    if (first)
        first->listed_before = sa;
    first = sa;
    count++;
    if (sa->settings.direction == IPSEC_OUT)
        LIST_INSERT_HEAD(chain_of(sa->settings.request), sa, of_request);
    spd_choose(sa);
    begin_life(sa);
}

static void take_out(struct ipsec_sa *sa) {
    struct ipsec_sa *_Atomic *at = &sa_buckets[sa->settings.direction][sa_bucket(sa->spi)];

    while (atomic_load(at) != sa)
        at = &atomic_load(at)->next;
    atomic_store_explicit(at, atomic_load(&sa->next), memory_order_release);
    if (sa->listed_next)
        sa->listed_next->listed_before = sa->listed_before;
    if (sa->listed_before)
        sa->listed_before->listed_next = sa->listed_next;
    else
        first = sa->listed_next;
    if (sa->settings.direction == IPSEC_OUT)
        LIST_REMOVE(sa, of_request);
    count--;
    sa_life_end(&sa->life);
}

static int add(const struct ipsec_sa_settings *settings, enum ipsec_owner owner) {
    struct ipsec_sa *sa;

    if (find(settings->spi, settings->direction, &settings->destination))
        return -EEXIST;
    if (count == IPSEC_SAS_MAX)
        return -ENOSPC;
    sa = sa_create(settings);
    if (!sa)
        return -errno;
    sa_insert(sa, owner);
    return 0;
}

int ipsec_sa_add(struct ipsec_sa_settings *settings, enum ipsec_owner owner) {
    int error = add(settings, owner);

    explicit_bzero(settings->key, sizeof(settings->key));
    explicit_bzero(settings->auth_key, sizeof(settings->auth_key));
    return error;
}

const struct ipsec_sa *ipsec_sa_find(uint32_t spi, enum ipsec_direction direction,
                                     const struct ip_address *destination) {
    return find(spi, direction, destination);
}

int ipsec_sa_delete(uint32_t spi, enum ipsec_direction direction,
                    const struct ip_address *destination, enum ipsec_owner owner) {
    struct ipsec_sa *sa = find(spi, direction, destination);

    if (!sa)
        return -ENOENT;
    if (sa->owner != owner)
        return -EPERM;
    take_out(sa);
    esp_path_leave(sa);
    spd_choose(sa);
    rcu_retire(NULL, destroy_later, NULL, sa, sizeof(*sa));
    return 0;
}

const struct ipsec_sa *ipsec_sa_next(const struct ipsec_sa *previous) {
    return previous ? previous->listed_next : first;
}

uint64_t ipsec_sa_serial(const struct ipsec_sa *sa) {
    return sa->serial;
}

const struct ipsec_sa_settings *ipsec_sa_settings(const struct ipsec_sa *sa) {
    return &sa->settings;
}

enum ipsec_owner ipsec_sa_owner(const struct ipsec_sa *sa) {
    return sa->owner;
}

uint64_t ipsec_sa_created(const struct ipsec_sa *sa) {
    return sa->created;
}

uint64_t ipsec_sa_sequence(const struct ipsec_sa *sa) {
    return sa->settings.direction == IPSEC_OUT
               ? RTE_MIN(atomic_load_explicit(&sa->sequence, memory_order_relaxed),
                         sa->sequence_last)
               : __atomic_load_n(&sa->replay.highest, __ATOMIC_RELAXED);
}

bool ipsec_sa_new_source(const struct ipsec_sa *sa, struct ip_address *source, uint16_t *port) {
    struct sa_new_source *new = &((struct ipsec_sa *)(uintptr_t)sa)->new_source;

    if (atomic_load_explicit(&new->state, memory_order_acquire) != SOURCE_FULL)
        return false;
    *source = sa->flags & SA_IPV6 ? ip6_address(new->address) : ip4_address(new->address);
    *port = rte_be_to_cpu_16(new->port);
    atomic_store_explicit(&new->state, SOURCE_EMPTY, memory_order_release);
    return true;
}

static void add_up(uint64_t *to, const uint64_t *from) {
    *to += __atomic_load_n(from, __ATOMIC_RELAXED);
}

unsigned ipsec_sa_path_mtu(const struct ipsec_sa *sa) {
    unsigned mtu = atomic_load_explicit(&sa->path_mtu, memory_order_relaxed);

    return mtu == ESP_PATH_MTU_UNKNOWN ? 0 : mtu;
}

void ipsec_sa_counters(const struct ipsec_sa *sa, struct ipsec_sa_counters *out) {
    *out = (struct ipsec_sa_counters){0};
    for (unsigned i = 0; i < workers_count(); i++) {
        const struct sa_tally *tally = &sa->tallies[i];
        const struct sa_use *use = sa_use((struct ipsec_sa *)(uintptr_t)sa, i);

        add_up(&out->packets, &use->packets);
        add_up(&out->bytes, &use->bytes);
        out->last_used =
            RTE_MAX(out->last_used, __atomic_load_n(&use->last_used, __ATOMIC_RELAXED));
        add_up(&out->replayed, &tally->replayed);
        add_up(&out->too_old, &tally->too_old);
        add_up(&out->failed, &tally->failed);
        add_up(&out->malformed, &tally->malformed);
        add_up(&out->refused, &tally->refused);
    }
}
