/*
 * Text tables: a header line, columns as wide as their widest cell, two spaces between them.
 *
 * A table whose columns have no titles has no header line.
 *
 * A table can be printed in parts: table_flush() prints what was added since the last flush and
 * forgets it, so a million rows need the memory of one part. Columns only grow, which keeps later
 * parts aligned with the first one unless a wider cell turns up.
 *
 * Widths are terminal columns of UTF-8 text and follow the locale's LC_CTYPE. Control characters
 * and broken UTF-8 are shown as '?', because text from elsewhere must not steer the user's
 * terminal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum table_align { TABLE_LEFT, TABLE_RIGHT };
enum table_colour { TABLE_PLAIN, TABLE_GREEN, TABLE_RED };

struct table_column {
    const char *title;
    enum table_align align;
};

struct table;

/* Makes a table. The columns are copied, their titles must live as long as the table. Aborts the
 * program when memory is out, like all functions here. */
struct table *table_new(const struct table_column *columns, size_t count);
#define TABLE_NEW(columns) table_new((columns), sizeof(columns) / sizeof((columns)[0]))

/* Adds the next cell; cells go left to right, and a row ends with the last column. */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_coloured(struct table *table, enum table_colour colour, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes a column at least this wide, for tables printed in parts whose first part tells little. */
void table_widen(struct table *table, size_t column, size_t width);

/* Fills the rest of the row with empty cells; nothing at the start of a row. */
void table_row_end(struct table *table);

/* Rows added so far, flushed or not. */
size_t table_rows(const struct table *table);

/* Prints and forgets the rows; the header goes before the first. `colour` allows escape codes. */
void table_flush(struct table *table, FILE *out, bool colour);

/* Flushes and frees. */
void table_end(struct table *table, FILE *out, bool colour);

/* Width of a text in terminal columns, as a table shows it. */
size_t text_width(const char *text);

/* A copy without control characters and broken UTF-8 (each such byte becomes '?'); caller frees. */
char *text_clean(const char *text);

/* Writes the first `columns` columns of a text that may hold colour codes. */
void text_clip(FILE *out, const char *text, size_t columns);
