/* ESP's cryptography: tables of algorithms, keys, and bursts of packets for the library. */
#include "ipsec/esp_crypto.h"

#include <errno.h>
#include <immintrin.h>
#include <intel-ipsec-mb.h>
#include <rte_branch_prediction.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_prefetch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/slab.h"
#include "ipsec/aes_gcm.h"

enum {
    SALT = 4,
    COUNTER_IV = 8,
    GCM_NONCE = 12,
    AES_BLOCK = 16,
    HMAC_BLOCK_MAX = 128,
    HMAC_STATE_MAX = 64,
    SEQUENCE_HIGH = 4,
};

/* --- algorithms --- */

enum kind { KIND_GCM, KIND_GMAC, KIND_CHACHA20, KIND_CBC, KIND_CTR, KIND_NULL };

struct esp_cipher {
    const char *name;
    enum kind kind;
    uint8_t key; /* without salt */
    uint8_t salt, iv, align;
};

struct esp_auth {
    const char *name;
    IMB_HASH_ALG algorithm;
    uint8_t key, icv, block;
};

static const struct esp_cipher ciphers[] = {
    {"aes-gcm-128", KIND_GCM, 16, SALT, COUNTER_IV, 4},
    {"aes-gcm-192", KIND_GCM, 24, SALT, COUNTER_IV, 4},
    {"aes-gcm-256", KIND_GCM, 32, SALT, COUNTER_IV, 4},
    {"chacha20-poly1305", KIND_CHACHA20, 32, SALT, COUNTER_IV, 4},
    {"aes-cbc-128", KIND_CBC, 16, 0, AES_BLOCK, AES_BLOCK},
    {"aes-cbc-192", KIND_CBC, 24, 0, AES_BLOCK, AES_BLOCK},
    {"aes-cbc-256", KIND_CBC, 32, 0, AES_BLOCK, AES_BLOCK},
    {"aes-ctr-128", KIND_CTR, 16, SALT, COUNTER_IV, 4},
    {"aes-ctr-192", KIND_CTR, 24, SALT, COUNTER_IV, 4},
    {"aes-ctr-256", KIND_CTR, 32, SALT, COUNTER_IV, 4},
    {"aes-gmac-128", KIND_GMAC, 16, SALT, COUNTER_IV, 4},
    {"aes-gmac-192", KIND_GMAC, 24, SALT, COUNTER_IV, 4},
    {"aes-gmac-256", KIND_GMAC, 32, SALT, COUNTER_IV, 4},
    {"null", KIND_NULL, 0, 0, 0, 4},
};

static const struct esp_auth auths[] = {
    {"hmac-sha1-96", IMB_AUTH_HMAC_SHA_1, 20, 12, 64},
    {"hmac-sha256-128", IMB_AUTH_HMAC_SHA_256, 32, 16, 64},
    {"hmac-sha384-192", IMB_AUTH_HMAC_SHA_384, 48, 24, 128},
    {"hmac-sha512-256", IMB_AUTH_HMAC_SHA_512, 64, 32, 128},
};

const struct esp_cipher *esp_cipher_at(unsigned n) {
    return n < RTE_DIM(ciphers) ? &ciphers[n] : NULL;
}

const struct esp_auth *esp_auth_at(unsigned n) {
    return n < RTE_DIM(auths) ? &auths[n] : NULL;
}

const struct esp_cipher *esp_cipher_find(const char *name) {
    for (unsigned i = 0; i < RTE_DIM(ciphers); i++) {
        if (strcmp(ciphers[i].name, name) == 0)
            return &ciphers[i];
    }
    return NULL;
}

const struct esp_auth *esp_auth_find(const char *name) {
    for (unsigned i = 0; i < RTE_DIM(auths); i++) {
        if (strcmp(auths[i].name, name) == 0)
            return &auths[i];
    }
    return NULL;
}

const char *esp_cipher_name(const struct esp_cipher *cipher) {
    return cipher->name;
}

const char *esp_auth_name(const struct esp_auth *auth) {
    return auth ? auth->name : "";
}

