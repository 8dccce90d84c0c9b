/* The network of IPsec's cases. */
#include "ipsec_network.h"

#include <arpa/inet.h>
#include <stdio.h>

const struct esp_sa out4 = {.spi = SPI_OUT, .source = ROUTER, .destination = PEER, GCM};
const struct esp_sa in4 = {.spi = SPI_IN, .source = PEER, .destination = ROUTER, GCM};
const struct esp_sa out6 = {.spi = SPI_OUT, .source = ROUTER6, .destination = PEER6, GCM};
const struct esp_sa in6 = {.spi = SPI_IN, .source = PEER6, .destination = ROUTER6, GCM};

struct esp_sa turned(const struct esp_sa *sa, uint32_t spi) {
    struct esp_sa other = *sa;

    other.spi = spi;
    other.source = sa->destination;
    other.destination = sa->source;
    other.source_port = sa->destination_port;
    other.destination_port = sa->source_port;
    return other;
}

struct esp_sa esp_kind(const struct esp_sa *ipv4, const struct esp_sa *ipv6, unsigned n) {
    struct esp_sa sa = n & 1 ? *ipv6 : *ipv4;

    if (n & 2)
        sa.source_port = sa.destination_port = 4500;
    return sa;
}

const char *both(const char *one, const char *other) {
    return text("%s, %s", one, other);
}

const char *sa_json(const struct esp_sa *sa, const char *direction, const char *more) {
    const char *json = text("'spi': %u, 'direction': '%s', 'source': '%s', 'destination': '%s', "
                            "'algorithm': '%s'",
                            sa->spi, direction, sa->source, sa->destination, sa->algorithm);

    if (sa->key)
        json = text("%s, 'key': '%s'", json, sa->key);
    if (sa->authentication)
        json = text("%s, 'authentication': '%s', 'authentication_key': '%s'", json,
                    sa->authentication, sa->authentication_key);
    if (sa->icv_length)
        json = text("%s, 'icv_length': %u", json, sa->icv_length);
    if (sa->destination_port)
        json = text("%s, 'udp_source_port': %u, 'udp_destination_port': %u", json, sa->source_port,
                    sa->destination_port);
    return text("{%s%s%s%s}", json, sa->esn ? ", 'esn': true" : "",
                sa->transport ? ", 'mode': 'transport'" : "", more);
}

const char *policies_of(uint32_t spi_out, uint32_t spi_in) {
    const char *list = "";

    if (spi_out)
        list = text("{'direction': 'out', 'source': '192.168.1.0/24', 'destination': '10.9.0.0/16',"
                    " 'action': 'protect', 'spi': %u},"
                    "{'direction': 'out', 'source': '2001:db8:1::/64', 'destination':"
                    " '2001:db8:9::/48', 'action': 'protect', 'spi': %u}%s",
                    spi_out, spi_out, spi_in ? "," : "");
    if (spi_in)
        list = text("%s{'direction': 'in', 'destination': '192.168.1.0/24', 'source': '10.9.0.0/16'"
                    ", 'action': 'protect', 'spi': %u},"
                    "{'direction': 'in', 'destination': '2001:db8:1::/64', 'source':"
                    " '2001:db8:9::/48', 'action': 'protect', 'spi': %u}",
                    list, spi_in, spi_in);
    return list;
}

const char *with_ipsec_and(const char *members, const char *sections) {
    return text("{'interfaces': {"
                "'lan': {" LAN_PORT ", " LAN_ADDRESSES "},"
                "'wan': {" WAN_PORT ", " WAN_ADDRESSES "},"
                "'dmz': {" DMZ_PORT ", " DMZ_ADDRESSES "}},"
                "'neighbours': [" LAN_NEIGHBOURS "," WAN_NEIGHBOURS "," DMZ_NEIGHBOURS "],"
                "'routes': [" DEFAULT_ROUTES "], 'ipsec': {%s}%s%s, " UNLIMITED "}",
                members, sections[0] ? ", " : "", sections);
}

const char *with_ipsec(const char *members) {
    return with_ipsec_and(members, "");
}

const char *with_sas(const char *sas, const char *policies) {
    return with_ipsec(text("'sas': [%s], 'policies': [%s]", sas, policies));
}

const char *tunnel(const struct esp_sa *out, const struct esp_sa *in, const char *more) {
    const char *sas = text("%s%s%s", out ? sa_json(out, "out", more) : "", out && in ? "," : "",
                           in ? sa_json(in, "in", more) : "");

    return with_sas(sas, policies_of(out ? out->spi : 0, in ? in->spi : 0));
}

