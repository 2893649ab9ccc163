#include "broker/broker_redis_private.h"

#include <stdio.h>

#define PAGE_ENTRIES 100
#define IMPOSSIBLE   "-" /* a value that no entry of unacked has */

/* An expired entry on its way back. */
struct expired {
    struct broker_redis *broker;
    struct arena *texts;
    struct bytes tag;
    struct bytes value; /* as read; what is in unacked must still be the same */
    struct broker_redis_held held;
};

static void ask_for_page(struct broker_redis *broker);

static void on_unlocked(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    (void)broker_redis_script_is_missing(broker->scripts, BROKER_REDIS_SCRIPT_UNLOCK, reply);
}

/* Gives the lock back, as redis-py's Lock does. Should that get lost, the lock runs out. */
static void end_scan(struct broker_redis *broker)
{
    broker->restore.is_scanning = false;
    if (!broker->is_usable) {
        return;
    }
    broker_redis_script_begin(broker->scripts, BROKER_REDIS_SCRIPT_UNLOCK, broker->commands, 1, 1);
    redis_link_argument(broker->commands, broker->unacked_mutex);
    redis_link_argument_text(broker->commands, broker->restore.token);
    redis_link_end(broker->commands, on_unlocked, broker);
}

/* One entry of the page is dealt with; after the last comes the next page. */
static void end_entry(struct expired *expired, bool is_gone)
{
    struct broker_redis *broker = expired->broker;
    struct broker_redis_restore *restore = &broker->restore;
    arena_free(&expired->texts);
    memory_free(&expired);
    restore->skipped += is_gone ? 0 : 1;
    if (--restore->outstanding > 0) {
        return;
    }
    if (restore->page_length < PAGE_ENTRIES || !broker_redis_may_send(broker)
        || broker->is_closing) {
        end_scan(broker);
    } else {
        ask_for_page(broker);
    }
}

static void on_restored(void *context, const redisReply *reply)
{
    struct expired *expired = context;
    struct broker_redis *broker = expired->broker;
    (void)broker_redis_script_is_missing(broker->scripts, BROKER_REDIS_SCRIPT_RESTORE, reply);
    bool is_done = broker_redis_judge(broker, reply, "restoring messages") == BROKER_REDIS_OK;
    if (is_done && reply->integer == 1) {
        broker_redis_consume_poke(broker); /* our own changes are not told to us */
    }
    end_entry(expired, is_done);
}

static void give_back(struct expired *expired, const struct bytes *lists, size_t count)
{
    struct broker_redis *broker = expired->broker;
    struct buffer envelope;
    buffer_init(&envelope, SIZE_MAX);
    broker_redis_envelope_mark(&envelope, expired->held.envelope);
    broker_redis_script_begin(broker->scripts, BROKER_REDIS_SCRIPT_RESTORE, broker->commands,
                              2 + count, 3);
    redis_link_argument(broker->commands, broker->unacked);
    redis_link_argument(broker->commands, broker->unacked_index);
    for (size_t index = 0; index < count; index++) {
        redis_link_argument(broker->commands, lists[index]);
    }
    redis_link_argument(broker->commands, expired->tag);
    redis_link_argument(broker->commands, expired->value);
    redis_link_argument(broker->commands, buffer_view(&envelope));
    redis_link_end(broker->commands, on_restored, expired);
    buffer_fini(&envelope);
}

/* Nothing in unacked belongs to the tag: an entry of the index without it is removed, unless it
 * is there by now. */
static void forget(struct expired *expired)
{
    struct broker_redis *broker = expired->broker;
    expired->value = BYTES(IMPOSSIBLE);
    broker_redis_script_begin(broker->scripts, BROKER_REDIS_SCRIPT_RESTORE, broker->commands, 2, 3);
    redis_link_argument(broker->commands, broker->unacked);
    redis_link_argument(broker->commands, broker->unacked_index);
    redis_link_argument(broker->commands, expired->tag);
    redis_link_argument(broker->commands, expired->value);
    redis_link_argument_text(broker->commands, "");
    redis_link_end(broker->commands, on_restored, expired);
}

