/* The window against replays, against a plain list of all that has been accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "ipsec/esp_replay.h"

static uint32_t random_state = 1;

static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)(((uint64_t)(random_state >> 8) * below) >> 24);
}

static void test_in_order(void **state) {
    struct esp_replay replay;

    (void)state;
    esp_replay_init(&replay, 64, false, 0);
    for (uint64_t n = 1; n < 100000; n++) {
        assert_int_equal(esp_replay_check(&replay, n), ESP_REPLAY_NEW);
        assert_int_equal(esp_replay_accept(&replay, n), ESP_REPLAY_NEW);
        assert_int_equal(esp_replay_check(&replay, n), ESP_REPLAY_SEEN);
        assert_int_equal(esp_replay_accept(&replay, n), ESP_REPLAY_SEEN);
    }
    assert_int_equal(esp_replay_check(&replay, 0), ESP_REPLAY_ZERO);
}

static void test_the_edge_of_the_window(void **state) {
    static const uint32_t windows[] = {1, 32, 63, 64, 65, 128, 1000, 4095, 4096};

    (void)state;
    for (unsigned i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
        struct esp_replay replay;

        esp_replay_init(&replay, windows[i], false, 0);
        assert_int_equal(esp_replay_accept(&replay, 10000), ESP_REPLAY_NEW);
        assert_int_equal(esp_replay_check(&replay, 10000 - windows[i]), ESP_REPLAY_TOO_OLD);
        if (windows[i] > 1)
            assert_int_equal(esp_replay_accept(&replay, 10000 - windows[i] + 1), ESP_REPLAY_NEW);
        assert_int_equal(esp_replay_check(&replay, 10000 - windows[i] + 1), ESP_REPLAY_SEEN);
    }
}

/* A check alone leaves nothing behind: what has a wrong check value must not count. */
static void test_a_check_changes_nothing(void **state) {
    struct esp_replay replay, before;

    (void)state;
    esp_replay_init(&replay, 128, true, 0);
    esp_replay_accept(&replay, 77);
    before = replay;
    assert_int_equal(esp_replay_check(&replay, UINT64_C(1) << 40), ESP_REPLAY_NEW);
    assert_int_equal(esp_replay_check(&replay, 76), ESP_REPLAY_NEW);
    assert_memory_equal(&replay, &before, sizeof(replay));
}

