#include "worker/pipeline_private.h"

/* celery/worker/consumer/consumer.py: on_unknown_message, on_decode_error, on_invalid_task */
static enum settlement settlement_of(enum message_fault fault)
{
    return fault == MESSAGE_UNDECODABLE ? SETTLEMENT_ACK : SETTLEMENT_DISCARD;
}

static void refuse(struct pipeline *pipeline, struct request *request, enum message_fault fault,
                   const struct error *error)
{
    pipeline_log_fault(pipeline, request->delivery, &request->message, fault, error);
    request_move(request, REQUEST_DONE);
    pipeline->broker->ops->settle(pipeline->broker, request->delivery, settlement_of(fault), NULL,
                                  NULL, NULL);
    pipeline_drop(&request);
    pipeline_touch(pipeline);
}

static void end_unregistered(struct pipeline *pipeline, struct request *request)
{
    struct outcome outcome;
    executor_not_registered(request->arena, request->message.task, &outcome);
    pipeline_log_unregistered(pipeline, request);
    pipeline_report(pipeline, request, &outcome, NULL);
}

/* Whether there may be a Job of `request`, which will have a result of its own. */
static bool may_have_job(const struct pipeline *pipeline, const struct request *request)
{
    const struct executor *executor =
        request->type ? pipeline->lanes[request->type->executor].executor : NULL;
    return request->may_have_job && executor && executor->ops->is_durable;
}

void pipeline_end_revoked(struct pipeline *pipeline, struct request *request, const char *reason)
{
    struct outcome outcome;
    if (may_have_job(pipeline, request)) {
        pipeline_look_for_job(pipeline, request);
        return;
    }
    executor_revoked(request->arena, reason, &outcome);
    pipeline_report(pipeline, request, &outcome, NULL);
}

static void end_refused(struct pipeline *pipeline, struct request *request, const char *category,
                        const struct error *reason)
{
    struct outcome outcome;
    executor_failure(request->arena, category, reason->message, NULL, &outcome);
    pipeline_report(pipeline, request, &outcome, NULL);
}

/* What the message asks for besides would be lost: who waits for it hears of the failure, too. */
static void end_unsupported(struct pipeline *pipeline, struct request *request,
                            const struct error *reason)
{
    struct outcome outcome;
    executor_failure(request->arena, "CanvasUnsupported", reason->message, NULL, &outcome);
    outcome.frames = pipeline_end_frames(pipeline, request, &outcome);
    pipeline_report(pipeline, request, &outcome, NULL);
}

static void on_due(void *context)
{
    struct request *request = context;
    struct pipeline *pipeline = request->report_data;
    list_remove(&request->node);
    pipeline->scheduled_count--;
    request_move(request, REQUEST_RECEIVED);
    pipeline_advance(pipeline, request);
}

static void schedule(struct pipeline *pipeline, struct request *request, double until_wall_s)
{
    double wait_s = until_wall_s - loop_wall_s(pipeline->options.loop);
    /* The clock may be set while we wait: look again at least once an hour. */
    double limited_s = wait_s > 3600 ? 3600 : wait_s;
    request_move(request, REQUEST_SCHEDULED);
    list_append(&pipeline->scheduled, &request->node);
    pipeline->scheduled_count++;
    request->report_data = pipeline;
    request->timer.on_due = on_due;
    request->timer.context = request;
    loop_start_timer(pipeline->options.loop, &request->timer, (int64_t)(limited_s * 1000) + 1);
    pipeline_touch(pipeline);
}

void pipeline_advance(struct pipeline *pipeline, struct request *request)
{
    struct verdict verdict;
    strategy_decide(&pipeline->options.rules, request, loop_wall_s(pipeline->options.loop),
                    &verdict);
    switch (verdict.kind) {
    case VERDICT_RUN:
        pipeline_enqueue(pipeline, request);
        break;
    case VERDICT_WAIT:
        schedule(pipeline, request, verdict.until_wall_s);
        break;
    case VERDICT_EXPIRED:
        pipeline_end_revoked(pipeline, request, "expired");
        break;
    case VERDICT_REVOKED:
        pipeline_end_revoked(pipeline, request, "revoked");
        break;
    case VERDICT_UNREGISTERED:
        end_unregistered(pipeline, request);
        break;
    case VERDICT_FOREIGN_TENANT:
        metrics_add(pipeline->options.metrics, METRICS_TENANT_MISMATCHES, NULL, 1);
        end_refused(pipeline, request, "TenantMismatch", &verdict.reason);
        break;
    case VERDICT_UNSUPPORTED:
        end_unsupported(pipeline, request, &verdict.reason);
        break;
    default:
        break;
    }
}

