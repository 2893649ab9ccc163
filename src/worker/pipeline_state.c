/* What is stored of a task before its end, and of one whose Job is gone. */
#include <unistd.h>

#include "worker/pipeline_private.h"

#define MAX_PENDING_STATES 1000

static void on_state_stored(void *context, bool ok, const struct error *error)
{
    (void)context; /* the end of the task is what counts: nothing waits for this */
    (void)ok;
    (void)error;
}

/* Whether states before the end of `request` are stored. */
static bool tracks(const struct pipeline *pipeline, const struct request *request)
{
    return pipeline->backend && request->type && request->type->track_started
           && request_stores_result(request);
}

/* Stores the document in `scratch`; the end of the task is what counts. */
static void store_state(struct pipeline *pipeline, const struct request *request)
{
    pipeline->backend->ops->store(pipeline->backend, request->message.id,
                                  buffer_view(&pipeline->scratch),
                                  pipeline->options.result_expires_s, on_state_stored, NULL);
}

void pipeline_store_started(struct pipeline *pipeline, const struct request *request)
{
    if (tracks(pipeline, request)) {
        buffer_clear(&pipeline->scratch);
        result_document_append_started(&pipeline->scratch, request, (int)getpid(),
                                       &pipeline->options.document);
        store_state(pipeline, request);
    }
}

static void on_document_stored(void *context, bool ok, const struct error *error)
{
    struct pipeline *pipeline = context;
    (void)ok;
    (void)error;
    pipeline->pending_states--;
}

/* As Celery stores them: each, in order. When the backend is slow or away, states that are soon
 * passed by another one are passed over instead, so that what waits has a bound. */
void pipeline_store_document(struct pipeline *pipeline, const struct request *request,
                             struct bytes task_id, struct bytes state, struct bytes document)
{
    struct result_backend *backend = pipeline->backend;
    int64_t expires_s = pipeline->options.result_expires_s;
    bool is_of_another =
        pipeline_is_ready_state(state) || !bytes_equal(task_id, request->message.id);
    if (!backend) {
        return;
    }
    if (is_of_another || pipeline->pending_states < MAX_PENDING_STATES) {
        pipeline->pending_states++;
        backend->ops->store(backend, task_id, document, expires_s, on_document_stored, pipeline);
    } else {
        backend->ops->store_progress(backend, task_id, document, expires_s);
    }
}

void pipeline_store_waiting(struct pipeline *pipeline, const struct request *request,
                            const char *sentence)
{
    if (tracks(pipeline, request)) {
        buffer_clear(&pipeline->scratch);
        result_document_append_waiting(&pipeline->scratch, request, sentence,
                                       &pipeline->options.document);
        store_state(pipeline, request);
    }
}

void pipeline_store_progress(struct pipeline *pipeline, const struct request *request,
                             const struct progress *progress)
{
    if (!pipeline->backend || !request_stores_result(request)) {
        return;
    }
    buffer_clear(&pipeline->scratch);
    result_document_append_progress(&pipeline->scratch, request, progress,
                                    &pipeline->options.document,
                                    loop_wall_s(pipeline->options.loop));
    pipeline->backend->ops->store_progress(pipeline->backend, request->message.id,
                                           buffer_view(&pipeline->scratch),
                                           pipeline->options.result_expires_s);
}

/* A Job that is gone */

struct lost_job {
    struct pipeline *pipeline;
    struct request *request;
    struct bytes job_name;
};

static void on_lost_job_state(void *context, struct bytes state, const struct error *error)
{
    struct lost_job *lost = context;
    struct pipeline *pipeline = lost->pipeline;
    struct request *request = lost->request;
    pipeline->reporting_count--;
    if (error) {
        (void)map_remove(pipeline->receipts, lost->job_name);
        pipeline_drop(&request); /* unknown: looked at again with the next round */
        pipeline_touch(pipeline);
        return;
    }
    struct outcome outcome = {.kind = OUTCOME_IGNORE};
    if (!pipeline_is_ready_state(state)) {
        const char *sentence = arena_format(
            request->arena, "Job %.*s of task %.*s is gone and left no result: it was deleted",
            BYTES_FORMAT(lost->job_name), BYTES_FORMAT(request->message.id));
        executor_failure(request->arena, "JobDeleted", sentence, NULL, &outcome);
    }
    struct completion completion = {.receipt = lost->job_name, .is_settled = true};
    request_move(request, REQUEST_RUNNING);
    pipeline_report(pipeline, request, &outcome, &completion);
}

void pipeline_report_lost_job(struct pipeline *pipeline, struct bytes job_name,
                              struct bytes task_id)
{
    if (map_get(pipeline->receipts, job_name)) {
        return; /* its report is under way */
    }
    if (!pipeline->backend) {
        pipeline->broker->ops->outbox_remove(pipeline->broker,
                                             bytes_from_text(pipeline->options.namespace_name),
                                             job_name, NULL, NULL);
        return;
    }
    struct arena *arena = arena_new(1024);
    struct request *request = arena_alloc(arena, sizeof(*request));
    struct lost_job *lost = arena_alloc(arena, sizeof(*lost));
    request->arena = arena;
    request->message.id = arena_copy(arena, task_id);
    *lost = (struct lost_job){pipeline, request, arena_copy(arena, job_name)};
    (void)map_set(pipeline->receipts, lost->job_name, lost);
    pipeline->reporting_count++;
    pipeline->backend->ops->fetch_state(pipeline->backend, request->message.id, on_lost_job_state,
                                        lost);
}
