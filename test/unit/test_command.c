/*
 * routerctl's command language: matching, abbreviations, ambiguity, errors, completion; and the
 * splitting of lines into words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "command.h"
#include "words.h"

/* clang-format off */
static const struct command table[] = {
    {.syntax = "show", .help = "Show things", .flags = COMMAND_GROUP},
    {.syntax = "show system", .help = "Show the system"},
    {.syntax = "show interfaces [INTERFACE:name] [live]", .help = "List interfaces"},
    {.syntax = "show routes {vrf VRF|(ipv4:family|ipv6:family)|(PREFIX|[to] ADDRESS:covering)}", .help = "List routes"},
    {.syntax = "route add PREFIX via ADDRESS:via [weight WEIGHT|vrf VRF|via ADDRESS:via]...", .help = "Add a route"},
    {.syntax = "route add PREFIX (blackhole|prohibit)", .help = "Add a dead end"},
    {.syntax = "config confirm", .help = "Confirm"},
    {.syntax = "config check FILE", .help = "Check"},
    {.syntax = "neighbour add ADDRESS MAC", .help = "Add a neighbour"},
    {.syntax = "clear sessions {address (ADDRESS|PREFIX:address)|port PORT|protocol PROTOCOL|state STATE|live}", .help = "End sessions"},
    {.syntax = "exit", .help = "Leave", .flags = COMMAND_SHELL},
    {.syntax = "secret WORD", .help = "Hidden", .flags = COMMAND_HIDDEN},
};
/* clang-format on */

enum { COMMANDS = sizeof(table) / sizeof(table[0]) };

static struct command_set *set;

static int make_set(void **state) {
    (void)state;
    set = command_set_new(table, COMMANDS);
    return 0;
}

static int free_set(void **state) {
    (void)state;
    command_set_free(set);
    return 0;
}

/* Matches a line; on success returns the syntax and writes "key=value ..." to `values`. On failure
 * returns NULL and writes the error there. */
static const char *match_line(const char *line, bool shell, char values[1024]) {
    struct words words = words_split(line);
    struct match match;
    char *error = NULL;
    const char *syntax = NULL;

    values[0] = '\0';
    if (command_match(set, words.list, words.count, shell, "ctl ", &match, &error)) {
        syntax = match.command->syntax;
        for (size_t i = 0; i < match.count; i++)
            if (match.words[i].key != NULL) {
                size_t used = strlen(values);
                snprintf(values + used, 1024 - used, "%s%s=%s", used ? " " : "", match.words[i].key,
                         match.words[i].text);
            }
        match_free(&match);
    } else {
        snprintf(values, 1024, "%s", error);
        free(error);
    }
    words_free(&words);
    return syntax;
}

static void expect_match(const char *line, const struct command *command, const char *expected) {
    char values[1024];
    const char *syntax = match_line(line, false, values);

    if (syntax == NULL)
        fail_msg("\"%s\" is refused: %s", line, values);
    assert_string_equal(syntax, command->syntax);
    assert_string_equal(values, expected);
}

static void expect_error(const char *line, const char *expected) {
    char values[1024];

    assert_null(match_line(line, false, values));
    assert_string_equal(values, expected);
}

static void words_and_arguments_match(void **state) {
    (void)state;
    expect_match("show system", &table[1], "");
    expect_match("show interfaces", &table[2], "");
    expect_match("show interfaces wan", &table[2], "name=wan");
    expect_match("show interfaces wan live", &table[2], "name=wan");
    expect_match("neighbour add fe80::1 02:00:00:00:00:01", &table[8],
                 "address=fe80::1 mac=02:00:00:00:00:01");
    expect_match("route add ::/0 via fe80::1 weight 2 via fe80::2 vrf a", &table[4],
                 "prefix=::/0 via=fe80::1 weight=2 via=fe80::2 vrf=a");
    expect_match("route add 10.0.0.0/8 blackhole", &table[5], "prefix=10.0.0.0/8");
}

