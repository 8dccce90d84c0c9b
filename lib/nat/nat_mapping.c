/* Endpoint-independent mappings: two hash tables with chains over one array, and bits for ports. */
#include "nat/nat_mapping.h"

#include <errno.h>
#include <netinet/in.h>
#include <rte_byteorder.h>
#include <rte_pause.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/huge_memory.h"
#include "core/rcu.h"
#include "session/table.h"

enum {
    LOCK_ATTEMPTS = 2000,
    PORTS = 65536,
    WORD_BITS = 64,
    PORT_WORDS = PORTS / WORD_BITS,
    ADDRESSES_HELD = 2 * NAT_ADDRESSES_MAX, /* those of rules before that mappings live on, too */
    ADDRESS_SLOTS = 2 * ADDRESSES_HELD,
    CLASSES = 3, /* TCP, UDP, all others */
    GRACE_AT_ONCE = 16,
};

struct outside {
    uint32_t address;
    uint16_t vrf;
    bool named;      /* by the rules in force */
    uint32_t taken;  /* ports */
    uint64_t *ports; /* CLASSES * PORT_WORDS; NULL: the place is empty */
    uint64_t *kept;  /* the same: ports that are not for mappings; NULL: there are none */
};

/* The ports of one class. */
struct port_bits {
    const uint64_t *taken, *kept;
};

/* Numbers of mappings that are gone, with the token after which they may be used again. */
struct grace {
    uint64_t token;
    uint32_t number;
};

static struct nat_mapping *mappings;
static struct nat_inside6 *insides6; /* by the same numbers; NULL while nobody needs them */
static uint32_t *inside_heads, *outside_heads;
static uint32_t mapping_max, head_mask, fresh, free_head, alive, ports_taken;
static struct outside *outsides;
static unsigned outside_count;
static struct grace *grace;
static uint32_t grace_first, grace_count;
static atomic_flag lock = ATOMIC_FLAG_INIT;

/* --- life --- */

static size_t mappings_size(void) {
    return (size_t)mapping_max * sizeof(*mappings);
}

static size_t heads_size(void) {
    return ((size_t)head_mask + 1) * sizeof(*inside_heads);
}

int nat_mapping_need_ipv6(void) {
    if (!insides6)
        insides6 = huge_memory_map((size_t)mapping_max * sizeof(*insides6));
    return insides6 ? 0 : -ENOMEM;
}

int nat_mapping_create(uint32_t size) {
    mapping_max = size + 1;
    head_mask = 1023;
    while (head_mask < size - 1)
        head_mask = head_mask * 2 + 1;
    mappings = huge_memory_map(mappings_size());
    inside_heads = huge_memory_map(heads_size());
    outside_heads = huge_memory_map(heads_size());
    outsides = calloc(ADDRESS_SLOTS, sizeof(*outsides));
    grace = calloc(mapping_max, sizeof(*grace));
    fresh = 1;
    free_head = MAPPING_NONE;
    alive = ports_taken = outside_count = grace_first = grace_count = 0;
    if (!mappings || !inside_heads || !outside_heads || !outsides || !grace) {
        nat_mapping_free();
        return -ENOMEM;
    }
    return 0;
}

void nat_mapping_free(void) {
    huge_memory_unmap(mappings, mappings_size());
    huge_memory_unmap(insides6, (size_t)mapping_max * sizeof(*insides6));
    huge_memory_unmap(inside_heads, heads_size());
    huge_memory_unmap(outside_heads, heads_size());
    for (unsigned i = 0; outsides && i < ADDRESS_SLOTS; i++) {
        free(outsides[i].ports);
        free(outsides[i].kept);
    }
    free(outsides);
    free(grace);
    mappings = NULL;
    insides6 = NULL;
    inside_heads = outside_heads = NULL;
    outsides = NULL;
    grace = NULL;
    alive = ports_taken = 0;
}

bool nat_mapping_exists(void) {
    return mappings != NULL;
}

static bool take_lock(void) {
    for (unsigned i = 0; i < LOCK_ATTEMPTS; i++) {
        if (!atomic_flag_test_and_set_explicit(&lock, memory_order_acquire))
            return true;
        rte_pause();
    }
    return false;
}

static void leave_lock(void) {
    atomic_flag_clear_explicit(&lock, memory_order_release);
}

/* --- outside addresses --- */

