/*
 * The registry of configuration sections: order, atomicity of a replacement, and what a mistake in
 * the `after` lists does.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/section.h"

/* What happened, in order: "prepare:interfaces prepare:routes ...". */
static char events[2048];
static const char *failing = "";     /* the section whose prepare() fails */
static bool silent;                  /* it adds no problem */
static const char *complaining = ""; /* the section whose check() adds a problem */
static const struct config *expected_old, *expected_new;

static void note(const char *event, const char *name) {
    size_t used = strlen(events);
    snprintf(events + used, sizeof(events) - used, "%s%s:%s", used ? " " : "", event, name);
}

#define FAKE_SECTION(id, label, ...)                                                 \
    static const char *const id##_after[] = {__VA_ARGS__ __VA_OPT__(, ) NULL};       \
    static int id##_init(void) {                                                     \
        note("init", label);                                                         \
        return 0;                                                                    \
    }                                                                                \
    static void id##_check(const struct config *config, struct problems *problems) { \
        (void)config;                                                                \
        note("check", label);                                                        \
        if (strcmp(complaining, label) == 0)                                         \
            problems_add(problems, "$." label, "is not to my liking");               \
    }                                                                                \
    static int id##_prepare(const struct config *old, const struct config *new,      \
                            struct problems *problems) {                             \
        assert_ptr_equal(old, expected_old);                                         \
        assert_ptr_equal(new, expected_new);                                         \
        note("prepare", label);                                                      \
        if (strcmp(failing, label) != 0)                                             \
            return 0;                                                                \
        if (!silent)                                                                 \
            problems_add(problems, "$." label ".size", "is too big");                \
        return -ENOSPC;                                                              \
    }                                                                                \
    static void id##_abort(const struct config *old, const struct config *new) {     \
        assert_ptr_equal(old, expected_old);                                         \
        assert_ptr_equal(new, expected_new);                                         \
        note("abort", label);                                                        \
    }                                                                                \
    static void id##_commit(const struct config *old, const struct config *new) {    \
        assert_ptr_equal(old, expected_old);                                         \
        assert_ptr_equal(new, expected_new);                                         \
        note("commit", label);                                                       \
    }                                                                                \
    static void id##_release(const struct config *old, const struct config *new) {   \
        assert_ptr_equal(old, expected_old);                                         \
        assert_ptr_equal(new, expected_new);                                         \
        note("release", label);                                                      \
    }                                                                                \
    static void id##_free(void *value) {                                             \
        note("free", label);                                                         \
        free(value);                                                                 \
    }                                                                                \
    static struct config_section id = {.name = label,                                \
                                       .after = id##_after,                          \
                                       .init = id##_init,                            \
                                       .check = id##_check,                          \
                                       .prepare = id##_prepare,                      \
                                       .abort = id##_abort,                          \
                                       .commit = id##_commit,                        \
                                       .release = id##_release,                      \
                                       .free = id##_free};                           \
    CONFIG_SECTION(id)

/* Registered in an order that is neither the alphabet's nor the right one. */
FAKE_SECTION(routes, "routes", "interfaces", "vrfs")
FAKE_SECTION(firewall, "firewall", "interfaces")
FAKE_SECTION(interfaces, "interfaces", "vrfs")
FAKE_SECTION(vrfs, "vrfs")

/* A section that has nothing but a name. */
static struct config_section empty = {.name = "mbufs"};
CONFIG_SECTION(empty)

static void after_commit(void) {
    note("swap", "pipelines");
}

static int setup(void **state) {
    (void)state;
    events[0] = '\0';
    failing = "";
    complaining = "";
    silent = false;
    expected_old = expected_new = NULL;
    config_after_commit = NULL;
    return 0;
}

static void test_order(void **state) {
    (void)state;
    const char *const expected[] = {"mbufs", "vrfs", "interfaces", "firewall", "routes"};
    size_t i = 0;
    for (struct config_section *s = config_section_first(); s; s = s->next) {
        assert_true(i < 5);
        assert_string_equal(s->name, expected[i++]);
    }
    assert_int_equal(i, 5);
}

static void test_init_runs_once(void **state) {
    (void)state;
    assert_int_equal(config_init(NULL), 0);
    assert_string_equal(events, "init:vrfs init:interfaces init:firewall init:routes");
    assert_int_equal(config_init(NULL), 0);
    assert_string_equal(events, "init:vrfs init:interfaces init:firewall init:routes");
}

static void test_values(void **state) {
    (void)state;
    struct config *config = config_new();
    assert_null(config_value(NULL, &routes));
    assert_null(config_value(config, &routes));
    char *value = strdup("value");
    config_set_value(config, &routes, value);
    assert_ptr_equal(config_value(config, &routes), value);
    assert_null(config_value(config, &vrfs));
    config_set_value(config, &routes, value);
    assert_string_equal(events, "");
    config_set_value(config, &routes, strdup("another"));
    config_set_value(config, &vrfs, strdup("vrf"));
    assert_string_equal(events, "free:routes");
    config_free(config);
    assert_string_equal(events, "free:routes free:vrfs free:routes");
    config_free(NULL);
}

static void test_replace(void **state) {
    (void)state;
    struct problems problems = {0};
    struct config *old = config_new();
    struct config *new = config_new();
    config_after_commit = after_commit;
    expected_old = old;
    expected_new = new;
    assert_int_equal(config_replace(old, new, &problems), 0);
    assert_int_equal(problems.count, 0);
    assert_string_equal(
        events, "prepare:vrfs prepare:interfaces prepare:firewall prepare:routes "
                "commit:vrfs commit:interfaces commit:firewall commit:routes swap:pipelines "
                "release:routes release:firewall release:interfaces release:vrfs");
    config_free(old);
    config_free(new);
}

static void test_replace_nothing_before(void **state) {
    (void)state;
    expected_new = config_new();
    assert_int_equal(config_replace(NULL, expected_new, NULL), 0);
    assert_non_null(strstr(events, "release:vrfs"));
    config_free((struct config *)(uintptr_t)expected_new);
}

/* Whoever fails, those before it are aborted in reverse, and nothing is committed or released. */
static void test_failure_aborts_in_reverse(void **state) {
    (void)state;
    static const struct {
        const char *name, *events;
    } cases[] = {
        {"vrfs", "prepare:vrfs"},
        {"interfaces", "prepare:vrfs prepare:interfaces abort:vrfs"},
        {"routes", "prepare:vrfs prepare:interfaces prepare:firewall prepare:routes "
                   "abort:firewall abort:interfaces abort:vrfs"},
    };
    config_after_commit = after_commit;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct problems problems = {0};
        events[0] = '\0';
        failing = cases[i].name;
        assert_int_equal(config_replace(NULL, NULL, &problems), -ENOSPC);
        assert_string_equal(events, cases[i].events);
        assert_int_equal(problems.count, 1);
        assert_string_equal(problems.list[0].message, "is too big");
        problems_free(&problems);
    }
}

