/*
 * From outcome to settled: publish what follows, store, settle, let the receipt go (contracts:
 * Report). Each step may be done again after a crash with the same effect: ids are derived, a
 * stored SUCCESS stays, a settled tag stays settled.
 */
#include "codec/message_retry.h"
#include "worker/pipeline_private.h"

struct report {
    struct pipeline *pipeline;
    struct request *request;    /* owned */
    struct bytes receipt;       /* durable */
    struct bytes tag;           /* durable: the delivery it came from */
    struct bytes document;      /* what is stored; empty: nothing */
    const char *state;          /* of the document */
    struct json frames;         /* what its runner left to do; ABSENT: nothing */
    struct executor *concluder; /* its processes do what follows; NULL: the worker does */
    struct bytes exc_type;
    struct bytes exc_message;
    double retry_countdown_s;
    struct bytes retry_queue;
    enum outcome_kind kind; /* what is reported */
    enum settlement settlement;
    bool keeps_receipt; /* something is not done: the receipt must stay */
    bool is_settled;
    bool has_left_outbox;
    bool is_lost; /* the runner vanished */
    bool is_retry;
    bool is_sent;     /* its runner says so of the next try: if there is one, it is in the frames */
    bool is_replaced; /* `document` tells why the task's own could not be stored */
};

/* Step 5: the receipt may go */

static void finish(struct report *report)
{
    struct pipeline *pipeline = report->pipeline;
    struct request *request = report->request;
    if (report->receipt.length > 0) {
        struct executor *executor = pipeline->lanes[TASK_KUBERNETES].executor;
        (void)map_remove(pipeline->receipts, report->receipt);
        if (executor && !report->keeps_receipt) {
            /* What was not seen to be settled may have been restored: a retry stores no state that
             * would tell its copy that this attempt has ended. */
            executor->ops->forget(executor, report->receipt,
                                  report->is_retry && !report->is_settled);
        }
    }
    request_move(request, REQUEST_DONE);
    pipeline->reporting_count--;
    pipeline_drop(&request);
    pipeline_touch(pipeline);
}

/* Takes the Job out of the outbox; `next` may be called with failure. */
static void leave_outbox(struct report *report, broker_done_fn *next)
{
    struct broker *broker = report->pipeline->broker;
    report->has_left_outbox = true;
    broker->ops->outbox_remove(broker, bytes_from_text(report->pipeline->options.namespace_name),
                               report->receipt, next, report);
}

static void on_left_outbox(void *context, bool ok, const struct error *error)
{
    struct report *report = context;
    (void)error;
    /* An entry that stays needs its Job, or the task would count as lost. */
    report->keeps_receipt = report->keeps_receipt || !ok;
    finish(report);
}

static void on_tag_settled(void *context, bool ok, const struct error *error)
{
    struct report *report = context;
    if (!ok) {
        log_write(LOG_ERROR, "Couldn't ack %.*s, reason: %s", BYTES_FORMAT(report->tag),
                  error ? error->message : "the broker was closed");
        report->keeps_receipt = true;
    }
    if (ok && !report->has_left_outbox) {
        leave_outbox(report, on_left_outbox);
    } else {
        finish(report);
    }
}

/* Step 4: settle */

static void settle(struct report *report)
{
    struct broker *broker = report->pipeline->broker;
    struct delivery *delivery = report->request->delivery;
    if (report->receipt.length > 0) {
        if (report->is_settled || report->tag.length == 0) {
            on_tag_settled(report, true, NULL);
        } else {
            broker->ops->settle_tag(broker, report->tag, report->request->message.id,
                                    on_tag_settled, report);
        }
        return;
    }
    if (delivery && !delivery->is_settled) {
        broker->ops->settle(broker, delivery, report->settlement, NULL, NULL, NULL);
    }
    finish(report);
}

/* Something was not done, and can be done later: the delivery goes back to its queue, and a receipt
 * stays for whoever finds it next. */
static void abandon(struct report *report)
{
    report->keeps_receipt = true;
    report->settlement = SETTLEMENT_REQUEUE;
    if (report->receipt.length > 0) {
        finish(report);
    } else {
        settle(report);
    }
}

