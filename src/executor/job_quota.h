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

/* What is left of each resource that some quota limits: the least over all quotas. */
struct job_quota {
    struct job_quota_left {
        char resource[64];
        int64_t left_milli; /* hard - used; may be negative */
    } left[JOB_QUOTA_MAX_RESOURCES];

    size_t count;
};

/* Takes one ResourceQuota object into account. Quotas with scopes that a Job's pod may not have are
 * taken in too: too few Jobs wait, too many fail. */
void job_quota_add(struct job_quota *quota, struct json resource_quota);

/* What one pod of a Job asks of `resource` ("pods", "requests.cpu", "cpu", "limits.memory", …) in
 * thousandths. */
typedef int64_t(job_quota_request_fn)(const void *context, const char *resource);

/* How many more pods fit, when `uncounted` Jobs exist whose pods the quota does not count yet, and
 * `reserved_pods` are to be left free. UNLIMITED without a quota that limits what a pod asks
 * for. */
size_t job_quota_fits(const struct job_quota *quota, job_quota_request_fn *request,
                      const void *context, size_t uncounted, int64_t reserved_pods);

#endif
