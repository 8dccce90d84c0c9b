/* Reading and writing messages of <linux/xfrm.h>. */
#include "ipsec/xfrm_message.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <string.h>

#include "ipsec/esp_replay.h"

enum {
    ATTRIBUTES = 64,   /* types beyond are of a later Linux, and left alone as Linux does */
    SA_DIRECTION = 33, /* XFRMA_SA_DIR of Linux 6.10: 1 = in, 2 = out */
    ALGORITHM_NAME = 64,
    ALGORITHM_HEAD = 68,   /* of struct xfrm_algo, before the key */
    ALGORITHM_HEAD_2 = 72, /* of struct xfrm_algo_aead and xfrm_algo_auth */
    BITS = 8,
    REPLAY_WORD_BITS = 32,
    PORT_ANY_MASK = 0xffff,
};

/* --- algorithms --- */

enum kind { AEAD, CRYPT, AUTH };

struct algorithm {
    enum kind kind;
    const char *linux_name, *other_name; /* Linux takes either */
    unsigned key;                        /* bytes, salt included */
    const char *name;                    /* here */
    unsigned icv; /* bytes, where the message does not say; 0 = the algorithm's usual */
};

static const struct algorithm algorithms[] = {
    {AEAD, "rfc4106(gcm(aes))", NULL, 20, "aes-gcm-128", 0},
    {AEAD, "rfc4106(gcm(aes))", NULL, 28, "aes-gcm-192", 0},
    {AEAD, "rfc4106(gcm(aes))", NULL, 36, "aes-gcm-256", 0},
    {AEAD, "rfc7539esp(chacha20,poly1305)", NULL, 36, "chacha20-poly1305", 0},
    {AEAD, "rfc4543(gcm(aes))", NULL, 20, "aes-gmac-128", 0},
    {AEAD, "rfc4543(gcm(aes))", NULL, 28, "aes-gmac-192", 0},
    {AEAD, "rfc4543(gcm(aes))", NULL, 36, "aes-gmac-256", 0},
    {CRYPT, "cbc(aes)", "aes", 16, "aes-cbc-128", 0},
    {CRYPT, "cbc(aes)", "aes", 24, "aes-cbc-192", 0},
    {CRYPT, "cbc(aes)", "aes", 32, "aes-cbc-256", 0},
    {CRYPT, "rfc3686(ctr(aes))", NULL, 20, "aes-ctr-128", 0},
    {CRYPT, "rfc3686(ctr(aes))", NULL, 28, "aes-ctr-192", 0},
    {CRYPT, "rfc3686(ctr(aes))", NULL, 36, "aes-ctr-256", 0},
    {CRYPT, "ecb(cipher_null)", "cipher_null", 0, "null", 0},
    {AUTH, "hmac(sha1)", "sha1", 20, "hmac-sha1-96", 12},
    /* Linux took 96 bits before RFC 4868 said 128, and still does where nobody says. */
    {AUTH, "hmac(sha256)", "sha256", 32, "hmac-sha256-128", 12},
    {AUTH, "hmac(sha384)", "sha384", 48, "hmac-sha384-192", 24},
    {AUTH, "hmac(sha512)", "sha512", 64, "hmac-sha512-256", 32},
};

static const struct algorithm *algorithm_of_linux(enum kind kind, const char *name, unsigned key) {
    for (unsigned i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
        const struct algorithm *known = &algorithms[i];

        if (known->kind == kind && known->key == key &&
            (strcmp(known->linux_name, name) == 0 ||
             (known->other_name && strcmp(known->other_name, name) == 0)))
            return known;
    }
    return NULL;
}

static const struct algorithm *algorithm_of_name(const char *name) {
    for (unsigned i = 0; i < sizeof(algorithms) / sizeof(algorithms[0]); i++) {
        if (strcmp(algorithms[i].name, name) == 0)
            return &algorithms[i];
    }
    return NULL;
}

/* --- messages --- */

/* Not by mnl_nlmsg_ok(), for which a length of 2 GiB and more is a negative one, and so fits. */
const struct nlmsghdr *xfrm_next_message(const void *packet, size_t length,
                                         const struct nlmsghdr *previous) {
    size_t at = previous ? (size_t)((const char *)previous - (const char *)packet) +
                               MNL_ALIGN((size_t)previous->nlmsg_len)
                         : 0;
    const struct nlmsghdr *message;

    if (at + sizeof(*message) > length)
        return NULL;
    message = (const struct nlmsghdr *)((const char *)packet + at);
    return message->nlmsg_len >= sizeof(*message) && message->nlmsg_len <= length - at ? message
                                                                                       : NULL;
}

/* --- attributes --- */

struct attributes {
    const struct nlattr *of[ATTRIBUTES]; /* by type */
};

static int note_attribute(const struct nlattr *attribute, void *context) {
    struct attributes *attributes = context;
    uint16_t type = mnl_attr_get_type(attribute);

    if (type < ATTRIBUTES)
        attributes->of[type] = attribute; /* the last one counts, as in Linux */
    return MNL_CB_OK;
}

