#include "worker/pipeline.h"

#include <assert.h>

#include "codec/message_record.h"
#include "dispatch/tenancy.h"
#include "worker/pipeline_private.h"

static void update_places(void *context);

struct pipeline *pipeline_new(const struct pipeline_options *options)
{
    struct pipeline *pipeline = memory_new(sizeof(*pipeline));
    pipeline->options = *options;
    pipeline->options.rules.revoked = options->revoked;
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        list_init(&pipeline->lanes[index].ready);
    }
    list_init(&pipeline->scheduled);
    list_init(&pipeline->running);
    pipeline->receipts = map_new();
    buffer_init(&pipeline->scratch, PIPELINE_MAX_DOCUMENT_BYTES);
    pipeline->update.function = update_places;
    pipeline->update.context = pipeline;
    return pipeline;
}

void pipeline_free(struct pipeline **pipeline)
{
    if (!*pipeline) {
        return;
    }
    assert(pipeline_is_idle(*pipeline));
    loop_cancel((*pipeline)->options.loop, &(*pipeline)->update);
    map_free(&(*pipeline)->receipts);
    buffer_fini(&(*pipeline)->scratch);
    memory_free(pipeline);
}

void pipeline_set_broker(struct pipeline *pipeline, struct broker *broker)
{
    pipeline->broker = broker;
}

void pipeline_set_backend(struct pipeline *pipeline, struct result_backend *backend)
{
    pipeline->backend = backend;
}

void pipeline_set_executor(struct pipeline *pipeline, enum task_executor which,
                           struct executor *executor)
{
    pipeline->lanes[which].executor = executor;
}

void pipeline_accept(struct pipeline *pipeline)
{
    pipeline->is_accepting = true;
    pipeline_touch(pipeline);
}

void pipeline_touch(struct pipeline *pipeline)
{
    loop_defer(pipeline->options.loop, &pipeline->update);
}

bool pipeline_is_idle(const struct pipeline *pipeline)
{
    size_t waiting =
        pipeline->scheduled_count + pipeline->running_count + pipeline->reporting_count;
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        waiting += pipeline->lanes[index].ready_count + pipeline->lanes[index].starting_count;
    }
    return waiting == 0;
}

size_t pipeline_count(const struct pipeline *pipeline, enum request_state state)
{
    size_t ready = 0;
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        ready += pipeline->lanes[index].ready_count + pipeline->lanes[index].starting_count;
    }
    return state == REQUEST_SCHEDULED   ? pipeline->scheduled_count
           : state == REQUEST_READY     ? ready
           : state == REQUEST_RUNNING   ? pipeline->running_count
           : state == REQUEST_REPORTING ? pipeline->reporting_count
                                        : 0;
}

/* Requests */

void pipeline_drop(struct request **request)
{
    struct delivery *delivery = (*request)->delivery;
    struct arena *arena = (*request)->arena;
    *request = NULL;
    if (delivery) {
        delivery_free(&delivery);
    } else {
        arena_free(&arena);
    }
}

void pipeline_give_back(struct pipeline *pipeline, struct request *request)
{
    request_move(request, REQUEST_DONE);
    pipeline->broker->ops->settle(pipeline->broker, request->delivery, SETTLEMENT_REQUEUE, NULL,
                                  NULL, NULL);
    pipeline_drop(&request);
    pipeline_touch(pipeline);
}

static struct pipeline_lane *lane_of(struct pipeline *pipeline, const struct request *request)
{
    return &pipeline->lanes[request->type->executor];
}

void pipeline_enqueue(struct pipeline *pipeline, struct request *request)
{
    struct pipeline_lane *lane = lane_of(pipeline, request);
    request_move(request, REQUEST_READY);
    list_append(&lane->ready, &request->node);
    lane->ready_count++;
    pipeline_touch(pipeline);
}

/* Starting: what is looked at before something that cannot be undone */

/* A request on its way into a durable executor. */
struct start {
    struct pipeline *pipeline;
    struct request *request;
};

static void submit(struct pipeline *pipeline, struct request *request)
{
    struct executor *executor = lane_of(pipeline, request)->executor;
    request_move(request, REQUEST_RUNNING);
    list_append(&pipeline->running, &request->node);
    pipeline->running_count++;
    executor->ops->submit(executor, request);
}

