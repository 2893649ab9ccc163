#include "broker/broker_redis_binding.h"
#include "broker/broker_redis_private.h"

#define MAX_ENVELOPE_BYTES ((size_t)512 * 1024 * 1024) /* of a value in Redis */

enum errand_kind {
    ERRAND_PUBLISH, /* LPUSH, by script once it may have arrived already */
    ERRAND_ROUTE,   /* asks where a named exchange leads, then publishes */
    ERRAND_BACK,    /* a script of unacked, repeatable by itself */
    ERRAND_ASIDE,
    ERRAND_TOO_LARGE, /* for any Redis */
};

/* Something that has to reach the server; said again until it has. */
struct errand {
    struct list_node node;
    struct broker_redis *broker;
    enum errand_kind kind;
    bool is_flying;
    bool may_have_arrived;
    struct arena *texts; /* of the views */
    struct bytes *lists; /* keys of the lists that it goes to */
    size_t list_count;
    struct bytes tag;
    struct bytes envelope;
    struct bytes exchange; /* ERRAND_ROUTE */
    struct bytes routing_key;
    int64_t priority;
    broker_done_fn *on_done;
    void *context;
};

static void end_errand(struct errand *errand, const struct error *error)
{
    struct broker_redis *broker = errand->broker;
    broker_done_fn *on_done = errand->on_done;
    void *context = errand->context;
    list_remove(&errand->node);
    arena_free(&errand->texts);
    memory_free(&errand);
    if (on_done) {
        on_done(context, error == NULL, error);
    }
    broker_redis_check_closed(broker);
}

static void send_errand(struct errand *errand);

static const char *purpose_of(const struct errand *errand)
{
    switch (errand->kind) {
    case ERRAND_BACK:
        return "giving messages back";
    case ERRAND_ASIDE:
        return "putting elements aside";
    case ERRAND_PUBLISH:
    case ERRAND_ROUTE:
    case ERRAND_TOO_LARGE:
    default:
        return "sending messages";
    }
}

/* A publication that is refused for good is reported; a message in unacked is never given up. */
static void on_refused(struct errand *errand, const redisReply *reply)
{
    struct error error;
    bool is_publication = errand->kind == ERRAND_PUBLISH || errand->kind == ERRAND_ROUTE;
    if (!is_publication) {
        broker_redis_retry_later(errand->broker);
        return;
    }
    (void)error_set(&error, ERROR_REFUSED, "Redis refuses the message: %s",
                    reply->str ? reply->str : "");
    end_errand(errand, &error);
}

static enum broker_redis_script_name script_of(const struct errand *errand)
{
    switch (errand->kind) {
    case ERRAND_BACK:
        return BROKER_REDIS_SCRIPT_RESTORE;
    case ERRAND_ASIDE:
        return BROKER_REDIS_SCRIPT_REJECT;
    case ERRAND_PUBLISH:
    case ERRAND_ROUTE:
    case ERRAND_TOO_LARGE:
    default:
        return BROKER_REDIS_SCRIPT_PUBLISH;
    }
}

static void on_sent(void *context, const redisReply *reply)
{
    struct errand *errand = context;
    struct broker_redis *broker = errand->broker;
    errand->is_flying = false;
    if (broker_redis_script_is_missing(broker->scripts, script_of(errand), reply)) {
        send_errand(errand);
        return;
    }
    enum broker_redis_verdict verdict = broker_redis_judge(broker, reply, purpose_of(errand));
    if (verdict == BROKER_REDIS_OK) {
        /* Our own changes are not told to us. */
        broker_redis_consume_poke(broker);
        end_errand(errand, NULL);
    } else if (verdict == BROKER_REDIS_REFUSED) {
        on_refused(errand, reply);
    } else if (verdict == BROKER_REDIS_LOST) {
        errand->may_have_arrived = true;
    }
}

static bool has_list(const struct bytes *lists, size_t count, struct bytes list)
{
    for (size_t index = 0; index < count; index++) {
        if (bytes_equal(lists[index], list)) {
            return true;
        }
    }
    return false;
}

size_t broker_redis_send_routes(const struct broker_redis *broker, struct arena *arena,
                                const redisReply *members, struct bytes routing_key,
                                int64_t priority, struct bytes **ret_lists)
{
    struct bytes *lists = arena_alloc(arena, (members->elements + 1) * sizeof(*lists));
    size_t count = 0;
    for (size_t index = 0; index < members->elements; index++) {
        struct bytes member = redis_link_text(members->element[index]);
        struct bytes queue;
        if (broker_redis_binding_leads(member, broker->separator, routing_key, &queue)) {
            lists[count] = broker_redis_list(broker, arena, queue, priority);
            count += has_list(lists, count, lists[count]) ? 0 : 1;
        }
    }
    *ret_lists = lists;
    return count;
}

