/* The section "ipsec" and the methods ipsec.*: what is refused, with its path; what a reload keeps;
 * and that no reply tells a secret. */
#include "ipsec_network.h"

/* --- refusals --- */

static const char *const gcm_sa =
    "{'spi': 4096, 'direction': 'out', 'source': '198.51.100.1', 'destination': '203.0.113.9',"
    " 'algorithm': 'aes-gcm-128', 'key': '" KEY_128 SALT "'}";
static const char *const cbc_sa =
    "{'spi': 4096, 'direction': 'out', 'source': '198.51.100.1', 'destination': '203.0.113.9',"
    " 'algorithm': 'aes-cbc-128', 'key': '" KEY_128 "', 'authentication': 'hmac-sha256-128',"
    " 'authentication_key': '" KEY_256 "'}";
static const char *const null_sa =
    "{'spi': 4096, 'direction': 'out', 'source': '198.51.100.1', 'destination': '203.0.113.9',"
    " 'algorithm': 'null', 'authentication': 'hmac-sha1-96',"
    " 'authentication_key': '" KEY_128 "01234567'}";
static const char *const policy =
    "{'direction': 'out', 'destination': '10.9.0.0/16', 'action': 'protect', 'request': 7}";

/* The text with one part of it another one. */
static const char *with(const char *whole, const char *part, const char *other) {
    const char *at = strstr(whole, part);

    require(at, "mistake in a case: %s is not in %s", part, whole);
    return text("%.*s%s%s", (int)(at - whole), whole, other, at + strlen(part));
}

struct refusal {
    const char *part, *other; /* what stands there instead */
    const char *path;         /* behind that of the object */
};

static void sa_is_refused(const char *sa, const struct refusal *refusal) {
    apply_fails_because(with_sas(with(sa, refusal->part, refusal->other), ""),
                        text("$.ipsec.sas[0]%s", refusal->path));
}

CASE(associations_that_are_refused) {
    static const struct refusal refusals[] = {
        {"'spi': 4096, ", "", ""},
        {"4096", "255", ".spi"},
        {"4096", "0", ".spi"},
        {"4096", "4294967296", ".spi"},
        {"4096", "-1", ".spi"},
        {"4096", "'4096'", ".spi"},
        {"4096", "256.5", ".spi"},
        {"'direction': 'out', ", "", ""},
        {"'out'", "'both'", ".direction"},
        {"'source': '198.51.100.1', ", "", ""},
        {"198.51.100.1", "198.51.100.1/32", ".source"},
        {"198.51.100.1", "224.0.0.1", ".source"},
        {"198.51.100.1", "0.0.0.0", ".source"},
        {"198.51.100.1", "router.example", ".source"},
        {"'destination': '203.0.113.9',", "", ""},
        {"203.0.113.9", "255.255.255.255", ".destination"},
        {"203.0.113.9", "2001:db8::1", ".destination"},
        {"198.51.100.1", "2001:db8::1", ".destination"},
        {"'algorithm': 'aes-gcm-128', ", "", ""},
        {"aes-gcm-128", "aes-gcm", ".algorithm"},
        {"aes-gcm-128", "3des-cbc", ".algorithm"},
        {"aes-gcm-128", "AES-GCM-128", ".algorithm"},
        {", 'key': '" KEY_128 SALT "'", "", ""},
        {KEY_128 SALT, KEY_128, ".key"},
        {KEY_128 SALT, KEY_128 SALT "00", ".key"},
        {KEY_128 SALT, "0x" KEY_128 "a1b2c3", ".key"},
        {KEY_128 SALT, KEY_128 "a1b2c3dg", ".key"},
        {KEY_128 SALT, "", ".key"},
        {"'" KEY_128 SALT "'", "7", ".key"},
        {"aes-gcm-128", "aes-gcm-256", ".key"},
        {"aes-gcm-128", "chacha20-poly1305", ".key"},
        {"}", ", 'authentication': 'hmac-sha1-96'}", ".authentication"},
        {"}", ", 'authentication_key': '00'}", ".authentication_key"},
        {"}", ", 'icv_length': 4}", ".icv_length"},
        {"}", ", 'icv_length': 10}", ".icv_length"},
        {"}", ", 'icv_length': 32}", ".icv_length"},
        {"}", ", 'icv_length': 33}", ".icv_length"},
        {"}", ", 'esn': 1}", ".esn"},
        {"}", ", 'replay_window': 4097}", ".replay_window"},
        {"}", ", 'replay_window': true}", ".replay_window"},
        {"}", ", 'mode': 'beet'}", ".mode"},
        {"}", ", 'df': 'keep'}", ".df"},
        {"}", ", 'request': 0}", ".request"},
        {"}", ", 'vrf': 'red'}", ".vrf"},
        {"}", ", 'vrf': 'no name'}", ".vrf"},
        {"}", ", 'udp_source_port': 4500}", ""},
        {"}", ", 'udp_destination_port': 4500}", ""},
        {"}", ", 'udp_source_port': 0, 'udp_destination_port': 4500}", ".udp_source_port"},
        {"}", ", 'udp_source_port': 1, 'udp_destination_port': 65536}", ".udp_destination_port"},
        {"}", ", 'sequence': 5}", ".sequence"},
        {"}", ", 'name': 'x'}", ".name"},
    };

    start(standard);
    for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        sa_is_refused(gcm_sa, &refusals[i]);
    apply(with_sas(gcm_sa, ""));
}

