/*
 * Binds the queues to their exchanges, as a worker of Celery does when it begins to consume, so that
 * what is published to an exchange by whoever knows no queues reaches them
 * (kombu/transport/redis.py: Channel._queue_bind). Kombu since 5.7 removes a table of bindings that
 * nobody renews unless a second set, _kombu.binding_permanent.<exchange>, has members: both are
 * written, that one first. It makes no difference here whether a queue has x-expires: it stays
 * bound.
 */
#include "broker/broker_redis_private.h"

struct broker_redis_declared {
    struct broker_redis *broker;
    const char *queue;
    const char *exchange;
    struct bytes key;
    struct bytes permanent_key;
    struct bytes member;
};

static void declare(struct broker_redis_declared *item, struct broker_redis *broker,
                    const struct broker_redis_binding *binding)
{
    struct bytes exchange = bytes_from_text(binding->exchange);
    struct buffer member;
    buffer_init(&member, SIZE_MAX);
    broker_redis_binding_append(&member, broker->separator, binding);
    *item = (struct broker_redis_declared){
        .broker = broker,
        .queue = arena_text(broker->texts, bytes_from_text(binding->queue)),
        .exchange = arena_text(broker->texts, exchange),
        .key = broker_redis_key(broker, broker->texts, "_kombu.binding.", exchange),
        .permanent_key =
            broker_redis_key(broker, broker->texts, "_kombu.binding_permanent.", exchange),
        .member = arena_copy(broker->texts, buffer_view(&member)),
    };
    buffer_fini(&member);
}

void broker_redis_declare_init(struct broker_redis *broker)
{
    struct broker_redis_options *options = &broker->options;
    struct broker_redis_declare *part = &broker->declare;
    part->count = options->binding_count;
    part->items = arena_alloc(broker->texts, (part->count + 1) * sizeof(*part->items));
    for (size_t index = 0; index < part->count; index++) {
        declare(&part->items[index], broker, &options->bindings[index]);
    }
    options->bindings = NULL; /* the caller's */
}

/* Not for the moment but for good: the queue is consumed all the same, and what is sent to it by
 * its name arrives. */
static void complain(const struct broker_redis_declared *item, const redisReply *reply)
{
    struct broker_redis *broker = item->broker;
    if (!broker->declare.has_complained) {
        broker->declare.has_complained = true;
        broker_redis_notice(broker, LOG_WARNING,
                            "Redis does not let this worker bind queue %.64s to exchange %.64s: "
                            "%.*s. What is published to the exchange may be lost: allow the user "
                            "to write the keys %.16s_kombu.binding*, or ignore this when messages "
                            "name the queue itself.",
                            item->queue, item->exchange, BYTES_FORMAT(redis_link_text(reply)),
                            broker->options.global_keyprefix);
    }
}

static void on_bound(void *context, const redisReply *reply)
{
    const struct broker_redis_declared *item = context;
    struct broker_redis *broker = item->broker;
    if (reply && reply->type == REDIS_REPLY_ERROR
        && (strncmp(reply->str, "NOPERM", 6) == 0 || strncmp(reply->str, "WRONGTYPE", 9) == 0)) {
        complain(item, reply);
    } else if (broker_redis_judge(broker, reply, "binding queues") == BROKER_REDIS_AGAIN) {
        broker->declare.is_due = true;
    }
}

void broker_redis_declare_up(struct broker_redis *broker)
{
    broker->declare.is_due = false;
    for (size_t index = 0; index < broker->declare.count; index++) {
        struct broker_redis_declared *item = &broker->declare.items[index];
        struct bytes permanent[] = {BYTES("SADD"), item->permanent_key, item->member};
        struct bytes table[] = {BYTES("SADD"), item->key, item->member};
        redis_link_command(broker->commands, permanent, ARRAY_LENGTH(permanent), on_bound, item);
        redis_link_command(broker->commands, table, ARRAY_LENGTH(table), on_bound, item);
    }
}

void broker_redis_declare_retry(struct broker_redis *broker)
{
    if (broker->declare.is_due) {
        broker_redis_declare_up(broker);
    }
}
