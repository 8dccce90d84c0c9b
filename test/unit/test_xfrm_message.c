/* Messages of the XFRM protocol, as an IKE daemon would write and read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/udp.h>
#include <stdlib.h>
#include <string.h>

#include "ipsec/xfrm_message.h"

static char buffer[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));
static char written[XFRM_MESSAGE_MAX] __attribute__((aligned(16)));
static struct xfrm_sa sa;
static struct xfrm_policy policy;

static const struct xfrm_reply reply = {.sequence = 7, .port = 4242};

static struct nlmsghdr *begin(uint16_t type, const void *head, size_t size) {
    struct nlmsghdr *message;

    memset(buffer, 0, sizeof(buffer));
    message = mnl_nlmsg_put_header(buffer);
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    message->nlmsg_seq = 7;
    memcpy(mnl_nlmsg_put_extra_header(message, size), head, size);
    return message;
}

/* --- associations --- */

static struct xfrm_usersa_info some_info(void) {
    struct xfrm_usersa_info info = {0};

    info.family = AF_INET;
    info.saddr.a4 = inet_addr("203.0.113.1");
    info.id.daddr.a4 = inet_addr("203.0.113.2");
    info.id.spi = htonl(0xc0ffee01);
    info.id.proto = IPPROTO_ESP;
    info.mode = XFRM_MODE_TUNNEL;
    info.reqid = 9;
    info.replay_window = 32;
    info.lft.hard_byte_limit = XFRM_INF;
    info.lft.soft_add_expires_seconds = 100;
    return info;
}

static void put_algorithm(struct nlmsghdr *message, uint16_t type, const char *name, unsigned key,
                          unsigned icv_bits) {
    char payload[256] = {0};
    size_t head = icv_bits ? 72 : 68;
    uint32_t bits = key * 8;

    strncpy(payload, name, 63);
    memcpy(payload + 64, &bits, 4);
    if (icv_bits)
        memcpy(payload + 68, &icv_bits, 4);
    for (unsigned i = 0; i < key; i++)
        payload[head + i] = (char)(i + 1);
    mnl_attr_put(message, type, head + key, payload);
}

static struct nlmsghdr *new_sa(const struct xfrm_usersa_info *info) {
    struct nlmsghdr *message = begin(XFRM_MSG_NEWSA, info, sizeof(*info));

    put_algorithm(message, XFRMA_ALG_AEAD, "rfc4106(gcm(aes))", 36, 128);
    return message;
}

static void test_reads_an_association(void **state) {
    struct xfrm_usersa_info info = some_info();
    char text[IP_ADDRESS_TEXT];

    (void)state;
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), 0);
    assert_int_equal(sa.settings.spi, 0xc0ffee01);
    assert_string_equal(ip_address_text(&sa.settings.source, text), "203.0.113.1");
    assert_string_equal(ip_address_text(&sa.settings.destination, text), "203.0.113.2");
    assert_int_equal(sa.settings.mode, IPSEC_TUNNEL);
    assert_int_equal(sa.settings.df, IPSEC_DF_COPY);
    assert_int_equal(sa.settings.request, 9);
    assert_int_equal(sa.settings.replay_window, 32);
    assert_string_equal(esp_cipher_name(sa.settings.cipher), "aes-gcm-256");
    assert_null(sa.settings.auth);
    assert_int_equal(sa.settings.icv, 16);
    assert_int_equal(sa.settings.key[0], 1);
    assert_int_equal(sa.settings.key[35], 36); /* the salt's last byte */
    assert_false(sa.settings.esn || sa.has_direction || sa.has_replay || sa.has_use);
    assert_int_equal(sa.info.lft.soft_add_expires_seconds, 100);
}