static bool may_succeed_later(const struct error *error)
{
    return !error || error->kind == ERROR_NONE || error->kind == ERROR_TEMPORARY;
}

/* Step 1: the document */

static bool stores(const struct request *request, const struct outcome *outcome)
{
    bool has_told = outcome->kind == OUTCOME_IGNORE && outcome->told.state.length > 0;
    if (!result_document_state(outcome->kind) && !has_told) {
        return false;
    }
    if (!request->type) {
        return true; /* an unknown task fails whatever its message says */
    }
    return outcome->kind == OUTCOME_SUCCESS || has_told ? request_stores_result(request)
                                                        : request_stores_errors(request);
}

/* The document of `shown`; false when it is larger than any backend takes. */
static bool write_document(struct report *report, const struct outcome *shown)
{
    struct pipeline *pipeline = report->pipeline;
    report->document = bytes_of(NULL, 0);
    if (!pipeline->backend || !stores(report->request, shown)) {
        return true;
    }
    buffer_clear(&pipeline->scratch);
    result_document_append(&pipeline->scratch, report->request, shown, &pipeline->options.document,
                           loop_wall_s(pipeline->options.loop));
    if (pipeline->scratch.overflowed) {
        return false;
    }
    report->document = arena_copy(report->request->arena, buffer_view(&pipeline->scratch));
    const char *state = result_document_state(shown->kind);
    report->state = state ? state : "IGNORED";
    return true;
}

/* A failure of celery.exceptions with a sentence; `rest` follows it in the arguments. */
static struct outcome explained(struct report *report, struct bytes exc_type, const char *sentence,
                                const char *rest)
{
    struct buffer arguments;
    buffer_init(&arguments, strlen(sentence) * 6 + 32);
    (void)buffer_append_byte(&arguments, '[');
    json_append_string(&arguments, bytes_from_text(sentence));
    (void)buffer_append_text(&arguments, rest);
    struct outcome outcome = {
        .kind = OUTCOME_FAILURE,
        .exc_type = exc_type,
        .exc_module = BYTES("celery.exceptions"),
        .exc_message = arena_copy(report->request->arena, buffer_view(&arguments)),
    };
    buffer_fini(&arguments);
    return outcome;
}

/* In place of a result that can never be stored, so that its client does not wait for ever. */
static void replace_document(struct report *report, const char *sentence)
{
    struct outcome outcome = explained(report, BYTES("BackendStoreError"), sentence, "]");
    report->is_replaced = true;
    (void)write_document(report, &outcome);
}

/* What Celery's tracing has made of `outcome`; empty: nothing is stored. */
static void take_document(struct report *report, const struct outcome *outcome)
{
    const char *state = result_document_state(outcome->kind);
    report->state = state ? state : outcome->kind == OUTCOME_REJECT ? RESULT_FAILURE : "IGNORED";
    report->document = report->pipeline->backend
                           ? arena_copy(report->request->arena, outcome->document)
                           : bytes_of(NULL, 0);
}

static void build_document(struct report *report, const struct outcome *outcome)
{
    struct outcome shown = *outcome;
    if (outcome->is_told) {
        take_document(report, outcome);
        return;
    }
    bool is_cold = report->pipeline->is_cold;
    if (is_cold && outcome->kind == OUTCOME_IGNORE && outcome->exc_type.length > 0) {
        shown.kind = OUTCOME_RETRY;
    } else if (outcome->kind == OUTCOME_REJECT && !outcome->requeue) {
        shown.kind = OUTCOME_FAILURE;
    }
    if (!write_document(report, &shown)) {
        replace_document(report, "the result is larger than a value in Redis may be");
    }
}

/* Step 3: store */

static void store(struct report *report);

static void on_not_stored(struct report *report, const struct error *error)
{
    const struct message *message = &report->request->message;
    const char *reason = error ? error->message : "the result backend was closed";
    log_task(LOG_CRITICAL, message->task, message->id,
             "The result of task %.*s[%.*s] cannot be stored: %s",
             BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id), reason);
    if (may_succeed_later(error)) {
        abandon(report);
    } else if (!report->is_replaced) {
        replace_document(report, reason);
        store(report);
    } else {
        settle(report);
    }
}