static uint32_t address_slot(uint32_t address, uint16_t vrf) {
    return (uint32_t)((((uint64_t)address << 16 | vrf) * UINT64_C(0x9e3779b97f4a7c15)) >> 40) %
           ADDRESS_SLOTS;
}

/* The address's entry, or the empty place where it would be. With the lock. */
static struct outside *find_outside(uint32_t address, uint16_t vrf) {
    uint32_t slot = address_slot(address, vrf);

    while (outsides[slot].ports && (outsides[slot].address != address || outsides[slot].vrf != vrf))
        slot = (slot + 1) % ADDRESS_SLOTS;
    return &outsides[slot];
}

/* This has to be done, so the wait is not bounded by a number of attempts; but the lock is never
 * held for longer than a search for a port takes. */
static void wait_for_lock(void) {
    while (!take_lock())
        rte_pause();
}

void nat_mapping_begin_addresses(void) {
    wait_for_lock();
    for (unsigned i = 0; i < ADDRESS_SLOTS; i++)
        outsides[i].named = false;
    leave_lock();
    /* Only this side changes the list of addresses. A worker may get such a port before it is kept
     * again; the review of live sessions ends what comes of that. */
    for (unsigned i = 0; i < ADDRESS_SLOTS; i++) {
        if (!outsides[i].kept)
            continue;
        wait_for_lock();
        memset(outsides[i].kept, 0, CLASSES * PORT_WORDS * sizeof(uint64_t));
        leave_lock();
    }
}

bool nat_mapping_name_address(uint32_t address, uint16_t vrf) {
    struct outside *outside;
    bool found;

    wait_for_lock();
    outside = find_outside(address, vrf);
    found = outside->ports != NULL;
    if (found)
        outside->named = true;
    leave_lock();
    return found;
}

int nat_mapping_add_address(uint32_t address, uint16_t vrf) {
    uint64_t *ports;

    if (nat_mapping_name_address(address, vrf))
        return 0;
    if (outside_count == ADDRESSES_HELD)
        return -ENOSPC;
    ports = calloc(CLASSES * PORT_WORDS, sizeof(*ports));
    if (!ports)
        return -ENOMEM;
    wait_for_lock();
    *find_outside(address, vrf) =
        (struct outside){.address = address, .vrf = vrf, .named = true, .ports = ports};
    outside_count++;
    leave_lock();
    return 0;
}

static unsigned class_of(uint8_t protocol) {
    return protocol == IPPROTO_TCP ? 0 : protocol == IPPROTO_UDP ? 1 : 2;
}

/* Word by word: workers wait for the lock. */
static void keep_range(uint64_t *kept, unsigned first, unsigned last) {
    for (unsigned word = first / WORD_BITS; word <= last / WORD_BITS; word++) {
        uint64_t bits = ~UINT64_C(0);

        if (word == first / WORD_BITS)
            bits &= ~UINT64_C(0) << first % WORD_BITS;
        if (word == last / WORD_BITS)
            bits &= ~UINT64_C(0) >> (WORD_BITS - 1 - last % WORD_BITS);
        kept[word] |= bits;
    }
}

int nat_mapping_keep_ports(uint32_t address, uint16_t vrf, uint8_t protocol, uint16_t first,
                           uint16_t last) {
    uint64_t *made = calloc(CLASSES * PORT_WORDS, sizeof(*made));
    struct outside *outside;

    if (!made)
        return -ENOMEM;
    wait_for_lock();
    outside = find_outside(address, vrf);
    if (outside->ports && !outside->kept) {
        outside->kept = made;
        made = NULL;
    }
    for (unsigned ports = 0; outside->ports && ports < CLASSES; ports++) {
        if (protocol == 0 || ports == class_of(protocol))
            keep_range(outside->kept + ports * PORT_WORDS, first, last);
    }
    leave_lock();
    free(made);
    return 0;
}

/* Takes the entry out, and moves those behind it that would not be found any more. */
static void remove_outside(unsigned slot) {
    free(outsides[slot].ports);
    free(outsides[slot].kept);
    outsides[slot] = (struct outside){0};
    outside_count--;
    for (unsigned next = (slot + 1) % ADDRESS_SLOTS; outsides[next].ports;
         next = (next + 1) % ADDRESS_SLOTS) {
        struct outside moved = outsides[next];

        outsides[next] = (struct outside){0};
        *find_outside(moved.address, moved.vrf) = moved;
    }
}

