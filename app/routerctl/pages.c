/*
 * Lists in pages: see pages.h.
 */
#include "pages.h"

#include "interrupt.h"

#include <stdio.h>

/* Elements one by one, so that the whole list looks like one reply of the router. */
static void print_json(const struct session *session, const json_t *list, size_t before) {
    json_t *element;
    size_t i;

    json_array_foreach (list, i, element) {
        if (before + i > 0)
            putchar(',');
        if (session->terminal)
            fputs("\n  ", stdout);
        json_dumpf(element, stdout,
                   JSON_REAL_PRECISION(15) | (session->terminal ? 0 : (size_t)JSON_COMPACT));
    }
}

int pages_run(struct session *session, const struct match *match, const struct pages *pages,
              void *context, size_t *count) {
    const char *blank = session->terminal ? " " : "";
    json_t *after = NULL;
    bool more, first = true;
    int status;

    *count = 0;
    do {
        json_t *params = match_params(match);
        if (params == NULL)
            params = json_object();
        json_object_set_new(params, "limit", json_integer(PAGE));
        if (after != NULL)
            json_object_set_new(params, pages->after, after);
        json_t *page =
            session_call(session, match->command->method, params, CLIENT_TIMEOUT, &status);
        after = NULL;
        if (page == NULL)
            break;
        const json_t *list = json_object_get(page, pages->list);
        after = json_incref(json_object_get(page, pages->next));
        more = after != NULL && !json_is_null(after);
        if (session->json) {
            if (first)
                printf("{\"%s\":%s[", pages->list, blank);
            print_json(session, list, *count);
        } else {
            pages->show(session, list, more, context);
        }
        first = false;
        *count += json_array_size(list);
        json_decref(page);
    } while (more && !ferror(stdout) && !interrupt_pending());

    json_decref(after);
    if (status == STATUS_OK && session->json)
        printf("%s],%s\"%s\":%snull}\n", session->terminal ? "\n" : "", blank, pages->next, blank);
    return status;
}
