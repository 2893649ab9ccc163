/*
 * How many more Jobs fit into a namespace's ResourceQuotas. Pure: status objects and requests in,
 * a number out. Source:
 * k8s.io/kubernetes/pkg/quota/v1/evaluator/core/pods.go (what is counted).
 */
#ifndef PETIOLE_EXECUTOR_JOB_QUOTA_H
#define PETIOLE_EXECUTOR_JOB_QUOTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

#define JOB_QUOTA_MAX_RESOURCES 32
#define JOB_QUOTA_UNLIMITED     SIZE_MAX

/* One resource that some quota limits; of several quotas that with the least left. */
struct job_quota_limit {
    char resource[64];
    int64_t hard_milli;
    int64_t used_milli;   /* by everything in the namespace, our pods among it */
    int64_t others_milli; /* our estimate of what is not ours */
    bool has_others;
};

struct job_quota {
    struct job_quota_limit limits[JOB_QUOTA_MAX_RESOURCES];
    size_t count;
};

/* Our own Jobs as the estimate needs them. Job, pod and quota are told by different watches, each
 * late in its own way: `counted` pods are in `used` for certain, and no more than `unfinished` and
 * `leaving` together can be. */
struct job_quota_jobs {
    size_t unfinished;
    size_t counted; /* have had a pod for a while */
    size_t leaving; /* finished a moment ago: maybe still counted */
};

/* Takes one ResourceQuota object into account. Quotas with scopes that a Job's pod may not have are
 * taken in too: too few Jobs wait, too many fail. */
void job_quota_add(struct job_quota *quota, struct json resource_quota);

/* Keeps the estimates of `old`, of which `quota` is the newer reading. */
void job_quota_carry(struct job_quota *quota, const struct job_quota *old);

/* What one pod of a Job asks of `resource` ("pods", "requests.cpu", "cpu", "limits.memory", …) in
 * thousandths. */
typedef int64_t(job_quota_request_fn)(const void *context, const char *resource);

/* How many unfinished Jobs of ours fit in all, beside what others use and `reserved_pods`. Moves
 * the estimates as far as `jobs` and `used` prove them wrong. UNLIMITED without a quota that limits
 * what a pod asks for. */
size_t job_quota_capacity(struct job_quota *quota, job_quota_request_fn *request,
                          const void *context, const struct job_quota_jobs *jobs,
                          int64_t reserved_pods);

#endif
