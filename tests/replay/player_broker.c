#include <stdlib.h>

#include "base/map.h"
#include "codec/iso8601.h"
#include "replay/player.h"

static struct world *world_of(const struct broker *broker)
{
    return CONTAINER_OF((void *)(uintptr_t)broker, struct world, broker);
}

static void give_done(struct player_answer *answer, const struct error *error)
{
    if (answer->on_done) {
        answer->on_done(answer->context, !error, error);
    }
}

static void owe_done(struct world *world, broker_done_fn *on_done, void *context)
{
    struct player_answer *answer = world_owe(world, &world->broker_end);
    answer->give = give_done;
    answer->on_done = on_done;
    answer->context = context;
}

static void start(struct broker *broker)
{
    (void)broker;
}

static void set_free_places(struct broker *broker, size_t count)
{
    world_of(broker)->places = count;
}

static void settle(struct broker *broker, struct delivery *delivery, enum settlement settlement,
                   const struct broker_outbox_entry *entry, broker_done_fn *on_done, void *context)
{
    struct world *world = world_of(broker);
    static const char *const names[] = {"ack", "requeue", "discard"};
    if (delivery->is_settled) {
        world_fail(world, "%.*s is settled twice", BYTES_FORMAT(delivery->tag));
    }
    delivery->is_settled = true;
    list_remove(&delivery->node);
    if (entry) {
        world_trace(world, "settle %.*s %s outbox %.*s %.*s %.*s", BYTES_FORMAT(delivery->tag),
                    names[settlement], BYTES_FORMAT(entry->namespace_name),
                    BYTES_FORMAT(entry->job_name), BYTES_FORMAT(entry->task_id));
    } else {
        world_trace(world, "settle %.*s %s", BYTES_FORMAT(delivery->tag), names[settlement]);
    }
    owe_done(world, on_done, context);
}

static void settle_tag(struct broker *broker, struct bytes tag, struct bytes task_id,
                       broker_done_fn *on_done, void *context)
{
    world_trace(world_of(broker), "settle-tag %.*s of %.*s", BYTES_FORMAT(tag),
                BYTES_FORMAT(task_id));
    owe_done(world_of(broker), on_done, context);
}

static void give_lease(struct player_answer *answer, const struct error *error)
{
    answer->on_lease(answer->context, !error && answer->world->lease_is_held);
}

static void confirm_lease(struct broker *broker, struct delivery *delivery,
                          broker_lease_fn *on_lease, void *context)
{
    struct world *world = world_of(broker);
    world_trace(world, "confirm %.*s", BYTES_FORMAT(delivery->tag));
    struct player_answer *answer = world_owe(world, &world->broker_end);
    answer->give = give_lease;
    answer->on_lease = on_lease;
    answer->context = context;
}

/* "+5s": when the message is to run, seen from now. */
static void describe_eta(const struct world *world, struct json headers, char text[32])
{
    struct bytes eta;
    double wall_s = 0;
    if (!json_text(json_get(headers, "eta"), world->arena, &eta) || !iso8601_parse(eta, &wall_s)) {
        (void)snprintf(text, 32, "now");
        return;
    }
    (void)snprintf(text, 32, "%+gs", wall_s - loop_wall_s(world->loop));
}

/* A message that is sent again has its delivery tag again, and no other one has it. */
static void check_tag(struct world *world, struct bytes tag, struct bytes id)
{
    const char *former = map_set(world->sent, tag, arena_text(world->arena, id));
    if (former && !bytes_equal_text(id, former)) {
        world_fail(world, "%.*s has the delivery tag of %s", BYTES_FORMAT(id), former);
    }
}

static void publish(struct broker *broker, const struct publication *publication,
                    broker_done_fn *on_done, void *context)
{
    struct world *world = world_of(broker);
    struct json headers;
    char eta[32];
    if (!json_parse(arena_copy(world->arena, publication->headers), &headers, NULL)) {
        world_fail(world, "published headers are no JSON: %.*s",
                   BYTES_FORMAT(publication->headers));
    }
    describe_eta(world, headers, eta);
    struct bytes id = {NULL, 0};
    (void)!json_text(json_get(headers, "id"), world->arena, &id);
    check_tag(world, publication->delivery_tag, id);
    world_trace(world, "publish %.*s to %.*s retries %.*s eta %s priority %lld", BYTES_FORMAT(id),
                BYTES_FORMAT(publication->routing_key),
                BYTES_FORMAT(json_get(headers, "retries").text), eta,
                (long long)publication->priority);
    owe_done(world, on_done, context);
}

