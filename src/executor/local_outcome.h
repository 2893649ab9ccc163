/*
 * How a task's process ended, as an outcome: its own report, or the failure that its exit code, its
 * signal or its deadline stand for. Pure.
 */
#ifndef PETIOLE_EXECUTOR_LOCAL_OUTCOME_H
#define PETIOLE_EXECUTOR_LOCAL_OUTCOME_H

#include "base/bytes.h"
#include "base/memory.h"
#include "executor/executor.h"

/* Why the executor ended the process. */
enum local_end {
    LOCAL_END_ITSELF,
    LOCAL_END_DEADLINE, /* activeDeadlineSeconds */
    LOCAL_END_LIMIT,    /* the task's hard time limit */
    LOCAL_END_REVOKED,
    LOCAL_END_KILLED, /* the worker ends */
};

/* What is left of a process; borrowed. */
struct local_end_state {
    const char *job_name;
    const char *container;
    enum local_end end;
    bool has_started;
    double limit_s;      /* of END_LIMIT */
    int exit_code;       /* -1: a signal ended it */
    int signal_number;   /* 0: it exited */
    struct bytes report; /* the result file; empty: none */
    struct bytes output; /* the end of the log */
};

/* Makes the outcome, but for runtime_s; it borrows from `state` and `arena`. */
void local_outcome_make(const struct local_end_state *state, struct arena *arena,
                        struct outcome *ret_outcome);

/* The FAILURE of a process that could not be started: `category` and why. */
void local_outcome_of_error(const char *job_name, const char *category, const struct error *error,
                            struct arena *arena, struct outcome *ret_outcome);

#endif
