/*
 * The next Job for the same delivery, when the code of a task never ran in the last one: the same
 * object under the next name (job_name.h: attempt). It is made of the old Job alone, so that
 * whoever takes that over comes to the same name and the same Job. Pure.
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_JOB_REPEAT_H
#define PETIOLE_EXECUTOR_KUBERNETES_JOB_REPEAT_H

#include "base/error.h"
#include "base/json.h"
#include "executor/job_name.h"
#include "executor/kubernetes_job.h"

struct kubernetes_job_repetition {
    char name[JOB_NAME_SIZE]; /* of the next Job */
    char *body;               /* it as JSON; owned by jansson's allocator: free() */
};

/* Makes the Job that follows `object`, of which `job` was read, for the worker `instance_id`.
 * INVALID: the message in it cannot be read. */
bool kubernetes_job_repeat(struct json object, const struct kubernetes_job *job,
                           const char *instance_id, struct arena *arena,
                           struct kubernetes_job_repetition *ret_repetition,
                           struct error *reterr) MUST_CHECK;

#endif
