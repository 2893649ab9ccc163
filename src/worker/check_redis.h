/*
 * Tries a Redis server for `petiole check`: connects, logs in, looks at the version and runs
 * harmless commands on the very keys that a worker uses, so that missing rights and read-only
 * replicas show.
 */
#ifndef PETIOLE_WORKER_CHECK_REDIS_H
#define PETIOLE_WORKER_CHECK_REDIS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/loop.h"
#include "broker/broker_redis.h"
#include "result/result_redis.h"

/* Both run the loop until they know. Write one line about what was found, or what is wrong, into
 * `text`; false in the second case. Neither waits longer than the connect timeout and five seconds.
 */
bool check_redis_broker(struct loop *loop, const struct broker_redis_options *options, char *text,
                        size_t size);
bool check_redis_backend(struct loop *loop, const struct result_redis_options *options, char *text,
                         size_t size);

#endif
