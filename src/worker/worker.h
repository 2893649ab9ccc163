/*
 * The worker: reads nothing itself, but builds the parts from the settings, starts them in order
 * (status server, executors, backend, broker), says when it is ready, and stops them in passes.
 *
 *   RUNNING ──signal──> DRAINING ──signal──> RECALLING     Celery's warm, then cold shutdown
 *                           └──all idle──────────┴──> CLOSING ──> STOPPED
 *
 * DRAINING: nothing is popped any more, what waits goes back, running tasks are awaited; Jobs are
 * neither awaited nor ended. RECALLING: running tasks are ended. CLOSING: results and
 * acknowledgements are flushed, connections closed.
 */
#ifndef PETIOLE_WORKER_WORKER_H
#define PETIOLE_WORKER_WORKER_H

#include "worker/options.h"
#include "worker/settings.h"

/* Runs until a signal or a fatal error. Borrows both. Returns the exit code, Celery's: 0 after
 * SIGTERM or SIGQUIT, 1 after SIGINT or an unrecoverable error, 73 when the pidfile is held. */
int worker_run(const struct options *options, struct settings *settings, const char *node_name);

#endif
