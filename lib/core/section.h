/*
 * The registry of configuration sections. Each top-level key of router.json belongs to one section,
 * and each section to one feature's *_config.c.
 *
 * A new configuration takes these steps, and only the third touches what packets see:
 *
 *   decode   JSON -> the section's own typed value. Pure. Adds every problem it finds.
 *   check    looks across sections (does that interface exist?). Pure. Adds every problem.
 *   prepare  acquires whatever can fail (devices, memory, sockets). Undone by abort.
 *   commit   makes it so. Cannot fail. Sections run in the order of their `after` lists.
 *   release  frees what the old configuration alone used, after the workers have moved on.
 *
 * So an apply is all or nothing: a problem in decode, check or prepare leaves the running router as
 * it was. A rollback is an apply of the previous configuration.
 *
 * Prepare and commit run in the order of the `after` lists; abort and release run in the reverse
 * order, so that whoever uses a thing lets go of it before its owner does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/problem.h"

struct decode; /* json/decode.h: a JSON value together with its path and the list of problems */
struct config; /* all sections' values; opaque */

struct config_section {
    const char *name;         /* the key in router.json */
    const char *const *after; /* NULL-terminated names of sections committed before this one */

    /* Once per process, before the first configuration; workers do not run yet. May be NULL. */
    int (*init)(void);
    /* JSON to value. `d` is NULL when the key is absent: return the default value then. May return
     * NULL where the section has nothing to hold; problems are what tells of a failure. */
    void *(*decode)(struct decode *d);
    /* Is skipped when the section's own decode, or that of a section it comes `after` (directly or
     * through others), found problems: so name in `after` every section whose value is read here,
     * and a half-decoded value never reaches this function. May be NULL, like all that follow. */
    void (*check)(const struct config *config, struct problems *problems);
    /* 0, or negative errno with a problem. A section that fails undoes its own part itself; abort
     * is called for the sections that had succeeded before it. */
    int (*prepare)(const struct config *old, const struct config *new, struct problems *problems);
    void (*abort)(const struct config *old, const struct config *new);
    void (*commit)(const struct config *old, const struct config *new);
    void (*release)(const struct config *old, const struct config *new);
    void (*free)(void *value);

    struct config_section *next; /* managed by the registry */
};

/* Adds the section; the structure must live for the whole process. */
void config_section_register(struct config_section *section);

/* The first section in commit order; iterate with ->next. The order is computed at the first call
 * (again after a later registration) and does not depend on the order of registration. A circle in
 * the `after` lists, an unknown name there, or two sections of one name abort the program with a
 * message: that is a mistake in the program, not in any input. */
struct config_section *config_section_first(void);

/* Runs every section's init(), in commit order; sections already initialised are left alone. 0, or
 * the negative errno of the first that failed, with a problem that names it. */
int config_init(struct problems *problems);

/* The value that the section's decode() made. NULL when `config` is NULL (nothing configured). */
void *config_value(const struct config *config, const struct config_section *section);

/* An empty set of values, to be filled by config_set_value() (lib/control decodes into it). */
struct config *config_new(void);
void config_set_value(struct config *config, const struct config_section *section, void *value);

/* Notes that the section's decode() found problems: config_check() then leaves it and all that
 * build on it alone. */
void config_set_faulty(struct config *config, const struct config_section *section);

/* Runs every section's check(), but for those of faulty sections and of what comes after them. */
void config_check(const struct config *config, struct problems *problems);

/* Replaces `old` by `new` through prepare, commit, the pipeline's swap and release. On failure
 * returns a negative errno with problems, and `old` is still in force. The caller keeps ownership
 * of both. */
int config_replace(const struct config *old, const struct config *new, struct problems *problems);

/* Frees the values, through each section's free(), and the set. NULL is allowed. */
void config_free(struct config *config);

/* Called by config_replace() between the last commit and the first release: rebuilds the workers'
 * pipelines and returns when no worker can see the old configuration any more. NULL (the default)
 * where there are no workers. */
extern void (*config_after_commit)(void);

#define CONFIG_SECTION(section)                                                        \
    __attribute__((constructor)) static void config_section_register_##section(void) { \
        config_section_register(&(section));                                           \
    }
