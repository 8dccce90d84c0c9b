/* ESP by the plainest code there is, with OpenSSL's algorithms. */
#include "esp_frame.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

enum {
    HEADER = 8,
    TRAILER = 2,
    UDP_LENGTH = 8,
    SALT_LENGTH = 4,
    UDP_PROTOCOL = 17,
    IPV4_IN_IP = 4,
    IPV6_IN_IP = 41,
    BUFFER = 70000,
};

enum kind { GCM, GMAC, CHACHA, CBC, CTR, NO_CIPHER };

static const struct algorithm {
    const char *name;
    enum kind kind;
    const EVP_CIPHER *(*cipher)(void);
    unsigned iv, align, icv;
} algorithms[] = {
    {"aes-gcm-128", GCM, EVP_aes_128_gcm, 8, 4, 16},
    {"aes-gcm-192", GCM, EVP_aes_192_gcm, 8, 4, 16},
    {"aes-gcm-256", GCM, EVP_aes_256_gcm, 8, 4, 16},
    {"aes-gmac-128", GMAC, EVP_aes_128_gcm, 8, 4, 16},
    {"aes-gmac-192", GMAC, EVP_aes_192_gcm, 8, 4, 16},
    {"aes-gmac-256", GMAC, EVP_aes_256_gcm, 8, 4, 16},
    {"chacha20-poly1305", CHACHA, EVP_chacha20_poly1305, 8, 4, 16},
    {"aes-cbc-128", CBC, EVP_aes_128_cbc, 16, 16, 0},
    {"aes-cbc-192", CBC, EVP_aes_192_cbc, 16, 16, 0},
    {"aes-cbc-256", CBC, EVP_aes_256_cbc, 16, 16, 0},
    {"aes-ctr-128", CTR, EVP_aes_128_ctr, 8, 4, 0},
    {"aes-ctr-192", CTR, EVP_aes_192_ctr, 8, 4, 0},
    {"aes-ctr-256", CTR, EVP_aes_256_ctr, 8, 4, 0},
    {"null", NO_CIPHER, EVP_enc_null, 0, 4, 0},
};

static const struct authentication {
    const char *name;
    const EVP_MD *(*digest)(void);
    unsigned icv;
} authentications[] = {
    {"hmac-sha1-96", EVP_sha1, 12},
    {"hmac-sha256-128", EVP_sha256, 16},
    {"hmac-sha384-192", EVP_sha384, 24},
    {"hmac-sha512-256", EVP_sha512, 32},
};

__attribute__((noreturn)) static void mistake(const char *what, const char *text) {
    fprintf(stderr, "mistake in a case: %s `%s`\n", what, text ? text : "(none)");
    abort();
}

static const struct algorithm *algorithm_of(const struct esp_sa *sa) {
    for (unsigned i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
        if (strcmp(algorithms[i].name, sa->algorithm) == 0)
            return &algorithms[i];
    }
    mistake("algorithm", sa->algorithm);
}

static const struct authentication *authentication_of(const struct esp_sa *sa) {
    for (unsigned i = 0; i < sizeof(authentications) / sizeof(authentications[0]); i++) {
        if (sa->authentication && strcmp(authentications[i].name, sa->authentication) == 0)
            return &authentications[i];
    }
    mistake("authentication", sa->authentication);
}

static unsigned icv_of(const struct esp_sa *sa) {
    if (sa->icv_length)
        return sa->icv_length;
    return algorithm_of(sa)->icv ? algorithm_of(sa)->icv : authentication_of(sa)->icv;
}

static unsigned hex_bytes(const char *text, uint8_t *out, unsigned room) {
    unsigned length = (unsigned)strlen(text) / 2, value;

    if (length > room)
        mistake("too many hexadecimal digits", text);
    for (unsigned i = 0; i < length; i++) {
        if (sscanf(text + 2 * (size_t)i, "%2x", &value) != 1)
            mistake("hexadecimal digits", text);
        out[i] = (uint8_t)value;
    }
    return length;
}

static bool is_ipv6(const struct esp_sa *sa) {
    return strchr(sa->source, ':') != NULL;
}

static unsigned ip_length(const struct esp_sa *sa) {
    return is_ipv6(sa) ? 40 : 20;
}

static unsigned udp_length(const struct esp_sa *sa) {
    return sa->destination_port ? UDP_LENGTH : 0;
}

unsigned esp_offset(const struct esp_sa *sa) {
    return IP + ip_length(sa) + udp_length(sa);
}

