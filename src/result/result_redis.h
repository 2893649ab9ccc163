/*
 * Celery's Redis result backend, the worker's side (celery/backends/redis.py): GET, and unless
 * SUCCESS is stored, SETEX and PUBLISH in one MULTI, on the key celery-task-meta-<id>. Commands
 * of one turn of the loop leave as one pipeline. One connection.
 */
#ifndef PETIOLE_RESULT_RESULT_REDIS_H
#define PETIOLE_RESULT_RESULT_REDIS_H

#include "base/loop.h"
#include "base/redis_url.h"
#include "result/result.h"

struct result_redis_options {
    struct redis_url url;
    /* result_backend_transport_options; NULL: none. An underscore is added unless it ends in one of
     * ":_-." */
    const char *global_keyprefix;
    const char *client_name;
};

/* Returns new; copies `options`. Nothing is connected before ops->start. */
struct result_backend *result_redis_new(struct loop *loop,
                                        const struct result_redis_options *options,
                                        const struct result_events *events, void *context);

#endif