/* The message's structure of `size` bytes, and the attributes behind it. */
static int read_message(const struct nlmsghdr *message, void *out, size_t size,
                        struct attributes *attributes) {
    memset(attributes, 0, sizeof(*attributes));
    if (mnl_nlmsg_get_payload_len(message) < size)
        return -EINVAL;
    memcpy(out, mnl_nlmsg_get_payload(message), size);
    return mnl_attr_parse(message, (unsigned)MNL_ALIGN(size), note_attribute, attributes) < 0
               ? -EINVAL
               : 0;
}

/* -ENOENT: it is not there; -EINVAL: it is too short. */
static int read_attribute(const struct attributes *attributes, unsigned type, void *out,
                          size_t size) {
    const struct nlattr *attribute = attributes->of[type];

    if (!attribute)
        return -ENOENT;
    if (mnl_attr_get_payload_len(attribute) < size)
        return -EINVAL;
    memcpy(out, mnl_attr_get_payload(attribute), size);
    return 0;
}

/* What a data plane beside Linux cannot do, or this one does not. */
static int check_attributes(const struct attributes *attributes) {
    static const uint8_t foreign[] = {XFRMA_ALG_COMP, XFRMA_SEC_CTX, XFRMA_COADDR,
                                      XFRMA_OFFLOAD_DEV};
    static const uint8_t unless_zero[] = {XFRMA_TFCPAD, XFRMA_SET_MARK};
    struct xfrm_mark mark = {0};
    uint32_t value;

    for (unsigned i = 0; i < sizeof(foreign); i++) {
        if (attributes->of[foreign[i]])
            return -EOPNOTSUPP;
    }
    for (unsigned i = 0; i < sizeof(unless_zero); i++) {
        int error = read_attribute(attributes, unless_zero[i], &value, sizeof(value));

        if (error == -EINVAL || (error == 0 && value != 0))
            return error ? error : -EOPNOTSUPP;
    }
    if (read_attribute(attributes, XFRMA_MARK, &mark, sizeof(mark)) == -EINVAL)
        return -EINVAL;
    return mark.v != 0 || mark.m != 0 ? -EOPNOTSUPP : 0;
}

/* The number of a tunnel interface. */
static int read_if_id(const struct attributes *attributes, uint32_t *out) {
    int error = read_attribute(attributes, XFRMA_IF_ID, out, sizeof(*out));

    return error == -ENOENT ? 0 : error;
}

static void write_if_id(struct nlmsghdr *message, uint32_t if_id) {
    if (if_id != 0)
        mnl_attr_put_u32(message, XFRMA_IF_ID, if_id);
}

/* --- addresses --- */

static int read_address(uint16_t family, const xfrm_address_t *address, struct ip_address *out) {
    if (family == AF_INET)
        *out = ip4_address(&address->a4);
    else if (family == AF_INET6)
        *out = ip6_address(&address->in6);
    else
        return -EINVAL;
    return 0;
}

static bool is_none(const struct ip_address *address) {
    return address->family == 0 || ip_address_is_unspecified(address);
}

static int check_protocol(uint8_t protocol) {
    if (protocol == IPPROTO_ESP)
        return 0;
    return protocol == IPPROTO_AH || protocol == IPPROTO_COMP ? -EPROTONOSUPPORT : -EINVAL;
}

/* --- associations --- */

struct algorithm_found {
    const struct algorithm *known;
    unsigned icv;       /* bytes */
    const uint8_t *key; /* in the message */
};

/* xfrm_algo, xfrm_algo_aead or xfrm_algo_auth: a name, bits of the key, in the latter two bits of
 * the check value, and the key. */
static int read_algorithm(const struct nlattr *attribute, enum kind kind, bool says_icv,
                          struct algorithm_found *out) {
    const size_t head = says_icv ? ALGORITHM_HEAD_2 : ALGORITHM_HEAD;
    const uint8_t *payload = mnl_attr_get_payload(attribute);
    size_t length = mnl_attr_get_payload_len(attribute);
    char name[ALGORITHM_NAME];
    uint32_t bits, icv_bits = 0;

    if (length < head)
        return -EINVAL;
    memcpy(name, payload, sizeof(name));
    name[sizeof(name) - 1] = '\0';
    memcpy(&bits, payload + ALGORITHM_NAME, sizeof(bits));
    if (says_icv)
        memcpy(&icv_bits, payload + ALGORITHM_HEAD, sizeof(icv_bits));
    if (bits % BITS != 0 || bits / BITS > length - head || icv_bits % BITS != 0 ||
        icv_bits / BITS > UINT8_MAX)
        return -EINVAL;
    out->known = algorithm_of_linux(kind, name, bits / BITS);
    if (!out->known)
        return -ENOSYS;
    out->icv = icv_bits != 0 ? icv_bits / BITS : out->known->icv;
    out->key = payload + head;
    return 0;
}

