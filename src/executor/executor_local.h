/*
 * Runs the Job template of a task as a process of this machine: the same command, arguments,
 * environment, deadline and report as in a pod (local_plan.h tells the differences). For trying
 * templates without a cluster, and for machines that have none.
 *
 *   submit ─> render ─> plan, folders, files (pool thread) ─> process, on_started
 *     ─> end of the process ─> report, log (pool thread) ─> on_finished
 *
 * - The report is what the process wrote to PETIOLE_RESULT_FILE (job_result.h). Without one it
 *   failed: CrashExit, Signalled, or ResultLost when it ended with 0, the end of its output in the
 *   details.
 * - activeDeadlineSeconds of pod or Job, or the task's hard time limit and a grace, whichever is
 *   first, ends the process: SIGTERM, terminationGracePeriodSeconds, SIGKILL, each to its whole group. The
 *   outcome is the process' own report if it left one, else DeadlineExceeded or TimeLimitExceeded.
 *   The soft time limit is the runner's: python -m petiole.run keeps it.
 * - cancel ends it in the same way: REVOKED. close with `kill` does too, within two seconds: what
 *   left no report is LOST, what had not begun goes back (REJECT with requeue).
 * - stdout and stderr of each task go to <log folder>/<Job's name>.log, which stays; a second run
 *   of the same name is appended. Nothing bounds or removes these files: rotate them.
 * - When the worker dies, so do the processes. Their private folders stay behind below the work
 *   folder.
 */
#ifndef PETIOLE_EXECUTOR_EXECUTOR_LOCAL_H
#define PETIOLE_EXECUTOR_EXECUTOR_LOCAL_H

#include "base/error.h"
#include "base/loop.h"
#include "dispatch/registry.h"
#include "executor/executor.h"

/* Strings, lists and registry are borrowed for the life of the executor; folders are absolute paths
 * and made when they are needed. */
struct executor_local_options {
    /* Rows with executor local: their templates are loaded, job_template_index is set. */
    struct registry *registry;
    const char *namespace_name; /* what metadata.namespace says to the container */
    size_t max_processes;       /* 0: one for each CPU that this process may use */
    const char *log_folder;
    const char *work_folder;   /* private folders of tasks that run */
    const char *claims_folder; /* persistentVolumeClaims, a folder each */
    /* How long a process may go on beyond the hard limit of its task: the runner's own timer, which
     * counts from the start of the task's body, is to be first. */
    double limit_grace_s;
    char *const *environment; /* the worker's, "NAME=value"; ends with NULL */
    /* Names of its variables that a process gets; ends with NULL. NULL:
     * executor_local_passed_names. */
    const char *const *passed_names;
};

/* PATH, HOME, LANG, TZ and what else a program needs to find its files and its app. */
extern const char *const executor_local_passed_names[];

/* Returns new, or NULL: a template is wrong, or `passed_names` has one of the worker's credentials
 * (broker and backend URLs, JWT_SECRET, KUBECONFIG): those never reach a task. */
struct executor *executor_local_new(struct loop *loop, const struct executor_local_options *options,
                                    const struct executor_events *events, void *context,
                                    struct error *reterr);

#endif
