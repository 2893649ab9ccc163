/* Arguments to parameters, in Python's words (executor/plugin_bind.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/plugin_bind.h"

#define COUNT 3

static const char *const names[COUNT] = {"a", "b", "c"};

/* Binds f(a, b, c) of which `required_count` are required; `expected` is the values with "-" for an
 * absent one, or Python's message. */
static void check_bind(size_t required_count, const char *args, const char *kwargs,
                       const char *expected)
{
    struct plugin_parameters parameters = {BYTES("f"), names, required_count, COUNT};
    struct json args_value;
    struct json kwargs_value;
    struct json values[COUNT];
    struct buffer text;
    buffer_init(&text, 1024);
    assert_true(json_parse(bytes_from_text(args), &args_value, NULL));
    assert_true(json_parse(bytes_from_text(kwargs), &kwargs_value, NULL));
    if (plugin_bind(&parameters, args_value, kwargs_value, values, &text)) {
        for (size_t i = 0; i < COUNT; i++) {
            (void)buffer_append_text(&text, i > 0 ? " " : "");
            (void)buffer_append(&text,
                                values[i].type == JSON_TYPE_ABSENT ? BYTES("-") : values[i].text);
        }
    }
    (void)buffer_append_byte(&text, '\0');
    assert_string_equal(text.data, expected);
    buffer_fini(&text);
}

static void test_positions_and_keywords(void **state)
{
    (void)state;
    check_bind(3, "[1, [2], \"3\"]", "{}", "1 [2] \"3\"");
    check_bind(3, "[1]", "{\"c\": 3, \"b\": 2}", "1 2 3");
    check_bind(3, "[]", "{\"c\": 3, \"\\u0062\": 2, \"a\": null}", "null 2 3");
    check_bind(1, "[1]", "{\"c\": 3}", "1 - 3");
    check_bind(0, "[]", "{}", "- - -");
}

static void test_missing(void **state)
{
    (void)state;
    check_bind(3, "[1, 2]", "{}", "f() missing 1 required positional argument: 'c'");
    check_bind(3, "[]", "{\"b\": 1}", "f() missing 2 required positional arguments: 'a' and 'c'");
    check_bind(3, "[]", "{}", "f() missing 3 required positional arguments: 'a', 'b', and 'c'");
}

static void test_too_many(void **state)
{
    (void)state;
    check_bind(3, "[1, 2, 3, 4]", "{}", "f() takes 3 positional arguments but 4 were given");
    check_bind(1, "[1, 2, 3, 4]", "{}",
               "f() takes from 1 to 3 positional arguments but 4 were given");
    struct plugin_parameters none = {BYTES("f"), names, 0, 0};
    struct plugin_parameters one = {BYTES("f"), names, 1, 1};
    struct json args;
    struct json kwargs = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct json values[1];
    struct buffer text;
    buffer_init(&text, 1024);
    assert_true(json_parse(BYTES("[1]"), &args, NULL));
    assert_false(plugin_bind(&none, args, kwargs, values, &text));
    assert_true(
        bytes_equal_text(buffer_view(&text), "f() takes 0 positional arguments but 1 was given"));
    assert_true(json_parse(BYTES("[1, 2]"), &args, NULL));
    assert_false(plugin_bind(&one, args, kwargs, values, &text));
    assert_true(
        bytes_equal_text(buffer_view(&text), "f() takes 1 positional argument but 2 were given"));
    buffer_fini(&text);
}

static void test_wrong_keywords(void **state)
{
    (void)state;
    check_bind(3, "[1]", "{\"a\": 2}", "f() got multiple values for argument 'a'");
    check_bind(3, "[1, 2, 3]", "{\"x\\u00e9\": 2}",
               "f() got an unexpected keyword argument 'x\xc3\xa9'");
    check_bind(3, "[1, 2, 3, 4]", "{\"x\": 2}", "f() got an unexpected keyword argument 'x'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions_and_keywords),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_wrong_keywords),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
