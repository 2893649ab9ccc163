/*
 * What a single value cannot tell: values that exclude each other, texts with a form of their own,
 * and what is worked out of them. The last step of settings_load.
 */
#ifndef PETIOLE_WORKER_SETTINGS_CHECK_H
#define PETIOLE_WORKER_SETTINGS_CHECK_H

#include "worker/settings.h"

/* Checks the values and fills broker, runtime_buckets and worker_concurrency (0: the CPUs that this
 * process may use). Leaves notes about what is accepted but not as in Celery. INVALID names place,
 * setting and what is allowed. */
bool settings_check_all(struct settings *settings, struct error *reterr) MUST_CHECK;

/* Notes what the tasks' rows, read by now, ask for and this version does not do. */
void settings_check_tasks(struct settings *settings);

#endif