static void test_algorithms(void **state) {
    static const struct {
        const char *crypt, *auth, *cipher_name, *auth_name;
        unsigned key, auth_key, icv_bits, auth_bits, icv;
        int error;
    } cases[] = {
        {"rfc4106(gcm(aes))", NULL, "aes-gcm-128", "", 20, 0, 64, 0, 8, 0},
        {"rfc4106(gcm(aes))", NULL, "aes-gcm-192", "", 28, 0, 96, 0, 12, 0},
        {"rfc7539esp(chacha20,poly1305)", NULL, "chacha20-poly1305", "", 36, 0, 128, 0, 16, 0},
        {"rfc4543(gcm(aes))", NULL, "aes-gmac-256", "", 36, 0, 128, 0, 16, 0},
        {"rfc7539esp(chacha20,poly1305)", NULL, NULL, NULL, 36, 0, 64, 0, 0, -ENOSYS},
        {"rfc4309(ccm(aes))", NULL, NULL, NULL, 19, 0, 128, 0, 0, -ENOSYS},
        {"rfc4106(gcm(aes))", NULL, NULL, NULL, 21, 0, 128, 0, 0, -ENOSYS},
        {"aes", "sha1", "aes-cbc-128", "hmac-sha1-96", 16, 20, 0, 0, 12, 0},
        {"cbc(aes)", "hmac(sha1)", "aes-cbc-256", "hmac-sha1-96", 32, 20, 0, 96, 12, 0},
        {"cbc(aes)", "hmac(sha256)", "aes-cbc-256", "hmac-sha256-128", 32, 32, 0, 128, 16, 0},
        {"cbc(aes)", "hmac(sha384)", "aes-cbc-192", "hmac-sha384-192", 24, 48, 0, 0, 24, 0},
        {"rfc3686(ctr(aes))", "hmac(sha512)", "aes-ctr-256", "hmac-sha512-256", 36, 64, 0, 0, 32,
         0},
        {"ecb(cipher_null)", "hmac(sha256)", "null", "hmac-sha256-128", 0, 32, 0, 128, 16, 0},
        {"cbc(aes)", "sha256", NULL, NULL, 16, 32, 0, 0, 0, -ENOSYS}, /* 96 bits */
        {"des3_ede", "hmac(sha1)", NULL, NULL, 24, 20, 0, 96, 0, -ENOSYS},
        {"cbc(aes)", "md5", NULL, NULL, 16, 16, 0, 0, 0, -ENOSYS},
        {"cbc(aes)", NULL, NULL, NULL, 16, 0, 0, 0, 0, -EINVAL}, /* nothing authenticates */
        {"rfc4106(gcm(aes))", "hmac(sha1)", NULL, NULL, 20, 20, 128, 96, 0, -EINVAL},
    };
    struct xfrm_usersa_info info = some_info();

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct nlmsghdr *message = begin(XFRM_MSG_NEWSA, &info, sizeof(info));

        put_algorithm(message, cases[i].icv_bits ? XFRMA_ALG_AEAD : XFRMA_ALG_CRYPT, cases[i].crypt,
                      cases[i].key, cases[i].icv_bits);
        if (cases[i].auth)
            put_algorithm(message, cases[i].auth_bits ? XFRMA_ALG_AUTH_TRUNC : XFRMA_ALG_AUTH,
                          cases[i].auth, cases[i].auth_key, cases[i].auth_bits);
        assert_int_equal(xfrm_read_sa(message, &sa), cases[i].error);
        if (cases[i].error)
            continue;
        assert_string_equal(esp_cipher_name(sa.settings.cipher), cases[i].cipher_name);
        assert_string_equal(esp_auth_name(sa.settings.auth), cases[i].auth_name);
        assert_int_equal(sa.settings.icv, cases[i].icv);
    }
}

/* The bits of the window follow the structure; `words` may be more than there are. */
static void put_numbers(struct nlmsghdr *message, uint32_t window, uint32_t words,
                        uint64_t received) {
    struct xfrm_replay_state_esn numbers = {.bmp_len = words, .replay_window = window};
    char payload[sizeof(numbers) + 4 * 128] = {0};

    numbers.seq = (uint32_t)received;
    numbers.seq_hi = (uint32_t)(received >> 32);
    memcpy(payload, &numbers, sizeof(numbers));
    mnl_attr_put(message, XFRMA_REPLAY_ESN_VAL, sizeof(numbers) + 4 * (words % 129), payload);
}

