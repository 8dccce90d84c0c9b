/*
 * What ESP packets are encrypted and authenticated with: AES-GCM (RFC 4106) by aes_gcm.h; by
 * Intel's multi-buffer library AES-GMAC (RFC 4543) and ChaCha20-Poly1305 (RFC 7634), which do both
 * at once as well, and AES-CBC (RFC 3602), AES-CTR (RFC 3686) and NULL (RFC 2410) together with an
 * HMAC (RFC 2404, 4868). Either looks at the CPU when a worker's engine is made, and takes the
 * widest instructions that there are.
 *
 * A packet lies in one buffer: ESP header, initialization vector, payload with its padding and
 * trailer, integrity check value. Nothing here knows what is in the payload.
 *
 * Keys are zeroed when they are freed. Nothing prints them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ESP_HEADER = 8, /* SPI and sequence number */
    ESP_IV_MAX = 16,
    ESP_ICV_MAX = 32,
    ESP_KEY_MAX = 36, /* with the salt */
    ESP_AUTH_KEY_MAX = 64,
    ESP_BURST_MAX = 64,
};

/* An algorithm by its name in router.json: "aes-gcm-128", "aes-cbc-256", ... */
struct esp_cipher;
/* One that authenticates beside it: "hmac-sha256-128", ... */
struct esp_auth;

const struct esp_cipher *esp_cipher_find(const char *name);
const struct esp_auth *esp_auth_find(const char *name);
const char *esp_cipher_name(const struct esp_cipher *cipher);
const char *esp_auth_name(const struct esp_auth *auth); /* of NULL: "" */
/* The n-th algorithm, NULL past the last: for those who list them. */
const struct esp_cipher *esp_cipher_at(unsigned n);
const struct esp_auth *esp_auth_at(unsigned n);
/* Bytes of the key, the salt of RFC 4106, 3686, 4543 and 7634 (its last four bytes) included. */
unsigned esp_cipher_key_length(const struct esp_cipher *cipher);
unsigned esp_auth_key_length(const struct esp_auth *auth);
unsigned esp_cipher_salt_length(const struct esp_cipher *cipher);
/* Is there a check value of so many bytes? `auth` as for esp_key_create(). */
bool esp_icv_is_possible(const struct esp_cipher *cipher, const struct esp_auth *auth,
                         unsigned icv);
/* Does it need no algorithm beside it? */
bool esp_cipher_is_combined(const struct esp_cipher *cipher);

/* What a security association encrypts with, one direction. */
struct esp_key;

/* Lengths that follow from the algorithms. */
struct esp_sizes {
    uint8_t iv;
    uint8_t icv;
    uint8_t align; /* the encrypted part is a multiple of this; at least 4 (RFC 4303 section 2.4) */
};

/* Makes the schedules of the keys. `auth` NULL with a combined algorithm, else not. `icv`: bytes of
 * the check value, 0 for the algorithm's usual; a combined one has 8, 12 or 16 (RFC 4106 section
 * 6), but ChaCha20-Poly1305 16 alone. `esn`: the sequence numbers have 64 bits, the upper half of
 * which is authenticated but not sent (RFC 4303 section 2.2.1). NULL with errno EINVAL when the
 * algorithms or lengths do not go together, or ENOMEM. Control thread. */
struct esp_key *esp_key_create(const struct esp_cipher *cipher, const uint8_t *key,
                               const struct esp_auth *auth, const uint8_t *auth_key, unsigned icv,
                               bool esn);
void esp_key_free(struct esp_key *key);
/* Asks for the memory that a short packet with GCM needs. */
void esp_key_prefetch(const struct esp_key *key);
struct esp_sizes esp_key_sizes(const struct esp_key *key);

/* A packet to work on. */
struct esp_packet {
    const struct esp_key *key;
    uint8_t *esp;      /* the ESP header */
    uint32_t length;   /* of the encrypted part, behind the initialization vector */
    uint64_t sequence; /* all 64 bits of it; the lower half is in the header as well */
    bool failed;       /* set by esp_decrypt(): the check value is wrong */
};

/* A worker's own: the library keeps state in it. NULL when memory is out, or the CPU has no AES. */
struct esp_engine;
struct esp_engine *esp_engine_create(void);
void esp_engine_free(struct esp_engine *engine);

/* Encrypts up to ESP_BURST_MAX packets in place, initialization vectors and check values included.
 * No two may have the same sequence number with the same key: that would give their contents away
 * (RFC 4106 section 9). */
void esp_encrypt(struct esp_engine *engine, struct esp_packet *packets, unsigned count);
/* Decrypts them in place, or sets `failed`; what is in the payload is worth nothing then. */
void esp_decrypt(struct esp_engine *engine, struct esp_packet *packets, unsigned count);