CASE(algorithms_that_are_refused) {
    static const struct refusal cbc[] = {
        {"'authentication': 'hmac-sha256-128', ", "", ""},
        {"'authentication': 'hmac-sha256-128',", "'authentication': 'hmac-md5-96',",
         ".authentication"},
        {", 'authentication_key': '" KEY_256 "'", "", ""},
        {KEY_256, KEY_128, ".authentication_key"},
        {"hmac-sha256-128", "hmac-sha512-256", ".authentication_key"},
        {"}", ", 'icv_length': 12}", ".icv_length"},
        {"'" KEY_128 "', 'auth", "'" KEY_128 SALT "', 'auth", ".key"},
    };
    static const struct refusal null[] = {
        {"'null'", "'null', 'key': '00'", ".key"},
        {"'authentication': 'hmac-sha1-96',", "", ""},
    };
    static const struct refusal icvs[] = {
        {"}", ", 'icv_length': 8}", ".icv_length"},
        {"}", ", 'icv_length': 12}", ".icv_length"},
    };
    const char *chacha =
        with(with(gcm_sa, "aes-gcm-128", "chacha20-poly1305"), KEY_128 SALT, KEY_256 SALT);
    const char *gmac = with(gcm_sa, "aes-gcm-128", "aes-gmac-128");

    start(standard);
    for (unsigned i = 0; i < sizeof(cbc) / sizeof(cbc[0]); i++)
        sa_is_refused(cbc_sa, &cbc[i]);
    for (unsigned i = 0; i < sizeof(null) / sizeof(null[0]); i++)
        sa_is_refused(null_sa, &null[i]);
    for (unsigned i = 0; i < sizeof(icvs) / sizeof(icvs[0]); i++) {
        sa_is_refused(chacha, &icvs[i]);
        sa_is_refused(gmac, &icvs[i]);
    }
    apply(with_sas(cbc_sa, ""));
    apply(with_sas(null_sa, ""));
    apply(with_sas(chacha, ""));
    apply(with_sas(gmac, ""));
}

CASE(inbound_udp_is_for_port_4500) {
    static const struct refusal refusal = {
        "}", ", 'udp_source_port': 4500, 'udp_destination_port': 4501}", ".udp_destination_port"};

    start(standard);
    sa_is_refused(with(gcm_sa, "'out'", "'in'"), &refusal);
    apply(with_sas(with(gcm_sa, "}", ", 'udp_source_port': 4500, 'udp_destination_port': 4501}"),
                   ""));
}

