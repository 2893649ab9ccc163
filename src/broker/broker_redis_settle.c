#include "broker/broker_redis_private.h"

#include <stdio.h>

#define BATCH_ITEMS ((size_t)1000)
#define FIRST_ITEMS ((size_t)16)
#define OUTBOX_PAGE "500"

/* One thing to take out of unacked, or an entry of the outbox to write or remove, or both. */
struct settle_item {
    uint64_t number;     /* of a tag of ours; 0: see `tag` */
    struct bytes tag;    /* of somebody else's, for a message of `task_id`; empty: none */
    struct bytes outbox; /* key; empty: none */
    struct bytes job_name;
    struct bytes task_id; /* in the outbox; empty: remove the entry */
    struct arena *texts;  /* of the views; NULL when all are empty */
    broker_done_fn *on_done;
    void *context;
};

/* What goes to the server as one transaction. */
struct broker_redis_batch {
    struct list_node node;
    struct broker_redis *broker;
    bool is_flying; /* sent, and no reply yet */
    struct settle_item *items;
    size_t count;
    size_t capacity;
};

static void batch_free(struct broker_redis_batch **batch)
{
    memory_free(&(*batch)->items);
    memory_free(batch);
}

static struct broker_redis_batch *batch_new(struct broker_redis *broker)
{
    struct list_node *spare = list_pop(&broker->settle.spare);
    if (spare) {
        return list_entry(spare, struct broker_redis_batch, node);
    }
    struct broker_redis_batch *batch = memory_new(sizeof(*batch));
    batch->broker = broker;
    return batch;
}

/* Tells the owners of all items and lets the batch go. */
static void batch_end(struct broker_redis_batch *batch, const struct error *error)
{
    struct broker_redis *broker = batch->broker;
    list_remove(&batch->node);
    for (size_t index = 0; index < batch->count; index++) {
        struct settle_item *item = &batch->items[index];
        arena_free(&item->texts);
        if (item->on_done) {
            item->on_done(item->context, error == NULL, error);
        }
    }
    batch->count = 0;
    list_append(&broker->settle.spare, &batch->node);
}

/* Sending */

static size_t count_own(const struct broker_redis_batch *batch)
{
    size_t count = 0;
    for (size_t index = 0; index < batch->count; index++) {
        count += batch->items[index].number > 0 ? 1 : 0;
    }
    return count;
}

static void write_removal(struct broker_redis_batch *batch, const char *command, struct bytes key,
                          size_t tag_count)
{
    struct broker_redis *broker = batch->broker;
    redis_link_begin(broker->commands, 2 + tag_count);
    redis_link_argument_text(broker->commands, command);
    redis_link_argument(broker->commands, key);
    for (size_t index = 0; index < batch->count; index++) {
        if (batch->items[index].number > 0) {
            broker_redis_tag_argument(broker, batch->items[index].number);
        }
    }
    redis_link_end(broker->commands, NULL, NULL);
}

static void write_foreign_removal(struct broker_redis *broker, const struct settle_item *item)
{
    broker_redis_script_begin_text(broker->scripts, BROKER_REDIS_SCRIPT_SETTLE, broker->commands, 2,
                                   2);
    redis_link_argument(broker->commands, broker->unacked);
    redis_link_argument(broker->commands, broker->unacked_index);
    redis_link_argument(broker->commands, item->tag);
    redis_link_argument(broker->commands, item->task_id);
    redis_link_end(broker->commands, NULL, NULL);
}

static void write_outbox(struct redis_link *link, const struct settle_item *item)
{
    bool is_removal = item->task_id.length == 0;
    struct bytes arguments[] = {is_removal ? BYTES("HDEL") : BYTES("HSET"), item->outbox,
                                item->job_name, item->task_id};
    redis_link_command(link, arguments, is_removal ? 3 : 4, NULL, NULL);
}

static void on_exec(void *context, const redisReply *reply)
{
    struct broker_redis_batch *batch = context;
    struct broker_redis *broker = batch->broker;
    batch->is_flying = false;
    enum broker_redis_verdict verdict = broker_redis_judge(broker, reply, "settling messages");
    if (verdict == BROKER_REDIS_OK) {
        batch_end(batch, NULL);
        broker_redis_check_closed(broker);
    } else if (verdict == BROKER_REDIS_REFUSED) {
        broker_redis_retry_later(broker); /* what the server has done of it is said again */
    }
}

