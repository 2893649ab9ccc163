#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

#define KEY "petiole:revoked:tenant"

/* Base64 of {"method": "ping"}. */
#define COMMAND                                                                                    \
    "{\"body\":\"eyJtZXRob2QiOiAicGluZyJ9\",\"headers\":{\"clock\":1},\"properties\":"             \
    "{\"body_encoding\":\"base64\"}}"

struct heard {
    struct broker_client *client;
    int count;
};

static bool has_heard(void *context)
{
    const struct heard *heard = context;
    return heard->client->control_count >= heard->count;
}

static void await_control(struct broker_client *client, int count)
{
    struct heard heard = {client, count};
    loop_until(client->loop, has_heard, &heard);
}

/* Publishes until the client, whose subscription is on its way, has heard it. */
static void publish_until_heard(struct broker_stage *stage, const char *channel)
{
    while (redis_server_integer(&stage->server, "PUBLISH %s " COMMAND, channel) == 0) {
        loop_until_later(stage->loop, 10);
    }
    await_control(&stage->a, stage->a.control_count + 1);
}

static void test_hears_what_is_published_to_the_fanout_channel(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.control_exchange = "celery";
    stage->a.options.url.database = 3;
    broker_client_open(&stage->a, 0);
    publish_until_heard(stage, "/3.celery.pidbox");
    assert_string_equal(stage->a.control, "{\"method\": \"ping\"}");
    redis_server_do(&stage->server, "PUBLISH /3.celery.pidbox nonsense");
    redis_server_do(&stage->server, "PUBLISH /3.celery.pidbox " COMMAND);
    await_control(&stage->a, 2);
    assert_int_equal(stage->a.notice_count, 1);
    assert_non_null(strstr(stage->a.notice, "Cannot process event"));
    assert_int_equal(stage->a.delivery_count, 0);
}

static void test_the_prefix_may_be_another(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.control_exchange = "own";
    stage->a.options.fanout_prefix = "x{db}y{db}.";
    stage->a.options.global_keyprefix = "shop:";
    broker_client_open(&stage->a, 0);
    publish_until_heard(stage, "shop:x0y0.own.pidbox");
}

static void test_messages_are_still_told(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.control_exchange = "celery";
    broker_client_open(&stage->a, 1);
    publish_until_heard(stage, "/0.celery.pidbox");
    broker_client_push(&stage->server, "celery", "t1");
    broker_client_await(&stage->a, 1);
}

static void test_without_an_exchange_nothing_is_heard(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_open(&stage->a, 1);
    broker_client_push(&stage->server, "celery", "t1");
    broker_client_await(&stage->a, 1);
    assert_int_equal(redis_server_integer(&stage->server, "PUBLISH /0.celery.pidbox x"), 0);
}

/* What is remembered */

struct reading {
    char text[512];
    bool is_over;
    bool has_failed;
};

static void on_revoked(void *context, const struct broker_revoked *revoked,
                       const struct error *error)
{
    struct reading *reading = context;
    size_t length = strlen(reading->text);
    reading->has_failed = error != NULL;
    reading->is_over = revoked->task_id.length == 0;
    if (!reading->is_over) {
        (void)snprintf(reading->text + length, sizeof(reading->text) - length, "%.*s%s %g,",
                       BYTES_FORMAT(revoked->task_id), revoked->terminate ? "!" : "",
                       revoked->since_wall_s);
    }
}

static bool is_read(void *context)
{
    return ((struct reading *)context)->is_over;
}

static void read_all(struct broker_stage *stage, double since_wall_s, struct reading *reading)
{
    *reading = (struct reading){.is_over = false};
    stage->a.broker->ops->revoked_list(stage->a.broker, BYTES("tenant"), since_wall_s, on_revoked,
                                       reading);
    loop_until(stage->loop, is_read, reading);
}

static void add(struct broker_stage *stage, struct bytes id, bool terminate, double since_wall_s)
{
    struct broker_revoked revoked = {BYTES("tenant"), id, terminate, since_wall_s};
    stage->a.broker->ops->revoked_add(stage->a.broker, &revoked, 100, 3);
}

static void test_what_is_revoked_is_remembered_within_limits(void **state)
{
    struct broker_stage *stage = *state;
    struct reading reading;
    broker_client_open(&stage->a, 0);
    add(stage, BYTES("a"), false, 1000);
    add(stage, BYTES("b"), true, 1001);
    read_all(stage, 0, &reading);
    assert_string_equal(reading.text, "a 1000,b! 1001,");
    add(stage, BYTES("c"), false, 1002);
    add(stage, BYTES("d"), false, 1003);
    read_all(stage, 0, &reading);
    assert_string_equal(reading.text, "b! 1001,c 1002,d 1003,");
    add(stage, BYTES("e"), false, 1102.5);
    read_all(stage, 0, &reading);
    assert_string_equal(reading.text, "d 1003,e 1102.5,");
    read_all(stage, 1100, &reading);
    assert_string_equal(reading.text, "e 1102.5,");
    assert_in_range(redis_server_integer(&stage->server, "TTL " KEY), 90, 100);
    redis_server_do(&stage->server, "ZADD " KEY " 2000 somebody-elses");
    read_all(stage, 2000, &reading);
    assert_string_equal(reading.text, "");
    assert_false(reading.has_failed);
}

static void test_what_cannot_be_read_is_an_error(void **state)
{
    struct broker_stage *stage = *state;
    struct reading reading;
    redis_server_do(&stage->server, "SET " KEY " text");
    broker_client_open(&stage->a, 0);
    read_all(stage, 0, &reading);
    assert_true(reading.has_failed);
    add(stage, BYTES("a"), false, 1000);
    read_all(stage, 0, &reading);
    assert_int_equal(stage->a.notice_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define STAGE_TEST(name)                                                                           \
    cmocka_unit_test_setup_teardown(name, broker_stage_set_up, broker_stage_tear_down)
        STAGE_TEST(test_hears_what_is_published_to_the_fanout_channel),
        STAGE_TEST(test_the_prefix_may_be_another),
        STAGE_TEST(test_messages_are_still_told),
        STAGE_TEST(test_without_an_exchange_nothing_is_heard),
        STAGE_TEST(test_what_is_revoked_is_remembered_within_limits),
        STAGE_TEST(test_what_cannot_be_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