CASE(policies_that_are_refused) {
    static const struct refusal refusals[] = {
        {"'direction': 'out', ", "", ""},
        {"'out'", "'forward'", ".direction"},
        {"'action': 'protect', ", "", ""},
        {"protect", "encrypt", ".action"},
        {", 'request': 7", "", ""},
        {"'request': 7", "'request': 7, 'spi': 4096", ""},
        {"protect", "bypass", ""},
        {"protect", "discard", ""},
        {"'request': 7", "'request': 0", ".request"},
        {"'request': 7", "'spi': 255", ".spi"},
        {"'request': 7", "'spi': 4097", ".spi"}, /* there is none */
        {"'out'", "'in', 'priority': -1", ".priority"},
        {"'destination': '10.9.0.0/16', ", "", ""},
        {"10.9.0.0/16", "10.9.0.1/16", ".destination"},
        {"10.9.0.0/16", "10.9.0.0/33", ".destination"},
        {"10.9.0.0/16", "10.9", ".destination"},
        {"'out'", "'out', 'source': '::/0'", ""},
        {"'out'", "'out', 'source': ''", ".source"},
        {"'out'", "'out', 'protocol': 'esp2'", ".protocol"},
        {"'out'", "'out', 'protocol': 256", ".protocol"},
        {"'out'", "'out', 'source_port': 80", ".source_port"},
        {"'out'", "'out', 'protocol': 'icmp', 'destination_port': 80", ".destination_port"},
        {"'out'", "'out', 'protocol': 'tcp', 'destination_port': 0", ".destination_port"},
        {"'out'", "'out', 'protocol': 'tcp', 'destination_port': '20-10'", ".destination_port"},
        {"'out'", "'out', 'vrf': 'red'", ".vrf"},
        {"'out'", "'out', 'name': 'a b'", ".name"},
        {"'out'", "'out', 'name': 7", ".name"},
        {"'out'", "'out', 'interface': 'wan'", ".interface"},
    };

    start(standard);
    for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        apply_fails_because(with_sas(gcm_sa, with(policy, refusals[i].part, refusals[i].other)),
                            text("$.ipsec.policies[0]%s", refusals[i].path));
    apply(with_sas(gcm_sa, policy));
}

/* A policy by SPI is about an association of its own direction. */
CASE(policies_of_associations_that_are_not_there) {
    start(standard);
    apply_fails_because(with_sas(gcm_sa, "{'direction': 'in', 'source': '10.9.0.0/16', 'action':"
                                         " 'protect', 'spi': 4096}"),
                        "$.ipsec.policies[0].spi");
    apply_fails_because(with_sas("", "{'direction': 'out', 'source': '10.9.0.0/16', 'action':"
                                     " 'protect', 'spi': 4096}"),
                        "$.ipsec.policies[0].spi");
}

CASE(the_section_itself) {
    start(standard);
    apply_fails_because(with_ipsec("'sas': {}"), "$.ipsec.sas");
    apply_fails_because(with_ipsec("'policies': 7"), "$.ipsec.policies");
    apply_fails_because(with_ipsec("'sas': [7]"), "$.ipsec.sas[0]");
    apply_fails_because(with_ipsec("'policies': ['x']"), "$.ipsec.policies[0]");
    apply_fails_because(with_ipsec("'sad': []"), "$.ipsec.sad");
    apply_fails_because("{'ipsec': []}", "$.ipsec");
    apply(with_ipsec(""));
}

CASE(associations_are_known_by_spi_direction_and_destination) {
    const char *other_end = with(gcm_sa, "203.0.113.9", "203.0.113.10");

    start(standard);
    apply_fails_because(with_sas(both(gcm_sa, cbc_sa), ""), "$.ipsec.sas[1].spi");
    apply(with_sas(both(gcm_sa, with(gcm_sa, "'out'", "'in'")), ""));
    apply(with_sas(both(gcm_sa, other_end), ""));
}

/* All mistakes at once. */
CASE(several_mistakes) {
    start(standard);
    const char *check =
        text("{'config': %s}", with_sas(with(gcm_sa, "4096", "1"), with(policy, "out", "up")));

    rpc_fails("config.check", check, "$.ipsec.sas[0].spi");
    rpc_fails("config.check", check, "$.ipsec.policies[0].direction");
}