static int read_auth(const struct attributes *attributes, struct ipsec_sa_settings *out) {
    const struct nlattr *truncated = attributes->of[XFRMA_ALG_AUTH_TRUNC];
    const struct nlattr *plain = attributes->of[XFRMA_ALG_AUTH];
    struct algorithm_found found;
    int error;

    if (!truncated && !plain)
        return 0;
    error = truncated ? read_algorithm(truncated, AUTH, true, &found)
                      : read_algorithm(plain, AUTH, false, &found);
    if (error)
        return error;
    out->auth = esp_auth_find(found.known->name);
    out->icv = (uint8_t)found.icv;
    memcpy(out->auth_key, found.key, found.known->key);
    return out->auth ? 0 : -ENOSYS;
}

static int read_algorithms(const struct attributes *attributes, struct ipsec_sa_settings *out) {
    const struct nlattr *aead = attributes->of[XFRMA_ALG_AEAD];
    const struct nlattr *crypt = attributes->of[XFRMA_ALG_CRYPT];
    struct algorithm_found found;
    int error;

    if (!aead == !crypt)
        return -EINVAL; /* both or none */
    error = aead ? read_algorithm(aead, AEAD, true, &found)
                 : read_algorithm(crypt, CRYPT, false, &found);
    if (error)
        return error;
    out->cipher = esp_cipher_find(found.known->name);
    out->icv = (uint8_t)found.icv;
    memcpy(out->key, found.key, found.known->key);
    if (!out->cipher)
        return -ENOSYS;
    error = read_auth(attributes, out);
    if (error)
        return error;
    if (!aead != (out->auth != NULL))
        return -EINVAL;
    return esp_icv_is_possible(out->cipher, out->auth, out->icv) ? 0 : -ENOSYS;
}

static uint64_t whole(uint32_t high, uint32_t low) {
    return (uint64_t)high << 32 | low;
}

/* Where numbers stand, and the size of the window. */
static int read_numbers(const struct attributes *attributes, struct xfrm_sa *out) {
    struct xfrm_replay_state_esn extended;
    struct xfrm_replay_state plain;
    int error = read_attribute(attributes, XFRMA_REPLAY_VAL, &plain, sizeof(plain));

    if (error == -EINVAL)
        return error;
    if (error == 0) {
        out->has_replay = true;
        out->sent = plain.oseq;
        out->received = plain.seq;
    }
    error = read_attribute(attributes, XFRMA_REPLAY_ESN_VAL, &extended, sizeof(extended));
    if (error)
        return error == -ENOENT ? 0 : error;
    if (extended.bmp_len > ESP_REPLAY_MAX / REPLAY_WORD_BITS ||
        extended.replay_window > extended.bmp_len * REPLAY_WORD_BITS)
        return -EINVAL;
    out->settings.replay_window = extended.replay_window;
    out->sent = whole(extended.oseq_hi, extended.oseq);
    out->received = whole(extended.seq_hi, extended.seq);
    /* A daemon that only wants a long window sends zeros here, for a new association too. */
    out->has_replay |= out->sent != 0 || out->received != 0;
    return 0;
}

static int read_use(const struct attributes *attributes, struct xfrm_sa *out) {
    int error = read_attribute(attributes, XFRMA_LTIME_VAL, &out->use, sizeof(out->use));

    out->has_use = error == 0;
    return error == -EINVAL ? error : 0;
}

static int read_encapsulation(const struct attributes *attributes, struct ipsec_sa_settings *out) {
    struct xfrm_encap_tmpl encapsulation;
    int error = read_attribute(attributes, XFRMA_ENCAP, &encapsulation, sizeof(encapsulation));

    if (error)
        return error == -ENOENT ? 0 : error;
    if (encapsulation.encap_type != UDP_ENCAP_ESPINUDP)
        return -EOPNOTSUPP;
    out->source_port = ntohs(encapsulation.encap_sport);
    out->destination_port = ntohs(encapsulation.encap_dport);
    return out->source_port != 0 && out->destination_port != 0 ? 0 : -EINVAL;
}

static int read_direction(const struct attributes *attributes, struct xfrm_sa *out) {
    uint8_t direction;
    int error = read_attribute(attributes, SA_DIRECTION, &direction, sizeof(direction));

    if (error)
        return error == -ENOENT ? 0 : error;
    if (direction != 1 && direction != 2)
        return -EINVAL;
    out->settings.direction = direction == 1 ? IPSEC_IN : IPSEC_OUT;
    out->has_direction = true;
    return 0;
}

static int read_info(const struct xfrm_usersa_info *info, struct ipsec_sa_settings *out) {
    int error = check_protocol(info->id.proto);

    if (error == 0)
        error = read_address(info->family, &info->saddr, &out->source);
    if (error == 0)
        error = read_address(info->family, &info->id.daddr, &out->destination);
    if (error)
        return error;
    out->spi = ntohl(info->id.spi);
    if (out->spi < IPSEC_SPI_FIRST)
        return -EINVAL;
    if (info->mode != XFRM_MODE_TUNNEL && info->mode != XFRM_MODE_TRANSPORT)
        return -EOPNOTSUPP;
    out->mode = info->mode == XFRM_MODE_TUNNEL ? IPSEC_TUNNEL : IPSEC_TRANSPORT;
    out->df = info->flags & XFRM_STATE_NOPMTUDISC ? IPSEC_DF_CLEAR : IPSEC_DF_COPY;
    out->request = info->reqid;
    out->esn = info->flags & XFRM_STATE_ESN;
    out->replay_window = info->replay_window;
    return 0;
}

