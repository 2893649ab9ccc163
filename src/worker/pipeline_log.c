/*
 * What Celery's worker logs about a task (celery/app/trace.py: TraceInfo,
 * celery/worker/consumer/consumer.py), word for word at the head of the line: people grep for it.
 * With each line goes the metric of the same event.
 */
#include <stdio.h>

#include "codec/python_repr.h"
#include "dispatch/retry_policy.h"
#include "worker/pipeline_private.h"

#define MAX_REPR_BYTES   1024 /* resultrepr_maxsize */
#define MAX_REPORT_BYTES ((size_t)32 * 1024)

static void count(struct pipeline *pipeline, enum metrics_family family,
                  const struct request *request)
{
    struct bytes labels[] = {request->message.task, request->message.queue};
    metrics_add(pipeline->options.metrics, family, labels, 1);
}

/* "Task name[id] " is what most lines begin with. */
#define TASK_HEAD "Task %.*s[%.*s] "
#define TASK_ARGUMENTS(request)                                                                    \
    BYTES_FORMAT(message_display_name(&(request)->message)), BYTES_FORMAT((request)->message.id)

/* The line "Task name[id] " with `event` at its end. */
static void log_event(const struct request *request, const char *event)
{
    log_task(LOG_INFO, request->message.task, request->message.id, TASK_HEAD "%s",
             TASK_ARGUMENTS(request), event);
}

void pipeline_log_received(struct pipeline *pipeline, const struct request *request)
{
    count(pipeline, METRICS_TASK_RECEIVED, request);
    log_event(request, "received");
}

void pipeline_log_waiting(const struct request *request, const char *sentence)
{
    log_task(LOG_INFO, request->message.task, request->message.id, TASK_HEAD "waits: %s",
             TASK_ARGUMENTS(request), sentence);
}

void pipeline_log_started(struct pipeline *pipeline, const struct request *request)
{
    count(pipeline, METRICS_TASK_STARTED, request);
    if (request->delivery) {
        struct bytes labels[] = {request->message.task, request->message.queue};
        metrics_observe(pipeline->options.metrics, METRICS_TASK_QUEUE_WAIT, labels,
                        request->started_wall_s - request->delivery->received_wall_s);
    }
}

/* Appends the exception as Python shows it: ValueError('x'). */
static void append_exception(struct buffer *text, const struct outcome *outcome)
{
    struct json arguments = {JSON_TYPE_ABSENT, {NULL, 0}};
    (void)buffer_append(text, outcome->exc_type);
    (void)buffer_append_byte(text, '(');
    if (json_parse(outcome->exc_message, &arguments, NULL)) {
        struct json_walk walk = json_walk(arguments);
        struct json argument;
        for (bool is_first = true; json_next_element(&walk, &argument); is_first = false) {
            (void)buffer_append_text(text, is_first ? "" : ", ");
            python_repr_append(text, argument, MAX_REPR_BYTES);
        }
    }
    (void)buffer_append_byte(text, ')');
}

static void log_success(struct pipeline *pipeline, const struct request *request,
                        const struct outcome *outcome)
{
    struct bytes labels[] = {request->message.task, request->message.queue};
    count(pipeline, METRICS_TASK_SUCCEEDED, request);
    metrics_observe(pipeline->options.metrics, METRICS_TASK_RUNTIME, labels, outcome->runtime_s);
    if (outcome->is_told || !log_enabled(LOG_INFO)) {
        return;
    }
    struct buffer text;
    struct json value;
    buffer_init(&text, 4096);
    json_append_double(&text, outcome->runtime_s);
    (void)buffer_append_text(&text, "s: ");
    if (json_parse(outcome->result, &value, NULL)) {
        python_repr_append(&text, value, MAX_REPR_BYTES);
    }
    log_task(LOG_INFO, request->message.task, request->message.id, TASK_HEAD "succeeded in %.*s",
             TASK_ARGUMENTS(request), BYTES_FORMAT(buffer_view(&text)));
    buffer_fini(&text);
}

/* A failure that the task's option `throws` names is no surprise: no traceback is logged
 * (celery/app/trace.py: log_policy_expected). */
static bool is_expected(const struct request *request, const struct outcome *outcome)
{
    return request->type
           && retry_policy_lists(request->type->throws, outcome->exc_module, outcome->exc_type);
}

static void log_failure(struct pipeline *pipeline, const struct request *request,
                        const struct outcome *outcome)
{
    struct bytes labels[] = {request->message.task, request->message.queue, outcome->exc_type};
    metrics_add(pipeline->options.metrics, METRICS_TASK_FAILED, labels, 1);
    if (bytes_equal(outcome->exc_module, BYTES("petiole.exceptions"))) {
        metrics_add(pipeline->options.metrics, METRICS_JOB_FAILURES, &outcome->exc_type, 1);
    }
    if (outcome->is_told || !request->type) {
        return; /* of a task that is not registered there is a line already */
    }
    struct buffer text;
    buffer_init(&text, 8192);
    append_exception(&text, outcome);
    bool expected = is_expected(request, outcome);
    log_task_block(expected ? LOG_INFO : LOG_ERROR, request->message.task, request->message.id,
                   expected ? BYTES("") : outcome->traceback, TASK_HEAD "raised %s: %.*s",
                   TASK_ARGUMENTS(request), expected ? "expected" : "unexpected",
                   BYTES_FORMAT(buffer_view(&text)));
    buffer_fini(&text);
}