/* --- what a reload keeps --- */

static const char *named_policies(void) {
    return "{'name': 'there', 'direction': 'out', 'destination': '10.9.0.0/16', 'action':"
           " 'protect', 'spi': 4096},"
           "{'name': 'back', 'direction': 'in', 'source': '10.9.0.0/16', 'action': 'protect',"
           " 'spi': 8192}";
}

static const char *sas_of(const struct esp_sa *out, const struct esp_sa *in) {
    return both(sa_json(out, "out", ""), sa_json(in, "in", ", 'replay_window': 64"));
}

CASE(a_reload_keeps_numbers_and_counters) {
    const char *config = with_sas(sas_of(&out4, &in4), named_policies()), *list;
    struct esp_sa third = out4;

    third.spi = 5000;
    start(config);
    for (unsigned i = 1; i <= 3; i++) {
        goes_out(&out4, to_far(), .sequence = i);
        comes_in(&in4, from_far(), .sequence = i);
    }
    apply(config);
    goes_out(&out4, to_far(), .sequence = 4);
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 3), "ipsec_in.replayed");
    /* Others beside them, and in another order. */
    apply(with_sas(text("%s, %s, %s", sa_json(&third, "out", ""),
                        sa_json(&in4, "in", ", 'replay_window': 64"), sa_json(&out4, "out", "")),
                   text("{'direction': 'out', 'source': '10.7.0.0/16', 'action': 'protect', 'spi':"
                        " 5000}, %s",
                        named_policies())));
    goes_out(&out4, to_far(), .sequence = 5);
    comes_in(&in4, from_far(), .sequence = 4);
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 4), "ipsec_in.replayed");
    list = rpc("ipsec.policy.list", "{}");
    contains(list, "'packets':5,'without_sa':0,'source':'0.0.0.0/0','destination':'10.9.0.0/16',"
                   "'name':'there'");
    contains(list, "'packets':4,'without_sa':0,'source':'10.9.0.0/16','destination':'0.0.0.0/0',"
                   "'name':'back'");
    list = rpc("ipsec.sa.list", "{}");
    contains(list, "'packets':5,");
    contains(list, "'packets':4,");
}

CASE(changed_keys_begin_anew) {
    struct esp_sa new_out = out4, new_in = in4;

    new_out.key = new_in.key = KEY_128 "00000001";
    start(with_sas(sas_of(&out4, &in4), named_policies()));
    goes_out(&out4, to_far(), .sequence = 1);
    goes_out(&out4, to_far(), .sequence = 2);
    comes_in(&in4, from_far(), .sequence = 100);
    apply(with_sas(sas_of(&new_out, &new_in), named_policies()));
    goes_out(&new_out, to_far(), .sequence = 1);
    comes_in(&new_in, from_far(), .sequence = 1);
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 101), "ipsec_in.integrity");
    contains(rpc("ipsec.sa.list", "{}"), "'packets':1,");
}

CASE(a_changed_policy_begins_anew) {
    start(with_sas(sas_of(&out4, &in4), named_policies()));
    goes_out(&out4, to_far(), .sequence = 1);
    apply(with_sas(sas_of(&out4, &in4), with(named_policies(), "'10.9.0.0/16'", "'10.9.0.0/17'")));
    contains(rpc("ipsec.policy.list", "{}"), "'packets':0,'without_sa':0,'source':'0.0.0.0/0',"
                                             "'destination':'10.9.0.0/17','name':'there'");
    goes_out(&out4, to_far(), .sequence = 2);
}

CASE(removed_associations_and_policies) {
    start(with_sas(sas_of(&out4, &in4), named_policies()));
    goes_out(&out4, to_far(), .sequence = 1);
    apply(with_sas("", ""));
    passes(LAN, WAN, to_far());
    passes(WAN, LAN, from_far());
    is_dropped(WAN, esp(&in4, from_far(), .sequence = 1), "ipsec_in.unknown_spi");
    contains(rpc("ipsec.sa.list", "{}"), "{'sas':[],'cursor':null}");
    contains(rpc("ipsec.policy.list", "{}"), "{'policies':[],'cursor':null}");
}

