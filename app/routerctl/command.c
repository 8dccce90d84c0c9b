/*
 * Walking command lines through the graph of all commands at once: after each word there is a set
 * of places ("threads") where one may stand. What these places take next is at the same time what
 * the next word is matched with, what completion offers and what a usage error says was expected.
 */
#include "command.h"
#include "syntax.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command_set {
    const struct command *commands;
    size_t count;
    int *entries;        /* per command, its first node */
    const char **usages; /* per command */
    struct syntax_graph graph;
};

/* How a thread got where it is: the nodes that took the words so far, backwards. */
struct step {
    int previous; /* index into walk.steps, -1 at the start */
    int node;
};

struct thread {
    int node; /* a word, an argument or an end */
    uint32_t used;
    int step;
};

struct walk {
    const struct command_set *set;
    struct thread *threads;
    size_t count;
    struct step *steps;
    size_t step_count;
    unsigned *seen; /* per node, the round in which a thread reached it */
    unsigned round;
};

static void *checked(void *memory) {
    if (memory == NULL)
        abort();
    return memory;
}

struct command_set *command_set_new(const struct command *commands, size_t count) {
    struct command_set *set = checked(calloc(1, sizeof(*set)));

    set->commands = commands;
    set->count = count;
    set->entries = checked(calloc(count, sizeof(*set->entries)));
    set->usages = checked(calloc(count, sizeof(*set->usages)));
    for (size_t i = 0; i < count; i++)
        set->entries[i] = syntax_compile(&set->graph, &commands[i], &set->usages[i]);
    return set;
}

void command_set_free(struct command_set *set) {
    syntax_free(&set->graph);
    free(set->entries);
    free(set->usages);
    free(set);
}

const char *command_usage(const struct command_set *set, const struct command *command) {
    return set->usages[command - set->commands];
}

static const struct node *node_at(const struct walk *walk, int node) {
    return &walk->set->graph.nodes[node];
}

/* Puts a thread at the node, or at everything that it leads to without taking a word. */
static void enter(struct walk *walk, int at, uint32_t used, int step) {
    const struct node *node = node_at(walk, at);

    if (walk->seen[at] == walk->round)
        return;
    walk->seen[at] = walk->round;
    if (node->kind == NODE_SPLIT) {
        enter(walk, node->next, used, step);
        enter(walk, node->other, used, step);
    } else if (node->kind == NODE_ONCE) {
        if ((used & node->once) == 0)
            enter(walk, node->next, used | node->once, step);
    } else {
        walk->threads[walk->count++] = (struct thread){at, used, step};
    }
}

/* `words` is how many words will be taken at most. */
static struct walk walk_start(const struct command_set *set, size_t words, bool shell) {
    struct walk walk = {.set = set, .round = 1};

    walk.threads = checked(calloc(set->graph.count, sizeof(*walk.threads)));
    walk.seen = checked(calloc(set->graph.count, sizeof(*walk.seen)));
    walk.steps = checked(calloc(set->graph.count * (words + 1), sizeof(*walk.steps)));
    for (size_t i = 0; i < set->count; i++)
        if (!(set->commands[i].flags & COMMAND_GROUP) &&
            (shell || !(set->commands[i].flags & COMMAND_SHELL)))
            enter(&walk, set->entries[i], 0, -1);
    return walk;
}

static void walk_free(struct walk *walk) {
    free(walk->threads);
    free(walk->seen);
    free(walk->steps);
}

enum fit { FIT_NONE, FIT_BEGINNING, FIT_ARGUMENT, FIT_EXACT };

static enum fit fit(const struct node *node, const char *word) {
    if (node->kind == NODE_ARGUMENT)
        return argument_of(node->type)->accepts(word) ? FIT_ARGUMENT : FIT_NONE;
    if (node->kind != NODE_WORD || *word == '\0')
        return FIT_NONE;
    if (strcmp(node->text, word) == 0)
        return FIT_EXACT;
    bool listed = !(node->command->flags & COMMAND_HIDDEN);
    return listed && strncmp(node->text, word, strlen(word)) == 0 ? FIT_BEGINNING : FIT_NONE;
}

/* Do the threads that `word` begins lead to different words? */
static bool ambiguous(const struct walk *walk, const char *word) {
    const char *first = NULL;

    for (size_t i = 0; i < walk->count; i++) {
        const struct node *node = node_at(walk, walk->threads[i].node);
        if (fit(node, word) != FIT_BEGINNING)
            continue;
        if (first != NULL && strcmp(first, node->text) != 0)
            return true;
        first = node->text;
    }
    return false;
}

