/*
 * What a task's process reported: the termination message that python -m petiole.run writes, at
 * most 4096 bytes, and for larger payloads the lines at the end of its output. The format is told
 * in python-shim/src/petiole/_report.py. Everything here is hostile until checked. Pure.
 */
#ifndef PETIOLE_EXECUTOR_JOB_RESULT_H
#define PETIOLE_EXECUTOR_JOB_RESULT_H

#include <stdbool.h>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "executor/executor.h"

#define JOB_RESULT_MAX_MESSAGE_BYTES 4096
#define JOB_RESULT_LINE_HEAD         "::petiole-result " /* of the lines of a moved payload */
#define JOB_RESULT_MAX_PAYLOAD_BYTES ((size_t)1024 * 1024)
/* Base64 of that, in lines with their heads, and what else may follow. */
#define JOB_RESULT_MAX_LOG_BYTES ((size_t)2 * 1024 * 1024)

struct job_result {
    struct json report; /* the object of the termination message */
    struct bytes state; /* "SUCCESS" … */
    bool is_moved;      /* the payload is at the end of the output */
    /* the object that has the payload's keys: the report itself unless moved */
    struct json payload;
};

/* Reads a termination message. Borrows `text`; unescaped strings go to `arena`. NOT_FOUND when
 * there is nothing that the runner wrote, INVALID when it is broken (a digest that does not match,
 * too). */
bool job_result_read(struct bytes text, struct arena *arena, struct job_result *ret_result,
                     struct error *reterr) MUST_CHECK;

/* Finds the moved payload in `output`, the end of the process' stdout: the last complete run of
 * ::petiole-result lines. Checks count, order, size and digest. */
bool job_result_read_moved(struct bytes output, struct arena *arena, struct job_result *result,
                           struct error *reterr) MUST_CHECK;

/* Makes an outcome of a result whose payload is there. Views borrow from it; runtime_s is the
 * caller's. INVALID for a state, exception, frame or countdown that is none. */
bool job_result_outcome(const struct job_result *result, struct arena *arena,
                        struct outcome *ret_outcome, struct error *reterr) MUST_CHECK;

#endif
