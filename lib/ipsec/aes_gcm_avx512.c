/*
 * AES-GCM with four blocks to a register (AVX-512, VAES, VPCLMULQDQ).
 *
 * A packet is taken as blocks that begin 16 bytes before its data. The block there stands for the
 * additional data in the hash, and for the nonce in the cipher, whose key stream hides the tag; so
 * both begin where the data do, one block earlier, and an ESP packet of 64 bytes is one register.
 * What is not data is masked: neither read nor written.
 *
 * Of a long packet, four registers at a time are hashed without adding up their four lanes. Each
 * lane is multiplied by the same power, and what that is too much for the second to fourth lane,
 * the powers at the end make up for.
 */
#include <stdbool.h>
#include <stddef.h>

#include "ipsec/aes_gcm_internal.h"

#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")))
#define WIDE_INLINE static inline WIDE __attribute__((always_inline))

enum {
    BLOCK = AES_GCM_BLOCK,
    LANES = 4, /* blocks in a register */
    REGISTER = LANES * BLOCK,
    REGISTERS = 4, /* that are hashed together */
    CHUNK = REGISTERS * LANES,
    /* At least as many blocks are at the end as a register has, so that no power there is less than
     * 1, and never as many as a chunk more. */
    END_MAX = CHUNK + LANES - 1,
    END_REGISTERS = (END_MAX + LANES - 1) / LANES,
};

_Static_assert((int)END_MAX <= (int)AES_GCM_POWERS, "each block at the end has a power of its own");

_Static_assert(offsetof(struct aes_gcm_key, power) +
                       (AES_GCM_POWERS + LANES - 1) * sizeof(__m128i) <=
                   sizeof(struct aes_gcm_key),
               "what is read behind the last power is in the key as well");

#define ALL_BYTES (~(__mmask64)0)
#define NOT_FIRST_BLOCK (ALL_BYTES << BLOCK)

WIDE_INLINE __m512i reverse(__m512i blocks) {
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));

    return _mm512_shuffle_epi8(blocks, order);
}

WIDE_INLINE __m512i round_key(const struct aes_gcm_key *key, unsigned r) {
    return _mm512_broadcast_i32x4(key->round[r]);
}

/* The next registers of counters, with the first round key. */
WIDE_INLINE void next_counters(const struct aes_gcm_key *key, __m512i *counter, __m512i *stream,
                               unsigned count) {
    const __m512i lanes =
        _mm512_set_epi32(0, 0, 0, LANES, 0, 0, 0, LANES, 0, 0, 0, LANES, 0, 0, 0, LANES);

    for (unsigned i = 0; i < count; i++) {
        stream[i] = _mm512_xor_si512(reverse(*counter), round_key(key, 0));
        *counter = _mm512_add_epi32(*counter, lanes);
    }
}

WIDE_INLINE void encrypt_round(const struct aes_gcm_key *key, __m512i *stream, unsigned count,
                               unsigned r) {
    for (unsigned i = 0; i < count; i++)
        stream[i] = _mm512_aesenc_epi128(stream[i], round_key(key, r));
}

/* From the tenth round on: 10, 12 or 14 there are. */
WIDE_INLINE void last_rounds(const struct aes_gcm_key *key, __m512i *stream, unsigned count) {
    for (unsigned r = 10; r < key->rounds; r++)
        encrypt_round(key, stream, count, r);
    for (unsigned i = 0; i < count; i++)
        stream[i] = _mm512_aesenclast_epi128(stream[i], round_key(key, key->rounds));
}

/* The next `count` registers of key stream. */
WIDE_INLINE void key_stream(const struct aes_gcm_key *key, __m512i *counter, __m512i *stream,
                            unsigned count) {
    next_counters(key, counter, stream, count);
    for (unsigned r = 1; r < 10; r++)
        encrypt_round(key, stream, count, r);
    last_rounds(key, stream, count);
}

/* Puts key stream over the bytes of the mask. Returns what is to be hashed of them. */
WIDE_INLINE __m512i mix(uint8_t *place, __mmask64 mask, __m512i stream, bool encrypt) {
    __m512i in = _mm512_maskz_loadu_epi8(mask, place);
    __m512i out = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(in, stream));

    _mm512_mask_storeu_epi8(place, mask, out);
    return reverse(encrypt ? out : in);
}

