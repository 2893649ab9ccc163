/*
 * The worker's ends of one Python process: the socket on which it takes tasks and tells what comes
 * of them, and the pipe of its stdout and stderr. It knows neither requests nor how the process
 * came to be: process_nursery.h forks it with the other ends.
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_CHILD_H
#define PETIOLE_EXECUTOR_PROCESS_CHILD_H

#include "base/error.h"
#include "base/loop.h"
#include "executor/process_frame.h"

struct process_child;

/* All come from the loop, or from process_child_drain. Views are borrowed. None may free the child;
 * each may close it. */
struct process_child_events {
    void (*on_ready)(void *context, int pid);
    void (*on_accepted)(void *context);
    void (*on_state)(void *context, const struct process_frame_state *state);
    /* The task has succeeded, and its process is not done with it yet; or, of an end that it was
     * told, the next try has been sent, and nothing is in `document`. */
    void (*on_task_ended)(void *context, struct bytes document);
    /* What it wrote to stdout and stderr by then has been told. */
    void (*on_done)(void *context, const struct process_frame_done *done);
    /* A line of its log, `level` as in log.h; or, `is_output`, of stdout or stderr: in the order in
     * which the process wrote them. */
    void (*on_line)(void *context, int level, struct bytes text, bool is_output);
    /* The socket has ended, or what came is no frame: nothing more follows. */
    void (*on_closed)(void *context, bool is_broken);
};

/* The process' ends, for whoever forks it; to be closed by the caller. */
struct process_child_ends {
    int peer;
    int output;
};

/* Returns new; error TEMPORARY when the system has no descriptors left. Borrows `events`. */
struct process_child *process_child_new(struct loop *loop,
                                        const struct process_child_events *events, void *context,
                                        struct process_child_ends *ret_ends, struct error *reterr);

/* Frees it and leaves NULL; accepts NULL. */
void process_child_free(struct process_child **child);

/* Hands a task over; copies. */
void process_child_send(struct process_child *child, const struct process_frame_task *task);

/* Hands over how a task has ended, process_ending.h; copies. */
void process_child_send_ending(struct process_child *child, const struct process_frame_task *task,
                               struct bytes ending);

/* Closes the socket, which tells the process to end; its output is still told. */
void process_child_close(struct process_child *child);

/* Tells all that has arrived by now: for a process that has ended. */
void process_child_drain(struct process_child *child);

#endif
