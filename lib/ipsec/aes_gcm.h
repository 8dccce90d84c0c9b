/*
 * AES-GCM (NIST SP 800-38D) as ESP uses it: nonces of 12 bytes, at most one block of additional
 * data, one packet per call, in place.
 *
 * For CPUs with AES-NI and carry-less multiplication but without AVX-512, where this takes less
 * time than the multi-buffer library (docs/performance.md). All blocks of a short packet are on
 * their way through the cipher together, and GHASH is reduced once for up to nine blocks, by the
 * powers of its key. GHASH is computed as POLYVAL, which needs no bit reversal (RFC 8452 appendix
 * A). Neither branches nor addresses depend on secrets.
 */
#pragma once

#include <emmintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { AES_GCM_POWERS = 16, AES_GCM_OWNER = 44 };

/* A key that is used seldom is far away in memory. What a short packet needs of it therefore stands
 * together: the low powers, the owner's, the round keys. */
struct aes_gcm_key {
    /* The hash key to the powers of 16 down to 1, and of each its two halves added up. */
    __m128i folded[AES_GCM_POWERS], power[AES_GCM_POWERS];
    unsigned rounds;              /* 10, 12 or 14 */
    uint8_t owner[AES_GCM_OWNER]; /* for who keeps the key; never touched here */
    __m128i round[15];
};

/* Is this faster here than the library? So where there is no AVX-512 for that to use. */
bool aes_gcm_is_faster(void);

/* Looks at the CPU for the instructions that work on two blocks at once, and takes them if there
 * are any and `wide` allows it. Before the first packet. Returns whether it did. */
bool aes_gcm_init(bool wide);

/* For all of a key's life but `owner`. `round_keys`: rounds + 1 times 16 bytes, as the key
 * expansion gives them. */
void aes_gcm_prepare(struct aes_gcm_key *key, const uint8_t *round_keys, unsigned rounds);

/* `aad_length`: at most 16. Up to 16 bytes behind the data are read, and written back as they were.
 * The tag is 16 bytes, of which the caller takes as many as it wants. */
void aes_gcm_encrypt(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                     const uint8_t nonce[12], const uint8_t *aad, unsigned aad_length,
                     uint8_t tag[16]);
/* The tag of what was in `data`; whether it is right is the caller's to see. */
void aes_gcm_decrypt(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                     const uint8_t nonce[12], const uint8_t *aad, unsigned aad_length,
                     uint8_t tag[16]);
