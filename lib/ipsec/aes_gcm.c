/* AES-GCM by AES-NI and PCLMULQDQ, a block or two to a register; and which way a machine takes. */
#include <rte_cpuflags.h>
#include <stdbool.h>

#include "ipsec/aes_gcm_internal.h"

enum {
    BLOCK = AES_GCM_BLOCK,
    CHUNK = 8, /* blocks in the loop over long packets */
};

static enum aes_gcm_width width;

/* --- the hash, as POLYVAL --- */

static inline __m128i fold(__m128i a) {
    return _mm_xor_si128(a, _mm_shuffle_epi32(a, 0x4e));
}

static inline void add_product(struct aes_gcm_product *sum, __m128i a, __m128i b,
                               __m128i folded_b) {
    sum->low = _mm_xor_si128(sum->low, _mm_clmulepi64_si128(a, b, 0x00));
    sum->high = _mm_xor_si128(sum->high, _mm_clmulepi64_si128(a, b, 0x11));
    sum->middle = _mm_xor_si128(sum->middle, _mm_clmulepi64_si128(fold(a), folded_b, 0x00));
}

static inline __m128i multiply(__m128i a, __m128i b) {
    struct aes_gcm_product product = {_mm_setzero_si128(), _mm_setzero_si128(),
                                      _mm_setzero_si128()};

    add_product(&product, a, b, fold(b));
    return aes_gcm_reduce(&product);
}

/* GHASH's key to POLYVAL's: bytes reversed, and times x. */
static __m128i times_x(__m128i a) {
    uint64_t low = (uint64_t)_mm_cvtsi128_si64(a);
    uint64_t high = (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(a, a));
    uint64_t carry = -(high >> 63);

    high = high << 1 | low >> 63;
    low <<= 1;
    return _mm_set_epi64x((long long)(high ^ (carry & UINT64_C(0xc200000000000000))),
                          (long long)(low ^ (carry & 1)));
}

/* --- the cipher --- */

#define INLINE static inline __attribute__((always_inline))

INLINE void encrypt_blocks(const struct aes_gcm_key *key, __m128i *block, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        block[i] = _mm_xor_si128(block[i], key->round[0]);
    for (unsigned r = 1; r < 10; r++) {
        for (unsigned i = 0; i < count; i++)
            block[i] = _mm_aesenc_si128(block[i], key->round[r]);
    }
    for (unsigned r = 10; r < key->rounds; r++) {
        for (unsigned i = 0; i < count; i++)
            block[i] = _mm_aesenc_si128(block[i], key->round[r]);
    }
    for (unsigned i = 0; i < count; i++)
        block[i] = _mm_aesenclast_si128(block[i], key->round[key->rounds]);
}

void aes_gcm_prepare(struct aes_gcm_key *key, const uint8_t *round_keys, unsigned rounds) {
    __m128i hash = _mm_setzero_si128();

    key->rounds = rounds;
    for (unsigned i = 0; i <= rounds; i++)
        key->round[i] = _mm_loadu_si128((const __m128i *)(round_keys + (size_t)BLOCK * i));
    encrypt_blocks(key, &hash, 1);
    key->power[aes_gcm_at(1)] = times_x(aes_gcm_reverse(hash));
    for (unsigned i = 2; i <= AES_GCM_POWERS; i++)
        key->power[aes_gcm_at(i)] =
            multiply(key->power[aes_gcm_at(i - 1)], key->power[aes_gcm_at(1)]);
    for (unsigned i = 1; i <= AES_GCM_POWERS; i++)
        key->folded[aes_gcm_at(i)] = fold(key->power[aes_gcm_at(i)]);
}

/* Counter blocks, kept with their bytes reversed so that the counter can be added to. */
INLINE __m128i next_counter(__m128i *reversed) {
    *reversed = _mm_add_epi32(*reversed, _mm_set_epi32(0, 0, 0, 1));
    return aes_gcm_reverse(*reversed);
}