int xfrm_read_sa(const struct nlmsghdr *message, struct xfrm_sa *out) {
    struct attributes attributes;
    int error;

    memset(out, 0, sizeof(*out));
    error = read_message(message, &out->info, sizeof(out->info), &attributes);
    if (error == 0)
        error = check_attributes(&attributes);
    if (error == 0)
        error = read_info(&out->info, &out->settings);
    if (error == 0)
        error = read_if_id(&attributes, &out->settings.if_id);
    /* Without the attribute Linux would not know a window for such numbers either. */
    if (error == 0 && out->settings.esn && !attributes.of[XFRMA_REPLAY_ESN_VAL])
        error = -EINVAL;
    if (error == 0)
        error = read_numbers(&attributes, out);
    if (error == 0)
        error = read_use(&attributes, out);
    if (error == 0)
        error = read_encapsulation(&attributes, &out->settings);
    if (error == 0)
        error = read_direction(&attributes, out);
    return error ? error : read_algorithms(&attributes, &out->settings);
}

static int read_key(const struct xfrm_usersa_id *id, struct xfrm_sa_key *out) {
    int error = check_protocol(id->proto);

    out->spi = ntohl(id->spi);
    return error ? error : read_address(id->family, &id->daddr, &out->destination);
}

int xfrm_read_sa_key(const struct nlmsghdr *message, struct xfrm_sa_key *out) {
    struct attributes attributes;
    struct xfrm_usersa_id id;
    int error = read_message(message, &id, sizeof(id), &attributes);

    return error ? error : read_key(&id, out);
}

int xfrm_read_replay(const struct nlmsghdr *message, struct xfrm_sa_key *key, struct xfrm_sa *out) {
    struct attributes attributes;
    struct xfrm_aevent_id id;
    int error = read_message(message, &id, sizeof(id), &attributes);

    memset(out, 0, sizeof(*out));
    if (error == 0)
        error = read_key(&id.sa_id, key);
    if (error == 0)
        error = read_numbers(&attributes, out);
    return error ? error : read_use(&attributes, out);
}

int xfrm_read_spi_request(const struct nlmsghdr *message, struct xfrm_spi_request *out) {
    struct attributes attributes;
    struct xfrm_userspi_info request;
    int error = read_message(message, &request, sizeof(request), &attributes);

    if (error == 0)
        error = check_protocol(request.info.id.proto);
    if (error == 0)
        error = read_address(request.info.family, &request.info.id.daddr, &out->destination);
    if (error)
        return error;
    out->info = request.info;
    out->least = request.min;
    out->most = request.max;
    return out->least > out->most || out->most < IPSEC_SPI_FIRST ? -EINVAL : 0;
}

int xfrm_read_flush(const struct nlmsghdr *message, uint8_t *protocol) {
    struct attributes attributes;
    struct xfrm_usersa_flush flush;
    int error = read_message(message, &flush, sizeof(flush), &attributes);

    if (error == 0)
        *protocol = flush.proto;
    return error;
}

/* --- policies --- */

/* A port and the bits of it that count, as the range that they are; other bits are no range. */
static int read_ports(uint16_t port, uint16_t mask, uint16_t out[2]) {
    uint16_t rest = (uint16_t)~ntohs(mask);

    if (rest & (rest + 1))
        return -EINVAL;
    out[0] = ntohs(port) & ntohs(mask);
    out[1] = out[0] | rest;
    return 0;
}

/* Linux has the type in place of the source port, and the code in place of the destination's. */
static int read_icmp(const struct xfrm_selector *selector, struct ipsec_selector *out) {
    uint16_t type[2], code[2];
    int error = read_ports(selector->sport, selector->sport_mask, type);

    if (error == 0)
        error = read_ports(selector->dport, selector->dport_mask, code);
    if (error)
        return error;
    out->source_port[0] = 0;
    out->source_port[1] = UINT16_MAX;
    out->destination_port[0] = 0;
    out->destination_port[1] = UINT16_MAX;
    if (type[0] == 0 && type[1] == UINT16_MAX)
        return code[0] == 0 && code[1] == UINT16_MAX ? 0 : -EOPNOTSUPP;
    if (type[0] != type[1] || type[0] > UINT8_MAX)
        return -EOPNOTSUPP;
    if (code[0] == 0 && code[1] == UINT16_MAX)
        code[1] = UINT8_MAX;
    if (code[1] > UINT8_MAX)
        return -EINVAL;
    out->destination_port[0] = (uint16_t)(type[0] << 8 | code[0]);
    out->destination_port[1] = (uint16_t)(type[0] << 8 | code[1]);
    return 0;
}

static bool has_ports(uint8_t protocol) {
    return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
           protocol == IPPROTO_DCCP || protocol == IPPROTO_UDPLITE;
}

