/*
 * Frames between the worker and a Python process of its pool, over a stream socket. The table of
 * frames is in python-shim/src/petiole/_frames.py: a head of five bytes (length, kind), then
 * numbers and texts, little-endian. What a process sends is hostile until checked: a task's code
 * shares its socket. Pure.
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_FRAME_H
#define PETIOLE_EXECUTOR_PROCESS_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/memory.h"

/* A result may have as much as a value in Redis, and something around it. */
#define PROCESS_FRAME_MAX_BYTES (((size_t)512 << 20) + 65536)

/* From a process */
enum process_frame_kind {
    PROCESS_FRAME_READY = 1,
    PROCESS_FRAME_ACCEPTED,
    PROCESS_FRAME_STATE,
    PROCESS_FRAME_DONE,
    PROCESS_FRAME_LOG,
    PROCESS_FRAME_ENDED,
};

enum process_frame_outcome {
    PROCESS_FRAME_SUCCESS,
    PROCESS_FRAME_FAILURE,
    PROCESS_FRAME_RETRY,
    PROCESS_FRAME_IGNORED,
    PROCESS_FRAME_REJECTED,
    PROCESS_FRAME_LOST, /* the process ends, too */
};

struct process_frame {
    unsigned kind;
    struct bytes payload;
};

enum process_frame_status {
    PROCESS_FRAME_INCOMPLETE,
    PROCESS_FRAME_COMPLETE,
    PROCESS_FRAME_BROKEN, /* longer than any */
};

/* Views borrow from the frame's payload. */
struct process_frame_done {
    enum process_frame_outcome outcome;
    bool requeue;
    bool is_told; /* Celery has done and logged all that follows; else the worker reports it */
    double runtime_s;
    uint32_t rss_kib;      /* the most that the process has had in memory */
    struct bytes document; /* empty: nothing is to be stored */
    struct bytes exc_type; /* empty after success */
    struct bytes exc_module;
    struct bytes exc_message; /* JSON */
    struct bytes traceback;
};

struct process_frame_state {
    struct bytes task_id;
    struct bytes state;
    struct bytes document;
};

/* What a process needs to run a task; texts in the order of the frame. */
struct process_frame_task {
    struct bytes id;
    struct bytes name;
    struct bytes request; /* JSON object, process_request.h */
    struct bytes content_type;
    struct bytes content_encoding;
    struct bytes body;
};

/* Takes the first frame off `input`, whose storage it borrows. */
enum process_frame_status process_frame_take(struct bytes *input, struct process_frame *ret_frame);

/* Each false when the payload is not of that kind. */
bool process_frame_read_ready(struct bytes payload, int *ret_pid) MUST_CHECK;
bool process_frame_read_state(struct bytes payload, struct process_frame_state *ret) MUST_CHECK;
bool process_frame_read_done(struct bytes payload, struct process_frame_done *ret) MUST_CHECK;

bool process_frame_read_ended(struct bytes payload, struct bytes *ret_document) MUST_CHECK;

/* `ret_level` as in log.h. */
bool process_frame_read_log(struct bytes payload, int *ret_level,
                            struct bytes *ret_text) MUST_CHECK;

void process_frame_append_task(struct buffer *buffer, const struct process_frame_task *task);

/* The same for a task that has ended without its process; `ending` is a JSON object,
 * process_ending.h. */
void process_frame_append_ending(struct buffer *buffer, const struct process_frame_task *task,
                                 struct bytes ending);

#endif
