/* What the XFRM server keeps beside the databases, with fakes in their place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/event.h"
#include "interface/interface.h"
#include "ipsec/sa_life.h"
#include "ipsec/xfrm_internal.h"

/* --- fakes: the router, with one interface --- */

static struct interface wan;

struct interface *interface_next(const struct interface *previous) {
    return previous ? NULL : &wan;
}

struct ipsec_sa {
    bool used;
    struct ipsec_sa_settings settings;
    struct ipsec_sa_counters counters;
    uint64_t sequence;
    struct sa_life life;
    bool moved; /* its packets come from there, port 1024 */
};
static struct ipsec_sa sas[8];
static int add_fails;
void (*ipsec_ike_limit_reached)(const struct ipsec_sa *sa, bool hard);

static struct ipsec_sa *of_life(const struct sa_life *life) {
    return (struct ipsec_sa *)((uintptr_t)life - offsetof(struct ipsec_sa, life));
}

static void count_life(const struct sa_life *life, struct ipsec_sa_counters *out) {
    *out = of_life(life)->counters;
}

static void limit_reached(struct sa_life *life, bool hard) {
    ipsec_ike_limit_reached(of_life(life), hard);
}

const struct ipsec_sa *ipsec_sa_find(uint32_t spi, enum ipsec_direction direction,
                                     const struct ip_address *destination) {
    for (unsigned i = 0; i < 8; i++) {
        if (sas[i].used && sas[i].settings.spi == spi && sas[i].settings.direction == direction &&
            ip_address_compare(&sas[i].settings.destination, destination) == 0)
            return &sas[i];
    }
    return NULL;
}

int ipsec_sa_add(struct ipsec_sa_settings *settings, enum ipsec_owner owner) {
    int error = add_fails;

    assert_int_equal(owner, IPSEC_OF_IKE);
    add_fails = 0;
    if (error == 0 && ipsec_sa_find(settings->spi, settings->direction, &settings->destination))
        error = -EEXIST;
    for (unsigned i = 0; i < 8 && error == 0; i++) {
        if (sas[i].used)
            continue;
        sas[i] = (struct ipsec_sa){.used = true, .settings = *settings};
        sas[i].sequence = settings->sequence;
        sas[i].life = (struct sa_life){.soft = settings->soft,
                                       .hard = settings->hard,
                                       .before = settings->before,
                                       .count = count_life,
                                       .reached = limit_reached};
        if (settings->before.added == 0)
            sas[i].life.before.added = event_now();
        sa_life_begin(&sas[i].life);
        break;
    }
    memset(settings->key, 0, sizeof(settings->key));
    return error;
}

int ipsec_sa_delete(uint32_t spi, enum ipsec_direction direction,
                    const struct ip_address *destination, enum ipsec_owner owner) {
    struct ipsec_sa *sa = (struct ipsec_sa *)(uintptr_t)ipsec_sa_find(spi, direction, destination);

    (void)owner;
    if (!sa)
        return -ENOENT;
    sa->used = false;
    sa_life_end(&sa->life);
    return 0;
}

void ipsec_sa_use(const struct ipsec_sa *sa, struct ipsec_sa_use *out) {
    sa_life_use(&((struct ipsec_sa *)(uintptr_t)sa)->life, out);
}

bool ipsec_sa_new_source(const struct ipsec_sa *sa, struct ip_address *source, uint16_t *port) {
    bool moved = sa->moved;

    *source = ip4_address((uint8_t[]){203, 0, 113, 77});
    *port = 1024;
    ((struct ipsec_sa *)(uintptr_t)sa)->moved = false;
    return moved;
}

const struct ipsec_sa_settings *ipsec_sa_settings(const struct ipsec_sa *sa) {
    return &sa->settings;
}

uint64_t ipsec_sa_sequence(const struct ipsec_sa *sa) {
    return sa->sequence;
}

void ipsec_sa_counters(const struct ipsec_sa *sa, struct ipsec_sa_counters *out) {
    *out = sa->counters;
}

struct ipsec_policy {
    bool used;
    struct ipsec_policy_settings settings;
    struct ipsec_policy_counters counters;
    const struct ipsec_flow *unmet;
};
static struct ipsec_policy policies[8];
static unsigned published;