/* --- the hash --- */

struct product {
    __m512i low, middle, high;
};

WIDE_INLINE __m512i fold(__m512i a) {
    return _mm512_xor_si512(a, _mm512_shuffle_epi32(a, _MM_PERM_BADC));
}

WIDE_INLINE __m512i xor3(__m512i a, __m512i b, __m512i c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

WIDE_INLINE void add_product(struct product *sum, __m512i a, __m512i b) {
    sum->low = _mm512_xor_si512(sum->low, _mm512_clmulepi64_epi128(a, b, 0x00));
    sum->high = _mm512_xor_si512(sum->high, _mm512_clmulepi64_epi128(a, b, 0x11));
    sum->middle = _mm512_xor_si512(sum->middle, _mm512_clmulepi64_epi128(fold(a), fold(b), 0x00));
}

/* Each lane for itself; as aes_gcm_reduce(). */
WIDE_INLINE __m512i reduce(const struct product *sum) {
    const __m512i polynomial = _mm512_set1_epi64((long long)0xc200000000000000);
    __m512i middle = xor3(sum->middle, sum->low, sum->high);
    __m512i low = _mm512_xor_si512(sum->low, _mm512_bslli_epi128(middle, 8));
    __m512i high = _mm512_xor_si512(sum->high, _mm512_bsrli_epi128(middle, 8));

    low = _mm512_xor_si512(_mm512_shuffle_epi32(low, _MM_PERM_BADC),
                           _mm512_clmulepi64_epi128(low, polynomial, 0x10));
    return xor3(high, _mm512_shuffle_epi32(low, _MM_PERM_BADC),
                _mm512_clmulepi64_epi128(low, polynomial, 0x10));
}

WIDE_INLINE __m128i lanes_added(__m512i a) {
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));

    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* --- a packet --- */

/* Where it has got to. */
struct progress {
    uint8_t *place;  /* of the next block */
    unsigned blocks; /* left: the first one, those of the data, and the one with the lengths */
    unsigned bytes;  /* left, from `place` on to the end of the data */
    __mmask64 first; /* which bytes of the next register are data, if there are enough */
    __m512i counter; /* of the next register; lanes are reversed */
    __m512i hash;    /* to be added to what the next register has */
    __m128i hides_tag;
};

WIDE_INLINE void keep_first(struct progress *at, __m512i stream) {
    if (at->first != ALL_BYTES)
        at->hides_tag = _mm512_castsi512_si128(stream);
    at->first = ALL_BYTES;
}

WIDE_INLINE void mix_chunk(struct progress *at, const __m512i *stream, __m512i *hashed,
                           bool encrypt) {
    for (unsigned i = 0; i < REGISTERS; i++)
        hashed[i] = mix(at->place + (size_t)REGISTER * i, i == 0 ? at->first : ALL_BYTES, stream[i],
                        encrypt);
    hashed[0] = _mm512_xor_si512(hashed[0], at->hash);
    at->place += (size_t)REGISTER * REGISTERS;
    at->blocks -= CHUNK;
    at->bytes -= REGISTER * REGISTERS;
}

/* While a chunk is encrypted, the one before is hashed. */
WIDE_INLINE void long_part(const struct aes_gcm_key *key, struct progress *at, bool encrypt) {
    const __m512i zero = _mm512_setzero_si512();
    __m512i power[REGISTERS], stream[REGISTERS], hashed[REGISTERS];
    struct product sum = {zero, zero, zero};

    for (unsigned i = 0; i < REGISTERS; i++)
        power[i] = _mm512_broadcast_i32x4(key->power[aes_gcm_at(CHUNK - LANES * i)]);
    key_stream(key, &at->counter, stream, REGISTERS);
    mix_chunk(at, stream, hashed, encrypt);
    keep_first(at, stream[0]);
    while (at->blocks > END_MAX) {
        next_counters(key, &at->counter, stream, REGISTERS);
        for (unsigned r = 1; r < 10; r++) {
            encrypt_round(key, stream, REGISTERS, r);
            if (r % 2 == 1 && r / 2 < REGISTERS)
                add_product(&sum, hashed[r / 2], power[r / 2]);
        }
        at->hash = reduce(&sum);
        sum = (struct product){zero, zero, zero};
        last_rounds(key, stream, REGISTERS);
        mix_chunk(at, stream, hashed, encrypt);
    }
    for (unsigned i = 0; i < REGISTERS; i++)
        add_product(&sum, hashed[i], power[i]);
    at->hash = reduce(&sum);
}

