#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "dispatch/revoked.h"

static void remembers_what_was_revoked(void **state)
{
    (void)state;
    struct revoked *revoked = revoked_new(0, 0);
    char id[] = "t1";
    revoked_add(revoked, bytes_from_text(id), false, 100);
    id[1] = '2';
    assert_true(revoked_has(revoked, BYTES("t1")));
    assert_false(revoked_has(revoked, BYTES("t2")));
    assert_false(revoked_terminates(revoked, BYTES("t1")));
    revoked_free(&revoked);
    assert_null(revoked);
    revoked_free(&revoked);
    assert_false(revoked_has(NULL, BYTES("t1")));
    assert_false(revoked_terminates(NULL, BYTES("t1")));
}

static void terminate_stays_said(void **state)
{
    (void)state;
    struct revoked *revoked = revoked_new(0, 0);
    revoked_add(revoked, BYTES("t1"), true, 100);
    revoked_add(revoked, BYTES("t1"), false, 101);
    assert_true(revoked_terminates(revoked, BYTES("t1")));
    assert_int_equal(revoked_count(revoked), 1);
    revoked_free(&revoked);
}

static void the_oldest_goes_when_there_are_too_many(void **state)
{
    (void)state;
    struct revoked *revoked = revoked_new(3, 1000);
    revoked_add(revoked, BYTES("a"), false, 1);
    revoked_add(revoked, BYTES("b"), false, 2);
    revoked_add(revoked, BYTES("c"), false, 3);
    revoked_add(revoked, BYTES("a"), false, 4);
    revoked_add(revoked, BYTES("d"), false, 5);
    assert_int_equal(revoked_count(revoked), 3);
    assert_true(revoked_has(revoked, BYTES("a")));
    assert_false(revoked_has(revoked, BYTES("b")));
    revoked_free(&revoked);
}

static void what_has_expired_goes_when_the_set_is_full(void **state)
{
    (void)state;
    struct revoked *revoked = revoked_new(3, 10);
    revoked_add(revoked, BYTES("a"), false, 0);
    revoked_add(revoked, BYTES("b"), false, 100);
    assert_true(revoked_has(revoked, BYTES("a")));
    revoked_add(revoked, BYTES("c"), false, 105);
    assert_false(revoked_has(revoked, BYTES("a")));
    assert_true(revoked_has(revoked, BYTES("b")));
    revoked_free(&revoked);
}

static void many_stay_within_celerys_limit(void **state)
{
    (void)state;
    struct revoked *revoked = revoked_new(0, 0);
    char id[32];
    for (int number = 0; number < REVOKED_MAX + 1000; number++) {
        int length = snprintf(id, sizeof(id), "task-%d", number);
        revoked_add(revoked, bytes_of(id, (size_t)length), false, number / 1000.0);
    }
    assert_int_equal(revoked_count(revoked), REVOKED_MAX);
    assert_false(revoked_has(revoked, BYTES("task-999")));
    assert_true(revoked_has(revoked, BYTES("task-1000")));
    revoked_free(&revoked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(remembers_what_was_revoked),
        cmocka_unit_test(terminate_stays_said),
        cmocka_unit_test(the_oldest_goes_when_there_are_too_many),
        cmocka_unit_test(what_has_expired_goes_when_the_set_is_full),
        cmocka_unit_test(many_stay_within_celerys_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
