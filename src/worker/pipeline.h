/*
 * The life of one task, from the broker to the result; everything else is a step of it.
 *
 *   1. A delivery arrives; it gets a request, which lives in the delivery's arena.
 *   2. codec reads the headers, dispatch finds the type, codec opens the body. What cannot be
 *     read ends here, with a log line and the settlement that Celery
 *      gives it.
 *   3. dispatch decides: run, wait for the ETA (then decide again), or end on the spot with an
 *     outcome (expired, not registered, another tenant).
 *   4. A request that is to run waits in the lane of its executor until there is a place. No
 *     message is taken from the broker without one, but for the look-ahead.
 *   5. Direct executors: the delivery is acknowledged when the body starts, or with acks_late
 *     after the report.
 *      Durable executor: its lease is confirmed, the Job is created, the delivery is acknowledged
 *        together with an entry in the outbox, and the request is forgotten: the Job carries
 *      the message and brings it back when it has ended, to whichever worker owns it then.
 *      What a task tells of itself while it runs is stored in passing.
 *   6. The report, each step repeatable: publish what follows (a retry), store the result,
 *     settle, let the receipt go.
 */
#ifndef PETIOLE_WORKER_PIPELINE_H
#define PETIOLE_WORKER_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "broker/broker.h"
#include "dispatch/registry.h"
#include "dispatch/strategy.h"
#include "executor/executor.h"
#include "result/result.h"
#include "result/result_document.h"
#include "telemetry/metrics.h"

struct pipeline;

/* All borrowed for the life of the pipeline. */
struct pipeline_options {
    struct loop *loop;
    struct registry *registry;
    struct metrics *metrics;
    struct strategy_rules rules;
    struct revoked
        *revoked; /* becomes that of the rules; pipeline_revoke adds to it; NULL: none is */
    struct message_rules message_rules;
    struct result_document_options document;
    int64_t result_expires_s;   /* 0: for ever */
    size_t lookahead;           /* worker_lookahead */
    int64_t waiting_timeout_ms; /* kubernetes_quota_timeout; 0: no limit */
    size_t max_scheduled; /* worker_eta_task_limit: with so many waiting for their ETA, nothing
                               * more is taken; 0: no limit */
    /* With so many results waiting for their backend, nothing more is taken or begun: a broker that
     * is there would fill the memory while the backend is away. */
    size_t max_reports;
    const char *namespace_name; /* of the outbox */
    /* Where tasks in containers may send to: the tenant's own queue, `queues`, which are consumed, and
     * what the globs of `publish_queues` name; both end with NULL. */
    const char *const *queues;
    const char *const *publish_queues;
    const char *manifest_origin; /* of the tasks: "app proj", a path; NULL: the settings alone */
    /* Called when nothing runs or is reported any more, after pipeline_stop. */
    void (*on_idle)(void *context);
    /* Called when an executor has become ready. */
    void (*on_executor_ready)(void *context, struct executor *executor);
    void *context;
};

/* Returns new; copies the options. */
struct pipeline *pipeline_new(const struct pipeline_options *options);

/* Nothing may be under way. Leaves NULL; accepts NULL. */
void pipeline_free(struct pipeline **pipeline);

/* What an executor made for this pipeline is to be given, with the pipeline as context. */
extern const struct executor_events pipeline_executor_events;

/* Lends the pipeline its ends. `backend` NULL: results are disabled. */
void pipeline_set_broker(struct pipeline *pipeline, struct broker *broker);
void pipeline_set_backend(struct pipeline *pipeline, struct result_backend *backend);
void pipeline_set_executor(struct pipeline *pipeline, enum task_executor which,
                           struct executor *executor);

/* Begins to offer places to the broker: all executors are ready. */
void pipeline_accept(struct pipeline *pipeline);

/* The broker's on_delivery. Takes the delivery. */
void pipeline_receive(struct pipeline *pipeline, struct delivery *delivery);

/* Stops taking messages and gives back those that wait. With `is_cold`, outcomes of tasks that were
 * killed are not reported as failures: late ones are given back, early ones become RETRY
 * (celery/worker/request.py: Request.cancel). on_idle follows, possibly at once, from the loop. */
void pipeline_stop(struct pipeline *pipeline, bool is_cold);

bool pipeline_is_idle(const struct pipeline *pipeline);

/* Stores FAILURE JobDeleted for a task whose Job is gone, unless a ready state is stored, then
 * removes the outbox entry. Copies. */
void pipeline_report_lost_job(struct pipeline *pipeline, struct bytes job_name,
                              struct bytes task_id);

/* Ends the task with REVOKED if it waits here, and remembers it, so that it never begins here; with
 * a `signal_number` other than 0 it is ended, too, if it runs. `since_wall_s` is when it was revoked. Returns whether
 * anything of it was here (celery/worker/control.py: _revoke, terminate). */
bool pipeline_revoke(struct pipeline *pipeline, struct bytes task_id, int signal_number,
                     double since_wall_s);

/* For metrics: how many requests are in this state (SCHEDULED, READY, RUNNING, REPORTING). */
size_t pipeline_count(const struct pipeline *pipeline, enum request_state state);

/* For metrics: how many of those that are READY wait for more than a place, such as a quota. */
size_t pipeline_waiting_count(const struct pipeline *pipeline);

#endif
