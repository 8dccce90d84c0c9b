/*
 * From a syntax text to a graph, by way of a small tree. The tree is compiled backwards: each part
 * gets the node that follows it, so nothing has to be patched except the loops.
 */
#include "syntax.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum part_kind { PART_WORD, PART_SEQUENCE, PART_EITHER, PART_ANY_ORDER };

struct part {
    enum part_kind kind;
    bool optional; /* [...] */
    bool repeated; /* (...)... */
    const char *text;
    const char *key;
    struct part *children[16];
    size_t child_count;
};

struct parser {
    struct syntax_graph *graph;
    const struct command *command;
    const char *p;
    uint32_t next_once;
};

static void wrong(const struct parser *parser) {
    fprintf(stderr, "routerctl: bad syntax in the command table: %s\n", parser->command->syntax);
    abort();
}

static char *keep(struct syntax_graph *graph, char *text) {
    char **texts = realloc(graph->texts, (graph->text_count + 1) * sizeof(*texts));

    if (text == NULL || texts == NULL)
        abort();
    texts[graph->text_count++] = text;
    graph->texts = texts;
    return text;
}

static struct part *part_new(enum part_kind kind) {
    struct part *part = calloc(1, sizeof(*part));

    if (part == NULL)
        abort();
    part->kind = kind;
    return part;
}

static void part_free(struct part *part) {
    for (size_t i = 0; i < part->child_count; i++)
        part_free(part->children[i]);
    free(part);
}

static void add_child(const struct parser *parser, struct part *part, struct part *child) {
    if (part->child_count == sizeof(part->children) / sizeof(part->children[0]))
        wrong(parser);
    part->children[part->child_count++] = child;
}

static void skip_blanks(struct parser *parser) {
    while (*parser->p == ' ')
        parser->p++;
}

static const char *take_name(struct parser *parser) {
    size_t length = strcspn(parser->p, " :|()[]{}.");

    if (length == 0)
        wrong(parser);
    char *name = keep(parser->graph, strndup(parser->p, length));
    parser->p += length;
    return name;
}

static struct part *parse_either(struct parser *parser, enum part_kind kind, char end);

static struct part *parse_item(struct parser *parser) {
    struct part *part;

    switch (*parser->p) {
    case '(':
        parser->p++;
        part = parse_either(parser, PART_EITHER, ')');
        break;
    case '[':
        parser->p++;
        part = parse_either(parser, PART_EITHER, ']');
        part->optional = true;
        break;
    case '{':
        parser->p++;
        part = parse_either(parser, PART_ANY_ORDER, '}');
        break;
    default:
        part = part_new(PART_WORD);
        part->text = take_name(parser);
        if (*parser->p == ':') {
            parser->p++;
            part->key = take_name(parser);
        }
    }
    if (strncmp(parser->p, "...", 3) == 0) {
        parser->p += 3;
        part->repeated = true;
    }
    return part;
}

static struct part *parse_sequence(struct parser *parser) {
    struct part *sequence = part_new(PART_SEQUENCE);

    for (skip_blanks(parser); !strchr("|)]}", *parser->p); skip_blanks(parser))
        add_child(parser, sequence, parse_item(parser));
    if (sequence->child_count == 0)
        wrong(parser);
    return sequence;
}

/* Alternatives up to the closing character (or the end of the text for '\0'). */
static struct part *parse_either(struct parser *parser, enum part_kind kind, char end) {
    struct part *either = part_new(kind);

    for (;;) {
        add_child(parser, either, parse_sequence(parser));
        if (*parser->p != '|')
            break;
        parser->p++;
    }
    if (*parser->p != end)
        wrong(parser);
    if (end != '\0')
        parser->p++;
    return either;
}

static int node_new(struct parser *parser, struct node node) {
    struct syntax_graph *graph = parser->graph;

    if (graph->count == graph->capacity) {
        graph->capacity = graph->capacity ? graph->capacity * 2 : 256;
        graph->nodes = realloc(graph->nodes, graph->capacity * sizeof(*graph->nodes));
        if (graph->nodes == NULL)
            abort();
    }
    node.command = parser->command;
    graph->nodes[graph->count] = node;
    return (int)graph->count++;
}

static int split(struct parser *parser, int next, int other) {
    return node_new(parser, (struct node){.kind = NODE_SPLIT, .next = next, .other = other});
}

static int compile(struct parser *parser, const struct part *part, int next);

