/*
 * What a worker prints when it starts, in the look of Celery's (celery/apps/worker.py:
 * Worker.startup_info): people and tools read it there.
 */
#ifndef PETIOLE_WORKER_BANNER_H
#define PETIOLE_WORKER_BANNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct settings_bindings_queue;

/* Everything is borrowed. */
struct banner {
    const char *node_name;
    const char *version;   /* "petiole 0.1.0" */
    const char *app;       /* -A; NULL: none */
    const char *transport; /* broker URL without password */
    const char *results;   /* backend URL without password; NULL: disabled */
    size_t concurrency;
    const char *pool; /* the executors in use: "kubernetes, native" */
    bool sends_task_events;
    const struct settings_bindings_queue *queues;
    size_t queue_count;
    const char *const *tasks; /* patterns, ends with NULL; NULL: do not list them (above INFO) */
    bool is_colored;
};

/* Prints to `file` and flushes it; `wall_s` is now. */
void banner_print(FILE *file, const struct banner *banner, double wall_s);

#endif
