#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "base/attributes.h"
#include "base/bytes.h"

static const struct bytes nothing = {NULL, 0};

static void test_views_are_made_of_literals_texts_and_lengths(void **state)
{
    (void)state;
    assert_int_equal(BYTES("abc").length, 3);
    assert_int_equal(BYTES("").length, 0);
    assert_int_equal(bytes_from_text("ab").length, 2);
    assert_int_equal(bytes_from_text(NULL).length, 0);
    assert_int_equal(bytes_of("a\0b", 3).length, 3);
}

static void test_views_are_equal_by_what_they_show(void **state)
{
    (void)state;
    char copy[] = "abc";
    assert_true(bytes_equal(BYTES("abc"), bytes_from_text(copy)));
    assert_false(bytes_equal(BYTES("abc"), BYTES("abd")));
    assert_false(bytes_equal(BYTES("abc"), BYTES("ab")));
    assert_true(bytes_equal(nothing, BYTES("")));
    assert_false(bytes_equal(bytes_of("a\0b", 3), bytes_of("a\0c", 3)));
    assert_true(bytes_equal_text(BYTES("abc"), "abc"));
    assert_false(bytes_equal_text(BYTES("abc"), "abcd"));
    assert_true(bytes_equal_text(nothing, ""));
}

static void test_a_prefix_is_found(void **state)
{
    (void)state;
    assert_true(bytes_starts_with(BYTES("abc"), BYTES("ab")));
    assert_true(bytes_starts_with(BYTES("abc"), BYTES("abc")));
    assert_true(bytes_starts_with(BYTES("abc"), nothing));
    assert_true(bytes_starts_with(nothing, nothing));
    assert_false(bytes_starts_with(BYTES("abc"), BYTES("abcd")));
    assert_false(bytes_starts_with(BYTES("abc"), BYTES("b")));
    assert_false(bytes_starts_with(nothing, BYTES("a")));
}

static void test_skipping_stops_at_the_end(void **state)
{
    (void)state;
    assert_true(bytes_equal_text(bytes_skip(BYTES("abc"), 1), "bc"));
    assert_true(bytes_equal_text(bytes_skip(BYTES("abc"), 0), "abc"));
    assert_int_equal(bytes_skip(BYTES("abc"), 3).length, 0);
    assert_int_equal(bytes_skip(BYTES("abc"), 99).length, 0);
    assert_int_equal(bytes_skip(nothing, 1).length, 0);
}

static void test_finding_gives_the_length_when_there_is_none(void **state)
{
    (void)state;
    assert_int_equal(bytes_find(BYTES("a.b.c"), '.'), 1);
    assert_int_equal(bytes_find(BYTES("abc"), '.'), 3);
    assert_int_equal(bytes_find(nothing, '.'), 0);
    assert_int_equal(bytes_find(bytes_of("a\0b", 3), '\0'), 1);
}

static void test_views_can_be_printed(void **state)
{
    (void)state;
    char text[32];
    (void)snprintf(text, sizeof(text), "<%.*s%.*s>", BYTES_FORMAT(bytes_of("abcd", 2)),
                   BYTES_FORMAT(nothing));
    assert_string_equal(text, "<ab>");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_are_made_of_literals_texts_and_lengths),
        cmocka_unit_test(test_views_are_equal_by_what_they_show),
        cmocka_unit_test(test_a_prefix_is_found),
        cmocka_unit_test(test_skipping_stops_at_the_end),
        cmocka_unit_test(test_finding_gives_the_length_when_there_is_none),
        cmocka_unit_test(test_views_can_be_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