static void on_lease(void *context, bool is_held)
{
    struct start *start = context;
    struct pipeline *pipeline = start->pipeline;
    struct request *request = start->request;
    lane_of(pipeline, request)->starting_count--;
    pipeline_touch(pipeline);
    if (is_held && pipeline->is_accepting) {
        if (request->is_over || !pipeline_end_if_over(pipeline, request)) {
            submit(pipeline, request);
        }
        return;
    }
    if (!is_held) {
        log_task(LOG_WARNING, request->message.task, request->message.id,
                 "Task %.*s[%.*s] was held too long and is another worker's now: not started here",
                 BYTES_FORMAT(message_display_name(&request->message)),
                 BYTES_FORMAT(request->message.id));
    }
    /* Giving back moves the message only if the server still has it under our tag. */
    pipeline_give_back(pipeline, request);
}

static void confirm_lease(struct start *start)
{
    struct broker *broker = start->pipeline->broker;
    broker->ops->confirm_lease(broker, start->request->delivery, on_lease, start);
}

bool pipeline_is_ready_state(struct bytes state)
{
    return bytes_equal(state, BYTES(RESULT_SUCCESS)) || bytes_equal(state, BYTES(RESULT_FAILURE))
           || bytes_equal(state, BYTES(RESULT_REVOKED));
}

/* A copy of a message whose task has ended already is settled without a Job. */
static void on_stored_state(void *context, struct bytes state, const struct error *error)
{
    struct start *start = context;
    struct pipeline *pipeline = start->pipeline;
    struct request *request = start->request;
    if (error || !pipeline_is_ready_state(state)) {
        confirm_lease(start);
        return;
    }
    lane_of(pipeline, request)->starting_count--;
    log_task(LOG_INFO, request->message.task, request->message.id,
             "Task %.*s[%.*s] Task already completed successfully or for good (%.*s).",
             BYTES_FORMAT(message_display_name(&request->message)),
             BYTES_FORMAT(request->message.id), BYTES_FORMAT(state));
    request_move(request, REQUEST_DONE);
    pipeline->broker->ops->settle(pipeline->broker, request->delivery, SETTLEMENT_ACK, NULL, NULL,
                                  NULL);
    pipeline_drop(&request);
    pipeline_touch(pipeline);
}

static void start_durable(struct pipeline *pipeline, struct request *request)
{
    struct start *start = arena_alloc(request->arena, sizeof(*start));
    *start = (struct start){pipeline, request};
    lane_of(pipeline, request)->starting_count++;
    bool may_have_run = request->message.redelivered || request->message.retries > 0;
    if (pipeline->backend && may_have_run) {
        pipeline->backend->ops->fetch_state(pipeline->backend, request->message.id, on_stored_state,
                                            start);
    } else {
        confirm_lease(start);
    }
}

void pipeline_look_for_job(struct pipeline *pipeline, struct request *request)
{
    request->is_over = true;
    if (request->state == REQUEST_RECEIVED) {
        request_move(request, REQUEST_READY);
    }
    start_durable(pipeline, request);
}

void pipeline_take(struct pipeline *pipeline, struct request *request)
{
    list_remove(&request->node);
    lane_of(pipeline, request)->ready_count--;
    pipeline_stop_waiting(pipeline, request);
}

/* Whether what `request` needs is free, as its executor says; a request that it refuses is ended,
 * and counts as not admitted. */
static enum executor_admission admit(struct pipeline *pipeline, struct executor *executor,
                                     struct request *request)
{
    enum executor_admission admission =
        executor->ops->admit ? executor->ops->admit(executor, request) : EXECUTOR_ADMITS;
    if (admission == EXECUTOR_REFUSES) {
        pipeline_take(pipeline, request);
        if (!pipeline_end_if_over(pipeline, request)) {
            pipeline_end_refused(pipeline, executor, request);
        }
        return EXECUTOR_LATER;
    }
    if (admission != EXECUTOR_ADMITS) {
        pipeline_begin_waiting(pipeline, executor, request);
    }
    return admission;
}

