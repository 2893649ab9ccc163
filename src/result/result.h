/*
 * Where outcomes are stored: the interface of the result backends. A backend mends its own
 * connection and repeats a store until it is done: a result is never dropped because the backend
 * was away.
 */
#ifndef PETIOLE_RESULT_RESULT_H
#define PETIOLE_RESULT_RESULT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

struct result_backend;

/* Comes once per store from the loop. `ok` false: it can never be stored (too large, refused), or
 * the backend was closed first. */
typedef void(result_stored_fn)(void *context, bool ok, const struct error *error);

/* The stored status of a task ("SUCCESS"), or the empty view when there is none (PENDING). `error`
 * when it could not be read: then the state is unknown. */
typedef void(result_state_fn)(void *context, struct bytes state, const struct error *error);

struct result_events {
    void (*on_up)(void *context, const char *where);
    void (*on_down)(void *context, const struct error *error, int64_t retry_ms);
};

struct result_ops {
    void (*start)(struct result_backend *backend);
    /* Stores `document` as the state of `task_id`, unless SUCCESS is already stored there
     * (celery/backends/redis.py: RedisBackend.set; base.py: _store_result), and publishes it to
     * waiting clients. Views are copied. `expires_s` 0: for ever. */
    void (*store)(struct result_backend *backend, struct bytes task_id, struct bytes document,
                  int64_t expires_s, result_stored_fn *on_stored, void *context);
    /* Stores `document` as a state before the end, unless a ready state (SUCCESS, FAILURE, REVOKED)
     * is stored there, whoever stored it, and publishes it likewise. Only the newest that waits for
     * a task is stored, none after another store; it is dropped rather than repeated, and holds up
     * nothing else. Views are copied. */
    void (*store_progress)(struct result_backend *backend, struct bytes task_id,
                           struct bytes document, int64_t expires_s);
    /* As store, of a task that another worker may report as well, should this one be stopped or cut
     * off for longer than its Lease: when that may have happened, FAILURE and REVOKED stay, too. */
    void (*store_once)(struct result_backend *backend, struct bytes task_id, struct bytes document,
                       int64_t expires_s, result_stored_fn *on_stored, void *context);
    void (*fetch_state)(struct result_backend *backend, struct bytes task_id,
                        result_state_fn *on_state, void *context);
    /* Optional. While `is_gathering`, what is asked for may wait a millisecond for what follows: each
     * task by itself costs the server more than the task. */
    void (*gather)(struct result_backend *backend, bool is_gathering);
    bool (*is_up)(const struct result_backend *backend);
    /* Flushes stores for at most `deadline_ms`, then on_closed; waiting callbacks have come by
     * then. Frees the backend. */
    void (*close)(struct result_backend *backend, int64_t deadline_ms,
                  void (*on_closed)(void *context), void *context);
};

struct result_backend {
    const struct result_ops *ops;
};

#endif