static void test_failure_without_a_word_is_named(void **state) {
    (void)state;
    struct problems problems = {0};
    failing = "interfaces";
    silent = true;
    assert_int_equal(config_replace(NULL, NULL, &problems), -ENOSPC);
    assert_int_equal(problems.count, 1);
    assert_string_equal(problems.list[0].path, "$.interfaces");
    assert_non_null(strstr(problems.list[0].message, "No space left"));
    problems_free(&problems);
    assert_int_equal(config_replace(NULL, NULL, NULL), -ENOSPC);
}

static void test_check_runs_all(void **state) {
    (void)state;
    struct problems problems = {0};
    struct config *config = config_new();
    complaining = "vrfs"; /* one that checks badly stops no other */
    config_check(config, &problems);
    assert_string_equal(events, "check:vrfs check:interfaces check:firewall check:routes");
    assert_int_equal(problems.count, 1);
    problems_free(&problems);
    config_free(config);
}

static void test_check_skips_what_builds_on_faulty_sections(void **state) {
    (void)state;
    struct problems problems = {0};
    struct config *config = config_new();
    config_set_faulty(config, &interfaces);
    config_check(config, &problems);
    assert_string_equal(events, "check:vrfs");
    config_free(config);

    events[0] = '\0';
    config = config_new();
    config_set_faulty(config, &firewall);
    config_check(config, &problems);
    assert_string_equal(events, "check:vrfs check:interfaces check:routes");
    config_free(config);

    events[0] = '\0';
    config = config_new();
    config_set_faulty(config, &vrfs); /* routes by way of interfaces too */
    config_check(config, &problems);
    assert_string_equal(events, "");
    config_free(config);
    assert_int_equal(problems.count, 0);
}

