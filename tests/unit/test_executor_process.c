/* The pool of Python processes on a virtual clock, with a parent that is no Python
 * (executor/executor_process.h). The executor is looked into only to wait for it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/wait.h>

#include "executor/executor_process_private.h"
#include "support/executor_fixture.h"
#include "support/fake_pool.h"

#define DEADLINE_S 60 /* a virtual clock ends no wait */
#define MAX_TASKS  4

struct fixture {
    struct executor_fixture common;
    struct executor_process *process;
    char *arguments[3];
    struct executor_record *records[MAX_TASKS];
    struct executor_events events; /* the fixture's, and on_concluded */
    size_t concluded_count;
    size_t told_count; /* of these by Celery */
};

static void on_concluded(void *context, struct request *request, const struct outcome *told)
{
    struct fixture *fixture = context; /* the common one is its head */
    (void)request;
    fixture->concluded_count++;
    fixture->told_count += told ? 1 : 0;
}

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    (void)alarm(DEADLINE_S);
    executor_fixture_init(&fixture->common);
    loop_free(&fixture->common.loop);
    fixture->common.loop = loop_new(LOOP_CLOCK_VIRTUAL);
    fixture->events = *fixture->common.events;
    fixture->events.on_concluded = on_concluded;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    executor_fixture_fini(&fixture->common);
    for (size_t index = 0; index < MAX_TASKS; index++) {
        if (fixture->records[index]) {
            executor_fixture_free_record(&fixture->records[index]);
        }
    }
    memory_free(&fixture);
    (void)alarm(0);
    return 0;
}

/* Starts an executor with a parent of its own. */
static void start_program(struct fixture *fixture, const char *program, char *argument,
                          struct executor_process_options options)
{
    static char name[] = "fake_pool";
    static char *const environment[] = {NULL};
    fixture->arguments[0] = name;
    fixture->arguments[1] = argument;
    options.program = program;
    options.arguments = fixture->arguments;
    options.environment = environment;
    options.hostname = "celery@test";
    fixture->common.executor = executor_process_new(fixture->common.loop, &options,
                                                    &fixture->events, &fixture->common, NULL);
    assert_non_null(fixture->common.executor);
    fixture->process = CONTAINER_OF(fixture->common.executor, struct executor_process, base);
    executor_fixture_start(&fixture->common);
}

/* Starts an executor whose system has room for `room` processes. */
static void start(struct fixture *fixture, char *room, struct executor_process_options options)
{
    start_program(fixture, "/proc/self/exe", room, options);
}

static struct executor_record *submit(struct fixture *fixture, size_t index, const char *task)
{
    fixture->records[index] = executor_fixture_record(&fixture->common, task, "[]", "{}");
    executor_fixture_submit(fixture->records[index]);
    return fixture->records[index];
}

static void conclude(struct fixture *fixture)
{
    struct executor *executor = fixture->common.executor;
    struct outcome outcome;
    fixture->records[0] = executor_fixture_record(&fixture->common, "work", "[]", "{}");
    executor_revoked(fixture->records[0]->request.arena, "expired", &outcome);
    executor->ops->conclude(executor, &fixture->records[0]->request, &outcome, true, false);
    assert_int_equal(fixture->concluded_count, 0);
}

static size_t free_slots(const struct fixture *fixture)
{
    return fixture->common.executor->ops->free_slots(fixture->common.executor);
}

static void wait_live(struct fixture *fixture, size_t count)
{
    while (fixture->process->live_count != count) {
        loop_run_once(fixture->common.loop, false);
    }
}

static void cancel(struct executor_record *record, int signal_number)
{
    struct executor *executor = record->fixture->executor;
    executor->ops->cancel(executor, &record->request, signal_number);
}