unsigned esp_overhead(const struct esp_sa *sa) {
    return udp_length(sa) + HEADER + algorithm_of(sa)->iv + TRAILER + icv_of(sa);
}

unsigned esp_room(const struct esp_sa *sa, unsigned mtu) {
    unsigned align = algorithm_of(sa)->align;
    unsigned encrypted = mtu - ip_length(sa) - esp_overhead(sa) + TRAILER;

    return encrypted / align * align - TRAILER;
}

/* --- cryptography --- */

static void must(int good) {
    if (good <= 0)
        mistake("OpenSSL refuses", "");
}

/* Encrypts or decrypts `length` octets at `text` in place with what AEAD algorithms have. True if
 * the tag is right. */
static bool aead(const EVP_CIPHER *cipher, const uint8_t *key, const uint8_t nonce[12],
                 const uint8_t *aad, unsigned aad_length, uint8_t *text, unsigned length,
                 uint8_t *tag, unsigned tag_length, bool encrypt) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    bool right = true;
    int done;

    must(EVP_CipherInit_ex(context, cipher, NULL, NULL, NULL, encrypt));
    must(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_IVLEN, 12, NULL));
    must(EVP_CipherInit_ex(context, NULL, NULL, key, nonce, encrypt));
    must(EVP_CipherUpdate(context, NULL, &done, aad, (int)aad_length));
    if (length > 0)
        must(EVP_CipherUpdate(context, text, &done, text, (int)length));
    if (!encrypt)
        must(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, (int)tag_length, tag));
    right = EVP_CipherFinal_ex(context, text + length, &done) > 0;
    if (encrypt)
        must(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, (int)tag_length, tag));
    EVP_CIPHER_CTX_free(context);
    return right;
}

static bool combined(const struct esp_sa *sa, uint8_t *packet, unsigned encrypted, uint32_t high,
                     bool encrypt) {
    const struct algorithm *algorithm = algorithm_of(sa);
    uint8_t key[64], nonce[12], none[16], *aad = malloc(BUFFER);
    unsigned key_length = hex_bytes(sa->key, key, sizeof(key)) - SALT_LENGTH, aad_length = 0;
    uint8_t *text = packet + HEADER + algorithm->iv, *tag = text + encrypted;
    unsigned length = encrypted;
    bool right;

    memcpy(nonce, key + key_length, SALT_LENGTH);
    memcpy(nonce + SALT_LENGTH, packet + HEADER, 8);
    memcpy(aad, packet, 4);
    aad_length = 4;
    if (sa->esn) {
        put32(aad + aad_length, high);
        aad_length += 4;
    }
    memcpy(aad + aad_length, packet + 4, 4);
    aad_length += 4;
    if (algorithm->kind == GMAC) { /* RFC 4543 section 3.3: all is only authenticated */
        memcpy(aad + aad_length, packet + HEADER, algorithm->iv + encrypted);
        aad_length += algorithm->iv + encrypted;
        text = none;
        length = 0;
    }
    right = aead(algorithm->cipher(), key, nonce, aad, aad_length, text, length, tag, icv_of(sa),
                 encrypt);
    free(aad);
    return right;
}

static void encipher(const struct esp_sa *sa, uint8_t *packet, unsigned encrypted, bool encrypt) {
    const struct algorithm *algorithm = algorithm_of(sa);
    EVP_CIPHER_CTX *context;
    uint8_t key[64], iv[16] = {0}, *text = packet + HEADER + algorithm->iv;
    unsigned length;
    int done;

    if (algorithm->kind == NO_CIPHER)
        return;
    length = hex_bytes(sa->key, key, sizeof(key));
    memcpy(iv, packet + HEADER, algorithm->iv);
    if (algorithm->kind == CTR) { /* RFC 3686 section 4 */
        memcpy(iv, key + length - SALT_LENGTH, SALT_LENGTH);
        memcpy(iv + SALT_LENGTH, packet + HEADER, 8);
        put32(iv + 12, 1);
    }
    context = EVP_CIPHER_CTX_new();
    must(EVP_CipherInit_ex(context, algorithm->cipher(), NULL, key, iv, encrypt));
    EVP_CIPHER_CTX_set_padding(context, 0);
    must(EVP_CipherUpdate(context, text, &done, text, (int)encrypted));
    EVP_CIPHER_CTX_free(context);
}

