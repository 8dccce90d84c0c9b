/*
 * The command language: a table of commands drives parsing, abbreviations, usage errors, help and
 * completion. This module knows neither the router nor JSON, a unit test can hold it in its hand.
 *
 * A command's syntax is written as its users read it, with a little more inside:
 *
 *   show                 a word, to be typed as it stands or as a unique beginning of it
 *   PREFIX               an argument; its type is one of argument.h
 *   [...]  (...)         optional part, group
 *   a|b                  either
 *   (...)...             once or more
 *   {a|b|c}              each at most once, in any order; shown to users as [a] [b] [c]
 *   ADDRESS:via up:admin the name under which the argument, or the word itself, is found later and
 *                        sent to the router; an argument's default is its type in small letters
 *
 * Where several words fit, an exact word wins, then an argument that accepts the text, then a
 * unique beginning of a word. So where an interface may be named, words must be written out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "argument.h"

struct session;
struct match;

enum command_flags {
    COMMAND_HIDDEN = 1, /* not listed, not completed */
    COMMAND_SHELL = 2,  /* only in the shell */
    COMMAND_SLOW = 4,   /* the router may think longer than usual */
    COMMAND_GROUP = 8,  /* no command: tells what all commands with this first word are about */
};

struct command {
    const char *syntax;
    const char *help;   /* one line, starts with a verb, no full stop */
    const char *method; /* the JSON-RPC method, or NULL for a command that calls none or several */
    /* Does the work; returns an exit status. NULL: calls the method with all named values. */
    int (*run)(struct session *session, const struct match *match);
    /* Shows the result of the method (a json_t *). NULL: shows nothing. */
    void (*render)(struct session *session, const struct match *match, const void *result);
    unsigned flags;
};

/* One word of a command line and what it was understood as. */
struct match_word {
    const char *text; /* as typed; for words of the syntax, in full */
    const char *key;  /* its name, or NULL for a plain word */
    bool argument;
    enum argument_type type; /* when argument */
};

/* A command line that was understood. Free with match_free(); texts belong to the caller's words
 * and the command set. */
struct match {
    const struct command *command;
    struct match_word *words;
    size_t count;
};

/* The text named `key`, or NULL. The first one when there are several. */
const char *match_value(const struct match *match, const char *key);
/* Does the plain word occur? */
bool match_has(const struct match *match, const char *word);
void match_free(struct match *match);

struct command_set;

/* Compiles a table. Aborts with a message when a syntax is wrong: that is a programming error. */
struct command_set *command_set_new(const struct command *commands, size_t count);
void command_set_free(struct command_set *set);

/* The syntax of a command as users read it; the set owns the text. */
const char *command_usage(const struct command_set *set, const struct command *command);

/* Understands a command line. `shell` also allows COMMAND_SHELL. Returns true with *match, or false
 * with *error: a sentence, then usage lines, each line but the last ended by a newline; the caller
 * frees it. `program` stands before usage lines ("routerctl " or ""). */
bool command_match(const struct command_set *set, char *const *words, size_t count, bool shell,
                   const char *program, struct match *match, char **error);

/* One thing that may come next. */
struct candidate {
    char *text;       /* what to insert, or an argument's name when not insertable */
    const char *help; /* may be NULL */
    bool insertable;
    bool file;       /* a file's name, relative to the working directory */
    bool unfinished; /* more of the same word follows (a directory): no blank behind it */
};

struct candidates {
    struct candidate *list;
    size_t count;
};

/* Adds the names of existing things of this type that start with `partial`, by candidates_add(). */
typedef void (*command_names_fn)(void *context, enum argument_type type, const char *partial,
                                 struct candidates *out);

/* What may come after `words`, starting with `partial`. Arguments without names to offer appear as
 * not insertable candidates. `names` may be NULL. */
struct candidates command_complete(const struct command_set *set, char *const *words, size_t count,
                                   const char *partial, bool shell, command_names_fn names,
                                   void *context);

/* Adds a candidate unless its text is there already; returns it. */
struct candidate *candidates_add(struct candidates *candidates, const char *text, const char *help);
void candidates_free(struct candidates *candidates);

/* The length of what all insertable candidates start with. */
size_t candidates_common(const struct candidates *candidates);

/* Calls `each` for every listed command whose first words start with these, in table order. */
void command_foreach(const struct command_set *set, char *const *words, size_t count, bool shell,
                     void (*each)(void *context, const struct command *command), void *context);