INLINE __m128i load(const uint8_t *from) {
    return _mm_loadu_si128((const __m128i *)from);
}

INLINE void store(uint8_t *to, __m128i value) {
    _mm_storeu_si128((__m128i *)to, value);
}

/* The first `length` bytes of a block are ones. */
INLINE __m128i first_bytes(unsigned length) {
    static const uint8_t ones[2 * BLOCK] __rte_aligned(BLOCK) = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                                                 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                                                 0xff, 0xff, 0xff, 0xff};

    return load(ones + BLOCK - length);
}

/* --- long packets: eight blocks at a time --- */

/* Encrypts eight counters while the eight blocks of ciphertext before are hashed. */
INLINE __m128i step(const struct aes_gcm_key *key, __m128i block[CHUNK],
                    const __m128i before[CHUNK], __m128i hash) {
    struct aes_gcm_product sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};

    for (unsigned i = 0; i < CHUNK; i++)
        block[i] = _mm_xor_si128(block[i], key->round[0]);
    for (unsigned r = 0; r < CHUNK; r++) {
        __m128i hashed = r == 0 ? _mm_xor_si128(before[0], hash) : before[r];

        for (unsigned i = 0; i < CHUNK; i++)
            block[i] = _mm_aesenc_si128(block[i], key->round[r + 1]);
        add_product(&sum, hashed, key->power[aes_gcm_at(CHUNK - r)],
                    key->folded[aes_gcm_at(CHUNK - r)]);
    }
    for (unsigned r = CHUNK + 1; r < key->rounds; r++) {
        for (unsigned i = 0; i < CHUNK; i++)
            block[i] = _mm_aesenc_si128(block[i], key->round[r]);
    }
    for (unsigned i = 0; i < CHUNK; i++)
        block[i] = _mm_aesenclast_si128(block[i], key->round[key->rounds]);
    return aes_gcm_reduce(&sum);
}

INLINE __m128i hash_chunk(const struct aes_gcm_key *key, const __m128i before[CHUNK],
                          __m128i hash) {
    struct aes_gcm_product sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};

    for (unsigned r = 0; r < CHUNK; r++)
        add_product(&sum, r == 0 ? _mm_xor_si128(before[0], hash) : before[r],
                    key->power[aes_gcm_at(CHUNK - r)], key->folded[aes_gcm_at(CHUNK - r)]);
    return aes_gcm_reduce(&sum);
}

/* Puts the key stream over the data; what is to be hashed, reversed, into `hashed`. */
INLINE void mix(uint8_t *data, const __m128i *stream, __m128i *hashed, bool encrypt) {
    for (unsigned i = 0; i < CHUNK; i++) {
        __m128i in = load(data + (size_t)BLOCK * i), out = _mm_xor_si128(in, stream[i]);

        store(data + (size_t)BLOCK * i, out);
        hashed[i] = aes_gcm_reverse(encrypt ? out : in);
    }
}

INLINE uint8_t *long_part(const struct aes_gcm_key *key, uint8_t *data, unsigned chunks,
                          __m128i *counter, __m128i *hash, bool encrypt) {
    __m128i block[CHUNK], hashed[CHUNK];

    for (unsigned i = 0; i < CHUNK; i++)
        block[i] = next_counter(counter);
    encrypt_blocks(key, block, CHUNK);
    mix(data, block, hashed, encrypt);
    data += CHUNK * BLOCK;
    while (--chunks > 0) {
        for (unsigned i = 0; i < CHUNK; i++)
            block[i] = next_counter(counter);
        *hash = step(key, block, hashed, *hash);
        mix(data, block, hashed, encrypt);
        data += CHUNK * BLOCK;
    }
    *hash = hash_chunk(key, hashed, *hash);
    return data;
}

/* --- the same with two blocks to a register (VAES, VPCLMULQDQ) --- */

#define WIDE __attribute__((target("avx2,vaes,vpclmulqdq")))
#define WIDE_INLINE static inline WIDE __attribute__((always_inline))

