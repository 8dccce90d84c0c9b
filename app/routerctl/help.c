/*
 * help: the table of commands, as text. And leaving the shell.
 */
#include "commands.h"
#include "session.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct list {
    const struct session *session;
    const struct command *previous;
    size_t count;
};

/* A command whose first word it shares with others. */
static bool in_group(const struct command *command) {
    size_t length = strcspn(command->syntax, " ");

    for (size_t i = 0; i < command_count; i++)
        if ((commands[i].flags & COMMAND_GROUP) && strlen(commands[i].syntax) == length &&
            strncmp(commands[i].syntax, command->syntax, length) == 0)
            return true;
    return false;
}

/* The length of what fits into the rest of a line: up to a blank between parts, at least one part.
 */
static size_t fitting(const char *usage, size_t room) {
    size_t best = 0, depth = 0, i = 0;

    for (; usage[i] != '\0'; i++) {
        if (usage[i] == '[' || usage[i] == '(')
            depth++;
        else if (usage[i] == ']' || usage[i] == ')')
            depth--;
        else if (usage[i] == ' ' && usage[i + 1] == '[' && depth == 0 && (i <= room || best == 0))
            best = i;
    }
    return i <= room || best == 0 ? i : best;
}

static void print_usage(const char *usage) {
    enum { WIDTH = 80, INDENT = 4 };
    size_t length = fitting(usage, WIDTH);

    printf("%.*s\n", (int)length, usage);
    while (usage[length] != '\0') {
        usage += length + 1;
        length = fitting(usage, WIDTH - INDENT);
        printf("%*s%.*s\n", INDENT, "", (int)length, usage);
    }
}

static void list_command(void *context, const struct command *command) {
    struct list *list = context;
    const char *usage = command_usage(list->session->commands, command);
    enum { HELP_COLUMN = 30 };

    if (list->previous != NULL) {
        size_t length = strcspn(command->syntax, " ") + 1;
        if (strncmp(list->previous->syntax, command->syntax, length) != 0 &&
            (in_group(command) || in_group(list->previous)))
            putchar('\n');
    }
    if (strlen(usage) < HELP_COLUMN - 1) {
        printf("%-*s%s\n", HELP_COLUMN, usage, command->help);
    } else {
        print_usage(usage);
        printf("%*s%s\n", HELP_COLUMN, "", command->help);
    }
    list->previous = command;
    list->count++;
}

int run_help(struct session *session, const struct match *match) {
    struct list list = {.session = session};
    char **words = calloc(match->count + 1, sizeof(*words));
    size_t count = 0;

    if (words == NULL)
        abort();
    for (size_t i = 0; i < match->count; i++)
        if (match->words[i].argument)
            words[count++] = (char *)(uintptr_t)match->words[i].text;
    command_foreach(session->commands, words, count, session->shell, list_command, &list);
    free(words);
    if (list.count == 0) {
        session_error(session, "no command starts like that; \"help\" alone lists all");
        return STATUS_USAGE;
    }
    if (count == 0)
        puts("\nWords may be shortened while they stay unique: \"sh int\". -j prints JSON.");
    return STATUS_OK;
}

int run_exit(struct session *session, const struct match *match) {
    (void)match;
    session->leave = true;
    return STATUS_OK;
}
