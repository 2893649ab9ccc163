/*
 * States of tasks before their end, on their way to Redis: the newest of each task, one on the way
 * at a time, stored by a script that leaves a ready state alone. A part of result_redis, apart from
 * results: nothing here is repeated but what a broken connection swallowed, and nothing waits for it.
 */
#ifndef PETIOLE_RESULT_RESULT_REDIS_PROGRESS_H
#define PETIOLE_RESULT_RESULT_REDIS_PROGRESS_H

#include "base/bytes.h"
#include "base/map.h"
#include "base/redis_link.h"

struct result_redis_progress;

/* Returns new. `on_unsent` is called from a reply when there is something to send again. */
struct result_redis_progress *result_redis_progress_new(void (*on_unsent)(void *context),
                                                        void *context);

/* The link must be closed. Leaves NULL; accepts NULL. */
void result_redis_progress_free(struct result_redis_progress **progress);

/* Takes note of `document` for `key`, in place of what waits there. Copies. With too many keys
 * already, a new one is left out. */
void result_redis_progress_put(struct result_redis_progress *progress, struct bytes key,
                               struct bytes document, int64_t expires_s);

/* What waits for `key` is not sent any more: something else is stored there. */
void result_redis_progress_drop(struct result_redis_progress *progress, struct bytes key);

/* Sends what waits, but for keys in `busy`: something older is on its way there. The link must be
 * up. */
void result_redis_progress_send(struct result_redis_progress *progress, struct redis_link *link,
                                const struct map *busy);

#endif
