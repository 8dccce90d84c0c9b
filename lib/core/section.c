/*
 * The registry of configuration sections, and the steps by which one configuration replaces
 * another.
 *
 * Sections register before main() and are put in order when first asked for. A wrong `after` list
 * cannot be mended at run time, so it ends the program at once, with a message. Replacing a
 * configuration fails only in prepare(), when everything that was prepared is given back.
 */
#include "core/section.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

void (*config_after_commit)(void);

static struct config_section *first_section;
static size_t section_count;
static bool sections_sorted;

/* Sections whose init() has run. */
static const struct config_section **initialised;
static size_t initialised_count;

struct config_entry {
    const struct config_section *section;
    void *value;
    bool faulty;
};

struct config {
    struct config_entry *entries;
    size_t count;
    size_t capacity;
};

/* Control-side allocation of a few hundred bytes; there is no sensible way to go on without. */
static void *must_allocate(void *old, size_t count, size_t size) {
    void *memory = reallocarray(old, count ? count : 1, size);
    if (!memory) {
        log_error("config", "out of memory");
        abort();
    }
    return memory;
}

void config_section_register(struct config_section *section) {
    section->next = first_section;
    first_section = section;
    section_count++;
    sections_sorted = false;
}

static int compare_names(const void *a, const void *b) {
    const struct config_section *const *left = a;
    const struct config_section *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static size_t index_of(struct config_section *const *sections, size_t count, const char *name) {
    size_t i = 0;
    while (i < count && strcmp(sections[i]->name, name) != 0) {
        i++;
    }
    return i;
}

/* The place of a section that `sections[from]` waits for and that is not placed yet; `count` when
 * it waits for none. */
static size_t waits_for(struct config_section *const *sections, const bool *placed, size_t count,
                        size_t from) {
    const char *const *after = sections[from]->after;
    for (; after && *after; after++) {
        size_t i = index_of(sections, count, *after);
        if (!placed[i]) {
            return i;
        }
    }
    return count;
}

__attribute__((noreturn)) static void report_circle(struct config_section *const *sections,
                                                    const bool *placed, size_t count) {
    /* From any section left over, following what it waits for must sooner or later repeat; after
     * `count` steps the walk is on the circle itself. */
    size_t start = 0;
    while (placed[start]) {
        start++;
    }
    for (size_t i = 0; i < count; i++) {
        start = waits_for(sections, placed, count, start);
    }
    char text[400];
    size_t used = 0;
    size_t at = start;
    do {
        size_t length = strlen(sections[at]->name);
        if (used + length + 8 > sizeof(text)) {
            break;
        }
        memcpy(text + used, sections[at]->name, length);
        memcpy(text + used + length, " -> ", 4);
        used += length + 4;
        at = waits_for(sections, placed, count, at);
    } while (at != start);
    text[used] = '\0';
    log_error("config", "the `after` lists of configuration sections form a circle: %s%s", text,
              sections[start]->name);
    abort();
}

/* Kahn's algorithm over the sections sorted by name, so that the result does not depend on the
 * order in which the linker placed the constructors. Quadratic, for a dozen sections. */
static void sort_sections(void) {
    size_t count = section_count;
    struct config_section **sections = must_allocate(NULL, count, sizeof(struct config_section *));
    bool *placed = must_allocate(NULL, count, sizeof(bool));
    size_t n = 0;
    for (struct config_section *s = first_section; s; s = s->next) {
        placed[n] = false;
        sections[n++] = s;
    }
    qsort(sections, count, sizeof(sections[0]), compare_names);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(sections[i - 1]->name, sections[i]->name) == 0) {
            log_error("config", "two configuration sections have the name %s", sections[i]->name);
            abort();
        }
        for (const char *const *after = sections[i]->after; after && *after; after++) {
            if (index_of(sections, count, *after) == count) {
                log_error("config", "configuration section %s comes after %s, which does not exist",
                          sections[i]->name, *after);
                abort();
            }
        }
    }

    struct config_section **link = &first_section;
    for (size_t done = 0; done < count; done++) {
        size_t i = 0;
        while (i < count && (placed[i] || waits_for(sections, placed, count, i) != count)) {
            i++;
        }
        if (i == count) {
            report_circle(sections, placed, count);
        }
        placed[i] = true;
        *link = sections[i];
        link = &sections[i]->next;
    }
    *link = NULL;
    sections_sorted = true;
    free(sections);
    free(placed);
}

struct config_section *config_section_first(void) {
    if (!sections_sorted) {
        sort_sections();
    }
    return first_section;
}

static bool is_initialised(const struct config_section *section) {
    for (size_t i = 0; i < initialised_count; i++) {
        if (initialised[i] == section) {
            return true;
        }
    }
    return false;
}

