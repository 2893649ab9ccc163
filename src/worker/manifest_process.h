/*
 * A program that is run to its end while nothing else goes on, before the loop runs, for what it
 * writes to its stdout: Python, which alone can tell of an app. Knows nothing of manifests.
 */
#ifndef PETIOLE_WORKER_MANIFEST_PROCESS_H
#define PETIOLE_WORKER_MANIFEST_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/memory.h"

/* Borrowed for the call. */
struct manifest_process_options {
    const char *program;      /* a path */
    char *const *arguments;   /* with the program's name; ends with NULL */
    char *const *environment; /* ends with NULL */
    int64_t deadline_ms;      /* it is killed after so long */
    bool is_silent;           /* its stderr goes nowhere; else to ours */
};

/* Runs the program with /dev/null as its input, appends its output to `output`, and waits for its
 * end; blocks. Gives its exit code, or 128 and the number of the signal that ended it.
 * NOT_FOUND when it cannot be run, TIMEOUT after the deadline, TOO_LARGE when the output passes the
 * buffer's maximum, TEMPORARY when the system has no room for it, REFUSED when SIGTERM, SIGINT or
 * SIGQUIT came for us, which is nobody else's then; it is not running any more. */
bool manifest_process_run(const struct manifest_process_options *options, struct buffer *output,
                          int *ret_exit_code, struct error *reterr) MUST_CHECK;

#endif