unsigned esp_cipher_key_length(const struct esp_cipher *cipher) {
    return cipher->key + cipher->salt;
}

unsigned esp_cipher_salt_length(const struct esp_cipher *cipher) {
    return cipher->salt;
}

unsigned esp_auth_key_length(const struct esp_auth *auth) {
    return auth->key;
}

bool esp_cipher_is_combined(const struct esp_cipher *cipher) {
    return cipher->kind == KIND_GCM || cipher->kind == KIND_GMAC || cipher->kind == KIND_CHACHA20;
}

/* --- keys --- */

/* Sixteen rounds' worth of keys, as the library wants them aligned. */
struct aes_schedule {
    uint8_t encrypt[15 * AES_BLOCK], decrypt[15 * AES_BLOCK];
} __rte_aligned(16);

struct esp_key {
    uint8_t align[2 * AES_BLOCK]; /* so that what a short packet needs begins with a cache line */
    union {
        struct aes_gcm_key own_gcm;
        struct {
            uint8_t before[offsetof(struct aes_gcm_key, owner)];
            /* What each packet needs, in `owner`. */
            uint8_t salt[SALT];
            uint64_t first_iv; /* of the counter modes: random */
            struct esp_sizes sizes;
            uint8_t key_length;
            bool esn;
            enum kind kind;
            IMB_HASH_ALG hash;
            uint8_t behind;
        };
    };
    struct gcm_key_data gcm; /* GMAC, and GCM with short check values; asks to be aligned to 64 */
    struct aes_schedule aes; /* CBC and CTR */
    struct aes_schedule iv;  /* what makes initialization vectors of CBC unpredictable */
    uint8_t inner[HMAC_STATE_MAX], outer[HMAC_STATE_MAX]; /* of the HMAC */
    uint8_t chacha[32];
    aes_gcm_enc_dec_t gcm_encrypt, gcm_decrypt;
    aes_gmac_init_t gmac_init;
    aes_gmac_update_t gmac_update;
    aes_gmac_finalize_t gmac_finalize;
} __rte_aligned(64);

enum { SHORT_POWERS = 6 }; /* of the hash key, for a short packet */

_Static_assert(offsetof(struct esp_key, own_gcm.power[AES_GCM_POWERS - SHORT_POWERS]) %
                       RTE_CACHE_LINE_SIZE ==
                   0,
               "what a short packet needs begins with a cache line");
_Static_assert(offsetof(struct esp_key, behind) <=
                   offsetof(struct esp_key, own_gcm.owner) + AES_GCM_OWNER,
               "what each packet needs fits where aes_gcm leaves room");

static struct slab keys = {.size = sizeof(struct esp_key)};

/* The control thread's, for the schedules of keys. */
static IMB_MGR *key_manager(void) {
    static IMB_MGR *manager;

    if (!manager) {
        manager = alloc_mb_mgr(0);
        if (manager)
            init_mb_mgr_auto(manager, NULL);
    }
    return manager;
}

static void expand_aes(IMB_MGR *manager, const uint8_t *key, unsigned length,
                       struct aes_schedule *out) {
    switch (length) {
    case 16:
        IMB_AES_KEYEXP_128(manager, key, out->encrypt, out->decrypt);
        break;
    case 24:
        IMB_AES_KEYEXP_192(manager, key, out->encrypt, out->decrypt);
        break;
    default:
        IMB_AES_KEYEXP_256(manager, key, out->encrypt, out->decrypt);
        break;
    }
}

static void expand_gcm(IMB_MGR *manager, const uint8_t *key, struct esp_key *out) {
    switch (out->key_length) {
    case 16:
        IMB_AES128_GCM_PRE(manager, key, &out->gcm);
        out->gcm_encrypt = manager->gcm128_enc;
        out->gcm_decrypt = manager->gcm128_dec;
        out->gmac_init = manager->gmac128_init;
        out->gmac_update = manager->gmac128_update;
        out->gmac_finalize = manager->gmac128_finalize;
        break;
    case 24:
        IMB_AES192_GCM_PRE(manager, key, &out->gcm);
        out->gcm_encrypt = manager->gcm192_enc;
        out->gcm_decrypt = manager->gcm192_dec;
        out->gmac_init = manager->gmac192_init;
        out->gmac_update = manager->gmac192_update;
        out->gmac_finalize = manager->gmac192_finalize;
        break;
    default:
        IMB_AES256_GCM_PRE(manager, key, &out->gcm);
        out->gcm_encrypt = manager->gcm256_enc;
        out->gcm_decrypt = manager->gcm256_dec;
        out->gmac_init = manager->gmac256_init;
        out->gmac_update = manager->gmac256_update;
        out->gmac_finalize = manager->gmac256_finalize;
        break;
    }
}

