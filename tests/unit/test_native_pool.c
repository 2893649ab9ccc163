/* Threads with a queue (executor/native_pool.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <semaphore.h>

#include "base/log.h"
#include "base/memory.h"
#include "executor/native_pool.h"

#define DEADLINE_MS 60000
#define NOTE_COUNT  1500
#define REASON      7

struct fixture {
    struct loop *loop;
    struct native_pool *pool;
    size_t begun_count;
    size_t done_count;
    size_t note_count;
    char last_note[80];
};

struct work {
    struct native_job job; /* the head */
    sem_t may_end;
    sem_t has_ended;
    int reason; /* what native_pool_wait gave */
};

static struct work *work_of(struct native_job *job)
{
    return CONTAINER_OF(job, struct work, job);
}

static void on_begun(void *context, struct native_job *job, int64_t elapsed_ms)
{
    struct fixture *fixture = context;
    (void)job;
    assert_true(elapsed_ms >= 0);
    fixture->begun_count++;
}

static void on_done(void *context, struct native_job *job, double runtime_s)
{
    struct fixture *fixture = context;
    (void)job;
    assert_true(runtime_s >= 0.0);
    fixture->done_count++;
}

static void on_batch_end(void *context)
{
    (void)context;
}

static void on_note(void *context, int level, const char *text)
{
    struct fixture *fixture = context;
    (void)level;
    fixture->note_count++;
    (void)snprintf(fixture->last_note, sizeof(fixture->last_note), "%s", text);
}

static const struct native_pool_events events = {on_begun, on_done, on_batch_end, on_note};

static void run_until_allowed(struct native_job *job)
{
    (void)sem_wait(&work_of(job)->may_end);
}

static void run_wait(struct native_job *job)
{
    work_of(job)->reason = native_pool_wait(job, 1000.0);
}

static void run_nap(struct native_job *job)
{
    work_of(job)->reason = native_pool_wait(job, 0.001);
}

static void run_notes(struct native_job *job)
{
    for (size_t i = 0; i < NOTE_COUNT; i++) {
        native_pool_note(job, LOG_INFO, BYTES("a line"));
    }
    (void)sem_post(&work_of(job)->may_end);
}

static void free_work(struct native_job *job)
{
    (void)sem_post(&work_of(job)->has_ended);
}

static void work_init(struct work *work, void (*run)(struct native_job *job))
{
    memset(work, 0, sizeof(*work));
    work->job.run = run;
    work->job.free = free_work;
    assert_int_equal(sem_init(&work->may_end, 0, 0), 0);
    assert_int_equal(sem_init(&work->has_ended, 0, 0), 0);
}

static void on_deadline(void *context)
{
    bool *is_over = context;
    *is_over = true;
}

static void wait_count(struct fixture *fixture, const size_t *counter, size_t at_least)
{
    bool is_over = false;
    struct timer deadline = {.on_due = on_deadline, .context = &is_over};
    loop_start_timer(fixture->loop, &deadline, DEADLINE_MS);
    while (*counter < at_least && !is_over) {
        loop_run_once(fixture->loop, true);
    }
    loop_stop_timer(fixture->loop, &deadline);
    assert_false(is_over);
}

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    fixture->loop = loop_new(LOOP_CLOCK_REAL);
    fixture->pool = native_pool_new(fixture->loop, 1, &events, fixture, NULL);
    assert_non_null(fixture->pool);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    while (!native_pool_close(&fixture->pool)) {
        loop_run_once(fixture->loop, true);
    }
    assert_null(fixture->pool);
    loop_free(&fixture->loop);
    memory_free(&fixture);
    return 0;
}

static void test_begun_and_done(void **state)
{
    struct fixture *fixture = *state;
    struct work first;
    struct work second;
    work_init(&first, run_until_allowed);
    work_init(&second, run_nap);
    native_pool_submit(fixture->pool, &first.job);
    native_pool_submit(fixture->pool, &second.job);
    wait_count(fixture, &fixture->begun_count, 1);
    assert_int_equal(fixture->done_count, 0);
    (void)sem_post(&first.may_end);
    wait_count(fixture, &fixture->done_count, 2);
    assert_int_equal(fixture->begun_count, 2);
    assert_int_equal(second.reason, 0);
}

