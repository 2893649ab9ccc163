/* What clients revoke: waiting requests end on the spot, running ones when they are terminated
 * (celery/worker/control.py: revoke; celery/worker/request.py: Request.revoked, terminate). */
#include "worker/pipeline_private.h"

static bool is_task(const struct request *request, struct bytes task_id)
{
    return bytes_equal(request->message.id, task_id);
}

/* Those that wait for their ETA. */
static bool end_scheduled(struct pipeline *pipeline, struct bytes task_id)
{
    bool is_found = false;
    list_for_each(node, following, &pipeline->scheduled) {
        struct request *request = list_entry(node, struct request, node);
        if (is_task(request, task_id)) {
            list_remove(node);
            loop_stop_timer(pipeline->options.loop, &request->timer);
            pipeline->scheduled_count--;
            request_move(request, REQUEST_RECEIVED);
            pipeline_advance(pipeline, request);
            is_found = true;
        }
    }
    return is_found;
}

/* Those that wait for a place. */
static bool end_ready(struct pipeline *pipeline, struct pipeline_lane *lane, struct bytes task_id)
{
    bool is_found = false;
    list_for_each(node, following, &lane->ready) {
        struct request *request = list_entry(node, struct request, node);
        if (is_task(request, task_id)) {
            pipeline_take(pipeline, request);
            pipeline_end_revoked(pipeline, request, "revoked");
            is_found = true;
        }
    }
    return is_found;
}

/* Those that an executor has. */
static bool cancel_running(struct pipeline *pipeline, struct bytes task_id, int signal_number)
{
    bool is_found = false;
    list_for_each(node, following, &pipeline->running) {
        struct request *request = list_entry(node, struct request, node);
        struct executor *executor = pipeline->lanes[request->type->executor].executor;
        if (is_task(request, task_id)) {
            executor->ops->cancel(executor, request, signal_number);
            is_found = true;
        }
    }
    return is_found;
}

static bool terminate_durable(struct pipeline *pipeline, struct bytes task_id)
{
    bool is_found = false;
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        struct executor *executor = pipeline->lanes[index].executor;
        if (executor && executor->ops->is_durable) {
            is_found = executor->ops->terminate(executor, task_id) || is_found;
        }
    }
    return is_found;
}

bool pipeline_revoke(struct pipeline *pipeline, struct bytes task_id, int signal_number,
                     double since_wall_s)
{
    if (!pipeline->options.revoked) {
        return false;
    }
    revoked_add(pipeline->options.revoked, task_id, signal_number != 0, since_wall_s);
    bool is_found = end_scheduled(pipeline, task_id);
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        is_found = end_ready(pipeline, &pipeline->lanes[index], task_id) || is_found;
    }
    if (signal_number != 0) {
        is_found = cancel_running(pipeline, task_id, signal_number) || is_found;
        is_found = terminate_durable(pipeline, task_id) || is_found;
    }
    pipeline_touch(pipeline);
    return is_found;
}
