/* AES-GCM against the multi-buffer library, for every length up to that of a usual packet, and the
 * greatest, with and without wide registers. Known answers of the standards are in
 * test_esp_crypto.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <intel-ipsec-mb.h>

#include "ipsec/aes_gcm.h"

enum { LONG = 1600, LONGEST = 65535, BEFORE = 32, BEHIND = 32, STEP_AFTER = 600 };

struct reference {
    struct gcm_key_data key __attribute__((aligned(64)));
    struct gcm_context_data context;
    uint8_t encrypt[16 * 15] __attribute__((aligned(16)));
    uint8_t decrypt[16 * 15] __attribute__((aligned(16)));
    aes_gcm_enc_dec_t function;
};

static void fill(uint8_t *out, size_t size) {
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)random();
}

static void prepare(IMB_MGR *manager, unsigned key_length, struct reference *reference,
                    struct aes_gcm_key *own) {
    uint8_t key[32];

    fill(key, sizeof(key));
    switch (key_length) {
    case 16:
        IMB_AES128_GCM_PRE(manager, key, &reference->key);
        IMB_AES_KEYEXP_128(manager, key, reference->encrypt, reference->decrypt);
        reference->function = manager->gcm128_enc;
        break;
    case 24:
        IMB_AES192_GCM_PRE(manager, key, &reference->key);
        IMB_AES_KEYEXP_192(manager, key, reference->encrypt, reference->decrypt);
        reference->function = manager->gcm192_enc;
        break;
    default:
        IMB_AES256_GCM_PRE(manager, key, &reference->key);
        IMB_AES_KEYEXP_256(manager, key, reference->encrypt, reference->decrypt);
        reference->function = manager->gcm256_enc;
        break;
    }
    aes_gcm_prepare(own, reference->encrypt, key_length / 4 + 6);
}

static void store(uint8_t *to, __m128i block) {
    _mm_storeu_si128((__m128i *)to, block);
}

static __m128i load(const uint8_t *from) {
    return _mm_loadu_si128((const __m128i *)from);
}

/* Bytes before and behind the data stay as they are. */
static void compare(struct reference *reference, const struct aes_gcm_key *own, unsigned length,
                    unsigned aad_length) {
    static uint8_t clear[BEFORE + LONGEST + BEHIND], theirs[sizeof(clear)], ours[sizeof(clear)];
    const size_t size = BEFORE + length + BEHIND;
    uint8_t nonce[16], aad[16], their_tag[16], our_tag[16];

    fill(clear, size);
    fill(nonce, sizeof(nonce));
    memcpy(nonce + 12, "\0\0\0\1", 4);
    fill(aad, aad_length);
    memset(aad + aad_length, 0, sizeof(aad) - aad_length);
    memcpy(theirs, clear, size);
    memcpy(ours, clear, size);
    reference->function(&reference->key, &reference->context, theirs + BEFORE, theirs + BEFORE,
                        length, nonce, aad, aad_length, their_tag, sizeof(their_tag));
    store(our_tag, aes_gcm_encrypt(own, ours + BEFORE, length, load(nonce), load(aad), aad_length));
    assert_memory_equal(ours, theirs, size);
    assert_memory_equal(our_tag, their_tag, sizeof(our_tag));
    memset(our_tag, 0, sizeof(our_tag));
    store(our_tag, aes_gcm_decrypt(own, ours + BEFORE, length, load(nonce), load(aad), aad_length));
    assert_memory_equal(ours, clear, size);
    assert_memory_equal(our_tag, their_tag, sizeof(our_tag));
}

static void all_lengths(void) {
    static const unsigned key_lengths[] = {16, 24, 32};
    IMB_MGR *manager = alloc_mb_mgr(0);
    struct reference reference = {0};
    struct aes_gcm_key own;

    assert_non_null(manager);
    init_mb_mgr_sse(manager);
    for (unsigned k = 0; k < 3; k++) {
        prepare(manager, key_lengths[k], &reference, &own);
        for (unsigned length = 0; length <= LONG; length += length < STEP_AFTER ? 1 : 7) {
            compare(&reference, &own, length, 8);
            compare(&reference, &own, length, 12);
        }
        compare(&reference, &own, LONGEST, 8);
    }
    free_mb_mgr(manager);
}

static void in_blocks(void **state) {
    (void)state;
    assert_int_equal(aes_gcm_init(AES_GCM_SSE), AES_GCM_SSE);
    all_lengths();
}

static void in_registers_of(enum aes_gcm_width width, const char *name) {
    if (aes_gcm_init(width) != width) {
        print_message("# this CPU has no VAES and VPCLMULQDQ with %s\n", name);
        skip();
    }
    all_lengths();
}

static void in_pairs_of_blocks(void **state) {
    (void)state;
    in_registers_of(AES_GCM_AVX2, "AVX2");
}

static void in_fours_of_blocks(void **state) {
    (void)state;
    in_registers_of(AES_GCM_AVX512, "AVX-512");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_blocks),
        cmocka_unit_test(in_pairs_of_blocks),
        cmocka_unit_test(in_fours_of_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
