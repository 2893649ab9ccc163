/*
 * How a task ended that no Python process can tell of any more, for a process that is to do what
 * follows from it: python-shim/src/petiole/_endings.py reads it. Pure.
 *
 *     {"state": "FAILURE", "exc_type": "WorkerLostError", "exc_module": "billiard.exceptions",
 *      "exc_message": ["Worker exited prematurely: …"], "stores": true, "timed_out": false,
 *      "has_begun": true}
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_ENDING_H
#define PETIOLE_EXECUTOR_PROCESS_ENDING_H

#include "executor/executor.h"

/* Appends the JSON object of `outcome`, which is a REVOKED or ends as FAILURE. `stores`: its document
 * is to be stored; `has_begun`: the task has run, so that handlers of its failure are called. */
void process_ending_append(struct buffer *buffer, const struct outcome *outcome, bool stores,
                           bool has_begun);

#endif
