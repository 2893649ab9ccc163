/*
 * Worker threads with one queue in front of them, for work that is handed over and taken back in
 * batches: what the loop submits in one turn goes over with one lock, and what the threads finish
 * while the loop is busy comes back with one wake-up. It knows nothing of tasks: a job is a
 * function.
 *
 * All functions are called on the loop's thread, but for those of a job's own thread
 * (native_pool_wait, _is_cancelled, _note). Events come from the loop.
 *
 * A job that does not end can be given up: its thread leaves the pool, with the job, and another
 * one takes its place. Such a thread frees the job, and the pool with it when that is closed and it
 * was the last one, whenever its function returns.
 */
#ifndef PETIOLE_EXECUTOR_NATIVE_POOL_H
#define PETIOLE_EXECUTOR_NATIVE_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"

struct native_pool;
struct native_thread;

/* One piece of work; the head of a block of its owner's. The owner sets `run` and `free` in a
 * zeroed struct; the rest is the pool's. */
struct native_job {
    /* Does the work, on a thread of the pool. */
    void (*run)(struct native_job *job);
    /* Frees the block, for a job that was given up; called on its thread, without the loop. */
    void (*free)(struct native_job *job);

    struct list_node node;
    struct native_pool *pool;
    struct native_thread *thread; /* the one that runs it; guarded by the pool's lock */
    atomic_int cancel_reason;     /* 0, or what native_pool_cancel was called with */
    int64_t begun_ns;             /* CLOCK_MONOTONIC; set before `thread` */
    int64_t ended_ns;
    bool is_handed_over; /* the loop's: the threads know of it */
    bool is_begun_told;  /* the loop's */
};

struct native_pool_events {
    /* `run` was called `elapsed_ms` ago. Told within a few milliseconds, or right before
     * on_done. */
    void (*on_begun)(void *context, struct native_job *job, int64_t elapsed_ms);
    /* `run` has returned, after `runtime_s`. The job is its owner's again. */
    void (*on_done)(void *context, struct native_job *job, double runtime_s);
    /* Everything that was done by now has been told. The only event inside which the pool may be
     * closed. */
    void (*on_batch_end)(void *context);
    /* A note of a job (native_pool_note); borrowed. */
    void (*on_note)(void *context, int level, const char *text);
};

/* Starts `thread_count` threads; returns new, or NULL with error TEMPORARY when the system refuses
 * one. */
struct native_pool *native_pool_new(struct loop *loop, size_t thread_count,
                                    const struct native_pool_events *events, void *context,
                                    struct error *reterr);

/* Ends the threads and frees the pool; no job may be queued or running (those given up may). False,
 * and nothing is done, when a thread has just told something that must be heard first: then
 * on_batch_end follows. Leaves NULL on success. */
bool native_pool_close(struct native_pool **pool);

/* Queues a job behind the others; takes it until on_done. The threads hear of it on the next
 * turn. */
void native_pool_submit(struct native_pool *pool, struct native_job *job);

/* Takes a job back that no thread has begun. False when one has, then on_done still comes. */
bool native_pool_withdraw(struct native_pool *pool, struct native_job *job);

/* Sets the job's flag to `reason` (not 0) and ends its native_pool_wait. */
void native_pool_cancel(struct native_pool *pool, struct native_job *job, int reason);

/* Gives up a job that has begun, and cancels it with `reason` in the same step, so that its answer to
 * that is not heard; it is not the owner's any more. False when it has ended in the meantime, then
 * on_done still comes. Another thread is started. */
bool native_pool_abandon(struct native_pool *pool, struct native_job *job, int reason);

/* How many threads could not be replaced yet, for want of resources; tried again every second. */
size_t native_pool_missing_threads(const struct native_pool *pool);

/* On the job's thread: the cancel flag. */
int native_pool_is_cancelled(const struct native_job *job);

/* On the job's thread: sleeps for `seconds`, or until the flag is set; gives the flag. */
int native_pool_wait(struct native_job *job, double seconds);

/* On the job's thread: hands a line (copied) to on_note. When more than a thousand wait, further
 * ones are dropped, and a note tells how many. Nothing happens once the job has been given up. */
void native_pool_note(struct native_job *job, int level, struct bytes text);

#endif
