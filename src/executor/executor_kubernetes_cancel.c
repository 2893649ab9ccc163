/*
 * Ending Jobs. A Job of a task that was terminated is reported as REVOKED first and deleted then, so
 * that no kill in between can make it look as if somebody else had deleted it. Deleting lets the
 * garbage collector end its pods: SIGTERM, and SIGKILL after terminationGracePeriodSeconds.
 * Everything here goes by what is so, not by what happens: a Job that appears late, or changes its
 * owner, or could not be reached, is looked at again.
 */
#include "executor/executor_kubernetes_private.h"

#define MOST_ROOM 16 /* finished Jobs that go at a time where the number of Jobs is limited */

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

/* Whether a Job that is reported is to go now: it goes on, or stands in the way of another one. */
static bool is_to_go(const struct executor_kubernetes *executor, const struct job_entry *entry,
                     bool is_full)
{
    if (!entry->exists || !entry->is_reported
        || !(entry->is_mine || executor_kubernetes_has_run_out(executor, entry->owner))) {
        return false;
    }
    return entry->is_finished
               ? is_full && !executor_kubernetes_is_leaving(executor, bytes_from_text(entry->name))
               : !entry->is_leaving;
}

void executor_kubernetes_clear_up(struct executor_kubernetes *executor)
{
    size_t position = 0;
    size_t made_room = 0;
    struct job_entry *entry = NULL;
    if (!executor->is_ready || executor->is_closing || !executor_kubernetes_is_owner(executor)) {
        return;
    }
    bool is_full = job_quota_is_full_of_jobs(&executor->quota);
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (is_to_go(executor, entry, is_full)) {
            made_room += entry->is_finished ? 1 : 0;
            is_full = is_full && made_room < MOST_ROOM;
            executor_kubernetes_delete(executor, entry);
        }
    }
}

void executor_kubernetes_make_room(struct executor_kubernetes *executor)
{
    if (job_quota_is_full_of_jobs(&executor->quota)) {
        executor_kubernetes_clear_up(executor);
    }
}