int ipsec_policy_add(const struct ipsec_policy_settings *settings, enum ipsec_owner owner,
                     struct ipsec_policy **out) {
    assert_int_equal(owner, IPSEC_OF_IKE);
    if (add_fails) {
        add_fails = 0;
        return -EEXIST;
    }
    for (unsigned i = 0; i < 8; i++) {
        if (policies[i].used)
            continue;
        policies[i] = (struct ipsec_policy){.used = true, .settings = *settings};
        *out = &policies[i];
        return 0;
    }
    return -ENOSPC;
}

void ipsec_policy_delete(struct ipsec_policy *policy) {
    assert_true(policy->used);
    policy->used = false;
}

void ipsec_policy_prefer(struct ipsec_policy *policy, uint32_t spi) {
    policy->settings.spi = spi;
}

const struct ipsec_policy_settings *ipsec_policy_settings(const struct ipsec_policy *policy) {
    return &policy->settings;
}

bool ipsec_policy_unmet(struct ipsec_policy *policy, struct ipsec_flow *out) {
    if (!policy->unmet)
        return false;
    *out = *policy->unmet;
    policy->unmet = NULL;
    return true;
}

void ipsec_policy_counters(const struct ipsec_policy *policy, struct ipsec_policy_counters *out) {
    *out = policy->counters;
}

int ipsec_publish(void) {
    published++;
    return 0;
}

static unsigned count_policies(void) {
    unsigned n = 0;

    for (unsigned i = 0; i < 8; i++)
        n += policies[i].used;
    return n;
}

/* --- fakes: the server --- */

static unsigned soft, hard, acquires, mappings;
static struct xfrm_user_mapping mapping;
static struct xfrm_user_acquire acquired;
static bool somebody_listens;

bool xfrm_notify(unsigned group, const struct nlmsghdr *message) {
    struct xfrm_user_expire expire;

    if (group == XFRMNLGRP_ACQUIRE) {
        assert_int_equal(message->nlmsg_type, XFRM_MSG_ACQUIRE);
        memcpy(&acquired, mnl_nlmsg_get_payload(message), sizeof(acquired));
        acquires += somebody_listens;
        return somebody_listens;
    }
    if (group == XFRMNLGRP_MAPPING) {
        assert_int_equal(message->nlmsg_type, XFRM_MSG_MAPPING);
        assert_int_equal(mnl_nlmsg_get_payload_len(message), sizeof(mapping));
        memcpy(&mapping, mnl_nlmsg_get_payload(message), sizeof(mapping));
        mappings++;
        return true;
    }
    assert_int_equal(group, XFRMNLGRP_EXPIRE);
    memcpy(&expire, mnl_nlmsg_get_payload(message), sizeof(expire));
    if (expire.hard)
        hard++;
    else
        soft++;
    return true;
}

void xfrm_poll_start(void) {}

/* --- associations --- */

static struct ip_address here, there;

static struct xfrm_sa some_sa(uint32_t spi, const struct ip_address *from,
                              const struct ip_address *to) {
    struct xfrm_sa sa = {0};

    sa.settings.spi = spi;
    sa.settings.source = *from;
    sa.settings.destination = *to;
    sa.settings.cipher = esp_cipher_find("aes-gcm-128");
    sa.settings.key[0] = (uint8_t)spi;
    sa.info.id.spi = htonl(spi);
    sa.info.lft.hard_byte_limit = sa.info.lft.soft_byte_limit = XFRM_INF;
    return sa;
}

static struct ipsec_sa *in_force(uint32_t spi) {
    for (unsigned i = 0; i < 8; i++) {
        if (sas[i].used && sas[i].settings.spi == spi)
            return &sas[i];
    }
    return NULL;
}

/* `msec` later, in steps, as the loop would see it. */
static void later(uint64_t msec) {
    for (; msec >= 100; msec -= 100) {
        event_advance(100);
        event_turn(0);
    }
}

