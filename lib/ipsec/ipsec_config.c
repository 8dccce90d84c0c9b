/* The section "ipsec" of router.json: associations and policies by hand. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "core/event.h"
#include "core/log.h"
#include "core/section.h"
#include "interface/interface.h"
#include "ipsec/esp_path.h"
#include "ipsec/esp_reassembly.h"
#include "ipsec/esp_replay.h"
#include "ipsec/ipsec_audit.h"
#include "ipsec/ipsec_decode.h"
#include "ipsec/ipsec_internal.h"
#include "ipsec/place_index.h"
#include "ipsec/xfrm_server.h"

struct sa_config {
    struct ipsec_sa_settings settings; /* with keys; the VRF's id is set when it is put in force */
    struct ipsec_names names;
};

struct policy_config {
    struct ipsec_policy_settings settings;
    struct ipsec_names names;
};

struct ipsec_config {
    unsigned sa_count, policy_count;
    struct sa_config *sas;
    struct policy_config *policies;
    bool audit;
    char ike_socket[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": no IKE daemon */
};

static struct config_section ipsec_section;

const char *const ipsec_direction_names[] = {
    [IPSEC_IN] = "in",
    [IPSEC_OUT] = "out",
    NULL,
};
const char *const ipsec_mode_names[] = {
    [IPSEC_TUNNEL] = "tunnel",
    [IPSEC_TRANSPORT] = "transport",
    NULL,
};
const char *const ipsec_action_names[] = {
    [IPSEC_PROTECT] = "protect",
    [IPSEC_BYPASS] = "bypass",
    [IPSEC_DISCARD] = "discard",
    NULL,
};
const char *const ipsec_df_names[] = {
    [IPSEC_DF_COPY] = "copy",
    [IPSEC_DF_CLEAR] = "clear",
    [IPSEC_DF_SET] = "set",
    NULL,
};

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);

    if (!memory)
        abort(); /* the control side has no sensible way to go on */
    return memory;
}

/* --- decoding --- */

