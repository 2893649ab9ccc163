/*
 * Kubernetes quantities ("500m", "1.5Gi", "2e3") as whole thousandths, and what the pod of a Job
 * requests, for the arithmetic of quotas. Exact for everything that Kubernetes writes; parts
 * smaller than a thousandth count as a whole one, as there
 * (k8s.io/apimachinery/pkg/api/resource/quantity.go). Pure.
 */
#ifndef PETIOLE_EXECUTOR_JOB_QUANTITY_H
#define PETIOLE_EXECUTOR_JOB_QUANTITY_H

#include <jansson.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/bytes.h"

/* Reads `text` in thousandths; more than fits is INT64_MAX. False when it is no quantity, or less
 * than nothing. */
bool job_quantity_parse(struct bytes text, int64_t *ret_milli) MUST_CHECK;

/* What one pod of `job` (a batch/v1 Job object) takes of the quota's `resource` ("pods",
 * "count/jobs.batch", "requests.cpu", "cpu", "limits.memory", "requests.nvidia.com/gpu"), in
 * thousandths; 0 when it names none, or it is no quantity. As Kubernetes counts: the sum of the
 * containers, or the largest of the init containers when that is more; a request that is missing
 * is as large as its limit. */
int64_t job_quantity_of_job(const json_t *job, const char *resource);

#endif