static void test_cancel_ends_a_wait(void **state)
{
    struct fixture *fixture = *state;
    struct work work;
    work_init(&work, run_wait);
    native_pool_submit(fixture->pool, &work.job);
    wait_count(fixture, &fixture->begun_count, 1);
    native_pool_cancel(fixture->pool, &work.job, REASON);
    wait_count(fixture, &fixture->done_count, 1);
    assert_int_equal(work.reason, REASON);
}

static void test_withdraw_only_what_has_not_begun(void **state)
{
    struct fixture *fixture = *state;
    struct work running;
    struct work queued;
    struct work pending;
    work_init(&running, run_until_allowed);
    work_init(&queued, run_nap);
    work_init(&pending, run_nap);
    native_pool_submit(fixture->pool, &running.job);
    native_pool_submit(fixture->pool, &queued.job);
    wait_count(fixture, &fixture->begun_count, 1);
    native_pool_submit(fixture->pool, &pending.job);
    assert_false(native_pool_withdraw(fixture->pool, &running.job));
    assert_true(native_pool_withdraw(fixture->pool, &queued.job));
    assert_true(native_pool_withdraw(fixture->pool, &pending.job));
    (void)sem_post(&running.may_end);
    wait_count(fixture, &fixture->done_count, 1);
    assert_false(native_pool_withdraw(fixture->pool, &running.job));
    assert_int_equal(fixture->begun_count, 1);
}

static void test_abandoned_thread_is_replaced(void **state)
{
    struct fixture *fixture = *state;
    struct work stuck;
    struct work next;
    work_init(&stuck, run_until_allowed);
    work_init(&next, run_nap);
    native_pool_submit(fixture->pool, &stuck.job);
    assert_false(native_pool_abandon(fixture->pool, &next.job, 1));
    wait_count(fixture, &fixture->begun_count, 1);
    assert_true(native_pool_abandon(fixture->pool, &stuck.job, 1));
    assert_int_equal(native_pool_missing_threads(fixture->pool), 0);
    native_pool_submit(fixture->pool, &next.job);
    wait_count(fixture, &fixture->done_count, 1);
    (void)sem_post(&stuck.may_end);
    (void)sem_wait(&stuck.has_ended);
    assert_int_equal(fixture->done_count, 1);
}

static void test_pool_outlives_its_owner_while_a_thread_is_stuck(void **state)
{
    struct fixture *fixture = *state;
    struct work stuck;
    work_init(&stuck, run_until_allowed);
    native_pool_submit(fixture->pool, &stuck.job);
    wait_count(fixture, &fixture->begun_count, 1);
    assert_true(native_pool_abandon(fixture->pool, &stuck.job, 1));
    while (!native_pool_close(&fixture->pool)) {
        loop_run_once(fixture->loop, true);
    }
    (void)sem_post(&stuck.may_end);
    (void)sem_wait(&stuck.has_ended);
    fixture->pool = native_pool_new(fixture->loop, 1, &events, fixture, NULL);
}

static void test_too_many_notes_are_counted(void **state)
{
    struct fixture *fixture = *state;
    struct work work;
    work_init(&work, run_notes);
    native_pool_submit(fixture->pool, &work.job);
    loop_run_once(fixture->loop, false);
    /* The loop stands still until all is written: then only a thousand lines are kept. */
    (void)sem_wait(&work.may_end);
    wait_count(fixture, &fixture->done_count, 1);
    assert_int_equal(fixture->note_count, 1000 + 1);
    assert_string_equal(fixture->last_note, "500 log lines of native tasks were dropped");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_begun_and_done),
        TEST(test_cancel_ends_a_wait),
        TEST(test_withdraw_only_what_has_not_begun),
        TEST(test_abandoned_thread_is_replaced),
        TEST(test_pool_outlives_its_owner_while_a_thread_is_stuck),
        TEST(test_too_many_notes_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
