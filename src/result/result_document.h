/*
 * The stored document of a task's state, member by member and byte by byte as Celery writes it
 * (celery/backends/base.py: _get_result_meta, encode_result, prepare_exception; Python's
 * json.dumps). Pure: time is an argument.
 */
#ifndef PETIOLE_RESULT_RESULT_DOCUMENT_H
#define PETIOLE_RESULT_RESULT_DOCUMENT_H

#include "base/timezone.h"
#include "dispatch/request.h"
#include "executor/executor.h"

struct result_document_options {
    bool is_extended;                      /* result_extended */
    const char *node_name;                 /* "celery@host" */
    const struct timezone_table *timezone; /* of the app: date_done is told in it */
};

/* The states, as stored. */
#define RESULT_STARTED "STARTED"
#define RESULT_WAITING "WAITING_QUOTA" /* of ours: received, and held back by a quota */
#define RESULT_SUCCESS "SUCCESS"
#define RESULT_FAILURE "FAILURE"
#define RESULT_RETRY   "RETRY"
#define RESULT_REVOKED "REVOKED"

/* The state that an outcome is stored as; NULL: nothing is stored (IGNORE, REJECT, LOST), but for
 * what an ignored task has told. */
const char *result_document_state(enum outcome_kind kind);

/* Appends the document of `request`'s end; of an ignored one what it told. A RETRY with a negative countdown is one that nobody
 * published: it lists no child. */
void result_document_append(struct buffer *buffer, const struct request *request,
                            const struct outcome *outcome,
                            const struct result_document_options *options, double now_wall_s);

/* Appends the document of state STARTED, with {"pid": …, "hostname": node name} as its result
 * (celery/app/trace.py). */
void result_document_append_started(struct buffer *buffer, const struct request *request, int pid,
                                    const struct result_document_options *options);

/* Appends the document of a state that the task told, as Task.update_state stores it. */
void result_document_append_progress(struct buffer *buffer, const struct request *request,
                                     const struct progress *progress,
                                     const struct result_document_options *options,
                                     double now_wall_s);

/* Appends the document of state WAITING_QUOTA, with {"reason": sentence, "hostname": node name} as
 * its result, as Task.update_state would store it. */
void result_document_append_waiting(struct buffer *buffer, const struct request *request,
                                    const char *sentence,
                                    const struct result_document_options *options);

#endif