/* Notes that `request` is begun before those that stand ahead of it. */
static void pass(struct pipeline_lane *lane, const struct request *request)
{
    list_for_each(node, following, &lane->ready) {
        if (node == &request->node) {
            return;
        }
        list_entry(node, struct request, node)->passes++;
    }
}

static void start(struct pipeline *pipeline, struct pipeline_lane *lane, struct request *request)
{
    pass(lane, request);
    pipeline_take(pipeline, request);
    if (pipeline_end_if_over(pipeline, request)) {
        return; /* while it waited for its place */
    }
    if (lane->executor->ops->is_durable) {
        start_durable(pipeline, request);
    } else {
        submit(pipeline, request);
    }
}

/* Starts ready requests of a lane as long as there are places. */
static void pump(struct pipeline *pipeline, struct pipeline_lane *lane)
{
    struct executor *executor = lane->executor;
    if (!executor || lane->ready_count == 0) {
        return;
    }
    bool may_differ = executor->ops->admit != NULL;
    list_for_each(node, following, &lane->ready) {
        struct request *request = list_entry(node, struct request, node);
        bool has_place = executor->ops->free_slots(executor) > lane->starting_count;
        if (!has_place && !may_differ) {
            break;
        }
        enum executor_admission admission = admit(pipeline, executor, request);
        if (admission == EXECUTOR_NEXT || (admission == EXECUTOR_ADMITS && !has_place)) {
            break;
        }
        if (admission == EXECUTOR_ADMITS) {
            start(pipeline, lane, request);
        }
    }
}

/* Places */

/* The places of the scarcest executor, plus the look-ahead (contracts: Slots). While others are
 * ready, the look-ahead is filled up when half of it is free: a command for each message costs more
 * than it gives. */
static size_t count_places(const struct pipeline *pipeline)
{
    size_t scarcest = SIZE_MAX;
    size_t waiting = 0;
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        const struct pipeline_lane *lane = &pipeline->lanes[index];
        if (!lane->executor) {
            continue;
        }
        size_t free_slots = lane->executor->ops->free_slots(lane->executor);
        size_t taken = lane->starting_count < free_slots ? lane->starting_count : free_slots;
        scarcest = free_slots - taken < scarcest ? free_slots - taken : scarcest;
        waiting += lane->ready_count;
    }
    if (scarcest == SIZE_MAX) {
        scarcest = 0; /* no task is registered: messages are taken to be told so */
    }
    size_t places = scarcest + pipeline->options.lookahead;
    places = places > waiting ? places - waiting : 0;
    bool is_enough = waiting > 0 && pipeline->waiting_count == 0
                     && places < (pipeline->options.lookahead + 1) / 2;
    return is_enough ? 0 : places;
}

static bool may_take_more(const struct pipeline *pipeline)
{
    return pipeline->is_accepting && pipeline->reporting_count < pipeline->options.max_reports;
}

static bool may_hold_more(const struct pipeline *pipeline)
{
    size_t most = pipeline->options.max_scheduled;
    return may_take_more(pipeline) && (most == 0 || pipeline->scheduled_count < most);
}

static void update_places(void *context)
{
    struct pipeline *pipeline = context;
    for (size_t index = 0; may_take_more(pipeline) && index < TASK_EXECUTOR_COUNT; index++) {
        pump(pipeline, &pipeline->lanes[index]);
    }
    size_t places = may_hold_more(pipeline) ? count_places(pipeline) : 0;
    if (pipeline->broker) {
        pipeline->broker->ops->set_free_places(pipeline->broker, places);
    }
    if (pipeline->backend && pipeline->backend->ops->gather) {
        bool is_busy = pipeline_count(pipeline, REQUEST_READY) > 0;
        pipeline->backend->ops->gather(pipeline->backend, is_busy);
    }
    if (pipeline->is_stopping && pipeline_is_idle(pipeline) && pipeline->options.on_idle) {
        pipeline->options.on_idle(pipeline->options.context);
    }
}

