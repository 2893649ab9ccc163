/*
 * Whether and when a failed task is tried again, with Celery's names and formulas
 * (celery/app/autoretry.py, celery/app/task.py: Task.retry, celery/utils/time.py:
 * get_exponential_backoff_interval). Pure: chance is an argument.
 */
#ifndef PETIOLE_DISPATCH_RETRY_POLICY_H
#define PETIOLE_DISPATCH_RETRY_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatch/registry.h"

/* Whether `names` (ends with NULL; NULL: none) has an exception: by its class, by module and class, or
 * by "Exception", which is every one. Bases of a class are not known here. */
bool retry_policy_lists(const char *const *names, struct bytes exc_module, struct bytes exc_type);

/* Whether `type` retries a failure with this exception by itself: autoretry_for has its class
 * ("OOMKilled"), its module and class, or "Exception"; dont_autoretry_for has not; and fewer than
 * max_retries were made. */
bool retry_policy_applies(const struct task_type *type, struct bytes exc_module,
                          struct bytes exc_type, int64_t retries);

/* Seconds until the next try: default_retry_delay, or with retry_backoff min(retry_backoff_max,
 * factor * 2^retries), of which retry_jitter takes a whole number between 0 and that, picked by
 * `random`. */
double retry_policy_countdown_s(const struct task_type *type, int64_t retries, uint64_t random);

#endif