void pipeline_log_next_try(const struct request *request, const struct outcome *outcome)
{
    struct buffer text;
    buffer_init(&text, 8192);
    append_exception(&text, outcome);
    char when[32] = ""; /* negative: the runner has sent the next try, and knows */
    if (outcome->retry_countdown_s >= 0) {
        (void)snprintf(when, sizeof(when), " in %.6gs", outcome->retry_countdown_s);
    }
    log_task(LOG_INFO, request->message.task, request->message.id, TASK_HEAD "retry: Retry%s: %.*s",
             TASK_ARGUMENTS(request), when, BYTES_FORMAT(buffer_view(&text)));
    buffer_fini(&text);
}

static void log_retry(struct pipeline *pipeline, const struct request *request,
                      const struct outcome *outcome)
{
    count(pipeline, METRICS_TASK_RETRIED, request);
    if (!outcome->is_told) {
        pipeline_log_next_try(request, outcome);
    }
}

static void log_end(const struct request *request, const struct outcome *outcome, const char *event)
{
    if (!outcome->is_told) {
        log_event(request, event);
    }
}

static void log_revoked(struct pipeline *pipeline, const struct request *request)
{
    count(pipeline, METRICS_TASK_REVOKED, request);
    log_task(LOG_INFO, request->message.task, request->message.id,
             "Discarding revoked task: %.*s[%.*s]", TASK_ARGUMENTS(request));
}

void pipeline_log_outcome(struct pipeline *pipeline, const struct request *request,
                          const struct outcome *outcome)
{
    switch (outcome->kind) {
    case OUTCOME_SUCCESS:
        log_success(pipeline, request, outcome);
        break;
    case OUTCOME_FAILURE:
        log_failure(pipeline, request, outcome);
        break;
    case OUTCOME_RETRY:
        log_retry(pipeline, request, outcome);
        break;
    case OUTCOME_REVOKED:
        log_revoked(pipeline, request);
        break;
    case OUTCOME_REJECT:
        count(pipeline, METRICS_TASK_REJECTED, request);
        log_end(request, outcome, "rejected");
        break;
    case OUTCOME_LOST:
        log_event(request, "given back to its queue");
        break;
    case OUTCOME_IGNORE:
    default:
        log_end(request, outcome, "ignored");
        break;
    }
}

/* The report under a message that could not be taken: what lay in the queue, cut. */
static void append_report(struct buffer *text, const struct delivery *delivery)
{
    struct bytes body = delivery->body;
    body.length = body.length > MAX_REPR_BYTES ? MAX_REPR_BYTES : body.length;
    (void)buffer_format(text, "The full contents of the message body was:\nbody: ");
    python_repr_append_text(text, body);
    (void)buffer_format(text, " (%zub)\n{content_type:", delivery->body.length);
    python_repr_append_text(text, delivery->content_type);
    (void)buffer_append_text(text, " content_encoding:");
    python_repr_append_text(text, delivery->content_encoding);
    (void)buffer_append_text(text, " queue:");
    python_repr_append_text(text, delivery->queue);
    (void)buffer_append_text(text, "}\nThe full contents of the message headers:\n");
    python_repr_append(text, delivery->headers, MAX_REPR_BYTES);
}

void pipeline_log_fault(struct pipeline *pipeline, const struct delivery *delivery,
                        const struct message *message, enum message_fault fault,
                        const struct error *error)
{
    struct bytes labels[] = {message->task.length > 0 ? message->task : BYTES("unknown"),
                             delivery->queue};
    metrics_add(pipeline->options.metrics, METRICS_TASK_REJECTED, labels, 1);
    struct buffer report;
    buffer_init(&report, MAX_REPORT_BYTES);
    append_report(&report, delivery);
    struct bytes block = buffer_view(&report);
    if (fault == MESSAGE_UNKNOWN) {
        log_task_block(LOG_WARNING, message->task, message->id, block,
                       "Received and deleted unknown message.  Wrong destination?!? (%s)",
                       error->message);
    } else if (fault == MESSAGE_UNDECODABLE) {
        log_task_block(LOG_CRITICAL, message->task, message->id, block,
                       "Can't decode message body: %s", error->message);
    } else {
        log_task_block(LOG_ERROR, message->task, message->id, block,
                       "Received invalid task message: %s. The message has been ignored and "
                       "discarded.",
                       error->message);
    }
    buffer_fini(&report);
}

void pipeline_log_unregistered(struct pipeline *pipeline, const struct request *request)
{
    const char *origin = pipeline->options.manifest_origin;
    struct buffer report;
    buffer_init(&report, MAX_REPORT_BYTES);
    append_report(&report, request->delivery);
    struct buffer name;
    buffer_init(&name, 8192);
    python_repr_append_text(&name, request->message.task);
    log_task_block(LOG_ERROR, request->message.task, request->message.id, buffer_view(&report),
                   "Received unregistered task of type %.*s. The message has been ignored and "
                   "discarded: %s%s",
                   BYTES_FORMAT(buffer_view(&name)),
                   origin ? origin : "no pattern of `tasks` in the settings matches its name.",
                   origin ? " has no such task. Did you remember to import the module containing "
                            "this task?"
                          : "");
    buffer_fini(&name);
    buffer_fini(&report);
}