static void test_without_a_window(void **state) {
    struct esp_replay replay;

    (void)state;
    esp_replay_init(&replay, 0, false, 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(esp_replay_accept(&replay, 5), ESP_REPLAY_NEW);
}

/* Numbers that jump about, against all that was accepted before. */
static void test_against_a_list(void **state) {
    static const uint32_t windows[] = {1, 32, 64, 65, 100, 128, 129, 1024, 4096};
    enum { NUMBERS = 400000 };
    uint8_t *accepted = calloc(NUMBERS, 1);

    (void)state;
    for (unsigned w = 0; w < sizeof(windows) / sizeof(windows[0]); w++) {
        uint64_t highest = 0, base = 0;
        struct esp_replay replay;

        memset(accepted, 0, NUMBERS);
        esp_replay_init(&replay, windows[w], false, 0);
        for (unsigned i = 0; i < 300000 && base < NUMBERS - 40000; i++) {
            uint32_t reach = draw(100) == 0 ? 20000 : draw(4) == 0 ? 2 * windows[w] + 3 : 5;
            uint64_t number = base + draw(reach);
            enum esp_replay_result expected = number == 0                      ? ESP_REPLAY_ZERO
                                              : number > highest               ? ESP_REPLAY_NEW
                                              : highest - number >= windows[w] ? ESP_REPLAY_TOO_OLD
                                              : accepted[number]               ? ESP_REPLAY_SEEN
                                                                               : ESP_REPLAY_NEW;

            assert_int_equal(esp_replay_check(&replay, number), expected);
            assert_int_equal(esp_replay_accept(&replay, number), expected);
            if (expected == ESP_REPLAY_NEW)
                accepted[number] = 1;
            highest = number > highest ? number : highest;
            base = highest > windows[w] ? highest - draw(windows[w] + 2) : 0;
        }
        assert_true(highest > 10000);
    }
    free(accepted);
}

/* RFC 4303 appendix A: the upper half is not sent. Whatever is within half of the space of the
 * window is found again, also where the lower half begins anew. */
static void test_extended_numbers(void **state) {
    static const uint32_t windows[] = {1, 64, 4096};
    static const uint64_t around[] = {5000,
                                      UINT32_MAX,
                                      UINT64_C(1) << 32,
                                      (UINT64_C(1) << 32) + 1,
                                      (UINT64_C(1) << 32) + 4000,
                                      UINT64_C(0x7ffffffff),
                                      UINT64_C(0x123400000010)};

    (void)state;
    for (unsigned w = 0; w < sizeof(windows) / sizeof(windows[0]); w++) {
        for (unsigned i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
            struct esp_replay replay;

            esp_replay_init(&replay, windows[w], true, 0);
            esp_replay_accept(&replay, around[i]);
            for (uint32_t back = 0; back < windows[w]; back++)
                assert_true(esp_replay_sequence(&replay, (uint32_t)(around[i] - back)) ==
                            around[i] - back);
            for (uint32_t ahead = 1; ahead < 200000; ahead += 1 + ahead / 3)
                assert_true(esp_replay_sequence(&replay, (uint32_t)(around[i] + ahead)) ==
                            around[i] + ahead);
        }
    }
}

static void test_the_lower_half_begins_anew(void **state) {
    const uint64_t wrap = UINT64_C(1) << 32;
    struct esp_replay replay;

    (void)state;
    esp_replay_init(&replay, 64, true, 0);
    esp_replay_accept(&replay, wrap - 100);
    for (uint64_t n = wrap - 90; n < wrap + 90; n += 3) {
        uint64_t whole = esp_replay_sequence(&replay, (uint32_t)n);

        assert_true(whole == n);
        assert_int_equal(esp_replay_accept(&replay, whole), ESP_REPLAY_NEW);
        assert_int_equal(
            esp_replay_accept(&replay, esp_replay_sequence(&replay, (uint32_t)(n - 1))),
            ESP_REPLAY_NEW);
        assert_int_equal(esp_replay_accept(&replay, esp_replay_sequence(&replay, (uint32_t)n)),
                         ESP_REPLAY_SEEN);
    }
    /* Without extended ones there is nothing above. */
    esp_replay_init(&replay, 64, false, 0);
    esp_replay_accept(&replay, UINT32_MAX);
    assert_true(esp_replay_sequence(&replay, 5) == 5);
    assert_int_equal(esp_replay_check(&replay, 5), ESP_REPLAY_TOO_OLD);
}

/* Taken over from somebody else: all that was before may have been seen. */
static void test_a_window_that_goes_on(void **state) {
    struct esp_replay replay;

    (void)state;
    esp_replay_init(&replay, 64, false, 1000);
    assert_int_equal(esp_replay_check(&replay, 1000), ESP_REPLAY_SEEN);
    assert_int_equal(esp_replay_check(&replay, 990), ESP_REPLAY_SEEN);
    assert_int_equal(esp_replay_accept(&replay, 1001), ESP_REPLAY_NEW);
    assert_int_equal(esp_replay_accept(&replay, 1003), ESP_REPLAY_NEW);
    assert_int_equal(esp_replay_accept(&replay, 1002), ESP_REPLAY_NEW);
    assert_int_equal(esp_replay_accept(&replay, 1200), ESP_REPLAY_NEW);
    assert_int_equal(esp_replay_accept(&replay, 1150), ESP_REPLAY_NEW);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_the_edge_of_the_window),
        cmocka_unit_test(test_a_check_changes_nothing),
        cmocka_unit_test(test_without_a_window),
        cmocka_unit_test(test_against_a_list),
        cmocka_unit_test(test_extended_numbers),
        cmocka_unit_test(test_the_lower_half_begins_anew),
        cmocka_unit_test(test_a_window_that_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