/* The upper half of an extended sequence number stands behind what is sent: RFC 4303 2.2.1. */
static void hash(const struct esp_sa *sa, const uint8_t *packet, unsigned length, uint32_t high,
                 uint8_t *out) {
    uint8_t key[64], digest[64], *message = malloc(BUFFER);
    unsigned key_length = hex_bytes(sa->authentication_key, key, sizeof(key)), size;

    memcpy(message, packet, length);
    if (sa->esn) {
        put32(message + length, high);
        length += 4;
    }
    HMAC(authentication_of(sa)->digest(), key, (int)key_length, message, length, digest, &size);
    memcpy(out, digest, icv_of(sa));
    free(message);
}

static bool protect(const struct esp_sa *sa, uint8_t *packet, unsigned encrypted, uint32_t high,
                    bool encrypt) {
    unsigned before = HEADER + algorithm_of(sa)->iv;
    uint8_t icv[64];

    if (algorithm_of(sa)->icv)
        return combined(sa, packet, encrypted, high, encrypt);
    if (encrypt)
        encipher(sa, packet, encrypted, true);
    hash(sa, packet, before + encrypted, high, icv);
    if (encrypt) {
        memcpy(packet + before + encrypted, icv, icv_of(sa));
        return true;
    }
    if (memcmp(icv, packet + before + encrypted, icv_of(sa)) != 0)
        return false;
    encipher(sa, packet, encrypted, false);
    return true;
}

/* --- wrapping --- */

static void set_checksum4(uint8_t *ip) {
    put16(ip + 10, 0);
    put16(ip + 10, (uint16_t)~fold16(sum16(0, ip, (ip[0] & 15u) * 4)));
}

static uint16_t udp_checksum(const uint8_t *ip, const uint8_t *udp, unsigned length) {
    bool ipv6 = ip[0] >> 4 == 6;
    uint32_t sum = sum16(UDP_PROTOCOL + length, ip + (ipv6 ? 8 : 12), ipv6 ? 32 : 8);
    uint16_t checksum = (uint16_t)~fold16(sum16(sum, udp, length));

    return checksum ? checksum : 0xffff;
}

static void put_address(const char *text, uint8_t *at) {
    if (inet_pton(strchr(text, ':') ? AF_INET6 : AF_INET, text, at) != 1)
        mistake("address", text);
}

/* The outer header of tunnel mode. */
static void put_outer(const struct esp_sa *sa, const struct esp_fields *fields, uint8_t *ip,
                      unsigned total) {
    unsigned protocol = sa->destination_port ? UDP_PROTOCOL : ESP_PROTOCOL;
    unsigned ttl = fields->ttl ? fields->ttl : 64;

    if (is_ipv6(sa)) {
        put32(ip, 6u << 28 | fields->tos << 20);
        put16(ip + 4, total - 40);
        ip[6] = (uint8_t)protocol;
        ip[7] = (uint8_t)ttl;
        put_address(sa->source, ip + 8);
        put_address(sa->destination, ip + 24);
        return;
    }
    ip[0] = 0x45;
    ip[1] = (uint8_t)fields->tos;
    put16(ip + 2, total);
    put16(ip + 4, fields->id);
    put16(ip + 6, fields->df ? DONT_FRAGMENT : 0);
    ip[8] = (uint8_t)ttl;
    ip[9] = (uint8_t)protocol;
    put_address(sa->source, ip + 12);
    put_address(sa->destination, ip + 16);
    set_checksum4(ip);
}

/* The inner packet's own header, in transport mode. */
static void put_own(const struct esp_sa *sa, const uint8_t *own, unsigned header, uint8_t *ip,
                    unsigned total) {
    unsigned protocol = sa->destination_port ? UDP_PROTOCOL : ESP_PROTOCOL;

    memcpy(ip, own, header);
    if (own[0] >> 4 == 6) {
        put16(ip + 4, total - header);
        ip[6] = (uint8_t)protocol;
        return;
    }
    put16(ip + 2, total);
    ip[9] = (uint8_t)protocol;
    set_checksum4(ip);
}

