/* ESP's cryptography: packets of the RFCs, packets that another implementation has made (keys and
 * results are written down below), and what has to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipsec/esp_crypto.h"

enum { ROOM = 4096 };

static struct esp_engine *engine;

/* Octets written as hexadecimal digits. */
static unsigned octets(const char *digits, uint8_t *out) {
    unsigned count = 0;

    for (; *digits; digits++) {
        unsigned digit = *digits <= '9' ? (unsigned)*digits - '0' : (unsigned)*digits - 'a' + 10;

        if (*digits == ' ')
            continue;
        out[count / 2] = (uint8_t)(count % 2 ? out[count / 2] | digit : digit << 4);
        count++;
    }
    return count / 2;
}

/* 00 01 02 ... */
static const uint8_t *counting(void) {
    static uint8_t bytes[ESP_AUTH_KEY_MAX];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    return bytes;
}

static struct esp_key *key_of(const char *cipher, const char *key, const char *auth, unsigned icv,
                              bool esn) {
    uint8_t bytes[ESP_KEY_MAX];
    struct esp_key *made;

    assert_int_equal(octets(key, bytes), esp_cipher_key_length(esp_cipher_find(cipher)));
    made = esp_key_create(esp_cipher_find(cipher), bytes, auth ? esp_auth_find(auth) : NULL,
                          counting(), icv, esn);
    assert_non_null(made);
    return made;
}

/* --- known answers --- */

struct known {
    const char *cipher, *key, *auth;
    bool esn;
    uint64_t sequence;
    const char *header, *iv, *ciphertext, *icv, *plaintext;
};

#define CBC_KEY "90d382b410eeba7ad938c46cec1a82bf"
#define CBC_IV "e96e8c08ab465763fd098d45dd3ff893"
#define CBC_TEXT                                                       \
    "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856" \
    "a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a" \
    "a269add047ad2d5913ac19b7cfbad4a6"
#define CBC_PLAIN                                                      \
    "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617" \
    "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637" \
    "0102030405060708090a0b0c0d0e0e01"
#define GCM_KEY "4c80cdefbb5d10da906ac73c3613a634"
#define FORTY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
#define SALT_IV "4855ec7d3a234bfd"

