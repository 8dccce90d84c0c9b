/*
 * AES-GCM (NIST SP 800-38D) as ESP uses it: nonces of 12 bytes, at most one block of additional
 * data, one packet per call, in place.
 *
 * Takes less time than the multi-buffer library (docs/performance.md): all blocks of a short packet
 * are on their way through the cipher together, and GHASH is reduced once for up to 20 blocks, by
 * the powers of its key. GHASH is computed as POLYVAL, which needs no bit reversal (RFC 8452
 * appendix A). Neither branches nor addresses depend on secrets.
 */
#pragma once

#include <emmintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { AES_GCM_POWERS = 20, AES_GCM_OWNER = 44 };

/* A key that is used seldom is far away in memory. What a short packet needs of it therefore stands
 * together: the low powers, the owner's, the round keys. */
struct aes_gcm_key {
    /* The hash key to the powers of 20 down to 1, and of each its two halves added up. */
    __m128i folded[AES_GCM_POWERS], power[AES_GCM_POWERS];
    unsigned rounds;              /* 10, 12 or 14 */
    uint8_t owner[AES_GCM_OWNER]; /* for who keeps the key; never touched here */
    __m128i round[15];
};

/* Instructions that work on one, two or four blocks at once. All want AES-NI and PCLMULQDQ, the
 * others VAES and VPCLMULQDQ as well. */
enum aes_gcm_width { AES_GCM_SSE, AES_GCM_AVX2, AES_GCM_AVX512 };

/* Takes the widest instructions that this machine has, but none wider than `at_most`. Before the
 * first packet; until then, one block at once. Returns what it took. */
enum aes_gcm_width aes_gcm_init(enum aes_gcm_width at_most);

/* For all of a key's life but `owner`. `round_keys`: rounds + 1 times 16 bytes, as the key
 * expansion gives them. */
void aes_gcm_prepare(struct aes_gcm_key *key, const uint8_t *round_keys, unsigned rounds);

/* `nonce`: in memory order, with 0, 0, 0, 1 behind its 12 bytes. `aad`: with zeros behind its
 * `aad_length` bytes, which are at most 16. Up to 16 bytes behind the data are read, and written
 * back as they were. Returns the tag, of which the caller takes as many bytes as it wants. */
__m128i aes_gcm_encrypt(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                        __m128i nonce, __m128i aad, unsigned aad_length);
/* The tag of what was in `data`; whether it is right is the caller's to see. */
__m128i aes_gcm_decrypt(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                        __m128i nonce, __m128i aad, unsigned aad_length);
