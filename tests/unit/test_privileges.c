/* Who may take pickle (worker/privileges.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/privileges.h"

static void test_refuses_who_may_be_root(void **state)
{
    static const struct {
        struct privileges privileges;
        bool is_allowed;
    } rows[] = {
        {{1, 1, 2, 2, "worker", "worker"}, true},  {{1, 1, 2, 2, "sudoers", "wheels"}, true},
        {{0, 1, 2, 2, "worker", "worker"}, false}, {{1, 0, 2, 2, "worker", "worker"}, false},
        {{1, 1, 2, 3, "sudo", "worker"}, false},   {{1, 1, 2, 3, "worker", "wheel"}, false},
        {{1, 1, 2, 3, NULL, "worker"}, false},     {{1, 1, 2, 3, "worker", NULL}, false},
    };

    (void)state;
    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        struct error error = {.kind = ERROR_NONE};
        bool is_allowed = privileges_allow_pickle(&rows[index].privileges, &error);
        assert_int_equal(is_allowed, rows[index].is_allowed);
        assert_int_equal(error.kind, is_allowed ? ERROR_NONE : ERROR_REFUSED);
    }
}

static void test_says_who_it_is(void **state)
{
    const struct privileges unknown = {4294967295U, 4294967294U, 4294967293U,
                                       4294967292U, NULL,        NULL};
    struct error error;
    (void)state;
    assert_false(privileges_allow_pickle(&unknown, &error));
    assert_non_null(strstr(error.message, "An entry for the specified gid or egid was not found."));
    assert_non_null(strstr(error.message, "C_FORCE_ROOT"));
    assert_non_null(
        strstr(error.message, " uid=4294967295 euid=4294967294 gid=4294967293 egid=4294967292"));
}

static void test_reads_those_of_the_process(void **state)
{
    struct arena *arena = arena_new(1024);
    (void)state;
    struct privileges privileges = privileges_of_process(arena);
    assert_int_equal(privileges.effective_uid, geteuid());
    assert_int_equal(privileges.gid, getgid());
    if (privileges.gid == 0) {
        assert_string_equal(privileges.group, "root");
    }
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_who_may_be_root),
        cmocka_unit_test(test_says_who_it_is),
        cmocka_unit_test(test_reads_those_of_the_process),
    };
    return cmocka_run_group_tests_name("privileges", tests, NULL, NULL);
}
