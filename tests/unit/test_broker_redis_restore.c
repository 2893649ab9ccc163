#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

/* As Kombu leaves it behind: tag, score long ago, [envelope, exchange, routing key]. */
static void hold(struct broker_stage *stage, const char *tag, const char *score, const char *value)
{
    redis_server_do(&stage->server, "ZADD unacked_index %s %s", score, tag);
    if (value) {
        redis_server_do(&stage->server, "HSET unacked %s %s", tag, value);
    }
}

static void expect_first(struct broker_stage *stage, const char *key, const char *element)
{
    char text[512];
    redis_server_text(&stage->server, text, sizeof(text), "LRANGE %s -1 -1", key);
    assert_string_equal(text, element);
}

static bool has_restored(void *context)
{
    struct broker_stage *stage = context;
    return redis_server_integer(&stage->server, "EXISTS unacked unacked_index unacked_mutex") == 0;
}

static bool has_notice(void *context)
{
    return ((struct broker_stage *)context)->a.notice_count > 0;
}

static void test_restores_what_a_dead_worker_held(void **state)
{
    struct broker_stage *stage = *state;
    hold(stage, "dead-1", "1000",
         "[{\"headers\": {\"id\": \"x\"}, \"properties\": {\"priority\": 4, \"delivery_info\": "
         "{}}, \"n\": 1.50}, \"\", \"celery\"]");
    hold(stage, "dead-2", "2000", "[{\"headers\": {}, \"properties\": {}}, \"\", \"celery\"]");
    broker_client_open(&stage->a, 0);
    loop_until(stage->loop, has_restored, stage);
    expect_first(stage, BROKER_CLIENT_STEP_3,
                 "{\"headers\": {\"id\": \"x\", \"redelivered\": true}, \"properties\": "
                 "{\"priority\": 4, \"delivery_info\": {\"redelivered\": true}}, \"n\": 1.50}");
    expect_first(stage, "celery", "{\"headers\": {\"redelivered\": true}, \"properties\": {}}");
}

static void test_restores_the_oldest_to_the_front(void **state)
{
    struct broker_stage *stage = *state;
    char tag[32];
    char value[64];
    char score[32];
    for (int index = 0; index < 350; index++) {
        (void)snprintf(tag, sizeof(tag), "dead-%d", index);
        (void)snprintf(score, sizeof(score), "%d", 1000 + index);
        (void)snprintf(value, sizeof(value), "[{\"n\": %d}, \"\", \"q\"]", index);
        hold(stage, tag, score, value);
    }
    broker_client_open(&stage->a, 0);
    loop_until(stage->loop, has_restored, stage);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN q"), 350);
    expect_first(stage, "q", "{\"n\": 0}");
}

static void test_leaves_alone_what_is_not_expired(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.visibility_timeout_ms = 100000;
    char score[32];
    (void)snprintf(score, sizeof(score), "%.3f", loop_wall_s(stage->loop) - 90);
    hold(stage, "alive", score, "[{}, \"\", \"celery\"]");
    broker_client_open(&stage->a, 0);
    loop_until_later(stage->loop, 200);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS celery unacked_mutex"), 0);
}

static void test_respects_the_lock(void **state)
{
    struct broker_stage *stage = *state;
    hold(stage, "dead", "1000", "[{}, \"\", \"celery\"]");
    redis_server_do(&stage->server, "SET unacked_mutex somebody PX 3000");
    stage->a.options.restore_interval_ms = 500;
    broker_client_open(&stage->a, 0);
    loop_until_later(stage->loop, 200);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
    loop_until(stage->loop, has_restored, stage);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 1);
}

static void test_follows_bindings(void **state)
{
    struct broker_stage *stage = *state;
    redis_server_do(&stage->server, "SADD _kombu.binding.direct %s %s",
                    "key\x06\x16\x06\x16"
                    "first",
                    "other\x06\x16\x06\x16"
                    "second");
    redis_server_do(&stage->server, "SADD _kombu.binding.topic %s %s",
                    "a.#\x06\x16^a\\..*?$\x06\x16third",
                    "*.b\x06\x16^[^.]+\\.b$\x06\x16"
                    "fourth");
    hold(stage, "dead-1", "1000", "[{\"n\": 1}, \"direct\", \"key\"]");
    hold(stage, "dead-2", "1000", "[{\"n\": 2}, \"topic\", \"a.b\"]");
    broker_client_open(&stage->a, 0);
    loop_until(stage->loop, has_restored, stage);
    expect_first(stage, "first", "{\"n\": 1}");
    expect_first(stage, "third", "{\"n\": 2}");
    expect_first(stage, "fourth", "{\"n\": 2}");
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS second"), 0);
}