/* The parent is the only child of this process. */
static bool has_parent(void)
{
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* Tests */

static void test_goes_on_with_the_processes_that_there_is_room_for(void **state)
{
    static char room[] = "2";
    struct fixture *fixture = *state;
    start(fixture, room, (struct executor_process_options){.max_processes = 4});
    for (size_t index = 0; index < 4; index++) {
        (void)submit(fixture, index, "work");
    }
    executor_fixture_wait_count(&fixture->common, &fixture->common.finished_count, 4);
    wait_live(fixture, 2);
    assert_int_equal(free_slots(fixture), 2);
    for (size_t index = 0; index < 4; index++) {
        executor_fixture_free_record(&fixture->records[index]);
    }
    for (size_t index = 0; index < 2; index++) {
        (void)submit(fixture, index, FAKE_POOL_HELD_TASK);
    }
    assert_int_equal(free_slots(fixture), 0);
    executor_fixture_wait_started(fixture->records[0]);
    executor_fixture_wait_started(fixture->records[1]);
}

static void test_however_many_are_refused_one_start_has_failed(void **state)
{
    static char room[] = "0";
    struct fixture *fixture = *state;
    start(fixture, room, (struct executor_process_options){.max_processes = 4});
    for (size_t index = 0; index < 4; index++) {
        (void)submit(fixture, index, "work");
    }
    for (size_t round = 1; round <= 4; round++) {
        executor_fixture_wait_count(&fixture->common, &fixture->common.notice_count, round);
        wait_live(fixture, 0);
        assert_int_equal(fixture->common.notice_count, round);
        loop_advance(fixture->common.loop, (int64_t)500 << round);
    }
}

/* The idle time is over while the last process has a task; then it ends with it, or by a signal. */
static void test_the_parent_ends_after_its_last_process(void **state)
{
    static char room[] = "1";
    static const int signals[] = {SIGUSR1, SIGTERM};
    struct fixture *fixture = *state;
    start(fixture, room,
          (struct executor_process_options){
              .max_processes = 1, .max_tasks_per_child = 1, .idle_timeout_ms = 1000});
    for (size_t index = 0; index < ARRAY_LENGTH(signals); index++) {
        struct executor_record *record = submit(fixture, index, FAKE_POOL_HELD_TASK);
        executor_fixture_wait_started(record);
        loop_advance(fixture->common.loop, 1500);
        cancel(record, signals[index]);
        executor_fixture_wait_finished(record);
        wait_live(fixture, 0);
        loop_advance(fixture->common.loop, 999);
        assert_false(fixture->process->is_stopping);
        loop_advance(fixture->common.loop, 1);
        while (has_parent()) {
            loop_run_once(fixture->common.loop, false);
        }
    }
}

static void test_without_an_idle_time_processes_stay(void **state)
{
    static char room[] = "1";
    struct fixture *fixture = *state;
    start(fixture, room, (struct executor_process_options){.max_processes = 1});
    executor_fixture_wait_finished(submit(fixture, 0, "work"));
    loop_advance(fixture->common.loop, (int64_t)7 * 24 * 3600 * 1000);
    assert_int_equal(fixture->process->live_count, 1);
    assert_true(has_parent());
    assert_false(fixture->process->is_stopping);
}

/* As long as a task waits for room the parent stays; it ends when the task is gone. */
static void test_the_parent_stays_while_work_waits(void **state)
{
    static char room[] = "0";
    struct fixture *fixture = *state;
    start(fixture, room,
          (struct executor_process_options){.max_processes = 1, .idle_timeout_ms = 10});
    struct executor_record *record = submit(fixture, 0, "work");
    executor_fixture_wait_count(&fixture->common, &fixture->common.notice_count, 1);
    loop_advance(fixture->common.loop, 100);
    assert_true(has_parent());
    assert_non_null(fixture->process->nursery);
    assert_false(fixture->process->is_stopping);
    cancel(record, SIGTERM);
    executor_fixture_wait_finished(record);
    loop_advance(fixture->common.loop, 100);
    while (has_parent()) {
        loop_run_once(fixture->common.loop, false);
    }
}

/* A close has given it back already when the task is terminated: that stands, and starts nothing. */
static void test_a_task_that_was_given_back_is_not_revoked(void **state)
{
    static char room[] = "1";
    struct fixture *fixture = *state;
    start(fixture, room, (struct executor_process_options){.max_processes = 1});
    struct executor_record *record = submit(fixture, 0, "work");
    executor_fixture_begin_close(&fixture->common, false);
    cancel(record, SIGTERM);
    loop_run_once(fixture->common.loop, false);
    assert_false(has_parent());
    executor_fixture_wait_count(&fixture->common, &fixture->common.closed_count, 1);
    assert_int_equal(record->finished_count, 1);
    assert_int_equal(record->outcome.kind, OUTCOME_REJECT);
    assert_true(record->outcome.requeue);
}

static void test_an_end_is_told_to_a_process(void **state)
{
    static char room[] = "1";
    struct fixture *fixture = *state;
    start(fixture, room, (struct executor_process_options){.max_processes = 1});
    conclude(fixture);
    executor_fixture_wait_count(&fixture->common, &fixture->concluded_count, 1);
    assert_int_equal(fixture->told_count, 1);
}

/* A parent that imports the app for ever keeps nobody from telling the end of a task. */
static void test_an_end_does_not_wait_for_a_process_for_ever(void **state)
{
    static char for_ever[] = "infinity";
    struct fixture *fixture = *state;
    start_program(fixture, "/bin/sleep", for_ever,
                  (struct executor_process_options){.max_processes = 1});
    conclude(fixture);
    loop_advance(fixture->common.loop, (int64_t)9 * 60000);
    assert_int_equal(fixture->concluded_count, 0);
    loop_advance(fixture->common.loop, 60000);
    assert_int_equal(fixture->concluded_count, 1);
    assert_int_equal(fixture->told_count, 0);
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_goes_on_with_the_processes_that_there_is_room_for,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_however_many_are_refused_one_start_has_failed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_parent_ends_after_its_last_process, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_without_an_idle_time_processes_stay, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_parent_stays_while_work_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_task_that_was_given_back_is_not_revoked, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_an_end_is_told_to_a_process, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_end_does_not_wait_for_a_process_for_ever, set_up,
                                        tear_down),
    };
    if (count > 1) {
        return fake_pool_run((int)strtol(arguments[1], NULL, 10));
    }
    return cmocka_run_group_tests_name("executor_process", tests, NULL, NULL);
}
