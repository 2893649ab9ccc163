#include "broker/broker_redis_private.h"

#include <stdio.h>

#define POLL_MS           250
#define LOOK_MS           5000  /* although the server would have told us */
#define LEAST_COUNT_MS    15000 /* between two counts of the queues' lengths */
#define COUNT_MS_PER_LIST 500
#define ARENA_SPARE_BYTES ((size_t)1536) /* for what the pipeline keeps with a delivery */

/* Handing up */

static void fill_tag(struct broker_redis *broker, struct broker_redis_delivery *delivery)
{
    char *tag = arena_alloc(delivery->base.arena, BROKER_REDIS_MAX_TAG);
    int length = snprintf(tag, BROKER_REDIS_MAX_TAG, "%.*s%llu", BYTES_FORMAT(broker->tag_head),
                          (unsigned long long)delivery->number);
    delivery->base.tag = bytes_of(tag, (size_t)length);
}

static void deliver(struct broker_redis *broker, const struct broker_redis_queue *queue,
                    uint64_t number, struct bytes element)
{
    struct error error;
    const char *fault = NULL;
    struct arena *arena =
        arena_new(sizeof(struct broker_redis_delivery) + element.length * 2 + ARENA_SPARE_BYTES);
    struct broker_redis_delivery *delivery = arena_alloc(arena, sizeof(*delivery));
    delivery->base.arena = arena;
    delivery->number = number;
    delivery->envelope = arena_copy(arena, element);
    if (!broker_redis_envelope_read(delivery->envelope, &delivery->base, &fault, &error)) {
        broker_redis_notice(broker, LOG_ERROR,
                            "An element of queue %.*s is no message and is put aside in %.*s: %s",
                            BYTES_FORMAT(queue->name), BYTES_FORMAT(queue->rejected_key),
                            error.message);
        broker_redis_send_aside(broker, queue, number, element);
        arena_free(&arena);
        return;
    }
    delivery->base.queue = arena_copy(arena, queue->name);
    delivery->base.received_wall_s = loop_wall_s(broker->loop);
    fill_tag(broker, delivery);
    if (fault) {
        broker_redis_notice(broker, LOG_ERROR, "Message %.*s from queue %.*s: %s",
                            BYTES_FORMAT(delivery->base.tag), BYTES_FORMAT(queue->name), fault);
    }
    list_append(&broker->unsettled, &delivery->base.node);
    broker->unsettled_count++;
    if (broker->is_closing) {
        broker_redis_forget(broker, delivery);
        broker_redis_send_back(broker, delivery, NULL, NULL);
        arena_free(&arena);
        return;
    }
    broker->consume.places -= broker->consume.places > 0 ? 1 : 0;
    broker->events.on_delivery(broker->context, &delivery->base);
}

/* Kombu's round_robin: a queue that was served goes to the end (kombu/utils/scheduling.py:
 * round_robin_cycle.rotate). */
static void move_to_end(struct broker_redis *broker, size_t queue)
{
    size_t *cycle = broker->consume.cycle;
    size_t count = broker->options.queue_count;
    size_t place = 0;
    while (place < count && cycle[place] != queue) {
        place++;
    }
    for (; place + 1 < count; place++) {
        cycle[place] = cycle[place + 1];
    }
    cycle[count - 1] = queue;
}

/* Popping */

static void go_on(struct broker_redis *broker)
{
    loop_defer(broker->loop, &broker->consume.turn);
    broker_redis_check_closed(broker);
}

/* The piece {number of the list, refused elements, message ...}; returns how many messages it
 * had. */
static size_t take_piece(struct broker_redis *broker, const redisReply *piece, const size_t *cycle,
                         uint64_t first_number)
{
    if (piece->type != REDIS_REPLY_ARRAY || piece->elements < 2 || piece->element[0]->integer < 1) {
        return 0;
    }
    size_t list = (size_t)piece->element[0]->integer - 1;
    size_t place = cycle[list % broker->options.queue_count];
    struct broker_redis_queue *queue = &broker->queues[place];
    queue->refused_count += piece->element[1]->integer;
    for (size_t index = 2; index < piece->elements; index++) {
        deliver(broker, queue, first_number + index - 2, redis_link_text(piece->element[index]));
    }
    if (broker->options.order == BROKER_REDIS_ROUND_ROBIN && piece->elements > 2) {
        move_to_end(broker, place);
    }
    return piece->elements - 2;
}

static void tell_of_refused(struct broker_redis *broker)
{
    for (size_t index = 0; index < broker->options.queue_count; index++) {
        struct broker_redis_queue *queue = &broker->queues[index];
        if (queue->refused_count > 0) {
            broker_redis_notice(
                broker, LOG_ERROR,
                "%lld element(s) of queue %.*s are no messages and are put aside in %.*s",
                queue->refused_count, BYTES_FORMAT(queue->name), BYTES_FORMAT(queue->rejected_key));
            queue->refused_count = 0;
        }
    }
}

