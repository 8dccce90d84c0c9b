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
    ESP_REPLAY_WORDS = ESP_REPLAY_MAX / ESP_REPLAY_WORD + 1, /* one more than the window needs */
};

struct esp_replay {
    uint64_t highest; /* authenticated so far */
    uint32_t window;  /* packets; 0: nothing is refused */
    bool esn;
    uint64_t seen[ESP_REPLAY_WORDS];
};

/* `window`: at most ESP_REPLAY_MAX. `highest`: the number that packets so far have come to; 0 for a
 * new association. */
void esp_replay_init(struct esp_replay *replay, uint32_t window, bool esn, uint64_t highest);

/* The whole sequence number of a packet that carries the lower half: with extended ones the upper
 * half is the one for which the number is nearest to the window (appendix A2.2); without, it is 0.
 */
uint64_t esp_replay_sequence(const struct esp_replay *replay, uint32_t lower);

enum esp_replay_result {
    ESP_REPLAY_NEW,
    ESP_REPLAY_SEEN,
    ESP_REPLAY_TOO_OLD, /* behind the window */
    ESP_REPLAY_ZERO,    /* a number that nobody sends (section 3.3.3) */
};

/* May a packet with this number be new? Changes nothing. */
enum esp_replay_result esp_replay_check(const struct esp_replay *replay, uint64_t sequence);
/* The same for one whose check value is right, which then has been seen. */
enum esp_replay_result esp_replay_accept(struct esp_replay *replay, uint64_t sequence);