/* One block of the hash over the key and a pad: where HMAC begins (RFC 2104 section 4). */
static void hash_block(IMB_MGR *manager, IMB_HASH_ALG algorithm, const uint8_t *block,
                       uint8_t *state) {
    switch (algorithm) {
    case IMB_AUTH_HMAC_SHA_1:
        IMB_SHA1_ONE_BLOCK(manager, block, state);
        break;
    case IMB_AUTH_HMAC_SHA_256:
        IMB_SHA256_ONE_BLOCK(manager, block, state);
        break;
    case IMB_AUTH_HMAC_SHA_384:
        IMB_SHA384_ONE_BLOCK(manager, block, state);
        break;
    default:
        IMB_SHA512_ONE_BLOCK(manager, block, state);
        break;
    }
}

static void expand_hmac(IMB_MGR *manager, const struct esp_auth *auth, const uint8_t *key,
                        struct esp_key *out) {
    uint8_t inner[HMAC_BLOCK_MAX], outer[HMAC_BLOCK_MAX];

    for (unsigned i = 0; i < auth->block; i++) {
        uint8_t octet = i < auth->key ? key[i] : 0;

        inner[i] = octet ^ 0x36;
        outer[i] = octet ^ 0x5c;
    }
    hash_block(manager, auth->algorithm, inner, out->inner);
    hash_block(manager, auth->algorithm, outer, out->outer);
    explicit_bzero(inner, sizeof(inner));
    explicit_bzero(outer, sizeof(outer));
}

/* 0: it does not go together. */
static unsigned icv_length(const struct esp_cipher *cipher, const struct esp_auth *auth,
                           unsigned icv) {
    if (!esp_cipher_is_combined(cipher))
        return !auth || (icv != 0 && icv != auth->icv) ? 0 : auth->icv;
    if (auth)
        return 0;
    if (icv == 0 || icv == 16)
        return 16;
    return cipher->kind == KIND_GCM && (icv == 8 || icv == 12) ? icv : 0;
}

bool esp_icv_is_possible(const struct esp_cipher *cipher, const struct esp_auth *auth,
                         unsigned icv) {
    return icv_length(cipher, auth, icv) != 0;
}

struct esp_key *esp_key_create(const struct esp_cipher *cipher, const uint8_t *key,
                               const struct esp_auth *auth, const uint8_t *auth_key, unsigned icv,
                               bool esn) {
    IMB_MGR *manager = key_manager();
    struct esp_key *out;
    uint8_t secret[16];

    icv = icv_length(cipher, auth, icv);
    if (icv == 0) {
        errno = EINVAL;
        return NULL;
    }
    out = manager ? slab_take(&keys) : NULL;
    if (!out || getrandom(secret, sizeof(secret), 0) != (ssize_t)sizeof(secret) ||
        getrandom(&out->first_iv, sizeof(out->first_iv), 0) != (ssize_t)sizeof(out->first_iv)) {
        slab_give(&keys, out);
        errno = ENOMEM;
        return NULL;
    }
    out->kind = cipher->kind;
    out->key_length = cipher->key;
    out->esn = esn;
    out->sizes = (struct esp_sizes){.iv = cipher->iv, .icv = (uint8_t)icv, .align = cipher->align};
    memcpy(out->salt, key + cipher->key, cipher->salt);
    if (cipher->kind == KIND_GCM || cipher->kind == KIND_GMAC)
        expand_gcm(manager, key, out);
    if (cipher->kind == KIND_GCM) {
        expand_aes(manager, key, cipher->key, &out->aes);
        aes_gcm_prepare(&out->own_gcm, out->aes.encrypt, cipher->key / 4 + 6);
    } else if (cipher->kind == KIND_CHACHA20)
        memcpy(out->chacha, key, sizeof(out->chacha));
    else if (cipher->kind != KIND_NULL)
        expand_aes(manager, key, cipher->key, &out->aes);
    expand_aes(manager, secret, sizeof(secret), &out->iv);
    explicit_bzero(secret, sizeof(secret));
    out->hash = IMB_AUTH_NULL;
    if (auth) {
        out->hash = auth->algorithm;
        expand_hmac(manager, auth, auth_key, out);
    }
    return out;
}

