/* What the ways to compute AES-GCM share: blocks of 16 bytes, and the hash as POLYVAL. */
#pragma once

#include <immintrin.h>

#include "ipsec/aes_gcm.h"

enum { AES_GCM_BLOCK = 16 };

/* A hash is computed over blocks whose bytes are reversed, and so are counters added up. */
static inline __m128i aes_gcm_reverse(__m128i block) {
    const __m128i order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    return _mm_shuffle_epi8(block, order);
}

/* A sum of products of 256 bits. `middle` is the product of the operands' folded halves: three
 * multiplications instead of four (Karatsuba). */
struct aes_gcm_product {
    __m128i low, middle, high;
};

/* Montgomery's reduction modulo x^128 + x^127 + x^126 + x^121 + 1: the sum times x^-128. */
static inline __m128i aes_gcm_reduce(const struct aes_gcm_product *sum) {
    const __m128i polynomial = _mm_set_epi64x((long long)0xc200000000000000, 1);
    __m128i middle = _mm_xor_si128(sum->middle, _mm_xor_si128(sum->low, sum->high));
    __m128i low = _mm_xor_si128(sum->low, _mm_slli_si128(middle, 8));
    __m128i high = _mm_xor_si128(sum->high, _mm_srli_si128(middle, 8));

    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, polynomial, 0x10));
    low = _mm_xor_si128(_mm_shuffle_epi32(low, 0x4e), _mm_clmulepi64_si128(low, polynomial, 0x10));
    return _mm_xor_si128(high, low);
}

/* The place of a power of the hash key. */
static inline unsigned aes_gcm_at(unsigned power) {
    return AES_GCM_POWERS - power;
}

/* Encrypts, or decrypts, and returns the tag: as aes_gcm_encrypt() and aes_gcm_decrypt() do, for
 * CPUs with AVX-512, VAES and VPCLMULQDQ. */
__m128i aes_gcm_encrypt_avx512(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                               __m128i nonce, __m128i aad, unsigned aad_length);
__m128i aes_gcm_decrypt_avx512(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                               __m128i nonce, __m128i aad, unsigned aad_length);