static enum fit best_fit(const struct walk *walk, const char *word) {
    enum fit best = FIT_NONE;

    for (size_t i = 0; i < walk->count; i++) {
        enum fit this = fit(node_at(walk, walk->threads[i].node), word);
        if (this > best)
            best = this;
    }
    return best;
}

/* Takes one word. Returns false, and changes nothing, when it fits nowhere or is ambiguous. */
static bool walk_take(struct walk *walk, const char *word) {
    enum fit best = best_fit(walk, word);

    if (best == FIT_NONE || (best == FIT_BEGINNING && ambiguous(walk, word)))
        return false;
    size_t old_count = walk->count;
    struct thread *old = walk->threads;
    walk->threads = checked(calloc(walk->set->graph.count, sizeof(*walk->threads)));
    walk->count = 0;
    walk->round++;
    for (size_t i = 0; i < old_count; i++) {
        const struct node *node = node_at(walk, old[i].node);
        if (fit(node, word) != best)
            continue;
        walk->steps[walk->step_count] = (struct step){old[i].step, old[i].node};
        enter(walk, node->next, old[i].used, (int)walk->step_count++);
    }
    free(old);
    return true;
}

/* ---- errors ---- */

static void print_words(FILE *out, char *const *words, size_t count) {
    fputc('"', out);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%s", i > 0 ? " " : "", words[i]);
    fputc('"', out);
}

static const char *expected_text(const struct node *node) {
    return node->kind == NODE_END ? NULL : node->text;
}

/* Lists what fits next: "a, b or c". Only those that `word` begins, when it is not NULL. */
static void print_expected(FILE *out, const struct walk *walk, const char *word) {
    const char **texts = checked(calloc(walk->count + 1, sizeof(*texts)));
    size_t count = 0;

    for (size_t i = 0; i < walk->count; i++) {
        const struct node *node = node_at(walk, walk->threads[i].node);
        const char *text = expected_text(node);
        bool wanted = text != NULL && !(node->command->flags & COMMAND_HIDDEN) &&
                      (word == NULL || fit(node, word) == FIT_BEGINNING);
        for (size_t k = 0; wanted && k < count; k++)
            wanted = strcmp(texts[k], text) != 0;
        if (wanted)
            texts[count++] = text;
    }
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s%s", i == 0 ? "" : i + 1 == count ? " or " : ", ", texts[i]);
    free(texts);
}

/* Edits that lead from a to b, where swapping two neighbouring letters is one edit. */
static size_t distance(const char *a, const char *b) {
    enum { LONGEST = 31 };
    size_t m = strlen(a), n = strlen(b), d[LONGEST + 1][LONGEST + 1];

    if (m > LONGEST || n > LONGEST)
        return LONGEST;
    for (size_t i = 0; i <= m; i++)
        d[i][0] = i;
    for (size_t k = 0; k <= n; k++)
        d[0][k] = k;
    for (size_t i = 1; i <= m; i++)
        for (size_t k = 1; k <= n; k++) {
            size_t best = d[i - 1][k - 1] + (a[i - 1] != b[k - 1]);
            if (d[i - 1][k] + 1 < best)
                best = d[i - 1][k] + 1;
            if (d[i][k - 1] + 1 < best)
                best = d[i][k - 1] + 1;
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] &&
                d[i - 2][k - 2] + 1 < best)
                best = d[i - 2][k - 2] + 1;
            d[i][k] = best;
        }
    return d[m][n];
}

/* The word that was probably meant, or NULL. */
static const char *nearest(const struct walk *walk, const char *word) {
    size_t limit = strlen(word) < 4 ? 1 : 2, best = limit + 1;
    const char *found = NULL;

    for (size_t i = 0; i < walk->count; i++) {
        const struct node *node = node_at(walk, walk->threads[i].node);
        if (node->kind != NODE_WORD || (node->command->flags & COMMAND_HIDDEN))
            continue;
        size_t this = distance(word, node->text);
        if (this < best) {
            best = this;
            found = node->text;
        }
    }
    return found;
}

/* The commands that may still be meant, at most four: more are no help. Only those whose next word
 * `word` begins, when it is not NULL. */