void nat_mapping_drop_addresses(void) {
    wait_for_lock();
    for (unsigned i = 0; i < ADDRESS_SLOTS; i++) {
        /* Another entry may have moved into the place. */
        while (outsides[i].ports && !outsides[i].named && outsides[i].taken == 0)
            remove_outside(i);
    }
    leave_lock();
}

static uint64_t *ports_of(const struct outside *outside, uint8_t protocol) {
    return outside->ports + class_of(protocol) * PORT_WORDS;
}

static struct port_bits bits_of(const struct outside *outside, uint8_t protocol) {
    static const uint64_t none[PORT_WORDS];

    return (struct port_bits){
        .taken = ports_of(outside, protocol),
        .kept = outside->kept ? outside->kept + class_of(protocol) * PORT_WORDS : none,
    };
}

/* The first free port in [first, last] whose bit is in `allowed`, a pattern of 64; -1 if there is
 * none. */
static int scan(struct port_bits ports, unsigned first, unsigned last, uint64_t allowed) {
    for (unsigned word = first / WORD_BITS; word <= last / WORD_BITS; word++) {
        uint64_t open = ~(ports.taken[word] | ports.kept[word]) & allowed;

        if (word == first / WORD_BITS)
            open &= ~UINT64_C(0) << first % WORD_BITS;
        if (word == last / WORD_BITS)
            open &= ~UINT64_C(0) >> (WORD_BITS - 1 - last % WORD_BITS);
        if (open)
            return (int)(word * WORD_BITS + (unsigned)__builtin_ctzll(open));
    }
    return -1;
}

static bool is_free(struct port_bits ports, unsigned port) {
    return ((ports.taken[port / WORD_BITS] | ports.kept[port / WORD_BITS]) >> port % WORD_BITS &
            1) == 0;
}

static int free_port(struct port_bits ports, unsigned wanted, unsigned first, unsigned last,
                     bool has_parity, uint32_t random) {
    const uint64_t even = UINT64_C(0x5555555555555555);
    uint64_t patterns[] = {wanted & 1 ? ~even : even, ~UINT64_C(0)};
    unsigned from = first + random % (last - first + 1);

    if (wanted >= first && wanted <= last && is_free(ports, wanted))
        return (int)wanted;
    for (unsigned i = has_parity ? 0 : 1; i < 2; i++) {
        int port = scan(ports, from, last, patterns[i]);

        if (port < 0 && from > first)
            port = scan(ports, first, from - 1, patterns[i]);
        if (port >= 0)
            return port;
    }
    return -1;
}

/* --- lookup --- */

/* The keyed hash of the flow table: nobody can choose ports that meet in one chain. */
static uint32_t hash(uint32_t address, uint16_t port, uint8_t protocol, uint16_t vrf) {
    union flow_key key = {.v4 = {.source = address,
                                 .source_port = port,
                                 .protocol_vrf = flow_protocol_vrf(protocol, vrf)}};

    return (uint32_t)flow_hash4(key.first) & head_mask;
}

static uint32_t hash6(const uint8_t address[16], uint16_t port, uint8_t protocol, uint16_t vrf) {
    struct flow_key6 key = {.source_port = port, .protocol_vrf = flow_protocol_vrf(protocol, vrf)};

    memcpy(key.source, address, sizeof(key.source));
    return (uint32_t)flow_hash6(&key) & head_mask;
}

const struct nat_mapping *nat_mapping_get(uint32_t number) {
    return &mappings[number];
}

const struct nat_inside6 *nat_mapping_inside6(uint32_t number) {
    return &insides6[number];
}

uint32_t nat_mapping_of_inside(uint32_t address, uint16_t port, uint8_t protocol, uint16_t vrf,
                               uint32_t outside, uint16_t outside_vrf) {
    uint32_t number;

    number = __atomic_load_n(&inside_heads[hash(address, port, protocol, vrf)], __ATOMIC_ACQUIRE);

    while (number != MAPPING_NONE) {
        const struct nat_mapping *mapping = &mappings[number];

        if (mapping->inside == address && mapping->inside_port == port &&
            mapping->protocol == protocol && mapping->inside_vrf == vrf &&
            mapping->outside == outside && mapping->outside_vrf == outside_vrf &&
            !(mapping->flags & MAPPING_IPV6))
            return number;
        number = __atomic_load_n(&mapping->next_inside, __ATOMIC_ACQUIRE);
    }
    return MAPPING_NONE;
}