static void send_batch(struct broker_redis_batch *batch)
{
    struct broker_redis *broker = batch->broker;
    struct redis_link *link = broker->commands;
    struct bytes multi = BYTES("MULTI");
    struct bytes exec = BYTES("EXEC");
    size_t own_count = count_own(batch);
    redis_link_command(link, &multi, 1, NULL, NULL);
    if (own_count > 0) {
        write_removal(batch, "ZREM", broker->unacked_index, own_count);
        write_removal(batch, "HDEL", broker->unacked, own_count);
    }
    for (size_t index = 0; index < batch->count; index++) {
        const struct settle_item *item = &batch->items[index];
        if (item->tag.length > 0) {
            write_foreign_removal(broker, item);
        }
        if (item->outbox.length > 0) {
            write_outbox(link, item);
        }
    }
    batch->is_flying = true;
    redis_link_command(link, &exec, 1, on_exec, batch);
}

/* Closes the batch of this turn, and sends what is not on its way. A batch that was refused
 * holds back those behind it, so that a removal never overtakes what wrote the entry. */
static void flush(void *context)
{
    struct broker_redis *broker = context;
    struct broker_redis_settle *settle = &broker->settle;
    if (settle->open) {
        list_append(&settle->batches, &settle->open->node);
        settle->open = NULL;
    }
    list_for_each(node, following, &settle->batches) {
        struct broker_redis_batch *batch = list_entry(node, struct broker_redis_batch, node);
        if (!broker_redis_may_send(broker)) {
            return;
        }
        if (!batch->is_flying) {
            send_batch(batch);
        }
    }
}

/* A new item at the end of the batch of this turn. */
static struct settle_item *new_item(struct broker_redis *broker, broker_done_fn *on_done,
                                    void *context)
{
    struct broker_redis_settle *settle = &broker->settle;
    if (settle->open && settle->open->count == BATCH_ITEMS) {
        flush(broker);
    }
    if (!settle->open) {
        settle->open = batch_new(broker);
    }
    struct broker_redis_batch *batch = settle->open;
    if (batch->count == batch->capacity) {
        batch->capacity = batch->capacity > 0 ? batch->capacity * 2 : FIRST_ITEMS;
        batch->items = memory_resize(batch->items, batch->capacity, sizeof(*batch->items));
    }
    loop_defer(broker->loop, &settle->flush);
    struct settle_item *item = &batch->items[batch->count++];
    *item = (struct settle_item){.on_done = on_done, .context = context};
    return item;
}

void broker_redis_settle_own(struct broker_redis *broker, uint64_t number,
                             const struct broker_outbox_entry *entry, broker_done_fn *on_done,
                             void *context)
{
    struct settle_item *item = new_item(broker, on_done, context);
    item->number = number;
    if (entry) {
        item->texts = arena_new(0);
        item->outbox =
            broker_redis_key(broker, item->texts, "petiole:jobs:", entry->namespace_name);
        item->job_name = arena_copy(item->texts, entry->job_name);
        item->task_id = arena_copy(item->texts, entry->task_id);
    }
}

void broker_redis_settle_tag(struct broker *base, struct bytes tag, struct bytes task_id,
                             broker_done_fn *on_done, void *context)
{
    struct settle_item *item = new_item(broker_redis_of(base), on_done, context);
    item->texts = arena_new(0);
    item->tag = arena_copy(item->texts, tag);
    item->task_id = arena_copy(item->texts, task_id);
}

void broker_redis_settle_outbox_add(struct broker *base, const struct broker_outbox_entry *entry,
                                    broker_done_fn *on_done, void *context)
{
    broker_redis_settle_own(broker_redis_of(base), 0, entry, on_done, context);
}

void broker_redis_settle_outbox_remove(struct broker *base, struct bytes namespace_name,
                                       struct bytes job_name, broker_done_fn *on_done,
                                       void *context)
{
    struct broker_redis *broker = broker_redis_of(base);
    struct settle_item *item = new_item(broker, on_done, context);
    item->texts = arena_new(0);
    item->outbox = broker_redis_key(broker, item->texts, "petiole:jobs:", namespace_name);
    item->job_name = arena_copy(item->texts, job_name);
}

