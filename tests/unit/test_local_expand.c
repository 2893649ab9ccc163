/* Variables and mount paths in strings (executor/local_expand.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/local_expand.h"

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct local_pairs *pairs = arena_alloc(arena, sizeof(*pairs));
    pairs->arena = arena;
    *state = pairs;
    return 0;
}

static int tear_down(void **state)
{
    struct local_pairs *pairs = *state;
    struct arena *arena = pairs->arena;
    arena_free(&arena);
    return 0;
}

static void test_pairs(void **state)
{
    struct local_pairs *pairs = *state;
    assert_null(local_expand_get(pairs, "A"));
    for (size_t i = 0; i < 20; i++) {
        local_expand_set(pairs, arena_format(pairs->arena, "N%zu", i), "x");
    }
    local_expand_set(pairs, "N7", "y");
    assert_int_equal(pairs->count, 20);
    assert_string_equal(local_expand_get(pairs, "N7"), "y");
    assert_string_equal(local_expand_get(pairs, "N19"), "x");
}

static void test_variables(void **state)
{
    struct local_pairs *pairs = *state;
    local_expand_set(pairs, "A", "1");
    local_expand_set(pairs, "B", "two words");
    static const char *const cases[][2] = {
        {"", ""},
        {"plain", "plain"},
        {"$(A)", "1"},
        {"<$(A)-$(B)>", "<1-two words>"},
        {"$(NONE) $(A)", "$(NONE) 1"},
        {"$$(A)", "$(A)"},
        {"$$$(A)", "$1"},
        {"$A ${A} $", "$A ${A} $"},
        {"$(A", "$(A"},
        {"$()", "$()"},
        {"a$", "a$"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        assert_string_equal(local_expand_variables(pairs, cases[i][0]), cases[i][1]);
    }
}

static void test_variables_that_grow_without_end_are_refused(void **state)
{
    struct local_pairs *pairs = *state;
    const char *value = "0123456789abcdef";
    local_expand_set(pairs, "A", value);
    for (size_t doubling = 0; value && doubling < 40; doubling++) {
        value = local_expand_variables(pairs, "$(A)$(A)");
        if (value) {
            local_expand_set(pairs, "A", value);
        }
    }
    assert_null(value);
}

static void test_paths(void **state)
{
    struct local_pairs *pairs = *state;
    local_expand_set(pairs, "/data", "/x/volumes/data");
    local_expand_set(pairs, "/data/deep", "/x/volumes/deep");
    static const char *const cases[][2] = {
        {"/data", "/x/volumes/data"},
        {"/data/", "/x/volumes/data/"},
        {"/data/a/b", "/x/volumes/data/a/b"},
        {"/data/deep/c", "/x/volumes/deep/c"},
        {"/database", "/database"},
        {"--out=/data", "--out=/data"},
        {"", ""},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        assert_string_equal(local_expand_path(pairs, cases[i][0]), cases[i][1]);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pairs),
        TEST(test_variables),
        TEST(test_variables_that_grow_without_end_are_refused),
        TEST(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
