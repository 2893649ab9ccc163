#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

static const struct publication message = {
    .routing_key = {"celery", 6},
    .headers = {"{\"task\": \"t\", \"id\": \"new\"}", 26},
    .correlation_id = {"new", 3},
    .content_type = {"application/json", 16},
    .content_encoding = {"utf-8", 5},
    .body = {"[[], {}, null]", 14},
    .delivery_tag = {"tag", 3},
    .priority = 0,
};

static bool is_published(void *context)
{
    return redis_server_integer(&((struct broker_stage *)context)->server, "LLEN celery") == 1;
}

static void publish(struct broker_stage *stage, const struct publication *publication)
{
    stage->a.broker->ops->publish(stage->a.broker, publication, broker_client_on_done, &stage->a);
}

static bool is_up_again(void *context)
{
    return ((struct broker_stage *)context)->a.up_count > 1;
}

static void test_publishes_to_the_step_of_the_priority(void **state)
{
    struct broker_stage *stage = *state;
    char text[512];
    struct publication urgent = message;
    urgent.priority = 5;
    broker_client_open(&stage->a, 0);
    publish(stage, &message);
    publish(stage, &urgent);
    assert_int_equal(stage->a.done_count, 0);
    broker_client_await_done(&stage->a, 2);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN " BROKER_CLIENT_STEP_3), 1);
    redis_server_text(&stage->server, text, sizeof(text), "LINDEX celery 0");
    assert_string_equal(
        text, "{\"body\": \"W1tdLCB7fSwgbnVsbF0=\", \"content-encoding\": \"utf-8\", "
              "\"content-type\": \"application/json\", \"headers\": {\"task\": \"t\", \"id\": "
              "\"new\"}, \"properties\": {\"correlation_id\": \"new\", \"reply_to\": \"\", "
              "\"delivery_mode\": 2, \"delivery_info\": {\"exchange\": \"\", \"routing_key\": "
              "\"celery\"}, \"priority\": 0, \"body_encoding\": \"base64\", \"delivery_tag\": "
              "\"tag\"}}");
}

static void test_hears_of_its_own_messages(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_open(&stage->a, 5);
    loop_until_later(stage->loop, 500); /* tracking, and nothing to do */
    int64_t start_ms = loop_now_ms(stage->loop);
    publish(stage, &message);
    broker_client_await(&stage->a, 1);
    assert_true(loop_now_ms(stage->loop) - start_ms < 4000); /* not by a look */
    assert_string_equal(broker_client_id(&stage->a, 0), "new");
    assert_true(bytes_equal_text(stage->a.deliveries[0]->body, "[[], {}, null]"));
}

static void test_publishes_once_although_the_reply_was_lost(void **state)
{
    struct broker_stage *stage = *state;
    broker_stage_use_relay(stage);
    broker_client_open(&stage->a, 0);
    relay_set_mute(stage->relay, true);
    publish(stage, &message);
    loop_until(stage->loop, is_published, stage);
    relay_cut(stage->relay);
    relay_set_mute(stage->relay, false);
    struct publication other = message;
    other.delivery_tag = BYTES("other");
    publish(stage, &other); /* while it is away */
    loop_until(stage->loop, is_up_again, stage);
    broker_client_await_done(&stage->a, 2);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 2);
}

static void test_routes_by_bindings(void **state)
{
    struct broker_stage *stage = *state;
    struct publication routed = message;
    routed.exchange = BYTES("tasks");
    routed.routing_key = BYTES("key");
    redis_server_do(&stage->server, "SADD _kombu.binding.tasks %s %s",
                    "key\x06\x16\x06\x16"
                    "one",
                    "key\x06\x16\x06\x16two");
    broker_client_open(&stage->a, 0);
    publish(stage, &routed);
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN one"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN two"), 1);
    routed.exchange = BYTES("nowhere");
    publish(stage, &routed);
    broker_client_await_done(&stage->a, 2);
    assert_int_equal(stage->a.failed_count, 1);
    assert_int_equal(stage->a.done_error.kind, ERROR_NOT_FOUND);
}

