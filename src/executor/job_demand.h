/*
 * How a namespace looks at the pod of a Job: what its LimitRanges fill in, which of its
 * ResourceQuotas count the pod at all (scopes), and what the pod must say under one. All objects
 * are jansson trees as the API gives them, and borrowed. Pure. Sources:
 * k8s.io/kubernetes/plugin/pkg/admission/limitranger/admission.go,
 * k8s.io/kubernetes/pkg/quota/v1/evaluator/core/pods.go.
 */
#ifndef PETIOLE_EXECUTOR_JOB_DEMAND_H
#define PETIOLE_EXECUTOR_JOB_DEMAND_H

#include <jansson.h>
#include <stdbool.h>

#include "base/memory.h"

/* Gives the containers of `job` (a batch/v1 Job object, changed in place) what they do not say
 * themselves: requests from their own limits, then requests and limits from the defaults of each
 * of `limit_ranges`, an array of LimitRange objects (NULL: none). */
void job_demand_fill_in(json_t *job, const json_t *limit_ranges);

/* Whether `resource_quota` counts the pods of `job`: it matches all of the quota's scopes. */
bool job_demand_is_in_scope(const json_t *job, const json_t *resource_quota);

/* Appends what `resource_quota` makes a container say and some do not, as Kubernetes does:
 * "requests.cpu for: main; limits.memory for: main,sidecar". False, with nothing appended, when
 * nothing is missing. `job` must be filled in. */
bool job_demand_append_missing(struct buffer *text, const json_t *job,
                               const json_t *resource_quota);

#endif