void esp_key_free(struct esp_key *key) {
    if (!key)
        return;
    explicit_bzero(key, sizeof(*key));
    slab_give(&keys, key);
}

void esp_key_prefetch(const struct esp_key *key) {
    const char *from = (const char *)&key->own_gcm.power[AES_GCM_POWERS - SHORT_POWERS];

    for (const char *at = from; at < (const char *)&key->own_gcm.round[11];
         at += RTE_CACHE_LINE_SIZE)
        rte_prefetch0(at);
}

struct esp_sizes esp_key_sizes(const struct esp_key *key) {
    return key->sizes;
}

/* --- engines --- */

struct esp_engine {
    IMB_MGR *manager;
    struct gcm_context_data gcm;
    /* Of the packets in the library's hands, by their place in the burst. */
    uint8_t tags[ESP_BURST_MAX][HMAC_STATE_MAX];
    uint8_t ivs[ESP_BURST_MAX][AES_BLOCK];
    uint8_t aads[ESP_BURST_MAX][AES_BLOCK];
    uint8_t behind[ESP_BURST_MAX][SEQUENCE_HIGH]; /* what ESN's upper half stands in the place of */
} __rte_aligned(64);

struct esp_engine *esp_engine_create(void) {
    struct esp_engine *engine = aligned_alloc(64, sizeof(*engine));

    if (!engine)
        return NULL;
    memset(engine, 0, sizeof(*engine));
    engine->manager = alloc_mb_mgr(0);
    if (!engine->manager) {
        free(engine);
        return NULL;
    }
    init_mb_mgr_auto(engine->manager, NULL);
    aes_gcm_init(AES_GCM_AVX512);
    return engine;
}

void esp_engine_free(struct esp_engine *engine) {
    if (!engine)
        return;
    free_mb_mgr(engine->manager);
    explicit_bzero(engine, sizeof(*engine));
    free(engine);
}

/* --- one packet --- */

static uint8_t *payload_of(const struct esp_packet *packet) {
    return packet->esp + ESP_HEADER + packet->key->sizes.iv;
}

static uint8_t *icv_of(const struct esp_packet *packet) {
    return payload_of(packet) + packet->length;
}

