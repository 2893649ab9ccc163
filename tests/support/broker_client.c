#include "support/broker_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/loop_until.h"

static void on_delivery(void *context, struct delivery *delivery)
{
    struct broker_client *client = context;
    assert_true(client->delivery_count < BROKER_CLIENT_DELIVERIES);
    client->deliveries[client->delivery_count++] = delivery;
}

static void on_up(void *context, const char *where)
{
    struct broker_client *client = context;
    assert_non_null(where);
    client->up_count++;
}

static void on_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct broker_client *client = context;
    assert_true(retry_ms > 0);
    client->down_count++;
    client->down_error = *error;
}

static void on_notice(void *context, int level, const char *text)
{
    struct broker_client *client = context;
    (void)level;
    client->notice_count++;
    (void)snprintf(client->notice, sizeof(client->notice), "%s", text);
}

void broker_client_on_done(void *context, bool ok, const struct error *error)
{
    struct broker_client *client = context;
    client->done_count++;
    if (!ok) {
        client->failed_count++;
        client->done_error = *error;
    }
}

void broker_client_on_lease(void *context, bool is_held)
{
    struct broker_client *client = context;
    client->lease_count++;
    client->is_held = is_held;
}

void broker_client_on_outbox(void *context, struct bytes job_name, struct bytes task_id,
                             const struct error *error)
{
    struct broker_client *client = context;
    assert_null(error);
    if (job_name.length == 0) {
        client->is_outbox_read = true;
        return;
    }
    size_t length = strlen(client->outbox);
    (void)snprintf(client->outbox + length, sizeof(client->outbox) - length, "%.*s=%.*s ",
                   BYTES_FORMAT(job_name), BYTES_FORMAT(task_id));
    client->outbox_count++;
}

static void on_control(void *context, const struct delivery *delivery)
{
    struct broker_client *client = context;
    client->control_count++;
    (void)snprintf(client->control, sizeof(client->control), "%.*s", BYTES_FORMAT(delivery->body));
}

static void set_up_client(struct broker_client *client, struct broker_stage *stage,
                          const char *name)
{
    static const char *const queues[] = {"celery"};
    struct error error = {0};
    client->loop = stage->loop;
    client->texts = arena_new(0);
    client->options.instance_id = name;
    client->options.queues = queues;
    client->options.queue_count = ARRAY_LENGTH(queues);
    if (!redis_url_parse(stage->server.url, false, client->texts, &client->options.url, &error)) {
        fail_msg("%s", error.message);
    }
}

int broker_stage_set_up(void **state)
{
    struct broker_stage *stage = memory_new(sizeof(*stage));
    redis_server_start(&stage->server, false);
    stage->loop = loop_new(LOOP_CLOCK_REAL);
    set_up_client(&stage->a, stage, "a");
    set_up_client(&stage->b, stage, "b");
    *state = stage;
    return 0;
}

static void tear_down_client(struct broker_client *client)
{
    if (client->broker) {
        broker_client_close(client, 0);
    }
    for (size_t index = 0; index < client->delivery_count; index++) {
        delivery_free(&client->deliveries[index]);
    }
    arena_free(&client->texts);
}

int broker_stage_tear_down(void **state)
{
    struct broker_stage *stage = *state;
    tear_down_client(&stage->a);
    tear_down_client(&stage->b);
    relay_free(&stage->relay);
    loop_free(&stage->loop);
    redis_server_stop(&stage->server);
    memory_free(&stage);
    return 0;
}

void broker_stage_use_relay(struct broker_stage *stage)
{
    stage->relay = relay_new(stage->loop, stage->server.port);
    stage->a.options.url.stream.port = relay_port(stage->relay);
}

static bool is_up(void *context)
{
    return ((struct broker_client *)context)->up_count > 0;
}

static bool is_closed(void *context)
{
    return ((struct broker_client *)context)->is_closed;
}

struct expectation {
    struct broker_client *client;
    size_t count;
};

static bool has_deliveries(void *context)
{
    const struct expectation *expectation = context;
    return expectation->client->delivery_count >= expectation->count;
}

static bool has_been_done(void *context)
{
    const struct expectation *expectation = context;
    return (size_t)expectation->client->done_count >= expectation->count;
}

void broker_client_start(struct broker_client *client)
{
    static const struct broker_events events = {on_delivery, on_up, on_down, on_notice, on_control};
    client->broker = broker_redis_new(client->loop, &client->options, &events, client);
    client->broker->ops->start(client->broker);
}

void broker_client_open(struct broker_client *client, size_t places)
{
    broker_client_start(client);
    loop_until(client->loop, is_up, client);
    client->broker->ops->set_free_places(client->broker, places);
}

static void on_closed(void *context)
{
    struct broker_client *client = context;
    client->is_closed = true;
    client->broker = NULL;
}

void broker_client_close(struct broker_client *client, int64_t deadline_ms)
{
    client->is_closed = false;
    client->broker->ops->close(client->broker, deadline_ms, on_closed, client);
    assert_false(client->is_closed);
    loop_until(client->loop, is_closed, client);
}

void broker_client_push(struct redis_server *server, const char *key, const char *id)
{
    redis_server_do(server,
                    "LPUSH %s {\"body\":\"\",\"headers\":{\"id\":\"%s\"},\"properties\":{"
                    "\"delivery_info\":{\"exchange\":\"\",\"routing_key\":\"celery\"}}}",
                    key, id);
}

void broker_client_await(struct broker_client *client, size_t count)
{
    struct expectation expectation = {client, count};
    loop_until(client->loop, has_deliveries, &expectation);
}

void broker_client_await_done(struct broker_client *client, int count)
{
    struct expectation expectation = {client, (size_t)count};
    loop_until(client->loop, has_been_done, &expectation);
}

const char *broker_client_id(struct broker_client *client, size_t index)
{
    struct delivery *delivery = client->deliveries[index];
    struct bytes id = {NULL, 0};
    assert_true(json_text(json_get(delivery->headers, "id"), delivery->arena, &id));
    return arena_text(client->texts, id);
}

void broker_client_settle(struct broker_client *client, size_t index, enum settlement settlement)
{
    client->broker->ops->settle(client->broker, client->deliveries[index], settlement, NULL,
                                broker_client_on_done, client);
}
