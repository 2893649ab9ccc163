/*
 * The Job object of one task: the rendered template with what makes it ours: name, labels, the
 * message, the owner, and the defaults that a receipt needs. And reading those marks back. Pure.
 * Names: petiole.dev/… labels and annotations; k8s.io/api/batch/v1 for the rest.
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_JOB_H
#define PETIOLE_EXECUTOR_KUBERNETES_JOB_H

#include <jansson.h>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "dispatch/request.h"

#define KUBERNETES_JOB_SELECTOR      "app.kubernetes.io/managed-by=petiole"
#define KUBERNETES_JOB_CREATED_TTL_S 86400U               /* until the result is stored */
#define KUBERNETES_JOB_MAX_RECORD    ((size_t)200 * 1024) /* contracts: Worker and pod */

/* Whose Job it becomes; borrowed. */
struct kubernetes_job_marks {
    const char *name;
    const char *namespace_name;
    const char *instance_id;
    const char *tenant;
};

/* Completes `job`, a rendered template, for `request`. TOO_LARGE: the message does not fit
 * (MessageTooLarge). INVALID: the template has no container. */
bool kubernetes_job_complete(json_t *job, const struct request *request,
                             const struct kubernetes_job_marks *marks,
                             struct error *reterr) MUST_CHECK;

/* Tells the runner in `job`, a rendered template, by variables that the template does not set: of the
 * limits that only the worker's settings know, PETIOLE_TIME_LIMIT and PETIOLE_SOFT_TIME_LIMIT, in
 * seconds; and of the trace that the message's headers name, TRACEPARENT, TRACESTATE, BAGGAGE,
 * SENTRY_TRACE and SENTRY_BAGGAGE. */
void kubernetes_job_tell_runner(json_t *job, const struct request *request);

/* What a Job of ours says of itself. Views borrow from `object` and `arena`. */
struct kubernetes_job {
    struct bytes name;
    struct bytes resource_version;
    struct bytes owner; /* instance id */
    struct bytes task_id;
    struct bytes task_name;
    struct bytes digest;
    struct bytes tag;
    struct bytes record; /* the message */
    /* kubernetes_job_repeat.h: how many Jobs were made before it for the same delivery, and which
     * one was the last of them; empty for the first */
    int64_t attempt;
    struct bytes follows;
    bool is_managed;  /* carries our marks at all */
    bool is_reported; /* its result is stored and its delivery settled */
    bool is_finished; /* condition Complete or Failed */
    bool is_complete; /* condition Complete */
    bool is_failing;  /* condition FailureTarget: it will be Failed when its pods have ended */
    bool is_active;   /* has a pod that is not finished */
    bool is_deleted;  /* being deleted */
};

/* Reads a Job object. */
void kubernetes_job_read(struct json object, struct arena *arena, struct kubernetes_job *ret_job);

/* Appends the merge patch that lets a reported Job go after `ttl_s`; negative: when it was to go
 * anyway. */
void kubernetes_job_append_reported(struct buffer *patch, int64_t ttl_s);

/* Appends the merge patch that changes nothing but the Job's generation; `number` is another one
 * each time. */
void kubernetes_job_append_changed(struct buffer *patch, unsigned number);

/* Appends the merge patch by which `instance_id` takes the Job over, if it is still of this
 * version. */
void kubernetes_job_append_owner(struct buffer *patch, const char *instance_id,
                                 struct bytes resource_version);

#endif