static int read_prefix(uint16_t family, const xfrm_address_t *address, uint8_t length,
                       struct ip_prefix *out) {
    int error = read_address(family, address, &out->address);

    if (error)
        return error;
    if (length > ip_family_bits(out->address.family))
        return -EINVAL;
    out->length = length;
    *out = ip_prefix_network(out);
    return 0;
}

static void write_address(xfrm_address_t *to, const struct ip_address *from) {
    memset(to, 0, sizeof(*to));
    memcpy(to, from->bytes, ip_family_bits(from->family) / BITS);
}

/* Reads it, and makes it one of the forms that say the same: daemons delete by it. */
static int read_selector(struct xfrm_selector *selector, struct ipsec_selector *out) {
    const struct xfrm_selector from = *selector;
    int error;

    if (from.ifindex != 0 || from.user != 0)
        return -EOPNOTSUPP;
    error = read_prefix(from.family, &from.saddr, from.prefixlen_s, &out->source);
    if (error == 0)
        error = read_prefix(from.family, &from.daddr, from.prefixlen_d, &out->destination);
    if (error)
        return error;
    out->protocol = from.proto;
    if (from.proto == IPPROTO_ICMP || from.proto == IPPROTO_ICMPV6)
        error = read_icmp(&from, out);
    else
        error = read_ports(from.sport, from.sport_mask, out->source_port);
    if (error == 0 && from.proto != IPPROTO_ICMP && from.proto != IPPROTO_ICMPV6) {
        error = read_ports(from.dport, from.dport_mask, out->destination_port);
        if (!has_ports(from.proto) && (from.sport_mask != 0 || from.dport_mask != 0))
            return -EOPNOTSUPP;
    }
    if (error)
        return error;
    memset(selector, 0, sizeof(*selector)); /* with what is between its members */
    write_address(&selector->saddr, &out->source.address);
    write_address(&selector->daddr, &out->destination.address);
    selector->prefixlen_s = from.prefixlen_s;
    selector->prefixlen_d = from.prefixlen_d;
    selector->family = from.family;
    selector->proto = from.proto;
    selector->sport = from.sport & from.sport_mask;
    selector->sport_mask = from.sport_mask;
    selector->dport = from.dport & from.dport_mask;
    selector->dport_mask = from.dport_mask;
    return 0;
}

/* Expiry of policies is for socket policies and tests; nobody's IKE daemon wants it. */
static bool has_limits(const struct xfrm_lifetime_cfg *limits) {
    const uint64_t of_use[] = {limits->soft_byte_limit, limits->hard_byte_limit,
                               limits->soft_packet_limit, limits->hard_packet_limit};

    for (unsigned i = 0; i < sizeof(of_use) / sizeof(of_use[0]); i++) {
        if (of_use[i] != 0 && of_use[i] != XFRM_INF)
            return true;
    }
    return limits->hard_add_expires_seconds != 0 || limits->hard_use_expires_seconds != 0;
}

/* With what a policy protects: one ESP association. */
static int read_template(const struct attributes *attributes, struct xfrm_policy *out) {
    const struct nlattr *attribute = attributes->of[XFRMA_TMPL];
    struct xfrm_user_tmpl *template = &out->template;
    bool in = out->info.dir != XFRM_POLICY_OUT;
    size_t length = attribute ? mnl_attr_get_payload_len(attribute) : 0;
    int error;

    if (length == 0) {
        out->settings.action = IPSEC_BYPASS;
        return 0;
    }
    if (length < sizeof(*template))
        return -EINVAL;
    if (length >= 2 * sizeof(*template))
        return -EOPNOTSUPP; /* a bundle: IPComp or AH besides */
    memcpy(template, mnl_attr_get_payload(attribute), sizeof(*template));
    error = check_protocol(template->id.proto);
    if (error)
        return error;
    if (template->optional ||
        (template->mode != XFRM_MODE_TUNNEL && template->mode != XFRM_MODE_TRANSPORT))
        return -EOPNOTSUPP;
    out->has_template = true;
    out->settings.action = IPSEC_PROTECT;
    out->settings.request = template->reqid;
    /* Outbound with a request too: a daemon that was asked for a successor adds it before the other
     * end can take its packets, and says with the policy from when on it sends. */
    out->settings.spi = template->reqid != 0 && in ? 0 : ntohl(template->id.spi);
    /* Outbound with neither is a trap, as libreswan makes it: there is never an association, so
     * packets are dropped, and the daemon is told. Inbound it would mean any association. */
    if (in && out->settings.request == 0 && out->settings.spi == 0)
        return -EOPNOTSUPP;
    if (template->mode == XFRM_MODE_TUNNEL) {
        error = read_address(template->family, in ? &template->id.daddr : &template->saddr,
                             &out->local);
        if (error == 0 && is_none(&out->local))
            out->local = (struct ip_address){0};
    }
    return error;
}