/* What is encrypted, with its trailer; returns the length. */
static unsigned put_payload(const struct esp_sa *sa, const struct esp_fields *fields,
                            const uint8_t *inner, unsigned length, unsigned next_header,
                            uint8_t *out) {
    unsigned align = algorithm_of(sa)->align, pad;

    if (fields->encrypted) {
        memcpy(out, fields->encrypted, fields->encrypted_length);
        return fields->encrypted_length;
    }
    if (fields->payload)
        length = hex_bytes(fields->payload, out, BUFFER);
    else
        memcpy(out, inner, length);
    memset(out + length, 0, fields->tfc);
    length += fields->tfc;
    if (fields->trailer)
        return length + hex_bytes(fields->trailer, out + length, BUFFER - length);
    pad = (align - (length + TRAILER) % align) % align + fields->padding;
    for (unsigned i = 0; i < pad; i++)
        out[length++] = (uint8_t)(i + 1);
    out[length++] = (uint8_t)pad;
    out[length++] = (uint8_t)(fields->next_header ? (unsigned)fields->next_header : next_header);
    return length;
}

static void put_iv(const struct esp_sa *sa, const struct esp_fields *fields, uint64_t sequence,
                   uint8_t *at) {
    unsigned length = algorithm_of(sa)->iv;

    memset(at, 0, length);
    if (fields->iv_bytes) {
        memcpy(at, fields->iv_bytes, length);
    } else if (fields->iv) {
        hex_bytes(fields->iv, at, length);
    } else if (length > 0) {
        put32(at + length - 8, (uint32_t)(sequence >> 32));
        put32(at + length - 4, (uint32_t)sequence);
    }
}

struct frame *esp_wrap(const struct esp_sa *sa, const struct frame *inner,
                       struct esp_fields fields) {
    const unsigned inner_at = frame_ip_offset(inner);
    const uint8_t *own = inner->bytes + inner_at;
    const bool inner6 = own[0] >> 4 == 6;
    const unsigned own_header = inner6 ? 40 : (own[0] & 15u) * 4;
    const unsigned skipped = sa->transport ? own_header : 0;
    const unsigned ip = sa->transport ? own_header : ip_length(sa);
    const unsigned iv = algorithm_of(sa)->iv;
    const uint64_t sequence = fields.zero_sequence ? 0 : fields.sequence != 0 ? fields.sequence : 1;
    uint8_t *packet = calloc(1, BUFFER), *at = packet + ip + udp_length(sa);
    unsigned next_header = sa->transport ? own[inner6 ? 6 : 9] : inner6 ? IPV6_IN_IP : IPV4_IN_IP;
    unsigned encrypted, total;
    struct frame *frame;

    put32(at, sa->spi);
    put32(at + 4, (uint32_t)sequence);
    put_iv(sa, &fields, sequence, at + HEADER);
    encrypted = put_payload(sa, &fields, own + skipped, inner->length - inner_at - skipped,
                            next_header, at + HEADER + iv);
    protect(sa, at, encrypted, (uint32_t)(sequence >> 32), true);
    total = (unsigned)(at - packet) + HEADER + iv + encrypted + icv_of(sa);
    if (sa->transport)
        put_own(sa, own, own_header, packet, total);
    else
        put_outer(sa, &fields, packet, total);
    if (sa->destination_port) {
        put16(packet + ip, sa->source_port);
        put16(packet + ip + 2, sa->destination_port);
        put16(packet + ip + 4, total - ip);
        if (fields.udp_checksum)
            put16(packet + ip + 6, fields.udp_checksum);
        else if (packet[0] >> 4 == 6) /* RFC 8200 section 8.1 */
            put16(packet + ip + 6, udp_checksum(packet, packet + ip, total - ip));
    }
    frame = frame_new(IP + total);
    put16(frame->bytes + 12, packet[0] >> 4 == 6 ? 0x86dd : 0x0800);
    memcpy(frame->bytes + IP, packet, total);
    free(packet);
    return fields.vlan ? vlan(fields.vlan, frame) : frame;
}

/* --- unwrapping --- */

