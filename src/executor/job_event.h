/*
 * Finds in a list of events what tells why a Job has no pod, or lost it. Events explain, they never
 * decide: they are rate-limited and live an hour. Pure. Source: k8s.io/api/core/v1 (Event).
 */
#ifndef PETIOLE_EXECUTOR_JOB_EVENT_H
#define PETIOLE_EXECUTOR_JOB_EVENT_H

#include "executor/job_failure.h"

/* The latest event of an EventList that names a cause: those of a pod's ordinary life do not.
 * Views borrow from `list` and `arena`. False when there is none. */
bool job_event_find(struct json list, struct arena *arena, struct job_event *ret_event);

/* The name of the pod that the Job controller made last, from its SuccessfulCreate; empty: none. */
struct bytes job_event_created_pod(struct json list, struct arena *arena);

#endif
