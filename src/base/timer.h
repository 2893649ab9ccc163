/*
 * Timers as a heap of their own, so that starting, moving and stopping one is a plain call without
 * a close to wait for, and so that tests can drive thousands of them with a clock that they turn by
 * hand. Pure: time is an argument.
 */
#ifndef PETIOLE_BASE_TIMER_H
#define PETIOLE_BASE_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/banned.h"

typedef void(timer_fn)(void *context);

/* A member of whatever waits; zeroed means idle. */
struct timer {
    int64_t due_ms; /* on the clock of the heap's owner */
    timer_fn *on_due;
    void *context;
    size_t position; /* 1 + index in the heap; 0: not armed */
};

struct timer_heap {
    struct timer **timers; /* owned array of borrowed timers */
    size_t count;
    size_t capacity;
};

void timer_heap_init(struct timer_heap *heap);

/* Frees the array; armed timers are forgotten. */
void timer_heap_fini(struct timer_heap *heap);

/* Arms `timer` for `due_ms`, or moves it when it is armed. Borrows it until it fires or is
 * stopped. */
void timer_heap_start(struct timer_heap *heap, struct timer *timer, int64_t due_ms);

/* Nothing happens when it is not armed. */
void timer_heap_stop(struct timer_heap *heap, struct timer *timer);

/* When the next one is due, or INT64_MAX. */
int64_t timer_heap_next_ms(const struct timer_heap *heap);

/* Disarms and calls what is due at `now_ms`, earliest first; at most as many as are armed before, so
 * that a callback that starts timers with a time that has passed cannot keep it going for ever. What
 * is left fires in the next call. */
void timer_heap_run(struct timer_heap *heap, int64_t now_ms);

static inline bool timer_is_armed(const struct timer *timer)
{
    return timer->position != 0;
}

#endif
