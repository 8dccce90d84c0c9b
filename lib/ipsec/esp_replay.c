/* The window against replays. */
#include "ipsec/esp_replay.h"

#include <string.h>

void esp_replay_init(struct esp_replay *replay, uint32_t window, bool esn, uint64_t highest) {
    memset(replay, 0, sizeof(*replay));
    replay->window = window < ESP_REPLAY_MAX ? window : ESP_REPLAY_MAX;
    replay->esn = esn;
    replay->highest = highest;
    /* What has come before is not known to be new. */
    if (highest != 0)
        memset(replay->seen, 0xff, sizeof(replay->seen));
}

/* The window's lower edge lies in this half or in the one before; a number below it belongs to the
 * next one. Without a window half of all numbers are taken for late ones, since packets change
 * their order all the same. */
uint64_t esp_replay_sequence(const struct esp_replay *replay, uint32_t lower) {
    uint32_t top = (uint32_t)replay->highest, high = (uint32_t)(replay->highest >> 32);
    uint32_t window = replay->window ? replay->window : UINT32_C(1) << 31;
    uint32_t edge = top - window + 1;

    if (!replay->esn)
        return lower;
    if (top >= window - 1) /* case A: all of it in one half */
        high += lower < edge;
    else if (lower >= edge && high > 0) /* case B: it reaches back into the one before */
        high--;
    return (uint64_t)high << 32 | lower;
}

static uint64_t *word_of(struct esp_replay *replay, uint64_t sequence) {
    return &replay->seen[sequence / ESP_REPLAY_WORD % ESP_REPLAY_WORDS];
}

static uint64_t bit_of(uint64_t sequence) {
    return UINT64_C(1) << sequence % ESP_REPLAY_WORD;
}

enum esp_replay_result esp_replay_check(const struct esp_replay *replay, uint64_t sequence) {
    if (replay->window == 0)
        return ESP_REPLAY_NEW;
    if (sequence == 0)
        return ESP_REPLAY_ZERO;
    if (sequence > replay->highest)
        return ESP_REPLAY_NEW;
    if (replay->highest - sequence >= replay->window)
        return ESP_REPLAY_TOO_OLD;
    return replay->seen[sequence / ESP_REPLAY_WORD % ESP_REPLAY_WORDS] & bit_of(sequence)
               ? ESP_REPLAY_SEEN
               : ESP_REPLAY_NEW;
}

/* Words that the window comes to are empty; no more of them than there are. */
static void advance(struct esp_replay *replay, uint64_t sequence) {
    uint64_t from = replay->highest / ESP_REPLAY_WORD, to = sequence / ESP_REPLAY_WORD;

    if (to - from >= ESP_REPLAY_WORDS)
        memset(replay->seen, 0, sizeof(replay->seen));
    else
        for (uint64_t word = from + 1; word <= to; word++)
            replay->seen[word % ESP_REPLAY_WORDS] = 0;
    replay->highest = sequence;
}

enum esp_replay_result esp_replay_accept(struct esp_replay *replay, uint64_t sequence) {
    enum esp_replay_result result = esp_replay_check(replay, sequence);

    if (result != ESP_REPLAY_NEW)
        return result;
    if (sequence > replay->highest)
        advance(replay, sequence);
    *word_of(replay, sequence) |= bit_of(sequence);
    return ESP_REPLAY_NEW;
}
