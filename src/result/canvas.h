/*
 * What follows from the end of a task that Celery's own code did not see: a Job that ran out of
 * memory, a container that was killed. Celery's master lets the backend do it
 * (celery/backends/base.py: Backend.mark_as_failure, _fail_chain, _call_task_errbacks). Chords are
 * not counted: one with a failed or revoked member has failed. Pure.
 */
#ifndef PETIOLE_RESULT_CANVAS_H
#define PETIOLE_RESULT_CANVAS_H

#include "result/result_document.h"

/* Whether the message of `request` asks for something when it ends as `kind`: after a FAILURE errbacks,
 * or a chain or the body of a chord to fail; after a REVOKED the last alone
 * (celery/backends/base.py: Backend.mark_as_revoked). */
bool canvas_follows_end(const struct request *request, enum outcome_kind kind);

/* Whether it asks for something when it succeeds: callbacks, or the next link of a chain. */
bool canvas_follows_success(const struct request *request);

/* Appends the frames (executor/job_frame.h) of what follows from `outcome`, in this order. From a
 * FAILURE: the end of each task in its chain, of a chord there also that of its body, when the failed
 * one's own errors are stored; the end of the body of its own chord, by ChordError; and each errback
 * as a task with the failed one's id as its argument, sent to the queue that it names, else to the one
 * that `request` came from. From a REVOKED: the end of the body of its own chord alone.
 *
 * Of an errback's options only these count: task_id, queue, priority, headers, countdown, eta,
 * expires, time limits, shadow, ignore_result, link and link_error. Ids that a signature does not have
 * are derived, so that they are the same when it is done again. An errback that is a canvas itself,
 * and whatever has no room in `buffer`, which begins empty, is left out; `ret_left_out` counts
 * these. */
void canvas_append_end(struct buffer *buffer, const struct request *request,
                       const struct outcome *outcome, const struct result_document_options *options,
                       double now_wall_s, size_t *ret_left_out);

#endif
