/*
 * What the files of the pipeline share: pipeline.c (lanes and places), pipeline_intake.c (from
 * delivery to verdict), pipeline_wait.c (what waits for more than a place), pipeline_decide.c (what
 * becomes of an outcome), pipeline_report.c (from outcome to settled), pipeline_frames.c (what a task in a container sent), pipeline_state.c (what is stored before that), pipeline_revoke.c (what clients revoke), pipeline_log.c (what Celery's log
 * says of it).
 */
#ifndef PETIOLE_WORKER_PIPELINE_PRIVATE_H
#define PETIOLE_WORKER_PIPELINE_PRIVATE_H

#include "base/log.h"
#include "base/map.h"
#include "codec/message_retry.h"
#include "executor/job_frame.h"
#include "worker/pipeline.h"

/* One executor and the requests that wait for it. */
struct pipeline_lane {
    struct executor *executor; /* borrowed; NULL: not in use */
    struct list ready;         /* of struct request */
    size_t ready_count;
    size_t starting_count; /* lease or stored state is being looked at */
};

struct pipeline {
    struct pipeline_options options;
    struct broker *broker;
    struct result_backend *backend;
    struct pipeline_lane lanes[TASK_EXECUTOR_COUNT];
    struct list scheduled; /* of struct request, waiting for their ETA */
    size_t scheduled_count;
    size_t waiting_count; /* of those in lanes, for more than a place */
    struct list running;  /* of struct request, submitted and not yet started (durable) or finished
                          * (direct) */
    size_t running_count;
    size_t reporting_count;
    size_t pending_states;   /* of tasks that run in processes, given to the backend */
    struct map *receipts;    /* Job name -> its report under way */
    struct buffer scratch;   /* a document or publication while it is handed over */
    struct loop_call update; /* tells the broker how many places there are, once a turn */
    bool is_accepting;
    bool is_stopping; /* pipeline_stop was called */
    bool is_cold;
};

#define PIPELINE_MAX_DOCUMENT_BYTES ((size_t)512 << 20) /* Redis' limit of a value */

/* pipeline.c */

/* Puts a request that may run into its lane. */
void pipeline_enqueue(struct pipeline *pipeline, struct request *request);

/* Looks at places and ready requests again, at the end of this turn. */
void pipeline_touch(struct pipeline *pipeline);

/* Gives an unsettled request back to its queue and frees it. */
void pipeline_give_back(struct pipeline *pipeline, struct request *request);

/* Frees a request and its arena; leaves NULL. Its delivery must be settled. */
void pipeline_drop(struct request **request);

/* Ends `request` of a durable executor, in READY or RECEIVED and out of its lane, that may have begun
 * already: as what it became, or, when it has not begun, as REVOKED. */
void pipeline_look_for_job(struct pipeline *pipeline, struct request *request);

/* Takes a request out of its lane. */
void pipeline_take(struct pipeline *pipeline, struct request *request);

/* pipeline_wait.c */

/* What `request`, in its lane, needs is not free: tells so the first time, and arms its end. */
void pipeline_begin_waiting(struct pipeline *pipeline, struct executor *executor,
                            struct request *request);
void pipeline_stop_waiting(struct pipeline *pipeline, struct request *request);

/* Ends a request, out of its lane, that its executor never admits. */
void pipeline_end_refused(struct pipeline *pipeline, struct executor *executor,
                          struct request *request);

/* Whether a task whose stored state is `state` has ended for good. */
bool pipeline_is_ready_state(struct bytes state);

/* pipeline_intake.c */

/* Carries out the verdict on a request in RECEIVED. */
void pipeline_advance(struct pipeline *pipeline, struct request *request);

/* Ends a request that has not begun here with REVOKED, after a look whether it has begun elsewhere;
 * `reason` is "revoked" or "expired". */
void pipeline_end_revoked(struct pipeline *pipeline, struct request *request, const char *reason);

/* Ends a request in READY or RECEIVED whose time has run out, or that was revoked meanwhile, as
 * Celery does just before it hands a task to its pool; else false. */
bool pipeline_end_if_over(struct pipeline *pipeline, struct request *request);
bool pipeline_is_over(const struct pipeline *pipeline, const struct request *request);

/* pipeline_decide.c */

