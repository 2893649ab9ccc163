/*
 * What a native task sees of the worker: the functions behind struct petiole_host of
 * include/petiole.h, and what a task's replies come to. It knows nothing of threads and queues:
 * whoever runs the call answers is_cancelled, wait and log.
 *
 * A call is made, run and asked for its outcome on one thread at a time.
 */
#ifndef PETIOLE_EXECUTOR_PLUGIN_HOST_H
#define PETIOLE_EXECUTOR_PLUGIN_HOST_H

#include <petiole.h>

#include "base/error.h"
#include "base/memory.h"
#include "executor/executor.h"

/* The longest result in bytes, and what all that a call allocates may come to beside it. */
#define PLUGIN_HOST_MAX_RESULT_BYTES ((size_t)64 * 1024 * 1024)

/* The part of the worker that runs the call; all mandatory, called on the call's thread. `context`
 * is the call's. */
struct plugin_host_runner {
    enum petiole_cancel (*is_cancelled)(void *context);
    enum petiole_cancel (*wait)(void *context, double seconds);
    void (*log)(void *context, enum petiole_log_level level, struct bytes text);
};

enum plugin_reply_kind {
    PLUGIN_REPLY_NONE,
    PLUGIN_REPLY_RESULT,
    PLUGIN_REPLY_EXCEPTION,
    PLUGIN_REPLY_RETRY,
};

struct petiole_reply {
    enum plugin_reply_kind kind;
    struct buffer result; /* JSON text, as replied */
    struct buffer exc_type;
    struct buffer exc_module;
    struct buffer exc_message;
    double retry_countdown_s;
};

/* One call. The caller fills in the texts of `call`, then plugin_host_init. */
struct plugin_host_call {
    struct petiole_task_call call;
    struct petiole_reply reply;
    struct arena *scratch; /* owned; for json_string; NULL until it is needed */
    const struct plugin_host_runner *runner;
    void *context;
};

/* Readies a call whose texts are set, and borrows them. */
void plugin_host_init(struct plugin_host_call *call, const struct plugin_host_runner *runner,
                      void *context);

/* Frees the replies; what plugin_host_run gave is gone. */
void plugin_host_fini(struct plugin_host_call *call);

/* Calls `function` and reads its reply. `ret_outcome` (all but runtime_s) borrows from the call. A
 * reply that is no JSON is a FAILURE kombu.exceptions.EncodeError. */
void plugin_host_run(struct plugin_host_call *call, petiole_task_function *function,
                     struct outcome *ret_outcome);

#endif
