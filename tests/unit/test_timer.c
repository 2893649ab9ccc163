#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/attributes.h"
#include "base/timer.h"

#define MAX_FIRED 64

struct fixture {
    struct timer_heap heap;
    int fired[MAX_FIRED];
    size_t fired_count;
};

/* A timer that knows its number, and what to do to another one when it fires. */
struct numbered {
    struct timer timer;
    struct fixture *fixture;
    int number;
    struct numbered *starts; /* at `starts_ms` */
    int64_t starts_ms;
    struct numbered *stops;
};

static void on_due(void *context)
{
    struct numbered *numbered = context;
    struct fixture *fixture = numbered->fixture;
    assert_false(timer_is_armed(&numbered->timer));
    assert_true(fixture->fired_count < MAX_FIRED);
    fixture->fired[fixture->fired_count++] = numbered->number;
    if (numbered->starts) {
        timer_heap_start(&fixture->heap, &numbered->starts->timer, numbered->starts_ms);
    }
    if (numbered->stops) {
        timer_heap_stop(&fixture->heap, &numbered->stops->timer);
    }
}

static void number(struct fixture *fixture, struct numbered *timers, int count)
{
    for (int index = 0; index < count; index++) {
        timers[index] = (struct numbered){.fixture = fixture, .number = index};
        timers[index].timer.on_due = on_due;
        timers[index].timer.context = &timers[index];
    }
}

static void assert_fired(const struct fixture *fixture, const int *expected, size_t count)
{
    assert_int_equal(fixture->fired_count, count);
    for (size_t index = 0; index < count; index++) {
        assert_int_equal(fixture->fired[index], expected[index]);
    }
}

static void test_due_timers_fire_earliest_first(void **state)
{
    (void)state;
    struct fixture fixture = {.fired_count = 0};
    struct numbered timers[4];
    timer_heap_init(&fixture.heap);
    number(&fixture, timers, 4);
    static const int64_t due_ms[] = {30, 10, 40, 20};
    for (int index = 0; index < 4; index++) {
        timer_heap_start(&fixture.heap, &timers[index].timer, due_ms[index]);
    }
    assert_int_equal(timer_heap_next_ms(&fixture.heap), 10);
    timer_heap_run(&fixture.heap, 9);
    assert_fired(&fixture, NULL, 0);
    timer_heap_run(&fixture.heap, 30);
    assert_fired(&fixture, (int[]){1, 3, 0}, 3);
    assert_int_equal(timer_heap_next_ms(&fixture.heap), 40);
    timer_heap_fini(&fixture.heap);
}

static void test_an_empty_heap_is_never_due(void **state)
{
    (void)state;
    struct timer_heap heap;
    timer_heap_init(&heap);
    assert_true(timer_heap_next_ms(&heap) == INT64_MAX);
    timer_heap_run(&heap, INT64_MAX);
    timer_heap_fini(&heap);
    timer_heap_fini(&heap);
}

static void test_starting_an_armed_timer_moves_it(void **state)
{
    (void)state;
    struct fixture fixture = {.fired_count = 0};
    struct numbered timers[2];
    timer_heap_init(&fixture.heap);
    number(&fixture, timers, 2);
    timer_heap_start(&fixture.heap, &timers[0].timer, 10);
    timer_heap_start(&fixture.heap, &timers[1].timer, 20);
    timer_heap_start(&fixture.heap, &timers[0].timer, 30);
    assert_int_equal(timer_heap_next_ms(&fixture.heap), 20);
    timer_heap_start(&fixture.heap, &timers[0].timer, 5);
    timer_heap_run(&fixture.heap, 100);
    assert_fired(&fixture, (int[]){0, 1}, 2);
    timer_heap_fini(&fixture.heap);
}

