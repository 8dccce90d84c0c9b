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

/* Words that the window comes to are empty; no more of them than there are. */
void esp_replay_advance(struct esp_replay *replay, uint64_t sequence) {
    uint64_t from = replay->highest / ESP_REPLAY_WORD, to = sequence / ESP_REPLAY_WORD;

    if (to - from >= ESP_REPLAY_WORDS)
        memset(replay->seen, 0, sizeof(replay->seen));
    else
        for (uint64_t word = from + 1; word <= to; word++)
            replay->seen[word % ESP_REPLAY_WORDS] = 0;
    replay->highest = sequence;
}
