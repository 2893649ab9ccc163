/*
 * Which tasks there are, what runs them, and Celery's options for each (celery/app/task.py: Task),
 * read into the registry: first those of the app's manifest, by name, then the section `tasks` of
 * the settings. Later ones win, option by option: the task_* settings, the manifest, and the first
 * row of `tasks` that matches the name. With a manifest, what no row gives an executor or a template
 * runs in a process of the app; without one the executor is kubernetes.
 */
#ifndef PETIOLE_WORKER_SETTINGS_TASKS_H
#define PETIOLE_WORKER_SETTINGS_TASKS_H

#include "worker/settings.h"
#include "worker/settings_manifest.h"

/* Fills settings->registry, which exists. Paths of templates are relative to the folder of the
 * settings file. An option of the manifest that Celery took from a setting (celery/app/task.py:
 * Task.from_config) counts as not set, so that later sources of that setting hold for the task.
 * INVALID names the task and the option. */
bool settings_tasks_read(struct settings *settings, struct settings_manifest *manifest,
                         struct error *reterr) MUST_CHECK;

/* A row as it is without options: Celery's defaults under the task_* settings. */
struct task_type settings_tasks_defaults(const struct settings *settings);

#endif
