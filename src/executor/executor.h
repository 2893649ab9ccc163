/*
 * What runs a task: the interface of the executors. There are two kinds.
 *   Direct (native, local, process): submit borrows the request until on_finished.
 *   Durable (kubernetes): the Job is the receipt. submit borrows the request only until
 *     on_started or on_finished; after on_started the request is nobody's business
 *   here any more: the Job carries the whole message, and on_completed brings it back, also to a
 *     worker that was not there when it began.
 *
 * Every member is mandatory, but where it says otherwise. All calls are made on the loop thread; callbacks come from the loop,
 * never inside a call.
 */
#ifndef PETIOLE_EXECUTOR_EXECUTOR_H
#define PETIOLE_EXECUTOR_EXECUTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "dispatch/request.h"

struct executor;

enum outcome_kind {
    OUTCOME_SUCCESS,
    OUTCOME_FAILURE,
    OUTCOME_RETRY, /* the task asked for it (celery.exceptions.Retry) */
    OUTCOME_IGNORE,
    OUTCOME_REJECT,
    OUTCOME_LOST,    /* the runner vanished: redelivery rules apply */
    OUTCOME_REVOKED, /* expired, revoked or terminated: never ran, or was ended */
};

/* A state that a task said of itself (celery/app/task.py: Task.update_state). Borrowed for the time
 * of the callback. */
struct progress {
    struct bytes state; /* "PROGRESS"; while it runs, never one that only the end of a task makes */
    struct json meta;   /* ABSENT: null */
};

#define EXECUTOR_MAX_COUNTDOWN_S 1e9 /* of a retry: 31 years, as of all seconds in the settings */

/* How a task ended. Borrowed likewise: whoever needs it longer copies. */
struct outcome {
    enum outcome_kind kind;
    struct bytes result;      /* SUCCESS: JSON text of the return value */
    struct bytes exc_type;    /* FAILURE, RETRY, LOST, REVOKED: "ValueError" */
    struct bytes exc_module;  /* "builtins", "petiole.exceptions" */
    struct bytes exc_message; /* JSON text of an array: the exception's args */
    struct bytes traceback;   /* text; empty: null in the document */
    double retry_countdown_s; /* RETRY: up to the maximum; negative: the type's own delay */
    struct progress told;     /* IGNORE: the state that it leaves instead; empty: none */
    /* What Celery's code in a container has left to do before the end is stored, in order
     * (executor/job_frame.h); an array, checked. ABSENT: the runner does not say. A RETRY is the
     * worker's to publish without them, and with them when it has a countdown. */
    struct json frames;
    struct json children; /* an array: what of its result document tells the tasks it sent */
    bool requeue;         /* REJECT */
    bool timed_out;       /* FAILURE by the hard time limit: acks_on_timeout decides */
    double runtime_s;
    /* Celery's own tracing ran the task: it has logged the end, published what follows (a retry,
     * callbacks), and `document` is all that is still to be stored; empty: nothing. */
    bool is_told;
    struct bytes document;
};

/* A durable task that has ended (or that a restart found). Views are borrowed. */
struct completion {
    struct bytes receipt; /* names it for executor_ops.forget: the Job's name */
    struct bytes record;  /* codec/message_record.h */
    struct bytes tag;     /* the delivery it came from */
    bool is_settled;      /* the delivery is known to be settled */
    bool is_taken_over;   /* from a worker that may have begun to report it */
    const struct outcome *outcome;
};

/* Whether a request may be submitted. */
enum executor_admission {
    EXECUTOR_ADMITS,  /* when there is a free slot */
    EXECUTOR_LATER,   /* not now; others may go before it */
    EXECUTOR_NEXT,    /* not now; and nothing else may begin before it */
    EXECUTOR_REFUSES, /* never: `explain` says why */
};

struct executor_events {
    /* Ready for submissions (templates loaded, Jobs listed and adopted, threads up). Once. */
    void (*on_ready)(void *context, struct executor *executor);
    /* More places are free than before. */
    void (*on_free_slots)(void *context, struct executor *executor);
    /* Direct: the task's body begins. Durable: the Job exists; `receipt` is its name; the request
     * is the caller's again. `is_adopted`: it existed already. */
    void (*on_started)(void *context, struct request *request, struct bytes receipt);
    /* Direct: it has ended. Durable: it ended before a Job existed (bad value, refused); REJECT with
     * requeue: it can be tried again now, after another look at its lease. Exactly once per submit
     * that had no durable on_started. */
    void (*on_finished)(void *context, struct request *request, const struct outcome *outcome);
    /* Durable only: the pod has begun to run (for STARTED). */
    void (*on_running)(void *context, const struct completion *running);
    /* A task that runs has told something new: the newest of what it told, at intervals. Of a
     * direct executor's `request`, or of the durable one's `running`; the other is NULL. */
    void (*on_progress)(void *context, struct request *request, const struct completion *running,
                        const struct progress *progress);
    /* Tracing only: Celery has made a document for `task_id`, of the running `request` or of a task
     * that hangs together with it, which is to be stored before the request's end. */
    void (*on_state)(void *context, struct request *request, struct bytes task_id,
                     struct bytes state, struct bytes document);
    /* Tracing only: the answer to `conclude`, once. `told`: what Celery has made of the end, is_told;
     * without a document when its process was lost after it had sent the next try; NULL when no
     * process could, and the worker's own document must do. */
    void (*on_concluded)(void *context, struct request *request, const struct outcome *told);
    /* Durable only: the task's code never ran in `ended` (without outcome), and the Job `receipt`
     * was made for the same delivery: settle it, exchange the two in the outbox, then forget the
     * old one. Comes again after a restart until it is forgotten. */
    void (*on_rerun)(void *context, const struct completion *ended, struct bytes receipt);
    /* Durable only: a Job of ours has ended. Comes again after a restart until it is forgotten. */
    void (*on_completed)(void *context, const struct completion *completion);
    /* Something that an operator must know; `level` as in log.h. */
    void (*on_notice)(void *context, int level, const char *text);
};

