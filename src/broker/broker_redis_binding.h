/*
 * Kombu's routing tables on Redis: which queues a named exchange leads to. Each member of the
 * set _kombu.binding.<exchange> is one binding (kombu/transport/redis.py: Channel._queue_bind).
 * Pure.
 */
#ifndef PETIOLE_BROKER_BROKER_REDIS_BINDING_H
#define PETIOLE_BROKER_BROKER_REDIS_BINDING_H

#include "base/bytes.h"
#include "base/memory.h"

/* A queue is bound to a named exchange. Everything is borrowed. */
struct broker_redis_binding {
    const char *queue;
    const char *exchange;
    const char *routing_key;
    bool is_topic; /* its exchange's type is topic; else direct or fanout, which look the same */
};

/* Appends the member that says so, as Kombu writes it: "routing key SEP pattern SEP queue", where
 * the pattern is the expression of a topic key, else empty (kombu/transport/virtual/exchange.py:
 * TopicExchange.key_to_pattern). */
void broker_redis_binding_append(struct buffer *buffer, struct bytes separator,
                                 const struct broker_redis_binding *binding);

/* Whether the binding `member` ("routing key SEP pattern SEP queue") leads `routing_key` to its
 * queue: a topic binding when it has a pattern (kombu/transport/virtual/exchange.py:
 * TopicExchange), else a direct one. `ret_queue` borrows from `member`. */
bool broker_redis_binding_leads(struct bytes member, struct bytes separator,
                                struct bytes routing_key, struct bytes *ret_queue);

#endif
