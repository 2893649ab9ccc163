/*
 * Which queues the worker consumes: task_queues narrowed by -Q and -X (celery/app/amqp.py:
 * Queues.select, deselect), and without either the queue named after the tenant.
 */
#ifndef PETIOLE_WORKER_SETTINGS_QUEUES_H
#define PETIOLE_WORKER_SETTINGS_QUEUES_H

#include "worker/settings.h"

/* Fills tenant, queues, queue_count and has_explicit_queues. INVALID when -Q names what
 * task_create_missing_queues forbids, or nothing is left. */
bool settings_queues_choose(struct settings *settings, const struct settings_sources *sources,
                            struct error *reterr) MUST_CHECK;

/* Works tenant and queue out again after kubernetes_namespace has become known. */
void settings_queues_rename(struct settings *settings);

#endif
