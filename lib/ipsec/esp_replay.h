/*
 * Protection against replayed packets: RFC 4303 section 3.4.3, and appendix A for extended sequence
 * numbers. A window of bits behind the highest number that has been authenticated, as a ring of
 * words (RFC 6479), so that it never has to be shifted.
 *
 * A packet is looked at twice: before its check value is verified, so that a replay costs no
 * cryptography, and afterwards, when it counts. One caller at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    ESP_REPLAY_MAX = 4096, /* packets */
    ESP_REPLAY_WORD = 64,
    ESP_REPLAY_WORDS = 2 * ESP_REPLAY_MAX / ESP_REPLAY_WORD,
};

struct esp_replay {
    uint64_t highest; /* authenticated so far */
    uint32_t window;  /* packets; 0: nothing is refused */
    bool esn;
    /* Words of the ring, less one: a power of two, and at least one word more than the window
     * needs. So those of a small window stand beside the rest, which counts where there are many.
     */
    uint8_t last_word;
    uint64_t seen[ESP_REPLAY_WORDS];
};

/* `window`: at most ESP_REPLAY_MAX. `highest`: the number that packets so far have come to; 0 for a
 * new association. */
void esp_replay_init(struct esp_replay *replay, uint32_t window, bool esn, uint64_t highest);

/* The whole sequence number of a packet that carries the lower half: with extended ones the upper
 * half is the one for which the number is nearest to the window (appendix A2.2); without, it is 0.
 *
 * The window's lower edge lies in this half or in the one before; a number below it belongs to the
 * next one. Without a window half of all numbers are taken for late ones, since packets change
 * their order all the same. */
static inline uint64_t esp_replay_sequence(const struct esp_replay *replay, uint32_t lower) {
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

enum esp_replay_result {
    ESP_REPLAY_NEW,
    ESP_REPLAY_SEEN,
    ESP_REPLAY_TOO_OLD, /* behind the window */
    ESP_REPLAY_ZERO,    /* a number that nobody sends (section 3.3.3) */
};

static inline uint64_t esp_replay_bit(uint64_t sequence) {
    return UINT64_C(1) << sequence % ESP_REPLAY_WORD;
}

static inline unsigned esp_replay_word(const struct esp_replay *replay, uint64_t sequence) {
    return sequence / ESP_REPLAY_WORD & replay->last_word;
}

/* May a packet with this number be new? Changes nothing. */
static inline enum esp_replay_result esp_replay_check(const struct esp_replay *replay,
                                                      uint64_t sequence) {
    if (replay->window == 0)
        return ESP_REPLAY_NEW;
    if (sequence == 0)
        return ESP_REPLAY_ZERO;
    if (sequence > replay->highest)
        return ESP_REPLAY_NEW;
    if (replay->highest - sequence >= replay->window)
        return ESP_REPLAY_TOO_OLD;
    return replay->seen[esp_replay_word(replay, sequence)] & esp_replay_bit(sequence)
               ? ESP_REPLAY_SEEN
               : ESP_REPLAY_NEW;
}

/* The window moves to a higher number: what it comes to is empty. For esp_replay_accept(). */
void esp_replay_advance(struct esp_replay *replay, uint64_t sequence);

/* As esp_replay_check(), for one whose check value is right, which then has been seen. */
static inline enum esp_replay_result esp_replay_accept(struct esp_replay *replay,
                                                       uint64_t sequence) {
    enum esp_replay_result result = esp_replay_check(replay, sequence);

    if (result != ESP_REPLAY_NEW)
        return result;
    if (sequence > replay->highest) {
        if (replay->window == 0 || sequence / ESP_REPLAY_WORD == replay->highest / ESP_REPLAY_WORD)
            replay->highest = sequence;
        else
            esp_replay_advance(replay, sequence);
    }
    if (replay->window == 0)
        return ESP_REPLAY_NEW;
    replay->seen[esp_replay_word(replay, sequence)] |= esp_replay_bit(sequence);
    return ESP_REPLAY_NEW;
}