static void test_stopping_is_allowed_at_any_time(void **state)
{
    (void)state;
    struct fixture fixture = {.fired_count = 0};
    struct numbered timers[3];
    timer_heap_init(&fixture.heap);
    number(&fixture, timers, 3);
    timer_heap_stop(&fixture.heap, &timers[0].timer);
    for (int index = 0; index < 3; index++) {
        timer_heap_start(&fixture.heap, &timers[index].timer, index);
    }
    timer_heap_stop(&fixture.heap, &timers[0].timer);
    timer_heap_stop(&fixture.heap, &timers[0].timer);
    timers[1].stops = &timers[2];
    timer_heap_run(&fixture.heap, 100);
    assert_fired(&fixture, (int[]){1}, 1);
    assert_false(timer_is_armed(&timers[2].timer));
    timer_heap_fini(&fixture.heap);
}

static void test_a_timer_that_starts_itself_fires_once_a_run(void **state)
{
    (void)state;
    struct fixture fixture = {.fired_count = 0};
    struct numbered timers[2];
    timer_heap_init(&fixture.heap);
    number(&fixture, timers, 2);
    timers[0].starts = &timers[0];
    timers[0].starts_ms = 5;
    timer_heap_start(&fixture.heap, &timers[0].timer, 5);
    timer_heap_run(&fixture.heap, 10);
    assert_fired(&fixture, (int[]){0}, 1);
    timer_heap_run(&fixture.heap, 10);
    assert_fired(&fixture, (int[]){0, 0}, 2);
    timer_heap_fini(&fixture.heap);
    assert_false(timer_is_armed(&timers[0].timer));
}

static void test_timers_started_by_others_do_not_go_on_for_ever(void **state)
{
    (void)state;
    struct fixture fixture = {.fired_count = 0};
    struct numbered timers[3];
    timer_heap_init(&fixture.heap);
    number(&fixture, timers, 3);
    timers[0].starts = &timers[2];
    timers[2].starts = &timers[0];
    timer_heap_start(&fixture.heap, &timers[0].timer, 5);
    timer_heap_start(&fixture.heap, &timers[1].timer, 6);
    timer_heap_run(&fixture.heap, 10);
    assert_fired(&fixture, (int[]){0, 2}, 2); /* both started for 0 ms, before number 1 */
    timer_heap_stop(&fixture.heap, &timers[0].timer);
    timer_heap_run(&fixture.heap, 10);
    assert_fired(&fixture, (int[]){0, 2, 1}, 3);
    timer_heap_fini(&fixture.heap);
}

/* Compares the heap with the slowest of all priority queues. */
static void test_thousands_of_timers_keep_their_order(void **state)
{
    (void)state;

    enum {
        COUNT = 3000
    };

    static struct timer timers[COUNT];
    struct timer_heap heap;
    uint64_t random = 12345;
    timer_heap_init(&heap);
    for (int step = 0; step < 20000; step++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407U;
        struct timer *timer = &timers[(random >> 33) % COUNT];
        if ((random >> 20) % 4 == 0) {
            timer_heap_stop(&heap, timer);
        } else {
            timer_heap_start(&heap, timer, (int64_t)((random >> 40) % 1000));
        }
        if (step % 500 == 0) {
            int64_t earliest_ms = INT64_MAX;
            size_t armed = 0;
            for (size_t index = 0; index < COUNT; index++) {
                if (timer_is_armed(&timers[index])) {
                    armed++;
                    earliest_ms =
                        timers[index].due_ms < earliest_ms ? timers[index].due_ms : earliest_ms;
                }
            }
            assert_true(timer_heap_next_ms(&heap) == earliest_ms);
            assert_int_equal(heap.count, armed);
        }
    }
    for (int64_t last_ms = 0; heap.count > 0;) {
        struct timer *next = heap.timers[0];
        assert_true(next->due_ms >= last_ms);
        last_ms = next->due_ms;
        timer_heap_stop(&heap, next);
    }
    timer_heap_fini(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_due_timers_fire_earliest_first),
        cmocka_unit_test(test_an_empty_heap_is_never_due),
        cmocka_unit_test(test_starting_an_armed_timer_moves_it),
        cmocka_unit_test(test_stopping_is_allowed_at_any_time),
        cmocka_unit_test(test_a_timer_that_starts_itself_fires_once_a_run),
        cmocka_unit_test(test_timers_started_by_others_do_not_go_on_for_ever),
        cmocka_unit_test(test_thousands_of_timers_keep_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