static const struct known known[] = {
    {"chacha20-poly1305", /* RFC 7634 appendix A */
     "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3", NULL, false, 5,
     "0102030400000005", "1011121314151617",
     "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02"
     "f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0",
     "76aaa8266b7fb0f7b11b369907e1ad43",
     "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f101112"
     "131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204"},
    {"aes-gcm-128", /* McGrew and Viega, test cases for GCM in ESP, the first: extended numbers */
     GCM_KEY "2e443b68", NULL, true, UINT64_C(0x8765432100000000), "0000432100000000",
     "4956ed7e3b244cfe",
     "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c"
     "5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732",
     "459018148f6cbe722fd04796562dfdb4",
     "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f75647003"
     "73697009637962657263697479 02646b000021000101020201"},
    {"aes-gcm-192", "000102030405060708090a0b0c0d0e0f1011121314151617 22433c64", NULL, false, 1,
     "0000432100000001", SALT_IV,
     "ca393effd3e69a2518d520a5ee1cc668e82d5611e0cfc9b0e20f3f0f4ed339d9436f83ec22fad0c8",
     "20be06d6493f3646f94a117bae8eec03", FORTY},
    {"aes-gcm-256", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 22433c64",
     NULL, false, 1, "0000432100000001", SALT_IV,
     "279d49b51cab818e693ae77770e1b040fa2d6fcbd1aef64e2c387e24f4411f2455c0dadb97968f44",
     "f90627f7d34618d9228e133255845eec", FORTY},
    {"aes-gmac-128", GCM_KEY "22433c64", NULL, false, 1, "0000432100000001", SALT_IV, FORTY,
     "1537b44a75aece62665b43c78f1370a6", FORTY},
    {"aes-gmac-128", GCM_KEY "22433c64", NULL, true, UINT64_C(0x700000001), "0000432100000001",
     SALT_IV, FORTY, "d02feecdfd5379bee97a3ad35f7f01b8", FORTY},
    /* RFC 3602 section 4, case 5, with check values of keys that count up */
    {"aes-cbc-128", CBC_KEY, "hmac-sha1-96", false, 1, "0000432100000001", CBC_IV, CBC_TEXT,
     "9a338e6bd44d34499ec1548b", CBC_PLAIN},
    {"aes-cbc-128", CBC_KEY, "hmac-sha256-128", false, 1, "0000432100000001", CBC_IV, CBC_TEXT,
     "29dcb883222069e2a5465186d6e51f05", CBC_PLAIN},
    {"aes-cbc-128", CBC_KEY, "hmac-sha256-128", true, UINT64_C(0x700000001), "0000432100000001",
     CBC_IV, CBC_TEXT, "be3c4ddaa1c834733c8a93af791ecb6a", CBC_PLAIN},
    {"aes-cbc-128", CBC_KEY, "hmac-sha384-192", false, 1, "0000432100000001", CBC_IV, CBC_TEXT,
     "1c05d8d1494ffa44852610fc1a67907f7ac1ad4b2b371e5f", CBC_PLAIN},
    {"aes-cbc-128", CBC_KEY, "hmac-sha512-256", false, 1, "0000432100000001", CBC_IV, CBC_TEXT,
     "c84543448ba2f1a6c1f2f7b38800e190dcd520a91bbe072e33f674555c06800a", CBC_PLAIN},
    {"aes-cbc-128", CBC_KEY, "hmac-sha512-256", true, UINT64_C(0x700000001), "0000432100000001",
     CBC_IV, CBC_TEXT, "22a10465cfe69b32f7c4c81d93f5aca855f9263925ce643162cddf1205b8304f",
     CBC_PLAIN},
    /* RFC 3686 section 6, vector 2 */
    {"aes-ctr-128", "7e24067817fae0d743d6ce1f32539163006cb6db", "hmac-sha256-128", false, 1,
     "0000432100000001", "c0543b59da48d90b",
     "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
     "5dd32f3c64b60d8708fb0a5c1529c9cc",
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
};

/* The packet of a known answer; its encrypted length is returned. */
static unsigned packet_of(const struct known *of, uint8_t *out) {
    unsigned at = octets(of->header, out), length;

    at += octets(of->iv, out + at);
    length = octets(of->ciphertext, out + at);
    octets(of->icv, out + at + length);
    return length;
}

static void test_known_answers(void **state) {
    (void)state;
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        struct esp_key *key = key_of(known[i].cipher, known[i].key, known[i].auth, 0, known[i].esn);
        uint8_t bytes[ROOM], before[ROOM], expected[ROOM];
        struct esp_packet packet = {.key = key, .esp = bytes, .sequence = known[i].sequence};
        struct esp_sizes sizes = esp_key_sizes(key);

        packet.length = packet_of(&known[i], bytes);
        memcpy(before, bytes, sizeof(before));
        assert_int_equal(octets(known[i].plaintext, expected), packet.length);
        esp_decrypt(engine, &packet, 1);
        assert_false(packet.failed);
        assert_memory_equal(bytes + ESP_HEADER + sizes.iv, expected, packet.length);
        /* The check value is left as it was, also where it had to make room for a moment. */
        assert_memory_equal(bytes + ESP_HEADER + sizes.iv + packet.length,
                            before + ESP_HEADER + sizes.iv + packet.length, sizes.icv);
        esp_key_free(key);
    }
}

/* One bit, anywhere. */
static void test_every_changed_bit_is_noticed(void **state) {
    (void)state;
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        struct esp_key *key = key_of(known[i].cipher, known[i].key, known[i].auth, 0, known[i].esn);
        struct esp_sizes sizes = esp_key_sizes(key);
        uint8_t bytes[ROOM];
        struct esp_packet packet = {.key = key, .esp = bytes, .sequence = known[i].sequence};
        unsigned whole = ESP_HEADER + sizes.iv + packet_of(&known[i], bytes) + sizes.icv;

        for (unsigned bit = 0; bit < whole * 8; bit++) {
            packet.length = packet_of(&known[i], bytes);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            esp_decrypt(engine, &packet, 1);
            assert_true(packet.failed);
        }
        /* and the upper half of the sequence number, which is not in the packet */
        packet.length = packet_of(&known[i], bytes);
        packet.sequence ^= UINT64_C(1) << 40;
        esp_decrypt(engine, &packet, 1);
        assert_int_equal(packet.failed, known[i].esn);
        esp_key_free(key);
    }
}

