/*
 * Splitting a command line into words, for the shell, scripts, route files and completion.
 *
 * Words are separated by blanks. '...' and "..." keep blanks, a backslash keeps the next character
 * (inside "..." too), and a word that starts with { or [ is taken as JSON up to the matching brace,
 * quotes and all, so JSON needs no quoting. A # at the start of a word begins a comment.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct words {
    char **list; /* NULL-terminated */
    size_t count;
    bool unclosed; /* a quote or brace is still open at the end */
    bool complete; /* the line ends behind the last word (blank, comment or nothing at all) */
};

/* Splits a line. Free with words_free(). */
struct words words_split(const char *line);

/* Adds a copy of a word. */
void words_add(struct words *words, const char *text, size_t length);

/* Removes word `at`. */
void words_remove(struct words *words, size_t at);
void words_free(struct words *words);
