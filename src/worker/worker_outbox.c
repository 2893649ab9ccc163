/*
 * The outbox against the cluster: an entry whose Job is gone belongs to a task
 * that nobody will report any more, so it is reported here (contracts: Outbox).
 */
#include "base/log.h"
#include "executor/executor_kubernetes.h"
#include "worker/worker_private.h"

#define LOOK_EVERY_MS ((int64_t)5 * 60 * 1000)

/* One entry being looked for. */
struct outbox_look {
    struct worker *worker;
    struct bytes job_name;
    struct bytes task_id;
    struct arena *arena;
};

static void on_found(void *context, bool ok, bool exists)
{
    struct outbox_look *look = context;
    struct arena *arena = look->arena;
    if (ok && !exists && look->worker->phase == WORKER_RUNNING) {
        pipeline_report_lost_job(look->worker->pipeline, look->job_name, look->task_id);
    }
    arena_free(&arena);
}

static void on_entry(void *context, struct bytes job_name, struct bytes task_id,
                     const struct error *error)
{
    struct worker *worker = context;
    struct executor *executor = worker->executors[TASK_KUBERNETES].executor;
    if (error) {
        log_write(LOG_WARNING, "the outbox cannot be read: %s", error->message);
        return;
    }
    if (job_name.length == 0 || !executor || worker->phase != WORKER_RUNNING
        || executor_kubernetes_has_job(executor, job_name)) {
        return;
    }
    struct arena *arena = arena_new(512);
    struct outbox_look *look = arena_alloc(arena, sizeof(*look));
    *look = (struct outbox_look){worker, arena_copy(arena, job_name), arena_copy(arena, task_id),
                                 arena};
    executor_kubernetes_check_receipt(executor, look->job_name, on_found, look);
}

static void look_through(void *context)
{
    struct worker *worker = context;
    loop_start_timer(worker->loop, &worker->outbox_timer, LOOK_EVERY_MS);
    if (worker->executors[TASK_KUBERNETES].executor && worker->broker) {
        worker->broker->ops->outbox_list(worker->broker,
                                         bytes_from_text(worker->settings->kubernetes_namespace),
                                         on_entry, worker);
    }
}

void worker_outbox_start(struct worker *worker)
{
    worker->outbox_timer.on_due = look_through;
    worker->outbox_timer.context = worker;
    if (worker->executors[TASK_KUBERNETES].executor) {
        loop_start_timer(worker->loop, &worker->outbox_timer, 0);
    }
}

void worker_outbox_stop(struct worker *worker)
{
    loop_stop_timer(worker->loop, &worker->outbox_timer);
}