enum { WIDE_CHUNK = 16, PAIRS = WIDE_CHUNK / 2 };

WIDE_INLINE __m256i reverse_wide(__m256i pair) {
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));

    return _mm256_shuffle_epi8(pair, order);
}

WIDE_INLINE __m256i round_key(const struct aes_gcm_key *key, unsigned r) {
    return _mm256_broadcastsi128_si256(key->round[r]);
}

struct product_wide {
    __m256i low, middle, high;
};

WIDE_INLINE void add_product_wide(struct product_wide *sum, const struct aes_gcm_key *key,
                                  __m256i a, unsigned pair) {
    const unsigned place = aes_gcm_at(WIDE_CHUNK) + 2 * pair;
    __m256i b = _mm256_loadu_si256((const __m256i *)&key->power[place]);
    __m256i folded = _mm256_loadu_si256((const __m256i *)&key->folded[place]);
    __m256i halves = _mm256_xor_si256(a, _mm256_shuffle_epi32(a, 0x4e));

    sum->low = _mm256_xor_si256(sum->low, _mm256_clmulepi64_epi128(a, b, 0x00));
    sum->high = _mm256_xor_si256(sum->high, _mm256_clmulepi64_epi128(a, b, 0x11));
    sum->middle = _mm256_xor_si256(sum->middle, _mm256_clmulepi64_epi128(halves, folded, 0x00));
}