static int compile_word(struct parser *parser, const struct part *part, int next) {
    struct node node = {.kind = NODE_WORD, .text = part->text, .key = part->key, .next = next};

    node.type = argument_find(part->text, strlen(part->text));
    if (node.type != ARGUMENT_TYPES) {
        node.kind = NODE_ARGUMENT;
        if (node.key == NULL) {
            char *key = keep(parser->graph, strdup(part->text));
            for (char *c = key; *c != '\0'; c++)
                *c = (char)tolower((unsigned char)*c);
            node.key = key;
        }
    } else if (isupper((unsigned char)*part->text)) {
        wrong(parser);
    }
    return node_new(parser, node);
}

/* Loops back to one split from which every alternative that was not used yet can be entered. */
static int compile_any_order(struct parser *parser, const struct part *part, int next) {
    int loop = split(parser, next, next), entry = next;

    for (size_t i = part->child_count; i-- > 0;) {
        struct node once = {.kind = NODE_ONCE, .once = parser->next_once};
        if (parser->next_once == 0)
            wrong(parser);
        parser->next_once <<= 1;
        once.next = compile(parser, part->children[i], loop);
        entry = split(parser, node_new(parser, once), entry);
    }
    parser->graph->nodes[loop].next = entry;
    return loop;
}

static int compile_body(struct parser *parser, const struct part *part, int next) {
    int entry = -1;

    switch (part->kind) {
    case PART_WORD:
        return compile_word(parser, part, next);
    case PART_SEQUENCE:
        for (size_t i = part->child_count; i-- > 0;)
            next = compile(parser, part->children[i], next);
        return next;
    case PART_EITHER:
        for (size_t i = part->child_count; i-- > 0;) {
            int child = compile(parser, part->children[i], next);
            entry = entry < 0 ? child : split(parser, child, entry);
        }
        return entry;
    case PART_ANY_ORDER:
        return compile_any_order(parser, part, next);
    }
    abort();
}

static int compile(struct parser *parser, const struct part *part, int next) {
    int entry;

    if (part->repeated) {
        int loop = split(parser, next, next);
        entry = compile_body(parser, part, loop);
        parser->graph->nodes[loop].next = entry;
    } else {
        entry = compile_body(parser, part, next);
    }
    return part->optional ? split(parser, entry, next) : entry;
}

/* Is the part just one group in parentheses, which brackets around it make superfluous? */
static const struct part *unwrap(const struct part *part) {
    while (part->kind == PART_SEQUENCE && part->child_count == 1)
        part = part->children[0];
    return part;
}

static void print_part(FILE *out, const struct part *part, bool bracketed);

static void print_children(FILE *out, const struct part *part, const char *separator) {
    for (size_t i = 0; i < part->child_count; i++) {
        if (i > 0)
            fputs(separator, out);
        print_part(out, part->children[i], false);
    }
}

static void print_part(FILE *out, const struct part *part, bool bracketed) {
    const char *open = "", *close = "";

    if (part->optional)
        open = "[", close = "]";
    else if (part->kind == PART_EITHER && !bracketed)
        open = "(", close = ")";
    switch (part->kind) {
    case PART_WORD:
        fputs(part->text, out);
        break;
    case PART_SEQUENCE:
        print_children(out, part, " ");
        break;
    case PART_EITHER:
        fputs(open, out);
        print_children(out, part, "|");
        fputs(close, out);
        break;
    case PART_ANY_ORDER:
        for (size_t i = 0; i < part->child_count; i++) {
            fputs(i > 0 ? " [" : "[", out);
            print_part(out, unwrap(part->children[i]), true);
            fputs("]", out);
        }
        break;
    }
    if (part->repeated)
        fputs("...", out);
}

int syntax_compile(struct syntax_graph *graph, const struct command *command, const char **usage) {
    struct parser parser = {graph, command, command->syntax, 1};
    struct part *top = parse_sequence(&parser);
    char *text = NULL;
    size_t size;

    if (*parser.p != '\0')
        wrong(&parser);
    int end = node_new(&parser, (struct node){.kind = NODE_END});
    int entry = compile(&parser, top, end);
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        abort();
    print_part(out, top, false);
    fclose(out);
    *usage = keep(graph, text);
    part_free(top);
    return entry;
}

void syntax_free(struct syntax_graph *graph) {
    for (size_t i = 0; i < graph->text_count; i++)
        free(graph->texts[i]);
    free(graph->texts);
    free(graph->nodes);
    *graph = (struct syntax_graph){0};
}
