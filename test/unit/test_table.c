/*
 * routerctl's text tables and number formats.
 */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "format.h"
#include "table.h"

struct sheet {
    FILE *out;
    char *text;
    size_t size;
};

static void sheet_open(struct sheet *sheet) {
    *sheet = (struct sheet){0};
    sheet->out = open_memstream(&sheet->text, &sheet->size);
    assert_non_null(sheet->out);
}

static void sheet_expect(struct sheet *sheet, const char *expected) {
    fclose(sheet->out);
    assert_string_equal(sheet->text, expected);
    free(sheet->text);
}

static const struct table_column columns[] = {
    {"NAME", TABLE_LEFT}, {"MTU", TABLE_RIGHT}, {"NOTE", TABLE_LEFT}};

static void columns_align_and_lines_have_no_trailing_blanks(void **state) {
    struct table *table = TABLE_NEW(columns);
    struct sheet sheet;

    (void)state;
    sheet_open(&sheet);
    table_cell(table, "wan");
    table_cell(table, "%d", 1500);
    table_cell(table, "uplink");
    table_cell(table, "customer-lan");
    table_cell(table, "%d", 68);
    table_row_end(table);
    table_cell(table, "x");
    table_row_end(table);
    table_end(table, sheet.out, false);
    sheet_expect(&sheet, "NAME           MTU  NOTE\n"
                         "wan           1500  uplink\n"
                         "customer-lan    68\n"
                         "x\n");
}

static void an_empty_table_prints_nothing(void **state) {
    struct table *table = TABLE_NEW(columns);
    struct sheet sheet;

    (void)state;
    sheet_open(&sheet);
    assert_int_equal(table_rows(table), 0);
    table_end(table, sheet.out, false);
    sheet_expect(&sheet, "");
}

static void columns_without_titles_have_no_header(void **state) {
    static const struct table_column pairs[] = {{"", TABLE_LEFT}, {"", TABLE_LEFT}};
    struct table *table = TABLE_NEW(pairs);
    struct sheet sheet;

    (void)state;
    sheet_open(&sheet);
    table_cell(table, "Name");
    table_cell(table, "wan");
    table_end(table, sheet.out, false);
    sheet_expect(&sheet, "Name  wan\n");
}

static void utf8_counts_as_terminal_columns(void **state) {
    struct table *table = TABLE_NEW(columns);
    struct sheet sheet;

    (void)state;
    assert_int_equal(text_width("büro"), 4);
    assert_int_equal(text_width("東京"), 4);
    assert_int_equal(text_width("e\xcc\x81"), 1); /* a combining accent */
    sheet_open(&sheet);
    table_cell(table, "büro-süd");
    table_cell(table, "1");
    table_cell(table, "a");
    table_cell(table, "東京");
    table_cell(table, "22");
    table_cell(table, "b");
    table_end(table, sheet.out, false);
    sheet_expect(&sheet, "NAME      MTU  NOTE\n"
                         "büro-süd    1  a\n"
                         "東京       22  b\n");
}

static void control_characters_and_broken_utf8_become_question_marks(void **state) {
    char *text = text_clean("a\033[31mb\nc\xff\xc3");

    (void)state;
    assert_string_equal(text, "a?[31mb?c??");
    free(text);
}

static void later_parts_keep_the_first_parts_columns(void **state) {
    struct table *table = TABLE_NEW(columns);
    struct sheet sheet;

    (void)state;
    sheet_open(&sheet);
    table_cell(table, "long-name");
    table_row_end(table);
    table_flush(table, sheet.out, false);
    table_cell(table, "a");
    table_cell(table, "1");
    table_cell(table, "n");
    table_flush(table, sheet.out, false);
    table_flush(table, sheet.out, false);
    assert_int_equal(table_rows(table), 2);
    table_end(table, sheet.out, false);
    sheet_expect(&sheet, "NAME       MTU  NOTE\n"
                         "long-name\n"
                         "a            1  n\n");
}