uint32_t nat_mapping_of_inside6(const uint8_t address[16], uint16_t port, uint8_t protocol,
                                uint16_t vrf, uint32_t outside, uint16_t outside_vrf) {
    uint32_t number =
        __atomic_load_n(&inside_heads[hash6(address, port, protocol, vrf)], __ATOMIC_ACQUIRE);

    while (number != MAPPING_NONE) {
        const struct nat_mapping *mapping = &mappings[number];

        if (mapping->flags & MAPPING_IPV6 && mapping->inside_port == port &&
            mapping->protocol == protocol && mapping->inside_vrf == vrf &&
            mapping->outside == outside && mapping->outside_vrf == outside_vrf &&
            memcmp(insides6[number].address, address, 16) == 0)
            return number;
        number = __atomic_load_n(&mapping->next_inside, __ATOMIC_ACQUIRE);
    }
    return MAPPING_NONE;
}

uint32_t nat_mapping_of_outside(uint32_t address, uint16_t port, uint8_t protocol, uint16_t vrf) {
    uint32_t number;

    number = __atomic_load_n(&outside_heads[hash(address, port, protocol, vrf)], __ATOMIC_ACQUIRE);

    while (number != MAPPING_NONE) {
        const struct nat_mapping *mapping = &mappings[number];

        if (mapping->outside == address && mapping->outside_port == port &&
            mapping->protocol == protocol && mapping->outside_vrf == vrf)
            return number;
        number = __atomic_load_n(&mapping->next_outside, __ATOMIC_ACQUIRE);
    }
    return MAPPING_NONE;
}

bool nat_mapping_hold(uint32_t number) {
    uint32_t *references = &mappings[number].references;
    uint32_t count = __atomic_load_n(references, __ATOMIC_RELAXED);

    while (count != 0) {
        if (__atomic_compare_exchange_n(references, &count, count + 1, true, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED))
            return true;
    }
    return false;
}

/* --- change; all with the lock --- */

/* A mapping that was dropped is used again when no worker can be reading it. */
static uint32_t take_number(void) {
    uint32_t number;

    for (unsigned i = 0;
         i < GRACE_AT_ONCE && grace_count > 0 && rcu_passed(grace[grace_first].token); i++) {
        mappings[grace[grace_first].number].next_inside = free_head;
        free_head = grace[grace_first].number;
        grace_first = (grace_first + 1) % mapping_max;
        grace_count--;
    }
    number = free_head;
    if (number != MAPPING_NONE) {
        free_head = mappings[number].next_inside;
        return number;
    }
    return fresh < mapping_max ? fresh++ : MAPPING_NONE;
}

/* The ring has a place for each mapping. */
static void give_number(uint32_t number) {
    grace[(grace_first + grace_count++) % mapping_max] =
        (struct grace){.token = rcu_token(), .number = number};
}

static void unlink_from(uint32_t *head, uint32_t number, bool outside) {
    uint32_t *at = head;

    while (*at != number && *at != MAPPING_NONE)
        at = outside ? &mappings[*at].next_outside : &mappings[*at].next_inside;
    if (*at == number)
        __atomic_store_n(at, outside ? mappings[number].next_outside : mappings[number].next_inside,
                         __ATOMIC_RELEASE);
}

static void link_to(uint32_t *head, uint32_t number, uint32_t *next) {
    *next = *head;
    __atomic_store_n(head, number, __ATOMIC_RELEASE);
}

static void set_port(struct outside *outside, uint8_t protocol, unsigned port, bool taken) {
    uint64_t *ports = ports_of(outside, protocol);

    if (taken)
        ports[port / WORD_BITS] |= UINT64_C(1) << port % WORD_BITS;
    else
        ports[port / WORD_BITS] &= ~(UINT64_C(1) << port % WORD_BITS);
    outside->taken += taken ? 1 : UINT32_MAX;
    ports_taken += taken ? 1 : UINT32_MAX;
}