static int begin(void **state) {
    (void)state;
    here = ip4_address((uint8_t[]){203, 0, 113, 1});
    there = ip4_address((uint8_t[]){203, 0, 113, 2});
    wan.address_count = 1;
    wan.addresses[0].prefix.address = here;
    wan.vrf = 3;
    memset(sas, 0, sizeof(sas));
    memset(policies, 0, sizeof(policies));
    soft = hard = acquires = mappings = published = 0;
    somebody_listens = true;
    return event_init();
}

static int end(void **state) {
    (void)state;
    xfrm_sad_flush();
    xfrm_spd_flush();
    assert_int_equal(xfrm_sad_count(), 0);
    event_free();
    return 0;
}

static void test_directions(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);

    (void)state;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    assert_int_equal(sa.settings.key[0], 0); /* the caller's key is gone */
    assert_int_equal(in_force(1000)->settings.direction, IPSEC_OUT);
    assert_int_equal(in_force(1000)->settings.vrf, 3);
    sa = some_sa(1001, &there, &here);
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    assert_int_equal(in_force(1001)->settings.direction, IPSEC_IN);
    /* Between two that are not here, only what the daemon says tells. */
    sa = some_sa(1002, &there, &there);
    assert_int_equal(xfrm_sad_put(&sa, true), 0);
    assert_int_equal(in_force(1002)->settings.direction, IPSEC_IN);
    sa = some_sa(1003, &here, &there);
    sa.has_direction = true;
    sa.settings.direction = IPSEC_IN;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    assert_int_equal(in_force(1003)->settings.direction, IPSEC_IN);
}

static void test_spis(void **state) {
    struct xfrm_spi_request request = {
        .destination = here, .least = 0xc0000000, .most = 0xc0000001};
    const struct xfrm_sa_record *first, *second, *third;
    struct xfrm_sa sa;
    struct xfrm_sa_key key;

    (void)state;
    assert_int_equal(xfrm_sad_allocate(&request, &first), 0);
    assert_int_equal(xfrm_sad_allocate(&request, &second), 0);
    assert_int_not_equal(first->key.spi, second->key.spi);
    assert_int_equal(xfrm_sad_allocate(&request, &third), -ENOENT);
    assert_int_equal(ntohl(first->sa.info.id.spi), first->key.spi);
    /* The one becomes an association, the other is forgotten. */
    key = first->key;
    sa = some_sa(key.spi, &there, &here);
    assert_int_equal(xfrm_sad_put(&sa, true), 0);
    assert_non_null(in_force(key.spi));
    assert_int_equal(xfrm_sad_count(), 2);
    later(170 * 1000);
    assert_int_equal(xfrm_sad_count(), 1);
    assert_int_equal(xfrm_sad_allocate(&request, &third), 0);
    assert_int_equal(xfrm_sad_delete(&third->key), 0);
    assert_int_equal(xfrm_sad_delete(&key), 0);
    assert_int_equal(xfrm_sad_delete(&key), -ESRCH);
    assert_null(in_force(key.spi));
}

static void test_limits_of_time(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);

    (void)state;
    sa.info.lft.soft_add_expires_seconds = 5;
    sa.info.lft.hard_add_expires_seconds = 8;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    later(4900);
    assert_int_equal(soft, 0);
    later(300);
    assert_int_equal(soft, 1);
    later(2500);
    assert_int_equal(soft, 1);
    assert_int_equal(hard, 0);
    later(500);
    assert_int_equal(hard, 1);
    assert_null(in_force(1000));
    assert_int_equal(xfrm_sad_count(), 0);
}

/* A limit that is weeks away is no reason to look at it all the time. */
static void test_limits_far_away(void **state) {
    enum { DAY_MSEC = 86400 * 1000 };
    struct xfrm_sa sa = some_sa(1000, &here, &there);

    (void)state;
    sa.info.lft.soft_add_expires_seconds = 30 * 86400;
    sa.info.lft.hard_add_expires_seconds = UINT64_MAX - 1;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    for (unsigned days = 0; days < 29; days++) {
        event_advance(DAY_MSEC);
        event_turn(0);
        assert_true(event_timer_armed(&in_force(1000)->life.timer));
        assert_true(in_force(1000)->life.timer.deadline > event_now() + 1000);
    }
    assert_int_equal(soft, 0);
    event_advance(DAY_MSEC);
    event_turn(0);
    assert_int_equal(soft, 1);
    event_advance(DAY_MSEC);
    event_turn(0);
    assert_true(in_force(1000)->life.timer.deadline > event_now() + 1000);
    assert_int_equal(soft, 1);
    assert_int_equal(hard, 0);
}

