/*
 * Why a Job failed, in one word that clients can rely on, and one sentence: from the Job's
 * conditions, its pod's status (job_pod.h) and, where only they tell, events. Never from the exit
 * code alone: a container that was killed for its memory may end with 0. Pure. Sources: users'
 * categories in petiole.exceptions; k8s.io/api/core/v1 (container states, DisruptionTarget),
 * k8s.io/api/batch/v1 (conditions).
 */
#ifndef PETIOLE_EXECUTOR_JOB_FAILURE_H
#define PETIOLE_EXECUTOR_JOB_FAILURE_H

#include "base/json.h"
#include "base/memory.h"
#include "executor/executor.h"
#include "executor/job_pod.h"

/* The last event worth telling of a pod that is gone, or of a Job that has none. */
struct job_event {
    struct bytes reason; /* "FailedCreate", "Evicted", "TaintManagerEviction" … */
    struct bytes message;
};

/* What is known of a failed Job. */
struct job_facts {
    struct json job;           /* the Job object, or JSON_TYPE_ABSENT */
    const struct job_pod *pod; /* NULL: none was ever seen */
    struct job_event event;    /* empty: not looked for, or none */
    struct bytes log;          /* the end of the container's log; may be empty */
    int64_t attempts;          /* Jobs that were made for this delivery; 0 and 1 are not told */
};

/* Makes `ret_outcome` the FAILURE of a Job that has none of the runner's reports. */
void job_failure_explain(const struct job_facts *facts, struct arena *arena,
                         struct outcome *ret_outcome);

/* Makes `ret_outcome` the FAILURE of a Job called `name` that somebody deleted; `pod` may be NULL. */
void job_failure_deleted(struct bytes name, const struct job_pod *pod, struct arena *arena,
                         struct outcome *ret_outcome);

/* Whether another Job is to be made for the same delivery: the task's code never ran, and what
 * kept it from running may be otherwise next time. */
bool job_failure_is_rerun(struct json job, const struct job_pod *pod, struct arena *arena);

/* Whether only events can tell why this Job failed. */
bool job_failure_needs_event(struct json job, const struct job_pod *pod, struct arena *arena);

#endif
