/*
 * The configuration in force: applying another, the confirm timer, rolling back, saving.
 *
 * There is one rollback target. It is the configuration that was in force before the last apply
 * that changed anything; but while a configuration waits for confirmation, further applies leave
 * the target alone: it stays the last one that was known to be good. Rolling back uses the target
 * up, so that a second rollback cannot bring back what the first one took away.
 *
 * An apply with a confirm timeout that is not confirmed in time is rolled back. An apply without a
 * timeout is final at once, and ends a pending confirmation. So is the first apply of all, and one
 * without changes while none is pending: they have nothing to go back to. If an automatic rollback
 * fails (a device is gone, say), it is tried again every CONFIG_RETRY_SECONDS.
 *
 * All functions run on the control thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/problem.h"
#include "core/section.h"

enum {
    CONFIG_CONFIRM_MAX = 86400, /* seconds */
    CONFIG_RETRY_SECONDS = 10,
};

/* What became of a request. All but CONFIG_DONE come with at least one problem. */
enum config_result {
    CONFIG_DONE,
    CONFIG_INVALID,  /* the document is wrong */
    CONFIG_CONFLICT, /* not possible in the present state */
    CONFIG_FAILED,   /* a valid configuration could not be put to work, or saved */
};

/* Decodes and checks a whole document: unknown keys, every section (absent ones yield their
 * defaults), and what the sections demand of each other. Touches nothing. Adds every problem; NULL
 * if there is any. The caller frees the configuration. */
struct config *config_decode(const json_t *document, struct problems *problems);

/* Puts the document in force: all of it or none. `confirm_seconds` 0: for good. Otherwise it is
 * rolled back after that time, unless confirmed. *changes (may be NULL) is the number of
 * differences from the configuration in force before. */
enum config_result config_store_apply(const json_t *document, uint32_t confirm_seconds,
                                      size_t *changes, struct problems *problems);

/* Keeps the configuration that waits for confirmation; a conflict when none does. */
enum config_result config_store_confirm(struct problems *problems);

/* Puts the rollback target in force; a conflict when there is none. */
enum config_result config_store_rollback(struct problems *problems);

/* Writes the configuration in force, with its secrets, to a file (config_file_write()). A conflict
 * while it waits for confirmation: a restart must not bring back what a rollback took away. */
enum config_result config_store_save(const char *path, struct problems *problems);

/* The document in force, with its secrets: a new reference, an empty object before the first apply.
 * NULL when memory is short. */
json_t *config_store_document(void);

/* The configuration in force; NULL before the first apply. */
const struct config *config_store_running(void);

/* Milliseconds until the automatic rollback, or -1 when nothing waits for confirmation. */
int64_t config_store_confirm_remaining(void);

/* Puts the empty configuration in force, so that the sections take down what they had set up, and
 * forgets the rollback target: before the end of the program. Does nothing when no configuration is
 * in force. */
enum config_result config_store_unload(struct problems *problems);

/* Forgets everything and frees it, without touching the sections' state: the end of the program. */
void config_store_free(void);
