/*
 * The list of problems.
 *
 * What can go wrong: memory. A problem that got lost would let a wrong configuration pass as a
 * right one, so running out of memory here ends the program; PROBLEMS_MAX bounds what hostile input
 * can make the list cost.
 */
#include "core/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void out_of_memory(void) {
    fputs("dpdk-router: error: out of memory while reporting a problem\n", stderr);
    abort();
}

/* The formatted text in memory of its own, or NULL. */
__attribute__((format(printf, 1, 0))) static char *format_text(const char *format,
                                                               va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *text = length < 0 ? NULL : malloc((size_t)length + 1);
    if (text != NULL)
        vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void problems_add(struct problems *problems, const char *path, const char *format, ...) {
    if (problems == NULL)
        return;
    if (problems->count >= PROBLEMS_MAX) {
        problems->omitted++;
        return;
    }
    if (problems->count == problems->capacity) {
        size_t capacity = problems->capacity == 0 ? 8 : problems->capacity * 2;
        struct problem *list = realloc(problems->list, capacity * sizeof(*list));
        if (list == NULL)
            out_of_memory();
        problems->list = list;
        problems->capacity = capacity;
    }

    va_list arguments;
    va_start(arguments, format);
    struct problem problem = {.path = strdup(path), .message = format_text(format, arguments)};
    va_end(arguments);
    if (problem.path == NULL || problem.message == NULL)
        out_of_memory();
    problems->list[problems->count++] = problem;
}

void problems_free(struct problems *problems) {
    for (size_t i = 0; i < problems->count; i++) {
        free(problems->list[i].path);
        free(problems->list[i].message);
    }
    free(problems->list);
    *problems = (struct problems){0};
}