/* Finds the queues that the exchange leads to (kombu/transport/redis.py: Channel._lookup). */
static void on_bindings(void *context, const redisReply *reply)
{
    struct errand *errand = context;
    struct broker_redis *broker = errand->broker;
    struct error error;
    errand->is_flying = false;
    enum broker_redis_verdict verdict = broker_redis_judge(broker, reply, purpose_of(errand));
    if (verdict == BROKER_REDIS_REFUSED) {
        on_refused(errand, reply);
        return;
    }
    if (verdict != BROKER_REDIS_OK) {
        return;
    }
    errand->list_count = broker_redis_send_routes(broker, errand->texts, reply, errand->routing_key,
                                                  errand->priority, &errand->lists);
    if (errand->list_count == 0) {
        (void)error_set(&error, ERROR_NOT_FOUND, "no queue is bound to exchange %.*s by key %.*s",
                        BYTES_FORMAT(errand->exchange), BYTES_FORMAT(errand->routing_key));
        end_errand(errand, &error);
        return;
    }
    errand->kind = ERRAND_PUBLISH;
    if (broker_redis_may_send(broker)) {
        send_errand(errand);
    }
}

static void ask_for_bindings(struct errand *errand)
{
    struct broker_redis *broker = errand->broker;
    struct bytes arguments[] = {
        BYTES("SMEMBERS"),
        broker_redis_key(broker, errand->texts, "_kombu.binding.", errand->exchange)};
    redis_link_command(broker->commands, arguments, ARRAY_LENGTH(arguments), on_bindings, errand);
}

static void write_lists(const struct errand *errand)
{
    for (size_t index = 0; index < errand->list_count; index++) {
        redis_link_argument(errand->broker->commands, errand->lists[index]);
    }
}

static void send_publication(struct errand *errand)
{
    struct broker_redis *broker = errand->broker;
    struct bytes push[] = {BYTES("LPUSH"), errand->lists[0], errand->envelope};
    if (errand->list_count == 1 && !errand->may_have_arrived) {
        redis_link_command(broker->commands, push, ARRAY_LENGTH(push), on_sent, errand);
        return;
    }
    broker_redis_script_begin(broker->scripts, BROKER_REDIS_SCRIPT_PUBLISH, broker->commands,
                              errand->list_count, 1);
    write_lists(errand);
    redis_link_argument(broker->commands, errand->envelope);
    redis_link_end(broker->commands, on_sent, errand);
}

/* The tag is ours alone, so that the value need not be compared. */
static void send_unacked_script(struct errand *errand)
{
    struct broker_redis *broker = errand->broker;
    bool is_aside = errand->kind == ERRAND_ASIDE;
    broker_redis_script_begin(broker->scripts, script_of(errand), broker->commands,
                              2 + errand->list_count, is_aside ? 4 : 3);
    redis_link_argument(broker->commands, broker->unacked);
    redis_link_argument(broker->commands, broker->unacked_index);
    write_lists(errand);
    redis_link_argument(broker->commands, errand->tag);
    redis_link_argument_text(broker->commands, "");
    redis_link_argument(broker->commands, errand->envelope);
    if (is_aside) {
        redis_link_argument_integer(broker->commands, (int64_t)broker->options.max_rejected);
    }
    redis_link_end(broker->commands, on_sent, errand);
}

static void send_errand(struct errand *errand)
{
    errand->is_flying = errand->kind != ERRAND_TOO_LARGE;
    switch (errand->kind) {
    case ERRAND_TOO_LARGE:
        loop_defer(errand->broker->loop, &errand->broker->send.turn);
        break;
    case ERRAND_ROUTE:
        ask_for_bindings(errand);
        break;
    case ERRAND_BACK:
    case ERRAND_ASIDE:
        send_unacked_script(errand);
        break;
    case ERRAND_PUBLISH:
    default:
        send_publication(errand);
        break;
    }
}

static struct errand *new_errand(struct broker_redis *broker, enum errand_kind kind,
                                 broker_done_fn *on_done, void *context)
{
    struct errand *errand = memory_new(sizeof(*errand));
    errand->broker = broker;
    errand->kind = kind;
    errand->texts = arena_new(1024);
    errand->on_done = on_done;
    errand->context = context;
    return errand;
}

