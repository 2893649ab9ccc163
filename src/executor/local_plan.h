/*
 * What to run on this machine for a rendered Job: arguments, environment, folders and files of its
 * main container. Pure: it names paths and touches none.
 *
 * A machine is no container, so a plan is the Job's with these differences:
 * - The image is not used: the command must be in the template and on this machine. A first word
 *   `python` or `python3` becomes $PETIOLE_PYTHON when the worker has that variable.
 * - Mount paths do not exist as such. Each volume is a folder elsewhere, and a value of the
 *   template's env, command, args and workingDir that is a mountPath, or begins with one and a
 *   slash, gets the folder in its place. A mountPath in the middle of a value ("--out=/results")
 *   stays as it is: give it a variable of its own, and take that apart in the program.
 * - emptyDir and downwardAPI volumes live in the task's private folder and go with it. A
 *   persistentVolumeClaim is a folder of that name that stays. Other kinds of volume are refused,
 *   and so is what only a cluster can tell (secretKeyRef, configMapKeyRef and envFrom that are not
 *   optional, resourceFieldRef, subPathExpr).
 * - PETIOLE_TASK_FILE and PETIOLE_RESULT_FILE name private files, whatever the template says.
 * - The environment is the template's, and those variables of the worker that are passed on: none
 *   of the worker's credentials is among them.
 */
#ifndef PETIOLE_EXECUTOR_LOCAL_PLAN_H
#define PETIOLE_EXECUTOR_LOCAL_PLAN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/memory.h"

/* Where the Job runs; borrowed. */
struct local_plan_site {
    const char *job_name;
    const char *namespace_name;
    const char *record; /* the message, as the annotation petiole.dev/message holds it */
    const char *folder; /* the task's private folder */
    const char *claims_folder;
    char *const *environment;        /* the worker's, "NAME=value"; ends with NULL */
    const char *const *passed_names; /* of it what is passed on; ends with NULL */
};

/* A file with its content. */
struct local_plan_file {
    const char *path;
    struct bytes content;
};

/* Strings live in the arena, or in the Job and the site, which must outlive the plan. Paths are
 * absolute when the site's are. */
struct local_plan {
    const char *container;      /* its name */
    char *const *arguments;     /* ends with NULL; the first one is the program */
    char *const *environment;   /* "NAME=value"; ends with NULL */
    const char *working_folder; /* to be used if it exists; NULL: none given */
    const char *const *folders; /* to make, parents too; ends with NULL */
    const struct local_plan_file *files;
    size_t file_count;
    const char *result_file;
    double deadline_s; /* the earlier activeDeadlineSeconds of pod and Job; 0: none */
    double grace_s;    /* between SIGTERM and SIGKILL */
};

/* Plans the Job `job` (batch/v1, rendered). Error INVALID names what is wrong in it, UNSUPPORTED
 * what a machine cannot do. */
bool local_plan_make(const json_t *job, const struct local_plan_site *site, struct arena *arena,
                     struct local_plan *ret_plan, struct error *reterr) MUST_CHECK;

/* The value of `name` in an environment ("NAME=value", ends with NULL), or NULL. Borrowed. */
const char *local_plan_variable(char *const *environment, const char *name);

#endif