static void options_come_in_any_order_but_once(void **state) {
    (void)state;
    expect_match("show routes", &table[3], "");
    expect_match("show routes ipv6 vrf a", &table[3], "family=ipv6 vrf=a");
    expect_match("show routes vrf a 10.0.0.0/8", &table[3], "vrf=a prefix=10.0.0.0/8");
    expect_match("show routes to 10.0.0.1 vrf a", &table[3], "covering=10.0.0.1 vrf=a");
    expect_match("show routes 10.0.0.1", &table[3], "covering=10.0.0.1");
    expect_error("show routes ipv4 ipv6",
                 "\"ipv6\" does not fit behind \"show routes ipv4\"; expected vrf, PREFIX, to or "
                 "ADDRESS\nusage: ctl show routes [vrf VRF] [ipv4|ipv6] [PREFIX|[to] ADDRESS]");
}

static void filters_take_what_they_are_for(void **state) {
    (void)state;
    expect_match("clear sessions", &table[9], "");
    expect_match("clear sessions live port 0 address 10.0.0.0/8", &table[9],
                 "port=0 address=10.0.0.0/8");
    expect_match("clear sessions address fe80::1 port 65535", &table[9],
                 "address=fe80::1 port=65535");
    expect_match("clear sessions protocol 47 state udp", &table[9], "protocol=47 state=udp");
    expect_error(
        "clear sessions port 65536",
        "\"65536\" is not a port, 0 to 65535\nusage: ctl clear sessions [address (ADDRESS|PREFIX)] [port PORT] "
        "[protocol PROTOCOL] [state STATE] [live]");
}

static void unique_beginnings_are_enough(void **state) {
    (void)state;
    expect_match("sh i wan", &table[2], "name=wan");
    expect_match("s s", &table[1], "");
    expect_match("ro a 10.0.0.0/8 b", &table[5], "prefix=10.0.0.0/8");
    expect_match("con conf", &table[6], "");
    expect_match("sh r ipv4 v x", &table[3], "family=ipv4 vrf=x");
}

static void where_a_name_may_stand_words_must_be_whole(void **state) {
    (void)state;
    expect_match("show interfaces liv", &table[2], "name=liv");
    expect_match("show interfaces live", &table[2], "");
}

static void ambiguity_is_an_error_that_lists_the_choice(void **state) {
    (void)state;
    expect_error("con c x", "\"c\" is ambiguous: confirm or check\n"
                            "usage: ctl config confirm\n"
                            "       ctl config check FILE");
    expect_error("show routes ip", "\"ip\" is ambiguous: ipv4 or ipv6\n"
                                   "usage: ctl show routes [vrf VRF] [ipv4|ipv6] "
                                   "[PREFIX|[to] ADDRESS]");
}

static void mistakes_are_explained(void **state) {
    (void)state;
    expect_error("", "a command is missing; expected show, route, config, neighbour or clear");
    expect_error("shwo system", "there is no command \"shwo\"; did you mean \"show\"?");
    expect_error("xyzzy",
                 "there is no command \"xyzzy\"; expected show, route, config, neighbour or clear");
    expect_error("show rotues",
                 "\"rotues\" does not fit behind \"show\"; did you mean \"routes\"?\n"
                 "usage: ctl show system\n"
                 "       ctl show interfaces [INTERFACE] [live]\n"
                 "       ctl show routes [vrf VRF] [ipv4|ipv6] "
                 "[PREFIX|[to] ADDRESS]");
    expect_error("show system now",
                 "\"now\" does not fit behind \"show system\", which is complete\n"
                 "usage: ctl show system");
    expect_error("config check", "\"config check\" is not complete; expected FILE\n"
                                 "usage: ctl config check FILE");
    expect_error("neighbour add 10.0.0.256 02:00:00:00:00:01",
                 "\"10.0.0.256\" is not an IPv4 or IPv6 address\n"
                 "usage: ctl neighbour add ADDRESS MAC");
    expect_error("neighbour add 10.0.0.25 02:00:00:00:00:0g",
                 "\"02:00:00:00:00:0g\" is not a MAC address such as 02:00:00:00:00:01\n"
                 "usage: ctl neighbour add ADDRESS MAC");
}

static void shell_and_hidden_commands(void **state) {
    char values[1024];

    (void)state;
    assert_null(match_line("exit", false, values));
    assert_non_null(match_line("exit", true, values));
    assert_non_null(match_line("ex", true, values));
    assert_non_null(match_line("secret x", false, values));
    assert_null(match_line("sec x", false, values));
}

