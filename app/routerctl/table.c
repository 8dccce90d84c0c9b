/*
 * Text tables. Cells are kept cleaned, with their widths, until they are flushed.
 *
 * What can go wrong: a locale that is not UTF-8 makes every non-ASCII character look broken; main()
 * therefore falls back to C.UTF-8.
 */
#include "table.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

struct cell {
    char *text;
    size_t width;
    enum table_colour colour;
};

struct column {
    struct table_column face;
    size_t width;
};

struct table {
    struct column *columns;
    size_t column_count;
    struct cell *cells;
    size_t cell_count;
    size_t cell_capacity;
    size_t rows_flushed;
    bool header_due;
};

static void *checked(void *memory) {
    if (memory == NULL) {
        fputs("routerctl: out of memory\n", stderr);
        abort();
    }
    return memory;
}

/* Reads one character: its length in bytes and its width, or width -1 for what is not printable.
 * The length is at least 1. */
static size_t next_character(const char *text, size_t left, int *width) {
    mbstate_t state = {0};
    wchar_t wide;
    size_t length = mbrtowc(&wide, text, left, &state);

    if (length == 0 || length > left) {
        *width = -1;
        return 1;
    }
    *width = wcwidth(wide);
    return length;
}

char *text_clean(const char *text) {
    size_t left = strlen(text);
    char *out = checked(malloc(left + 1)), *to = out;

    while (left > 0) {
        int width;
        size_t length = next_character(text, left, &width);
        if (width < 0) {
            *to++ = '?';
        } else {
            memcpy(to, text, length);
            to += length;
        }
        text += length;
        left -= length;
    }
    *to = '\0';
    return out;
}

size_t text_width(const char *text) {
    size_t left = strlen(text), sum = 0;

    while (left > 0) {
        int width;
        size_t length = next_character(text, left, &width);
        sum += width < 0 ? 1 : (size_t)width;
        text += length;
        left -= length;
    }
    return sum;
}

void text_clip(FILE *out, const char *text, size_t columns) {
    size_t left = strlen(text), used = 0;

    while (left > 0) {
        int width;
        size_t length = next_character(text, left, &width);
        if (*text == '\033') { /* our own colour codes: "ESC [ ... m" take no room */
            length = strcspn(text, "m");
            length += text[length] == 'm';
            width = 0;
        } else if (width < 0) {
            width = 1;
        }
        /* Past the edge nothing but colour codes is written: the last one may switch off a colour.
         */
        if (*text == '\033' || used + (size_t)width <= columns)
            fwrite(text, 1, length, out);
        used += (size_t)width;
        text += length;
        left -= length;
    }
}

struct table *table_new(const struct table_column *columns, size_t count) {
    struct table *table = checked(calloc(1, sizeof(*table)));

    table->columns = checked(calloc(count, sizeof(*table->columns)));
    table->column_count = count;
    for (size_t i = 0; i < count; i++) {
        table->columns[i].face = columns[i];
        table->columns[i].width = text_width(columns[i].title);
        if (table->columns[i].width > 0)
            table->header_due = true;
    }
    return table;
}

static void add_cell(struct table *table, enum table_colour colour, const char *format,
                     va_list arguments) {
    char *text;

    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    checked(text);
    if (table->cell_count == table->cell_capacity) {
        table->cell_capacity = table->cell_capacity ? table->cell_capacity * 2 : 64;
        table->cells = checked(realloc(table->cells, table->cell_capacity * sizeof(*table->cells)));
    }
    struct column *column = &table->columns[table->cell_count % table->column_count];
    struct cell *cell = &table->cells[table->cell_count++];
    cell->text = text_clean(text);
    cell->width = text_width(cell->text);
    cell->colour = colour;
    if (cell->width > column->width)
        column->width = cell->width;
    free(text);
}

void table_cell(struct table *table, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_cell(table, TABLE_PLAIN, format, arguments);
    va_end(arguments);
}

void table_coloured(struct table *table, enum table_colour colour, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_cell(table, colour, format, arguments);
    va_end(arguments);
}

void table_widen(struct table *table, size_t column, size_t width) {
    if (table->columns[column].width < width)
        table->columns[column].width = width;
}

void table_row_end(struct table *table) {
    while (table->cell_count % table->column_count != 0)
        table_cell(table, "%s", "");
}

size_t table_rows(const struct table *table) {
    return table->rows_flushed + table->cell_count / table->column_count;
}

static void spaces(FILE *out, size_t count) {
    fprintf(out, "%*s", (int)count, "");
}

static void print_text(FILE *out, const char *text, enum table_colour colour) {
    if (colour == TABLE_PLAIN)
        fputs(text, out);
    else
        fprintf(out, "\033[%sm%s\033[0m", colour == TABLE_GREEN ? "32" : "31", text);
}

/* Prints one row. Padding is written only before a text that follows, so no line ends in spaces. */
static void print_row(const struct table *table, const struct cell *row, FILE *out, bool colour) {
    size_t owed = 0;

    for (size_t i = 0; i < table->column_count; i++) {
        const struct column *column = &table->columns[i];
        const struct cell *cell = &row[i];
        size_t pad = column->width - cell->width;

        if (i > 0)
            owed += 2;
        if (cell->width == 0) {
            owed += column->width;
            continue;
        }
        if (column->face.align == TABLE_RIGHT)
            owed += pad;
        spaces(out, owed);
        print_text(out, cell->text, colour ? cell->colour : TABLE_PLAIN);
        owed = column->face.align == TABLE_RIGHT ? 0 : pad;
    }
    fputc('\n', out);
}

static void print_header(struct table *table, FILE *out) {
    struct cell *row = checked(calloc(table->column_count, sizeof(*row)));

    for (size_t i = 0; i < table->column_count; i++) {
        row[i].text = (char *)(uintptr_t)table->columns[i].face.title;
        row[i].width = text_width(row[i].text);
    }
    print_row(table, row, out, false);
    free(row);
    table->header_due = false;
}

void table_flush(struct table *table, FILE *out, bool colour) {
    table_row_end(table);
    if (table->header_due && table->cell_count > 0)
        print_header(table, out);
    for (size_t i = 0; i < table->cell_count; i += table->column_count)
        print_row(table, &table->cells[i], out, colour);
    table->rows_flushed += table->cell_count / table->column_count;
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i].text);
    table->cell_count = 0;
}

void table_end(struct table *table, FILE *out, bool colour) {
    table_flush(table, out, colour);
    free(table->cells);
    free(table->columns);
    free(table);
}