static const char *check_outer(const struct esp_sa *sa, const struct frame *frame, unsigned *at,
                               struct esp_found *found) {
    const unsigned ip_at = frame_ip_offset(frame);
    const uint8_t *ip = frame->bytes + ip_at;
    const unsigned length = frame->length - ip_at, header = ip_length(sa);
    const bool ipv6 = is_ipv6(sa);
    uint8_t addresses[32];

    if (length < header + HEADER || ip[0] >> 4 != (ipv6 ? 6 : 4) || (!ipv6 && ip[0] != 0x45))
        return "it has not the outer header";
    if ((ipv6 ? get16(ip + 4) + 40 : get16(ip + 2)) != length)
        return "the length in the outer header is wrong";
    if (!ipv6 && fold16(sum16(0, ip, 20)) != 0xffff)
        return "the outer header's checksum is wrong";
    put_address(sa->source, addresses);
    put_address(sa->destination, addresses + (ipv6 ? 16 : 4));
    if (memcmp(ip + (ipv6 ? 8 : 12), addresses, ipv6 ? 32 : 8) != 0)
        return "the outer addresses are others";
    found->tos = ipv6 ? get16(ip) >> 4 & 0xff : ip[1];
    found->ttl = ip[ipv6 ? 7 : 8];
    found->id = ipv6 ? 0 : get16(ip + 4);
    found->df = !ipv6 && get16(ip + 6) & DONT_FRAGMENT;
    if (!ipv6 && get16(ip + 6) & (MORE_FRAGMENTS | 0x1fff))
        return "it is a fragment";
    *at = ip_at + header + udp_length(sa);
    if (ip[ipv6 ? 6 : 9] != (sa->destination_port ? UDP_PROTOCOL : ESP_PROTOCOL))
        return "it is another protocol";
    if (sa->destination_port) {
        const uint8_t *udp = ip + header;

        if (get16(udp) != sa->source_port || get16(udp + 2) != sa->destination_port)
            return "the UDP ports are others";
        if (get16(udp + 4) != length - header)
            return "the UDP length is wrong";
        if (get16(udp + 6) != 0 &&
            fold16(sum16(sum16(UDP_PROTOCOL + length - header, ip + (ipv6 ? 8 : 12), ipv6 ? 32 : 8),
                         udp, length - header)) != 0xffff)
            return "the UDP checksum is wrong";
        if (get16(udp + 6) == 0 && ipv6)
            return "there is no UDP checksum";
    }
    return NULL;
}

static struct frame *make_inner(const struct esp_sa *sa, const uint8_t *outer,
                                const uint8_t *payload, unsigned length, unsigned next_header) {
    unsigned header = sa->transport ? ip_length(sa) : 0;
    struct frame *inner = frame_new(IP + header + length);
    uint8_t *ip = inner->bytes + IP;

    memcpy(ip, outer, header);
    memcpy(ip + header, payload, length);
    if (header == 40) {
        put16(ip + 4, length);
        ip[6] = (uint8_t)next_header;
    } else if (header == 20) {
        put16(ip + 2, header + length);
        ip[9] = (uint8_t)next_header;
        set_checksum4(ip);
    }
    put16(inner->bytes + 12, ip[0] >> 4 == 6 ? 0x86dd : 0x0800);
    return inner;
}

const char *esp_unwrap(const struct esp_sa *sa, const struct frame *frame, uint32_t high,
                       struct esp_found *found) {
    const struct algorithm *algorithm = algorithm_of(sa);
    const char *wrong;
    uint8_t *payload;
    unsigned at, encrypted, length;
    struct frame *open = copy(frame);

    memset(found, 0, sizeof(*found));
    wrong = check_outer(sa, frame, &at, found);
    if (wrong)
        return wrong;
    if (frame->length < at + HEADER + algorithm->iv + TRAILER + icv_of(sa))
        return "it is too short";
    encrypted = frame->length - at - HEADER - algorithm->iv - icv_of(sa);
    if (encrypted % algorithm->align != 0)
        return "what is encrypted is not a multiple of its alignment";
    if (get32(frame->bytes + at) != sa->spi)
        return "the SPI is another one";
    found->sequence = (uint64_t)high << 32 | get32(frame->bytes + at + 4);
    found->iv = frame->bytes + at + HEADER;
    if (!protect(sa, open->bytes + at, encrypted, high, false))
        return "the check value is wrong";
    payload = open->bytes + at + HEADER + algorithm->iv;
    found->pad = payload[encrypted - 2];
    if (found->pad + TRAILER > encrypted)
        return "it has more padding than octets";
    length = encrypted - TRAILER - found->pad;
    for (unsigned i = 0; i < found->pad; i++) {
        if (payload[length + i] != i + 1)
            return "the padding is not 1, 2, 3, ...";
    }
    if (!sa->transport &&
        (length < 20 || payload[encrypted - 1] != (payload[0] >> 4 == 6 ? IPV6_IN_IP : IPV4_IN_IP)))
        return "the next header is not that of what is inside";
    found->inner = make_inner(sa, frame->bytes + frame_ip_offset(frame), payload, length,
                              payload[encrypted - 1]);
    return NULL;
}
