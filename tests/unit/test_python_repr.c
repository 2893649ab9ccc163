#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/python_repr.h"
#include "support/golden.h"

static void test_shows_what_repr_shows(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = golden_read("repr.json", arena);
    struct json_walk walk = json_walk(rows);
    struct json row;
    assert_true(json_count(rows) > 20);
    while (json_next_element(&walk, &row)) {
        struct bytes text;
        struct bytes expected;
        struct json value;
        struct buffer shown;
        assert_true(json_text(json_at(row, 0), arena, &text));
        assert_true(json_text(json_at(row, 1), arena, &expected));
        assert_true(json_parse(text, &value, NULL));
        buffer_init(&shown, 4096);
        python_repr_append(&shown, value, 1024);
        golden_assert(buffer_view(&shown), expected, "repr()");
        buffer_fini(&shown);
    }
    arena_free(&arena);
}

static void assert_cut(const char *json_text, size_t max_bytes, const char *expected)
{
    struct json value;
    struct buffer shown;
    buffer_init(&shown, 4096);
    assert_true(json_parse(bytes_from_text(json_text), &value, NULL));
    python_repr_append(&shown, value, max_bytes);
    golden_assert(buffer_view(&shown), bytes_from_text(expected), json_text);
    buffer_fini(&shown);
}

static void test_a_long_value_ends_in_dots(void **state)
{
    (void)state;
    assert_cut("[1, 2, 3]", 9, "[1, 2, 3]");
    assert_cut("[1, 2, 3]", 8, "[1, 2, 3...");
    assert_cut("\"abcdef\"", 4, "'abc...");
    assert_cut("[12345, \"x\"]", 3, "[...");
    assert_cut("[null, null]", 7, "[None, ...");
}

static void test_a_cut_never_leaves_half_a_character(void **state)
{
    (void)state;
    assert_cut("\"ab\xe2\x82\xac\"", 4, "'ab...");
    assert_cut("\"ab\xe2\x82\xac\"", 6, "'ab\xe2\x82\xac...");
    assert_cut("\"ab\\n\"", 4, "'ab...");
    assert_cut("\"a\\u0000\"", 4, "'a...");
}

static void test_nothing_follows_what_did_not_fit(void **state)
{
    (void)state;
    assert_cut("[\"abc\\n\", 1]", 6, "['abc...");
    assert_cut("[123456789, 1]", 5, "[...");
}

static void test_text_is_shown_without_json(void **state)
{
    (void)state;
    struct buffer shown;
    buffer_init(&shown, 100);
    python_repr_append_text(&shown, bytes_of("a\0\xff\xc3\xa9", 5));
    golden_assert(buffer_view(&shown), BYTES("'a\\x00\\xff\xc3\xa9'"), "bytes of a peer");
    buffer_fini(&shown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shows_what_repr_shows),
        cmocka_unit_test(test_a_long_value_ends_in_dots),
        cmocka_unit_test(test_a_cut_never_leaves_half_a_character),
        cmocka_unit_test(test_nothing_follows_what_did_not_fit),
        cmocka_unit_test(test_text_is_shown_without_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