static void print_usages(FILE *out, const struct walk *walk, const char *program,
                         const char *word) {
    const struct command *commands[4];
    size_t count = 0;

    for (size_t i = 0; i < walk->count; i++) {
        const struct node *node = node_at(walk, walk->threads[i].node);
        const struct command *command = node->command;
        bool known = (command->flags & COMMAND_HIDDEN) != 0 ||
                     (word != NULL && fit(node, word) != FIT_BEGINNING);
        for (size_t k = 0; !known && k < count; k++)
            known = commands[k] == command;
        if (known)
            continue;
        if (count == sizeof(commands) / sizeof(commands[0]))
            return;
        commands[count++] = command;
    }
    for (size_t i = 0; i < count; i++)
        fprintf(out, "\n%s %s%s", i == 0 ? "usage:" : "      ", program,
                command_usage(walk->set, commands[i]));
}

/* The type when nothing but arguments of one type fits, else ARGUMENT_TYPES. */
static enum argument_type only_argument(const struct walk *walk) {
    enum argument_type type = ARGUMENT_TYPES;

    for (size_t i = 0; i < walk->count; i++) {
        const struct node *node = node_at(walk, walk->threads[i].node);
        if (node->kind != NODE_ARGUMENT || (i > 0 && node->type != type))
            return ARGUMENT_TYPES;
        type = node->type;
    }
    return type;
}

/* Why word number `at` was not taken. */
static void print_unfit(FILE *out, const struct walk *walk, char *const *words, size_t at) {
    const char *word = words[at], *meant = nearest(walk, word);
    enum argument_type type = only_argument(walk);
    bool complete = walk->count == 1 && node_at(walk, walk->threads[0].node)->kind == NODE_END;

    if (best_fit(walk, word) == FIT_BEGINNING) {
        fprintf(out, "\"%s\" is ambiguous: ", word);
        print_expected(out, walk, word);
        return;
    }
    if (type != ARGUMENT_TYPES) {
        fprintf(out, "\"%s\" is not %s", word, argument_of(type)->description);
        return;
    }
    if (at == 0) {
        fprintf(out, "there is no command \"%s\"", word);
    } else {
        fprintf(out, "\"%s\" does not fit behind ", word);
        print_words(out, words, at);
    }
    if (meant != NULL) {
        fprintf(out, "; did you mean \"%s\"?", meant);
    } else if (complete) {
        fputs(", which is complete", out);
    } else {
        fputs("; expected ", out);
        print_expected(out, walk, NULL);
    }
}

static char *describe_error(const struct walk *walk, char *const *words, size_t count, size_t at,
                            const char *program) {
    char *text = NULL;
    size_t size;
    FILE *out = checked(open_memstream(&text, &size));

    if (at < count) {
        print_unfit(out, walk, words, at);
    } else if (count == 0) {
        fputs("a command is missing; expected ", out);
        print_expected(out, walk, NULL);
    } else {
        print_words(out, words, count);
        fputs(" is not complete; expected ", out);
        print_expected(out, walk, NULL);
    }
    if (at > 0)
        print_usages(out, walk, program,
                     at < count && best_fit(walk, words[at]) == FIT_BEGINNING ? words[at] : NULL);
    fclose(out);
    return checked(text);
}

/* ---- matching ---- */

static void fill_match(const struct walk *walk, const struct thread *end, char *const *words,
                       size_t count, struct match *match) {
    match->command = node_at(walk, end->node)->command;
    match->count = count;
    match->words = checked(calloc(count + 1, sizeof(*match->words)));
    for (int step = end->step; step >= 0; step = walk->steps[step].previous) {
        const struct node *node = node_at(walk, walk->steps[step].node);
        struct match_word *word = &match->words[--count];
        word->argument = node->kind == NODE_ARGUMENT;
        word->text = word->argument ? words[count] : node->text;
        word->key = node->key;
        word->type = node->type;
    }
}

bool command_match(const struct command_set *set, char *const *words, size_t count, bool shell,
                   const char *program, struct match *match, char **error) {
    struct walk walk = walk_start(set, count, shell);
    bool matched = false;
    size_t at = 0;

    while (at < count && walk_take(&walk, words[at]))
        at++;
    for (size_t i = 0; at == count && i < walk.count && !matched; i++) {
        if (node_at(&walk, walk.threads[i].node)->kind == NODE_END) {
            fill_match(&walk, &walk.threads[i], words, count, match);
            matched = true;
        }
    }
    if (!matched)
        *error = describe_error(&walk, words, count, at, program);
    walk_free(&walk);
    return matched;
}

