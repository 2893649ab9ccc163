#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatch/retry_policy.h"
#include "support/golden.h"

static bool applies(const struct task_type *type, const char *module, const char *name,
                    int64_t retries)
{
    return retry_policy_applies(type, bytes_from_text(module), bytes_from_text(name), retries);
}

static void test_an_exception_is_named_by_class_or_by_module_and_class(void **state)
{
    (void)state;
    static const char *const names[] = {"OOMKilled", "app.errors.Busy", NULL};
    struct task_type type = registry_defaults;
    type.autoretry_for = names;
    assert_true(applies(&type, "petiole.exceptions", "OOMKilled", 0));
    assert_true(applies(&type, "app.errors", "Busy", 0));
    assert_false(applies(&type, "app", "errors.Busier", 0));
    assert_false(applies(&type, "other", "Busy", 0));
    assert_false(applies(&type, "app.errors", "Bus", 0));
    assert_false(applies(&type, "", "", 0));
}

static void test_exception_names_them_all(void **state)
{
    (void)state;
    static const char *const names[] = {"Exception", NULL};
    struct task_type type = registry_defaults;
    type.autoretry_for = names;
    assert_true(applies(&type, "any", "Thing", 0));
}

static void test_nothing_is_retried_unless_asked_for(void **state)
{
    (void)state;
    assert_false(applies(&registry_defaults, "builtins", "ValueError", 0));
}

static void test_dont_autoretry_for_wins(void **state)
{
    (void)state;
    static const char *const names[] = {"Exception", NULL};
    static const char *const but[] = {"builtins.ValueError", NULL};
    struct task_type type = registry_defaults;
    type.autoretry_for = names;
    type.dont_autoretry_for = but;
    assert_false(applies(&type, "builtins", "ValueError", 0));
    assert_true(applies(&type, "builtins", "KeyError", 0));
}

static void test_max_retries_is_how_many_more_tries_there_are(void **state)
{
    (void)state;
    static const char *const names[] = {"Exception", NULL};
    struct task_type type = registry_defaults;
    type.autoretry_for = names;
    assert_true(applies(&type, "m", "E", 2));
    assert_false(applies(&type, "m", "E", 3));
    type.max_retries = 0;
    assert_false(applies(&type, "m", "E", 0));
    type.max_retries = -1;
    assert_true(applies(&type, "m", "E", 1000000));
}

static void test_without_backoff_the_delay_is_the_default(void **state)
{
    (void)state;
    assert_true(retry_policy_countdown_s(&registry_defaults, 5, 99) == 180.0);
}

static void test_backoff_is_celerys(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = golden_read("backoff.json", arena);
    struct json_walk walk = json_walk(rows);
    struct json row;
    assert_true(json_count(rows) > 50);
    while (json_next_element(&walk, &row)) {
        struct task_type type = registry_defaults;
        int64_t retries = 0;
        double countdown_s = -1;
        type.retry_jitter = false;
        assert_true(json_double(json_at(row, 0), &type.retry_backoff));
        assert_true(json_int64(json_at(row, 1), &retries));
        assert_true(json_double(json_at(row, 2), &type.retry_backoff_max_s));
        assert_true(json_double(json_at(row, 3), &countdown_s));
        assert_true(retry_policy_countdown_s(&type, retries, 12345) == countdown_s);
    }
    arena_free(&arena);
}

static void test_jitter_takes_whole_seconds_up_to_the_countdown(void **state)
{
    (void)state;
    struct task_type type = registry_defaults;
    type.retry_backoff = 1;
    bool seen[5] = {false};
    for (uint64_t random = 0; random < 100; random++) {
        double countdown_s = retry_policy_countdown_s(&type, 2, random * UINT64_C(2654435761));
        assert_true(countdown_s >= 0 && countdown_s <= 4);
        assert_true(countdown_s == (double)(int)countdown_s);
        seen[(int)countdown_s] = true;
    }
    for (size_t second = 0; second < ARRAY_LENGTH(seen); second++) {
        assert_true(seen[second]);
    }
}

static void test_a_factor_below_one_is_one_and_fractions_are_cut(void **state)
{
    (void)state;
    struct task_type type = registry_defaults;
    type.retry_jitter = false;
    type.retry_backoff = 0.5;
    assert_true(retry_policy_countdown_s(&type, 3, 0) == 8.0);
    type.retry_backoff = 2.9;
    assert_true(retry_policy_countdown_s(&type, 3, 0) == 16.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_exception_is_named_by_class_or_by_module_and_class),
        cmocka_unit_test(test_exception_names_them_all),
        cmocka_unit_test(test_nothing_is_retried_unless_asked_for),
        cmocka_unit_test(test_dont_autoretry_for_wins),
        cmocka_unit_test(test_max_retries_is_how_many_more_tries_there_are),
        cmocka_unit_test(test_without_backoff_the_delay_is_the_default),
        cmocka_unit_test(test_backoff_is_celerys),
        cmocka_unit_test(test_jitter_takes_whole_seconds_up_to_the_countdown),
        cmocka_unit_test(test_a_factor_below_one_is_one_and_fractions_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