static int digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The key itself is never part of a problem. */
static bool decode_key(const struct decode *d, const char *algorithm, unsigned length, bool salted,
                       uint8_t *out) {
    const char *text;

    if (!decode_string(d, &text))
        return false;
    if (strlen(text) != 2 * (size_t)length) {
        decode_problem(d, "%s takes a key of %u hexadecimal digits%s, found %zu characters",
                       algorithm, 2 * length, salted ? ", the last 8 of them the salt" : "",
                       strlen(text));
        return false;
    }
    for (unsigned i = 0; i < length; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

        if (high < 0 || low < 0) {
            decode_problem(d, "expected hexadecimal digits, found something else at place %u",
                           2 * i + (high < 0 ? 1 : 2));
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool decode_cipher(const struct decode *d, struct ipsec_sa_settings *out) {
    struct decode at;
    const char *name;

    if (!decode_required(d, "algorithm", &at) || !decode_string(&at, &name))
        return false;
    out->cipher = esp_cipher_find(name);
    if (!out->cipher) {
        decode_problem(&at,
                       "unknown algorithm `%s`; there are aes-gcm-128 to 256, "
                       "chacha20-poly1305, aes-gmac-128 to 256, aes-cbc-128 to 256, "
                       "aes-ctr-128 to 256 and null",
                       name);
        return false;
    }
    if (esp_cipher_key_length(out->cipher) == 0) {
        if (!decode_member(d, "key", &at))
            return true;
        decode_problem(&at, "%s takes no key", name);
        return false;
    }
    return decode_required(d, "key", &at) &&
           decode_key(&at, name, esp_cipher_key_length(out->cipher),
                      esp_cipher_salt_length(out->cipher) > 0, out->key);
}

static bool decode_auth(const struct decode *d, struct ipsec_sa_settings *out) {
    struct decode at;
    const char *name;

    if (esp_cipher_is_combined(out->cipher)) {
        if (!decode_member(d, "authentication", &at) &&
            !decode_member(d, "authentication_key", &at))
            return true;
        decode_problem(&at, "%s authenticates by itself: leave this out",
                       esp_cipher_name(out->cipher));
        return false;
    }
    if (!decode_required(d, "authentication", &at) || !decode_string(&at, &name))
        return false;
    out->auth = esp_auth_find(name);
    if (!out->auth) {
        decode_problem(&at,
                       "unknown algorithm `%s`; there are hmac-sha1-96, hmac-sha256-128, "
                       "hmac-sha384-192 and hmac-sha512-256",
                       name);
        return false;
    }
    return decode_required(d, "authentication_key", &at) &&
           decode_key(&at, name, esp_auth_key_length(out->auth), false, out->auth_key);
}

static bool decode_algorithms(const struct decode *d, struct ipsec_sa_settings *out) {
    struct decode at;
    uint64_t icv;

    if (!decode_cipher(d, out) || !decode_auth(d, out))
        return false;
    if (!decode_member(d, "icv_length", &at))
        return true;
    if (!decode_uint(&at, 8, ESP_ICV_MAX, &icv))
        return false;
    out->icv = (uint8_t)icv;
    if (esp_icv_is_possible(out->cipher, out->auth, out->icv))
        return true;
    decode_problem(&at, "%s has no check value of %u bytes",
                   out->auth ? esp_auth_name(out->auth) : esp_cipher_name(out->cipher), out->icv);
    return false;
}

static bool decode_end(const struct decode *d, const char *key, struct ip_address *out) {
    struct decode at;

    if (!decode_required(d, key, &at) || !decode_address(&at, out))
        return false;
    if (ip_address_is_host(out))
        return true;
    decode_problem(&at, "expected the address of a host, found one that no host can have");
    return false;
}

static bool decode_ends(const struct decode *d, struct ipsec_sa_settings *out) {
    struct decode at;
    bool good = decode_end(d, "source", &out->source);

    good &= decode_end(d, "destination", &out->destination);
    if (good && out->source.family != out->destination.family &&
        decode_member(d, "destination", &at)) {
        decode_problem(&at, "source and destination are of different families");
        good = false;
    }
    return good;
}

static bool decode_udp(const struct decode *d, struct ipsec_sa_settings *out) {
    struct decode at;
    bool good = decode_member_u16(d, "udp_source_port", 1, UINT16_MAX, &out->source_port);

    good &= decode_member_u16(d, "udp_destination_port", 1, UINT16_MAX, &out->destination_port);
    if (good && (out->source_port == 0) != (out->destination_port == 0)) {
        decode_problem(d, "UDP encapsulation takes both `udp_source_port` and "
                          "`udp_destination_port`, as a rule 4500 and 4500");
        good = false;
    }
    if (good && out->direction == IPSEC_IN && out->destination_port != 0 &&
        out->destination_port != 4500 && decode_member(d, "udp_destination_port", &at)) {
        decode_problem(&at, "ESP in UDP is received on port 4500 (RFC 3948)");
        good = false;
    }
    return good;
}

/* Absent: without limits. */
static bool decode_lifetime(const struct decode *d, struct ipsec_sa_settings *out) {
    static const char *const keys[] = {"seconds",    "bytes",        "packets", "soft_seconds",
                                       "soft_bytes", "soft_packets", NULL};
    uint64_t *const limits[] = {&out->hard.seconds, &out->hard.bytes, &out->hard.packets,
                                &out->soft.seconds, &out->soft.bytes, &out->soft.packets};
    struct decode lifetime, at;
    bool good = true;

    if (!decode_member(d, "lifetime", &lifetime))
        return true;
    if (!decode_is_object(&lifetime))
        return false;
    decode_only_keys(&lifetime, keys);
    for (unsigned i = 0; keys[i]; i++) {
        if (decode_member(&lifetime, keys[i], &at))
            good &= decode_uint(&at, 1, INT64_MAX, limits[i]);
    }
    for (unsigned i = 0; good && i < 3; i++) {
        if (*limits[i + 3] == 0 || *limits[i] == 0 || *limits[i + 3] < *limits[i] ||
            !decode_member(&lifetime, keys[i + 3], &at))
            continue;
        decode_problem(&at, "the soft limit has to be below `%s`", keys[i]);
        good = false;
    }
    if (json_object_size(lifetime.value) > 0)
        return good;
    decode_problem(&lifetime, "expected at least one limit");
    return false;
}

static bool decode_choice(const struct decode *d, const char *key, bool required,
                          const char *const *words, unsigned *out) {
    struct decode at;

    if (!(required ? decode_required(d, key, &at) : decode_member(d, key, &at)))
        return !required;
    return decode_word(&at, words, out);
}

static bool decode_name_of(const struct decode *d, const char *key, char out[IPSEC_NAME_TEXT]) {
    struct decode at;
    const char *name;

    if (!decode_member(d, key, &at))
        return true;
    if (!decode_string(&at, &name) || !decode_name(&at, name))
        return false;
    snprintf(out, IPSEC_NAME_TEXT, "%s", name);
    return true;
}

static bool decode_names(const struct decode *d, struct ipsec_names *out) {
    bool good;

    memset(out, 0, sizeof(*out));
    snprintf(out->vrf, sizeof(out->vrf), "default");
    good = decode_name_of(d, "vrf", out->vrf);
    good &= decode_name_of(d, "interface", out->interface);
    return good;
}

bool ipsec_decode_sa(const struct decode *d, struct ipsec_sa_settings *out,
                     struct ipsec_names *names) {
    static const char *const keys[] = {"spi",
                                       "direction",
                                       "source",
                                       "destination",
                                       "mode",
                                       "algorithm",
                                       "key",
                                       "authentication",
                                       "authentication_key",
                                       "icv_length",
                                       "esn",
                                       "replay_window",
                                       "udp_source_port",
                                       "udp_destination_port",
                                       "df",
                                       "request",
                                       "lifetime",
                                       "vrf",
                                       "interface",
                                       NULL};
    unsigned direction = IPSEC_IN, mode = IPSEC_TUNNEL, df = IPSEC_DF_COPY;
    struct decode at;
    bool good;

    memset(out, 0, sizeof(*out));
    if (!decode_is_object(d))
        return false;
    decode_only_keys(d, keys);
    good =
        decode_required(d, "spi", &at) && decode_u32(&at, IPSEC_SPI_FIRST, UINT32_MAX, &out->spi);
    good &= decode_choice(d, "direction", true, ipsec_direction_names, &direction);
    good &= decode_choice(d, "mode", false, ipsec_mode_names, &mode);
    good &= decode_choice(d, "df", false, ipsec_df_names, &df);
    out->direction = (enum ipsec_direction)direction;
    out->mode = (enum ipsec_mode)mode;
    out->df = (enum ipsec_df)df;
    good &= decode_ends(d, out);
    good &= decode_algorithms(d, out);
    good &= decode_member_bool(d, "esn", &out->esn);
    good &= decode_member_u32(d, "replay_window", 0, ESP_REPLAY_MAX, &out->replay_window);
    good &= decode_udp(d, out);
    good &= decode_member_u32(d, "request", 1, UINT32_MAX, &out->request);
    good &= decode_lifetime(d, out);
    good &= decode_names(d, names);
    return good;
}

/* A prefix; absent: any. */
static bool decode_selector_prefix(const struct decode *d, const char *key, struct ip_prefix *out) {
    struct decode at;
    const char *text;

    if (!decode_member(d, key, &at))
        return true;
    if (!decode_string(&at, &text))
        return false;
    if (strchr(text, '/'))
        return decode_prefix(&at, out);
    if (!decode_address(&at, &out->address))
        return false;
    out->length = ip_family_bits(out->address.family);
    return true;
}

static bool decode_selector_ports(const struct decode *d, const char *key, uint8_t protocol,
                                  uint16_t out[2]) {
    struct decode at;

    out[0] = 0;
    out[1] = UINT16_MAX;
    if (!decode_member(d, key, &at))
        return true;
    if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP &&
        protocol != IPPROTO_DCCP && protocol != IPPROTO_UDPLITE) {
        decode_problem(&at,
                       "only tcp, udp, udplite, sctp and dccp have ports: name the `protocol`");
        return false;
    }
    return decode_ports(&at, &out[0], &out[1]);
}

static bool decode_selector(const struct decode *d, struct ipsec_selector *out) {
    struct decode at;
    bool good = decode_selector_prefix(d, "source", &out->source);

    good &= decode_selector_prefix(d, "destination", &out->destination);
    if (decode_member(d, "protocol", &at))
        good &= decode_protocol(&at, &out->protocol);
    good &= decode_selector_ports(d, "source_port", out->protocol, out->source_port);
    good &= decode_selector_ports(d, "destination_port", out->protocol, out->destination_port);
    if (!good)
        return false;
    if (out->source.address.family == 0 && out->destination.address.family == 0) {
        decode_problem(d, "a policy is about one family: name `source` or `destination`, "
                          "\"0.0.0.0/0\" or \"::/0\" for any");
        return false;
    }
    if (out->source.address.family == 0)
        out->source.address.family = out->destination.address.family;
    if (out->destination.address.family == 0)
        out->destination.address.family = out->source.address.family;
    if (out->source.address.family == out->destination.address.family)
        return true;
    decode_problem(d, "source and destination are of different families");
    return false;
}

static bool decode_protection(const struct decode *d, struct ipsec_policy_settings *out) {
    bool has_spi, good;

    good = decode_member_u32(d, "spi", IPSEC_SPI_FIRST, UINT32_MAX, &out->spi);
    good &= decode_member_u32(d, "request", 1, UINT32_MAX, &out->request);
    if (!good)
        return false;
    has_spi = out->spi != 0;
    if (out->action != IPSEC_PROTECT && (has_spi || out->request != 0))
        decode_problem(d, "only a policy that protects has `spi` or `request`");
    else if (out->action == IPSEC_PROTECT && has_spi == (out->request != 0))
        decode_problem(d, "a policy that protects needs either `spi` or `request`, which say with "
                          "what association");
    else
        return true;
    return false;
}

bool ipsec_decode_policy(const struct decode *d, struct ipsec_policy_settings *out,
                         struct ipsec_names *names) {
    static const char *const keys[] = {
        "name", "direction",        "source",  "protocol", "destination", "source_port", "action",
        "spi",  "destination_port", "request", "priority", "vrf",         "interface",   NULL};
    unsigned direction = IPSEC_IN, action = IPSEC_PROTECT;
    const char *name = NULL;
    struct decode at;
    bool good;

    memset(out, 0, sizeof(*out));
    if (!decode_is_object(d))
        return false;
    decode_only_keys(d, keys);
    good = decode_member_string(d, "name", &name);
    if (name && decode_member(d, "name", &at)) {
        good &= decode_name(&at, name);
        snprintf(out->name, sizeof(out->name), "%s", name);
    }
    good &= decode_choice(d, "direction", true, ipsec_direction_names, &direction);
    good &= decode_choice(d, "action", true, ipsec_action_names, &action);
    out->direction = (enum ipsec_direction)direction;
    out->action = (enum ipsec_action)action;
    good &= decode_selector(d, &out->selector);
    good &= decode_member_u32(d, "priority", 0, UINT32_MAX, &out->priority);
    good &= decode_names(d, names);
    if (names->interface[0] != '\0' && decode_member(d, "vrf", &at)) {
        decode_problem(&at, "`vrf` cannot stand next to `interface`, which has a VRF of its own");
        good = false;
    }
    return good && decode_protection(d, out);
}

/* --- finding one among many --- */

static uint64_t hash_of_sa(const struct ipsec_sa_settings *sa) {
    uint64_t hash = place_hash(sa->direction, &sa->spi, sizeof(sa->spi));

    return place_hash(hash, sa->destination.bytes, ip_family_bits(sa->destination.family) / 8u);
}

/* No two associations have the same SPI, direction and destination. */
static bool is_same_sa(const void *list, uint32_t place, const void *wanted) {
    const struct ipsec_sa_settings *one = &((const struct sa_config *)list)[place].settings;
    const struct ipsec_sa_settings *other = wanted;

    return one->spi == other->spi && one->direction == other->direction &&
           ip_address_compare(&one->destination, &other->destination) == 0;
}

static uint32_t find_sa(const struct place_index *index, const struct sa_config *list,
                        const struct ipsec_sa_settings *wanted) {
    return place_index_find(index, hash_of_sa(wanted), is_same_sa, list, wanted);
}

/* `config` may be NULL: then nothing is in it. */
static void index_sas(struct place_index *index, const struct ipsec_config *config) {
    place_index_make(index, config ? config->sa_count : 0);
    for (uint32_t i = 0; config && i < config->sa_count; i++)
        place_index_add(index, hash_of_sa(&config->sas[i].settings), i);
}

static uint64_t hash_of_prefix(uint64_t hash, const struct ip_prefix *prefix) {
    hash = place_hash(hash, &prefix->length, sizeof(prefix->length));
    return place_hash(hash, prefix->address.bytes, ip_family_bits(prefix->address.family) / 8u);
}

static uint64_t hash_of_policy(const struct ipsec_policy_settings *policy) {
    const struct ipsec_selector *selector = &policy->selector;
    uint64_t hash = place_hash(policy->direction, &policy->priority, sizeof(policy->priority));

    hash = hash_of_prefix(hash_of_prefix(hash, &selector->source), &selector->destination);
    hash = place_hash(hash, &selector->protocol, sizeof(selector->protocol));
    hash = place_hash(hash, selector->source_port, sizeof(selector->source_port));
    return place_hash(hash, selector->destination_port, sizeof(selector->destination_port));
}

/* In a configuration VRFs are names. */
static bool is_rival_policy(const void *list, uint32_t place, const void *wanted) {
    const struct policy_config *one = &((const struct policy_config *)list)[place];
    const struct policy_config *other = wanted;

    return strcmp(one->names.vrf, other->names.vrf) == 0 &&
           strcmp(one->names.interface, other->names.interface) == 0 &&
           policies_collide(&one->settings, &other->settings);
}

/* --- the lists --- */

/* Of the array; 0 with a problem when there are too many elements. */
static size_t size_of(const struct decode *d, unsigned most, const char *what) {
    size_t count = json_array_size(d->value);

    if (count <= most)
        return count;
    decode_problem(d, "expected at most %u %s, found %zu", most, what, count);
    return 0;
}

static void decode_sas(const struct decode *d, struct ipsec_config *config) {
    size_t count = size_of(d, IPSEC_SAS_MAX, "associations");
    struct place_index index;
    struct decode at;

    place_index_make(&index, count);
    config->sas = allocate(count, sizeof(*config->sas));
    for (size_t i = 0; i < count; i++) {
        struct decode element = decode_element(d, i);
        struct sa_config *sa = &config->sas[config->sa_count];

        if (!ipsec_decode_sa(&element, &sa->settings, &sa->names)) {
            explicit_bzero(sa, sizeof(*sa));
            continue;
        }
        if (find_sa(&index, config->sas, &sa->settings) != PLACE_NONE &&
            decode_member(&element, "spi", &at))
            decode_problem(&at, "another association has this SPI, direction and destination");
        place_index_add(&index, hash_of_sa(&sa->settings), config->sa_count++);
    }
    place_index_free(&index);
}

static void decode_policies(const struct decode *d, struct ipsec_config *config) {
    size_t count = size_of(d, IPSEC_POLICIES_MAX, "policies");
    struct place_index index;

    place_index_make(&index, count);
    config->policies = allocate(count, sizeof(*config->policies));
    for (size_t i = 0; i < count; i++) {
        struct decode element = decode_element(d, i);
        struct policy_config *policy = &config->policies[config->policy_count];
        uint32_t before;

        if (!ipsec_decode_policy(&element, &policy->settings, &policy->names))
            continue;
        before = place_index_find(&index, hash_of_policy(&policy->settings), is_rival_policy,
                                  config->policies, policy);
        if (before != PLACE_NONE)
            decode_problem(&element,
                           "policy %u is about the same packets, with the same priority: this one "
                           "would never decide",
                           before);
        place_index_add(&index, hash_of_policy(&policy->settings), config->policy_count++);
    }
    place_index_free(&index);
}

static void decode_ike(const struct decode *d, struct ipsec_config *config) {
    static const char *const keys[] = {"socket", NULL};
    struct decode at;
    const char *path;

    if (!decode_is_object(d))
        return;
    decode_only_keys(d, keys);
    if (!decode_required(d, "socket", &at) || !decode_string(&at, &path))
        return;
    if (path[0] != '/')
        decode_problem(&at, "expected the absolute path of a socket, found `%s`", path);
    else if (strlen(path) >= sizeof(config->ike_socket))
        decode_problem(&at, "a socket's path has at most %zu bytes, this one has %zu",
                       sizeof(config->ike_socket) - 1, strlen(path));
    else
        snprintf(config->ike_socket, sizeof(config->ike_socket), "%s", path);
}

static void free_config(void *value) {
    struct ipsec_config *config = value;

    if (!config)
        return;
    if (config->sas)
        explicit_bzero(config->sas, config->sa_count * sizeof(*config->sas));
    free(config->sas);
    free(config->policies);
    free(config);
}

static void *decode_ipsec(struct decode *d) {
    static const char *const keys[] = {"sas", "policies", "ike", "audit", NULL};
    struct ipsec_config *config;
    struct decode member;

    if (!d || !decode_is_object(d))
        return NULL;
    decode_only_keys(d, keys);
    config = allocate(1, sizeof(*config));
    if (decode_member(d, "sas", &member) && decode_is_array(&member))
        decode_sas(&member, config);
    if (decode_member(d, "policies", &member) && decode_is_array(&member))
        decode_policies(&member, config);
    if (decode_member(d, "ike", &member))
        decode_ike(&member, config);
    config->audit = true;
    decode_member_bool(d, "audit", &config->audit);
    return config;
}

/* --- checking --- */

static void check_vrf(const struct config *config, const char *list, unsigned index,
                      const char *vrf, struct problems *problems) {
    char path[64];

    if (vrf_configured(config, vrf))
        return;
    snprintf(path, sizeof(path), "$.ipsec.%s[%u].vrf", list, index);
    problems_add(problems, path, "VRF `%s` does not exist", vrf);
}

static uint64_t hash_of_number(uint32_t spi, enum ipsec_direction direction) {
    return place_hash(direction, &spi, sizeof(spi));
}

static bool is_named_sa(const void *list, uint32_t place, const void *wanted) {
    const struct ipsec_sa_settings *sa = &((const struct sa_config *)list)[place].settings;
    const struct ipsec_policy_settings *policy = wanted;

    return sa->spi == policy->spi && sa->direction == policy->direction;
}

/* A policy by SPI is about an association that stands here; one by request may wait for it. */
static void check_protection(const struct ipsec_config *ipsec, struct problems *problems) {
    struct place_index numbers;
    char path[64];

    place_index_make(&numbers, ipsec->sa_count);
    for (uint32_t i = 0; i < ipsec->sa_count; i++) {
        const struct ipsec_sa_settings *sa = &ipsec->sas[i].settings;

        place_index_add(&numbers, hash_of_number(sa->spi, sa->direction), i);
    }
    for (unsigned i = 0; i < ipsec->policy_count; i++) {
        const struct ipsec_policy_settings *policy = &ipsec->policies[i].settings;

        if (policy->spi == 0 ||
            place_index_find(&numbers, hash_of_number(policy->spi, policy->direction), is_named_sa,
                             ipsec->sas, policy) != PLACE_NONE)
            continue;
        snprintf(path, sizeof(path), "$.ipsec.policies[%u].spi", i);
        problems_add(problems, path, "there is no association %u in direction `%s`", policy->spi,
                     ipsec_direction_names[policy->direction]);
    }
    place_index_free(&numbers);
}

/* The number is the interface's in this configuration: whoever has another one then is changed. */
static uint32_t check_interface(const struct config *config, const char *list, unsigned index,
                                const char *interface, struct problems *problems) {
    uint32_t if_id = interface_configured_if_id(config, interface);
    char path[64];

    if (interface[0] == '\0' || if_id != 0)
        return if_id;
    snprintf(path, sizeof(path), "$.ipsec.%s[%u].interface", list, index);
    problems_add(problems, path,
                 interface_configured(config, interface)
                     ? "`%s` is no tunnel interface: it has no `if_id`"
                     : "interface `%s` does not exist",
                 interface);
    return 0;
}

static void check_tunnels(const struct config *config, struct problems *problems) {
    const char *tunnel = interface_configured_tunnel(config);
    char path[64 + IPSEC_NAME_TEXT];

    if (!tunnel)
        return;
    snprintf(path, sizeof(path), "$.interfaces.%s.if_id", tunnel);
    problems_add(problems, path, "a tunnel interface needs a section `ipsec`, even if it is empty");
}

static void check_ipsec(const struct config *config, struct problems *problems) {
    struct ipsec_config *ipsec = config_value(config, &ipsec_section);

    if (!ipsec) {
        check_tunnels(config, problems);
        return;
    }
    for (unsigned i = 0; i < ipsec->sa_count; i++) {
        struct sa_config *sa = &ipsec->sas[i];

        check_vrf(config, "sas", i, sa->names.vrf, problems);
        sa->settings.if_id = check_interface(config, "sas", i, sa->names.interface, problems);
    }
    for (unsigned i = 0; i < ipsec->policy_count; i++) {
        struct policy_config *policy = &ipsec->policies[i];

        check_vrf(config, "policies", i, policy->names.vrf, problems);
        policy->settings.if_id =
            check_interface(config, "policies", i, policy->names.interface, problems);
    }
    check_protection(ipsec, problems);
}

/* --- putting it to work --- */

/* What the new configuration adds: made by prepare, taken over by commit. */
static struct {
    struct ipsec_sa **sas; /* by place in the configuration; NULL: stays as it is */
    struct ipsec_policy **policies;
    unsigned sa_count, policy_count;
} prepared;

static void forget_prepared(void) {
    for (unsigned i = 0; i < prepared.sa_count; i++)
        sa_destroy(prepared.sas[i]);
    for (unsigned i = 0; i < prepared.policy_count; i++)
        policy_destroy(prepared.policies[i]);
    free(prepared.sas);
    free(prepared.policies);
    memset(&prepared, 0, sizeof(prepared));
}

/* Numbers go on in an association that stays as it was. */
static bool has_sa(const struct ipsec_config *config, const struct place_index *index,
                   const struct sa_config *sa) {
    uint32_t place = config ? find_sa(index, config->sas, &sa->settings) : PLACE_NONE;

    return place != PLACE_NONE && memcmp(&config->sas[place], sa, sizeof(*sa)) == 0;
}

static int prepare_sa(const struct sa_config *sa, const char *path, struct ipsec_sa **out,
                      struct problems *problems) {
    const struct ipsec_sa *other =
        ipsec_sa_find(sa->settings.spi, sa->settings.direction, &sa->settings.destination);

    if (other && other->owner != IPSEC_OF_CONFIG) {
        problems_add(problems, path, "%s has added an association with this SPI and destination",
                     other->owner == IPSEC_OF_IKE ? "the IKE daemon"
                                                  : "a client of the control socket");
        return -EEXIST;
    }
    *out = sa_create(&sa->settings);
    if (*out)
        return 0;
    problems_add(problems, path, "the association cannot be made: %s", strerror(errno));
    return -errno;
}

static int prepare_sas(const struct ipsec_config *before, const struct ipsec_config *after,
                       struct problems *problems) {
    struct place_index index;
    char path[64];
    int error = 0;

    prepared.sas = allocate(after->sa_count, sizeof(*prepared.sas));
    prepared.sa_count = after->sa_count;
    index_sas(&index, before);
    for (unsigned i = 0; i < after->sa_count && error == 0; i++) {
        snprintf(path, sizeof(path), "$.ipsec.sas[%u]", i);
        if (!has_sa(before, &index, &after->sas[i]))
            error = prepare_sa(&after->sas[i], path, &prepared.sas[i], problems);
    }
    place_index_free(&index);
    return error;
}

static int prepare_policies(const struct ipsec_config *after, struct problems *problems) {
    int error = policy_reserve(after->policy_count, true);

    prepared.policies = allocate(after->policy_count, sizeof(*prepared.policies));
    prepared.policy_count = after->policy_count;
    for (unsigned i = 0; i < after->policy_count && error == 0; i++) {
        prepared.policies[i] = policy_create(&after->policies[i].settings);
        error = prepared.policies[i] ? 0 : -ENOMEM;
    }
    if (error)
        problems_add(problems, "$.ipsec.policies", "the policies cannot be made: %s",
                     strerror(-error));
    return error;
}

static int prepare_ike(const struct ipsec_config *after, struct problems *problems) {
    const char *path = after->ike_socket;

    return xfrm_server_prepare(path[0] != '\0' ? path : NULL, problems);
}

static int prepare_ipsec(const struct config *old, const struct config *new,
                         struct problems *problems) {
    const struct ipsec_config *before = config_value(old, &ipsec_section);
    const struct ipsec_config *after = config_value(new, &ipsec_section);
    int error;

    if (!after)
        return xfrm_server_prepare(NULL, problems);
    error = ipsec_need();
    if (error) {
        problems_add(problems, "$.ipsec", "%s",
                     error == -ENOTSUP ? "this CPU has no instructions for AES"
                                       : "there is not enough memory");
        return error;
    }
    error = prepare_sas(before, after, problems);
    if (error == 0)
        error = prepare_policies(after, problems);
    if (error == 0)
        error = prepare_ike(after, problems);
    if (error)
        forget_prepared();
    return error;
}

static void abort_ipsec(const struct config *old, const struct config *new) {
    (void)old;
    (void)new;
    xfrm_server_abort();
    forget_prepared();
}

/* --- what can be right, but hardly is: a line in the log about what is new --- */

static uint64_t hash_of_key(const struct ipsec_sa_settings *sa) {
    return place_hash(0, sa->key, sizeof(sa->key));
}

static bool has_same_key(const void *list, uint32_t place, const void *wanted) {
    const struct ipsec_sa_settings *one = &((const struct sa_config *)list)[place].settings;
    const struct ipsec_sa_settings *other = wanted;

    return esp_cipher_key_length(one->cipher) > 0 && one->cipher == other->cipher &&
           memcmp(one->key, other->key, sizeof(one->key)) == 0;
}

static void warn_of_keys(const struct ipsec_config *config) {
    struct place_index index;

    place_index_make(&index, config->sa_count);
    for (uint32_t i = 0; i < config->sa_count; i++) {
        const struct ipsec_sa_settings *sa = &config->sas[i].settings;
        uint32_t other = place_index_find(&index, hash_of_key(sa), has_same_key, config->sas, sa);

        if (other != PLACE_NONE && (prepared.sas[i] || prepared.sas[other])) {
            log_warning("ipsec",
                        "$.ipsec.sas[%u] has the key of $.ipsec.sas[%u]: give each association, "
                        "and each direction, a key of its own",
                        i, other);
            break;
        }
        place_index_add(&index, hash_of_key(sa), i);
    }
    place_index_free(&index);
}

/* Addresses may be there later, or on another machine of a pair, so this is no error. */
static void warn_of_ends(const struct config *config, const struct ipsec_config *ipsec) {
    enum { MOST = 5 };
    char text[IP_ADDRESS_TEXT];
    unsigned told = 0;

    for (unsigned i = 0; i < ipsec->sa_count && told < MOST; i++) {
        const struct ipsec_sa_settings *sa = &ipsec->sas[i].settings;
        const char *vrf = ipsec->sas[i].names.vrf;
        const bool out = sa->direction == IPSEC_OUT;
        const struct ip_address *own = out ? &sa->source : &sa->destination;

        if (!prepared.sas[i] || interface_configured_own(config, vrf, own))
            continue;
        told++;
        log_warning("ipsec", "$.ipsec.sas[%u].%s: no interface of VRF `%s` has the address %s%s", i,
                    out ? "source" : "destination", vrf, ip_address_text(own, text),
                    interface_configured_own(config, vrf, out ? &sa->destination : &sa->source)
                        ? "; are source and destination exchanged?"
                        : "");
    }
}

static void commit_sas(const struct ipsec_config *before, const struct ipsec_config *after) {
    struct place_index index;

    index_sas(&index, after);
    for (unsigned i = 0; before && i < before->sa_count; i++) {
        const struct ipsec_sa_settings *settings = &before->sas[i].settings;

        if (!has_sa(after, &index, &before->sas[i]))
            ipsec_sa_delete(settings->spi, settings->direction, &settings->destination,
                            IPSEC_OF_CONFIG);
    }
    place_index_free(&index);
    for (unsigned i = 0; i < prepared.sa_count; i++) {
        struct ipsec_sa *sa = prepared.sas[i];

        if (!sa)
            continue;
        sa->vrf = sa->settings.vrf = (uint16_t)vrf_by_name(after->sas[i].names.vrf);
        sa_insert(sa, IPSEC_OF_CONFIG);
        prepared.sas[i] = NULL;
    }
}

static bool says_the_same(const void *list, uint32_t place, const void *wanted) {
    const struct ipsec_policy *policy = ((struct ipsec_policy *const *)list)[place];

    return memcmp(&policy->settings, wanted, sizeof(policy->settings)) == 0;
}

/* Those that say the same as before keep what they have counted, but take their new places. */
static void keep_counters(void) {
    struct ipsec_policy *policy = NULL, **before = allocate(IPSEC_POLICIES_MAX, sizeof(*before));
    struct place_index index;
    uint32_t count = 0, place;

    place_index_make(&index, IPSEC_POLICIES_MAX);
    while ((policy = ipsec_policy_next(policy)) != NULL) {
        if (policy->owner != IPSEC_OF_CONFIG)
            continue;
        before[count] = policy;
        place_index_add(&index, hash_of_policy(&policy->settings), count++);
    }
    for (unsigned i = 0; i < prepared.policy_count; i++) {
        struct ipsec_policy *after = prepared.policies[i];

        place = place_index_find(&index, hash_of_policy(&after->settings), says_the_same, before,
                                 &after->settings);
        for (unsigned k = 0; place != PLACE_NONE && k < workers_count(); k++)
            *policy_tally(after, k) = *policy_tally(before[place], k);
    }
    place_index_free(&index);
    free(before);
}

static void commit_policies(const struct ipsec_config *after) {
    for (unsigned i = 0; i < prepared.policy_count; i++)
        prepared.policies[i]->settings.vrf = (uint16_t)vrf_by_name(after->policies[i].names.vrf);
    keep_counters();
    policy_delete_of(IPSEC_OF_CONFIG);
    policy_insert_all(prepared.policies, prepared.policy_count, IPSEC_OF_CONFIG);
    prepared.policy_count = 0; /* they are in force: nothing to be forgotten */
}

static void publish(struct event_timer *timer) {
    enum { AGAIN_MSEC = 1000 };
    int error = ipsec_publish();

    if (error) {
        log_error("ipsec", "the policies could not be put in force, trying again: %s",
                  strerror(-error));
        event_timer_start(timer, AGAIN_MSEC);
    }
}

static struct event_timer publish_timer = {.expired = publish};

void ipsec_publish_soon(void) {
    event_timer_start(&publish_timer, 0);
}

static void delete_all(void) {
    const struct ipsec_sa *next;

    for (const struct ipsec_sa *sa = ipsec_sa_next(NULL); sa; sa = next) {
        next = ipsec_sa_next(sa);
        ipsec_sa_delete(sa->settings.spi, sa->settings.direction, &sa->settings.destination,
                        sa->owner);
    }
    esp_path_forget_all();
    policy_delete_of(IPSEC_OF_CONFIG);
    policy_delete_of(IPSEC_OF_CLIENT);
    policy_delete_of(IPSEC_OF_IKE);
}

static void commit_ipsec(const struct config *old, const struct config *new) {
    const struct ipsec_config *after = config_value(new, &ipsec_section);

    xfrm_server_commit(); /* first: what IKE has made goes with its socket */
    if (after) {
        if (prepared.sa_count > 0) {
            warn_of_keys(after);
            warn_of_ends(new, after);
        }
        commit_sas(config_value(old, &ipsec_section), after);
        commit_policies(after);
    } else if (ipsec_configured) {
        delete_all(); /* the stages go */
    }
    if (after || ipsec_configured)
        publish(&publish_timer);
    ipsec_configured = after != NULL;
    atomic_store(&ipsec_audits, after && after->audit);
    esp_reassembly_set_limit();
    forget_prepared();
}

static void release_ipsec(const struct config *old, const struct config *new) {
    (void)old;
    if (config_value(new, &ipsec_section))
        return;
    /* No worker runs the stages any more. */
    for (unsigned i = 0; i < workers_count(); i++)
        esp_reassembly_clear(ipsec_workers[i].reassembly);
    if (!new)
        ipsec_free();
}

static int init_ipsec(void) {
    spd_init();
    ipsec_listen();
    return 0;
}

static struct config_section ipsec_section = {
    .name = "ipsec",
    .init = init_ipsec,
    .after = (const char *const[]){"interfaces", "vrfs", NULL},
    .decode = decode_ipsec,
    .check = check_ipsec,
    .prepare = prepare_ipsec,
    .abort = abort_ipsec,
    .commit = commit_ipsec,
    .release = release_ipsec,
    .free = free_config,
};
CONFIG_SECTION(ipsec_section)