const char *match_value(const struct match *match, const char *key) {
    for (size_t i = 0; i < match->count; i++)
        if (match->words[i].key != NULL && strcmp(match->words[i].key, key) == 0)
            return match->words[i].text;
    return NULL;
}

bool match_has(const struct match *match, const char *word) {
    for (size_t i = 0; i < match->count; i++)
        if (!match->words[i].argument && strcmp(match->words[i].text, word) == 0)
            return true;
    return false;
}

void match_free(struct match *match) {
    free(match->words);
    *match = (struct match){0};
}

/* ---- completion and help ---- */

struct candidate *candidates_add(struct candidates *candidates, const char *text,
                                 const char *help) {
    for (size_t i = 0; i < candidates->count; i++)
        if (strcmp(candidates->list[i].text, text) == 0)
            return &candidates->list[i];
    candidates->list =
        checked(realloc(candidates->list, (candidates->count + 1) * sizeof(*candidates->list)));
    struct candidate *candidate = &candidates->list[candidates->count++];
    *candidate = (struct candidate){checked(strdup(text)), help, true, false, false};
    return candidate;
}

void candidates_free(struct candidates *candidates) {
    for (size_t i = 0; i < candidates->count; i++)
        free(candidates->list[i].text);
    free(candidates->list);
    *candidates = (struct candidates){0};
}

size_t candidates_common(const struct candidates *candidates) {
    const char *first = NULL;
    size_t common = 0;

    for (size_t i = 0; i < candidates->count; i++) {
        const char *text = candidates->list[i].text;
        if (!candidates->list[i].insertable)
            continue;
        if (first == NULL) {
            first = text;
            common = strlen(text);
        }
        for (size_t k = 0; k < common; k++)
            if (text[k] != first[k])
                common = k;
    }
    return common;
}

/* How many plain words a syntax starts with. */
static size_t head_length(const char *syntax) {
    size_t words = 0;

    while (*syntax >= 'a' && *syntax <= 'z') {
        size_t length = strcspn(syntax, " ");
        if (strcspn(syntax, "[](){}|:.") < length)
            break;
        words++;
        syntax += length;
        syntax += *syntax == ' ';
    }
    return words;
}

/* The help to show for a word at this place: its group's, its command's while the word is part of
 * the command's name, nothing for words in the argument part. */
static const char *word_help(const struct command_set *set, const struct node *node, size_t at) {
    if (at == 0)
        for (size_t i = 0; i < set->count; i++)
            if ((set->commands[i].flags & COMMAND_GROUP) &&
                strcmp(set->commands[i].syntax, node->text) == 0)
                return set->commands[i].help;
    return at < head_length(node->command->syntax) ? node->command->help : NULL;
}

struct candidates command_complete(const struct command_set *set, char *const *words, size_t count,
                                   const char *partial, bool shell, command_names_fn names,
                                   void *context) {
    struct walk walk = walk_start(set, count, shell);
    struct candidates out = {0};
    size_t at = 0;

    while (at < count && walk_take(&walk, words[at]))
        at++;
    for (size_t i = 0; at == count && i < walk.count; i++) {
        const struct node *node = node_at(&walk, walk.threads[i].node);
        if (node->kind == NODE_END || (node->command->flags & COMMAND_HIDDEN))
            continue;
        if (node->kind == NODE_WORD) {
            if (strncmp(node->text, partial, strlen(partial)) == 0)
                candidates_add(&out, node->text, word_help(set, node, at));
            continue;
        }
        size_t before = out.count;
        if (names != NULL)
            names(context, node->type, partial, &out);
        const struct argument *argument = argument_of(node->type);
        if (out.count == before && (*partial == '\0' || argument->accepts(partial)))
            candidates_add(&out, argument->name, argument->description)->insertable = false;
    }
    walk_free(&walk);
    return out;
}

void command_foreach(const struct command_set *set, char *const *words, size_t count, bool shell,
                     void (*each)(void *context, const struct command *command), void *context) {
    for (size_t i = 0; i < set->count; i++) {
        const struct command *command = &set->commands[i];
        const char *syntax = command->syntax;
        size_t at = 0, head = head_length(syntax);

        while (at < count && at < head && strncmp(syntax, words[at], strlen(words[at])) == 0) {
            syntax += strcspn(syntax, " ");
            syntax += *syntax == ' ';
            at++;
        }
        bool listed = !(command->flags & (COMMAND_HIDDEN | COMMAND_GROUP)) &&
                      (shell || !(command->flags & COMMAND_SHELL));
        if (listed && at == count)
            each(context, command);
    }
}
