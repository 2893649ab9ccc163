/*
 * Ending Jobs. A Job of a task that was terminated is reported as REVOKED first and deleted then, so
 * that no kill in between can make it look as if somebody else had deleted it. Deleting lets the
 * garbage collector end its pods: SIGTERM, and SIGKILL after terminationGracePeriodSeconds.
 * Everything here goes by what is so, not by what happens: a Job that appears late, or changes its
 * owner, or could not be reached, is looked at again.
 */
#include "executor/executor_kubernetes_private.h"

void executor_kubernetes_mark_terminated(struct executor_kubernetes *executor,
                                         struct job_entry *entry, struct bytes task_id)
{
    entry->is_terminated =
        entry->is_terminated || revoked_terminates(executor->options.revoked, task_id);
}

bool executor_kubernetes_terminate(struct executor *base, struct bytes task_id)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    char id[JOB_NAME_ID_SIZE];
    size_t position = 0;
    bool is_found = false;
    struct job_entry *entry = NULL;
    job_name_id(task_id, id);
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (entry->is_reported || entry->is_finished || !job_name_is_of(entry->name, id)) {
            continue;
        }
        entry->is_terminated = true;
        is_found = is_found || (entry->exists && entry->is_mine);
        executor_kubernetes_consider(executor, entry);
    }
    return is_found;
}

void executor_kubernetes_clear_up(struct executor_kubernetes *executor)
{
    size_t position = 0;
    struct job_entry *entry = NULL;
    if (!executor->is_ready || executor->is_closing || !executor_kubernetes_is_owner(executor)) {
        return;
    }
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        bool goes_on = entry->exists && entry->is_reported && !entry->is_finished;
        if (goes_on && !entry->is_leaving
            && (entry->is_mine || executor_kubernetes_has_run_out(executor, entry->owner))) {
            executor_kubernetes_delete(executor, entry);
        }
    }
}
