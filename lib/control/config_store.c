/*
 * The configuration in force and its rollback target.
 *
 * Documents are kept as compact text: parsed, a million routes would take ten times as much memory.
 * Of the target only the text is kept; rolling back decodes it again.
 *
 * What can go wrong: a wrong document, or a section that cannot prepare. Both leave everything as
 * it was. Messages are scrubbed of the document's secrets here, before anybody can show or log
 * them.
 */
#include "control/config_store.h"

#include <stdlib.h>
#include <string.h>

#include "control/config_file.h"
#include "control/json_diff.h"
#include "control/json_text.h"
#include "control/secrets.h"
#include "core/event.h"
#include "core/log.h"
#include "json/decode.h"

static void confirm_expired(struct event_timer *timer);

static struct {
    struct config *config;
    char *text;
    char *target; /* the rollback target's text, or NULL */
    struct event_timer confirm;
} store = {.confirm = {.expired = confirm_expired}};

static size_t problem_count(const struct problems *problems) {
    return problems->count + problems->omitted;
}

struct config *config_decode(const json_t *document, struct problems *problems) {
    size_t before = problem_count(problems);
    struct decode root = decode_root(document, problems);
    if (!decode_is_object(&root)) {
        return NULL;
    }

    size_t count = 0;
    struct config_section *first = config_section_first();
    for (struct config_section *s = first; s; s = s->next) {
        count++;
    }
    const char **known = calloc(count + 1, sizeof(const char *));
    if (!known) {
        problems_add(problems, "$", "cannot be decoded: out of memory");
        return NULL;
    }
    count = 0;
    for (struct config_section *s = first; s; s = s->next) {
        known[count++] = s->name;
    }
    decode_only_keys(&root, known);
    free(known);
    secrets_refuse_masks(document, problems);

    struct config *config = config_new();
    for (struct config_section *s = first; s; s = s->next) {
        struct decode member;
        bool present = decode_member(&root, s->name, &member);
        size_t found = problem_count(problems);
        config_set_value(config, s, s->decode ? s->decode(present ? &member : NULL) : NULL);
        if (problem_count(problems) != found) {
            config_set_faulty(config, s);
        }
    }
    config_check(config, problems);
    if (problem_count(problems) != before) {
        secrets_scrub(document, problems);
        config_free(config);
        return NULL;
    }
    return config;
}

/* Decodes the document and puts it in force, text and all. */
static enum config_result install(const json_t *document, struct problems *problems) {
    struct config *config = config_decode(document, problems);
    if (!config) {
        return CONFIG_INVALID;
    }
    char *text = json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (!text) {
        problems_add(problems, "$", "cannot be applied: out of memory");
        config_free(config);
        return CONFIG_FAILED;
    }
    if (config_replace(store.config, config, problems) != 0) {
        secrets_scrub(document, problems);
        free(text);
        config_free(config);
        return CONFIG_FAILED;
    }
    config_free(store.config);
    free(store.text);
    store.config = config;
    store.text = text;
    return CONFIG_DONE;
}

static json_t *parse_kept(const char *text) {
    struct json_fault fault;
    return text ? json_text_parse(text, strlen(text), &fault) : json_object();
}

json_t *config_store_document(void) {
    return parse_kept(store.text);
}

const struct config *config_store_running(void) {
    return store.config;
}

/* The number of differences between the document and the one in force; false when memory is short.
 */
static bool count_changes(const json_t *document, size_t *count) {
    json_t *running = config_store_document();
    json_t *changes = running ? json_diff(running, document) : NULL;
    bool counted = changes != NULL;
    *count = json_array_size(changes);
    json_decref(changes);
    json_decref(running);
    return counted;
}

