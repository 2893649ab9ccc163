/* The parent of the pool's Python processes (executor/process_nursery.h). */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "executor/local_process.h"
#include "executor/process_nursery.h"
#include "support/loop_until.h"

#define MAX_PACKETS 100000

static void on_ended(void *context, int exit_code, int signal_number)
{
    bool *has_ended = context;
    (void)exit_code;
    (void)signal_number;
    *has_ended = true;
}

static void on_closed(void *context)
{
    *(bool *)context = true;
}

static bool is_true(void *context)
{
    return *(bool *)context;
}

/* One that imports the app for long hears nothing meanwhile. */
static void test_says_when_no_more_can_be_asked_for(void **state)
{
    static const struct process_nursery_events events = {.on_ended = on_ended};
    char name[] = "sleep";
    char seconds[] = "60";
    char *arguments[] = {name, seconds, NULL};
    char *environment[] = {NULL};
    const struct process_nursery_options options = {"/bin/sleep", arguments, environment};
    struct error error;
    bool has_ended = false;
    bool is_closed = false;
    bool ok = true;
    (void)state;
    struct loop *loop = loop_new(LOOP_CLOCK_REAL);
    struct local_process_table *table = local_process_table_new(loop, &error);
    struct process_nursery *nursery =
        process_nursery_new(loop, table, &options, &events, &has_ended, &error);
    assert_non_null(nursery);
    for (int number = 1; ok && number < MAX_PACKETS; number++) {
        const struct process_child_ends ends = {open("/dev/null", O_RDWR | O_CLOEXEC),
                                                open("/dev/null", O_RDWR | O_CLOEXEC)};
        ok = process_nursery_fork(nursery, number, &ends, &error);
    }
    assert_false(ok);
    assert_int_equal(error.kind, ERROR_TEMPORARY);
    process_nursery_stop(nursery);
    loop_until(loop, is_true, &has_ended);
    process_nursery_free(&nursery);
    local_process_table_close(&table, on_closed, &is_closed);
    loop_until(loop, is_true, &is_closed);
    loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_says_when_no_more_can_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
