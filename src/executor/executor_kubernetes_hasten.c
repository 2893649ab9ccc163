/*
 * A Job whose pod the quota refused is looked at by the Job controller after 1, 2, 4 … seconds.
 * When the quota's status shows a place for it earlier, its spec is changed: only a new generation
 * is looked at immediately (k8s.io/kubernetes/pkg/controller/job/job_controller.go: updateJob). The
 * TTL is what changes; it has no effect before the Job is reported, and is set then.
 */
#include "executor/executor_kubernetes_private.h"

#define AGAIN_MS 1000
#define MOST_MS  30000

struct hastening {
    struct list_node node;
    struct executor_kubernetes *executor;
    struct kubernetes_call *call;
};

static void end_hastening(struct hastening *hastening)
{
    list_remove(&hastening->node);
    kubernetes_api_cancel(&hastening->call);
    memory_free(&hastening);
}

static void on_hastened(void *context, const struct kubernetes_answer *answer)
{
    struct hastening *hastening = context;
    (void)answer; /* the watch shows whether there is a pod now */
    hastening->call = NULL;
    end_hastening(hastening);
}

static void hasten(struct executor_kubernetes *executor, struct job_entry *entry)
{
    struct hastening *hastening = memory_new(sizeof(*hastening));
    struct buffer patch;
    hastening->executor = executor;
    list_append(&executor->hastenings, &hastening->node);
    entry->hasten_ms = loop_now_ms(executor->loop)
                       + loop_backoff_ms(executor->loop, AGAIN_MS, entry->hastened, MOST_MS);
    entry->hastened++;
    buffer_init(&patch, 128);
    kubernetes_job_append_changed(&patch, entry->hastened);
    hastening->call =
        kubernetes_api_call(executor->api,
                            &(struct kubernetes_request){.method = "PATCH",
                                                         .resource = EXECUTOR_KUBERNETES_JOBS,
                                                         .name = entry->name,
                                                         .body = buffer_view(&patch)},
                            on_hastened, hastening);
    buffer_fini(&patch);
}

/* Whoever has waited longest gets what is free. */
static void on_due(void *context)
{
    struct executor_kubernetes *executor = context;
    int64_t given[JOB_QUOTA_MAX_LIMITS] = {0};
    int64_t now_ms = loop_now_ms(executor->loop);
    int64_t next_ms = INT64_MAX;
    list_for_each(node, following, &executor->podless) {
        struct job_entry *entry = list_entry(node, struct job_entry, podless_node);
        if (!entry->asked || !job_quota_give(&executor->quota, entry->asked, given)) {
            continue;
        }
        if (entry->hasten_ms <= now_ms) {
            hasten(executor, entry);
        }
        next_ms = entry->hasten_ms < next_ms ? entry->hasten_ms : next_ms;
    }
    if (next_ms != INT64_MAX) {
        loop_start_timer(executor->loop, &executor->hasten_timer, next_ms - now_ms);
    }
}

void executor_kubernetes_hasten(struct executor_kubernetes *executor)
{
    const struct timer *timer = &executor->hasten_timer;
    int64_t soon_ms = loop_now_ms(executor->loop) + EXECUTOR_KUBERNETES_LOOK_MS;
    bool is_soon = timer->position != 0 && timer->due_ms <= soon_ms;
    if (!is_soon && !list_is_empty(&executor->podless) && executor->quota.count > 0
        && executor->is_ready && !executor->is_closing) {
        loop_start_timer(executor->loop, &executor->hasten_timer, EXECUTOR_KUBERNETES_LOOK_MS);
    }
}

void executor_kubernetes_init_hastening(struct executor_kubernetes *executor)
{
    list_init(&executor->hastenings);
    executor->hasten_timer = (struct timer){.on_due = on_due, .context = executor};
}

void executor_kubernetes_end_hastening(struct executor_kubernetes *executor)
{
    struct list_node *node = NULL;
    loop_stop_timer(executor->loop, &executor->hasten_timer);
    while ((node = list_first(&executor->hastenings)) != NULL) {
        end_hastening(list_entry(node, struct hastening, node));
    }
}