struct executor_ops {
    const char *name; /* "kubernetes" */
    bool is_durable;
    /* Celery's tracing runs the tasks: it makes what is stored, also STARTED, and carries canvas
     * out; bodies are opened where they run. */
    bool is_tracing;
    /* Begins to work; on_ready follows. */
    void (*start)(struct executor *executor);
    /* How many more submissions fit now. */
    size_t (*free_slots)(const struct executor *executor);
    /* Whether what is free is enough for `request`, which is READY; looks at its `passes`. May keep
     * something in its executor_data. NULL: all slots are alike. */
    enum executor_admission (*admit)(struct executor *executor, struct request *request);
    /* Why `request` was not admitted: the category of the failure that this becomes, and a
     * sentence, both of the request's arena or static. NULL together with admit. */
    void (*explain)(struct executor *executor, struct request *request, const char **ret_category,
                    const char **ret_sentence);
    /* Runs `request`, which must have a free slot. Durable: one that is_over needs none, and is not
     * begun; on_started comes when it has been already, else on_finished with REJECT, requeue and
     * may_have_job cleared. */
    void (*submit)(struct executor *executor, struct request *request);
    /* Tracing, else NULL: lets Celery do what follows from `outcome`, an end that the worker has made
     * of `request`, which it borrows until on_concluded: errbacks, the end of the chain, the count of
     * a chord, handlers of the failure (celery/backends/base.py: Backend.mark_as_failure,
     * mark_as_revoked), the next try of a lost task. `stores` and `has_begun` as in
     * process_ending.h. Needs no free slot. */
    void (*conclude)(struct executor *executor, struct request *request,
                     const struct outcome *outcome, bool stores, bool has_begun);
    /* Ends a running request; on_finished still comes. What is a process gets `signal_number`, and
     * SIGKILL when it does not end in time; for all others the number means nothing. */
    void (*cancel)(struct executor *executor, struct request *request, int signal_number);
    /* Durable only, else no effect: ends what runs of the task, now or as soon as that is possible;
     * on_completed comes with REVOKED unless it has ended by itself. Options told the executor which
     * tasks are terminated: what it meets of them later is ended too. Returns whether anything of it
     * is here. */
    bool (*terminate)(struct executor *executor, struct bytes task_id);
    /* Durable only, else no effect: the delivery of `receipt` is settled. */
    void (*note_settled)(struct executor *executor, struct bytes receipt);
    /* Durable only: the result is stored and the delivery settled; the receipt may go. With
     * `is_awaited` it stays as long as one that nobody reports: a copy of its message may still
     * come, with no final result to meet it. */
    void (*forget)(struct executor *executor, struct bytes receipt, bool is_awaited);
    /* How many are running, for metrics and shutdown. */
    size_t (*running_count)(const struct executor *executor);
    /* Stops taking work. Direct: waits for what runs; with `kill`, also in a second call later,
     * ends it. Durable: leaves Jobs alone; a submit whose POST is under way is finished, one that
     * waits for another try ends in on_finished with REJECT and requeue. Then on_closed, once (the
     * first call's), after which the executor is freed. */
    void (*close)(struct executor *executor, bool kill, void (*on_closed)(void *context),
                  void *context);
};

/* The head of every implementation's struct. */
struct executor {
    const struct executor_ops *ops;
};

/* Helpers for all executors. Outcomes are allocated in `arena`; runtime_s is the caller's. */

/* A FAILURE with petiole.exceptions.<category> and the args [sentence, details] (contracts:
 * Failures). `details` is JSON object text; NULL: the category alone. */
void executor_failure(struct arena *arena, const char *category, const char *sentence,
                      const char *details, struct outcome *ret_outcome);

/* The FAILURE TimeLimitExceeded(limit) of a hard time limit, timed_out set
 * (celery/worker/request.py: Request.on_timeout). */
void executor_timed_out(struct arena *arena, double limit_s, struct outcome *ret_outcome);

/* REVOKED with TaskRevokedError(reason): "terminated", "revoked" or "expired". */
void executor_revoked(struct arena *arena, const char *reason, struct outcome *ret_outcome);

/* LOST with WorkerLostError(sentence). */
void executor_lost(struct arena *arena, const char *sentence, struct outcome *ret_outcome);

/* REJECT with requeue: a task that never began goes back to its queue. */
void executor_given_back(struct outcome *ret_outcome);

/* The FAILURE NotRegistered(task). */
void executor_not_registered(struct arena *arena, struct bytes task, struct outcome *ret_outcome);

/* The time limits of `request` in seconds: the message's, else its type's; 0: none
 * (celery/worker/request.py: Request.time_limits). */
double executor_hard_limit_s(const struct request *request);
double executor_soft_limit_s(const struct request *request);

/* How many CPUs this process may use; at least 1. */
size_t executor_cpu_count(void);

#endif
