/*
 * What a running task says of itself: lines of its output,
 *
 *   ::petiole {"seq": 7, "state": "PROGRESS", "meta": {"step": 3}}
 *
 * of which only the newest that nobody has been told of is kept. The format is told in
 * python-shim/src/petiole/_progress.py. Everything here is hostile until checked: the line may be
 * the task's own text, cut, or come again. Pure.
 */
#ifndef PETIOLE_EXECUTOR_JOB_PROGRESS_H
#define PETIOLE_EXECUTOR_JOB_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "executor/executor.h"

#define JOB_PROGRESS_MAX_LINE_BYTES  4096 /* without the newline */
#define JOB_PROGRESS_MAX_STATE_BYTES 64
#define JOB_PROGRESS_MIN_PERIOD_MS   500 /* a task's states are told no more often */

/* Of one task. Zeroed storage is a beginning. */
struct job_progress {
    int64_t seq;         /* of the newest line; lines up to it were read before */
    struct arena *arena; /* owned; of `newest` */
    struct progress newest;
};

enum job_progress_line {
    JOB_PROGRESS_OTHER, /* not for us: the task's own text */
    JOB_PROGRESS_OLD,   /* read before */
    JOB_PROGRESS_BAD,   /* for us, and not to be understood: error INVALID says why */
    JOB_PROGRESS_NEW,
};

/* Looks at a line of output; keeps a copy of what is new. */
enum job_progress_line job_progress_take(struct job_progress *progress, struct bytes line,
                                         struct error *reterr);

/* Whether there is something to tell. */
bool job_progress_is_new(const struct job_progress *progress);

/* The newest state; then there is nothing to tell until another one comes. Borrows from `progress`
 * until the next call of any of these. */
struct progress job_progress_give(struct job_progress *progress);

/* Frees what is kept, and begins again. */
void job_progress_fini(struct job_progress *progress);

#endif
