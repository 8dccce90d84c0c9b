/* AES-GCM against the multi-buffer library, for every length up to that of a long packet, with and
 * without wide registers. Known answers of the standards are in test_esp_crypto.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <intel-ipsec-mb.h>

#include "ipsec/aes_gcm.h"

enum { LONGEST = 1600, BEHIND = 32, STEP_AFTER = 300 };

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

/* Bytes behind the data stay as they are. */
static void compare(struct reference *reference, const struct aes_gcm_key *own, unsigned length,
                    unsigned aad_length) {
    uint8_t clear[LONGEST + BEHIND], theirs[LONGEST + BEHIND], ours[LONGEST + BEHIND];
    uint8_t nonce[16], aad[12], their_tag[16], our_tag[16];

    fill(clear, sizeof(clear));
    fill(nonce, sizeof(nonce));
    fill(aad, sizeof(aad));
    memcpy(theirs, clear, sizeof(clear));
    memcpy(ours, clear, sizeof(clear));
    reference->function(&reference->key, &reference->context, theirs, theirs, length, nonce, aad,
                        aad_length, their_tag, sizeof(their_tag));
    aes_gcm_encrypt(own, ours, length, nonce, aad, aad_length, our_tag);
    assert_memory_equal(ours, theirs, sizeof(ours));
    assert_memory_equal(our_tag, their_tag, sizeof(our_tag));
    memset(our_tag, 0, sizeof(our_tag));
    aes_gcm_decrypt(own, ours, length, nonce, aad, aad_length, our_tag);
    assert_memory_equal(ours, clear, sizeof(ours));
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
        for (unsigned length = 0; length <= LONGEST; length += length < STEP_AFTER ? 1 : 7) {
            compare(&reference, &own, length, 8);
            compare(&reference, &own, length, 12);
        }
    }
    free_mb_mgr(manager);
}

static void agrees_with_the_library(void **state) {
    (void)state;
    assert_false(aes_gcm_init(false));
    all_lengths();
}

static void agrees_with_the_library_in_wide_registers(void **state) {
    (void)state;
    if (!aes_gcm_init(true)) {
        print_message("# this CPU has no VAES\n");
        skip();
    }
    all_lengths();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_library),
        cmocka_unit_test(agrees_with_the_library_in_wide_registers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