static void test_sequence_numbers(void **state) {
    struct xfrm_usersa_info info = some_info();
    struct nlmsghdr *message;

    (void)state;
    info.flags = XFRM_STATE_ESN | XFRM_STATE_NOPMTUDISC;
    info.replay_window = 0;
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), -EINVAL); /* and the window? */
    message = new_sa(&info);
    put_numbers(message, 128, 4, 0);
    assert_int_equal(xfrm_read_sa(message, &sa), 0);
    assert_true(sa.settings.esn);
    assert_int_equal(sa.settings.df, IPSEC_DF_CLEAR);
    assert_int_equal(sa.settings.replay_window, 128);
    assert_false(sa.has_replay);
    message = new_sa(&info);
    put_numbers(message, 4096, 128, UINT64_C(0x500000006));
    assert_int_equal(xfrm_read_sa(message, &sa), 0);
    assert_int_equal(sa.settings.replay_window, 4096);
    assert_true(sa.has_replay);
    assert_true(sa.received == UINT64_C(0x500000006) && sa.sent == 0);
    message = new_sa(&info);
    put_numbers(message, 128, 3, 0); /* more than its bits */
    assert_int_equal(xfrm_read_sa(message, &sa), -EINVAL);
    message = new_sa(&info);
    put_numbers(message, 1, UINT32_MAX, 0);
    assert_int_equal(xfrm_read_sa(message, &sa), -EINVAL);
    /* A short window of usual numbers stays what it is when a daemon reads it back. */
    info.flags = 0;
    message = new_sa(&info);
    put_numbers(message, 16, 1, 0);
    assert_int_equal(xfrm_read_sa(message, &sa), 0);
    message = xfrm_write_sa(written, &reply, &sa, &(struct xfrm_sa_state){0});
    assert_int_equal(xfrm_read_sa(message, &sa), 0);
    assert_int_equal(sa.settings.replay_window, 16);
}

/* Those in a packet, whatever lengths they say. */
static void test_messages_of_a_packet(void **state) {
    static const uint32_t wrong[] = {0, 15, 29, 0x7fffffff, 0x80000000, UINT32_MAX - 3, UINT32_MAX};
    struct {
        struct nlmsghdr first;
        char data[4];
        struct nlmsghdr second;
        char more[12];
    } packet = {.first.nlmsg_len = 19, .second.nlmsg_len = 28};
    const struct nlmsghdr *message;

    (void)state;
    message = xfrm_next_message(&packet, sizeof(packet), NULL);
    assert_ptr_equal(message, &packet.first);
    message = xfrm_next_message(&packet, sizeof(packet), message);
    assert_ptr_equal(message, &packet.second);
    assert_null(xfrm_next_message(&packet, sizeof(packet), message));
    assert_null(xfrm_next_message(&packet, sizeof(packet) - 1, &packet.first));
    assert_null(xfrm_next_message(&packet, 19, &packet.first));
    assert_null(xfrm_next_message(&packet, 15, NULL));
    assert_null(xfrm_next_message(&packet, 0, NULL));
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        packet.second.nlmsg_len = wrong[i];
        assert_null(xfrm_next_message(&packet, sizeof(packet), &packet.first));
        packet.first.nlmsg_len = wrong[i];
        assert_null(xfrm_next_message(&packet, 28, NULL));
        packet.first.nlmsg_len = 19;
    }
}

static void test_encapsulation(void **state) {
    struct xfrm_encap_tmpl encapsulation = {UDP_ENCAP_ESPINUDP, htons(4500), htons(1024), {0}};
    struct xfrm_usersa_info info = some_info();
    struct nlmsghdr *message = new_sa(&info);

    (void)state;
    mnl_attr_put(message, XFRMA_ENCAP, sizeof(encapsulation), &encapsulation);
    assert_int_equal(xfrm_read_sa(message, &sa), 0);
    assert_int_equal(sa.settings.source_port, 4500);
    assert_int_equal(sa.settings.destination_port, 1024);
    message = new_sa(&info);
    mnl_attr_put(message, XFRMA_ENCAP, 6, &encapsulation);
    assert_int_equal(xfrm_read_sa(message, &sa), -EINVAL);
    message = new_sa(&info);
    encapsulation.encap_type = UDP_ENCAP_ESPINUDP_NON_IKE;
    mnl_attr_put(message, XFRMA_ENCAP, sizeof(encapsulation), &encapsulation);
    assert_int_equal(xfrm_read_sa(message, &sa), -EOPNOTSUPP);
}