int xfrm_read_policy(const struct nlmsghdr *message, struct xfrm_policy *out) {
    struct xfrm_userpolicy_info *info = &out->info;
    struct xfrm_userpolicy_type type;
    struct attributes attributes;
    int error;

    memset(out, 0, sizeof(*out));
    error = read_message(message, info, sizeof(*info), &attributes);
    if (error == 0)
        error = check_attributes(&attributes);
    if (error)
        return error;
    error = read_attribute(&attributes, XFRMA_POLICY_TYPE, &type, sizeof(type));
    if (error == -EINVAL || (error == 0 && type.type != XFRM_POLICY_TYPE_MAIN))
        return error ? error : -EOPNOTSUPP;
    if (info->dir >= XFRM_POLICY_MAX ||
        (info->action != XFRM_POLICY_ALLOW && info->action != XFRM_POLICY_BLOCK))
        return -EINVAL;
    if (has_limits(&info->lft))
        return -EOPNOTSUPP;
    error = read_selector(&info->sel, &out->settings.selector);
    if (error)
        return error;
    out->settings.direction = info->dir == XFRM_POLICY_OUT ? IPSEC_OUT : IPSEC_IN;
    out->settings.priority = info->priority;
    error = read_if_id(&attributes, &out->settings.if_id);
    if (error == 0)
        error = read_template(&attributes, out);
    if (error == 0 && info->action == XFRM_POLICY_BLOCK) {
        out->settings.action = IPSEC_DISCARD;
        out->settings.request = out->settings.spi = 0;
    }
    return error;
}

int xfrm_read_policy_key(const struct nlmsghdr *message, struct xfrm_policy_key *out) {
    struct xfrm_userpolicy_id *id = &out->id;
    struct attributes attributes;
    struct ipsec_selector selector;
    int error = read_message(message, id, sizeof(*id), &attributes);

    out->if_id = 0;
    if (error == 0)
        error = check_attributes(&attributes);
    if (error == 0)
        error = read_if_id(&attributes, &out->if_id);
    if (error)
        return error;
    if (id->dir >= XFRM_POLICY_MAX)
        return -EINVAL;
    return id->index != 0 ? 0 : read_selector(&id->sel, &selector);
}

/* --- writing --- */

static struct nlmsghdr *begin(void *buffer, uint16_t type, const struct xfrm_reply *reply) {
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);

    message->nlmsg_type = type;
    if (reply) {
        message->nlmsg_flags = reply->flags;
        message->nlmsg_seq = reply->sequence;
        message->nlmsg_pid = reply->port;
    }
    return message;
}

struct nlmsghdr *xfrm_write_answer(void *buffer, const struct nlmsghdr *request, uint32_t port,
                                   int error) {
    const struct xfrm_reply reply = {request->nlmsg_seq, port, 0};
    struct nlmsghdr *message = begin(buffer, NLMSG_ERROR, &reply);
    struct nlmsgerr *answer = mnl_nlmsg_put_extra_header(message, sizeof(*answer));

    message->nlmsg_flags = NLM_F_CAPPED;
    answer->error = error;
    answer->msg = *request;
    return message;
}

struct nlmsghdr *xfrm_write_done(void *buffer, const struct xfrm_reply *reply) {
    struct nlmsghdr *message = begin(buffer, NLMSG_DONE, reply);

    *(int *)mnl_nlmsg_put_extra_header(message, sizeof(int)) = 0;
    return message;
}

static void write_algorithm(struct nlmsghdr *message, uint16_t type, const char *name,
                            const uint8_t *key, unsigned icv) {
    const struct algorithm *known = algorithm_of_name(name);
    uint8_t payload[ALGORITHM_HEAD_2 + ESP_AUTH_KEY_MAX] = {0};
    bool says_icv = type != XFRMA_ALG_CRYPT;
    size_t head = says_icv ? ALGORITHM_HEAD_2 : ALGORITHM_HEAD;
    uint32_t bits, icv_bits = icv * BITS;

    if (!known)
        return;
    bits = known->key * BITS;
    memcpy(payload, known->linux_name, strlen(known->linux_name));
    memcpy(payload + ALGORITHM_NAME, &bits, sizeof(bits));
    if (says_icv)
        memcpy(payload + ALGORITHM_HEAD, &icv_bits, sizeof(icv_bits));
    memcpy(payload + head, key, known->key);
    mnl_attr_put(message, type, head + known->key, payload);
    explicit_bzero(payload, sizeof(payload));
}

static void write_algorithms(struct nlmsghdr *message, const struct ipsec_sa_settings *settings) {
    bool aead = esp_cipher_is_combined(settings->cipher);

    write_algorithm(message, aead ? XFRMA_ALG_AEAD : XFRMA_ALG_CRYPT,
                    esp_cipher_name(settings->cipher), settings->key, settings->icv);
    if (settings->auth)
        write_algorithm(message, XFRMA_ALG_AUTH_TRUNC, esp_auth_name(settings->auth),
                        settings->auth_key, settings->icv);
}

/* One that XFRMA_REPLAY_VAL can tell. */
static bool is_plain_window(const struct ipsec_sa_settings *settings) {
    return !settings->esn && settings->replay_window <= REPLAY_WORD_BITS;
}

