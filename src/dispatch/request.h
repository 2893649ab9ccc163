/*
 * One task's life in the worker: what was received, which type it is, and how far it has come. A
 * request lives in the arena of its delivery (or, when a Job brings it back, in one of its own) and
 * is settled exactly once.
 *
 *   RECEIVED ──> READY (waits for a place) ──> RUNNING ──> REPORTING ──> DONE
 *     │    ^                                                    ^
 *     v    │                                                    │
 *   SCHEDULED (waits for its ETA)         an outcome on the spot ┘
 *
 * A durable executor that cannot begin it now gives it back: RUNNING ──> READY.
 *
 * request_move is the only writer of `state`. Pure.
 */
#ifndef PETIOLE_DISPATCH_REQUEST_H
#define PETIOLE_DISPATCH_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/timer.h"
#include "broker/broker.h"
#include "codec/message.h"
#include "dispatch/registry.h"

enum request_state {
    REQUEST_RECEIVED,
    REQUEST_SCHEDULED,
    REQUEST_THROTTLED, /* waits for its rate limit */
    REQUEST_READY,
    REQUEST_RUNNING,
    REQUEST_REPORTING,
    REQUEST_DONE,
};

struct request {
    struct arena *arena;       /* owned through the delivery when there is one */
    struct delivery *delivery; /* owned; NULL for a request that a Job brought back */
    struct message message;
    const struct task_type *type; /* NULL: not registered */
    enum request_state state;
    struct bytes tenant;   /* whose it is, once known */
    struct timer timer;    /* ETA, waits */
    struct list_node node; /* the pipeline's list for its state */
    double started_wall_s;
    int64_t started_ms;
    unsigned attempts;   /* a durable executor's: how often it could not begin it */
    unsigned passes;     /* how many that came later were begun before it */
    bool may_have_job;   /* a durable executor may have begun it already: its message came twice, or
                          * an answer was lost */
    bool is_over;        /* is not to begin any more; only what has begun already counts */
    bool is_waiting;     /* what it needs is not free, as its executor says */
    int64_t waiting_ms;  /* since when */
    void *executor_data; /* the executor's, while READY and RUNNING */
    /* The pipeline's: itself while SCHEDULED, or READY and waiting; the report while REPORTING. */
    void *report_data;
};

/* Moves to `state`; asserts that the table of allowed moves has it. */
void request_move(struct request *request, enum request_state state);

const char *request_state_name(enum request_state state);

/* Whether its result is to be stored: the header wins over the type (celery/app/trace.py:
 * build_tracer). */
bool request_stores_result(const struct request *request);
bool request_stores_errors(const struct request *request);

#endif
