/*
 * Which tasks this worker runs, and how: the `tasks` section of the settings. The first glob that
 * matches a name wins; no match is NotRegistered, as in Celery. Option names and defaults are those
 * of celery/app/task.py: Task. Pure.
 */
#ifndef PETIOLE_DISPATCH_REGISTRY_H
#define PETIOLE_DISPATCH_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "codec/message.h"

enum task_executor {
    TASK_KUBERNETES,
    TASK_LOCAL,
    TASK_PROCESS,
    TASK_NATIVE
};

#define TASK_EXECUTOR_COUNT 4

/* One row of `tasks`. Strings live as long as the registry. */
struct task_type {
    const char *pattern; /* a name or a glob (fnmatch) */
    enum task_executor executor;
    const char *job_template; /* path of the template; NULL: none (kubernetes and local need one) */
    size_t job_template_index;    /* the executor's number for it, set when it is loaded */
    const char *const *overrides; /* JSON pointers that a message may set; ends with NULL */
    bool acks_late;
    bool acks_on_failure; /* acks_on_failure_or_timeout and its split forms */
    bool acks_on_timeout;
    bool reject_on_worker_lost;
    enum message_flag ignore_result;
    bool store_errors_even_if_ignored;
    bool track_started;
    double time_limit_s; /* 0: none */
    double soft_time_limit_s;
    const char *const
        *autoretry_for; /* exception names: "Class" or "module.Class"; ends with NULL; NULL: none */
    const char *const *dont_autoretry_for;
    int64_t max_retries;          /* -1: no limit (None) */
    double default_retry_delay_s; /* 180 */
    double retry_backoff;         /* 0: off; True is 1 */
    double retry_backoff_max_s;   /* 600 */
    bool retry_jitter;            /* true */
    /* max_delivery_attempts: how often one delivery is begun at most, when the code never ran or
     * its runner vanished; at least 1 */
    int64_t max_delivery_attempts;
};

/* The defaults of celery.Task for everything that a row leaves out; executor kubernetes. */
extern const struct task_type registry_defaults;

struct registry;

/* Returns new. */
struct registry *registry_new(void);
void registry_free(struct registry **registry);

/* Adds a row behind the others; strings are copied. */
struct task_type *registry_add(struct registry *registry, const struct task_type *type);

/* The row for `task`, or NULL: not registered. Borrowed from the registry. */
const struct task_type *registry_find(const struct registry *registry, struct bytes task);

/* Rows in order, to load templates; NULL past the end. */
struct task_type *registry_row(struct registry *registry, size_t index);

#endif