void pipeline_stop(struct pipeline *pipeline, bool is_cold)
{
    pipeline->is_accepting = false;
    pipeline->is_stopping = true;
    pipeline->is_cold = pipeline->is_cold || is_cold;
    struct list_node *node = NULL;
    while ((node = list_pop(&pipeline->scheduled)) != NULL) {
        struct request *request = list_entry(node, struct request, node);
        loop_stop_timer(pipeline->options.loop, &request->timer);
        pipeline->scheduled_count--;
        pipeline_give_back(pipeline, request);
    }
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        struct pipeline_lane *lane = &pipeline->lanes[index];
        while ((node = list_first(&lane->ready)) != NULL) {
            struct request *request = list_entry(node, struct request, node);
            pipeline_take(pipeline, request);
            pipeline_give_back(pipeline, request);
        }
    }
    pipeline_touch(pipeline);
}

/* Executors' callbacks */

static void on_ready(void *context, struct executor *executor)
{
    struct pipeline *pipeline = context;
    if (pipeline->options.on_executor_ready) {
        pipeline->options.on_executor_ready(pipeline->options.context, executor);
    }
    pipeline_touch(pipeline);
}

static void on_free_slots(void *context, struct executor *executor)
{
    (void)executor;
    pipeline_touch(context);
}

/* Tells a durable executor that the delivery of one of its receipts is settled. The executor may be
 * gone when the broker's answer comes. */
struct settled_note {
    struct pipeline *pipeline;
    enum task_executor which;
    struct bytes receipt;
    char storage[64]; /* a Job's name has at most 63 characters */
};

static void on_receipt_settled(void *context, bool ok, const struct error *error)
{
    (void)error;
    struct settled_note *note = context;
    struct executor *executor = note->pipeline->lanes[note->which].executor;
    if (ok && executor) {
        executor->ops->note_settled(executor, note->receipt);
    }
    memory_free(&note);
}

/* The Job exists: acknowledge, with the outbox entry in the same step, and forget the request. */
static void hand_over(struct pipeline *pipeline, struct request *request, struct bytes receipt)
{
    metrics_add(pipeline->options.metrics, METRICS_JOBS_CREATED, &request->message.queue, 1);
    metrics_observe(pipeline->options.metrics, METRICS_JOB_CREATE_SECONDS, NULL,
                    request->started_wall_s - request->delivery->received_wall_s);
    struct settled_note *note = memory_new(sizeof(*note));
    size_t length = receipt.length < sizeof(note->storage) ? receipt.length : sizeof(note->storage);
    memcpy(note->storage, receipt.data, length);
    note->receipt = bytes_of(note->storage, length);
    note->pipeline = pipeline;
    note->which = request->type->executor;
    struct broker_outbox_entry entry = {
        .namespace_name = bytes_from_text(pipeline->options.namespace_name),
        .job_name = note->receipt,
        .task_id = request->message.id,
    };
    /* A report that is under way may have taken the entry out already. */
    bool is_reporting = map_get(pipeline->receipts, note->receipt) != NULL;
    pipeline->broker->ops->settle(pipeline->broker, request->delivery, SETTLEMENT_ACK,
                                  is_reporting ? NULL : &entry, on_receipt_settled, note);
    request_move(request, REQUEST_DONE);
    list_remove(&request->node);
    pipeline->running_count--;
    pipeline_drop(&request);
    pipeline_touch(pipeline);
}

static void on_started(void *context, struct request *request, struct bytes receipt)
{
    struct pipeline *pipeline = context;
    request->started_wall_s = loop_wall_s(pipeline->options.loop);
    request->started_ms = loop_now_ms(pipeline->options.loop);
    pipeline_log_started(pipeline, request);
    if (lane_of(pipeline, request)->executor->ops->is_durable) {
        hand_over(pipeline, request, receipt);
        return;
    }
    if (!request->type->acks_late) {
        pipeline->broker->ops->settle(pipeline->broker, request->delivery, SETTLEMENT_ACK, NULL,
                                      NULL, NULL);
    }
    if (!lane_of(pipeline, request)->executor->ops->is_tracing) {
        pipeline_store_started(pipeline, request);
    }
}

/* The Job could not be made, for now. Its lease is old by then, so everything is looked at again. */
static void begin_again(struct pipeline *pipeline, struct request *request)
{
    struct pipeline_lane *lane = lane_of(pipeline, request);
    request_move(request, REQUEST_READY);
    request->is_over = false;
    if (pipeline_end_if_over(pipeline, request)) {
        return;
    }
    list_prepend(&lane->ready, &request->node);
    lane->ready_count++;
}

