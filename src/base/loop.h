/*
 * The one event loop, on libuv: the clock, timers, signals, deferred calls and the way in for other
 * threads. Everything in Petiole that waits, waits here. Modules that need a socket or a process
 * take the libuv loop from loop_uv and follow its close rules.
 *
 * A loop can also run on a virtual clock, for replay tests: then time passes only in loop_advance.
 */
#ifndef PETIOLE_BASE_LOOP_H
#define PETIOLE_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/list.h"
#include "base/timer.h"

struct loop;
struct uv_loop_s;

enum loop_clock {
    LOOP_CLOCK_REAL,
    LOOP_CLOCK_VIRTUAL
};

typedef void(loop_fn)(void *context);

/* A call to make on the next turn of the loop; a member of whoever asks. Zeroed means idle. */
struct loop_call {
    struct list_node node;
    loop_fn *function;
    void *context;
};

/* Life cycle */

/* Returns new. A virtual clock starts at 1,000,000 ms with the wall clock at
 * 2026-01-01T00:00:00Z. */
struct loop *loop_new(enum loop_clock clock);

/* Frees it; leaves NULL. All handles must have been closed: a handle that survives is our bug and
 * asserts. */
void loop_free(struct loop **loop);

/* Turns until loop_stop, or until nothing is left to wait for. */
void loop_run(struct loop *loop);

/* One turn; waits for something to happen when `wait`. Virtual clock: runs what is due and
 * deferred, never waits. */
void loop_run_once(struct loop *loop, bool wait);

void loop_stop(struct loop *loop);

/* Virtual clock only: lets `elapsed_ms` pass, firing timers at their moment, in order. */
void loop_advance(struct loop *loop, int64_t elapsed_ms);

/* The libuv loop, borrowed. */
struct uv_loop_s *loop_uv(struct loop *loop);

/* Clock */

/* Monotonic milliseconds that go on while the machine sleeps (CLOCK_BOOTTIME), read once a turn.
 * For waiting. */
int64_t loop_now_ms(const struct loop *loop);

/* Seconds since 1970 as Python's time.time() tells them, read when called. For what goes on the
 * wire. */
double loop_wall_s(const struct loop *loop);

/* Timers, signals, calls */

/* Arms `timer`, whose on_due and context are set, to fire `delay_ms` from now; moves it when armed.
 * It fires from the loop, never inside this call. */
void loop_start_timer(struct loop *loop, struct timer *timer, int64_t delay_ms);
void loop_stop_timer(struct loop *loop, struct timer *timer);

/* Makes the call on the next turn, once, however often it is asked for before. Completions that are
 * known early go through this. */
void loop_defer(struct loop *loop, struct loop_call *call);
void loop_cancel(struct loop *loop, struct loop_call *call);

/* As loop_defer, from any thread. Borrows `call` until it is made. */
void loop_post(struct loop *loop, struct loop_call *call);

typedef void(loop_signal_fn)(void *context, int signal_number);

/* Calls `on_signal` from the loop for `signal_number`, for the rest of the loop's life. At most 8
 * signals. Does not keep loop_run alive. */
bool loop_on_signal(struct loop *loop, int signal_number, loop_signal_fn *on_signal, void *context,
                    struct error *reterr) MUST_CHECK;

/* A random 64-bit number from the system, for ids and jitter (one seam for tests: a virtual loop
 * counts up instead). */
uint64_t loop_random(struct loop *loop);

/* `delay_ms` times 2^`attempt`, at most `maximum_ms`, with jitter: uniform between half of it and
 * all of it. */
int64_t loop_backoff_ms(struct loop *loop, int64_t delay_ms, unsigned attempt, int64_t maximum_ms);

#endif