static void test_two_bindings_of_a_queue_make_one_message(void **state)
{
    struct broker_stage *stage = *state;
    struct publication routed = message;
    routed.exchange = BYTES("tasks");
    routed.routing_key = BYTES("a.b");
    redis_server_do(&stage->server, "SADD _kombu.binding.tasks %s %s",
                    "a.*\x06\x16^a\\.[^\\.]+$\x06\x16one", "#\x06\x16^.*?$\x06\x16one");
    broker_client_open(&stage->a, 0);
    publish(stage, &routed);
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN one"), 1);
}

static void test_reports_what_can_never_be_published(void **state)
{
    struct broker_stage *stage = *state;
    redis_server_do(&stage->server, "SET celery text");
    broker_client_open(&stage->a, 0);
    publish(stage, &message);
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(stage->a.failed_count, 1);
    assert_int_equal(stage->a.done_error.kind, ERROR_REFUSED);
}

static void test_waits_while_memory_is_out(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_open(&stage->a, 0);
    redis_server_do(&stage->server, "CONFIG SET maxmemory 1");
    publish(stage, &message);
    loop_until_later(stage->loop, 700);
    assert_int_equal(stage->a.done_count, 0);
    assert_non_null(strstr(stage->a.notice, "OOM"));
    redis_server_do(&stage->server, "CONFIG SET maxmemory 0");
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 1);
}

static void test_gives_a_delivery_back(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_push(&stage->server, "celery", "one");
    broker_client_push(&stage->server, "celery", "two");
    broker_client_open(&stage->a, 1);
    broker_client_await(&stage->a, 1);
    broker_client_settle(&stage->a, 0, SETTLEMENT_REQUEUE);
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked unacked_index"), 0);
    stage->a.broker->ops->set_free_places(stage->a.broker, 1);
    broker_client_await(&stage->a, 2);
    assert_string_equal(broker_client_id(&stage->a, 1), "one"); /* at the front again */
    assert_true(stage->a.deliveries[1]->redelivered);
    assert_int_equal(json_get(stage->a.deliveries[1]->headers, "redelivered").type, JSON_TYPE_TRUE);
}

static void test_gives_back_once_although_the_reply_was_lost(void **state)
{
    struct broker_stage *stage = *state;
    broker_stage_use_relay(stage);
    broker_client_push(&stage->server, "celery", "one");
    broker_client_open(&stage->a, 1);
    broker_client_await(&stage->a, 1);
    relay_set_mute(stage->relay, true);
    broker_client_settle(&stage->a, 0, SETTLEMENT_REQUEUE);
    loop_until_later(stage->loop, 50);
    relay_cut(stage->relay);
    relay_set_mute(stage->relay, false);
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 1);
}

static void test_does_not_give_back_what_somebody_else_restored(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_push(&stage->server, "celery", "one");
    broker_client_open(&stage->a, 1);
    broker_client_await(&stage->a, 1);
    redis_server_do(&stage->server, "DEL unacked unacked_index");
    broker_client_settle(&stage->a, 0, SETTLEMENT_REQUEUE);
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS celery"), 0);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, broker_stage_set_up, broker_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_publishes_to_the_step_of_the_priority),
        TEST(test_hears_of_its_own_messages),
        TEST(test_publishes_once_although_the_reply_was_lost),
        TEST(test_routes_by_bindings),
        TEST(test_two_bindings_of_a_queue_make_one_message),
        TEST(test_reports_what_can_never_be_published),
        TEST(test_waits_while_memory_is_out),
        TEST(test_gives_a_delivery_back),
        TEST(test_gives_back_once_although_the_reply_was_lost),
        TEST(test_does_not_give_back_what_somebody_else_restored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