bool broker_redis_settle_has(const struct broker_redis *broker, uint64_t number)
{
    list_for_each(node, following, &broker->settle.batches) {
        const struct broker_redis_batch *batch = list_entry(node, struct broker_redis_batch, node);
        for (size_t index = 0; index < batch->count; index++) {
            if (batch->items[index].number == number) {
                return true;
            }
        }
    }
    return false;
}

/* Reading the outbox */

struct outbox_reading {
    struct broker_redis *broker;
    struct bytes key; /* in `texts` */
    struct arena *texts;
    broker_outbox_fn *on_entry;
    void *context;
};

static void on_outbox_page(void *context, const redisReply *reply);

static void ask_for_page(struct outbox_reading *reading, struct bytes cursor)
{
    struct bytes arguments[] = {BYTES("HSCAN"), reading->key, cursor, BYTES("COUNT"),
                                BYTES(OUTBOX_PAGE)};
    redis_link_command(reading->broker->commands, arguments, ARRAY_LENGTH(arguments),
                       on_outbox_page, reading);
}

static void end_reading(struct outbox_reading *reading, const struct error *error)
{
    struct bytes nothing = {NULL, 0};
    reading->on_entry(reading->context, nothing, nothing, error);
    arena_free(&reading->texts);
    memory_free(&reading);
}

static void fail_reading(struct outbox_reading *reading, const redisReply *reply)
{
    struct error error;
    struct bytes reason = reply ? redis_link_text(reply) : BYTES("connection lost");
    (void)error_set(&error, ERROR_TEMPORARY, "cannot read the outbox %.*s: %.*s",
                    BYTES_FORMAT(reading->key), BYTES_FORMAT(reason));
    end_reading(reading, &error);
}

static void on_outbox_page(void *context, const redisReply *reply)
{
    struct outbox_reading *reading = context;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) {
        fail_reading(reading, reply);
        return;
    }
    const redisReply *page = reply->element[1];
    for (size_t index = 0; index + 1 < page->elements; index += 2) {
        struct bytes job_name = redis_link_text(page->element[index]);
        if (job_name.length > 0) {
            reading->on_entry(reading->context, job_name, redis_link_text(page->element[index + 1]),
                              NULL);
        }
    }
    struct bytes cursor = redis_link_text(reply->element[0]);
    if (bytes_equal_text(cursor, "0")) {
        end_reading(reading, NULL);
    } else {
        ask_for_page(reading, cursor);
    }
}

void broker_redis_settle_outbox_list(struct broker *base, struct bytes namespace_name,
                                     broker_outbox_fn *on_entry, void *context)
{
    struct outbox_reading *reading = memory_new(sizeof(*reading));
    reading->broker = broker_redis_of(base);
    reading->texts = arena_new(0);
    reading->key =
        broker_redis_key(reading->broker, reading->texts, "petiole:jobs:", namespace_name);
    reading->on_entry = on_entry;
    reading->context = context;
    ask_for_page(reading, BYTES("0"));
}

/* Life cycle */

void broker_redis_settle_init(struct broker_redis *broker)
{
    list_init(&broker->settle.batches);
    list_init(&broker->settle.spare);
    broker->settle.flush = (struct loop_call){.function = flush, .context = broker};
}

void broker_redis_settle_up(struct broker_redis *broker)
{
    loop_defer(broker->loop, &broker->settle.flush);
}

bool broker_redis_settle_is_busy(const struct broker_redis *broker)
{
    return broker->settle.open != NULL || !list_is_empty(&broker->settle.batches);
}

void broker_redis_settle_finish(struct broker_redis *broker)
{
    struct error error;
    (void)error_set(&error, ERROR_TEMPORARY, "the connection to Redis was closed first");
    loop_cancel(broker->loop, &broker->settle.flush);
    flush(broker); /* closes the batch of this turn */
    list_for_each(node, following, &broker->settle.batches) {
        batch_end(list_entry(node, struct broker_redis_batch, node), &error);
    }
    struct list_node *node = NULL;
    while ((node = list_pop(&broker->settle.spare)) != NULL) {
        struct broker_redis_batch *batch = list_entry(node, struct broker_redis_batch, node);
        batch_free(&batch);
    }
}
