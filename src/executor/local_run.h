/*
 * One Job of the local executor, from the rendered template to its outcome: folders and files are
 * made on a pool thread, the process runs, its report and its log are read on a pool thread, and
 * the private folder goes. It knows the message only as text.
 *
 *   PREPARING ─> RUNNING ─> COLLECTING ─> on_ended
 *        └──── error, or asked to end ──┘
 */
#ifndef PETIOLE_EXECUTOR_LOCAL_RUN_H
#define PETIOLE_EXECUTOR_LOCAL_RUN_H

#include <jansson.h>

#include "base/error.h"
#include "base/loop.h"
#include "executor/executor.h"
#include "executor/local_outcome.h"

struct local_process_table;
struct local_run;

/* Where runs take place; borrowed for their lives. */
struct local_run_site {
    struct loop *loop;
    struct local_process_table *table;
    const char *namespace_name;
    const char *log_folder;
    const char *work_folder;
    const char *claims_folder;
    double limit_grace_s;            /* from the hard limit to the end of the process */
    char *const *environment;        /* the worker's */
    const char *const *passed_names; /* of it what a process gets */
};

struct local_run_events {
    /* The process runs. */
    void (*on_started)(void *context);
    /* It is over; the outcome is borrowed. Comes once, from the loop; then the run is to be
     * freed. */
    void (*on_ended)(void *context, const struct outcome *outcome);
    /* Optional: it has told something new of itself; looked for at intervals while it runs. */
    void (*on_progress)(void *context, const struct progress *progress);
};

/* Returns new: a run called `name` (a Job's name) of the message `record` (JSON text); both are
 * copied. `hard_limit_s` 0: none. Borrows the rest. */
struct local_run *local_run_new(const struct local_run_site *site, const char *name,
                                struct bytes record, double hard_limit_s,
                                const struct local_run_events *events, void *context);

/* Frees a run that has ended; leaves NULL. */
void local_run_free(struct local_run **run);

/* Begins. Takes the reference to `job`. */
void local_run_begin(struct local_run *run, json_t *job);

/* Instead of beginning: ends with the FAILURE `category` and why. */
void local_run_refuse(struct local_run *run, const char *category, const struct error *error);

/* Asks it to end: SIGTERM, and SIGKILL after `grace_s`, or what is left of an earlier grace.
 * Negative: the pod's own grace. Of several reasons the first one counts. */
void local_run_end(struct local_run *run, enum local_end end, double grace_s);

/* As local_run_end for a client that revokes it, after the pod's own grace, with a signal of the
 * client's. One that is not SIGTERM is also sent when it was asked to end before. */
void local_run_revoke(struct local_run *run, int signal_number);

#endif