void expect_esp_at(enum place place, const struct esp_sa *sa, const struct frame *inner,
                   struct esp_fields fields, const char *file, int line) {
    const struct frame *frame = take_one_at(place, file, line);
    const char *host = text("02:00:00:00:%02x:10", place);
    const char *router = text("02:00:00:00:%02x:01", place);
    struct frame *expected;
    struct esp_found found;
    const char *wrong;

    /* In transport mode the outer addresses are the packet's own. */
    wrong = esp_unwrap(sa, frame, (uint32_t)(fields.sequence >> 32), &found);
    if (wrong) {
        frame_print("found", frame);
        failed_at(file, line, "the ESP packet cannot be opened: %s", wrong);
    }
    fields.iv_bytes = found.iv;
    fields.id = found.id;
    expected = ether(esp_wrap(sa, inner, fields), host, router);
    if (!frame_equal(frame, expected)) {
        if (found.inner->length != inner->length ||
            memcmp(found.inner->bytes + IP, inner->bytes + frame_ip_offset(inner),
                   inner->length - frame_ip_offset(inner)) != 0)
            frame_compare(inner, found.inner);
        frame_compare(expected, frame);
        failed_at(file, line, "another ESP packet than expected, number %lu",
                  (unsigned long)found.sequence);
    }
}

static void set_address(const char *text, struct ip_address *out) {
    out->family = strchr(text, ':') ? AF_INET6 : AF_INET;
    require(inet_pton(out->family, text, out->bytes) == 1, "mistake in a case: address %s", text);
}

static void set_hex(const char *text, uint8_t *out) {
    for (unsigned i = 0; text && i < strlen(text) / 2; i++) {
        unsigned octet = 0;

        require(sscanf(text + (size_t)i * 2, "%2x", &octet) == 1, "mistake in a case: %s", text);
        out[i] = (uint8_t)octet;
    }
}

static void add_sa_of(enum ipsec_owner owner, const struct esp_sa *sa,
                      enum ipsec_direction direction, uint32_t request, uint32_t window,
                      uint64_t sequence) {
    struct ipsec_sa_settings settings = {
        .spi = sa->spi,
        .direction = direction,
        .request = request,
        .replay_window = window,
        .mode = sa->transport ? IPSEC_TRANSPORT : IPSEC_TUNNEL,
        .cipher = esp_cipher_find(sa->algorithm),
        .auth = sa->authentication ? esp_auth_find(sa->authentication) : NULL,
        .icv = (uint8_t)sa->icv_length,
        .esn = sa->esn,
        .sequence = sequence,
        .source_port = (uint16_t)sa->source_port,
        .destination_port = (uint16_t)sa->destination_port,
    };

    set_address(sa->source, &settings.source);
    set_address(sa->destination, &settings.destination);
    set_hex(sa->key, settings.key);
    set_hex(sa->authentication_key, settings.auth_key);
    require(ipsec_sa_add(&settings, owner) == 0, "the association was not added");
    for (unsigned i = 0; i < sizeof(settings.key); i++)
        require(settings.key[i] == 0, "the key was not zeroed");
}

void add_sa(const struct esp_sa *sa, enum ipsec_direction direction, uint32_t request,
            uint32_t window, uint64_t sequence) {
    add_sa_of(IPSEC_OF_CLIENT, sa, direction, request, window, sequence);
}

void add_out_sa_at(const struct esp_sa *sa, uint64_t sequence) {
    add_sa(sa, IPSEC_OUT, 0, 0, sequence);
}

void remove_sa(const struct esp_sa *sa, enum ipsec_direction direction) {
    struct ip_address destination = {0};

    set_address(sa->destination, &destination);
    ipsec_sa_delete(sa->spi, direction, &destination, IPSEC_OF_CLIENT);
}

void add_in_sa_of_ike(const struct esp_sa *sa) {
    add_sa_of(IPSEC_OF_IKE, sa, IPSEC_IN, 0, 64, 0);
}

bool new_source_of(const struct esp_sa *sa, const char *expected, unsigned expected_port) {
    struct ip_address destination = {0}, source = {0}, wanted = {0};
    const struct ipsec_sa *found;
    uint16_t port;

    set_address(sa->destination, &destination);
    set_address(expected, &wanted);
    found = ipsec_sa_find(sa->spi, IPSEC_IN, &destination);
    require(found, "the association is gone");
    return ipsec_sa_new_source(found, &source, &port) &&
           ip_address_compare(&source, &wanted) == 0 && port == expected_port;
}