/* Registers more sections in a process of its own, which must abort with a message. */
static void expect_abort(struct config_section *sections, size_t count, const char *message) {
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(pipes[1], STDERR_FILENO);
        for (size_t i = 0; i < count; i++) {
            config_section_register(&sections[i]);
        }
        config_section_first();
        _exit(0);
    }
    close(pipes[1]);
    char text[2048];
    size_t length = 0;
    ssize_t got;
    while ((got = read(pipes[0], text + length, sizeof(text) - 1 - length)) > 0) {
        length += (size_t)got;
    }
    text[length] = '\0';
    close(pipes[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    if (!strstr(text, message)) {
        fail_msg("expected \"%s\" in \"%s\"", message, text);
    }
}

static void test_mistakes_abort(void **state) {
    (void)state;
    struct config_section unknown = {.name = "nat",
                                     .after = (const char *const[]){"session", NULL}};
    expect_abort(&unknown, 1, "nat comes after session, which does not exist");

    struct config_section itself = {.name = "nat", .after = (const char *const[]){"nat", NULL}};
    expect_abort(&itself, 1, "circle: nat -> nat");

    /* The circle is named, but not what merely waits for it. */
    struct config_section circle[] = {
        {.name = "a", .after = (const char *const[]){"x", NULL}},
        {.name = "x", .after = (const char *const[]){"vrfs", "y", NULL}},
        {.name = "y", .after = (const char *const[]){"z", NULL}},
        {.name = "z", .after = (const char *const[]){"routes", "x", NULL}},
    };
    expect_abort(circle, 4, "circle: z -> x -> y -> z\n");

    struct config_section twin = {.name = "routes"};
    expect_abort(&twin, 1, "two configuration sections have the name routes");
}

/* A section registered late still finds its place. */
static void test_late_registration(void **state) {
    (void)state;
    static const char *const after[] = {"interfaces", NULL};
    static struct config_section late = {.name = "a-late-one", .after = after};
    config_section_register(&late);
    const char *before = NULL;
    for (struct config_section *s = config_section_first(); s; s = s->next) {
        if (s == &late) {
            assert_string_equal(before, "interfaces");
            return;
        }
        before = s->name;
    }
    fail();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_order, setup),
        cmocka_unit_test_setup(test_init_runs_once, setup),
        cmocka_unit_test_setup(test_values, setup),
        cmocka_unit_test_setup(test_replace, setup),
        cmocka_unit_test_setup(test_replace_nothing_before, setup),
        cmocka_unit_test_setup(test_failure_aborts_in_reverse, setup),
        cmocka_unit_test_setup(test_failure_without_a_word_is_named, setup),
        cmocka_unit_test_setup(test_check_runs_all, setup),
        cmocka_unit_test_setup(test_check_skips_what_builds_on_faulty_sections, setup),
        cmocka_unit_test_setup(test_mistakes_abort, setup),
        cmocka_unit_test_setup(test_late_registration, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