static void add_errand(struct errand *errand)
{
    struct broker_redis *broker = errand->broker;
    list_append(&broker->send.errands, &errand->node);
    if (broker_redis_may_send(broker)) {
        send_errand(errand);
    }
}

static void set_list(struct errand *errand, struct bytes key)
{
    errand->lists = arena_alloc(errand->texts, sizeof(*errand->lists));
    errand->lists[0] = key;
    errand->list_count = 1;
}

void broker_redis_send_publish(struct broker *base, const struct publication *publication,
                               broker_done_fn *on_done, void *context)
{
    struct broker_redis *broker = broker_redis_of(base);
    bool is_routed = publication->exchange.length > 0;
    struct errand *errand =
        new_errand(broker, is_routed ? ERRAND_ROUTE : ERRAND_PUBLISH, on_done, context);
    struct buffer envelope;
    buffer_init(&envelope, MAX_ENVELOPE_BYTES);
    broker_redis_envelope_append(&envelope, publication);
    if (envelope.overflowed) {
        errand->kind = ERRAND_TOO_LARGE;
    } else {
        errand->envelope = arena_copy(errand->texts, buffer_view(&envelope));
    }
    buffer_fini(&envelope);
    errand->exchange = arena_copy(errand->texts, publication->exchange);
    errand->routing_key = arena_copy(errand->texts, publication->routing_key);
    errand->priority = publication->priority;
    if (!is_routed) {
        set_list(errand, broker_redis_list(broker, errand->texts, errand->routing_key,
                                           publication->priority));
    }
    add_errand(errand);
}

void broker_redis_send_back(struct broker_redis *broker,
                            const struct broker_redis_delivery *delivery, broker_done_fn *on_done,
                            void *context)
{
    struct errand *errand = new_errand(broker, ERRAND_BACK, on_done, context);
    struct buffer envelope;
    buffer_init(&envelope, SIZE_MAX);
    broker_redis_envelope_mark(&envelope, delivery->envelope);
    errand->envelope = arena_copy(errand->texts, buffer_view(&envelope));
    buffer_fini(&envelope);
    errand->tag = arena_copy(errand->texts, delivery->base.tag);
    set_list(errand, broker_redis_list(broker, errand->texts, delivery->base.queue,
                                       delivery->base.priority));
    add_errand(errand);
}

void broker_redis_send_aside(struct broker_redis *broker, const struct broker_redis_queue *queue,
                             uint64_t number, struct bytes element)
{
    struct errand *errand = new_errand(broker, ERRAND_ASIDE, NULL, NULL);
    const char *tag = arena_format(errand->texts, "%.*s%llu", BYTES_FORMAT(broker->tag_head),
                                   (unsigned long long)number);
    errand->tag = bytes_from_text(tag);
    errand->envelope = arena_copy(errand->texts, element);
    set_list(errand, arena_copy(errand->texts, queue->rejected_key));
    add_errand(errand);
}

/* Life cycle */

static void end_impossible(void *context)
{
    struct broker_redis *broker = context;
    struct error error;
    (void)error_set(&error, ERROR_TOO_LARGE, "the message is too large for Redis");
    list_for_each(node, following, &broker->send.errands) {
        struct errand *errand = list_entry(node, struct errand, node);
        if (errand->kind == ERRAND_TOO_LARGE) {
            end_errand(errand, &error);
        }
    }
}

void broker_redis_send_init(struct broker_redis *broker)
{
    list_init(&broker->send.errands);
    broker->send.turn = (struct loop_call){.function = end_impossible, .context = broker};
}

void broker_redis_send_up(struct broker_redis *broker)
{
    list_for_each(node, following, &broker->send.errands) {
        struct errand *errand = list_entry(node, struct errand, node);
        if (!errand->is_flying && broker_redis_may_send(broker)) {
            send_errand(errand);
        }
    }
}

bool broker_redis_send_is_busy(const struct broker_redis *broker)
{
    return !list_is_empty(&broker->send.errands);
}

void broker_redis_send_finish(struct broker_redis *broker)
{
    struct error error;
    (void)error_set(&error, ERROR_TEMPORARY, "the connection to Redis was closed first");
    loop_cancel(broker->loop, &broker->send.turn);
    list_for_each(node, following, &broker->send.errands) {
        end_errand(list_entry(node, struct errand, node), &error);
    }
}
