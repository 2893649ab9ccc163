/*
 * Runs tasks in a pool of Python processes, unchanged, through Celery's own tracing: what
 * `-P prefork -c N` means. The processes are forked by a warm parent that has imported the app
 * (process_nursery.h); both are started when work comes, and end after an idle time.
 *
 *   submit ─> waits for a process ─> TASK ─> ACCEPTED, on_started ─> DONE, on_finished
 *
 * - A process has one task at a time, as with Celery's -O fair.
 * - Celery's tracing says what is stored, retried and published (outcome.is_told); what it would
 *   write into Redis comes here as frames, and the worker writes it. What it publishes it publishes
 *   itself, over a connection that it opens when it needs one.
 * - The soft time limit is SIGUSR1, which raises SoftTimeLimitExceeded in the task. At the hard one
 *   TimeLimitExceeded is reported, and the process' group gets SIGTERM, and SIGKILL 0.1 s later
 *   (billiard/pool.py: TimeoutHandler). Both count from ACCEPTED.
 * - cancel sends the signal to the process' group: REVOKED when it ends of it, within ten seconds.
 * - A process that ends by itself leaves LOST with WorkerLostError, or the success that it has told
 *   (ENDED). Before ACCEPTED the task goes to another one, until it has been lost by as many as its
 *   max_delivery_attempts: then it is LOST, too.
 * - A process is replaced after max_tasks_per_child tasks, and after a task that left it with more
 *   than max_memory_per_child_kib.
 * - What follows from an end that the worker has made itself (conclude) is done by the next process
 *   that is free, through Celery's backend. on_concluded tells NULL when a process is lost with it
 *   (before ACCEPTED: as above), takes more than a minute, or none is free in time: in a minute when
 *   none can be started, else in ten, since the app may take long to import.
 * - close gives back what no process has; with `kill` running tasks end at once: LOST.
 */
#ifndef PETIOLE_EXECUTOR_EXECUTOR_PROCESS_H
#define PETIOLE_EXECUTOR_EXECUTOR_PROCESS_H

#include "base/error.h"
#include "base/loop.h"
#include "executor/executor.h"

/* Borrowed for the life of the executor. */
struct executor_process_options {
    const char *program;          /* path of the Python interpreter */
    char *const *arguments;       /* of python -m petiole.pool, all of them; ends with NULL */
    char *const *environment;     /* of the processes; ends with NULL */
    const char *hostname;         /* the worker's node name */
    size_t max_processes;         /* 0: one for each CPU that this process may use */
    int64_t idle_timeout_ms;      /* after which a process that has nothing to do ends; 0: never */
    uint64_t max_tasks_per_child; /* 0: no limit */
    uint64_t max_memory_per_child_kib; /* 0: no limit */
};

/* Returns new; starts nothing yet. Error TEMPORARY. */
struct executor *executor_process_new(struct loop *loop,
                                      const struct executor_process_options *options,
                                      const struct executor_events *events, void *context,
                                      struct error *reterr);

#endif