static void arguments_have_shapes(void **state) {
    static const struct {
        enum argument_type type;
        const char *text;
        bool good;
    } cases[] = {
        {ARGUMENT_PREFIX, "10.0.0.0/8", true},
        {ARGUMENT_PREFIX, "10.0.0.0/33", false},
        {ARGUMENT_PREFIX, "::/128", true},
        {ARGUMENT_PREFIX, "::/129", false},
        {ARGUMENT_PREFIX, "10.0.0.0", false},
        {ARGUMENT_PREFIX, "10.0.0.0/", false},
        {ARGUMENT_PREFIX, "/8", false},
        {ARGUMENT_PREFIX, "10.0.0.0/-8", false},
        {ARGUMENT_ADDRESS, "1.2.3.4", true},
        {ARGUMENT_ADDRESS, "1.2.3", false},
        {ARGUMENT_ADDRESS, "2001:db8::1", true},
        {ARGUMENT_ADDRESS, "wan", false},
        {ARGUMENT_SECONDS, "1", true},
        {ARGUMENT_SECONDS, "0", false},
        {ARGUMENT_SECONDS, "86400", true},
        {ARGUMENT_SECONDS, "86401", false},
        {ARGUMENT_SECONDS, "99999999999999999999", false},
        {ARGUMENT_WEIGHT, "255", true},
        {ARGUMENT_WEIGHT, "256", false},
        {ARGUMENT_MAC, "02:00:00:00:00:01", true},
        {ARGUMENT_MAC, "02:00:00:00:00:01:", false},
        {ARGUMENT_MAC, "02-00-00-00-00-01", false},
        {ARGUMENT_MAC, "", false},
        {ARGUMENT_JSON, "{\"a\":1}", true},
        {ARGUMENT_JSON, "{", false},
        {ARGUMENT_INTERFACE, "", false},
        {ARGUMENT_INTERFACE, "x", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (argument_of(cases[i].type)->accepts(cases[i].text) != cases[i].good)
            fail_msg("%s \"%s\"", argument_of(cases[i].type)->name, cases[i].text);
}

/* ---- completion ---- */

static void names(void *context, enum argument_type type, const char *partial,
                  struct candidates *out) {
    static const char *const interfaces[] = {"wan", "wlan", "lan"};

    assert_string_equal(context, "context");
    for (size_t i = 0; type == ARGUMENT_INTERFACE && i < 3; i++)
        if (strncmp(interfaces[i], partial, strlen(partial)) == 0)
            candidates_add(out, interfaces[i], NULL);
}

/* Completes the line's end; expects "word word <ARGUMENT> ..." */
static void expect_completion(const char *line, const char *expected) {
    struct words words = words_split(line);
    size_t count = words.count - !words.complete;
    struct candidates candidates =
        command_complete(set, words.list, count, words.complete ? "" : words.list[count], false,
                         names, (void *)(uintptr_t) "context");
    char text[512] = "";

    for (size_t i = 0; i < candidates.count; i++) {
        bool insertable = candidates.list[i].insertable;
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, "%s%s%s%s", used ? " " : "",
                 insertable ? "" : "<", candidates.list[i].text, insertable ? "" : ">");
    }
    assert_string_equal(text, expected);
    candidates_free(&candidates);
    words_free(&words);
}

static void completion_offers_what_fits(void **state) {
    (void)state;
    expect_completion("", "show route config neighbour clear");
    expect_completion("sh", "show");
    expect_completion("sh ", "system interfaces routes");
    expect_completion("sh i", "interfaces");
    expect_completion("show interfaces ", "wan wlan lan live");
    expect_completion("show interfaces w", "wan wlan");
    expect_completion("show interfaces wan ", "live");
    expect_completion("show interfaces zzz", "<INTERFACE>");
    expect_completion("show routes vrf a ", "ipv4 ipv6 <PREFIX> to <ADDRESS>");
    expect_completion("show routes vrf ", "<VRF>");
    expect_completion("show routes 10.0.0.0/8 ", "vrf ipv4 ipv6");
    expect_completion("show system ", "");
    expect_completion("nonsense ", "");
    expect_completion("con c ", ""); /* ambiguous */
    expect_completion("route add 10.0.0.0/8 ", "via blackhole prohibit");
}

static void completion_tells_help_and_common_beginning(void **state) {
    struct candidates candidates = command_complete(set, NULL, 0, "", false, NULL, NULL);

    (void)state;
    assert_string_equal(candidates.list[0].help, "Show things");
    assert_int_equal(candidates_common(&candidates), 0);
    candidates_free(&candidates);
    candidates_add(&candidates, "confirm", NULL);
    candidates_add(&candidates, "config", NULL);
    candidates_add(&candidates, "config", NULL);
    candidates_add(&candidates, "FILE", NULL)->insertable = false;
    assert_int_equal(candidates.count, 3);
    assert_int_equal(candidates_common(&candidates), 5);
    candidates_free(&candidates);
}

static void count_command(void *context, const struct command *command) {
    (void)command;
    ++*(size_t *)context;
}

static void help_finds_commands_by_their_first_words(void **state) {
    char *show[] = {(char *)(uintptr_t) "sh"},
         *add[] = {(char *)(uintptr_t) "route", (char *)(uintptr_t) "add"};
    size_t count = 0;

    (void)state;
    command_foreach(set, NULL, 0, false, count_command, &count);
    assert_int_equal(count, 9); /* without the group, the shell's and the hidden one */
    count = 0;
    command_foreach(set, show, 1, false, count_command, &count);
    assert_int_equal(count, 3);
    count = 0;
    command_foreach(set, add, 2, false, count_command, &count);
    assert_int_equal(count, 2);
}

static void usage_reads_like_a_manual(void **state) {
    (void)state;
    assert_string_equal(command_usage(set, &table[3]),
                        "show routes [vrf VRF] [ipv4|ipv6] [PREFIX|[to] ADDRESS]");
    assert_string_equal(command_usage(set, &table[4]),
                        "route add PREFIX via ADDRESS [weight WEIGHT|vrf VRF|via ADDRESS]...");
    assert_string_equal(command_usage(set, &table[5]), "route add PREFIX (blackhole|prohibit)");
}

/* ---- words ---- */

static void expect_words(const char *line, const char *expected, bool complete, bool unclosed) {
    struct words words = words_split(line);
    char text[256] = "";

    for (size_t i = 0; i < words.count; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used, "<%s>", words.list[i]);
    }
    assert_string_equal(text, expected);
    assert_int_equal(words.complete, complete);
    assert_int_equal(words.unclosed, unclosed);
    words_free(&words);
}

