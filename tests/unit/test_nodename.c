/* Node names and the abbreviations in them (worker/nodename.h); the expected ones are Celery's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/nodename.h"

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

static void check_name(void **state, const char *text, const char *expected)
{
    const char *name = NULL;
    struct error error = {0};
    assert_true(nodename_make(text, "box.example.com", *state, &name, &error));
    assert_string_equal(name, expected);
}

static void test_names(void **state)
{
    check_name(state, NULL, "celery@box.example.com");
    check_name(state, "", "celery@box.example.com");
    check_name(state, "w1", "celery@w1");
    check_name(state, "w1@%h", "w1@box.example.com");
    check_name(state, "w1@", "w1@box.example.com");
    check_name(state, "@x", "celery@x");
    check_name(state, "%h", "celery@box.example.com");
    check_name(state, "w%%x@%d", "w%x@example.com");
    check_name(state, "%n@%h", "box@box.example.com");
    check_name(state, "a@b@c", "a@b@c");
}

static void test_unknown_letter(void **state)
{
    const char *name = "unchanged";
    struct error error = {0};
    assert_false(nodename_make("x@%q", "box", *state, &name, &error));
    assert_non_null(strstr(error.message, "unknown format %q"));
    assert_false(nodename_make("x@%", "box", *state, &name, &error));
    assert_false(nodename_make("x@%i", "box", *state, &name, &error));
    assert_string_equal(name, "unchanged");
}

static void test_files(void **state)
{
    const char *path = NULL;
    struct error error = {0};
    assert_true(nodename_expand("/log/%n-%h-%d-%i%I-%p-%%.log", "w1@box.example.com", *state, &path,
                                &error));
    assert_string_equal(path, "/log/w1-box.example.com-example.com-0-w1@box.example.com-%.log");
    assert_false(nodename_expand("/log/%s", "w1@box", *state, &path, &error));
}

static void test_endless_name(void **state)
{
    char text[10000];
    const char *name = NULL;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_false(nodename_make(text, "box", *state, &name, NULL));
}

static void test_host(void **state)
{
    assert_string_equal(nodename_host("w1@box"), "box");
    assert_string_equal(nodename_host("box"), "box");
    assert_true(strlen(nodename_hostname(*state)) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_letter, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_endless_name, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_host, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("nodename", tests, NULL, NULL);
}