WIDE_INLINE __m128i both(__m256i a) {
    return _mm_xor_si128(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}

WIDE_INLINE __m128i reduce_wide(const struct product_wide *sum) {
    const struct aes_gcm_product narrow = {both(sum->low), both(sum->middle), both(sum->high)};

    return aes_gcm_reduce(&narrow);
}

WIDE_INLINE void counters_wide(__m128i *counter, __m256i *pair) {
    __m256i next = _mm256_set_m128i(_mm_add_epi32(*counter, _mm_set_epi32(0, 0, 0, 2)),
                                    _mm_add_epi32(*counter, _mm_set_epi32(0, 0, 0, 1)));

    for (unsigned i = 0; i < PAIRS; i++) {
        pair[i] = reverse_wide(next);
        next = _mm256_add_epi32(next, _mm256_set_epi32(0, 0, 0, 2, 0, 0, 0, 2));
    }
    *counter = _mm_add_epi32(*counter, _mm_set_epi32(0, 0, 0, WIDE_CHUNK));
}

WIDE_INLINE void encrypt_wide(const struct aes_gcm_key *key, __m256i *pair) {
    for (unsigned i = 0; i < PAIRS; i++)
        pair[i] = _mm256_xor_si256(pair[i], round_key(key, 0));
    for (unsigned r = 1; r < key->rounds; r++) {
        for (unsigned i = 0; i < PAIRS; i++)
            pair[i] = _mm256_aesenc_epi128(pair[i], round_key(key, r));
    }
    for (unsigned i = 0; i < PAIRS; i++)
        pair[i] = _mm256_aesenclast_epi128(pair[i], round_key(key, key->rounds));
}

WIDE_INLINE __m256i with_hash(__m256i first, __m128i hash) {
    return _mm256_xor_si256(first, _mm256_inserti128_si256(_mm256_setzero_si256(), hash, 0));
}

WIDE_INLINE __m128i step_wide(const struct aes_gcm_key *key, __m256i *pair, const __m256i *before,
                              __m128i hash) {
    const __m256i zero = _mm256_setzero_si256();
    struct product_wide sum = {zero, zero, zero};

    for (unsigned i = 0; i < PAIRS; i++)
        pair[i] = _mm256_xor_si256(pair[i], round_key(key, 0));
    for (unsigned r = 0; r < PAIRS; r++) {
        for (unsigned i = 0; i < PAIRS; i++)
            pair[i] = _mm256_aesenc_epi128(pair[i], round_key(key, r + 1));
        add_product_wide(&sum, key, r == 0 ? with_hash(before[0], hash) : before[r], r);
    }
    for (unsigned r = PAIRS + 1; r < key->rounds; r++) {
        for (unsigned i = 0; i < PAIRS; i++)
            pair[i] = _mm256_aesenc_epi128(pair[i], round_key(key, r));
    }
    for (unsigned i = 0; i < PAIRS; i++)
        pair[i] = _mm256_aesenclast_epi128(pair[i], round_key(key, key->rounds));
    return reduce_wide(&sum);
}

WIDE_INLINE void mix_wide(uint8_t *data, const __m256i *stream, __m256i *hashed, bool encrypt) {
    for (unsigned i = 0; i < PAIRS; i++) {
        __m256i *place = (__m256i *)(data + (size_t)2 * BLOCK * i);
        __m256i in = _mm256_loadu_si256(place), out = _mm256_xor_si256(in, stream[i]);

        _mm256_storeu_si256(place, out);
        hashed[i] = reverse_wide(encrypt ? out : in);
    }
}

static WIDE __attribute__((noinline)) uint8_t *wide_part(const struct aes_gcm_key *key,
                                                         uint8_t *data, unsigned chunks,
                                                         __m128i *counter, __m128i *hash,
                                                         bool encrypt) {
    const __m256i zero = _mm256_setzero_si256();
    struct product_wide sum = {zero, zero, zero};
    __m256i pair[PAIRS], hashed[PAIRS];

    counters_wide(counter, pair);
    encrypt_wide(key, pair);
    mix_wide(data, pair, hashed, encrypt);
    data += WIDE_CHUNK * BLOCK;
    while (--chunks > 0) {
        counters_wide(counter, pair);
        *hash = step_wide(key, pair, hashed, *hash);
        mix_wide(data, pair, hashed, encrypt);
        data += WIDE_CHUNK * BLOCK;
    }
    for (unsigned r = 0; r < PAIRS; r++)
        add_product_wide(&sum, key, r == 0 ? with_hash(hashed[0], *hash) : hashed[r], r);
    *hash = reduce_wide(&sum);
    return data;
}

/* --- the rest, or all of a short packet --- */

/* Folding takes less time than a folded power that is not in the cache. */
INLINE void add_power(struct aes_gcm_product *sum, __m128i a, const struct aes_gcm_key *key,
                      unsigned power) {
    const __m128i b = key->power[aes_gcm_at(power)];

    add_product(sum, a, b, fold(b));
}

/* `count` blocks, the last of them of `last` bytes, and the block that hides the tag. `hash` is
 * what has been hashed so far, if that is `begun`; else it is the additional data, which is then
 * one more block. */
INLINE __m128i short_part(const struct aes_gcm_key *key, uint8_t *data, unsigned count,
                          unsigned last, __m128i first_counter, __m128i counter, __m128i hash,
                          bool begun, __m128i lengths, bool encrypt) {
    struct aes_gcm_product sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    __m128i block[CHUNK + 1];
    unsigned power = count + 1;

    block[count] = aes_gcm_reverse(first_counter);
    for (unsigned i = 0; i < count; i++)
        block[i] = next_counter(&counter);
    encrypt_blocks(key, block, count + 1);
    if (!begun) {
        add_power(&sum, hash, key, power + 1);
        hash = _mm_setzero_si128();
    }
    for (unsigned i = 0; i < count; i++) {
        uint8_t *place = data + (size_t)BLOCK * i;
        __m128i in = load(place), out = _mm_xor_si128(in, block[i]), hashed = encrypt ? out : in;

        if (i == count - 1) {
            const __m128i mask = first_bytes(last);

            out = _mm_or_si128(_mm_and_si128(mask, out), _mm_andnot_si128(mask, in));
            hashed = _mm_and_si128(mask, hashed);
        }
        store(place, out);
        add_power(&sum, _mm_xor_si128(aes_gcm_reverse(hashed), hash), key, power - i);
        hash = _mm_setzero_si128();
    }
    add_power(&sum, _mm_xor_si128(lengths, hash), key, 1);
    return _mm_xor_si128(aes_gcm_reverse(aes_gcm_reduce(&sum)), block[count]);
}

INLINE __m128i short_part_of(const struct aes_gcm_key *key, uint8_t *data, unsigned count,
                             unsigned last, __m128i first_counter, __m128i counter, __m128i hash,
                             bool begun, __m128i lengths, bool encrypt) {
#define CASE(n) \
    case n:     \
        return short_part(key, data, n, last, first_counter, counter, hash, begun, lengths, encrypt)
    switch (count) {
        CASE(0);
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
    default:
        CASE(8);
    }
#undef CASE
}

INLINE __m128i run(const struct aes_gcm_key *key, uint8_t *data, unsigned length, __m128i nonce,
                   __m128i aad, unsigned aad_length, bool encrypt) {
    const bool begun = length > CHUNK * BLOCK;
    const unsigned wides = width >= AES_GCM_AVX2 && begun ? (length - 1) / (WIDE_CHUNK * BLOCK) : 0;
    unsigned rest = length - wides * WIDE_CHUNK * BLOCK;
    const unsigned chunks = rest > 0 ? (rest - 1) / (CHUNK * BLOCK) : 0;
    unsigned count, last;
    const __m128i lengths = _mm_set_epi64x((long long)aad_length * 8, (long long)length * 8);
    const __m128i first_counter = aes_gcm_reverse(nonce);
    __m128i counter = first_counter, hash = aes_gcm_reverse(aad);

    if (begun)
        hash = multiply(hash, key->power[aes_gcm_at(1)]);
    if (wides > 0)
        data = wide_part(key, data, wides, &counter, &hash, encrypt);
    if (chunks > 0)
        data = long_part(key, data, chunks, &counter, &hash, encrypt);
    rest -= chunks * CHUNK * BLOCK; /* one to eight blocks; none if there is nothing at all */
    count = (rest + BLOCK - 1) / BLOCK;
    last = rest - (count - 1) * BLOCK;
    if (begun)
        return short_part_of(key, data, count, last, first_counter, counter, hash, true, lengths,
                             encrypt);
    return short_part_of(key, data, count, last, first_counter, counter, hash, false, lengths,
                         encrypt);
}

__m128i aes_gcm_encrypt(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                        __m128i nonce, __m128i aad, unsigned aad_length) {
    if (width == AES_GCM_AVX512)
        return aes_gcm_encrypt_avx512(key, data, length, nonce, aad, aad_length);
    return run(key, data, length, nonce, aad, aad_length, true);
}

__m128i aes_gcm_decrypt(const struct aes_gcm_key *key, uint8_t *data, unsigned length,
                        __m128i nonce, __m128i aad, unsigned aad_length) {
    if (width == AES_GCM_AVX512)
        return aes_gcm_decrypt_avx512(key, data, length, nonce, aad, aad_length);
    return run(key, data, length, nonce, aad, aad_length, false);
}

/* --- which way to take --- */

static bool has(enum rte_cpu_flag_t flag) {
    return rte_cpu_get_flag_enabled(flag) > 0;
}

static enum aes_gcm_width widest(void) {
    if (!has(RTE_CPUFLAG_VAES) || !has(RTE_CPUFLAG_VPCLMULQDQ) || !__builtin_cpu_supports("avx2"))
        return AES_GCM_SSE;
    /* The compiler's function also asks whether the operating system keeps these registers. */
    if (!has(RTE_CPUFLAG_BMI2) || !__builtin_cpu_supports("avx512f") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
        return AES_GCM_AVX2;
    return AES_GCM_AVX512;
}

enum aes_gcm_width aes_gcm_init(enum aes_gcm_width at_most) {
    enum aes_gcm_width possible = widest();

    width = possible < at_most ? possible : at_most;
    return width;
}
