#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dispatch/request.h"

/* The moves that the diagram in request.h draws. */
static bool is_drawn(enum request_state from, enum request_state to)
{
    static const enum request_state moves[][2] = {
        {REQUEST_RECEIVED, REQUEST_SCHEDULED}, {REQUEST_RECEIVED, REQUEST_THROTTLED},
        {REQUEST_RECEIVED, REQUEST_READY},     {REQUEST_RECEIVED, REQUEST_RUNNING},
        {REQUEST_RECEIVED, REQUEST_REPORTING}, {REQUEST_RECEIVED, REQUEST_DONE},
        {REQUEST_SCHEDULED, REQUEST_RECEIVED}, {REQUEST_SCHEDULED, REQUEST_DONE},
        {REQUEST_THROTTLED, REQUEST_RECEIVED}, {REQUEST_THROTTLED, REQUEST_DONE},
        {REQUEST_READY, REQUEST_RUNNING},      {REQUEST_READY, REQUEST_REPORTING},
        {REQUEST_READY, REQUEST_DONE},         {REQUEST_RUNNING, REQUEST_REPORTING},
        {REQUEST_RUNNING, REQUEST_READY},      {REQUEST_RUNNING, REQUEST_DONE},
        {REQUEST_REPORTING, REQUEST_DONE},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(moves); index++) {
        if (moves[index][0] == from && moves[index][1] == to) {
            return true;
        }
    }
    return false;
}

/* Whether the move is made; one that is not allowed ends a child by its assertion. */
static bool can_move(enum request_state from, enum request_state to)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        struct request request = {.state = from};
        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(STDERR_FILENO);
        request_move(&request, to);
        _exit(request.state == to ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void test_only_the_drawn_moves_are_made(void **state)
{
    (void)state;
    for (int from = REQUEST_RECEIVED; from <= REQUEST_DONE; from++) {
        for (int to = REQUEST_RECEIVED; to <= REQUEST_DONE; to++) {
            bool can = can_move((enum request_state)from, (enum request_state)to);
            if (can != is_drawn((enum request_state)from, (enum request_state)to)) {
                fail_msg("%s to %s: %s", request_state_name((enum request_state)from),
                         request_state_name((enum request_state)to), can ? "made" : "refused");
            }
        }
    }
}

static void test_every_state_has_a_name(void **state)
{
    (void)state;
    for (int one = REQUEST_RECEIVED; one <= REQUEST_DONE; one++) {
        for (int other = one + 1; other <= REQUEST_DONE; other++) {
            assert_string_not_equal(request_state_name((enum request_state)one),
                                    request_state_name((enum request_state)other));
        }
    }
    assert_string_equal(request_state_name(REQUEST_THROTTLED), "throttled");
}

static void test_the_header_decides_over_the_type_what_is_stored(void **state)
{
    (void)state;

    static const struct {
        enum message_flag header;
        enum message_flag type;
        bool keeps_errors;
        bool result;
        bool errors;
    } rows[] = {
        {MESSAGE_UNSET, MESSAGE_UNSET, false, true, true},
        {MESSAGE_UNSET, MESSAGE_NO, false, true, true},
        {MESSAGE_UNSET, MESSAGE_YES, false, false, false},
        {MESSAGE_UNSET, MESSAGE_YES, true, false, true},
        {MESSAGE_NO, MESSAGE_YES, false, true, true},
        {MESSAGE_YES, MESSAGE_NO, false, false, false},
        {MESSAGE_YES, MESSAGE_NO, true, false, true},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        struct task_type type = registry_defaults;
        type.ignore_result = rows[index].type;
        type.store_errors_even_if_ignored = rows[index].keeps_errors;
        struct request request = {.type = &type, .message = {.ignore_result = rows[index].header}};
        assert_int_equal(request_stores_result(&request), rows[index].result);
        assert_int_equal(request_stores_errors(&request), rows[index].errors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_drawn_moves_are_made),
        cmocka_unit_test(test_every_state_has_a_name),
        cmocka_unit_test(test_the_header_decides_over_the_type_what_is_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
