/*
 * Kombu's Redis transport, from the worker's side (kombu/transport/redis.py), with two
 * differences that Python workers on the same database do not notice: a message is popped and
 * registered in unacked/unacked_index by one script, so that no kill can lose it in between, and
 * what is held is renewed, so that the visibility timeout never runs a slow task twice.
 *
 * At most two connections: one for commands, one that is told of changes (CLIENT TRACKING) and of
 * remote control.
 */
#ifndef PETIOLE_BROKER_BROKER_REDIS_H
#define PETIOLE_BROKER_BROKER_REDIS_H

#include "base/loop.h"
#include "base/redis_url.h"
#include "broker/broker.h"
#include "broker/broker_redis_binding.h"

enum broker_redis_order {
    BROKER_REDIS_ROUND_ROBIN,
    BROKER_REDIS_PRIORITY,
    BROKER_REDIS_SORTED
};

/* broker_transport_options and the rest; copied by broker_redis_new. Zeroed members mean Kombu's
 * defaults. */
struct broker_redis_options {
    struct redis_url url;
    const char *instance_id;   /* head of the delivery tags; also in CLIENT SETNAME */
    const char *const *queues; /* names to consume */
    size_t queue_count;
    const struct broker_redis_binding *bindings; /* to write whenever a connection is made */
    size_t binding_count;
    enum broker_redis_order order; /* queue_order_strategy */
    const int *priority_steps;     /* NULL: 0 3 6 9 */
    size_t priority_step_count;
    const char *separator;         /* sep; NULL: "\x06\x16" */
    const char *global_keyprefix;  /* NULL: "" */
    const char *control_exchange;  /* head of the pidbox exchange's name; NULL: no remote control */
    const char *fanout_prefix;     /* with {db} for the database; NULL: /{db}. */
    const char *unacked_key;       /* NULL: unacked */
    const char *unacked_index_key; /* NULL: unacked_index */
    const char *unacked_mutex_key; /* NULL: unacked_mutex */
    int64_t unacked_mutex_expire_ms; /* 0: 300,000 */
    int64_t visibility_timeout_ms;   /* 0: 3,600,000 */
    /* How often expired deliveries are looked for; 0: 100,000 (unacked_restore_interval x throttle)
     * or a third of the visibility timeout when that is shorter, never under 500. */
    int64_t restore_interval_ms;
    size_t max_batch;    /* messages per pop; 0: 512 */
    size_t max_rejected; /* length of petiole:rejected:<queue>; 0: 1000 */
};

/* Returns new. Nothing is connected before ops->start. */
struct broker *broker_redis_new(struct loop *loop, const struct broker_redis_options *options,
                                const struct broker_events *events, void *context);

/* The step list of `priority` among `steps` (ascending): steps[bisect_right(steps, p) - 1] after
 * clamping to 0..9 (kombu/transport/redis.py: Channel.priority). For tests and publishing. */
int broker_redis_step(const int *steps, size_t count, int64_t priority);

#endif
