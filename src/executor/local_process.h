/*
 * Processes of this machine, each with its group: started, signalled, and waited for on the loop.
 *
 * A process leads a session and a group of its own, is killed when the worker dies, has /dev/null
 * as its input (or a descriptor) and one file for all its output, and nothing else of the worker open. When it ends,
 * what is left of its group is killed, as a container's would be; a descendant that made a group of
 * its own escapes that. (libuv's uv_spawn knows no parent-death signal, hence fork and exec.)
 */
#ifndef PETIOLE_EXECUTOR_LOCAL_PROCESS_H
#define PETIOLE_EXECUTOR_LOCAL_PROCESS_H

#include <stdbool.h>

#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/memory.h"

struct local_process_table;

/* A running process; a member of whoever started it, zeroed before. */
struct local_process {
    struct list_node node;
    int id; /* 0: not running */
    void (*on_exit)(void *context, int exit_code, int signal_number);
    void *context;
};

/* Borrowed for the call. */
struct local_process_options {
    const char *program;        /* a path */
    char *const *arguments;     /* ends with NULL */
    char *const *environment;   /* ends with NULL */
    const char *working_folder; /* used if it exists; NULL: the worker's own */
    int input;                  /* descriptor for stdin; 0: /dev/null */
    int output;                 /* descriptor for stdout and stderr */
};

/* Begins to hear of children that end; returns new. Error TEMPORARY. */
struct local_process_table *local_process_table_new(struct loop *loop, struct error *reterr);

/* Lets go of the loop; frees the table and calls `on_closed` (not NULL) when libuv has. No process
 * may be running. Leaves NULL. */
void local_process_table_close(struct local_process_table **table, void (*on_closed)(void *context),
                               void *context);

/* Starts a process; borrows `process`, with on_exit and context set, until on_exit, which comes
 * once, with the exit code, or -1 and the number of the signal that ended it. Waits for the exec,
 * so that an error tells why it cannot be run: NOT_FOUND, REFUSED or TEMPORARY. Must be called on a
 * thread that lives as long as the process may: the parent-death signal is tied to it. */
bool local_process_start(struct local_process_table *table, struct local_process *process,
                         const struct local_process_options *options,
                         struct error *reterr) MUST_CHECK;

/* Sends a signal to the process and its group. Nothing happens when it is not running. */
void local_process_signal(const struct local_process *process, int signal_number);

/* The path of `program`: itself when it has a slash, else the first executable file of that name in
 * `path_list` ("/bin:/usr/bin"; NULL: those two). Allocated in `arena`; NULL when there is none.
 * Blocks. */
const char *local_process_find(const char *program, const char *path_list, struct arena *arena);

#endif