static void test_refuses_associations(void **state) {
    struct xfrm_usersa_info info = some_info();
    struct nlmsghdr *message;
    const struct xfrm_mark mark = {1, UINT32_MAX};

    (void)state;
    info.id.proto = IPPROTO_AH;
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), -EPROTONOSUPPORT);
    info = some_info();
    info.id.spi = htonl(255);
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), -EINVAL);
    info = some_info();
    info.family = AF_UNIX;
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), -EINVAL);
    info = some_info();
    info.mode = XFRM_MODE_BEET;
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), -EOPNOTSUPP);
    info = some_info();
    message = new_sa(&info);
    mnl_attr_put(message, XFRMA_MARK, sizeof(mark), &mark);
    assert_int_equal(xfrm_read_sa(message, &sa), -EOPNOTSUPP);
    message = new_sa(&info);
    mnl_attr_put_u16(message, XFRMA_IF_ID, 5);
    assert_int_equal(xfrm_read_sa(message, &sa), -EINVAL);
    message = new_sa(&info);
    mnl_attr_put_u32(message, XFRMA_SET_MARK, 5);
    assert_int_equal(xfrm_read_sa(message, &sa), -EOPNOTSUPP);
    message = new_sa(&info);
    mnl_attr_put_u32(message, XFRMA_SET_MARK, 0);
    assert_int_equal(xfrm_read_sa(message, &sa), 0);
}

/* Whatever stands there, nothing is read that is not there (run with the address sanitizer). */
static void test_cut_and_broken_messages(void **state) {
    struct xfrm_usersa_info info = some_info();
    struct nlmsghdr *message = new_sa(&info);
    uint32_t length = message->nlmsg_len;
    unsigned seed = 1;

    (void)state;
    for (uint32_t cut = NLMSG_HDRLEN; cut < length; cut++) {
        char *exact = malloc(MNL_ALIGN(cut));
        struct nlmsghdr *copy = (struct nlmsghdr *)exact;

        memset(exact, 0, MNL_ALIGN(cut));
        memcpy(exact, message, cut);
        copy->nlmsg_len = cut;
        /* What is missing in the end may be padding, or the whole attribute. */
        assert_true(xfrm_read_sa(copy, &sa) < 0 || cut > length - 4);
        free(exact);
    }
    for (unsigned i = 0; i < 200000; i++) {
        char *exact = malloc(length);
        struct nlmsghdr *copy = (struct nlmsghdr *)exact;
        struct xfrm_spi_request request;
        struct xfrm_policy_key policy_key;
        struct xfrm_sa_key key;
        uint8_t protocol;

        memcpy(exact, message, length);
        for (unsigned k = 0; k < 4; k++)
            exact[NLMSG_HDRLEN + rand_r(&seed) % (length - NLMSG_HDRLEN)] = (char)rand_r(&seed);
        (void)xfrm_read_sa(copy, &sa);
        (void)xfrm_read_policy(copy, &policy);
        (void)xfrm_read_policy_key(copy, &policy_key);
        (void)xfrm_read_spi_request(copy, &request);
        (void)xfrm_read_sa_key(copy, &key);
        (void)xfrm_read_replay(copy, &key, &sa);
        (void)xfrm_read_flush(copy, &protocol);
        free(exact);
    }
}

