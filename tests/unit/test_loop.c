#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>

#include "base/loop.h"

struct tally {
    struct loop *loop;
    struct timer timer;
    struct loop_call call;
    int count;
    int64_t last_ms;
};

static void count_one(void *context)
{
    struct tally *tally = context;
    tally->count++;
    tally->last_ms = loop_now_ms(tally->loop);
}

static void count_and_stop(void *context)
{
    struct tally *tally = context;
    count_one(tally);
    loop_stop(tally->loop);
}

static void rearm(void *context)
{
    struct tally *tally = context;
    count_one(tally);
    loop_start_timer(tally->loop, &tally->timer, 0);
}

static void test_fires_timers_in_order_on_a_virtual_clock(void **state)
{
    (void)state;
    struct loop *loop = loop_new(LOOP_CLOCK_VIRTUAL);
    int64_t start_ms = loop_now_ms(loop);
    struct tally late = {.loop = loop, .timer = {.on_due = count_one, .context = &late}};
    struct tally early = {.loop = loop, .timer = {.on_due = count_one, .context = &early}};
    loop_start_timer(loop, &late.timer, 3600 * 1000);
    loop_start_timer(loop, &early.timer, 500);
    loop_advance(loop, 499);
    assert_int_equal(early.count, 0);
    loop_advance(loop, 1);
    assert_int_equal(early.count, 1);
    assert_int_equal(early.last_ms - start_ms, 500);
    loop_start_timer(loop, &late.timer, 1000);
    loop_advance(loop, 10 * 3600 * 1000);
    assert_int_equal(late.count, 1);
    assert_int_equal(late.last_ms - start_ms, 1500);
    loop_start_timer(loop, &late.timer, 5);
    loop_stop_timer(loop, &late.timer);
    loop_advance(loop, 100);
    assert_int_equal(late.count, 1);
    loop_free(&loop);
    assert_null(loop);
}

static void test_a_timer_that_rearms_itself_does_not_starve_the_loop(void **state)
{
    (void)state;
    struct loop *loop = loop_new(LOOP_CLOCK_REAL);
    struct tally tally = {.loop = loop, .timer = {.on_due = rearm, .context = &tally}};
    loop_start_timer(loop, &tally.timer, 0);
    loop_run_once(loop, true);
    assert_int_equal(tally.count, 1);
    loop_stop_timer(loop, &tally.timer);
    loop_free(&loop);
}

static void test_makes_a_deferred_call_once_and_later(void **state)
{
    (void)state;
    struct loop *loop = loop_new(LOOP_CLOCK_REAL);
    struct tally tally = {.loop = loop, .call = {.function = count_and_stop, .context = &tally}};
    loop_defer(loop, &tally.call);
    loop_defer(loop, &tally.call);
    assert_int_equal(tally.count, 0);
    loop_run(loop);
    assert_int_equal(tally.count, 1);
    loop_defer(loop, &tally.call);
    loop_cancel(loop, &tally.call);
    loop_run_once(loop, false);
    assert_int_equal(tally.count, 1);
    loop_free(&loop);
}

static void *post_from_thread(void *context)
{
    struct tally *tally = context;
    loop_post(tally->loop, &tally->call);
    return NULL;
}

static void test_takes_calls_from_other_threads(void **state)
{
    (void)state;
    struct loop *loop = loop_new(LOOP_CLOCK_REAL);
    struct tally tally = {.loop = loop, .call = {.function = count_and_stop, .context = &tally}};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, post_from_thread, &tally), 0);
    loop_run(loop);
    assert_int_equal(tally.count, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    loop_free(&loop);
}

static void stop_on_signal(void *context, int signal_number)
{
    struct tally *tally = context;
    tally->count = signal_number;
    loop_stop(tally->loop);
}

static void test_hears_signals(void **state)
{
    (void)state;
    struct loop *loop = loop_new(LOOP_CLOCK_REAL);
    struct tally tally = {.loop = loop};
    struct error error = {0};
    assert_true(loop_on_signal(loop, SIGUSR1, stop_on_signal, &tally, &error));
    assert_int_equal(raise(SIGUSR1), 0);
    loop_run(loop);
    assert_int_equal(tally.count, SIGUSR1);
    loop_free(&loop);
}

static void test_backs_off_within_bounds(void **state)
{
    (void)state;
    struct loop *loop = loop_new(LOOP_CLOCK_REAL);
    for (unsigned attempt = 0; attempt < 80; attempt++) {
        int64_t delay_ms = loop_backoff_ms(loop, 100, attempt, 30000);
        assert_in_range(delay_ms, 50, 30000);
    }
    assert_in_range(loop_backoff_ms(loop, 100, 0, 30000), 50, 100);
    assert_in_range(loop_backoff_ms(loop, 100, 70, 30000), 15000, 30000);
    loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fires_timers_in_order_on_a_virtual_clock),
        cmocka_unit_test(test_a_timer_that_rearms_itself_does_not_starve_the_loop),
        cmocka_unit_test(test_makes_a_deferred_call_once_and_later),
        cmocka_unit_test(test_takes_calls_from_other_threads),
        cmocka_unit_test(test_hears_signals),
        cmocka_unit_test(test_backs_off_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
