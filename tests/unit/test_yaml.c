/* YAML trees (base/yaml.h), hostile files included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/yaml.h"

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

static const struct yaml *parse(void **state, const char *text)
{
    struct error error = {0};
    const struct yaml *root = yaml_parse(bytes_from_text(text), "file.yaml", *state, &error);
    if (!root) {
        fail_msg("%s", error.message);
    }
    return root;
}

static void check_refused(void **state, const char *text, const char *expected)
{
    struct error error = {0};
    assert_null(yaml_parse(bytes_from_text(text), "file.yaml", *state, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" is not in \"%s\"", expected, error.message);
    }
}

static void test_tree_with_lines(void **state)
{
    const struct yaml *root = parse(state, "a: 1\nb:\n  - x\n  - 'y z'\nc: {d: [e]}\n");
    assert_int_equal(root->type, YAML_MAPPING);
    assert_int_equal(root->count, 3);
    const struct yaml *list = yaml_get(root, "b");
    assert_int_equal(list->type, YAML_SEQUENCE);
    assert_int_equal(list->count, 2);
    assert_int_equal(list->entries[1].value->line, 4);
    assert_int_equal(list->entries[1].value->column, 5);
    assert_false(list->entries[1].value->is_plain);
    assert_string_equal(list->entries[1].value->text.data, "y z");
    assert_string_equal(yaml_get(yaml_get(root, "c"), "d")->entries[0].value->text.data, "e");
    assert_null(yaml_get(root, "z"));
    assert_null(yaml_get(NULL, "a"));
    assert_null(yaml_get(list, "a"));
}

static void test_json_is_yaml(void **state)
{
    const struct yaml *root = parse(state, "{\"a\": [1, true, null, \"1\"]}");
    const struct yaml *list = yaml_get(root, "a");
    int64_t number = 0;
    bool flag = false;
    assert_true(yaml_integer(list->entries[0].value, &number));
    assert_int_equal(number, 1);
    assert_true(yaml_bool(list->entries[1].value, &flag));
    assert_true(flag);
    assert_true(yaml_is_null(list->entries[2].value));
    assert_false(yaml_integer(list->entries[3].value, &number));
}

static void test_empty(void **state)
{
    assert_int_equal(parse(state, "")->count, 0);
    assert_int_equal(parse(state, "# nothing\n")->count, 0);
    assert_true(yaml_is_null(yaml_get(parse(state, "a:\n"), "a")));
    assert_true(yaml_is_null(yaml_get(parse(state, "a: None\n"), "a")));
    assert_false(yaml_is_null(yaml_get(parse(state, "a: ''\n"), "a")));
    assert_true(yaml_is_null(NULL));
}

static void test_anchors_share(void **state)
{
    const struct yaml *root = parse(state, "a: &x {k: v}\nb: *x\n");
    assert_ptr_equal(yaml_get(root, "a"), yaml_get(root, "b"));
}

static void test_scalars(void **state)
{
    const struct yaml *root = parse(state, "[yes, Off, 'yes', -12, 1_000, 0x10, 1.5, 1e400, inf, "
                                           "99999999999999999999, 12 , 1e3, -, .]");
    bool flag = true;
    int64_t integer = 0;
    double number = 0;
    const struct yaml_entry *at = root->entries;
    assert_true(yaml_bool(at[0].value, &flag) && flag);
    assert_true(yaml_bool(at[1].value, &flag) && !flag);
    assert_false(yaml_bool(at[2].value, &flag));
    assert_true(yaml_integer(at[3].value, &integer));
    assert_int_equal(integer, -12);
    assert_false(yaml_integer(at[4].value, &integer));
    assert_false(yaml_integer(at[5].value, &integer));
    assert_true(yaml_double(at[6].value, &number));
    assert_true(number > 1.4 && number < 1.6);
    assert_false(yaml_double(at[7].value, &number));
    assert_false(yaml_double(at[8].value, &number));
    assert_false(yaml_integer(at[9].value, &integer));
    assert_true(yaml_integer(at[10].value, &integer));
    assert_true(yaml_double(at[11].value, &number));
    assert_false(yaml_double(at[12].value, &number));
    assert_false(yaml_double(at[13].value, &number));
    assert_string_equal(yaml_type_name(at[0].value), "true or false");
    assert_string_equal(yaml_type_name(at[2].value), "text");
    assert_string_equal(yaml_type_name(at[6].value), "a number");
    assert_string_equal(yaml_type_name(root), "a sequence");
}

static void test_refused(void **state)
{
    check_refused(state, "a: 1\nb: [", "file.yaml:3:");
    check_refused(state, "a: 1\n\tb: 2\n", "file.yaml:2:");
    check_refused(state, "a: 1\na: 2\n", "file.yaml:2: the key \"a\" is there twice");
    check_refused(state, "? [a]\n: b\n", "a key must be");
    check_refused(state, "a: 1\n---\nb: 2\n", "a second document");
    check_refused(state, "a: *nothing\n", "the alias names no anchor");
    check_refused(state, "a: &x [*x]\n", "the alias names no anchor");
    check_refused(state, "a: \"\\0\"\n", "NUL");
    check_refused(state, "a: \xff\xfe\n", "file.yaml:1:");
    check_refused(state, "a: @b\n", "file.yaml:1:");
}

static void test_deep_nesting(void **state)
{
    char text[4 * YAML_MAX_DEPTH + 1];
    memset(text, '[', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    check_refused(state, text, "nested too deeply");
}

/* Nine levels of nine aliases each: a billion nodes when copied, ninety when shared. */
static void test_billion_laughs(void **state)
{
    struct buffer text;
    buffer_init(&text, 4096);
    buffer_append_text(&text, "a0: &a0 [x]\n");
    for (int level = 1; level <= 9; level++) {
        buffer_format(&text, "a%d: &a%d [", level, level);
        for (int copy = 0; copy < 9; copy++) {
            buffer_format(&text, "%s*a%d", copy == 0 ? "" : ", ", level - 1);
        }
        buffer_append_text(&text, "]\n");
    }
    assert_non_null(yaml_parse(buffer_view(&text), "file.yaml", *state, NULL));
    assert_true(arena_bytes(*state) < 65536);
    buffer_fini(&text);
}

static void test_files(void **state)
{
    struct error error = {0};
    assert_null(yaml_read("/nonexistent/x.yaml", 100, *state, &error));
    assert_int_equal(error.kind, ERROR_NOT_FOUND);
    assert_null(yaml_read("/proc/self/maps", 100, *state, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    assert_null(yaml_read("/", 100, *state, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tree_with_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_json_is_yaml, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_empty, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_anchors_share, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_scalars, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deep_nesting, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_billion_laughs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
