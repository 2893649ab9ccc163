/*
 * What becomes of an outcome: the retries of the task's type, a lost runner, a rejected message, a
 * cold shutdown, and the links of a message that nobody has carried out.
 */
#include "dispatch/retry_policy.h"
#include "result/canvas.h"
#include "worker/pipeline_private.h"

/* Whether a Job has brought it back: such a request has no delivery. Its task's row may name another
 * executor by now, which had no part in its end. */
static bool is_of_job(const struct request *request)
{
    return !request->delivery;
}

/* Whether Celery's code in a process has run it or was to: there what follows from its end is done by
 * that code, too. */
static bool is_of_process(const struct request *request)
{
    return request->type && request->type->executor == TASK_PROCESS && !is_of_job(request);
}

/* The type's own retries (autoretry_for), unless the task asked for one itself. In a process
 * Celery's tracing does them; what ends there without it, as at the hard limit, is not tried again. */
static void apply_retry_policy(struct pipeline *pipeline, const struct request *request,
                               struct outcome *outcome)
{
    const struct task_type *type = request->type;
    if (!type || is_of_process(request)) {
        return;
    }
    int64_t retries = request->message.retries;
    uint64_t random = loop_random(pipeline->options.loop);
    bool applies = outcome->kind == OUTCOME_FAILURE
                   && retry_policy_applies(type, outcome->exc_module, outcome->exc_type, retries);
    if (applies) {
        outcome->kind = OUTCOME_RETRY;
        outcome->retry_countdown_s = retry_policy_countdown_s(type, retries, random);
    } else if (outcome->kind == OUTCOME_RETRY && outcome->retry_countdown_s < 0
               && outcome->frames.type != JSON_TYPE_ARRAY) {
        outcome->retry_countdown_s = type->default_retry_delay_s;
    }
}

/* A runner that vanished: sent again, given back, or a failure (celery/worker/request.py:
 * Request.on_failure). The delivery of a Job is acknowledged already: it cannot go back. */
static void apply_lost(const struct request *request, struct outcome *outcome)
{
    const struct task_type *type = request->type;
    if (outcome->kind != OUTCOME_LOST) {
        return;
    }
    bool is_retried = type && type->retry_on_worker_lost;
    bool is_given_back =
        !is_of_job(request) && type && type->reject_on_worker_lost && type->acks_late;
    bool is_last =
        is_retried && type->max_retries >= 0 && request->message.retries >= type->max_retries;
    if (is_retried && !is_last) {
        outcome->kind = OUTCOME_RETRY;
        outcome->retry_countdown_s = type->default_retry_delay_s;
    } else if (is_last || !is_given_back) {
        outcome->kind = OUTCOME_FAILURE;
    }
    if (outcome->kind != OUTCOME_LOST && outcome->exc_type.length == 0) {
        outcome->exc_type = BYTES("WorkerLostError");
        outcome->exc_module = BYTES("billiard.exceptions");
        outcome->exc_message = BYTES("[\"Worker exited prematurely.\"]");
    }
}

/* A task that rejects its message: without requeueing it has failed, and a Job's has no delivery to
 * give back (celery/worker/request.py: Request.on_failure). */
static void apply_reject(const struct request *request, struct outcome *outcome)
{
    if (outcome->kind == OUTCOME_REJECT && outcome->exc_type.length == 0) {
        outcome->exc_type = BYTES("Reject");
        outcome->exc_module = BYTES("celery.exceptions");
        outcome->exc_message = outcome->requeue ? BYTES("[null, true]") : BYTES("[null, false]");
    }
    if (outcome->kind == OUTCOME_REJECT && is_of_job(request)) {
        outcome->requeue = false;
    }
}

/* A task that a cold shutdown ended: late ones go back, early ones are RETRY
 * (celery/worker/request.py: Request.cancel). False when it did not. */
static bool apply_cold(const struct pipeline *pipeline, const struct request *request,
                       struct outcome *outcome)
{
    bool has_ended = outcome->kind == OUTCOME_SUCCESS || outcome->is_told;
    if (!pipeline->is_cold || is_of_job(request) || has_ended) {
        return false;
    }
    bool is_held = !request->delivery->is_settled;
    *outcome = (struct outcome){
        .kind = is_held ? OUTCOME_LOST : OUTCOME_IGNORE,
        .exc_type = BYTES("Retry"),
        .exc_module = BYTES("celery.exceptions"),
        .exc_message = BYTES("[\"Retry(Retry(...), None, None)\", null, null]"),
        .retry_countdown_s = -1, /* told to the client, not published */
    };
    return true;
}