/* Without the section there are no stages, and nothing of anybody is left. */
CASE(the_section_goes) {
    const struct frame *packet = esp(&in4, from_far());

    start(with_sas(sas_of(&out4, &in4), named_policies()));
    contains(rpc("runtime.get", "{}"), "'ipsec_out'");
    rpc("ipsec.policy.add", "{'name': 'mine', 'direction': 'out', 'destination': '10.8.0.0/16',"
                            " 'action': 'discard'}");
    apply(standard);
    contains_not(rpc("runtime.get", "{}"), "'ipsec_out'");
    passes(LAN, WAN, to_far());
    passes(WAN, LAN, from_far());
    inject(WAN, packet); /* a protocol that nobody here speaks */
    expect(WAN, icmp4_error(.source = ROUTER, .destination = PEER, .type = 3, .code = 2,
                            .about = packet));
    expect_drop("local.no_listener", 1);
    contains(rpc("ipsec.sa.list", "{}"), "{'sas':[],'cursor':null}");
    contains(rpc("ipsec.policy.list", "{}"), "{'policies':[],'cursor':null}");
    apply(with_sas(sas_of(&out4, &in4), named_policies()));
    goes_out(&out4, to_far(), .sequence = 1);
    comes_in(&in4, from_far(), .sequence = 1);
}

/* A refused configuration changes nothing. */
CASE(a_refused_reload) {
    struct esp_sa other = out4;

    other.key = KEY_128 "00000001";
    start(with_sas(sas_of(&out4, &in4), named_policies()));
    goes_out(&out4, to_far(), .sequence = 1);
    apply_fails(with_sas(sas_of(&other, &in4), with(named_policies(), "4096", "4097")));
    goes_out(&out4, to_far(), .sequence = 2);
    comes_in(&in4, from_far(), .sequence = 1);
}

CASE(rollback) {
    struct esp_sa other = out4;

    other.key = KEY_128 "00000001";
    start(with_sas(sas_of(&out4, &in4), named_policies()));
    goes_out(&out4, to_far(), .sequence = 1);
    apply(with_sas(sas_of(&other, &in4), named_policies()));
    goes_out(&other, to_far(), .sequence = 1);
    rpc("config.rollback", "{}");
    turn();
    goes_out(&out4, to_far(), .sequence = 1);
}

/* --- methods --- */

CASE(associations_of_clients) {
    start(with_ipsec(""));
    rpc("ipsec.sa.add", sa_json(&out4, "out", ""));
    rpc("ipsec.sa.add", sa_json(&in4, "in", ", 'replay_window': 64, 'esn': true, 'request': 9"));
    rpc("ipsec.policy.add", "{'name': 'there', 'direction': 'out', 'destination': '10.9.0.0/16',"
                            " 'action': 'protect', 'spi': 4096}");
    goes_out(&out4, to_far(), .sequence = 1);

    const char *list = rpc("ipsec.sa.list", "{}");

    contains(list, "'spi':4096,'direction':'out','source':'198.51.100.1','destination':"
                   "'203.0.113.9','mode':'tunnel','algorithm':'aes-gcm-128','icv_length':16,"
                   "'esn':false,'replay_window':0,'df':'copy','vrf':'default','owner':'client'");
    contains(list, "'esn':true,'replay_window':64");
    contains(list, "'request':9");
    rpc_fails("ipsec.sa.add", sa_json(&out4, "out", ""), "$.spi");
    rpc_fails("ipsec.sa.add", sa_json(&out4, "out", ", 'vrf': 'red'"), "$.vrf");
    rpc_fails("ipsec.sa.add", "[]", "$");
    rpc_fails("ipsec.sa.add", "{}", "$");
    rpc_fails("ipsec.sa.delete", "{'spi': 4097, 'direction': 'out'}", "$.spi");
    rpc_fails("ipsec.sa.delete", "{'spi': 4096, 'direction': 'in'}", "$.spi");
    rpc_fails("ipsec.sa.delete", "{'spi': 4096}", "$");
    rpc_fails("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out', 'destination': '10.0.0.1'}",
              "$.spi");
    rpc_fails("ipsec.sa.list", "{'spi': 4096}", "$.spi");
    rpc("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out', 'destination': '203.0.113.9'}");
    is_dropped(LAN, to_far(), "ipsec_out.no_sa");
    rpc("ipsec.sa.delete", "{'spi': 8192, 'direction': 'in'}");
    contains(rpc("ipsec.sa.list", "{}"), "{'sas':[],'cursor':null}");
}

