/*
 * Asks the API server for what a failure's sentence needs beyond the Job and its pod: the end of
 * the container's log, and events where only they tell. Both explain, neither decides: what is not
 * there within a few seconds is left out.
 */
#ifndef PETIOLE_EXECUTOR_JOB_INQUIRY_H
#define PETIOLE_EXECUTOR_JOB_INQUIRY_H

#include "base/loop.h"
#include "executor/job_failure.h"
#include "executor/kubernetes_api.h"

struct job_inquiry;

typedef void(job_inquiry_fn)(void *context, const struct outcome *outcome);

/* Begins to find out why the Job called `name` failed. `facts` (log and event are filled in
 * here), all they point to and `arena` are borrowed until the callback, which comes once, from the
 * loop; the outcome lives in `arena`. Returns new. */
struct job_inquiry *job_inquiry_open(struct kubernetes_api *api, const char *name,
                                     const struct job_facts *facts, struct arena *arena,
                                     job_inquiry_fn *on_explained, void *context);

/* Ends it without the callback. Leaves NULL; accepts NULL. Not valid after the callback. */
void job_inquiry_close(struct job_inquiry **inquiry);

#endif