struct json pipeline_end_frames(const struct pipeline *pipeline, const struct request *request,
                                const struct outcome *outcome)
{
    struct buffer buffer;
    size_t left_out = 0;
    const struct message *message = &request->message;
    struct json frames = {.type = JSON_TYPE_ABSENT};
    if (!canvas_follows_end(request, outcome->kind)) {
        return frames;
    }
    buffer_init(&buffer, PIPELINE_MAX_DOCUMENT_BYTES);
    canvas_append_end(&buffer, request, outcome, &pipeline->options.document,
                      loop_wall_s(pipeline->options.loop), &left_out);
    frames = json_checked(arena_copy(request->arena, buffer_view(&buffer)));
    buffer_fini(&buffer);
    if (left_out > 0) {
        log_task(LOG_ERROR, message->task, message->id,
                 "%zu errbacks or links of task %.*s[%.*s] are not carried out: errbacks that are "
                 "groups, chains or chords, which this version of Petiole cannot call, or what is "
                 "too large together",
                 left_out, BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id));
    }
    return frames;
}

/* Whether a container ran the task, or was to. */
static bool is_of_container(const struct request *request)
{
    const struct task_type *type = request->type;
    return type && request->state != REQUEST_RECEIVED
           && (is_of_job(request) || type->executor == TASK_KUBERNETES
               || type->executor == TASK_LOCAL);
}

/* A container whose runner is not Celery's own code has left the links of its message undone. After
 * a success they are lost, so that it counts as a failure; after a failure the worker does them. The
 * chord of a member that is revoked fails wherever that was to run, or did. */
static void apply_links(const struct pipeline *pipeline, const struct request *request,
                        struct outcome *outcome)
{
    if (outcome->frames.type == JSON_TYPE_ARRAY) {
        return;
    }
    if (outcome->kind == OUTCOME_REVOKED && !is_of_process(request)) {
        outcome->frames = pipeline_end_frames(pipeline, request, outcome);
    }
    if (!is_of_container(request)) {
        return;
    }
    if (outcome->kind == OUTCOME_SUCCESS && canvas_follows_success(request)) {
        executor_failure(request->arena, "CanvasUnsupported",
                         "the task succeeded, but its container does not carry out the callbacks "
                         "or the chain of its message: it must run python -m petiole.run",
                         NULL, outcome);
    }
    if (outcome->kind == OUTCOME_FAILURE) {
        outcome->frames = pipeline_end_frames(pipeline, request, outcome);
    }
}

void pipeline_decide(struct pipeline *pipeline, const struct request *request,
                     struct outcome *outcome)
{
    if (request->state != REQUEST_RUNNING || apply_cold(pipeline, request, outcome)) {
        apply_links(pipeline, request, outcome);
        return;
    }
    if (!outcome->is_told) {
        apply_retry_policy(pipeline, request, outcome);
        apply_lost(request, outcome);
    }
    apply_reject(request, outcome);
    apply_links(pipeline, request, outcome);
}

enum settlement pipeline_settlement(const struct request *request, const struct outcome *outcome)
{
    switch (outcome->kind) {
    case OUTCOME_LOST:
        return SETTLEMENT_REQUEUE;
    case OUTCOME_REJECT:
        return outcome->requeue ? SETTLEMENT_REQUEUE : SETTLEMENT_DISCARD;
    case OUTCOME_FAILURE:
        if (!request->type) {
            return SETTLEMENT_DISCARD;
        }
        if (outcome->timed_out) {
            return request->type->acks_on_timeout ? SETTLEMENT_ACK : SETTLEMENT_REQUEUE;
        }
        return request->type->acks_on_failure ? SETTLEMENT_ACK : SETTLEMENT_DISCARD;
    case OUTCOME_SUCCESS:
    case OUTCOME_RETRY:
    case OUTCOME_IGNORE:
    case OUTCOME_REVOKED:
    default:
        return SETTLEMENT_ACK;
    }
}
