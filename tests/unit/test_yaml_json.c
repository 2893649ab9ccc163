/* JSON as a tree of yaml.h (base/yaml_json.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/yaml_json.h"

static int set_up(void **state)
{
    *state = arena_new(1024);
    return 0;
}

static int tear_down(void **state)
{
    struct arena *arena = *state;
    arena_free(&arena);
    return 0;
}

static const struct yaml *tree(struct arena *arena, struct bytes text, struct error *reterr)
{
    struct json value;
    struct error error = {0};
    if (!json_parse(text, &value, &error)) {
        fail_msg("%s", error.message);
    }
    return yaml_json_tree(value, arena, reterr);
}

static void test_every_type(void **state)
{
    const struct yaml *root = tree(*state,
                                   BYTES("{\"text\": \"a\\n\\u00e9\\ud83d\\ude00\\/\", \"n\": -12,"
                                         " \"f\": 1.5e3, \"yes\": true, \"none\": null,"
                                         " \"list\": [1, [], {}], \"k\\u0065y\": \"null\"}"),
                                   NULL);
    int64_t integer = 0;
    double number = 0;
    bool flag = false;
    assert_non_null(root);
    assert_string_equal(yaml_get(root, "text")->text.data, "a\n\xc3\xa9\xf0\x9f\x98\x80/");
    assert_true(yaml_integer(yaml_get(root, "n"), &integer));
    assert_int_equal(integer, -12);
    assert_true(yaml_double(yaml_get(root, "f"), &number));
    assert_true(number == 1500.0);
    assert_true(yaml_bool(yaml_get(root, "yes"), &flag));
    assert_true(flag);
    assert_true(yaml_is_null(yaml_get(root, "none")));
    assert_int_equal(yaml_get(root, "list")->count, 3);
    assert_int_equal(yaml_get(root, "list")->entries[2].value->type, YAML_MAPPING);
    assert_false(yaml_is_null(yaml_get(root, "key"))); /* a text, not null */
}

static void test_long_texts(void **state)
{
    struct arena *arena = *state;
    struct buffer text;
    buffer_init(&text, 200000);
    (void)buffer_append_text(&text, "{\"");
    for (int index = 0; index < 50000; index++) {
        (void)buffer_append_text(&text, "k");
    }
    (void)buffer_append_text(&text, "\": \"\x7f\t\"}");
    text.data[text.length - 3] = ' '; /* a tab must be escaped in JSON */
    const struct yaml *root = tree(arena, buffer_view(&text), NULL);
    assert_non_null(root);
    assert_int_equal(root->entries[0].key->text.length, 50000);
    assert_string_equal(root->entries[0].value->text.data, "\x7f ");
    buffer_fini(&text);
}

static void test_refused(void **state)
{
    struct error error = {0};
    assert_null(tree(*state, BYTES("[\"a\\u0000b\"]"), &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    assert_non_null(strstr(error.message, "NUL"));
    assert_null(tree(*state, BYTES("{\"a\\u0000b\": 1}"), &error));
    char deep[2 * YAML_MAX_DEPTH + 2];
    memset(deep, '[', YAML_MAX_DEPTH + 1);
    memset(deep + YAML_MAX_DEPTH + 1, ']', YAML_MAX_DEPTH + 1);
    assert_null(tree(*state, bytes_of(deep, sizeof(deep)), &error));
    assert_non_null(strstr(error.message, "nested too deeply"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_type, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_texts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