/* Whether it is over before it has begun; `ret_verdict` says how. */
static bool is_over(const struct pipeline *pipeline, const struct request *request,
                    struct verdict *ret_verdict)
{
    strategy_decide(&pipeline->options.rules, request, loop_wall_s(pipeline->options.loop),
                    ret_verdict);
    return ret_verdict->kind == VERDICT_EXPIRED || ret_verdict->kind == VERDICT_REVOKED;
}

bool pipeline_is_over(const struct pipeline *pipeline, const struct request *request)
{
    struct verdict verdict;
    return is_over(pipeline, request, &verdict);
}

bool pipeline_end_if_over(struct pipeline *pipeline, struct request *request)
{
    struct verdict verdict;
    if (!is_over(pipeline, request, &verdict)) {
        return false;
    }
    pipeline_end_revoked(pipeline, request,
                         verdict.kind == VERDICT_EXPIRED ? "expired" : "revoked");
    return true;
}

/* Whether the type of the task has an executor that runs here. */
static const struct task_type *find_type(struct pipeline *pipeline, struct bytes task)
{
    const struct task_type *type = registry_find(pipeline->options.registry, task);
    return type && pipeline->lanes[type->executor].executor ? type : NULL;
}

/* Opens the body, unless it is opened where the task runs. A body that is not JSON can only be opened
 * there. */
static enum message_fault open_body(const struct pipeline *pipeline, struct request *request,
                                    struct error *reterr)
{
    const struct message *message = &request->message;
    const struct executor *executor = pipeline->lanes[request->type->executor].executor;
    enum message_fault fault = message_open_body(
        request->delivery, &pipeline->options.message_rules, &request->message, reterr);
    if (fault != MESSAGE_FINE || message_is_open(message) || executor->ops->is_tracing) {
        return fault;
    }
    if (message->compression.length > 0) {
        (void)error_set(reterr, ERROR_UNSUPPORTED,
                        "compression %.*s cannot be read by executor %s; let the client use gzip, "
                        "or run the task by executor process",
                        BYTES_FORMAT(message->compression), executor->ops->name);
        return MESSAGE_UNDECODABLE;
    }
    (void)error_set(reterr, ERROR_UNSUPPORTED,
                    "content of type %.*s cannot be read by executor %s; let the client send json, "
                    "or run the task by executor process",
                    BYTES_FORMAT(message->content_type), executor->ops->name);
    return MESSAGE_INVALID;
}

void pipeline_receive(struct pipeline *pipeline, struct delivery *delivery)
{
    struct request *request = arena_alloc(delivery->arena, sizeof(*request));
    struct error error = {0};
    request->arena = delivery->arena;
    request->delivery = delivery;
    enum message_fault fault =
        message_read(delivery, &pipeline->options.message_rules, &request->message, &error);
    if (fault == MESSAGE_FINE) {
        request->type = find_type(pipeline, request->message.task);
        request->may_have_job = request->message.redelivered;
    }
    if (fault == MESSAGE_FINE && request->type) {
        fault = open_body(pipeline, request, &error);
    }
    if (!pipeline->is_accepting) {
        pipeline_give_back(pipeline, request);
        return;
    }
    if (fault != MESSAGE_FINE && request->type && error.kind == ERROR_UNSUPPORTED) {
        /* A right message that only we cannot read: its sender is told. */
        end_refused(pipeline, request, "MessageUnsupported", &error);
        return;
    }
    if (fault != MESSAGE_FINE) {
        refuse(pipeline, request, fault, &error);
        return;
    }
    if (request->type) {
        pipeline_log_received(pipeline, request);
    }
    pipeline_advance(pipeline, request);
}