static void test_limits_of_use(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);

    (void)state;
    sa.info.lft.soft_byte_limit = 1000;
    sa.info.lft.hard_packet_limit = 20;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    in_force(1000)->counters.bytes = 999;
    later(1000);
    assert_int_equal(soft, 0);
    in_force(1000)->counters.bytes = 1000;
    later(600);
    assert_int_equal(soft, 1);
    later(1000);
    assert_int_equal(soft, 1);
    in_force(1000)->counters.packets = 20;
    later(600);
    assert_int_equal(hard, 1);
    assert_null(in_force(1000));
    assert_int_equal(xfrm_sad_count(), 0);
}

static void test_limits_since_the_first_packet(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);

    (void)state;
    sa.info.lft.soft_use_expires_seconds = 3;
    sa.info.lft.hard_use_expires_seconds = 6;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    later(20000);
    assert_int_equal(soft, 0);
    in_force(1000)->counters.packets = 1;
    later(3000);
    assert_int_equal(soft, 0);
    later(1000);
    assert_int_equal(soft, 1);
    assert_int_equal(hard, 0);
    later(3000);
    assert_int_equal(hard, 1);
    assert_null(in_force(1000));
}

/* What an association counted goes on in the one that takes its place. */
static void test_limits_go_on_in_its_successor(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);

    (void)state;
    sa.info.lft.hard_packet_limit = 20;
    sa.info.lft.hard_add_expires_seconds = 100;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    in_force(1000)->counters.packets = 15;
    later(60 * 1000);
    sa = some_sa(1000, &here, &there);
    sa.info.lft.hard_packet_limit = 20;
    sa.info.lft.hard_add_expires_seconds = 100;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    in_force(1000)->counters.packets = 4;
    later(30 * 1000);
    assert_int_equal(hard, 0);
    later(11 * 1000);
    assert_int_equal(hard, 1);
    assert_null(in_force(1000));
}

/* --- peers behind a NAT --- */

static void test_packets_from_elsewhere(void **state) {
    struct xfrm_sa sa = some_sa(1000, &there, &here);

    (void)state;
    sa.settings.source_port = sa.settings.destination_port = 4500;
    sa.info.reqid = 7;
    sa.info.family = AF_INET;
    sa.info.id.proto = IPPROTO_ESP;
    memcpy(&sa.info.saddr, there.bytes, 4);
    assert_int_equal(xfrm_sad_put(&sa, true), 0);
    assert_true(xfrm_sad_poll());
    assert_int_equal(mappings, 0);
    in_force(1000)->moved = true;
    assert_true(xfrm_sad_poll());
    assert_int_equal(mappings, 1);
    assert_int_equal(mapping.id.spi, htonl(1000));
    assert_int_equal(mapping.id.proto, IPPROTO_ESP);
    assert_int_equal(mapping.id.family, AF_INET);
    assert_int_equal(mapping.reqid, 7);
    assert_memory_equal(&mapping.old_saddr, there.bytes, 4);
    assert_memory_equal(&mapping.new_saddr, ((uint8_t[]){203, 0, 113, 77}), 4);
    assert_int_equal(mapping.old_sport, htons(4500));
    assert_int_equal(mapping.new_sport, htons(1024));
    /* Not again for each packet, but again. */
    in_force(1000)->moved = true;
    xfrm_sad_poll();
    later(4000);
    xfrm_sad_poll();
    assert_int_equal(mappings, 1);
    later(1100);
    xfrm_sad_poll();
    assert_int_equal(mappings, 2);
}

