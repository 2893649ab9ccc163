/*
 * Remote control over Redis: commands are published to the fanout exchange <control_exchange>.pidbox,
 * which on Redis is a channel (kombu/transport/redis.py: Channel._put_fanout, _get_publish_topic),
 * and heard by the connection that is told of changes. Answers are ordinary publications. What was
 * revoked is kept in a sorted set, petiole:revoked:<namespace>, because nobody repeats a broadcast
 * for a worker that was not there.
 */
#include <stdio.h>

#include "broker/broker_redis_private.h"

#define TERMINATE_HEAD "terminate:" /* of a member of the sorted set; the score is the time */
#define REVOKE_HEAD    "revoke:"

/* Hearing */

/* "/{db}." and the like, with the database put in. */
static void append_prefix(struct buffer *channel, const char *prefix, int database)
{
    const char *place = strstr(prefix, "{db}");
    if (!place) {
        (void)buffer_append_text(channel, prefix);
        return;
    }
    (void)buffer_append(channel, bytes_of(prefix, (size_t)(place - prefix)));
    (void)buffer_format(channel, "%d", database);
    append_prefix(channel, place + sizeof("{db}") - 1, database);
}

void broker_redis_pidbox_init(struct broker_redis *broker)
{
    struct broker_redis_options *options = &broker->options;
    struct buffer channel;
    if (!options->control_exchange) {
        return;
    }
    buffer_init(&channel, SIZE_MAX);
    (void)buffer_append_text(&channel, options->global_keyprefix);
    append_prefix(&channel, options->fanout_prefix ? options->fanout_prefix : "/{db}.",
                  options->url.database);
    (void)buffer_format(&channel, "%s.pidbox", options->control_exchange);
    broker->pidbox.channel = arena_copy(broker->texts, buffer_view(&channel));
    buffer_fini(&channel);
    options->control_exchange = NULL; /* the caller's */
    options->fanout_prefix = NULL;
}

static void on_subscribed(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    if (reply && reply->type == REDIS_REPLY_ERROR && !broker->pidbox.has_complained) {
        broker->pidbox.has_complained = true;
        broker_redis_notice(broker, LOG_WARNING,
                            "Redis does not let this worker hear remote control (channel %.*s): %s",
                            BYTES_FORMAT(broker->pidbox.channel), reply->str);
    }
}

void broker_redis_pidbox_up(struct broker_redis *broker)
{
    struct bytes subscribe[] = {BYTES("SUBSCRIBE"), broker->pidbox.channel};
    if (broker->pidbox.channel.length > 0) {
        redis_link_command(broker->changes, subscribe, ARRAY_LENGTH(subscribe), on_subscribed,
                           broker);
    }
}

/* ["message", channel, envelope] */
bool broker_redis_pidbox_take(struct broker_redis *broker, const redisReply *message)
{
    struct error error;
    const char *fault = NULL;
    struct bytes channel = broker->pidbox.channel;
    if (channel.length == 0 || message->elements < 3
        || !bytes_equal(redis_link_text(message->element[1]), channel)) {
        return false;
    }
    struct bytes envelope = redis_link_text(message->element[2]);
    struct arena *arena = arena_new(envelope.length * 2 + 1024);
    struct delivery *delivery = arena_alloc(arena, sizeof(*delivery));
    delivery->arena = arena;
    if (!broker_redis_envelope_read(arena_copy(arena, envelope), delivery, &fault, &error)) {
        broker_redis_notice(broker, LOG_WARNING, "Cannot process event on channel %.*s: %s",
                            BYTES_FORMAT(channel), error.message);
    } else if (broker->events.on_control && !broker->is_closing) {
        broker->events.on_control(broker->context, delivery);
    }
    arena_free(&arena);
    return true;
}

/* Remembering */

static struct bytes revoked_key(const struct broker_redis *broker, struct arena *arena,
                                struct bytes namespace_name)
{
    return broker_redis_key(broker, arena, "petiole:revoked:", namespace_name);
}

static void on_remembered(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        (void)broker_redis_judge(broker, reply, "remembering revoked tasks");
    }
}