static void write_numbers(struct nlmsghdr *message, const struct ipsec_sa_settings *settings,
                          const struct xfrm_sa_state *state) {
    struct xfrm_replay_state_esn extended = {0};
    uint8_t payload[sizeof(extended) + ESP_REPLAY_MAX / 8] = {0}; /* its bits follow */
    struct xfrm_replay_state plain = {0};
    uint32_t low = (uint32_t)state->sequence, high = (uint32_t)(state->sequence >> 32);
    bool out = settings->direction == IPSEC_OUT;
    unsigned words = (settings->replay_window + REPLAY_WORD_BITS - 1) / REPLAY_WORD_BITS;

    if (is_plain_window(settings)) {
        plain.oseq = out ? low : 0;
        plain.seq = out ? 0 : low;
        /* What exactly was received is not told: all of it, so that nothing comes twice. */
        plain.bitmap = out || low == 0 ? 0 : UINT32_MAX;
        mnl_attr_put(message, XFRMA_REPLAY_VAL, sizeof(plain), &plain);
        return;
    }
    extended.bmp_len = words;
    extended.replay_window = settings->replay_window;
    extended.oseq = out ? low : 0;
    extended.oseq_hi = out ? high : 0;
    extended.seq = out ? 0 : low;
    extended.seq_hi = out ? 0 : high;
    memcpy(payload, &extended, sizeof(extended));
    if (!out && state->sequence != 0)
        memset(payload + sizeof(extended), 0xff, words * sizeof(uint32_t));
    mnl_attr_put(message, XFRMA_REPLAY_ESN_VAL, sizeof(extended) + words * sizeof(uint32_t),
                 payload);
}

static void write_encapsulation(struct nlmsghdr *message,
                                const struct ipsec_sa_settings *settings) {
    struct xfrm_encap_tmpl encapsulation = {0};

    if (settings->destination_port == 0)
        return;
    encapsulation.encap_type = UDP_ENCAP_ESPINUDP;
    encapsulation.encap_sport = htons(settings->source_port);
    encapsulation.encap_dport = htons(settings->destination_port);
    mnl_attr_put(message, XFRMA_ENCAP, sizeof(encapsulation), &encapsulation);
}

static struct xfrm_usersa_info info_of(const struct xfrm_sa *sa,
                                       const struct xfrm_sa_state *state) {
    struct xfrm_usersa_info info = sa->info;

    info.curlft = state->use;
    if (is_plain_window(&sa->settings)) /* may have come as one of extended numbers */
        info.replay_window = (uint8_t)sa->settings.replay_window;
    info.stats.replay_window = state->too_old;
    info.stats.replay = state->replayed;
    info.stats.integrity_failed = state->failed;
    return info;
}

struct nlmsghdr *xfrm_write_sa(void *buffer, const struct xfrm_reply *reply,
                               const struct xfrm_sa *sa, const struct xfrm_sa_state *state) {
    const struct ipsec_sa_settings *settings = &sa->settings;
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_NEWSA, reply);
    struct xfrm_usersa_info info = info_of(sa, state);

    memcpy(mnl_nlmsg_put_extra_header(message, sizeof(info)), &info, sizeof(info));
    write_algorithms(message, settings);
    write_encapsulation(message, settings);
    write_numbers(message, settings, state);
    write_if_id(message, settings->if_id);
    if (state->last_used != 0)
        mnl_attr_put_u64(message, XFRMA_LASTUSED, state->last_used);
    return message;
}

struct nlmsghdr *xfrm_write_spi(void *buffer, const struct xfrm_reply *reply,
                                const struct xfrm_usersa_info *info) {
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_NEWSA, reply);

    memcpy(mnl_nlmsg_put_extra_header(message, sizeof(*info)), info, sizeof(*info));
    return message;
}

struct nlmsghdr *xfrm_write_replay(void *buffer, const struct xfrm_reply *reply,
                                   const struct xfrm_sa *sa, const struct xfrm_sa_state *state) {
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_NEWAE, reply);
    struct xfrm_aevent_id id = {0};

    id.sa_id.daddr = sa->info.id.daddr;
    id.sa_id.spi = sa->info.id.spi;
    id.sa_id.family = sa->info.family;
    id.sa_id.proto = sa->info.id.proto;
    id.saddr = sa->info.saddr;
    id.reqid = sa->info.reqid;
    id.flags = XFRM_AE_RVAL | XFRM_AE_LVAL;
    memcpy(mnl_nlmsg_put_extra_header(message, sizeof(id)), &id, sizeof(id));
    write_numbers(message, &sa->settings, state);
    mnl_attr_put(message, XFRMA_LTIME_VAL, sizeof(state->use), &state->use);
    return message;
}

static void write_template(struct nlmsghdr *message, const struct xfrm_policy *policy) {
    if (policy->has_template)
        mnl_attr_put(message, XFRMA_TMPL, sizeof(policy->template), &policy->template);
}

struct nlmsghdr *xfrm_write_policy(void *buffer, const struct xfrm_reply *reply,
                                   const struct xfrm_policy *policy, uint64_t use_time) {
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_NEWPOLICY, reply);
    struct xfrm_userpolicy_info info = policy->info;

    info.curlft.use_time = use_time;
    memcpy(mnl_nlmsg_put_extra_header(message, sizeof(info)), &info, sizeof(info));
    write_template(message, policy);
    write_if_id(message, policy->settings.if_id);
    return message;
}