/* Outbound, and without UDP, nobody looks. */
static void test_others_come_from_where_they_say(void **state) {
    struct xfrm_sa sa = some_sa(1000, &there, &here);

    (void)state;
    assert_int_equal(xfrm_sad_put(&sa, true), 0);
    sa = some_sa(1001, &here, &there);
    sa.settings.source_port = sa.settings.destination_port = 4500;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    assert_int_equal(in_force(1001)->settings.direction, IPSEC_OUT);
    in_force(1000)->moved = in_force(1001)->moved = true;
    assert_false(xfrm_sad_poll());
    assert_int_equal(mappings, 0);
}

/* A daemon whose address changes deletes and adds it anew. */
static void test_goes_on(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);
    struct xfrm_sa_key key = {1000, there};
    struct xfrm_sa_state now;

    (void)state;
    sa.has_replay = sa.has_use = true;
    sa.sent = 77;
    sa.received = 88;
    sa.use = (struct xfrm_lifetime_cur){
        .bytes = 5000, .packets = 50, .add_time = (uint64_t)time(NULL) - 100};
    sa.info.lft.hard_add_expires_seconds = 103;
    later(200 * 1000); /* so that the association can be older than the loop's beginning */
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    assert_int_equal(in_force(1000)->sequence, 77);
    in_force(1000)->counters.bytes = 10;
    xfrm_sad_state((struct xfrm_sa_record *)(uintptr_t)xfrm_sad_find(&key), &now);
    assert_int_equal(now.use.bytes, 5010);
    assert_int_equal(now.sequence, 77);
    later(2000);
    assert_int_equal(hard, 0);
    later(3000);
    assert_int_equal(hard, 1);
}

/* Behind a number that has been sent, and what workers may send meanwhile; but not far. */
static void assert_goes_on_behind(uint64_t sent) {
    assert_in_range(in_force(1000)->sequence, sent + 1, sent + 100 * 1000);
}

/* Numbers never begin again with the same keys. */
static void test_replaces(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);
    struct xfrm_sa_key key = {1000, there};

    (void)state;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    in_force(1000)->sequence = 500;
    sa = some_sa(1000, &here, &there);
    sa.settings.request = 5;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    assert_goes_on_behind(500);
    assert_int_equal(in_force(1000)->settings.request, 5);
    sa = some_sa(1000, &here, &there);
    sa.settings.key[0] = 99;
    assert_int_equal(xfrm_sad_put(&sa, false), 0);
    assert_int_equal(in_force(1000)->sequence, 0);
    assert_int_equal(xfrm_sad_count(), 1);
    /* What cannot be replaced stays. */
    in_force(1000)->sequence = 9;
    sa = some_sa(1000, &here, &there);
    add_fails = -EINVAL;
    assert_int_equal(xfrm_sad_put(&sa, false), -EINVAL);
    assert_goes_on_behind(9);
    assert_int_equal(in_force(1000)->settings.key[0], 99);
    /* And numbers can be set, but not back. */
    sa = (struct xfrm_sa){.has_replay = true, .sent = 123456};
    assert_int_equal(xfrm_sad_set_replay(&key, &sa), 0);
    assert_int_equal(in_force(1000)->sequence, 123456);
    sa.sent = 1234;
    assert_int_equal(xfrm_sad_set_replay(&key, &sa), 0);
    assert_goes_on_behind(123456);
    assert_int_equal(in_force(1000)->settings.key[0], 99);
}

static void test_refused_is_forgotten(void **state) {
    struct xfrm_sa sa = some_sa(1000, &here, &there);

    (void)state;
    add_fails = -EEXIST;
    assert_int_equal(xfrm_sad_put(&sa, false), -EEXIST);
    assert_int_equal(xfrm_sad_count(), 0);
    sa = some_sa(1001, &there, &here);
    sa.settings.source_port = 4500;
    sa.settings.destination_port = 4501;
    assert_int_equal(xfrm_sad_put(&sa, true), -EOPNOTSUPP);
}

/* --- policies --- */

static struct xfrm_policy some_policy(uint8_t dir, uint32_t request) {
    struct xfrm_policy policy;