CASE(one_spi_for_several_ends) {
    struct esp_sa other = out4;

    other.destination = "203.0.113.10";
    start(with_ipsec(""));
    rpc("ipsec.sa.add", sa_json(&out4, "out", ""));
    rpc("ipsec.sa.add", sa_json(&other, "out", ""));
    rpc_fails("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out'}", "$.destination");
    rpc("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out', 'destination': '203.0.113.10'}");
    rpc("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out'}");
}

CASE(policies_of_clients) {
    start(with_sas(sas_of(&out4, &in4), named_policies()));
    rpc("ipsec.policy.add", "{'name': 'mine', 'direction': 'out', 'destination': '10.9.0.0/24',"
                            " 'protocol': 'udp', 'destination_port': '1-9', 'action': 'discard'}");
    contains(rpc("ipsec.policy.list", "{}"),
             "'action':'discard','priority':0,'vrf':'default','owner':'client','packets':0,"
             "'without_sa':0,'source':'0.0.0.0/0','destination':'10.9.0.0/24','protocol':'udp',"
             "'destination_port':'1-9','name':'mine'");
    rpc_fails("ipsec.policy.add",
              "{'name': 'mine', 'direction': 'out', 'destination':"
              " '10.8.0.0/24', 'action': 'discard'}",
              "$.name");
    rpc_fails("ipsec.policy.add",
              "{'name': 'same', 'direction': 'out', 'destination':"
              " '10.9.0.0/24', 'protocol': 'udp', 'destination_port': '1-9',"
              " 'action': 'bypass'}",
              "$");
    rpc_fails("ipsec.policy.add",
              "{'direction': 'out', 'destination': '10.8.0.0/24',"
              " 'action': 'discard'}",
              "$");
    rpc_fails("ipsec.policy.add",
              "{'name': 'red', 'direction': 'out', 'destination':"
              " '10.8.0.0/24', 'action': 'discard', 'vrf': 'red'}",
              "$.vrf");
    rpc_fails("ipsec.policy.add", "[]", "$");
    rpc_fails("ipsec.policy.delete", "{'name': 'there'}", "$.name");
    rpc_fails("ipsec.policy.delete", "{'name': 'nobody'}", "$.name");
    rpc_fails("ipsec.policy.delete", "{}", "$");
    /* It was added later: among equals the first decides. */
    goes_out(&out4, udp4(.source = INSIDE ":1", .destination = FAR ":5"), .sequence = 1);
    rpc("ipsec.policy.delete", "{'name': 'mine'}");
    rpc("ipsec.policy.add", "{'name': 'mine', 'direction': 'in', 'source': '10.0.0.0/8',"
                            " 'action': 'discard', 'priority': 1}");
    is_dropped(WAN, udp4(.source = "10.1.0.1:1", .destination = INSIDE ":2"), "ipsec_in.discarded");
    comes_in(&in4, from_far());
    /* A reload leaves clients' policies where they are. */
    apply(with_sas(sas_of(&out4, &in4), named_policies()));
    is_dropped(WAN, udp4(.source = "10.1.0.1:1", .destination = INSIDE ":2"), "ipsec_in.discarded");
    rpc("ipsec.policy.delete", "{'name': 'mine'}");
    passes(WAN, LAN, udp4(.source = "10.1.0.1:1", .destination = INSIDE ":2"));
}

