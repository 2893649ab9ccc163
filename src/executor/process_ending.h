/*
 * How a task ended that no Python process can tell of any more, for a process that is to do what
 * follows from it: python-shim/src/petiole/_endings.py reads it. Pure.
 *
 *     {"state": "FAILURE", "exc_type": "WorkerLostError", "exc_module": "billiard.exceptions",
 *      "exc_message": ["Worker exited prematurely: …"], "stores": true, "has_begun": true}
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_ENDING_H
#define PETIOLE_EXECUTOR_PROCESS_ENDING_H

#include "executor/executor.h"

/* Appends the JSON object of `outcome`, which is a REVOKED, a RETRY of a lost task, or ends as
 * FAILURE. `has_begun`: the task has run, so that handlers of its failure are called; what is stored
 * then is by its own options. `stores`: the document of one that has not begun is to be stored. */
void process_ending_append(struct buffer *buffer, const struct outcome *outcome, bool stores,
                           bool has_begun);

#endif