    memset(&policy, 0, sizeof(policy));
    policy.info.dir = dir;
    policy.info.sel.family = AF_INET;
    policy.info.sel.proto = 6;
    policy.settings.direction = dir == XFRM_POLICY_OUT ? IPSEC_OUT : IPSEC_IN;
    policy.settings.action = IPSEC_PROTECT;
    policy.settings.request = request;
    policy.local = here;
    policy.has_template = true;
    return policy;
}

static struct xfrm_policy_key key_of(const struct xfrm_policy *policy) {
    struct xfrm_policy_key key;

    memset(&key, 0, sizeof(key));
    key.id.sel = policy->info.sel;
    key.id.dir = policy->info.dir;
    key.if_id = policy->settings.if_id;
    return key;
}

static void put(uint8_t dir, uint32_t request) {
    struct xfrm_policy policy = some_policy(dir, request);

    assert_int_equal(xfrm_spd_put(&policy), 0);
}

static void delete_policy(uint8_t dir) {
    struct xfrm_policy policy = some_policy(dir, 0);
    struct xfrm_policy_key key = key_of(&policy);

    assert_int_equal(xfrm_spd_delete(&key), 0);
    assert_int_equal(xfrm_spd_delete(&key), -ENOENT);
}

/* In and fwd are one; whichever comes or goes first. */
static void test_in_and_forward(void **state) {
    static const uint8_t orders[4][4] = {
        {XFRM_POLICY_IN, XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_FWD},
        {XFRM_POLICY_IN, XFRM_POLICY_FWD, XFRM_POLICY_FWD, XFRM_POLICY_IN},
        {XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_IN, XFRM_POLICY_FWD},
        {XFRM_POLICY_FWD, XFRM_POLICY_IN, XFRM_POLICY_FWD, XFRM_POLICY_IN},
    };
    uint32_t counts[XFRM_POLICY_MAX];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        put(orders[i][0], 5);
        assert_int_equal(count_policies(), 1);
        published = 0;
        put(orders[i][1], 5);
        assert_int_equal(count_policies(), 1);
        assert_int_equal(published, 0);
        xfrm_spd_count(counts);
        assert_int_equal(counts[XFRM_POLICY_IN] + counts[XFRM_POLICY_FWD], 2);
        delete_policy(orders[i][2]);
        assert_int_equal(count_policies(), 1);
        delete_policy(orders[i][3]);
        assert_int_equal(count_policies(), 0);
    }
    /* If they differ, the one for in decides as long as it is there. */
    put(XFRM_POLICY_FWD, 6);
    put(XFRM_POLICY_IN, 5);
    assert_int_equal(count_policies(), 1);
    assert_int_equal(policies[0].settings.request, 5);
    delete_policy(XFRM_POLICY_IN);
    assert_int_equal(count_policies(), 1);
    assert_int_equal(policies[0].settings.request, 6);
}

/* Route-based tunnels have the same selector each: everything. */
static void test_tunnel_interfaces(void **state) {
    struct xfrm_policy one = some_policy(XFRM_POLICY_IN, 5), other = one, forward = one;
    struct xfrm_policy_key key;

    (void)state;
    one.settings.if_id = 1;
    other.settings.if_id = 2;
    forward.info.dir = XFRM_POLICY_FWD;
    forward.settings.if_id = 2;
    assert_int_equal(xfrm_spd_put(&one), 0);
    assert_int_equal(xfrm_spd_put(&other), 0);
    assert_int_equal(count_policies(), 2);
    assert_int_equal(xfrm_spd_put(&forward), 0);
    assert_int_equal(count_policies(), 2);
    key = key_of(&one);
    assert_int_equal(xfrm_spd_find(&key)->policy.settings.if_id, 1);
    assert_int_equal(xfrm_spd_delete(&key), 0);
    assert_int_equal(xfrm_spd_delete(&key), -ENOENT);
    assert_int_equal(count_policies(), 1);
    key.if_id = 0;
    assert_null(xfrm_spd_find(&key));
}

