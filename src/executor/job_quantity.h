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

/* The quantity in a JSON string or number, in thousandths; 0 when it is none. */
int64_t job_quantity_of(const json_t *value);

#define JOB_QUANTITY_TEXT_SIZE 32

/* Writes `milli` thousandths of `resource` as one writes them in a manifest: "500m", "3", "64Mi". */
void job_quantity_format(const char *resource, int64_t milli,
                         char ret_text[JOB_QUANTITY_TEXT_SIZE]);

/* What one pod of `job` (a batch/v1 Job object) takes of the quota's `resource` ("pods",
 * "count/jobs.batch", "requests.cpu", "cpu", "limits.memory", "requests.nvidia.com/gpu"), in
 * thousandths; 0 when it names none, or it is no quantity. As Kubernetes counts: the sum of the
 * containers, or the largest of the init containers when that is more; a request that is missing
 * is as large as its limit; what the pod says as a whole (spec.resources) counts instead. */
int64_t job_quantity_of_job(const json_t *job, const char *resource);

#endif
