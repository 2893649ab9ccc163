/*
 * Kombu's routing tables on Redis: which queues a named exchange leads to. Each member of the
 * set _kombu.binding.<exchange> is one binding (kombu/transport/redis.py: Channel._queue_bind).
 * Pure.
 */
#ifndef PETIOLE_BROKER_BROKER_REDIS_BINDING_H
#define PETIOLE_BROKER_BROKER_REDIS_BINDING_H

#include "base/bytes.h"

/* Whether the binding `member` ("routing key SEP pattern SEP queue") leads `routing_key` to its
 * queue: a topic binding when it has a pattern (kombu/transport/virtual/exchange.py:
 * TopicExchange), else a direct one. `ret_queue` borrows from `member`. */
bool broker_redis_binding_leads(struct bytes member, struct bytes separator,
                                struct bytes routing_key, struct bytes *ret_queue);

#endif
