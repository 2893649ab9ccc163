#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"

static void assert_bytes(struct bytes actual, const char *expected)
{
    assert_int_equal(actual.length, strlen(expected));
    assert_memory_equal(actual.data, expected, actual.length);
}

static struct json parsed(const char *text)
{
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct error error = {0};
    if (!json_parse(bytes_from_text(text), &value, &error)) {
        fail_msg("%s: %s", text, error.message);
    }
    return value;
}

static void test_accepts_what_python_accepts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "null",
        " true ",
        "-0",
        "1.5e-3",
        "NaN",
        "-Infinity",
        "[]",
        "{}",
        "[[], {}]",
        "\"\"",
        "\"\\ud83d\\ude00\"",
        "{\"a\": [1, {\"b\": null}]}",
        "\"\xc3\xa9\"",
        "[1,2 , 3]",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(texts); index++) {
        (void)parsed(texts[index]);
    }
}

static void test_refuses_what_python_refuses(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":}",
        "{\"a\" 1}",
        "{a: 1}",
        "01",
        "1.",
        "+1",
        "\"\\x\"",
        "\"\n\"",
        "\"\\u12g4\"",
        "[1 2]",
        "tru",
        "1 2",
        "\"abc",
        "[1}",
        "{\"a\":1]",
        "\"\xff\"",
        "\"\xed\xa0\x80\"",
        "\"\xc0\x80\"",
        "-",
        "{,}",
        "]",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(texts); index++) {
        struct json value;
        struct error error = {0};
        if (json_parse(bytes_from_text(texts[index]), &value, &error)) {
            fail_msg("accepted: %s", texts[index]);
        }
        assert_int_equal(error.kind, ERROR_INVALID);
    }
}

static void test_limits_nesting(void **state)
{
    (void)state;
    char text[2 * (JSON_MAX_DEPTH + 1) + 1];
    for (size_t depth = JSON_MAX_DEPTH; depth <= JSON_MAX_DEPTH + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        struct json value;
        struct error error = {0};
        assert_int_equal(json_parse(bytes_of(text, 2 * depth), &value, &error),
                         depth == JSON_MAX_DEPTH);
    }
}

static void test_finds_members(void **state)
{
    (void)state;
    struct json object =
        parsed("{\"a\": {\"x\": \"}\\\"\"}, \"b\" : [1, \"two\", {}],\"\\u0063\":-7, \"a\": 3}");
    int64_t number = 0;
    assert_true(json_int64(json_get(object, "a"), &number));
    assert_int_equal(number, 3);
    assert_true(json_int64(json_get(object, "c"), &number));
    assert_int_equal(number, -7);
    assert_int_equal(json_get(object, "d").type, JSON_TYPE_ABSENT);
    assert_int_equal(json_get(json_get(object, "b"), "x").type, JSON_TYPE_ABSENT);
    struct json list = json_get(object, "b");
    assert_int_equal(json_count(list), 3);
    assert_int_equal(json_count(object), 4);
    assert_bytes(json_at(list, 1).text, "\"two\"");
    assert_int_equal(json_at(list, 2).type, JSON_TYPE_OBJECT);
    assert_int_equal(json_at(list, 3).type, JSON_TYPE_ABSENT);
}

/* A quote ends its string unless an odd number of backslashes stands before it. */
static void test_finds_the_ends_of_strings(void **state)
{
    (void)state;
    struct json object =
        parsed("{\"\": \"\\\\\", \"q\\\"\": [\"\\\\\\\"]\"], \"b\": \"\\\"}\", \"last\": 7}");
    int64_t number = 0;
    assert_true(json_int64(json_get(object, "last"), &number));
    assert_int_equal(number, 7);
    assert_int_equal(json_get(object, "").text.length, 4);
    assert_int_equal(json_get(object, "b").text.length, 5);
}

static void test_unescapes_strings(void **state)
{
    (void)state;
    struct arena *arena = arena_new(64);
    struct bytes text = {NULL, 0};
    assert_true(json_text(parsed("\"plain\""), arena, &text));
    assert_bytes(text, "plain");
    assert_true(json_text(parsed("\"a\\n\\\"\\u00e9\\ud83d\\ude00\\ud800\""), arena, &text));
    assert_bytes(text, "a\n\"\xc3\xa9\xf0\x9f\x98\x80\xef\xbf\xbd");
    assert_false(json_text(parsed("1"), arena, &text));
    arena_free(&arena);
}

static void test_reads_numbers(void **state)
{
    (void)state;
    int64_t number = 0;
    assert_true(json_int64(parsed("-9223372036854775808"), &number));
    assert_true(number == INT64_MIN);
    assert_false(json_int64(parsed("9223372036854775808"), &number));
    assert_false(json_int64(parsed("1.0"), &number));
    assert_false(json_int64(parsed("\"1\""), &number));
    double real = 0;
    assert_true(json_double(parsed("2.5e1"), &real));
    assert_true(real > 24.99 && real < 25.01);
    assert_false(json_double(parsed("NaN"), &real));
    assert_false(json_double(parsed("1e999"), &real));
}

static void test_writes_as_python_does(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 4096);
    json_append_string(&buffer, bytes_from_text("a\"\\\n\x01\x7f\xc3\xa9\xf0\x9f\x98\x80\xff"));
    assert_bytes(buffer_view(&buffer),
                 "\"a\\\"\\\\\\n\\u0001\\u007f\\u00e9\\ud83d\\ude00\\ufffd\"");

    static const struct {
        double number;
        const char *repr;
    } reals[] = {
        {0.1, "0.1"},     {1.0, "1.0"},       {-2.5, "-2.5"},
        {1e16, "1e+16"},  {1e22, "1e+22"},    {123456789012345680.0, "1.2345678901234568e+17"},
        {1e-5, "1e-05"},  {0.0001, "0.0001"}, {1795455552.9481902, "1795455552.9481902"},
        {100.0, "100.0"}, {0.0, "0.0"},       {9007199254740993.0, "9007199254740992.0"},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(reals); index++) {
        buffer_clear(&buffer);
        json_append_double(&buffer, reals[index].number);
        assert_bytes(buffer_view(&buffer), reals[index].repr);
    }
    buffer_clear(&buffer);
    json_append_dumps(&buffer, parsed("{\"a\":[1,2.50,{ },[ ]],\"b\":\"\xc3\xa9\\/\",\"c\":null}"));
    assert_bytes(buffer_view(&buffer),
                 "{\"a\": [1, 2.5, {}, []], \"b\": \"\\u00e9/\", \"c\": null}");
    buffer_fini(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts_what_python_accepts),
        cmocka_unit_test(test_refuses_what_python_refuses),
        cmocka_unit_test(test_limits_nesting),
        cmocka_unit_test(test_finds_members),
        cmocka_unit_test(test_finds_the_ends_of_strings),
        cmocka_unit_test(test_unescapes_strings),
        cmocka_unit_test(test_reads_numbers),
        cmocka_unit_test(test_writes_as_python_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