struct nlmsghdr *xfrm_write_expire(void *buffer, const struct xfrm_sa *sa,
                                   const struct xfrm_sa_state *state, bool hard) {
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_EXPIRE, NULL);
    struct xfrm_user_expire expire = {.state = info_of(sa, state), .hard = hard};

    memcpy(mnl_nlmsg_put_extra_header(message, sizeof(expire)), &expire, sizeof(expire));
    write_if_id(message, sa->settings.if_id);
    return message;
}

struct nlmsghdr *xfrm_write_mapping(void *buffer, const struct xfrm_sa *sa,
                                    const struct ip_address *source, uint16_t port) {
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_MAPPING, NULL);
    struct xfrm_user_mapping mapping = {0};

    mapping.id.daddr = sa->info.id.daddr;
    mapping.id.spi = sa->info.id.spi;
    mapping.id.family = sa->info.family;
    mapping.id.proto = sa->info.id.proto;
    mapping.reqid = sa->info.reqid;
    mapping.old_saddr = sa->info.saddr;
    memcpy(&mapping.new_saddr, source->bytes, ip_family_bits(source->family) / 8u);
    mapping.old_sport = htons(sa->settings.source_port);
    mapping.new_sport = htons(port);
    memcpy(mnl_nlmsg_put_extra_header(message, sizeof(mapping)), &mapping, sizeof(mapping));
    return message;
}

/* As Linux does it for a packet: xfrm_state.c, xfrm_init_tempstate(). */
static void select_flow(const struct ipsec_flow *flow, struct xfrm_selector *out) {
    const uint8_t family = flow->source.family;
    const uint8_t bits = (uint8_t)ip_family_bits(family);

    memset(&out->saddr, 0, sizeof(out->saddr));
    memset(&out->daddr, 0, sizeof(out->daddr));
    memcpy(&out->saddr, flow->source.bytes, bits / 8u);
    memcpy(&out->daddr, flow->destination.bytes, bits / 8u);
    out->prefixlen_s = out->prefixlen_d = bits;
    out->family = family;
    out->proto = flow->protocol;
    out->sport = htons(flow->source_port);
    out->dport = htons(flow->destination_port);
    out->sport_mask = out->dport_mask = UINT16_MAX;
}

struct nlmsghdr *xfrm_write_acquire(void *buffer, const struct xfrm_policy *policy,
                                    const struct ipsec_flow *flow, uint32_t sequence) {
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_ACQUIRE, NULL);
    struct xfrm_user_acquire acquire = {0};

    acquire.id = policy->template.id;
    acquire.saddr = policy->template.saddr;
    acquire.sel = policy->info.sel;
    if (flow)
        select_flow(flow, &acquire.sel);
    acquire.policy = policy->info;
    acquire.aalgos = policy->template.aalgos;
    acquire.ealgos = policy->template.ealgos;
    acquire.calgos = policy->template.calgos;
    acquire.seq = sequence;
    memcpy(mnl_nlmsg_put_extra_header(message, sizeof(acquire)), &acquire, sizeof(acquire));
    write_template(message, policy);
    write_if_id(message, policy->settings.if_id);
    return message;
}

struct nlmsghdr *xfrm_write_sad_info(void *buffer, const struct xfrm_reply *reply, uint32_t sas) {
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_NEWSADINFO, reply);
    const struct xfrmu_sadhinfo table = {0};

    memset(mnl_nlmsg_put_extra_header(message, sizeof(uint32_t)), 0, sizeof(uint32_t));
    mnl_attr_put_u32(message, XFRMA_SAD_CNT, sas);
    mnl_attr_put(message, XFRMA_SAD_HINFO, sizeof(table), &table);
    return message;
}

struct nlmsghdr *xfrm_write_spd_info(void *buffer, const struct xfrm_reply *reply,
                                     const uint32_t policies[XFRM_POLICY_MAX]) {
    /* Thresholds of Linux's own tables: its defaults, which daemons compare with theirs. */
    static const struct xfrmu_spdhthresh ipv4 = {32, 32}, ipv6 = {128, 128};
    struct nlmsghdr *message = begin(buffer, XFRM_MSG_NEWSPDINFO, reply);
    const struct xfrmu_spdhinfo table = {0};
    struct xfrmu_spdinfo counts = {0};

    counts.incnt = policies[XFRM_POLICY_IN];
    counts.outcnt = policies[XFRM_POLICY_OUT];
    counts.fwdcnt = policies[XFRM_POLICY_FWD];
    memset(mnl_nlmsg_put_extra_header(message, sizeof(uint32_t)), 0, sizeof(uint32_t));
    mnl_attr_put(message, XFRMA_SPD_INFO, sizeof(counts), &counts);
    mnl_attr_put(message, XFRMA_SPD_HINFO, sizeof(table), &table);
    mnl_attr_put(message, XFRMA_SPD_IPV4_HTHRESH, sizeof(ipv4), &ipv4);
    mnl_attr_put(message, XFRMA_SPD_IPV6_HTHRESH, sizeof(ipv6), &ipv6);
    return message;
}