/* The order of the queues is what it was when they were asked: taking a piece changes it. */
static void take_pieces(struct broker_redis *broker, const redisReply *reply)
{
    size_t count = broker->options.queue_count;
    uint64_t number = broker->consume.popping_first;
    size_t *cycle = memory_new(count * sizeof(*cycle));
    memcpy(cycle, broker->consume.cycle, count * sizeof(*cycle));
    for (size_t index = 0; index < reply->elements; index++) {
        number += take_piece(broker, reply->element[index], cycle, number);
    }
    memory_free(&cycle);
    tell_of_refused(broker);
}

static void on_popped(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    struct broker_redis_consume *consume = &broker->consume;
    consume->is_popping = false;
    if (!reply) {
        broker_redis_check_closed(broker); /* popping_count remembers what may have been popped */
        return;
    }
    consume->popping_count = 0;
    if (broker_redis_script_is_missing(broker->scripts, BROKER_REDIS_SCRIPT_POP, reply)) {
        consume->is_dirty = true;
    } else if (broker_redis_judge(broker, reply, "taking messages") != BROKER_REDIS_OK) {
        consume->is_dirty = true;
        broker_redis_retry_later(broker);
    } else {
        take_pieces(broker, reply);
    }
    go_on(broker);
}

static void pop(struct broker_redis *broker)
{
    struct broker_redis_consume *consume = &broker->consume;
    const struct broker_redis_options *options = &broker->options;
    struct redis_link *link = broker->commands;
    size_t queues = options->queue_count;
    size_t count = consume->places < options->max_batch ? consume->places : options->max_batch;
    consume->is_popping = true;
    consume->is_dirty = false;
    consume->popping_first = consume->next_number;
    consume->popping_count = count;
    consume->next_number += count;
    broker_redis_script_begin(broker->scripts, BROKER_REDIS_SCRIPT_POP, link,
                              2 + queues + queues * options->priority_step_count, 7 + queues);
    redis_link_argument(link, broker->unacked);
    redis_link_argument(link, broker->unacked_index);
    for (size_t place = 0; place < queues; place++) {
        redis_link_argument(link, broker->queues[consume->cycle[place]].rejected_key);
    }
    for (size_t step = 0; step < options->priority_step_count; step++) {
        for (size_t place = 0; place < queues; place++) {
            redis_link_argument(link, broker->queues[consume->cycle[place]].step_keys[step]);
        }
    }
    broker_redis_score_argument(broker, loop_wall_s(broker->loop));
    redis_link_argument(link, broker->tag_head);
    redis_link_argument_integer(link, (int64_t)consume->popping_first);
    redis_link_argument_integer(link, (int64_t)count);
    redis_link_argument_integer(link, (int64_t)options->max_rejected);
    redis_link_argument_integer(link, (int64_t)queues);
    redis_link_argument_integer(link, options->order == BROKER_REDIS_ROUND_ROBIN ? 1 : 0);
    for (size_t place = 0; place < queues; place++) {
        redis_link_argument(link, broker->queues[consume->cycle[place]].tail);
    }
    redis_link_end(link, on_popped, broker);
}

/* Looking without taking */

static void on_looked(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    if (!reply) {
        return;
    }
    if (broker_redis_judge(broker, reply, "looking for messages") != BROKER_REDIS_OK) {
        broker->consume.is_dirty = true;
        broker_redis_retry_later(broker);
    } else if (reply->integer > 0) {
        broker->consume.is_dirty = true;
        go_on(broker);
    }
}

/* Having been read, the lists are tracked, those that do not exist too: whatever comes after
 * this moment is told, once. What came before is in the reply. Behind each pop, because the
 * lists that it changed are tracked no more. */
static void look(struct broker_redis *broker)
{
    const struct broker_redis_options *options = &broker->options;
    redis_link_begin(broker->commands, 1 + options->queue_count * options->priority_step_count);
    redis_link_argument_text(broker->commands, "EXISTS");
    for (size_t queue = 0; queue < options->queue_count; queue++) {
        for (size_t step = 0; step < options->priority_step_count; step++) {
            redis_link_argument(broker->commands, broker->queues[queue].step_keys[step]);
        }
    }
    redis_link_end(broker->commands, on_looked, broker);
}

static bool may_take(const struct broker_redis *broker)
{
    const struct broker_redis_consume *consume = &broker->consume;
    return broker_redis_may_send(broker) && !broker->is_closing && !consume->is_popping
           && !consume->is_recovering && consume->places > 0 && broker->options.queue_count > 0;
}