static void test_rekeying_publishes_nothing(void **state) {
    struct xfrm_policy policy = some_policy(XFRM_POLICY_OUT, 5);
    struct xfrm_policy_key key = key_of(&policy);

    (void)state;
    policy.settings.spi = 1000;
    assert_int_equal(xfrm_spd_put(&policy), 0);
    assert_int_equal(published, 1);
    assert_int_equal(policies[0].settings.vrf, 3);
    policy.settings.spi = 1001;
    assert_int_equal(xfrm_spd_put(&policy), 0);
    assert_int_equal(published, 1);
    assert_int_equal(policies[0].settings.spi, 1001);
    policy.settings.priority = 9;
    assert_int_equal(xfrm_spd_put(&policy), 0);
    assert_int_equal(published, 2);
    assert_int_equal(count_policies(), 1);
    /* Somebody else has such a policy: the one before stays. */
    policy.settings.priority = 10;
    add_fails = 1;
    assert_int_equal(xfrm_spd_put(&policy), -EEXIST);
    assert_int_equal(count_policies(), 1);
    assert_int_equal(xfrm_spd_find(&key)->in_force->settings.priority, 9);
}

static void test_use(void **state) {
    struct xfrm_policy policy = some_policy(XFRM_POLICY_FWD, 5);
    struct xfrm_policy_key key = key_of(&policy);

    (void)state;
    put(XFRM_POLICY_IN, 5);
    put(XFRM_POLICY_FWD, 5);
    assert_int_equal(xfrm_spd_find(&key)->used, 0);
    policies[0].counters.packets = 3;
    later(1000);
    assert_int_equal(xfrm_spd_find(&key)->used, event_now());
    later(1000);
    assert_true(xfrm_spd_find(&key)->used < event_now());
}

static void test_acquires(void **state) {
    const struct ipsec_flow flow = {here, there, IPPROTO_TCP, 1000, 443};

    (void)state;
    put(XFRM_POLICY_OUT, 5);
    assert_true(xfrm_spd_poll());
    assert_int_equal(acquires, 0);
    somebody_listens = false;
    policies[0].counters.without_sa = 1;
    xfrm_spd_poll();
    somebody_listens = true;
    policies[0].counters.without_sa = 2;
    policies[0].unmet = &flow;
    xfrm_spd_poll();
    assert_int_equal(acquires, 1);
    assert_memory_equal(&acquired.sel.saddr, here.bytes, 4);
    assert_memory_equal(&acquired.sel.daddr, there.bytes, 4);
    assert_int_equal(acquired.sel.prefixlen_s, 32);
    assert_int_equal(acquired.sel.dport, htons(443));
    policies[0].counters.without_sa = 3;
    xfrm_spd_poll(); /* not twice in a second */
    assert_int_equal(acquires, 1);
    later(1100);
    xfrm_spd_poll();
    assert_int_equal(acquires, 2);
    assert_int_not_equal(acquired.sel.prefixlen_s, 32); /* no packet was kept */
    later(1100);
    xfrm_spd_poll(); /* no packets since */
    assert_int_equal(acquires, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_directions, begin, end),
        cmocka_unit_test_setup_teardown(test_spis, begin, end),
        cmocka_unit_test_setup_teardown(test_limits_of_time, begin, end),
        cmocka_unit_test_setup_teardown(test_limits_far_away, begin, end),
        cmocka_unit_test_setup_teardown(test_limits_of_use, begin, end),
        cmocka_unit_test_setup_teardown(test_limits_since_the_first_packet, begin, end),
        cmocka_unit_test_setup_teardown(test_limits_go_on_in_its_successor, begin, end),
        cmocka_unit_test_setup_teardown(test_packets_from_elsewhere, begin, end),
        cmocka_unit_test_setup_teardown(test_others_come_from_where_they_say, begin, end),
        cmocka_unit_test_setup_teardown(test_goes_on, begin, end),
        cmocka_unit_test_setup_teardown(test_replaces, begin, end),
        cmocka_unit_test_setup_teardown(test_refused_is_forgotten, begin, end),
        cmocka_unit_test_setup_teardown(test_in_and_forward, begin, end),
        cmocka_unit_test_setup_teardown(test_tunnel_interfaces, begin, end),
        cmocka_unit_test_setup_teardown(test_rekeying_publishes_nothing, begin, end),
        cmocka_unit_test_setup_teardown(test_use, begin, end),
        cmocka_unit_test_setup_teardown(test_acquires, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