/* --- there and back --- */

static uint32_t random_state = 1;

static unsigned draw(unsigned below) {
    random_state = random_state * 1664525 + 1013904223;
    return (unsigned)(((uint64_t)(random_state >> 8) * below) >> 24);
}

/* Bursts in which algorithms and lengths are mixed: what comes out of each place is what went in
 * there, whatever order the library finishes them in. */
static void test_mixed_bursts(void **state) {
    static uint8_t frames[ESP_BURST_MAX][ROOM], plain[ESP_BURST_MAX][ROOM];
    struct esp_key *keys[128];
    unsigned count = 0;

    (void)state;
    for (unsigned c = 0; esp_cipher_at(c); c++) {
        const struct esp_cipher *cipher = esp_cipher_at(c);

        for (unsigned esn = 0; esn < 2; esn++) {
            if (esp_cipher_is_combined(cipher))
                keys[count++] = esp_key_create(cipher, counting(), NULL, NULL, 0, esn);
            for (unsigned a = 0; !esp_cipher_is_combined(cipher) && esp_auth_at(a); a++)
                keys[count++] =
                    esp_key_create(cipher, counting(), esp_auth_at(a), counting(), 0, esn);
        }
    }
    for (unsigned round = 0; round < 300; round++) {
        struct esp_packet packets[ESP_BURST_MAX];
        unsigned burst = 1 + draw(ESP_BURST_MAX), changed = draw(burst);

        for (unsigned i = 0; i < burst; i++) {
            const struct esp_key *key = keys[draw(count)];
            struct esp_sizes sizes = esp_key_sizes(key);
            uint8_t *payload = frames[i] + ESP_HEADER + sizes.iv;

            packets[i] = (struct esp_packet){
                .key = key,
                .esp = frames[i],
                .length = sizes.align * (1 + draw(1500 / sizes.align)),
                .sequence = (uint64_t)round << 32 | i,
            };
            memset(frames[i], (int)i, ESP_HEADER);
            for (unsigned n = 0; n < packets[i].length; n++)
                payload[n] = (uint8_t)draw(256);
            memcpy(plain[i], payload, packets[i].length);
        }
        esp_encrypt(engine, packets, burst);
        frames[changed][draw(ESP_HEADER)] ^= 1;
        esp_decrypt(engine, packets, burst);
        for (unsigned i = 0; i < burst; i++) {
            assert_int_equal(packets[i].failed, i == changed);
            if (i != changed)
                assert_memory_equal(frames[i] + ESP_HEADER + esp_key_sizes(packets[i].key).iv,
                                    plain[i], packets[i].length);
        }
    }
    for (unsigned i = 0; i < count; i++)
        esp_key_free(keys[i]);
}

/* No two packets may have the same one; in CBC it must not be foreseen either (RFC 3602). */
static void test_initialization_vectors(void **state) {
    static const char *const names[] = {"aes-gcm-128", "aes-cbc-128", "aes-ctr-128"};

    (void)state;
    for (unsigned n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        const struct esp_cipher *cipher = esp_cipher_find(names[n]);
        bool combined = esp_cipher_is_combined(cipher);
        const struct esp_auth *auth = combined ? NULL : esp_auth_find("hmac-sha256-128");
        struct esp_key *key = esp_key_create(cipher, counting(), auth, counting(), 0, false);
        struct esp_key *again = esp_key_create(cipher, counting(), auth, counting(), 0, false);
        uint8_t seen[64][ESP_IV_MAX];
        unsigned length = esp_key_sizes(key).iv;

        for (unsigned i = 0; i < 64; i++) {
            uint8_t frame[128] = {0}, other[128] = {0};
            struct esp_packet packet = {.key = key, .esp = frame, .length = 16, .sequence = i + 1};
            struct esp_packet same = {.key = again, .esp = other, .length = 16, .sequence = i + 1};

            esp_encrypt(engine, &packet, 1);
            esp_encrypt(engine, &same, 1);
            memcpy(seen[i], frame + ESP_HEADER, length);
            for (unsigned before = 0; before < i; before++)
                assert_memory_not_equal(seen[before], seen[i], length);
            /* Nor may they come again when the same key is used once more, after a restart. */
            assert_memory_not_equal(seen[i], other + ESP_HEADER, length);
        }
        esp_key_free(key);
        esp_key_free(again);
    }
}