static void on_stored(void *context, bool ok, const struct error *error)
{
    struct report *report = context;
    if (ok) {
        struct bytes state = bytes_from_text(report->state);
        metrics_add(report->pipeline->options.metrics, METRICS_RESULTS_STORED, &state, 1);
        settle(report);
    } else {
        on_not_stored(report, error);
    }
}

static void store(struct report *report)
{
    struct pipeline *pipeline = report->pipeline;
    if (report->document.length == 0) {
        settle(report);
        return;
    }
    if (!pipeline->backend) {
        abandon(report); /* closed since the document was made */
        return;
    }
    const struct result_ops *ops = pipeline->backend->ops;
    bool is_shared = report->receipt.length > 0; /* with who takes the receipt over */
    (is_shared ? ops->store_once : ops->store)(pipeline->backend, report->request->message.id,
                                               report->document, pipeline->options.result_expires_s,
                                               on_stored, report);
}

/* Step 2: publish */

static void on_failure_told(void *context, bool ok, const struct error *error)
{
    struct report *report = context;
    const struct message *message = &report->request->message;
    if (!ok) {
        log_task(LOG_ERROR, message->task, message->id,
                 "What follows from the failure of task %.*s[%.*s] cannot be done: %s",
                 BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id),
                 error ? error->message : "the broker was closed");
    }
    store(report);
}

/* A retry that can never be published ends the task (celery/app/task.py: Task.retry raises
 * Reject), and so does a message that it sends (celery/app/trace.py: on OperationalError). */
static void fail_to_publish(struct report *report, const struct error *error)
{
    struct outcome outcome = explained(report, BYTES("Reject"), error->message, ", false]");
    if (report->kind != OUTCOME_RETRY) {
        outcome = explained(report, BYTES("OperationalError"), error->message, "]");
        outcome.exc_module = BYTES("kombu.exceptions");
    }
    report->kind = OUTCOME_FAILURE;
    pipeline_log_outcome(report->pipeline, report->request, &outcome);
    report->settlement = pipeline_settlement(report->request, &outcome);
    struct pipeline_frames frames = {
        .list = pipeline_end_frames(report->pipeline, report->request, &outcome),
        .goes_on = true,
        .follow_up = MESSAGE_FOLLOW_UP_FAILURE,
    };
    build_document(report, &outcome);
    pipeline_do_frames(report->pipeline, report->request, &frames, on_failure_told, report);
}

/* The next try is on its way: from now on a Job that is gone is not a task that is lost. */
static void on_retry_left_outbox(void *context, bool ok, const struct error *error)
{
    struct report *report = context;
    (void)error;
    report->keeps_receipt = !ok;
    store(report);
}

static void on_not_published(struct report *report, const char *what, const struct error *error)
{
    const struct message *message = &report->request->message;
    log_task(LOG_ERROR, message->task, message->id, "%s task %.*s[%.*s] cannot be published: %s",
             what, BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id),
             error ? error->message : "the broker was closed");
    if (may_succeed_later(error)) {
        abandon(report);
    } else {
        fail_to_publish(report, error);
    }
}

static void store_after_retry(struct report *report)
{
    if (report->receipt.length > 0) {
        leave_outbox(report, on_retry_left_outbox);
    } else {
        store(report);
    }
}

static void on_published(void *context, bool ok, const struct error *error)
{
    struct report *report = context;
    const struct message *message = &report->request->message;
    if (ok) {
        struct bytes labels[] = {message->task, report->retry_queue};
        metrics_add(report->pipeline->options.metrics, METRICS_TASK_SENT, labels, 1);
        store_after_retry(report);
    } else {
        on_not_published(report, "The retry of", error);
    }
}

/* Finds where the next try goes: as Celery's to the queue that its message was sent to, if that was
 * sent to one by name and tasks of this worker may send there; else back to the one that it was taken
 * from. */
static bool find_retry_queue(struct report *report, struct error *reterr)
{
    const struct pipeline *pipeline = report->pipeline;
    const struct message *message = &report->request->message;
    struct arena *arena = report->request->arena;
    bool is_kept = message->exchange.length == 0
                   && pipeline_may_send_to(pipeline, arena, message->queue, NULL);
    report->retry_queue = is_kept ? message->queue : message->taken_from;
    return is_kept || pipeline_may_send_to(pipeline, arena, report->retry_queue, reterr);
}