static void on_turn(void *context)
{
    struct broker_redis *broker = context;
    if (may_take(broker) && broker->consume.is_dirty) {
        pop(broker);
        look(broker);
    }
}

static void on_look_due(void *context)
{
    struct broker_redis *broker = context;
    loop_start_timer(broker->loop, &broker->consume.look,
                     broker->consume.is_tracking ? LOOK_MS : POLL_MS);
    if (may_take(broker)) {
        look(broker);
    }
}

static void on_tracking(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    struct broker_redis_consume *consume = &broker->consume;
    if (!reply) {
        return;
    }
    consume->is_tracking = reply->type != REDIS_REPLY_ERROR && broker->is_subscribed;
    if (consume->is_tracking) {
        broker_redis_consume_poke(broker);
    } else if (!consume->has_complained && reply->type == REDIS_REPLY_ERROR) {
        consume->has_complained = true;
        broker_redis_notice(broker, LOG_WARNING,
                            "Redis does not tell of new messages, looking every %d ms instead: %s",
                            POLL_MS, reply->str);
    }
}

void broker_redis_consume_track(struct broker_redis *broker)
{
    if (!broker->is_usable || !redis_link_is_up(broker->changes)) {
        return;
    }
    redis_link_begin(broker->commands, 6);
    redis_link_argument_text(broker->commands, "CLIENT");
    redis_link_argument_text(broker->commands, "TRACKING");
    redis_link_argument_text(broker->commands, "ON");
    redis_link_argument_text(broker->commands, "REDIRECT");
    redis_link_argument_integer(broker->commands, redis_link_id(broker->changes));
    redis_link_argument_text(broker->commands, "NOLOOP");
    redis_link_end(broker->commands, on_tracking, broker);
}

void broker_redis_consume_untrack(struct broker_redis *broker)
{
    if (broker->consume.is_tracking) {
        broker->consume.is_tracking = false;
        loop_start_timer(broker->loop, &broker->consume.look, POLL_MS);
    }
}

static bool is_list_of_ours(const struct broker_redis *broker, struct bytes key)
{
    const struct broker_redis_options *options = &broker->options;
    for (size_t queue = 0; queue < options->queue_count; queue++) {
        for (size_t step = 0; step < options->priority_step_count; step++) {
            if (bytes_equal(broker->queues[queue].step_keys[step], key)) {
                return true;
            }
        }
    }
    return false;
}

/* ["message", channel, keys]; no keys: all were flushed. Other keys that we read are tracked
 * too. */
void broker_redis_consume_on_change(struct broker_redis *broker, const redisReply *message)
{
    const redisReply *keys = message->element[2];
    bool is_ours = keys->type != REDIS_REPLY_ARRAY;
    for (size_t index = 0; !is_ours && index < keys->elements; index++) {
        is_ours = is_list_of_ours(broker, redis_link_text(keys->element[index]));
    }
    if (is_ours) {
        broker_redis_consume_poke(broker);
    }
}

/* What a lost reply may have brought */

static struct broker_redis_queue *find_queue(struct broker_redis *broker, struct bytes name)
{
    for (size_t index = 0; index < broker->options.queue_count; index++) {
        if (bytes_equal(broker->queues[index].name, name)) {
            return &broker->queues[index];
        }
    }
    return NULL;
}

static void deliver_recovered(struct broker_redis *broker, uint64_t number, struct bytes value)
{
    struct arena *arena = arena_new(0);
    struct broker_redis_held held;
    if (broker_redis_envelope_unwrap(value, arena, &held)) {
        struct broker_redis_queue *queue = find_queue(broker, held.routing_key);
        if (queue) {
            deliver(broker, queue, number, held.envelope);
        }
    }
    arena_free(&arena);
}

static void on_recovered(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    struct broker_redis_consume *consume = &broker->consume;
    consume->is_recovering = false;
    if (broker_redis_judge(broker, reply, "taking messages") != BROKER_REDIS_OK) {
        broker_redis_check_closed(
            broker); /* after the next connect, or by the visibility timeout */
        return;
    }
    uint64_t first = consume->popping_first;
    consume->popping_count = 0;
    for (size_t index = 0; index < reply->elements; index++) {
        if (reply->element[index]->type == REDIS_REPLY_STRING) {
            deliver_recovered(broker, first + index, redis_link_text(reply->element[index]));
        }
    }
    broker_redis_consume_poke(broker);
    broker_redis_check_closed(broker);
}

/* The tags of the lost reply are known: those that are registered were popped for us. Their
 * leases are renewed first, so that nobody restores them meanwhile. */