static void on_aside(void *context, const redisReply *reply)
{
    struct expired *expired = context;
    struct broker_redis *broker = expired->broker;
    (void)broker_redis_script_is_missing(broker->scripts, BROKER_REDIS_SCRIPT_REJECT, reply);
    end_entry(expired,
              broker_redis_judge(broker, reply, "putting elements aside") == BROKER_REDIS_OK);
}

static void put_aside(struct expired *expired, const char *reason)
{
    struct broker_redis *broker = expired->broker;
    broker_redis_notice(broker, LOG_ERROR,
                        "Message %.*s of the unacked messages is put aside in %.*s: %s",
                        BYTES_FORMAT(expired->tag), BYTES_FORMAT(broker->rejected_unacked), reason);
    broker_redis_script_begin(broker->scripts, BROKER_REDIS_SCRIPT_REJECT, broker->commands, 3, 4);
    redis_link_argument(broker->commands, broker->unacked);
    redis_link_argument(broker->commands, broker->unacked_index);
    redis_link_argument(broker->commands, broker->rejected_unacked);
    redis_link_argument(broker->commands, expired->tag);
    redis_link_argument(broker->commands, expired->value);
    redis_link_argument(broker->commands, expired->value);
    redis_link_argument_integer(broker->commands, (int64_t)broker->options.max_rejected);
    redis_link_end(broker->commands, on_aside, expired);
}

static void on_bindings(void *context, const redisReply *reply)
{
    struct expired *expired = context;
    struct broker_redis *broker = expired->broker;
    struct bytes *lists = NULL;
    if (broker_redis_judge(broker, reply, "reading bindings") != BROKER_REDIS_OK) {
        end_entry(expired, false);
        return;
    }
    size_t count = broker_redis_send_routes(
        broker, expired->texts, reply, expired->held.routing_key, expired->held.priority, &lists);
    if (count > 0) {
        give_back(expired, lists, count);
    } else {
        put_aside(expired, "no queue is bound to its exchange by its routing key");
    }
}

/* kombu/transport/redis.py: Channel._do_restore_message, _lookup */
static void on_value(void *context, const redisReply *reply)
{
    struct expired *expired = context;
    struct broker_redis *broker = expired->broker;
    if (broker_redis_judge(broker, reply, "restoring messages") != BROKER_REDIS_OK) {
        end_entry(expired, false);
        return;
    }
    if (reply->type != REDIS_REPLY_STRING) {
        forget(expired);
        return;
    }
    expired->value = arena_copy(expired->texts, redis_link_text(reply));
    if (!broker_redis_envelope_unwrap(expired->value, expired->texts, &expired->held)) {
        put_aside(expired, "it is not what Kombu writes there");
        return;
    }
    if (expired->held.exchange.length > 0) {
        struct bytes arguments[] = {
            BYTES("SMEMBERS"),
            broker_redis_key(broker, expired->texts, "_kombu.binding.", expired->held.exchange)};
        redis_link_command(broker->commands, arguments, ARRAY_LENGTH(arguments), on_bindings,
                           expired);
        return;
    }
    struct bytes list = broker_redis_list(broker, expired->texts, expired->held.routing_key,
                                          expired->held.priority);
    give_back(expired, &list, 1);
}

/* Whether the tag is one that we hold. Then its renewal is late, not its owner dead. */
static bool is_held_here(struct broker_redis *broker, struct bytes tag)
{
    char number[24];
    if (!bytes_starts_with(tag, broker->tag_head)) {
        return false;
    }
    (void)snprintf(number, sizeof(number), "%.*s",
                   BYTES_FORMAT(bytes_skip(tag, broker->tag_head.length)));
    return broker_redis_lease_holds(broker, strtoull(number, NULL, 10));
}