int config_init(struct problems *problems) {
    for (struct config_section *s = config_section_first(); s; s = s->next) {
        if (is_initialised(s)) {
            continue;
        }
        int rc = s->init ? s->init() : 0;
        if (rc != 0) {
            rc = rc < 0 ? rc : -EIO;
            problems_add(problems, s->name, "cannot be initialised: %s", strerror(-rc));
            return rc;
        }
        initialised = must_allocate(initialised, initialised_count + 1, sizeof(initialised[0]));
        initialised[initialised_count++] = s;
    }
    return 0;
}

struct config *config_new(void) {
    config_section_first();
    struct config *config = must_allocate(NULL, 1, sizeof(*config));
    *config = (struct config){.capacity = section_count};
    config->entries = must_allocate(NULL, config->capacity, sizeof(config->entries[0]));
    return config;
}

static struct config_entry *find_entry(const struct config *config,
                                       const struct config_section *section) {
    for (size_t i = 0; config && i < config->count; i++) {
        if (config->entries[i].section == section) {
            return &config->entries[i];
        }
    }
    return NULL;
}

static struct config_entry *make_entry(struct config *config,
                                       const struct config_section *section) {
    struct config_entry *entry = find_entry(config, section);
    if (entry) {
        return entry;
    }
    if (config->count == config->capacity) {
        config->capacity = config->capacity * 2 + 1;
        config->entries =
            must_allocate(config->entries, config->capacity, sizeof(config->entries[0]));
    }
    entry = &config->entries[config->count++];
    *entry = (struct config_entry){.section = section};
    return entry;
}

void *config_value(const struct config *config, const struct config_section *section) {
    const struct config_entry *entry = find_entry(config, section);
    return entry ? entry->value : NULL;
}

void config_set_value(struct config *config, const struct config_section *section, void *value) {
    struct config_entry *entry = make_entry(config, section);
    if (entry->value && entry->value != value && section->free) {
        section->free(entry->value);
    }
    entry->value = value;
}

void config_set_faulty(struct config *config, const struct config_section *section) {
    make_entry(config, section)->faulty = true;
}

void config_free(struct config *config) {
    if (!config) {
        return;
    }
    for (size_t i = config->count; i > 0; i--) {
        struct config_entry *entry = &config->entries[i - 1];
        if (entry->value && entry->section->free) {
            entry->section->free(entry->value);
        }
    }
    free(config->entries);
    free(config);
}

void config_check(const struct config *config, struct problems *problems) {
    struct config_section *first = config_section_first();
    bool *skipped = must_allocate(NULL, section_count, sizeof(bool));
    size_t n = 0;
    /* In commit order, so whatever a section comes after has been looked at before it. */
    for (struct config_section *s = first; s; s = s->next, n++) {
        const struct config_entry *entry = find_entry(config, s);
        skipped[n] = entry && entry->faulty;
        for (const char *const *after = s->after; after && *after && !skipped[n]; after++) {
            size_t i = 0;
            const struct config_section *other = first;
            while (strcmp(other->name, *after) != 0) {
                other = other->next;
                i++;
            }
            skipped[n] = skipped[i];
        }
        if (!skipped[n] && s->check) {
            s->check(config, problems);
        }
    }
    free(skipped);
}

int config_replace(const struct config *old, const struct config *new, struct problems *problems) {
    struct config_section *first = config_section_first();
    struct config_section **reverse =
        must_allocate(NULL, section_count, sizeof(struct config_section *));
    size_t count = 0;
    int rc = 0;

    for (struct config_section *s = first; s; s = s->next) {
        size_t before = problems ? problems->count + problems->omitted : 0;
        rc = s->prepare ? s->prepare(old, new, problems) : 0;
        if (rc != 0) {
            rc = rc < 0 ? rc : -EIO;
            if (problems && problems->count + problems->omitted == before) {
                char path[128] = "$.";
                strncat(path, s->name, sizeof(path) - 3);
                problems_add(problems, path, "cannot be put to work: %s", strerror(-rc));
            }
            break;
        }
        reverse[count++] = s;
    }

    if (rc != 0) {
        while (count > 0) {
            struct config_section *s = reverse[--count];
            if (s->abort) {
                s->abort(old, new);
            }
        }
        free(reverse);
        return rc;
    }

    for (struct config_section *s = first; s; s = s->next) {
        if (s->commit) {
            s->commit(old, new);
        }
    }
    if (config_after_commit) {
        config_after_commit();
    }
    while (count > 0) {
        struct config_section *s = reverse[--count];
        if (s->release) {
            s->release(old, new);
        }
    }
    free(reverse);
    return 0;
}