static void publish_retry(struct report *report)
{
    struct pipeline *pipeline = report->pipeline;
    const struct strategy_rules *rules = &pipeline->options.rules;
    const struct message *message = &report->request->message;
    struct buffer headers;
    char tag[37];
    double countdown_s = report->retry_countdown_s;
    double eta_wall_s = countdown_s > 0 ? loop_wall_s(pipeline->options.loop) + countdown_s : 0;
    /* Ids are written again escaped: at most six bytes for one. */
    buffer_init(&headers, message->headers.text.length * 8 + message->id.length * 12 + 1024);
    message_retry_append_headers(&headers, message, eta_wall_s, rules->tenant_header,
                                 rules->tenant);
    message_retry_follow_up_id(message, MESSAGE_FOLLOW_UP_RETRY, tag);
    struct publication publication = {
        .routing_key = report->retry_queue,
        .headers = buffer_view(&headers),
        .correlation_id = message->correlation_id,
        .reply_to = message->reply_to,
        .content_type = message->content_type,
        .content_encoding = message->content_encoding,
        .body = message->body,
        .delivery_tag = bytes_from_text(tag),
        .priority = message->priority,
    };
    pipeline->broker->ops->publish(pipeline->broker, &publication, on_published, report);
    buffer_fini(&headers);
}

static void publish_retry_if_allowed(struct report *report)
{
    struct error error = {.kind = ERROR_NONE};
    if (find_retry_queue(report, &error)) {
        publish_retry(report);
    } else {
        on_not_published(report, "The retry of", &error);
    }
}

static void on_frames_done(void *context, bool ok, const struct error *error)
{
    struct report *report = context;
    if (!ok) {
        on_not_published(report, "What was sent by", error);
    } else if (report->is_retry && !report->is_sent) {
        publish_retry_if_allowed(report);
    } else if (report->is_retry) {
        store_after_retry(report);
    } else {
        store(report);
    }
}

static void publish_or_store(struct report *report)
{
    struct pipeline_frames frames = {
        .list = report->frames,
        .skips_failure = report->is_retry && !report->is_sent,
        .goes_on = report->kind == OUTCOME_FAILURE || report->kind == OUTCOME_REVOKED,
        .follow_up = MESSAGE_FOLLOW_UP_FRAMES,
    };
    pipeline_do_frames(report->pipeline, report->request, &frames, on_frames_done, report);
}

/* Whoever died may have got as far as the result: then it is not given twice, nor is a later end of
 * the task made a RETRY again. */
static void on_former_state(void *context, struct bytes state, const struct error *error)
{
    struct report *report = context;
    if (error) {
        abandon(report);
    } else if (pipeline_is_ready_state(state)) {
        settle(report);
    } else {
        publish_or_store(report);
    }
}

/* Step 2 for a task of Celery's tracing that has ended without it */

/* Whether somebody waits for its end, or may: a body that is not open does not tell. */
static bool has_followers(const struct message *message)
{
    return !message_is_open(message) || message_asks_for(message->errbacks)
           || message_asks_for(message->chain) || message_asks_for(message->chord);
}

/* Whether more than a document may follow from an end that the worker has made: errbacks, chain and
 * chord, another try, or handlers of a failure that the task, which has begun, did not live to see.
 * What a message that was refused (TenantMismatch) asks for is not done. */
static bool does_follow(const struct report *report, const struct outcome *outcome)
{
    const struct request *request = report->request;
    bool is_failure = outcome->kind == OUTCOME_FAILURE
                      || (outcome->kind == OUTCOME_REJECT && !outcome->requeue)
                      || (outcome->kind == OUTCOME_RETRY && report->is_lost);
    if (is_failure) {
        return request->state == REQUEST_RUNNING
               || (request->state != REQUEST_RECEIVED && has_followers(&request->message));
    }
    return outcome->kind == OUTCOME_REVOKED && has_followers(&request->message);
}

/* The executor whose processes do, by Celery's code, what follows; NULL: none, or nothing does. The
 * frames of a container's report are the worker's, also when its task's executor has changed since. */
