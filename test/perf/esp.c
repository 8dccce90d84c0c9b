/*
 * How many ESP packets a second one core encrypts and decrypts, by the cryptography alone: bursts
 * of 64 packets that stay in the cache.
 *
 *     esp CIPHER AUTHENTICATION|- BYTES SECONDS
 *
 * BYTES are those of the encrypted part. Prints packets per second: encrypted, decrypted.
 */
#include <rte_common.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipsec/esp_crypto.h"

enum { ROOM = 2048, BURSTS_AT_ONCE = 100 };

static double now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double rate(struct esp_engine *engine, struct esp_packet *packets, double seconds,
                   void (*work)(struct esp_engine *engine, struct esp_packet *packets,
                                unsigned count)) {
    double start = now(), spent;
    unsigned bursts = 0;

    do {
        for (unsigned i = 0; i < BURSTS_AT_ONCE; i++)
            work(engine, packets, ESP_BURST_MAX);
        bursts += BURSTS_AT_ONCE;
        spent = now() - start;
    } while (spent < seconds);
    return (double)bursts * ESP_BURST_MAX / spent;
}

int main(int argc, char **argv) {
    static uint8_t frames[ESP_BURST_MAX][ROOM] __rte_aligned(64);
    static const uint8_t secret[ESP_AUTH_KEY_MAX] = "any key will do";
    const struct esp_cipher *cipher = argc == 5 ? esp_cipher_find(argv[1]) : NULL;
    const struct esp_auth *auth = argc == 5 ? esp_auth_find(argv[2]) : NULL;
    struct esp_key *key = cipher ? esp_key_create(cipher, secret, auth, secret, 0, false) : NULL;
    struct esp_engine *engine = esp_engine_create();
    struct esp_packet packets[ESP_BURST_MAX];
    uint32_t length;
    double encrypted;

    if (!key || !engine) {
        fprintf(stderr, "usage: esp CIPHER AUTHENTICATION|- BYTES SECONDS\n");
        return EXIT_FAILURE;
    }
    length = (uint32_t)RTE_ALIGN_CEIL(atoi(argv[3]), (int)esp_key_sizes(key).align);
    for (unsigned i = 0; i < ESP_BURST_MAX; i++)
        packets[i] = (struct esp_packet){
            .key = key, .esp = frames[i] + 64, .length = RTE_MIN(length, 1600u), .sequence = i + 1};
    encrypted = rate(engine, packets, atof(argv[4]), esp_encrypt);
    /* What has been decrypted is no packet any more, but takes as long to decrypt again. */
    printf("%.0f %.0f\n", encrypted, rate(engine, packets, atof(argv[4]), esp_decrypt));
    esp_key_free(key);
    esp_engine_free(engine);
    return EXIT_SUCCESS;
}