/* A port that is avoided counts as taken for this once. */
static int choose_port(const struct outside *outside, const struct nat_mapping *wanted,
                       uint16_t first, uint16_t last, uint16_t avoid, uint32_t random) {
    uint64_t *ports = ports_of(outside, wanted->protocol);
    uint64_t word = ports[avoid / WORD_BITS];
    int port;

    if (avoid != 0)
        ports[avoid / WORD_BITS] |= UINT64_C(1) << avoid % WORD_BITS;
    port = free_port(bits_of(outside, wanted->protocol), rte_be_to_cpu_16(wanted->inside_port),
                     first, last, wanted->protocol != IPPROTO_ICMP, random);
    ports[avoid / WORD_BITS] = word;
    return port;
}

static uint32_t inside_hash(uint32_t number) {
    const struct nat_mapping *mapping = &mappings[number];

    return mapping->flags & MAPPING_IPV6 ? hash6(insides6[number].address, mapping->inside_port,
                                                 mapping->protocol, mapping->inside_vrf)
                                         : hash(mapping->inside, mapping->inside_port,
                                                mapping->protocol, mapping->inside_vrf);
}

static enum nat_port_result make_locked(const struct nat_mapping *wanted,
                                        const struct nat_inside6 *inside6, uint16_t first,
                                        uint16_t last, uint16_t avoid, uint32_t random,
                                        uint32_t *number) {
    struct outside *outside = find_outside(wanted->outside, wanted->outside_vrf);
    struct nat_mapping *mapping;
    int port;

    *number = inside6
                  ? nat_mapping_of_inside6(inside6->address, wanted->inside_port, wanted->protocol,
                                           wanted->inside_vrf, wanted->outside, wanted->outside_vrf)
                  : nat_mapping_of_inside(wanted->inside, wanted->inside_port, wanted->protocol,
                                          wanted->inside_vrf, wanted->outside, wanted->outside_vrf);
    if (*number != MAPPING_NONE)
        return nat_mapping_hold(*number) ? NAT_PORT_OK : NAT_PORT_BUSY;
    if (!outside->ports)
        return NAT_PORT_NO_MAPPING;
    port = choose_port(outside, wanted, first, last, avoid, random);
    if (port < 0)
        return NAT_PORT_NONE;
    *number = take_number();
    if (*number == MAPPING_NONE)
        return NAT_PORT_NO_MAPPING;
    set_port(outside, wanted->protocol, (unsigned)port, true);
    mapping = &mappings[*number];
    *mapping = *wanted;
    mapping->outside_port = rte_cpu_to_be_16((uint16_t)port);
    mapping->references = 1;
    if (inside6) {
        mapping->flags |= MAPPING_IPV6;
        insides6[*number] = *inside6;
    }
    link_to(&inside_heads[inside_hash(*number)], *number, &mapping->next_inside);
    link_to(&outside_heads[hash(mapping->outside, mapping->outside_port, mapping->protocol,
                                mapping->outside_vrf)],
            *number, &mapping->next_outside);
    alive++;
    return NAT_PORT_OK;
}

enum nat_port_result nat_mapping_make(const struct nat_mapping *wanted,
                                      const struct nat_inside6 *inside6, uint16_t first,
                                      uint16_t last, uint16_t avoid, uint32_t random,
                                      uint32_t *number) {
    enum nat_port_result result;

    *number = MAPPING_NONE;
    if (!take_lock())
        return NAT_PORT_BUSY;
    result = make_locked(wanted, inside6, first, last, avoid, random, number);
    if (result != NAT_PORT_OK)
        *number = MAPPING_NONE;
    leave_lock();
    return result;
}

static void drop_locked(uint32_t number) {
    struct nat_mapping *mapping = &mappings[number];

    unlink_from(&inside_heads[inside_hash(number)], number, false);
    unlink_from(&outside_heads[hash(mapping->outside, mapping->outside_port, mapping->protocol,
                                    mapping->outside_vrf)],
                number, true);
    set_port(find_outside(mapping->outside, mapping->outside_vrf), mapping->protocol,
             rte_be_to_cpu_16(mapping->outside_port), false);
    alive--;
    give_number(number);
}

void nat_mapping_release(uint32_t number) {
    if (__atomic_sub_fetch(&mappings[number].references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    wait_for_lock();
    drop_locked(number);
    leave_lock();
}

uint32_t nat_mapping_count(void) {
    return alive;
}

uint32_t nat_mapping_ports_taken(void) {
    return ports_taken;
}