static void lines_split_into_words(void **state) {
    (void)state;
    expect_words("", "", true, false);
    expect_words("  a\tb ", "<a><b>", true, false);
    expect_words("a b", "<a><b>", false, false);
    expect_words("a # b", "<a>", true, false);
    expect_words("a#b", "<a#b>", false, false);
    expect_words("'a b' \"c d\" e\\ f ''", "<a b><c d><e f><>", false, false);
    expect_words("x'y z'w", "<xy zw>", false, false);
    expect_words("\"a\\\"b\" '\\'", "<a\"b><\\>", false, false);
    expect_words("call m {\"a\": [1, \"}\\\"\"]} b", "<call><m><{\"a\": [1, \"}\\\"\"]}><b>", false,
                 false);
    expect_words("'open", "<open>", false, true);
    expect_words("{\"a\": ", "<{\"a\": >", false, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_and_arguments_match),
        cmocka_unit_test(options_come_in_any_order_but_once),
        cmocka_unit_test(filters_take_what_they_are_for),
        cmocka_unit_test(unique_beginnings_are_enough),
        cmocka_unit_test(where_a_name_may_stand_words_must_be_whole),
        cmocka_unit_test(ambiguity_is_an_error_that_lists_the_choice),
        cmocka_unit_test(mistakes_are_explained),
        cmocka_unit_test(shell_and_hidden_commands),
        cmocka_unit_test(arguments_have_shapes),
        cmocka_unit_test(completion_offers_what_fits),
        cmocka_unit_test(completion_tells_help_and_common_beginning),
        cmocka_unit_test(help_finds_commands_by_their_first_words),
        cmocka_unit_test(usage_reads_like_a_manual),
        cmocka_unit_test(lines_split_into_words),
    };
    return cmocka_run_group_tests(tests, make_set, free_set);
}
