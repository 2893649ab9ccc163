/*
 * Runs native tasks (include/petiole.h) on worker threads. A bounded queue stands in front of the
 * threads, so that batches of small tasks cost a lock and a wake-up each, not one for every task.
 *
 * - on_started comes when the body has begun, a few milliseconds late at most, or right before
 *   on_finished; a task that is withdrawn before that has none.
 * - The soft time limit sets the flag that the task sees in is_cancelled, and so does cancel.
 *   Native code cannot be killed: at the hard time limit, or a grace period after cancel, the
 *   outcome is reported (TimeLimitExceeded, or REVOKED), and the thread is given up and replaced.
 *   The body goes on beside the pool until it returns; its reply is dropped. A task that never
 *   returns costs one thread each time.
 * - A crash in a plugin is a crash of the worker.
 * - close gives back what has not begun: REJECT with requeue, without on_started. With `kill`
 *   running tasks get the flag and a second to end; what succeeds by then is reported as usual, the
 *   rest is LOST.
 */
#ifndef PETIOLE_EXECUTOR_EXECUTOR_NATIVE_H
#define PETIOLE_EXECUTOR_EXECUTOR_NATIVE_H

#include "base/error.h"
#include "base/loop.h"
#include "executor/executor.h"

struct plugin_set;

/* Submissions that fit beyond those that run. */
#define EXECUTOR_NATIVE_QUEUE_LENGTH 512

/* How long a task may go on after cancel, when the options do not say. */
#define EXECUTOR_NATIVE_CANCEL_GRACE_MS 10000

struct executor_native_options {
    const struct plugin_set *plugins; /* borrowed for as long as the executor lives */
    size_t thread_count;              /* 0: one for each CPU that the process may use */
    const char *hostname;             /* the worker's node name; copied */
    int64_t cancel_grace_ms;          /* 0: the default */
};

/* Starts the threads; returns new, or NULL with error TEMPORARY when the system refuses them.
 * Borrows `events` and `context` until on_closed. A task that no plugin has fails with
 * NotRegistered. */
struct executor *executor_native_new(struct loop *loop,
                                     const struct executor_native_options *options,
                                     const struct executor_events *events, void *context,
                                     struct error *reterr);

#endif