static void on_finished(void *context, struct request *request, const struct outcome *outcome)
{
    struct pipeline *pipeline = context;
    bool is_durable = lane_of(pipeline, request)->executor->ops->is_durable;
    bool is_given_back = is_durable && outcome->kind == OUTCOME_REJECT && outcome->requeue;
    list_remove(&request->node);
    pipeline->running_count--;
    if (is_given_back && pipeline->is_accepting) {
        begin_again(pipeline, request);
    } else {
        pipeline_report(pipeline, request, outcome, NULL);
    }
    pipeline_touch(pipeline);
}

/* Makes a request of the message that a Job carries. Returns new, or NULL when it cannot be
 * read or is another tenant's: whoever may make Jobs here could write anything into one. */
static struct request *recover(struct pipeline *pipeline, const struct completion *completion)
{
    struct arena *arena = arena_new(completion->record.length * 2 + 1024);
    struct request *request = arena_alloc(arena, sizeof(*request));
    struct error error = {0};
    request->arena = arena;
    struct bytes record = arena_copy(arena, completion->record);
    bool is_read = message_record_read(record, arena, &request->message, &error);
    if (!is_read || !tenancy_check(&pipeline->options.rules, request, &error)) {
        log_write(LOG_CRITICAL, "Job %.*s cannot be reported: %s",
                  BYTES_FORMAT(completion->receipt), error.message);
        metrics_add(pipeline->options.metrics, METRICS_TENANT_MISMATCHES, NULL, is_read ? 1 : 0);
        arena_free(&arena);
        return NULL;
    }
    request->type = registry_find(pipeline->options.registry, request->message.task);
    if (!request->type) {
        request->type = &registry_defaults; /* taken out of the settings while its Job ran */
    }
    return request;
}

static void on_running(void *context, const struct completion *running)
{
    struct pipeline *pipeline = context;
    struct request *request = recover(pipeline, running);
    if (request) {
        pipeline_store_started(pipeline, request);
        pipeline_drop(&request);
    }
}

/* A task whose report is under way has no progress any more. */
static void on_progress(void *context, struct request *request, const struct completion *running,
                        const struct progress *progress)
{
    struct pipeline *pipeline = context;
    if (request) {
        pipeline_store_progress(pipeline, request, progress);
    } else if (!map_get(pipeline->receipts, running->receipt)) {
        struct request *recovered = recover(pipeline, running);
        if (recovered) {
            pipeline_store_progress(pipeline, recovered, progress);
            pipeline_drop(&recovered);
        }
    }
}

static void on_state(void *context, struct request *request, struct bytes task_id,
                     struct bytes state, struct bytes document)
{
    pipeline_store_document(context, request, task_id, state, document);
}

static void on_completed(void *context, const struct completion *completion)
{
    struct pipeline *pipeline = context;
    /* What comes before the broker is there is reported as soon as it is. */
    if (pipeline->is_stopping || map_get(pipeline->receipts, completion->receipt)) {
        return; /* the next owner reports it, or its report is under way */
    }
    struct request *request = recover(pipeline, completion);
    if (request) {
        request_move(request, REQUEST_RUNNING);
        pipeline_report(pipeline, request, completion->outcome, completion);
    }
}

static void on_rerun(void *context, const struct completion *ended, struct bytes receipt)
{
    struct pipeline *pipeline = context;
    if (pipeline->is_stopping || map_get(pipeline->receipts, ended->receipt)) {
        return;
    }
    struct request *request = recover(pipeline, ended);
    if (request) {
        pipeline_rerun(pipeline, request, ended, receipt);
    }
}

static void on_notice(void *context, int level, const char *text)
{
    (void)context;
    log_write((enum log_level)level, "%s", text);
}

const struct executor_events pipeline_executor_events = {
    .on_ready = on_ready,
    .on_free_slots = on_free_slots,
    .on_started = on_started,
    .on_finished = on_finished,
    .on_running = on_running,
    .on_progress = on_progress,
    .on_state = on_state,
    .on_concluded = pipeline_report_concluded,
    .on_rerun = on_rerun,
    .on_completed = on_completed,
    .on_notice = on_notice,
};
