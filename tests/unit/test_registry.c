#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatch/registry.h"

static struct registry *registry_of(const char *const *patterns)
{
    struct registry *registry = registry_new();
    for (; *patterns; patterns++) {
        struct task_type type = registry_defaults;
        type.pattern = *patterns;
        (void)registry_add(registry, &type);
    }
    return registry;
}

static void assert_found(const struct registry *registry, struct bytes task, const char *pattern)
{
    const struct task_type *type = registry_find(registry, task);
    if (!pattern) {
        assert_null(type);
        return;
    }
    assert_non_null(type);
    assert_string_equal(type->pattern, pattern);
}

static void test_the_first_pattern_that_matches_wins(void **state)
{
    (void)state;
    static const char *const patterns[] = {"app.train", "app.*", "*.t?st", "x[ab]", NULL};
    struct registry *registry = registry_of(patterns);
    for (int round = 0; round < 2; round++) { /* the second from what the first remembered */
        assert_found(registry, BYTES("app.train"), "app.train");
        assert_found(registry, BYTES("app.trainer"), "app.*");
        assert_found(registry, BYTES("app.deep.er/name"), "app.*");
        assert_found(registry, BYTES("my.test"), "*.t?st");
        assert_found(registry, BYTES("xa"), "x[ab]");
        assert_found(registry, BYTES("xc"), NULL);
        assert_found(registry, BYTES("App.train"), NULL);
        assert_found(registry, BYTES(""), NULL);
        assert_found(registry, BYTES("appXtrain"), NULL);
    }
    registry_free(&registry);
    assert_null(registry);
}

static void test_a_tasks_own_name_comes_before_globs(void **state)
{
    (void)state;
    static const char *const patterns[] = {"a*", NULL};
    struct registry *registry = registry_of(patterns);
    struct task_type type = registry_defaults;
    type.is_exact = true;
    type.pattern = "a[x]*";
    type.rate_limit = "10/m";
    const struct task_type *row = registry_add(registry, &type);
    (void)registry_add(registry, &type); /* a second one of that name is never found */
    assert_ptr_equal(registry_find(registry, BYTES("a[x]*")), row);
    assert_string_equal(row->rate_limit, "10/m");
    assert_found(registry, BYTES("ax"), "a*");
    assert_found(registry, BYTES("b"), NULL);
    registry_free(&registry);
}

static void test_an_empty_registry_knows_nothing(void **state)
{
    (void)state;
    static const char *const patterns[] = {NULL};
    struct registry *registry = registry_of(patterns);
    assert_found(registry, BYTES("any"), NULL);
    assert_null(registry_row(registry, 0));
    registry_free(&registry);
    registry_free(&registry);
}

static void test_a_name_with_a_nul_is_nobodys(void **state)
{
    (void)state;
    static const char *const patterns[] = {"app", "*", NULL};
    struct registry *registry = registry_of(patterns);
    assert_found(registry, bytes_of("app\0rm", 6), NULL);
    registry_free(&registry);
}

static void test_a_row_is_a_copy(void **state)
{
    (void)state;
    char pattern[] = "app";
    char template_path[] = "job.yaml";
    char name[] = "ValueError";
    const char *names[] = {name, NULL};
    struct task_type type = registry_defaults;
    type.pattern = pattern;
    type.job_template = template_path;
    type.autoretry_for = names;
    struct registry *registry = registry_new();
    struct task_type *row = registry_add(registry, &type);
    memset(pattern, 'x', 3);
    memset(template_path, 'x', 3);
    memset(name, 'x', 3);
    assert_string_equal(row->pattern, "app");
    assert_string_equal(row->job_template, "job.yaml");
    assert_string_equal(row->autoretry_for[0], "ValueError");
    assert_null(row->autoretry_for[1]);
    assert_null(row->overrides);
    assert_ptr_equal(registry_find(registry, BYTES("app")), row);
    registry_free(&registry);
}

static void test_rows_stay_where_they_are_when_more_come(void **state)
{
    (void)state;
    struct registry *registry = registry_new();
    struct task_type type = registry_defaults;
    type.pattern = "first";
    const struct task_type *first = registry_add(registry, &type);
    for (int count = 0; count < 1000; count++) {
        type.pattern = "other";
        (void)registry_add(registry, &type);
    }
    assert_ptr_equal(registry_row(registry, 0), first);
    assert_ptr_equal(registry_find(registry, BYTES("first")), first);
    assert_non_null(registry_row(registry, 1000));
    assert_null(registry_row(registry, 1001));
    registry_free(&registry);
}

static void test_names_of_peers_are_remembered_up_to_a_bound(void **state)
{
    (void)state;
    static const char *const patterns[] = {"*", NULL};
    struct registry *registry = registry_of(patterns);
    for (int count = 0; count < 10100; count++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "task-%d", count);
        assert_found(registry, bytes_from_text(name), "*");
    }
    registry_free(&registry);
}

static void test_the_defaults_are_celerys(void **state)
{
    (void)state;
    const struct task_type *type = &registry_defaults;
    assert_int_equal(type->executor, TASK_KUBERNETES);
    assert_false(type->acks_late);
    assert_true(type->acks_on_failure && type->acks_on_timeout);
    assert_false(type->reject_on_worker_lost || type->track_started);
    assert_int_equal(type->max_retries, 3);
    assert_true(type->default_retry_delay_s == 180 && type->retry_backoff_max_s == 600);
    assert_true(type->retry_jitter);
    assert_true(type->retry_backoff == 0);
    assert_true(type->send_events && !type->retry_on_worker_lost);
    assert_null(type->rate_limit);
    assert_null(type->throws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_pattern_that_matches_wins),
        cmocka_unit_test(test_a_tasks_own_name_comes_before_globs),
        cmocka_unit_test(test_an_empty_registry_knows_nothing),
        cmocka_unit_test(test_a_name_with_a_nul_is_nobodys),
        cmocka_unit_test(test_a_row_is_a_copy),
        cmocka_unit_test(test_rows_stay_where_they_are_when_more_come),
        cmocka_unit_test(test_names_of_peers_are_remembered_up_to_a_bound),
        cmocka_unit_test(test_the_defaults_are_celerys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