/* A daemon that moves an association reads it and sends back what it has read. */
static void test_writes_what_it_reads(void **state) {
    struct xfrm_encap_tmpl encapsulation = {UDP_ENCAP_ESPINUDP, htons(4500), htons(4500), {0}};
    struct xfrm_sa_state now = {.sequence = UINT64_C(0x100000002), .last_used = 1000};
    struct xfrm_usersa_info info = some_info(), out;
    struct nlmsghdr *message;
    struct xfrm_sa again;

    (void)state;
    info.flags = XFRM_STATE_ESN;
    message = begin(XFRM_MSG_NEWSA, &info, sizeof(info));
    put_algorithm(message, XFRMA_ALG_CRYPT, "cbc(aes)", 32, 0);
    put_algorithm(message, XFRMA_ALG_AUTH_TRUNC, "hmac(sha256)", 32, 128);
    put_numbers(message, 64, 2, 0);
    mnl_attr_put(message, XFRMA_ENCAP, sizeof(encapsulation), &encapsulation);
    mnl_attr_put_u32(message, XFRMA_IF_ID, 42);
    assert_int_equal(xfrm_read_sa(message, &sa), 0);
    assert_int_equal(sa.settings.if_id, 42);
    now.use.bytes = 5000;
    message = xfrm_write_sa(written, &reply, &sa, &now);
    assert_int_equal(message->nlmsg_type, XFRM_MSG_NEWSA);
    assert_int_equal(message->nlmsg_seq, 7);
    assert_int_equal(message->nlmsg_pid, 4242);
    memcpy(&out, mnl_nlmsg_get_payload(message), sizeof(out));
    assert_int_equal(out.curlft.bytes, 5000);
    assert_int_equal(xfrm_read_sa(message, &again), 0);
    assert_true(again.has_replay && again.received == now.sequence);
    assert_memory_equal(&again.settings, &sa.settings, sizeof(sa.settings));
    again.settings.direction = IPSEC_OUT;
    message = xfrm_write_sa(written, &reply, &again, &now);
    assert_int_equal(xfrm_read_sa(message, &again), 0);
    assert_true(again.sent == now.sequence && again.received == 0);
}

static void test_replay_state(void **state) {
    struct xfrm_sa_state now = {.sequence = 77, .use = {.bytes = 1, .add_time = 5}};
    struct xfrm_usersa_info info = some_info();
    struct nlmsghdr *message;
    struct xfrm_sa_key key;
    struct xfrm_sa read;

    (void)state;
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), 0);
    message = xfrm_write_replay(written, &reply, &sa, &now);
    assert_int_equal(message->nlmsg_type, XFRM_MSG_NEWAE);
    assert_int_equal(xfrm_read_replay(message, &key, &read), 0);
    assert_int_equal(key.spi, 0xc0ffee01);
    assert_true(read.has_replay && read.received == 77);
    assert_true(read.has_use && read.use.add_time == 5);
}

static void test_spi_requests(void **state) {
    struct xfrm_userspi_info wanted = {.info = some_info(), .min = 0xc0000000, .max = 0xcfffffff};
    struct xfrm_spi_request request;

    (void)state;
    assert_int_equal(
        xfrm_read_spi_request(begin(XFRM_MSG_ALLOCSPI, &wanted, sizeof(wanted)), &request), 0);
    assert_int_equal(request.least, 0xc0000000);
    assert_int_equal(request.most, 0xcfffffff);
    wanted.max = 0xbfffffff;
    assert_int_equal(
        xfrm_read_spi_request(begin(XFRM_MSG_ALLOCSPI, &wanted, sizeof(wanted)), &request),
        -EINVAL);
    wanted.max = UINT32_MAX;
    wanted.info.id.proto = IPPROTO_COMP;
    assert_int_equal(
        xfrm_read_spi_request(begin(XFRM_MSG_ALLOCSPI, &wanted, sizeof(wanted)), &request),
        -EPROTONOSUPPORT);
}

/* --- policies --- */

static struct xfrm_userpolicy_info some_policy(void) {
    struct xfrm_userpolicy_info info = {0};

    info.sel.family = AF_INET;
    info.sel.saddr.a4 = inet_addr("192.0.2.0");
    info.sel.daddr.a4 = inet_addr("198.51.100.0");
    info.sel.prefixlen_s = info.sel.prefixlen_d = 24;
    info.lft.soft_byte_limit = info.lft.hard_byte_limit = XFRM_INF;
    info.lft.soft_packet_limit = info.lft.hard_packet_limit = XFRM_INF;
    info.priority = 375423;
    info.dir = XFRM_POLICY_OUT;
    return info;
}

static struct xfrm_user_tmpl some_template(void) {
    struct xfrm_user_tmpl template = {0};

    template.id.proto = IPPROTO_ESP;
    template.id.daddr.a4 = inet_addr("203.0.113.2");
    template.saddr.a4 = inet_addr("203.0.113.1");
    template.id.spi = htonl(0xc0ffee01);
    template.reqid = 9;
    template.mode = XFRM_MODE_TUNNEL;
    template.family = AF_INET;
    return template;
}

