/*
 * Inside of command.c: a command's syntax as a graph of nodes, in which parsing and completion
 * walk.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "command.h"

enum node_kind {
    NODE_WORD,     /* takes the word `text` */
    NODE_ARGUMENT, /* takes an argument of `type` */
    NODE_SPLIT,    /* goes on at `next` and at `other` */
    NODE_ONCE,     /* goes on at `next`, but only once per command line (bit `once`) */
    NODE_END       /* the command is complete */
};

struct node {
    enum node_kind kind;
    enum argument_type type;
    const char *text;
    const char *key;
    int next;
    int other;
    uint32_t once;
    const struct command *command;
};

struct syntax_graph {
    struct node *nodes;
    size_t count;
    size_t capacity;
    char **texts; /* everything that nodes point to */
    size_t text_count;
};

/* Adds a command's graph; returns its entry node. Writes the syntax as users read it to *usage,
 * which the graph owns. Aborts when the syntax is wrong. */
int syntax_compile(struct syntax_graph *graph, const struct command *command, const char **usage);
void syntax_free(struct syntax_graph *graph);
