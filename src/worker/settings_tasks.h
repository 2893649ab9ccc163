/*
 * The section `tasks` of the settings, read into the registry: which tasks there are, what runs
 * them, and Celery's options for each (celery/app/task.py: Task), with the task_* settings as
 * defaults.
 */
#ifndef PETIOLE_WORKER_SETTINGS_TASKS_H
#define PETIOLE_WORKER_SETTINGS_TASKS_H

#include "worker/settings.h"

/* Fills settings->registry, which exists. Paths of templates are relative to the folder of the
 * settings file. INVALID names the task and the option. */
bool settings_tasks_read(struct settings *settings, struct error *reterr) MUST_CHECK;

/* A row as it is without options: Celery's defaults under the task_* settings. */
struct task_type settings_tasks_defaults(const struct settings *settings);

#endif
