/*
 * The registry of JSON-RPC methods.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json/rpc.h"

static json_t *answer(struct rpc_request *request) {
    (void)request;
    return json_integer(42);
}

static json_t *refuse(struct rpc_request *request) {
    problems_add(&request->problems, "$", "no");
    request->code = RPC_CONFLICT;
    return NULL;
}

RPC_METHOD(refuse, "test.refuse", "Refuses.")
RPC_METHOD(answer, "test.answer", "Answers.")

static void methods_are_found_and_sorted(void **state) {
    (void)state;
    static struct rpc_method first = {.name = "a.first", .summary = "First.", .call = answer};
    static struct rpc_method last = {.name = "z.last", .summary = "Last.", .call = answer};
    rpc_register(&last);
    rpc_register(&first);

    static const char *const names[] = {"a.first", "test.answer", "test.refuse", "z.last"};
    size_t i = 0;
    for (const struct rpc_method *method = rpc_first(); method != NULL; method = method->next) {
        assert_true(i < 4);
        assert_string_equal(method->name, names[i++]);
        assert_ptr_equal(rpc_find(method->name), method);
    }
    assert_int_equal(i, 4);
    assert_null(rpc_find("test"));
    assert_null(rpc_find("test.answers"));
    assert_null(rpc_find(""));
}

static void methods_answer_or_refuse(void **state) {
    (void)state;
    struct rpc_request request = {0};
    json_t *result = rpc_find("test.answer")->call(&request);
    assert_int_equal(json_integer_value(result), 42);
    json_decref(result);
    assert_null(rpc_find("test.refuse")->call(&request));
    assert_int_equal(request.problems.count, 1);
    assert_int_equal(request.code, RPC_CONFLICT);
    problems_free(&request.problems);
}

static void a_name_is_taken_once(void **state) {
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static struct rpc_method again = {.name = "test.answer", .call = refuse};
        struct rlimit none = {0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL) /* the message is expected */
            _exit(0);
        rpc_register(&again);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_are_found_and_sorted),
        cmocka_unit_test(methods_answer_or_refuse),
        cmocka_unit_test(a_name_is_taken_once),
    };
    return cmocka_run_group_tests_name("rpc", tests, NULL, NULL);
}