/* Makes of the outcome of `request` what it means for the task: one that was made on the spot,
 * before the task ran, is final. */
void pipeline_decide(struct pipeline *pipeline, const struct request *request,
                     struct outcome *outcome);

/* What becomes of the message: the matrix of acks_late (celery/worker/request.py: Request.on_failure,
 * on_success, on_timeout). */
enum settlement pipeline_settlement(const struct request *request, const struct outcome *outcome);

/* The frames of what follows from a FAILURE or REVOKED by the message's links, in the request's
 * arena; ABSENT: nothing. */
struct json pipeline_end_frames(const struct pipeline *pipeline, const struct request *request,
                                const struct outcome *outcome);

/* pipeline_report.c */

/* Begins the report of `request`, which it takes. `receipt` and `tag` are empty for direct
 * executors. */
void pipeline_report(struct pipeline *pipeline, struct request *request,
                     const struct outcome *outcome, const struct completion *completion);

/* The answer to executor_ops.conclude: goes on with the report of `request`. `context` is the
 * pipeline. */
void pipeline_report_concluded(void *context, struct request *request, const struct outcome *told);

/* pipeline_frames.c */

/* What is to be done for a task that has ended. */
struct pipeline_frames {
    struct json list;   /* as outcome.frames; must live as long as the request */
    bool skips_failure; /* without those that follow a failure: the task is tried again instead */
    /* the task has failed or is revoked: what can never be done is told, and left out */
    bool goes_on;
    /* what delivery tags derive from: each list of a run has its own */
    enum message_follow_up follow_up;
};

/* Carries out frames, in order. on_done may come within the call; its error is TEMPORARY when all of
 * them can be done again later, and another one, unless `goes_on`, that of a frame that never
 * can. */
void pipeline_do_frames(struct pipeline *pipeline, struct request *request,
                        const struct pipeline_frames *what, broker_done_fn *on_done, void *context);

/* Whether the tasks of this worker may send to `queue`; else REFUSED. What their messages say of the
 * queue that they were sent to does not count, nor what a Job says of the one that its message was
 * taken from: anybody may have written it. */
bool pipeline_may_send_to(const struct pipeline *pipeline, struct arena *arena, struct bytes queue,
                          struct error *reterr);

/* The message that a PUBLISH asks for, by `headers`, which say whose it is. All is borrowed. */
struct publication pipeline_publication_of(const struct job_frame *frame, struct bytes headers,
                                           struct bytes delivery_tag);

/* pipeline_state.c */

/* Stores STARTED, when the task tracks it. */
void pipeline_store_started(struct pipeline *pipeline, const struct request *request);

/* Stores that it waits, and why, likewise. */
void pipeline_store_waiting(struct pipeline *pipeline, const struct request *request,
                            const char *sentence);

/* Stores what it told of itself while it runs, unless its result is ignored. */
void pipeline_store_progress(struct pipeline *pipeline, const struct request *request,
                             const struct progress *progress);

/* Stores what Celery's tracing has made for `task_id` while `request` runs: unless SUCCESS is
 * stored, as Celery does. */
void pipeline_store_document(struct pipeline *pipeline, const struct request *request,
                             struct bytes task_id, struct bytes state, struct bytes document);

/* pipeline_rerun.c */

/* Lets the Job of `ended` go, for which the Job `receipt` was made. Takes the request. */
void pipeline_rerun(struct pipeline *pipeline, struct request *request,
                    const struct completion *ended, struct bytes receipt);

/* pipeline_log.c: one line (or block) each, and the metrics that go with it */

void pipeline_log_received(struct pipeline *pipeline, const struct request *request);
void pipeline_log_waiting(const struct request *request, const char *sentence);
void pipeline_log_started(struct pipeline *pipeline, const struct request *request);
void pipeline_log_outcome(struct pipeline *pipeline, const struct request *request,
                          const struct outcome *outcome);
/* The line of a RETRY alone. */
void pipeline_log_next_try(const struct request *request, const struct outcome *outcome);
void pipeline_log_fault(struct pipeline *pipeline, const struct delivery *delivery,
                        const struct message *message, enum message_fault fault,
                        const struct error *error);
void pipeline_log_unregistered(struct pipeline *pipeline, const struct request *request);

#endif