CASE(each_owner_its_own) {
    start(with_sas(sas_of(&out4, &in4), named_policies()));
    contains(rpc_fails("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out'}", "$.spi"),
             "the configuration");
    rpc_fails("ipsec.sa.add", sa_json(&out4, "out", ""), "$.spi");
    apply(with_ipsec(""));
    rpc("ipsec.sa.add", sa_json(&out4, "out", ""));
    /* A reload leaves what clients have added, and does not take it over. */
    apply_fails_because(with_sas(sas_of(&out4, &in4), named_policies()), "$.ipsec.sas[0]");
    apply(with_sas(sa_json(&in4, "in", ""), ""));
    contains(rpc("ipsec.sa.list", "{}"), "'owner':'client'");
    rpc("ipsec.sa.delete", "{'spi': 4096, 'direction': 'out'}");
    apply(with_sas(sas_of(&out4, &in4), named_policies()));
    goes_out(&out4, to_far(), .sequence = 1);
}

CASE(without_the_section_nothing_is_added) {
    start(standard);
    rpc_fails("ipsec.sa.add", sa_json(&out4, "out", ""), "$");
    rpc_fails("ipsec.policy.add",
              "{'name': 'mine', 'direction': 'out', 'destination':"
              " '10.8.0.0/16', 'action': 'discard'}",
              "$");
    contains(rpc("ipsec.sa.list", "{}"), "{'sas':[],'cursor':null}");
}

CASE(age_and_idle) {
    start(tunnel(&out4, NULL, ""));
    contains_not(rpc("ipsec.sa.list", "{}"), "'idle'");
    goes_out(&out4, to_far());
    contains(rpc("ipsec.sa.list", "{}"), "'idle':");
    advance(30000);
    contains(rpc("ipsec.sa.list", "{}"), "'age':42.");
    contains(rpc("ipsec.sa.list", "{}"), "'idle':30.");
}

/* --- secrets --- */

#define SECRET "deadbeefdeadbeefdeadbeefdeadbeef"
#define OTHER_SECRET "cafecafecafecafecafecafecafecafecafecafecafecafecafecafecafecafe"

CASE(no_reply_tells_a_secret) {
    static const char *const methods[] = {"config.get", "ipsec.sa.list", "ipsec.policy.list",
                                          "runtime.get", "log.list"};
    struct esp_sa cbc = out4, gcm = in4;
    const char *sas, *message;

    cbc.algorithm = "aes-cbc-128";
    cbc.key = SECRET;
    cbc.authentication = "hmac-sha256-128";
    cbc.authentication_key = OTHER_SECRET;
    gcm.key = SECRET SALT;
    sas = both(sa_json(&cbc, "out", ""), sa_json(&gcm, "in", ""));
    start(with_sas(sas, policies_of(SPI_OUT, SPI_IN)));
    for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        const char *answer = rpc(methods[i], "{}");

        contains_not(answer, "deadbeef");
        contains_not(answer, "cafecafe");
        contains_not(answer, "3735928559");
    }
    contains(rpc("config.get", "{}"), "'authentication_key':");
    contains_not(rpc("config.diff", text("{'config': %s}", with_sas("", ""))), "deadbeef");
    contains_not(rpc("config.diff", text("{'config': %s}", with_sas("", ""))), "cafecafe");
    /* Not in what is said about mistakes either. */
    message =
        rpc_fails("ipsec.sa.add", with(sa_json(&gcm, "in", ""), "a1b2c3d4", "a1b2c3dx"), "$.key");
    contains_not(message, "deadbeef");
    contains_not(message, "a1b2c3");
    message = rpc_fails("ipsec.sa.add", with(sa_json(&cbc, "in", ""), "cafecafe'", "cafecafx'"),
                        "$.authentication_key");
    contains_not(message, "cafe");
    message =
        rpc_fails("ipsec.sa.add", with(sa_json(&cbc, "in", ""), SECRET, SECRET "00"), "$.key");
    contains_not(message, "deadbeef");
}

/* What config.get shows cannot be put in force: the keys would be lost. */
CASE(masks_are_no_keys) {
    start(tunnel(&out4, NULL, ""));
    apply_fails(rpc("config.get", "{}"));
    goes_out(&out4, to_far(), .sequence = 1);
}

HARNESS_MAIN()