static struct nlmsghdr *new_policy(const struct xfrm_userpolicy_info *info,
                                   const struct xfrm_user_tmpl *template) {
    struct nlmsghdr *message = begin(XFRM_MSG_NEWPOLICY, info, sizeof(*info));

    if (template)
        mnl_attr_put(message, XFRMA_TMPL, sizeof(*template), template);
    return message;
}

static void test_reads_a_policy(void **state) {
    struct xfrm_userpolicy_info info = some_policy();
    struct xfrm_user_tmpl template = some_template();
    char text[IP_PREFIX_TEXT];

    (void)state;
    assert_int_equal(xfrm_read_policy(new_policy(&info, &template), &policy), 0);
    assert_int_equal(policy.settings.direction, IPSEC_OUT);
    assert_int_equal(policy.settings.action, IPSEC_PROTECT);
    assert_int_equal(policy.settings.request, 9);
    assert_int_equal(policy.settings.spi, 0xc0ffee01); /* of those of the request this one sends */
    assert_int_equal(policy.settings.priority, 375423);
    assert_string_equal(ip_prefix_text(&policy.settings.selector.source, text), "192.0.2.0/24");
    assert_string_equal(ip_prefix_text(&policy.settings.selector.destination, text),
                        "198.51.100.0/24");
    assert_int_equal(policy.settings.selector.destination_port[1], UINT16_MAX);
    assert_string_equal(ip_address_text(&policy.local, text), "203.0.113.1");
    info.dir = XFRM_POLICY_FWD;
    assert_int_equal(xfrm_read_policy(new_policy(&info, &template), &policy), 0);
    assert_int_equal(policy.settings.direction, IPSEC_IN);
    assert_int_equal(policy.settings.spi, 0); /* and any of them may receive */
    assert_string_equal(ip_address_text(&policy.local, text), "203.0.113.2");
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), 0);
    assert_int_equal(policy.settings.action, IPSEC_BYPASS);
    info.action = XFRM_POLICY_BLOCK;
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), 0);
    assert_int_equal(policy.settings.action, IPSEC_DISCARD);
}

static void test_ports(void **state) {
    struct xfrm_userpolicy_info info = some_policy();
    const struct ipsec_selector *selector = &policy.settings.selector;

    (void)state;
    info.sel.proto = IPPROTO_TCP;
    info.sel.dport = htons(0x1234);
    info.sel.dport_mask = htons(0xff00);
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), 0);
    assert_int_equal(selector->destination_port[0], 0x1200);
    assert_int_equal(selector->destination_port[1], 0x12ff);
    assert_int_equal(selector->source_port[0], 0);
    assert_int_equal(selector->source_port[1], UINT16_MAX);
    assert_int_equal(policy.info.sel.dport, htons(0x1200)); /* bits that do not count are 0 */
    info.sel.dport_mask = htons(0xf0ff);
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), -EINVAL);
    info.sel.proto = IPPROTO_ICMP; /* type 3, code 4 */
    info.sel.sport = htons(3);
    info.sel.dport = htons(4);
    info.sel.sport_mask = info.sel.dport_mask = 0xffff;
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), 0);
    assert_int_equal(selector->destination_port[0], 0x0304);
    assert_int_equal(selector->destination_port[1], 0x0304);
    info.sel.dport_mask = 0;
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), 0);
    assert_int_equal(selector->destination_port[0], 0x0300);
    assert_int_equal(selector->destination_port[1], 0x03ff);
    info.sel.proto = 0;
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), -EOPNOTSUPP);
}