static void outbox_add(struct broker *broker, const struct broker_outbox_entry *entry,
                       broker_done_fn *on_done, void *context)
{
    world_trace(world_of(broker), "outbox-add %.*s %.*s %.*s", BYTES_FORMAT(entry->namespace_name),
                BYTES_FORMAT(entry->job_name), BYTES_FORMAT(entry->task_id));
    owe_done(world_of(broker), on_done, context);
}

static void outbox_remove(struct broker *broker, struct bytes namespace_name, struct bytes job_name,
                          broker_done_fn *on_done, void *context)
{
    world_trace(world_of(broker), "outbox-remove %.*s %.*s", BYTES_FORMAT(namespace_name),
                BYTES_FORMAT(job_name));
    owe_done(world_of(broker), on_done, context);
}

static const struct broker_ops fake_ops = {
    .start = start,
    .set_free_places = set_free_places,
    .settle = settle,
    .settle_tag = settle_tag,
    .confirm_lease = confirm_lease,
    .publish = publish,
    .outbox_add = outbox_add,
    .outbox_remove = outbox_remove,
};

void player_broker_init(struct world *world)
{
    world->broker.ops = &fake_ops;
}

/* DELIVER */

static bool has_word(char *const *words, const char *wanted)
{
    for (; *words; words++) {
        if (strcmp(*words, wanted) == 0) {
            return true;
        }
    }
    return false;
}

/* Appends `, "key": "time"` for an option such as eta=+5s. */
static void append_time(struct world *world, struct buffer *headers, char *const *words,
                        const char *key)
{
    const char *text = world_option(words, key);
    if (text) {
        double wall_s = loop_wall_s(world->loop) + (double)world_duration_ms(world, text) / 1000;
        (void)buffer_format(headers, ", \"%s\": \"", key);
        iso8601_append(headers, wall_s, 0);
        (void)buffer_append_byte(headers, '"');
    }
}

static struct json parse_in(struct world *world, struct arena *arena, struct bytes text)
{
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct error error = {0};
    if (!json_parse(arena_copy(arena, text), &value, &error)) {
        world_fail(world, "%.*s: %s", BYTES_FORMAT(text), error.message);
    }
    return value;
}

/* A number option, or `otherwise`. */
static long number_of(char *const *words, const char *key, long otherwise)
{
    const char *text = world_option(words, key);
    return text ? strtol(text, NULL, 10) : otherwise;
}

static const char *or_text(const char *text, const char *otherwise)
{
    return text ? text : otherwise;
}

static void write_headers(struct world *world, struct delivery *delivery, char *const *words)
{
    struct buffer headers;
    buffer_init(&headers, 65536);
    (void)buffer_format(&headers, "{\"task\": \"%s\", \"id\": \"%s\", \"retries\": %ld",
                        or_text(world_option(words, "task"), "app.task"),
                        or_text(world_option(words, "id"), words[1]),
                        number_of(words, "retries", 0));
    append_time(world, &headers, words, "eta");
    append_time(world, &headers, words, "expires");
    const char *more = world_option(words, "headers");
    if (more) {
        (void)buffer_format(&headers, ", %s", more);
    }
    (void)buffer_append_byte(&headers, '}');
    delivery->headers = parse_in(world, delivery->arena, buffer_view(&headers));
    buffer_fini(&headers);
}

struct delivery *player_broker_delivery(struct world *world, char *const *words)
{
    struct arena *arena = arena_new(1024);
    struct delivery *delivery = arena_alloc(arena, sizeof(*delivery));
    const char *queue = or_text(world_option(words, "queue"), "tenant-user");
    delivery->arena = arena;
    delivery->tag = bytes_from_text(arena_format(arena, "%s", words[1]));
    delivery->queue = bytes_from_text(arena_format(arena, "%s", queue));
    delivery->routing_key =
        bytes_from_text(arena_format(arena, "%s", or_text(world_option(words, "key"), queue)));
    delivery->exchange =
        bytes_from_text(arena_format(arena, "%s", or_text(world_option(words, "exchange"), "")));
    delivery->content_type = BYTES("application/json");
    delivery->content_encoding = BYTES("utf-8");
    delivery->properties = parse_in(world, arena, BYTES("{}"));
    delivery->priority = number_of(words, "priority", 0);
    delivery->redelivered = has_word(words, "redelivered");
    delivery->received_wall_s = loop_wall_s(world->loop);
    write_headers(world, delivery, words);
    const char *body = world_option(words, "body");
    delivery->body = bytes_from_text(
        body ? arena_format(arena, "%s", body)
             : arena_format(arena, "[[], %s, null]", or_text(world_option(words, "kwargs"), "{}")));
    return delivery;
}

void player_broker_deliver(struct world *world, char *const *words)
{
    struct delivery *delivery = player_broker_delivery(world, words);
    list_append(&world->unsettled, &delivery->node);
    pipeline_receive(world->pipeline, delivery);
}
