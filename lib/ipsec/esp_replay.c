/* The window against replays. */
#include "ipsec/esp_replay.h"

#include <string.h>

void esp_replay_init(struct esp_replay *replay, uint32_t window, bool esn, uint64_t highest) {
    unsigned words = 2;

    memset(replay, 0, sizeof(*replay));
    replay->window = window < ESP_REPLAY_MAX ? window : ESP_REPLAY_MAX;
    while ((words - 1) * ESP_REPLAY_WORD < replay->window)
        words *= 2;
    replay->last_word = (uint8_t)(words - 1);
    replay->esn = esn;
    replay->highest = highest;
    /* What has come before is not known to be new. What is to come has its bits in the same word,
     * which esp_replay_advance() leaves as it is. */
    if (highest != 0) {
        memset(replay->seen, 0xff, sizeof(replay->seen));
        replay->seen[esp_replay_word(replay, highest)] =
            UINT64_MAX >> (ESP_REPLAY_WORD - 1 - highest % ESP_REPLAY_WORD);
    }
}

/* Words that the window comes to are empty; no more of them than there are. */
void esp_replay_advance(struct esp_replay *replay, uint64_t sequence) {
    uint64_t from = replay->highest / ESP_REPLAY_WORD, to = sequence / ESP_REPLAY_WORD;

    if (to - from > replay->last_word)
        memset(replay->seen, 0, (replay->last_word + 1u) * sizeof(replay->seen[0]));
    else
        for (uint64_t word = from + 1; word <= to; word++)
            replay->seen[word & replay->last_word] = 0;
    replay->highest = sequence;
}
