/*
 * The settings that Celery's code in the Python processes decides by, as far as the app is not the one
 * that sets them: the app knows its own ones, and sources above it must win in the processes, too.
 *
 *     {"settings": {"result_extended": true},
 *      "tasks": [["proj.a*", {"ignore_result": true}], …]}       the first match wins
 *
 * python-shim/src/petiole/pool.py takes it as --overrides.
 */
#ifndef PETIOLE_WORKER_SETTINGS_PYTHON_H
#define PETIOLE_WORKER_SETTINGS_PYTHON_H

#include "worker/settings.h"

/* Appends the JSON object; has no credentials in it. */
void settings_python_append(struct buffer *buffer, const struct settings *settings);

#endif
