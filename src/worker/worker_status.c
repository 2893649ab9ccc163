/* How the worker is: the answers to probes, and the gauges that are read off when somebody asks. */
#include <stdio.h>

#include "executor/executor_kubernetes.h"
#include "worker/worker_private.h"

static bool is_live(void *context, char *reason, size_t size)
{
    /* The loop turns, or nobody would be asking: a broker that is away is no reason to be
     * killed. */
    (void)context;
    (void)snprintf(reason, size, "ok");
    return true;
}

static bool is_ready(void *context, char *reason, size_t size)
{
    const struct worker *worker = context;
    if (worker->phase >= WORKER_DRAINING) {
        (void)snprintf(reason, size, "shutting down");
        return false;
    }
    if (!worker->broker_is_up) {
        (void)snprintf(reason, size, "broker: not connected to %s", worker->broker_url);
        return false;
    }
    if (worker->backend && !worker->backend_is_up) {
        (void)snprintf(reason, size, "result backend: not connected to %s", worker->backend_url);
        return false;
    }
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        const struct worker_executor *slot = &worker->executors[index];
        if (slot->executor && !slot->is_ready) {
            (void)snprintf(reason, size, "executor %s: not ready", slot->executor->ops->name);
            return false;
        }
    }
    (void)snprintf(reason, size, "ok");
    return true;
}

static void set_gauge(struct worker *worker, enum metrics_family family, struct bytes label,
                      double value)
{
    metrics_set(worker->metrics, family, label.length > 0 ? &label : NULL, value);
}

static void set_queue_gauges(struct worker *worker)
{
    for (size_t index = 0; index < worker->settings->queue_count; index++) {
        struct bytes queue = bytes_from_text(worker->settings->queues[index]);
        int64_t length =
            worker->broker ? worker->broker->ops->queue_length(worker->broker, queue) : -1;
        if (length >= 0) {
            set_gauge(worker, METRICS_QUEUE_LENGTH, queue, (double)length);
        }
        set_gauge(worker, METRICS_ACTIVE_WORKER_COUNT, queue, 1);
    }
}

static void set_task_gauges(struct worker *worker)
{
    static const enum request_state states[] = {REQUEST_SCHEDULED, REQUEST_READY, REQUEST_RUNNING,
                                                REQUEST_REPORTING};

    for (size_t index = 0; index < ARRAY_LENGTH(states); index++) {
        set_gauge(worker, METRICS_TASKS_HELD, bytes_from_text(request_state_name(states[index])),
                  (double)pipeline_count(worker->pipeline, states[index]));
    }
    double active = 0;
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        struct executor *executor = worker->executors[index].executor;
        if (executor) {
            active += (double)executor->ops->running_count(executor);
            set_gauge(worker, METRICS_FREE_PLACES, bytes_from_text(executor->ops->name),
                      (double)executor->ops->free_slots(executor));
        }
    }
    set_gauge(worker, METRICS_WORKER_TASKS_ACTIVE, bytes_of(NULL, 0), active);
}

static void set_job_gauges(struct worker *worker)
{
    struct executor *executor = worker->executors[TASK_KUBERNETES].executor;
    size_t running = 0;
    size_t pending = 0;
    if (executor) {
        executor_kubernetes_count(executor, &running, &pending);
        set_gauge(worker, METRICS_JOBS_RUNNING, bytes_of(NULL, 0), (double)running);
        set_gauge(worker, METRICS_JOBS_PENDING, bytes_of(NULL, 0), (double)pending);
        set_gauge(worker, METRICS_JOBS_WAITING_QUOTA, bytes_of(NULL, 0),
                  (double)pipeline_waiting_count(worker->pipeline));
    }
}

static void write_metrics(void *context, struct buffer *body)
{
    struct worker *worker = context;
    char reason[256];
    set_gauge(worker, METRICS_WORKER_UP, bytes_of(NULL, 0),
              is_ready(worker, reason, sizeof(reason)) ? 1 : 0);
    set_queue_gauges(worker);
    set_task_gauges(worker);
    set_job_gauges(worker);
    metrics_write(worker->metrics, body);
}

const struct status_server_events worker_status_events = {
    .is_live = is_live,
    .is_ready = is_ready,
    .write_metrics = write_metrics,
};