static void test_refuses_policies(void **state) {
    struct xfrm_user_tmpl templates[2] = {some_template(), some_template()};
    struct xfrm_userpolicy_info info = some_policy();
    struct nlmsghdr *message;

    (void)state;
    info.sel.prefixlen_d = 33;
    assert_int_equal(xfrm_read_policy(new_policy(&info, templates), &policy), -EINVAL);
    info = some_policy();
    info.dir = 3;
    assert_int_equal(xfrm_read_policy(new_policy(&info, templates), &policy), -EINVAL);
    info = some_policy();
    info.sel.ifindex = 1;
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), -EOPNOTSUPP);
    info = some_policy();
    info.lft.hard_add_expires_seconds = 5;
    assert_int_equal(xfrm_read_policy(new_policy(&info, templates), &policy), -EOPNOTSUPP);
    info = some_policy();
    message = begin(XFRM_MSG_NEWPOLICY, &info, sizeof(info));
    mnl_attr_put(message, XFRMA_TMPL, sizeof(templates), templates);
    assert_int_equal(xfrm_read_policy(message, &policy), -EOPNOTSUPP);
    message = begin(XFRM_MSG_NEWPOLICY, &info, sizeof(info));
    mnl_attr_put(message, XFRMA_TMPL, sizeof(templates[0]) - 4, templates);
    assert_int_equal(xfrm_read_policy(message, &policy), -EINVAL);
    templates[0].optional = 1;
    assert_int_equal(xfrm_read_policy(new_policy(&info, templates), &policy), -EOPNOTSUPP);
    templates[0] = some_template();
    templates[0].reqid = 0;
    assert_int_equal(xfrm_read_policy(new_policy(&info, templates), &policy), 0);
    assert_int_equal(policy.settings.spi, 0xc0ffee01);
    templates[0].id.spi = 0; /* a trap */
    assert_int_equal(xfrm_read_policy(new_policy(&info, templates), &policy), 0);
    assert_int_equal(policy.settings.action, IPSEC_PROTECT);
    assert_int_equal(policy.settings.spi | policy.settings.request, 0);
    info.dir = XFRM_POLICY_IN;
    assert_int_equal(xfrm_read_policy(new_policy(&info, templates), &policy), -EOPNOTSUPP);
}

static void test_policy_ids(void **state) {
    struct xfrm_userpolicy_info info = some_policy();
    struct xfrm_userpolicy_id id = {.sel = info.sel, .dir = info.dir};
    struct xfrm_policy_key out = {.if_id = 1};
    struct nlmsghdr *message;

    (void)state;
    id.sel.saddr.a4 = inet_addr("192.0.2.99"); /* host bits do not count */
    assert_int_equal(xfrm_read_policy(new_policy(&info, NULL), &policy), 0);
    assert_int_equal(xfrm_read_policy_key(begin(XFRM_MSG_DELPOLICY, &id, sizeof(id)), &out), 0);
    assert_memory_equal(&out.id.sel, &policy.info.sel, sizeof(out.id.sel));
    assert_int_equal(out.if_id, 0);
    message = begin(XFRM_MSG_DELPOLICY, &id, sizeof(id));
    mnl_attr_put_u32(message, XFRMA_IF_ID, 42);
    assert_int_equal(xfrm_read_policy_key(message, &out), 0);
    assert_int_equal(out.if_id, 42);
    message = begin(XFRM_MSG_DELPOLICY, &id, sizeof(id));
    mnl_attr_put_u16(message, XFRMA_IF_ID, 42);
    assert_int_equal(xfrm_read_policy_key(message, &out), -EINVAL);
    id.dir = 7;
    assert_int_equal(xfrm_read_policy_key(begin(XFRM_MSG_DELPOLICY, &id, sizeof(id)), &out),
                     -EINVAL);
}

/* --- what is written --- */

static void test_answers_hold_no_keys(void **state) {
    struct xfrm_usersa_info info = some_info();
    struct nlmsghdr *request = new_sa(&info), *message;
    const struct nlmsgerr *answer;

    (void)state;
    message = xfrm_write_answer(written, request, 4242, -ENOSYS);
    assert_int_equal(message->nlmsg_type, NLMSG_ERROR);
    assert_int_equal(message->nlmsg_len, NLMSG_HDRLEN + sizeof(struct nlmsgerr));
    assert_int_equal(message->nlmsg_seq, 7);
    answer = mnl_nlmsg_get_payload(message);
    assert_int_equal(answer->error, -ENOSYS);
    assert_int_equal(answer->msg.nlmsg_type, XFRM_MSG_NEWSA);
    message = xfrm_write_done(written, &reply);
    assert_int_equal(message->nlmsg_type, NLMSG_DONE);
}