static void test_puts_aside_what_nobody_can_read(void **state)
{
    struct broker_stage *stage = *state;
    static const char *const values[] = {"nonsense", "{}", "[{}, \"\"]", "[1, \"\", \"celery\"]",
                                         "[{}, \"unbound\", \"key\"]"};
    char tag[16];
    for (size_t index = 0; index < ARRAY_LENGTH(values); index++) {
        (void)snprintf(tag, sizeof(tag), "dead-%zu", index);
        hold(stage, tag, "1000", values[index]);
    }
    hold(stage, "alone", "1000", NULL);
    hold(stage, "good", "1000", "[{}, \"\", \"celery\"]");
    broker_client_open(&stage->a, 0);
    loop_until(stage->loop, has_restored, stage);
    assert_int_equal(stage->a.notice_count, (int)ARRAY_LENGTH(values));
    assert_int_equal(redis_server_integer(&stage->server, "LLEN petiole:rejected:unacked"),
                     (int64_t)ARRAY_LENGTH(values));
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 1);
}

static void test_gives_restored_messages_to_itself(void **state)
{
    struct broker_stage *stage = *state;
    hold(stage, "dead", "1000",
         "[{\"headers\": {\"id\": \"x\"}, \"properties\": {\"delivery_info\": {}}}, \"\", "
         "\"celery\"]");
    broker_client_open(&stage->a, 5);
    broker_client_await(&stage->a, 1);
    assert_true(stage->a.deliveries[0]->redelivered);
    assert_true(bytes_starts_with(stage->a.deliveries[0]->tag, BYTES("a:")));
}

static void test_never_restores_what_is_held_here(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.restore_interval_ms = 500;
    broker_client_push(&stage->server, "celery", "m");
    broker_client_open(&stage->a, 5);
    broker_client_await(&stage->a, 1);
    redis_server_do(&stage->server, "ZADD unacked_index 1000 a:1"); /* as if the clock had jumped */
    hold(stage, "a:999", "1000", "[{}, \"\", \"q\"]"); /* looks like ours, is not held */
    loop_until_later(stage->loop, 1200);
    assert_int_equal(redis_server_integer(&stage->server, "HEXISTS unacked a:1"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN q"), 1);
    assert_int_equal(stage->a.delivery_count, 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCOUNT unacked_index 0 1000"), 0);
}

static void test_takes_over_from_a_worker_that_died(void **state)
{
    struct broker_stage *stage = *state;
    broker_stage_use_relay(stage);
    stage->b.options.visibility_timeout_ms = 900;
    for (int index = 0; index < 5; index++) {
        broker_client_push(&stage->server, "celery", "m");
    }
    broker_client_open(&stage->a, 5);
    broker_client_await(&stage->a, 5);
    loop_until_later(stage->loop,
                     50);      /* its own look for expired messages is over, the lock free */
    relay_free(&stage->relay); /* A is cut off for ever */
    broker_client_open(&stage->b, 10);
    broker_client_await(&stage->b, 5);
    assert_true(stage->b.deliveries[0]->redelivered);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 5);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 5);
}

static void test_loses_nothing_when_the_queue_is_no_list(void **state)
{
    struct broker_stage *stage = *state;
    redis_server_do(&stage->server, "SET celery text");
    hold(stage, "dead", "1000", "[{}, \"\", \"celery\"]");
    broker_client_open(&stage->a, 0);
    loop_until(stage->loop, has_notice, stage);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 1);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, broker_stage_set_up, broker_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_restores_what_a_dead_worker_held),
        TEST(test_restores_the_oldest_to_the_front),
        TEST(test_leaves_alone_what_is_not_expired),
        TEST(test_respects_the_lock),
        TEST(test_follows_bindings),
        TEST(test_puts_aside_what_nobody_can_read),
        TEST(test_gives_restored_messages_to_itself),
        TEST(test_never_restores_what_is_held_here),
        TEST(test_takes_over_from_a_worker_that_died),
        TEST(test_loses_nothing_when_the_queue_is_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
