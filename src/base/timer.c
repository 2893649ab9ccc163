#include "base/timer.h"

#include "base/memory.h"

#define TIMER_FIRST_CAPACITY 16

void timer_heap_init(struct timer_heap *heap)
{
    *heap = (struct timer_heap){0};
}

void timer_heap_fini(struct timer_heap *heap)
{
    for (size_t index = 0; index < heap->count; index++) {
        heap->timers[index]->position = 0;
    }
    memory_free(&heap->timers);
    timer_heap_init(heap);
}

static void place(struct timer_heap *heap, struct timer *timer, size_t index)
{
    heap->timers[index] = timer;
    timer->position = index + 1;
}

static void sift_up(struct timer_heap *heap, size_t index)
{
    struct timer *timer = heap->timers[index];
    while (index > 0) {
        size_t parent = (index - 1) / 2;
        if (heap->timers[parent]->due_ms <= timer->due_ms) {
            break;
        }
        place(heap, heap->timers[parent], index);
        index = parent;
    }
    place(heap, timer, index);
}

static void sift_down(struct timer_heap *heap, size_t index)
{
    struct timer *timer = heap->timers[index];
    for (;;) {
        size_t child = index * 2 + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count
            && heap->timers[child + 1]->due_ms < heap->timers[child]->due_ms) {
            child++;
        }
        if (heap->timers[child]->due_ms >= timer->due_ms) {
            break;
        }
        place(heap, heap->timers[child], index);
        index = child;
    }
    place(heap, timer, index);
}

void timer_heap_start(struct timer_heap *heap, struct timer *timer, int64_t due_ms)
{
    timer_heap_stop(heap, timer);
    timer->due_ms = due_ms;
    if (heap->count == heap->capacity) {
        heap->capacity = heap->capacity > 0 ? heap->capacity * 2 : TIMER_FIRST_CAPACITY;
        heap->timers = memory_resize(heap->timers, heap->capacity, sizeof(struct timer *));
    }
    heap->timers[heap->count++] = timer;
    sift_up(heap, heap->count - 1);
}

void timer_heap_stop(struct timer_heap *heap, struct timer *timer)
{
    if (!timer_is_armed(timer)) {
        return;
    }
    size_t index = timer->position - 1;
    timer->position = 0;
    struct timer *last = heap->timers[--heap->count];
    if (last == timer) {
        return;
    }
    place(heap, last, index);
    sift_up(heap, index);
    sift_down(heap, last->position - 1);
}

int64_t timer_heap_next_ms(const struct timer_heap *heap)
{
    return heap->count > 0 ? heap->timers[0]->due_ms : INT64_MAX;
}

void timer_heap_run(struct timer_heap *heap, int64_t now_ms)
{
    /* A callback may arm a timer for a moment that has passed: counting what was due before the
     * first call keeps that from going round for ever. */
    size_t budget = heap->count;
    while (budget-- > 0 && heap->count > 0 && heap->timers[0]->due_ms <= now_ms) {
        struct timer *timer = heap->timers[0];
        timer_heap_stop(heap, timer);
        timer->on_due(timer->context);
    }
}
