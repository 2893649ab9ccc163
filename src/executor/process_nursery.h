/*
 * The warm parent of the pool's Python processes: python -m petiole.pool, which imports the app
 * once and forks on demand, so that the processes share its memory. The conversation is told in
 * python-shim/src/petiole/pool.py: packets over a socket that is its stdin.
 *
 * A process that has ended stays a zombie until process_nursery_reap: until then its id is safe to
 * send signals to.
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_NURSERY_H
#define PETIOLE_EXECUTOR_PROCESS_NURSERY_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/loop.h"
#include "executor/process_child.h"

struct process_nursery;
struct local_process_table;

/* All come from the loop; none may free the nursery but on_ended. */
struct process_nursery_events {
    void (*on_forked)(void *context, int pid, int number);
    /* There is no process `number`: the system had no room for it; `error_number` as in errno.h. */
    void (*on_refused)(void *context, int error_number, int number);
    /* `code` is an exit code, or the negative number of a signal. */
    void (*on_exited)(void *context, int pid, int code);
    /* A line that it wrote; borrowed. */
    void (*on_line)(void *context, struct bytes text);
    /* The nursery itself has ended, and its processes with it. Once. */
    void (*on_ended)(void *context, int exit_code, int signal_number);
};

struct process_nursery_options {
    const char *program;      /* path of the Python interpreter */
    char *const *arguments;   /* ends with NULL */
    char *const *environment; /* ends with NULL */
};

/* Starts it; returns new. Borrows `table` and `events`. NOT_FOUND, REFUSED or TEMPORARY. */
struct process_nursery *process_nursery_new(struct loop *loop, struct local_process_table *table,
                                            const struct process_nursery_options *options,
                                            const struct process_nursery_events *events,
                                            void *context, struct error *reterr);

/* Asks for a process called `number`; takes the ends. TEMPORARY when it has not read yet what it was
 * asked before, as long as it imports the app, or when too many descriptors are on their way. */
bool process_nursery_fork(struct process_nursery *nursery, int number,
                          const struct process_child_ends *ends, struct error *reterr) MUST_CHECK;

/* No signal is sent to `pid` any more. Should this not reach the nursery, the zombie stays as long as
 * it does. */
void process_nursery_reap(struct process_nursery *nursery, int pid);

/* Asks it to end: on_ended follows as soon as its processes have ended, and within twelve seconds.
 * While it imports the app it hears nothing, and is killed. */
void process_nursery_stop(struct process_nursery *nursery);

/* Frees it, in or after on_ended; leaves NULL. */
void process_nursery_free(struct process_nursery **nursery);

#endif