/* All that is left, in `count` registers. Returns the tag. */
WIDE_INLINE __m128i end_in(const struct aes_gcm_key *key, struct progress *at, __m128i lengths,
                           unsigned count, bool encrypt) {
    const __m512i zero = _mm512_setzero_si512();
    const __m128i *powers = &key->power[aes_gcm_at(at->blocks)];
    const __mmask16 last_lane = (__mmask16)(0xf << (at->blocks - 1) % LANES * 4);
    struct product sum = {zero, zero, zero};
    struct aes_gcm_product added;
    __m512i stream[END_REGISTERS];

    key_stream(key, &at->counter, stream, count);
    for (unsigned i = 0; i < count; i++) {
        const int left = (int)at->bytes - (int)(REGISTER * i);
        __mmask64 mask = i == 0 ? at->first : ALL_BYTES;
        __m512i hashed;

        /* Only the last two can have bytes that are not data. */
        if (i + 2 >= count)
            mask &=
                left > 0 ? _bzhi_u64(ALL_BYTES, (unsigned)(left < REGISTER ? left : REGISTER)) : 0;
        hashed = mix(at->place + (size_t)REGISTER * i, mask, stream[i], encrypt);
        if (i == 0)
            hashed = _mm512_xor_si512(hashed, at->hash);
        if (i == count - 1)
            hashed = _mm512_xor_si512(hashed, _mm512_maskz_broadcast_i32x4(last_lane, lengths));
        /* Lanes behind the last block are 0, whatever is read as a power for them. */
        add_product(&sum, hashed, _mm512_loadu_si512(powers + (size_t)LANES * i));
    }
    keep_first(at, stream[0]);
    added = (struct aes_gcm_product){lanes_added(sum.low), lanes_added(sum.middle),
                                     lanes_added(sum.high)};
    return _mm_xor_si128(aes_gcm_reverse(aes_gcm_reduce(&added)), at->hides_tag);
}

WIDE_INLINE __m128i end(const struct aes_gcm_key *key, struct progress *at, __m128i lengths,
                        bool encrypt) {
    switch ((at->blocks + LANES - 1) / LANES) {
    case 1:
        return end_in(key, at, lengths, 1, encrypt);
    case 2:
        return end_in(key, at, lengths, 2, encrypt);
    case 3:
        return end_in(key, at, lengths, 3, encrypt);
    case 4:
        return end_in(key, at, lengths, 4, encrypt);
    default:
        return end_in(key, at, lengths, END_REGISTERS, encrypt);
    }
}

WIDE_INLINE __m128i run(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                        __m128i nonce, __m128i aad, unsigned aad_length, bool encrypt) {
    const __m128i lengths = _mm_set_epi64x((long long)aad_length * 8, (long long)length * 8);
    const __m512i lanes = _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0);
    struct progress at = {
        .place = data - BLOCK,
        .blocks = 1 + (length + BLOCK - 1) / BLOCK + 1,
        .bytes = BLOCK + length,
        .first = NOT_FIRST_BLOCK,
        .counter = _mm512_add_epi32(_mm512_broadcast_i32x4(aes_gcm_reverse(nonce)), lanes),
        .hash = _mm512_zextsi128_si512(aes_gcm_reverse(aad)),
    };

    if (at.blocks > END_MAX)
        long_part(key, &at, encrypt);
    return end(key, &at, lengths, encrypt);
}

WIDE __m128i aes_gcm_encrypt_avx512(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                                    __m128i nonce, __m128i aad, unsigned aad_length) {
    return run(key, data, length, nonce, aad, aad_length, true);
}

WIDE __m128i aes_gcm_decrypt_avx512(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                                    __m128i nonce, __m128i aad, unsigned aad_length) {
    return run(key, data, length, nonce, aad, aad_length, false);
}
