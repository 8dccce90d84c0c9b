/*
 * Splitting a command line into words.
 */
#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

void words_add(struct words *words, const char *text, size_t length) {
    char **list = realloc(words->list, (words->count + 2) * sizeof(*list));

    if (list == NULL || (list[words->count] = strndup(text, length)) == NULL)
        abort();
    list[++words->count] = NULL;
    words->list = list;
}

void words_remove(struct words *words, size_t at) {
    free(words->list[at]);
    memmove(&words->list[at], &words->list[at + 1], (words->count - at) * sizeof(*words->list));
    words->count--;
}

void words_free(struct words *words) {
    for (size_t i = 0; i < words->count; i++)
        free(words->list[i]);
    free(words->list);
    *words = (struct words){0};
}

/* Takes a JSON value that starts at `p` with a brace or bracket; returns its end. */
static const char *take_json(struct words *words, const char *p) {
    const char *start = p;
    size_t depth = 0;
    bool quoted = false;

    for (; *p != '\0'; p++) {
        if (quoted) {
            if (*p == '\\' && p[1] != '\0')
                p++;
            else if (*p == '"')
                quoted = false;
        } else if (*p == '"') {
            quoted = true;
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && --depth == 0) {
            p++;
            break;
        }
    }
    words->unclosed = depth > 0;
    words_add(words, start, (size_t)(p - start));
    return p;
}

static const char *take_word(struct words *words, const char *p) {
    char *text = malloc(strlen(p) + 1);
    size_t length = 0;
    char quote = '\0';

    if (text == NULL)
        abort();
    for (; *p != '\0' && (quote != '\0' || !blank(*p)); p++) {
        if (*p == '\\' && p[1] != '\0' && quote != '\'')
            text[length++] = *++p;
        else if (quote != '\0' && *p == quote)
            quote = '\0';
        else if (quote == '\0' && (*p == '\'' || *p == '"'))
            quote = *p;
        else
            text[length++] = *p;
    }
    words->unclosed = quote != '\0';
    words_add(words, text, length);
    free(text);
    return p;
}

struct words words_split(const char *line) {
    struct words words = {.complete = true};
    const char *p = line;

    for (;;) {
        while (blank(*p))
            p++;
        if (*p == '\0' || *p == '#')
            return words;
        p = *p == '{' || *p == '[' ? take_json(&words, p) : take_word(&words, p);
        if (*p == '\0') {
            words.complete = false;
            return words;
        }
    }
}