static void recover(struct broker_redis *broker)
{
    struct broker_redis_consume *consume = &broker->consume;
    struct redis_link *link = broker->commands;
    double now_s = loop_wall_s(broker->loop);
    consume->is_recovering = true;
    redis_link_begin(link, 3 + 2 * consume->popping_count);
    redis_link_argument_text(link, "ZADD");
    redis_link_argument(link, broker->unacked_index);
    redis_link_argument_text(link, "XX");
    for (size_t index = 0; index < consume->popping_count; index++) {
        broker_redis_score_argument(broker, now_s);
        broker_redis_tag_argument(broker, consume->popping_first + index);
    }
    redis_link_end(link, NULL, NULL);
    redis_link_begin(link, 2 + consume->popping_count);
    redis_link_argument_text(link, "HMGET");
    redis_link_argument(link, broker->unacked);
    for (size_t index = 0; index < consume->popping_count; index++) {
        broker_redis_tag_argument(broker, consume->popping_first + index);
    }
    redis_link_end(link, on_recovered, broker);
}

/* Lengths, for the metrics */

static void on_length(void *context, const redisReply *reply)
{
    struct broker_redis_queue *queue = context;
    if (!reply || reply->type != REDIS_REPLY_INTEGER) {
        queue->counting = -1;
    } else if (queue->counting >= 0) {
        queue->counting += reply->integer;
    }
    if (--queue->counted_steps == 0 && queue->counting >= 0) {
        queue->length = queue->counting;
    }
}

static void on_count_due(void *context)
{
    struct broker_redis *broker = context;
    const struct broker_redis_options *options = &broker->options;
    int64_t lists = (int64_t)(options->queue_count * options->priority_step_count);
    int64_t pause_ms = lists * COUNT_MS_PER_LIST;
    loop_start_timer(broker->loop, &broker->consume.count,
                     pause_ms > LEAST_COUNT_MS ? pause_ms : LEAST_COUNT_MS);
    for (size_t index = 0; broker_redis_may_send(broker) && index < options->queue_count; index++) {
        struct broker_redis_queue *queue = &broker->queues[index];
        if (queue->counted_steps > 0) {
            continue; /* the last count is still on its way */
        }
        queue->counting = 0;
        queue->counted_steps = options->priority_step_count;
        for (size_t step = 0; step < options->priority_step_count; step++) {
            struct bytes arguments[] = {BYTES("LLEN"), queue->step_keys[step]};
            redis_link_command(broker->commands, arguments, ARRAY_LENGTH(arguments), on_length,
                               queue);
        }
    }
}

/* Life cycle */

void broker_redis_consume_init(struct broker_redis *broker)
{
    struct broker_redis_consume *consume = &broker->consume;
    size_t count = broker->options.queue_count;
    consume->cycle = arena_alloc(broker->texts, (count + 1) * sizeof(*consume->cycle));
    for (size_t index = 0; index < count; index++) {
        consume->cycle[index] = index;
    }
    consume->next_number = 1;
    consume->turn = (struct loop_call){.function = on_turn, .context = broker};
    consume->look = (struct timer){.on_due = on_look_due, .context = broker};
    consume->count = (struct timer){.on_due = on_count_due, .context = broker};
}

void broker_redis_consume_up(struct broker_redis *broker)
{
    if (broker->consume.popping_count > 0) {
        recover(broker);
    }
    if (broker->is_closing) {
        return;
    }
    if (broker->is_subscribed) {
        broker_redis_consume_track(broker);
    }
    loop_start_timer(broker->loop, &broker->consume.look, POLL_MS);
    on_count_due(broker);
    broker_redis_consume_poke(broker);
}

void broker_redis_consume_down(struct broker_redis *broker)
{
    broker->consume.is_tracking = false;
    loop_stop_timer(broker->loop, &broker->consume.look);
    loop_stop_timer(broker->loop, &broker->consume.count);
}

void broker_redis_consume_stop(struct broker_redis *broker)
{
    broker->consume.places = 0;
    loop_stop_timer(broker->loop, &broker->consume.look);
    loop_stop_timer(broker->loop, &broker->consume.count);
    loop_cancel(broker->loop, &broker->consume.turn);
}

void broker_redis_consume_poke(struct broker_redis *broker)
{
    broker->consume.is_dirty = true;
    if (!broker->is_closing) {
        loop_defer(broker->loop, &broker->consume.turn);
    }
}

void broker_redis_consume_set_places(struct broker_redis *broker, size_t count)
{
    broker->consume.places = broker->is_closing ? 0 : count;
    if (count > 0 && !broker->is_closing) {
        loop_defer(broker->loop, &broker->consume.turn);
    }
}

/* A reply that is awaited or was lost may have brought messages, which are to go back. While the
 * server is away that cannot be found out. */
bool broker_redis_consume_is_busy(const struct broker_redis *broker)
{
    return broker->consume.popping_count > 0;
}