static void colours_appear_only_when_allowed_and_take_no_room(void **state) {
    for (int colour = 0; colour <= 1; colour++) {
        struct table *table = TABLE_NEW(columns);
        struct sheet sheet;

        (void)state;
        sheet_open(&sheet);
        table_coloured(table, TABLE_GREEN, "up");
        table_coloured(table, TABLE_RED, "0");
        table_cell(table, "n");
        table_end(table, sheet.out, colour);
        sheet_expect(&sheet, colour
                                 ? "NAME  MTU  NOTE\n\033[32mup\033[0m      \033[31m0\033[0m  n\n"
                                 : "NAME  MTU  NOTE\nup      0  n\n");
    }
}

static void long_lines_are_clipped_but_colours_end(void **state) {
    struct sheet sheet;

    (void)state;
    sheet_open(&sheet);
    text_clip(sheet.out, "ab\033[31mcdef\033[0mgh", 4);
    sheet_expect(&sheet, "ab\033[31mcd\033[0m");
    sheet_open(&sheet);
    text_clip(sheet.out, "a東京", 4); /* the second wide character would be cut in half */
    sheet_expect(&sheet, "a東");
    sheet_open(&sheet);
    text_clip(sheet.out, "short", 80);
    sheet_expect(&sheet, "short");
}

static void numbers_read_well(void **state) {
    (void)state;
    assert_string_equal(format_count(0).text, "0");
    assert_string_equal(format_count(999).text, "999");
    assert_string_equal(format_count(1000).text, "1,000");
    assert_string_equal(format_count(1234567).text, "1,234,567");
    assert_string_equal(format_count(UINT64_MAX).text, "18,446,744,073,709,551,615");

    assert_string_equal(format_scaled(0).text, "0");
    assert_string_equal(format_scaled(12).text, "12");
    assert_string_equal(format_scaled(0.5).text, "0.50");
    assert_string_equal(format_scaled(999).text, "999");
    assert_string_equal(format_scaled(999.6).text, "1.00 k");
    assert_string_equal(format_scaled(9994).text, "9.99 k");
    assert_string_equal(format_scaled(9996).text, "10.0 k");
    assert_string_equal(format_scaled(999999).text, "1.00 M");
    assert_string_equal(format_scaled(14.88e6).text, "14.9 M");
    assert_string_equal(format_scaled((double)NAN).text, "-");
    assert_string_equal(format_scaled(-1).text, "-");
    assert_string_equal(format_unit(12, "B").text, "12 B");
    assert_string_equal(format_unit(1.5e9, "B").text, "1.50 GB");

    assert_string_equal(format_speed(10000).text, "10 Gbit/s");
    assert_string_equal(format_speed(2500).text, "2.5 Gbit/s");
    assert_string_equal(format_speed(100).text, "100 Mbit/s");
    assert_string_equal(format_speed(0).text, "-");
    assert_string_equal(format_speed(UINT32_MAX).text, "-");

    assert_string_equal(format_duration(0).text, "0 s");
    assert_string_equal(format_duration(12.34).text, "12.3 s");
    assert_string_equal(format_duration(59.99).text, "1 min 0 s");
    assert_string_equal(format_duration(61).text, "1 min 1 s");
    assert_string_equal(format_duration(7260).text, "2 h 1 min");
    assert_string_equal(format_duration(93784).text, "1 d 2 h");
    assert_string_equal(format_percent(12.34).text, "12.3 %");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_align_and_lines_have_no_trailing_blanks),
        cmocka_unit_test(an_empty_table_prints_nothing),
        cmocka_unit_test(columns_without_titles_have_no_header),
        cmocka_unit_test(utf8_counts_as_terminal_columns),
        cmocka_unit_test(control_characters_and_broken_utf8_become_question_marks),
        cmocka_unit_test(later_parts_keep_the_first_parts_columns),
        cmocka_unit_test(colours_appear_only_when_allowed_and_take_no_room),
        cmocka_unit_test(long_lines_are_clipped_but_colours_end),
        cmocka_unit_test(numbers_read_well),
    };
    setlocale(LC_CTYPE, "C.UTF-8");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