/* Members whose time is over, and the oldest beyond the limit. */
static void trim(struct broker_redis *broker, struct bytes key, double since_wall_s, size_t most)
{
    struct redis_link *link = broker->commands;
    redis_link_begin(link, 4);
    redis_link_argument_text(link, "ZREMRANGEBYSCORE");
    redis_link_argument(link, key);
    redis_link_argument_text(link, "-inf");
    broker_redis_score_argument(broker, since_wall_s);
    redis_link_end(link, NULL, NULL);
    redis_link_begin(link, 4);
    redis_link_argument_text(link, "ZREMRANGEBYRANK");
    redis_link_argument(link, key);
    redis_link_argument_integer(link, 0);
    redis_link_argument_integer(link, -(int64_t)most - 1);
    redis_link_end(link, NULL, NULL);
}

void broker_redis_pidbox_revoked_add(struct broker *base, const struct broker_revoked *revoked,
                                     double expires_s, size_t most)
{
    struct broker_redis *broker = broker_redis_of(base);
    struct redis_link *link = broker->commands;
    if (!broker_redis_may_send(broker)) {
        return;
    }
    struct arena *arena = arena_new(512);
    struct bytes key = revoked_key(broker, arena, revoked->namespace_name);
    const char *head = revoked->terminate ? TERMINATE_HEAD : REVOKE_HEAD;
    redis_link_begin(link, 4);
    redis_link_argument_text(link, "ZADD");
    redis_link_argument(link, key);
    broker_redis_score_argument(broker, revoked->since_wall_s);
    redis_link_argument_text(link,
                             arena_format(arena, "%s%.*s", head, BYTES_FORMAT(revoked->task_id)));
    redis_link_end(link, on_remembered, broker);
    trim(broker, key, revoked->since_wall_s - expires_s, most);
    redis_link_begin(link, 3);
    redis_link_argument_text(link, "EXPIRE");
    redis_link_argument(link, key);
    redis_link_argument_integer(link, (int64_t)expires_s);
    redis_link_end(link, NULL, NULL);
    arena_free(&arena);
}

struct listing {
    struct broker_redis *broker;
    broker_revoked_fn *on_revoked;
    void *context;
};

static void tell(const struct listing *listing, struct bytes member, struct bytes score)
{
    struct broker_revoked revoked = {.terminate = bytes_starts_with(member, BYTES(TERMINATE_HEAD))};
    char number[40];
    if (!revoked.terminate && !bytes_starts_with(member, BYTES(REVOKE_HEAD))) {
        return;
    }
    revoked.task_id = bytes_skip(member, revoked.terminate ? sizeof(TERMINATE_HEAD) - 1
                                                           : sizeof(REVOKE_HEAD) - 1);
    (void)snprintf(number, sizeof(number), "%.*s", BYTES_FORMAT(score));
    revoked.since_wall_s = strtod(number, NULL);
    if (revoked.task_id.length > 0) {
        listing->on_revoked(listing->context, &revoked, NULL);
    }
}

static void on_list(void *context, const redisReply *reply)
{
    struct listing *listing = context;
    struct broker_revoked end = {.terminate = false};
    struct error error;
    if (reply && reply->type == REDIS_REPLY_ARRAY) {
        for (size_t index = 0; index + 1 < reply->elements; index += 2) {
            tell(listing, redis_link_text(reply->element[index]),
                 redis_link_text(reply->element[index + 1]));
        }
        listing->on_revoked(listing->context, &end, NULL);
    } else {
        (void)error_set(&error, reply ? ERROR_REFUSED : ERROR_TEMPORARY, "%s",
                        reply ? reply->str : "the connection was lost");
        listing->on_revoked(listing->context, &end, &error);
    }
    memory_free(&listing);
}

void broker_redis_pidbox_revoked_list(struct broker *base, struct bytes namespace_name,
                                      double since_wall_s, broker_revoked_fn *on_revoked,
                                      void *context)
{
    struct broker_redis *broker = broker_redis_of(base);
    struct redis_link *link = broker->commands;
    struct listing *listing = memory_new(sizeof(*listing));
    *listing = (struct listing){broker, on_revoked, context};
    struct arena *arena = arena_new(512);
    redis_link_begin(link, 5);
    redis_link_argument_text(link, "ZRANGEBYSCORE");
    redis_link_argument(link, revoked_key(broker, arena, namespace_name));
    broker_redis_score_argument(broker, since_wall_s);
    redis_link_argument_text(link, "+inf");
    redis_link_argument_text(link, "WITHSCORES");
    redis_link_end(link, on_list, listing);
    arena_free(&arena);
}