static void test_events(void **state) {
    struct xfrm_sa_state now = {.use = {.packets = 3}};
    struct xfrm_userpolicy_info policy_info = some_policy();
    struct xfrm_user_tmpl template = some_template();
    struct xfrm_usersa_info info = some_info();
    struct xfrm_user_expire expire;
    struct xfrm_user_acquire acquire;
    const uint8_t near[16] = {0x20, 1, [15] = 1}, far[16] = {0x20, 1, [15] = 2};
    const struct ipsec_flow flow = {ip6_address(near), ip6_address(far), IPPROTO_TCP,
                                    .source_port = 1000, .destination_port = 443};
    struct nlmsghdr *message;
    const struct nlattr *attribute;

    (void)state;
    assert_int_equal(xfrm_read_sa(new_sa(&info), &sa), 0);
    message = xfrm_write_expire(written, &sa, &now, true);
    assert_int_equal(message->nlmsg_type, XFRM_MSG_EXPIRE);
    assert_int_equal(message->nlmsg_pid, 0); /* from the kernel, so to say */
    memcpy(&expire, mnl_nlmsg_get_payload(message), sizeof(expire));
    assert_int_equal(expire.state.id.spi, htonl(0xc0ffee01));
    assert_int_equal(expire.state.curlft.packets, 3);
    assert_int_equal(expire.hard, 1);
    assert_int_equal(xfrm_read_policy(new_policy(&policy_info, &template), &policy), 0);
    message = xfrm_write_acquire(written, &policy, NULL, 5);
    assert_int_equal(message->nlmsg_type, XFRM_MSG_ACQUIRE);
    memcpy(&acquire, mnl_nlmsg_get_payload(message), sizeof(acquire));
    assert_int_equal(acquire.seq, 5);
    assert_int_equal(acquire.id.proto, IPPROTO_ESP);
    assert_memory_equal(&acquire.sel, &policy.info.sel, sizeof(acquire.sel));
    attribute = mnl_nlmsg_get_payload_offset(message, MNL_ALIGN(sizeof(acquire)));
    assert_int_equal(mnl_attr_get_type(attribute), XFRMA_TMPL);
    assert_memory_equal(mnl_attr_get_payload(attribute), &template, sizeof(template));
    message = xfrm_write_acquire(written, &policy, &flow, 6);
    memcpy(&acquire, mnl_nlmsg_get_payload(message), sizeof(acquire));
    assert_int_equal(acquire.sel.family, AF_INET6);
    assert_memory_equal(&acquire.sel.saddr, flow.source.bytes, 16);
    assert_memory_equal(&acquire.sel.daddr, flow.destination.bytes, 16);
    assert_int_equal(acquire.sel.prefixlen_s, 128);
    assert_int_equal(acquire.sel.prefixlen_d, 128);
    assert_int_equal(acquire.sel.proto, IPPROTO_TCP);
    assert_int_equal(acquire.sel.sport, htons(1000));
    assert_int_equal(acquire.sel.dport, htons(443));
    assert_int_equal(acquire.sel.sport_mask, 0xffff);
    assert_int_equal(acquire.sel.dport_mask, 0xffff);
    assert_memory_equal(&acquire.policy, &policy.info, sizeof(acquire.policy));
    message = xfrm_write_policy(written, &reply, &policy, 12345);
    assert_int_equal(xfrm_read_policy(message, &policy), 0);
    assert_int_equal(policy.info.curlft.use_time, 12345);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_an_association),
        cmocka_unit_test(test_algorithms),
        cmocka_unit_test(test_sequence_numbers),
        cmocka_unit_test(test_messages_of_a_packet),
        cmocka_unit_test(test_encapsulation),
        cmocka_unit_test(test_refuses_associations),
        cmocka_unit_test(test_cut_and_broken_messages),
        cmocka_unit_test(test_writes_what_it_reads),
        cmocka_unit_test(test_replay_state),
        cmocka_unit_test(test_spi_requests),
        cmocka_unit_test(test_reads_a_policy),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_refuses_policies),
        cmocka_unit_test(test_policy_ids),
        cmocka_unit_test(test_answers_hold_no_keys),
        cmocka_unit_test(test_events),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
