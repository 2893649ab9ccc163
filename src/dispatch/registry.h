/*
 * Which tasks this worker runs, and how: those of the app's manifest by their names, and the
 * `tasks` section of the settings. A task's own name wins, then the first glob that matches it; no
 * match is NotRegistered, as in Celery. Option names and defaults are those of celery/app/task.py:
 * Task. Pure.
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
    bool is_exact;       /* a name, whatever characters are in it */
    enum task_executor executor;
    const char *job_template; /* path of the template; NULL: none (kubernetes and local need one) */
    size_t job_template_index;    /* the executor's number for it, set when it is loaded */
    const char *const *overrides; /* JSON pointers that a message may set; ends with NULL */
    bool acks_late;
    bool acks_on_failure; /* acks_on_failure_or_timeout and its split forms */
    bool acks_on_timeout;
    bool reject_on_worker_lost;
    bool retry_on_worker_lost; /* Celery 5.7: send it again, as a retry, when its runner vanished */
    enum message_flag ignore_result;
    bool store_errors_even_if_ignored;
    bool track_started;
    bool send_events;       /* true */
    const char *rate_limit; /* "10/m" or "0.5"; NULL: none */
    double time_limit_s;    /* 0: none */
    double soft_time_limit_s;
    const char *const
        *autoretry_for; /* exception names: "Class" or "module.Class"; ends with NULL; NULL: none */
    const char *const *dont_autoretry_for;
    const char *const *throws;    /* the same: failures that are expected, and logged as such */
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