static void on_page(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    struct broker_redis_restore *restore = &broker->restore;
    bool holds_expired = false;
    if (broker_redis_judge(broker, reply, "restoring messages") != BROKER_REDIS_OK) {
        end_scan(broker);
        return;
    }
    restore->page_length = reply->elements;
    restore->outstanding = 1; /* this function, until all are on their way */
    for (size_t index = 0; index < reply->elements; index++) {
        struct bytes tag = redis_link_text(reply->element[index]);
        if (is_held_here(broker, tag)) {
            holds_expired = true;
            restore->skipped++;
            continue;
        }
        struct expired *expired = memory_new(sizeof(*expired));
        expired->broker = broker;
        expired->texts = arena_new(1024);
        expired->tag = arena_copy(expired->texts, tag);
        restore->outstanding++;
        struct bytes arguments[] = {BYTES("HGET"), broker->unacked, expired->tag};
        redis_link_command(broker->commands, arguments, ARRAY_LENGTH(arguments), on_value, expired);
    }
    if (holds_expired) {
        broker_redis_lease_renew(broker);
    }
    struct expired *last = memory_new(sizeof(*last));
    last->broker = broker;
    end_entry(last, true);
}

/* The newest of the expired first, as Kombu does, so that the oldest ends up at the very front
 * (kombu/transport/redis.py: QoS.restore_visible). */
static void ask_for_page(struct broker_redis *broker)
{
    struct redis_link *link = broker->commands;
    double timeout_s = (double)broker->options.visibility_timeout_ms / 1000;
    redis_link_begin(link, 9);
    redis_link_argument_text(link, "ZRANGE");
    redis_link_argument(link, broker->unacked_index);
    broker_redis_score_argument(broker, loop_wall_s(broker->loop) - timeout_s);
    redis_link_argument_text(link, "0");
    redis_link_argument_text(link, "BYSCORE");
    redis_link_argument_text(link, "REV");
    redis_link_argument_text(link, "LIMIT");
    redis_link_argument_integer(link, (int64_t)broker->restore.skipped);
    redis_link_argument_integer(link, PAGE_ENTRIES);
    redis_link_end(link, on_page, broker);
}

static void on_locked(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    bool is_ours = broker_redis_judge(broker, reply, "restoring messages") == BROKER_REDIS_OK
                   && bytes_equal_text(redis_link_text(reply), "OK");
    if (is_ours && broker_redis_may_send(broker) && !broker->is_closing) {
        broker->restore.skipped = 0;
        ask_for_page(broker);
    } else {
        broker->restore.is_scanning = false;
    }
}

static void begin_scan(void *context)
{
    struct broker_redis *broker = context;
    struct broker_redis_restore *restore = &broker->restore;
    loop_start_timer(broker->loop, &restore->scan, broker->options.restore_interval_ms);
    if (restore->is_scanning || !broker_redis_may_send(broker)) {
        return;
    }
    restore->is_scanning = true;
    (void)snprintf(restore->token, sizeof(restore->token), "%.*s%llx",
                   BYTES_FORMAT(broker->tag_head), (unsigned long long)loop_random(broker->loop));
    redis_link_begin(broker->commands, 6);
    redis_link_argument_text(broker->commands, "SET");
    redis_link_argument(broker->commands, broker->unacked_mutex);
    redis_link_argument_text(broker->commands, restore->token);
    redis_link_argument_text(broker->commands, "NX");
    redis_link_argument_text(broker->commands, "PX");
    redis_link_argument_integer(broker->commands, broker->options.unacked_mutex_expire_ms);
    redis_link_end(broker->commands, on_locked, broker);
}

void broker_redis_restore_init(struct broker_redis *broker)
{
    broker->restore.scan = (struct timer){.on_due = begin_scan, .context = broker};
}

void broker_redis_restore_up(struct broker_redis *broker)
{
    begin_scan(broker);
}

void broker_redis_restore_stop(struct broker_redis *broker)
{
    loop_stop_timer(broker->loop, &broker->restore.scan);
}
