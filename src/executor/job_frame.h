/*
 * Frames of a task's report: what Celery's code in a container would have sent to the broker and
 * stored for other tasks, for the worker to do. The format is told in
 * python-shim/src/petiole/_outbox.py. Everything here is hostile until checked. Pure.
 */
#ifndef PETIOLE_EXECUTOR_JOB_FRAME_H
#define PETIOLE_EXECUTOR_JOB_FRAME_H

#include <stdbool.h>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"

#define JOB_FRAME_MAX_NAME_BYTES 255 /* of a queue, as in AMQP, and of an id */
/* Of a report. So many of those that Celery's code makes have no room in one, which may have 1 MiB. */
#define JOB_FRAME_MAX_COUNT 4000

enum job_frame_kind {
    JOB_FRAME_PUBLISH,    /* send a message */
    JOB_FRAME_STORE,      /* store the end of a task that hangs together with this one */
    JOB_FRAME_JOIN_CHORD, /* count a member of a chord */
};

/* Views borrow from the frame or the arena. */
struct job_frame {
    enum job_frame_kind kind;
    bool is_after_failure;       /* nothing of it is done when the task is tried again instead */
    struct bytes task_id;        /* of the message, of the document, of the member */
    struct bytes queue;          /* PUBLISH and the rest of them */
    struct bytes task;           /* its name */
    struct json headers;         /* an object */
    struct json properties;      /* an object */
    struct bytes correlation_id; /* of the properties */
    struct bytes reply_to;
    int64_t priority;
    struct bytes content_type;
    struct bytes content_encoding;
    struct bytes body;     /* still compressed when the headers say so */
    struct bytes state;    /* STORE, JOIN_CHORD */
    struct bytes document; /* STORE: a JSON object whose task_id and status are the above */
    struct bytes group;    /* JOIN_CHORD; empty: not told */
};

/* Reads one element of "frames". INVALID says what is wrong with it. */
bool job_frame_read(struct json frame, struct arena *arena, struct job_frame *ret_frame,
                    struct error *reterr) MUST_CHECK;

#endif