/* --- what does not go together --- */

static bool refused(const char *cipher, const char *auth, unsigned icv) {
    struct esp_key *key;

    errno = 0;
    key = esp_key_create(esp_cipher_find(cipher), counting(), auth ? esp_auth_find(auth) : NULL,
                         counting(), icv, false);
    esp_key_free(key);
    return !key && errno == EINVAL;
}

static void test_what_is_refused(void **state) {
    (void)state;
    assert_true(refused("aes-gcm-128", "hmac-sha1-96", 0));
    assert_true(refused("aes-gcm-128", NULL, 4));
    assert_true(refused("chacha20-poly1305", NULL, 8));
    assert_true(refused("aes-gmac-128", NULL, 12));
    assert_true(refused("aes-cbc-128", NULL, 0));
    assert_true(refused("aes-cbc-128", "hmac-sha256-128", 12));
    assert_true(refused("null", NULL, 0));
    assert_false(refused("aes-gcm-128", NULL, 8));
    assert_false(refused("aes-gcm-256", NULL, 12));
    assert_false(refused("null", "hmac-sha256-128", 16));
    assert_null(esp_cipher_find("des-cbc"));
    assert_null(esp_auth_find("hmac-md5-96"));
}

/* A key that is freed is not in its memory any more; that is kept for the next one. */
static void test_freed_keys_are_zeroed(void **state) {
    static const char *const names[] = {"aes-gcm-128", "aes-gcm-256", "chacha20-poly1305",
                                        "aes-gmac-128"};
    enum { KEY = 16 };
    static const uint8_t zeros[KEY];

    (void)state;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct esp_key *key =
            esp_key_create(esp_cipher_find(names[i]), counting(), NULL, NULL, 0, false);
        const uint8_t *memory = (const uint8_t *)key;
        size_t at = 0;

        assert_non_null(key);
        while (memcmp(memory + at, counting(), KEY) != 0) /* it is in there somewhere */
            at++;
        esp_key_free(key);
        assert_memory_equal(memory + at, zeros, KEY);
    }
}

/* RFC 4106 section 6: 8 and 12 bytes are the beginning of 16. */
static void test_short_check_values(void **state) {
    static const unsigned lengths[] = {8, 12, 16};
    const struct esp_cipher *cipher = esp_cipher_find("aes-gcm-128");
    struct esp_key *whole = esp_key_create(cipher, counting(), NULL, NULL, 16, false);

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct esp_key *key = esp_key_create(cipher, counting(), NULL, NULL, lengths[i], false);
        uint8_t frame[128] = {0};
        struct esp_packet packet = {.key = whole, .esp = frame, .length = 20, .sequence = 9};

        assert_int_equal(esp_key_sizes(key).icv, lengths[i]);
        esp_encrypt(engine, &packet, 1);
        memset(frame + ESP_HEADER + 8 + 20 + lengths[i], 0, 16);
        packet.key = key;
        esp_decrypt(engine, &packet, 1);
        assert_false(packet.failed);
        memset(frame, 0, sizeof(frame));
        esp_encrypt(engine, &packet, 1);
        assert_int_equal(frame[ESP_HEADER + 8 + 20 + lengths[i]], 0); /* no more is written */
        esp_decrypt(engine, &packet, 1);
        assert_false(packet.failed);
        esp_key_free(key);
    }
    esp_key_free(whole);
}

static int make_engine(void **state) {
    (void)state;
    engine = esp_engine_create();
    return engine ? 0 : -1;
}

static int free_engine(void **state) {
    (void)state;
    esp_engine_free(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_every_changed_bit_is_noticed),
        cmocka_unit_test(test_mixed_bursts),
        cmocka_unit_test(test_initialization_vectors),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_short_check_values),
        cmocka_unit_test(test_freed_keys_are_zeroed),
    };

    return cmocka_run_group_tests(tests, make_engine, free_engine);
}