/* Not so that the time tells where they differ. */
static inline bool same(const uint8_t *a, const uint8_t *b, unsigned length) {
    uint8_t difference = 0;

    if (likely(length == AES_BLOCK)) {
        __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)a),
                                       _mm_loadu_si128((const __m128i *)b));

        return _mm_movemask_epi8(equal) == 0xffff;
    }

    for (unsigned i = 0; i < length; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

/* Additional authenticated data: RFC 4106 section 5. */
static inline __m128i aad_of(const struct esp_packet *packet) {
    uint32_t spi, sequence;

    if (likely(!packet->key->esn))
        return _mm_loadl_epi64((const __m128i *)packet->esp);
    memcpy(&spi, packet->esp, sizeof(spi));
    memcpy(&sequence, packet->esp + 4, sizeof(sequence));
    return _mm_set_epi32(0, (int)sequence,
                         (int)rte_cpu_to_be_32((uint32_t)(packet->sequence >> 32)), (int)spi);
}

static inline unsigned aad_length(const struct esp_key *key) {
    return ESP_HEADER + (key->esn ? SEQUENCE_HIGH : 0);
}

static inline void store(uint8_t to[AES_BLOCK], __m128i block) {
    _mm_storeu_si128((__m128i *)to, block);
}

/* The sequence number, counted from a random place, so that a key which is used again after a
 * restart, as one in a file is, does not meet the same ones. In network order. */
static inline uint64_t counter_iv(const struct esp_packet *packet) {
    return rte_cpu_to_be_64(packet->key->first_iv + packet->sequence);
}

/* In counter modes one that no other packet with this key has. In CBC one that nobody can foresee:
 * RFC 3602 section 3. */
static void make_iv(const struct esp_packet *packet) {
    const struct esp_key *key = packet->key;
    uint8_t *iv = packet->esp + ESP_HEADER;

    if (key->sizes.iv == COUNTER_IV) {
        uint64_t value = counter_iv(packet);

        memcpy(iv, &value, sizeof(value));
    } else if (key->sizes.iv == AES_BLOCK) {
        const __m128i *rounds = (const __m128i *)key->iv.encrypt;
        __m128i block = _mm_xor_si128(_mm_cvtsi64_si128((long long)packet->sequence), rounds[0]);

        for (unsigned i = 1; i < 10; i++)
            block = _mm_aesenc_si128(block, rounds[i]);
        store(iv, _mm_aesenclast_si128(block, rounds[10]));
    }
}

/* Salt, initialization vector, and a counter that is 1. In registers: what has been stored in
 * pieces a moment ago takes long to be loaded as a whole. */
static inline __m128i nonce_of(const struct esp_key *key, uint64_t iv) {
    uint32_t salt;

    memcpy(&salt, key->salt, sizeof(salt));
    return _mm_set_epi64x((long long)(iv >> 32 | (uint64_t)rte_cpu_to_be_32(1) << 32),
                          (long long)(iv << 32 | salt));
}

static inline __m128i nonce_in(const struct esp_packet *packet) {
    uint64_t iv;

    memcpy(&iv, packet->esp + ESP_HEADER, sizeof(iv));
    return nonce_of(packet->key, iv);
}

/* Our own looks at a whole last block, which may go beyond a shorter check value, and the buffer.
 */
static inline bool is_for_library(const struct esp_packet *packet) {
    return unlikely(packet->key->sizes.icv != AES_BLOCK && packet->length % AES_BLOCK != 0);
}

static __rte_noinline void gcm_by_library(struct esp_engine *engine,
                                          const struct esp_packet *packet,
                                          aes_gcm_enc_dec_t function, uint8_t *tag,
                                          unsigned tag_length) {
    uint8_t nonce[AES_BLOCK], aad[AES_BLOCK];

    store(nonce, nonce_in(packet));
    store(aad, aad_of(packet));
    function(&packet->key->gcm, &engine->gcm, payload_of(packet), payload_of(packet),
             packet->length, nonce, aad, aad_length(packet->key), tag, tag_length);
}

static inline void gcm_encrypt(struct esp_engine *engine, const struct esp_packet *packet) {
    const struct esp_key *key = packet->key;
    const uint64_t iv = counter_iv(packet);
    uint8_t tag[AES_BLOCK];
    __m128i made;

    if (is_for_library(packet)) {
        memcpy(packet->esp + ESP_HEADER, &iv, sizeof(iv));
        gcm_by_library(engine, packet, key->gcm_encrypt, icv_of(packet), key->sizes.icv);
        return;
    }
    made = aes_gcm_encrypt(&key->own_gcm, payload_of(packet), packet->length, nonce_of(key, iv),
                           aad_of(packet), aad_length(key));
    /* Only now: the first load of the payload begins before it, and would wait for this. */
    memcpy(packet->esp + ESP_HEADER, &iv, sizeof(iv));
    if (likely(key->sizes.icv == AES_BLOCK)) {
        store(icv_of(packet), made);
        return;
    }
    store(tag, made);
    memcpy(icv_of(packet), tag, key->sizes.icv);
}

static inline void gcm_decrypt(struct esp_engine *engine, struct esp_packet *packet) {
    const struct esp_key *key = packet->key;
    uint8_t tag[AES_BLOCK];

    if (is_for_library(packet))
        gcm_by_library(engine, packet, key->gcm_decrypt, tag, sizeof(tag));
    else
        store(tag, aes_gcm_decrypt(&key->own_gcm, payload_of(packet), packet->length,
                                   nonce_in(packet), aad_of(packet), aad_length(key)));
    packet->failed = !same(tag, icv_of(packet), key->sizes.icv);
}

/* All of the packet is only authenticated: RFC 4543 section 3.3. */
static void gmac(struct esp_engine *engine, struct esp_packet *packet, bool encrypt) {
    const struct esp_key *key = packet->key;
    uint8_t nonce[AES_BLOCK], aad[AES_BLOCK], tag[AES_BLOCK];

    store(nonce, nonce_in(packet));
    store(aad, aad_of(packet));
    key->gmac_init(&key->gcm, &engine->gcm, nonce, GCM_NONCE);
    key->gmac_update(&key->gcm, &engine->gcm, aad, aad_length(key));
    key->gmac_update(&key->gcm, &engine->gcm, packet->esp + ESP_HEADER,
                     key->sizes.iv + packet->length);
    key->gmac_finalize(&key->gcm, &engine->gcm, tag, sizeof(tag));
    if (encrypt)
        memcpy(icv_of(packet), tag, key->sizes.icv);
    else
        packet->failed = !same(tag, icv_of(packet), key->sizes.icv);
}

/* --- the library's jobs --- */

static void fill_chacha(struct esp_engine *engine, IMB_JOB *job, const struct esp_packet *packet,
                        unsigned place) {
    job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
    job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
    job->enc_keys = job->dec_keys = packet->key->chacha;
    job->key_len_in_bytes = sizeof(packet->key->chacha);
    store(engine->aads[place], aad_of(packet));
    job->u.CHACHA20_POLY1305.aad_len_in_bytes = aad_length(packet->key);
    job->u.CHACHA20_POLY1305.aad = engine->aads[place];
    store(engine->ivs[place], nonce_in(packet));
    job->iv = engine->ivs[place];
    job->iv_len_in_bytes = GCM_NONCE;
    job->hash_start_src_offset_in_bytes = job->cipher_start_src_offset_in_bytes;
    job->msg_len_to_hash_in_bytes = packet->length;
    job->auth_tag_output_len_in_bytes = 16;
}

/* The HMAC covers all from the ESP header on, and behind the payload the upper half of an extended
 * sequence number, which is put where the check value stands for as long as that takes. */
static void fill_hmac(struct esp_engine *engine, IMB_JOB *job, const struct esp_packet *packet,
                      unsigned place) {
    const struct esp_key *key = packet->key;

    job->hash_alg = key->hash;
    job->u.HMAC._hashed_auth_key_xor_ipad = key->inner;
    job->u.HMAC._hashed_auth_key_xor_opad = key->outer;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = ESP_HEADER + key->sizes.iv + packet->length;
    job->auth_tag_output_len_in_bytes = key->sizes.icv;
    if (key->esn) {
        uint32_t high = rte_cpu_to_be_32((uint32_t)(packet->sequence >> 32));

        memcpy(engine->behind[place], icv_of(packet), SEQUENCE_HIGH);
        memcpy(icv_of(packet), &high, SEQUENCE_HIGH);
        job->msg_len_to_hash_in_bytes += SEQUENCE_HIGH;
    }
}

static void fill_cipher(struct esp_engine *engine, IMB_JOB *job, const struct esp_packet *packet,
                        unsigned place) {
    const struct esp_key *key = packet->key;

    job->enc_keys = key->aes.encrypt;
    job->dec_keys = key->aes.decrypt;
    job->key_len_in_bytes = key->key_length;
    job->iv = packet->esp + ESP_HEADER;
    job->iv_len_in_bytes = AES_BLOCK;
    switch (key->kind) {
    case KIND_CBC:
        job->cipher_mode = IMB_CIPHER_CBC;
        break;
    case KIND_CTR: /* RFC 3686 section 4: nonce, initialization vector, a counter from 1 on */
        job->cipher_mode = IMB_CIPHER_CNTR;
        job->dec_keys = key->aes.encrypt;
        store(engine->ivs[place], nonce_in(packet));
        job->iv = engine->ivs[place];
        break;
    default:
        job->cipher_mode = IMB_CIPHER_NULL;
        break;
    }
}

static void fill(struct esp_engine *engine, IMB_JOB *job, const struct esp_packet *packet,
                 unsigned place, bool encrypt) {
    job->src = packet->esp;
    job->dst = payload_of(packet);
    job->cipher_start_src_offset_in_bytes = ESP_HEADER + packet->key->sizes.iv;
    job->msg_len_to_cipher_in_bytes = packet->length;
    job->cipher_direction = encrypt ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
    job->chain_order = encrypt ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
    job->auth_tag_output = engine->tags[place];
    job->user_data = (void *)(uintptr_t)place;
    if (packet->key->kind == KIND_CHACHA20) {
        fill_chacha(engine, job, packet, place);
    } else {
        fill_cipher(engine, job, packet, place);
        fill_hmac(engine, job, packet, place);
    }
}

static void finish(struct esp_engine *engine, const IMB_JOB *job, struct esp_packet *packets,
                   bool encrypt) {
    unsigned place = (unsigned)(uintptr_t)job->user_data;
    struct esp_packet *packet = &packets[place];
    const uint8_t *tag = engine->tags[place];

    if (encrypt) {
        memcpy(icv_of(packet), tag, packet->key->sizes.icv);
        return;
    }
    if (packet->key->esn && packet->key->hash != IMB_AUTH_NULL)
        memcpy(icv_of(packet), engine->behind[place], SEQUENCE_HIGH);
    packet->failed =
        job->status != IMB_STATUS_COMPLETED || !same(tag, icv_of(packet), packet->key->sizes.icv);
}

static void run(struct esp_engine *engine, struct esp_packet *packets, unsigned count,
                bool encrypt) {
    IMB_MGR *manager = engine->manager;
    unsigned under_way = 0;
    IMB_JOB *job;

    for (unsigned i = 0; i < count; i++) {
        struct esp_packet *packet = &packets[i];

        packet->failed = false;
        if (packet->key->kind == KIND_GCM) {
            if (encrypt)
                gcm_encrypt(engine, packet);
            else
                gcm_decrypt(engine, packet);
            continue;
        }
        if (encrypt)
            make_iv(packet);
        if (packet->key->kind == KIND_GMAC) {
            gmac(engine, packet, encrypt);
        } else {
            fill(engine, IMB_GET_NEXT_JOB(manager), packet, i, encrypt);
            under_way++;
            for (job = IMB_SUBMIT_JOB(manager); job; job = IMB_GET_COMPLETED_JOB(manager)) {
                finish(engine, job, packets, encrypt);
                under_way--;
            }
        }
    }
    while (under_way > 0 && (job = IMB_FLUSH_JOB(manager)) != NULL) {
        finish(engine, job, packets, encrypt);
        under_way--;
    }
}

/* Packets from the first on with GCM, which is what most bursts are. */
static unsigned encrypt_gcm(struct esp_engine *engine, struct esp_packet *packets, unsigned count) {
    unsigned i;

    for (i = 0; i < count && packets[i].key->kind == KIND_GCM; i++)
        gcm_encrypt(engine, &packets[i]);
    return i;
}

void esp_encrypt(struct esp_engine *engine, struct esp_packet *packets, unsigned count) {
    unsigned done = encrypt_gcm(engine, packets, count);

    if (done < count)
        run(engine, packets + done, count - done, true);
}

static unsigned decrypt_gcm(struct esp_engine *engine, struct esp_packet *packets, unsigned count) {
    unsigned i;

    for (i = 0; i < count && packets[i].key->kind == KIND_GCM; i++) {
        packets[i].failed = false;
        gcm_decrypt(engine, &packets[i]);
    }
    return i;
}

void esp_decrypt(struct esp_engine *engine, struct esp_packet *packets, unsigned count) {
    unsigned done = decrypt_gcm(engine, packets, count);

    if (done < count)
        run(engine, packets + done, count - done, false);
}
