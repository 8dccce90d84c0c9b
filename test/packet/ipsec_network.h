/*
 * What the cases of IPsec share: the usual network with a tunnel between the router's WAN and a
 * peer, behind which are 10.9.0.0/16 and 2001:db8:9::/48.
 */
#pragma once

#include "esp_frame.h"
#include "harness.h"
#include "ipsec/ipsec.h"

#define INSIDE "192.168.1.10"
#define INSIDE6 "2001:db8:1::10"
#define FAR "10.9.0.1"
#define FAR6 "2001:db8:9::1"
#define OUTSIDE "203.0.113.1" /* no policy is about it */
#define OUTSIDE6 "2001:db8:77::1"
#define ROUTER "198.51.100.1"
#define ROUTER6 "2001:db8:2::1"
#define PEER "203.0.113.9"
#define PEER6 "2001:db8:99::9"

#define KEY_128 "00112233445566778899aabbccddeeff"
#define KEY_192 KEY_128 "0123456789abcdef"
#define KEY_256 KEY_128 "fedcba98765432100123456789abcdef"
#define SALT "a1b2c3d4"
#define GCM .algorithm = "aes-gcm-128", .key = KEY_128 SALT

enum { SPI_OUT = 0x1000, SPI_IN = 0x2000 };

/* AES-GCM-128 over IPv4 and IPv6, from the router and to it; cases change what they need. */
extern const struct esp_sa out4, in4, out6, in6;
/* From the other end. */
struct esp_sa turned(const struct esp_sa *sa, uint32_t spi);

/* Plain and in UDP, over IPv4 and IPv6, in turn; each ends with the empty configuration. */
enum { ESP_KINDS = 4 };
struct esp_sa esp_kind(const struct esp_sa *ipv4, const struct esp_sa *ipv6, unsigned n);
#define for_each_kind_of(sa, ipv4, ipv6)                                              \
    for (unsigned kind_ = 0; kind_ < ESP_KINDS; kind_++)                              \
        for (struct esp_sa sa = esp_kind((ipv4), (ipv6), kind_), *once_ = &sa; once_; \
             once_ = NULL, apply("{}"))

/* Of an untagged frame. */
static inline bool is_ipv6(const struct frame *frame) {
    return frame->bytes[IP] >> 4 == 6;
}

/* An association as router.json has it; `more`: ", 'df': 'set'". */
const char *sa_json(const struct esp_sa *sa, const char *direction, const char *more);
/* A list of them from texts. */
const char *both(const char *one, const char *other);

/* The policies between the LAN and what is behind the peer, of both families. */
const char *policies_of(uint32_t spi_out, uint32_t spi_in);

/* The usual network, with a section "ipsec" of these members. */
const char *with_ipsec(const char *members);
/* The same with more sections: "'firewall': {...}". */
const char *with_ipsec_and(const char *members, const char *sections);
/* With associations and policies: lists of objects. */
const char *with_sas(const char *sas, const char *policies);
/* With a tunnel of these two; `more` of both. NULL: without that direction. */
const char *tunnel(const struct esp_sa *out, const struct esp_sa *in, const char *more);

/* The next frame by the port is this packet in ESP, to the byte but for the initialization vector
 * and the outer header's id, which are the router's to choose. */
#define expect_esp(place, sa, inner, ...) \
    expect_esp_at((place), (sa), (inner), (struct esp_fields){__VA_ARGS__}, __FILE__, __LINE__)
void expect_esp_at(enum place place, const struct esp_sa *sa, const struct frame *inner,
                   struct esp_fields fields, const char *file, int line);

/* Sent from the LAN, it comes out by the WAN in ESP; the other way round. */
#define goes_out(sa, inner, ...)                        \
    do {                                                \
        const struct frame *going = (inner);            \
                                                        \
        inject(LAN, going);                             \
        expect_esp(WAN, (sa), hop(going), __VA_ARGS__); \
    } while (0)
#define comes_in(sa, inner, ...)                     \
    do {                                             \
        const struct frame *coming = (inner);        \
                                                     \
        inject(WAN, esp((sa), coming, __VA_ARGS__)); \
        expect(LAN, hop(coming));                    \
    } while (0)

/* Usual packets between inside and far. */
#define to_far(...) udp4(.source = INSIDE ":1000", .destination = FAR ":2000", __VA_ARGS__)
#define to_far6(...) \
    udp6(.source = "[" INSIDE6 "]:1000", .destination = "[" FAR6 "]:2000", __VA_ARGS__)
#define from_far(...) udp4(.source = FAR ":2000", .destination = INSIDE ":1000", __VA_ARGS__)
#define from_far6(...) \
    udp6(.source = "[" FAR6 "]:2000", .destination = "[" INSIDE6 "]:1000", __VA_ARGS__)

/* Does the answer contain this? */
#define contains(answer, part)                                                            \
    do {                                                                                  \
        const char *in_answer = (answer);                                                 \
                                                                                          \
        require(strstr(in_answer, (part)) != NULL, "%s is not in %s", (part), in_answer); \
    } while (0)
#define contains_not(answer, part)                                                    \
    do {                                                                              \
        const char *in_answer = (answer);                                             \
                                                                                      \
        require(strstr(in_answer, (part)) == NULL, "%s is in %s", (part), in_answer); \
    } while (0)

/* An association of a client, by the C interface: `request` ties it to policies, and `sequence` is
 * its last number so far, as it cannot be written in router.json. */
void add_sa(const struct esp_sa *sa, enum ipsec_direction direction, uint32_t request,
            uint32_t window, uint64_t sequence);
/* An outbound one, without a request. */
void add_out_sa_at(const struct esp_sa *sa, uint64_t sequence);
/* Takes one of a client out, if there is one. */
void remove_sa(const struct esp_sa *sa, enum ipsec_direction direction);
/* An inbound one of an IKE daemon, with a window of 64. */
void add_in_sa_of_ike(const struct esp_sa *sa);
/* Is the daemon to hear that its packets come from there? Asking takes the note away. */
bool new_source_of(const struct esp_sa *sa, const char *expected, unsigned expected_port);
