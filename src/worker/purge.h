/*
 * --purge: erases what waits in the worker's queues before it starts (kombu/transport/redis.py:
 * Channel._purge). What other workers hold stays.
 */
#ifndef PETIOLE_WORKER_PURGE_H
#define PETIOLE_WORKER_PURGE_H

#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "broker/broker_redis.h"

/* Erases every priority step of every queue and tells how many messages that were. Runs the loop
 * until it is done; nothing else may be on it yet. TEMPORARY or REFUSED when the server cannot be
 * reached within its connect timeout and five seconds, or says no. */
bool purge_run(struct loop *loop, const struct broker_redis_options *options, int64_t *ret_count,
               struct error *reterr) MUST_CHECK;

#endif
