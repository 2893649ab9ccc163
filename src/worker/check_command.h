/*
 * `petiole check`: tries everything that a worker with these settings will need, and prints a line
 * `ok ...` or `FAIL ...` for each: settings, templates, plugins, broker, result backend, API server
 * and every right.
 */
#ifndef PETIOLE_WORKER_CHECK_COMMAND_H
#define PETIOLE_WORKER_CHECK_COMMAND_H

#include "worker/options.h"

/* Prints to stdout. Returns the exit code: 0 when all is well, else 1. */
int check_command_run(const struct options *options, char *const *environment);

#endif