static struct executor *find_concluder(const struct report *report, const struct outcome *outcome,
                                       const struct completion *completion)
{
    const struct task_type *type = report->request->type;
    struct executor *executor = type ? report->pipeline->lanes[type->executor].executor : NULL;
    bool is_possible = executor && executor->ops->conclude && !completion && !outcome->is_told;
    return is_possible && does_follow(report, outcome) ? executor : NULL;
}

static void conclude(struct report *report, const struct outcome *outcome, bool has_begun)
{
    struct request *request = report->request;
    request->report_data = report;
    report->concluder->ops->conclude(report->concluder, request, outcome,
                                     request_stores_errors(request),
                                     has_begun && outcome->kind != OUTCOME_REVOKED);
}

static void log_not_concluded(const struct report *report)
{
    const struct message *message = &report->request->message;
    log_task(LOG_ERROR, message->task, message->id,
             "No Python process could do what follows from the end of task %.*s[%.*s] by %.*s: its "
             "errbacks, chain and chord are not told",
             BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id),
             BYTES_FORMAT(report->exc_type));
}

/* Of a lost task whose next try no process has sent, nor logged. */
static void log_next_try(const struct report *report)
{
    const struct outcome retry = {
        .kind = OUTCOME_RETRY,
        .exc_type = report->exc_type,
        .exc_message = report->exc_message,
        .retry_countdown_s = report->retry_countdown_s,
    };
    pipeline_log_next_try(report->request, &retry);
}

/* The next try of a lost task that no process has sent is sent by the worker. */
void pipeline_report_concluded(void *context, struct request *request, const struct outcome *told)
{
    struct report *report = request->report_data;
    (void)context;
    if (told) {
        report->document = report->pipeline->backend ? arena_copy(request->arena, told->document)
                                                     : bytes_of(NULL, 0);
        store(report);
        return;
    }
    if (report->is_retry) {
        log_next_try(report);
    } else {
        log_not_concluded(report);
    }
    publish_or_store(report);
}

/* Celery's code logs what it does itself. */
static void log_outcome(const struct report *report, const struct outcome *outcome)
{
    struct outcome shown = *outcome;
    shown.is_told = outcome->is_told || report->concluder;
    pipeline_log_outcome(report->pipeline, report->request, &shown);
}

void pipeline_report(struct pipeline *pipeline, struct request *request,
                     const struct outcome *outcome, const struct completion *completion)
{
    struct report *report = arena_alloc(request->arena, sizeof(*report));
    struct outcome decided = *outcome;
    bool has_begun = request->state == REQUEST_RUNNING;
    report->pipeline = pipeline;
    report->request = request;
    report->is_lost = outcome->kind == OUTCOME_LOST;
    pipeline_decide(pipeline, request, &decided);
    report->concluder = find_concluder(report, &decided, completion);
    report->exc_type = arena_copy(request->arena, decided.exc_type);
    report->exc_message = arena_copy(request->arena, decided.exc_message);
    report->settlement = pipeline_settlement(request, &decided);
    if (completion) {
        report->receipt = arena_copy(request->arena, completion->receipt);
        report->tag = arena_copy(request->arena, completion->tag);
        report->is_settled = completion->is_settled;
        (void)map_set(pipeline->receipts, report->receipt, report);
    }
    request_move(request, REQUEST_REPORTING);
    pipeline->reporting_count++;
    log_outcome(report, &decided);
    build_document(report, &decided);
    report->is_retry = decided.kind == OUTCOME_RETRY && !decided.is_told;
    report->kind = decided.kind;
    report->is_sent = outcome->kind == OUTCOME_RETRY && outcome->frames.type == JSON_TYPE_ARRAY
                      && outcome->retry_countdown_s < 0;
    report->frames =
        (struct json){decided.frames.type, arena_copy(request->arena, decided.frames.text)};
    report->retry_countdown_s = decided.retry_countdown_s;
    if (completion && completion->is_taken_over && pipeline->backend) {
        pipeline->backend->ops->fetch_state(pipeline->backend, request->message.id, on_former_state,
                                            report);
    } else if (report->concluder) {
        conclude(report, &decided, has_begun);
    } else {
        publish_or_store(report);
    }
}