enum config_result config_store_apply(const json_t *document, uint32_t confirm_seconds,
                                      size_t *changes, struct problems *problems) {
    bool pending = event_timer_armed(&store.confirm);
    char *old_text = store.text ? strdup(store.text) : NULL;
    size_t count;
    if (!count_changes(document, &count) || (store.text && !old_text)) {
        problems_add(problems, "$", "cannot be applied: out of memory");
        free(old_text);
        return CONFIG_FAILED;
    }

    enum config_result result = install(document, problems);
    if (result != CONFIG_DONE) {
        free(old_text);
        return result;
    }
    if (!pending && count > 0) {
        free(store.target);
        store.target = old_text;
    } else {
        free(old_text);
    }
    event_timer_stop(&store.confirm);
    log_notice("config", "applied a configuration (%zu changes)", count);
    if (confirm_seconds > 0 && store.target && (pending || count > 0)) {
        /* From now on, not from when the request came: many routes may have taken seconds. */
        event_refresh();
        event_timer_start(&store.confirm, (uint64_t)confirm_seconds * 1000);
        log_notice("config", "the configuration is to be confirmed within %u seconds",
                   confirm_seconds);
    }
    if (changes) {
        *changes = count;
    }
    return CONFIG_DONE;
}

enum config_result config_store_confirm(struct problems *problems) {
    if (!event_timer_armed(&store.confirm)) {
        problems_add(problems, "$", "no configuration waits for confirmation");
        return CONFIG_CONFLICT;
    }
    event_timer_stop(&store.confirm);
    log_notice("config", "the configuration was confirmed");
    return CONFIG_DONE;
}

enum config_result config_store_rollback(struct problems *problems) {
    if (!store.target) {
        problems_add(problems, "$", "there is no earlier configuration to go back to");
        return CONFIG_CONFLICT;
    }
    json_t *document = parse_kept(store.target);
    if (!document) {
        problems_add(problems, "$", "cannot be rolled back: out of memory");
        return CONFIG_FAILED;
    }
    enum config_result result = install(document, problems);
    json_decref(document);
    if (result != CONFIG_DONE) {
        return CONFIG_FAILED;
    }
    free(store.target);
    store.target = NULL;
    event_timer_stop(&store.confirm);
    log_notice("config", "rolled back to the earlier configuration");
    return CONFIG_DONE;
}

static void confirm_expired(struct event_timer *timer) {
    log_warning("config", "the configuration was not confirmed in time");
    struct problems problems = {0};
    if (config_store_rollback(&problems) != CONFIG_DONE) {
        for (size_t i = 0; i < problems.count; i++) {
            log_error("config", "%s: %s", problems.list[i].path, problems.list[i].message);
        }
        log_error("config", "cannot roll back; trying again in %d seconds", CONFIG_RETRY_SECONDS);
        event_timer_start(timer, (uint64_t)CONFIG_RETRY_SECONDS * 1000);
    }
    problems_free(&problems);
}

enum config_result config_store_save(const char *path, struct problems *problems) {
    if (!store.text) {
        problems_add(problems, "$", "no configuration is in force yet");
        return CONFIG_CONFLICT;
    }
    if (event_timer_armed(&store.confirm)) {
        problems_add(problems, "$",
                     "the configuration waits for confirmation; confirm it before saving it");
        return CONFIG_CONFLICT;
    }
    json_t *document = config_store_document();
    if (!document) {
        problems_add(problems, path, "cannot be saved to: out of memory");
        return CONFIG_FAILED;
    }
    int rc = config_file_write(path, document, problems);
    json_decref(document);
    if (rc != 0) {
        return CONFIG_FAILED;
    }
    log_notice("config", "saved the configuration to %s", path);
    return CONFIG_DONE;
}

int64_t config_store_confirm_remaining(void) {
    if (!event_timer_armed(&store.confirm)) {
        return -1;
    }
    uint64_t now = event_now();
    return store.confirm.deadline > now ? (int64_t)(store.confirm.deadline - now) : 0;
}

enum config_result config_store_unload(struct problems *problems) {
    event_timer_stop(&store.confirm);
    free(store.target);
    store.target = NULL;
    if (!store.config) {
        return CONFIG_DONE;
    }
    json_t *empty = json_object();
    if (!empty) {
        problems_add(problems, "$", "cannot be unloaded: out of memory");
        return CONFIG_FAILED;
    }
    enum config_result result = install(empty, problems);
    json_decref(empty);
    return result;
}

void config_store_free(void) {
    event_timer_stop(&store.confirm);
    config_free(store.config);
    free(store.text);
    free(store.target);
    store.config = NULL;
    store.text = NULL;
    store.target = NULL;
}
