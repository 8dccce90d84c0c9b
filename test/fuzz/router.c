/* The whole router, between a fuzzer and its checks. */
#include "router.h"

#include <stdio.h>

#include "bytes.h"
#include "core/event.h"
#include "core/rcu.h"
#include "l3/neighbour.h"

enum { CHECK_EACH = 64, BACK_AT_ONCE = 4, IPV6_LEAST_MTU = 1280 };

unsigned fuzz_mtu[PLACES] = {FUZZ_MTU_MAX, FUZZ_MTU_MAX, FUZZ_MTU_MAX, FUZZ_MTU_MAX, FUZZ_MTU_MAX};
void (*fuzz_has_left)(enum place place, const struct frame *frame);
void (*fuzz_forgets)(void);

static unsigned buffers;    /* out of the pools at the start */
static unsigned inputs;     /* since the last check */
static unsigned check_each; /* inputs */

/* Workers live in memory that LeakSanitizer does not look into, so that what was made for them at
 * the start seems to be lost. */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void) {
    return "leak:LLVMFuzzerInitialize\n";
}

void fuzz_check(bool condition, const char *what, const struct frame *frame) {
    if (condition)
        return;
    frame_print(what, frame);
    abort();
}

static void check_ipv4(const uint8_t *ip, unsigned length, unsigned mtu,
                       const struct frame *frame) {
    unsigned header = (ip[0] & 15u) * 4;

    fuzz_check(ip[0] >> 4 == 4 && header >= 20 && header <= length, "header", frame);
    fuzz_check(get16(ip + 2) == length, "total length", frame);
    fuzz_check(fold16(sum16(0, ip, header)) == 0xffff, "header checksum", frame);
    fuzz_check(ip[8] != 0, "no hops left", frame);
    fuzz_check(ip[16] < 224 && ip[16] != 127 && ip[16] != 0, "destination", frame);
    fuzz_check(length <= mtu, "longer than the MTU", frame);
}

static void check_ipv6(const uint8_t *ip, unsigned length, unsigned mtu,
                       const struct frame *frame) {
    fuzz_check(ip[0] >> 4 == 6 && length >= 40, "header", frame);
    fuzz_check(get16(ip + 4) == length - 40, "payload length", frame);
    fuzz_check(ip[7] != 0, "no hops left", frame);
    fuzz_check(length <= mtu || mtu < IPV6_LEAST_MTU, "longer than the MTU", frame);
}

/* Is it something that a router may send by this port? */
static void check_sent(enum place place, const struct frame *frame) {
    const uint8_t mac[6] = {2, 0, 0, 0, (uint8_t)place, 1};
    unsigned at = frame_ip_offset(frame), type;
    const uint8_t *ip = frame->bytes + at;

    fuzz_check(frame->length >= 14 && at <= 18, "no Ethernet frame", frame);
    fuzz_check(frame->length <= at + FUZZ_MTU_MAX, "longer than the MTU", frame);
    fuzz_check(memcmp(frame->bytes + 6, mac, 6) == 0, "not from the router's MAC address", frame);
    type = get16(ip - 2);
    fuzz_check(type == 0x0800 || type == 0x86dd || type == 0x0806, "unknown type", frame);
    if (type == 0x0800)
        check_ipv4(ip, frame->length - at, fuzz_mtu[place], frame);
    else if (type == 0x86dd)
        check_ipv6(ip, frame->length - at, fuzz_mtu[place], frame);
    if (fuzz_has_left)
        fuzz_has_left(place, frame);
}

void fuzz_take_all(bool back) {
    struct frame *found;

    turn();
    for (enum place place = LAN; place < PLACES; place++) {
        for (unsigned count = 0; (found = take_waiting(place)) != NULL; count++) {
            check_sent(place, found);
            if (back && count < BACK_AT_ONCE)
                inject(place, found);
        }
    }
}

static void repair_ipv4(uint8_t *ip, unsigned length) {
    unsigned header = ip[0] >> 4 == 4 && (ip[0] & 15u) >= 5 ? (ip[0] & 15u) * 4 : 20;

    header = header <= length ? header : 20;
    ip[0] = (uint8_t)(4 << 4 | header / 4);
    put16(ip + 2, length);
    put16(ip + 10, 0);
    put16(ip + 10, (uint16_t)~fold16(sum16(0, ip, header)));
}

void fuzz_repair(enum place place, struct frame *frame) {
    uint8_t *ip = frame->bytes + IP;
    unsigned length = frame->length - IP;

    if (frame->length < IP + 20)
        return;
    if ((frame->bytes[0] & 1) == 0)
        memcpy(frame->bytes, (const uint8_t[]){2, 0, 0, 0, (uint8_t)place, 1}, 6);
    if (get16(ip - 2) == 0x86dd && length >= 40) {
        ip[0] = (uint8_t)(6 << 4 | (ip[0] & 15));
        put16(ip + 4, length - 40);
    } else if (get16(ip - 2) == 0x0800) {
        repair_ipv4(ip, length);
    }
}

/* In a few long steps: for a timer they are not different from many short ones. */
void fuzz_pass(unsigned pause) {
    static const unsigned msec[] = {0, 100, 600, 7750}, steps[] = {0, 1, 2, 4};

    for (unsigned i = 0; i < steps[pause]; i++) {
        event_advance(msec[pause]);
        turn();
    }
}

/* What inputs have left behind: learnt neighbours, and packets that wait for others. */
static void forget(void) {
    fuzz_take_all(false);
    if (fuzz_forgets)
        fuzz_forgets();
    neighbour_flush(0);
    fuzz_take_all(false);
    advance(300);
    fuzz_take_all(false);
    /* Fragments wait for two seconds, those of ESP for up to three, and are found a few at each
     * turn. */
    event_advance(3500);
    for (unsigned i = 0; i < 2000 && buffers_in_use() != buffers; i++)
        turn();
    fuzz_take_all(false);
    discard(ANYWHERE); /* what a timer has sent since the port was looked at */
    frames_free();
    inputs = 0;
}

void fuzz_start(const char *program, const char *configuration) {
    const char *each = getenv("FUZZ_CHECK_EACH");

    harness_init(program, &(struct harness_options){0});
    check_each = each ? (unsigned)atoi(each) : CHECK_EACH;
    start(configuration);
    forget();
    buffers = buffers_in_use();
}

void fuzz_end_input(void) {
    fuzz_take_all(false);
    if (++inputs < check_each) {
        frames_free();
        return;
    }
    forget();
    if (buffers_in_use() == buffers)
        return;
    fprintf(stderr, "%u packet buffers are out, %u were at the start\n", buffers_in_use(), buffers);
    abort();
}
