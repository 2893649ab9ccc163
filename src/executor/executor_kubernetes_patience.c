/*
 * Which pods will never come to an end by themselves, and how long to wait until that is certain.
 * Their Jobs are reported as they stand, then deleted.
 */
#include "executor/executor_kubernetes_private.h"

#define MS_PER_S 1000
#define LOST_MS  30000 /* what a pod may take beyond the time that its deletion gave it */

/* The main container has ended, and others of its pod have not. */
static bool is_outlived(const struct job_pod *pod)
{
    return pod->state == JOB_POD_ENDED && !pod->is_over && !pod->is_deleted;
}

/* A kubelet that does not answer never ends a pod that is to be deleted. Its Job waits for that
 * even when it counts the pod as failed; one that does not, makes another pod. */
static bool is_leaving(const struct job_entry *entry, const struct job_pod *pod)
{
    return entry->is_failing && pod->is_deleted && pod->is_bound && !pod->is_over;
}

bool executor_kubernetes_may_be_stuck(const struct executor_kubernetes *executor,
                                      const struct job_entry *entry, const struct job_pod *pod)
{
    return job_pod_is_stuck(pod, executor->options.fatal_reasons) || is_outlived(pod)
           || is_leaving(entry, pod) || pod->unschedulable.length > 0;
}

/* The scheduler's clock says since when: a worker that begins anew does not wait anew. */
static bool is_unschedulable_too_long(const struct executor_kubernetes *executor,
                                      const struct job_pod *pod, int64_t stuck_ms)
{
    int64_t most_s = executor->options.unschedulable_s;
    double since_s = pod->unschedulable_wall_s;
    double waited_s = since_s > 0 ? loop_wall_s(executor->loop) - since_s : (double)stuck_ms / 1000;
    return pod->unschedulable.length > 0 && most_s > 0 && waited_s >= (double)most_s;
}

static bool is_stuck(const struct executor_kubernetes *executor, const struct job_entry *entry)
{
    const struct job_pod *pod = &entry->pod->pod;
    int64_t stuck_ms = loop_now_ms(executor->loop) - entry->stuck_since_ms;
    if (is_leaving(entry, pod)) {
        double over_s = loop_wall_s(executor->loop) - pod->deleted_wall_s;
        return stuck_ms >= LOST_MS && over_s * MS_PER_S >= LOST_MS;
    }
    if (is_outlived(pod)) {
        return stuck_ms >= executor->options.sidecar_grace_s * MS_PER_S;
    }
    if (job_pod_waits_for_image(pod) && stuck_ms < executor->options.image_grace_s * MS_PER_S) {
        return false;
    }
    return job_pod_is_stuck(pod, executor->options.fatal_reasons)
           || is_unschedulable_too_long(executor, pod, stuck_ms);
}

void executor_kubernetes_judge(struct executor_kubernetes *executor, struct job_entry *entry)
{
    if (!entry->is_completing) {
        entry->is_stuck = entry->exists && entry->is_mine && entry->pod
                          && entry->stuck_since_ms != 0 && is_stuck(executor, entry);
    }
}
