/*
 * Why a Job failed, in one word that clients can rely on, and one sentence: from the Job's
 * conditions and its pod's status. Never from the exit code alone: a container that was killed for
 * its memory may end with 0. Pure. Sources: users' categories in petiole.exceptions;
 * k8s.io/api/core/v1 (container states), k8s.io/api/batch/v1 (conditions).
 */
#ifndef PETIOLE_EXECUTOR_JOB_FAILURE_H
#define PETIOLE_EXECUTOR_JOB_FAILURE_H

#include "base/json.h"
#include "base/memory.h"
#include "executor/executor.h"

/* How a pod stands. */
enum job_pod_state {
    JOB_POD_NONE,    /* there is no pod (any more) */
    JOB_POD_WAITING, /* not started */
    JOB_POD_RUNNING,
    JOB_POD_ENDED, /* its main container has ended, or it never will run */
};

struct job_pod {
    enum job_pod_state state;
    struct bytes name;
    struct bytes container; /* the main one's name */
    int64_t exit_code;      /* ENDED; -1: it never ran */
    int64_t signal_number;  /* 0: none */
    struct bytes reason;    /* "OOMKilled", "Error", "ImagePullBackOff" … */
    struct bytes message;   /* the termination message */
    double runtime_s;       /* of the main container; 0: unknown */
};

/* Reads a Pod object. The main container is the one that the annotation
 * kubectl.kubernetes.io/default-container names, else the first. Views borrow from `pod` and
 * `arena`. */
void job_failure_read_pod(struct json pod, struct arena *arena, struct job_pod *ret_pod);

/* Whether the pod waits for something that will not come by itself (an image that is not there, a
 * container that cannot be made). */
bool job_failure_is_stuck(const struct job_pod *pod);

/* Whether the end of this pod is how its Job ended: with backoffLimit a Job has pods that failed
 * before the one that counts, and a container that is started again has ended before. */
bool job_failure_fits(const struct job_pod *pod, bool job_is_complete);

/* Makes `ret_outcome` the FAILURE of a Job that has none of the runner's reports. `job` is the Job
 * object (or JSON_TYPE_ABSENT); `pod` is NULL when there is none; `log_tail` may be empty. */
void job_failure_explain(struct json job, const struct job_pod *pod, struct bytes log_tail,
                         struct arena *arena, struct outcome *ret_outcome);

#endif
