#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

static void push_many(struct broker_stage *stage, const char *key, const char *prefix, int count)
{
    char id[32];
    for (int index = 0; index < count; index++) {
        (void)snprintf(id, sizeof(id), "%s%d", prefix, index);
        broker_client_push(&stage->server, key, id);
    }
}

/* Waits until the server would tell of changes, so that nothing is polled any more. */
static bool is_tracking(void *context)
{
    struct broker_stage *stage = context;
    char list[4096];
    redis_server_text(&stage->server, list, sizeof(list), "CLIENT LIST");
    return strstr(list, "redir=-1 ") != NULL && strstr(list, "flags=t") != NULL;
}

static void open_and_settle_down(struct broker_stage *stage, size_t places)
{
    broker_client_open(&stage->a, places);
    loop_until(stage->loop, is_tracking, stage);
    loop_until_later(stage->loop, 300);
}

static void expect_ids(struct broker_client *client, const char *expected)
{
    char ids[256] = "";
    for (size_t index = 0; index < client->delivery_count; index++) {
        size_t length = strlen(ids);
        (void)snprintf(ids + length, sizeof(ids) - length, "%s%s", index > 0 ? " " : "",
                       broker_client_id(client, index));
    }
    assert_string_equal(ids, expected);
}

static void test_registers_what_it_takes(void **state)
{
    struct broker_stage *stage = *state;
    char value[512];
    broker_client_push(&stage->server, "celery", "one");
    broker_client_open(&stage->a, 10);
    broker_client_await(&stage->a, 1);
    struct delivery *delivery = stage->a.deliveries[0];
    assert_true(bytes_equal_text(delivery->tag, "a:1"));
    assert_true(bytes_equal_text(delivery->queue, "celery"));
    redis_server_text(&stage->server, value, sizeof(value), "HGET unacked a:1");
    assert_string_equal(
        value, "[{\"body\":\"\",\"headers\":{\"id\":\"one\"},\"properties\":{\"delivery_info\":{"
               "\"exchange\":\"\",\"routing_key\":\"celery\"}}}, \"\", \"celery\"]");
    redis_server_text(&stage->server, value, sizeof(value), "ZSCORE unacked_index a:1");
    assert_true(strtod(value, NULL) > loop_wall_s(stage->loop) - 10);
    assert_true(strtod(value, NULL) <= loop_wall_s(stage->loop));
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS celery"), 0);
}

static void test_takes_in_order_of_urgency(void **state)
{
    struct broker_stage *stage = *state;
    static const char *const queues[] = {"celery", "other"};
    stage->a.options.queues = queues;
    stage->a.options.queue_count = 2;
    broker_client_push(&stage->server,
                       "other\x06\x16"
                       "9",
                       "o9");
    broker_client_push(&stage->server, BROKER_CLIENT_STEP_3, "c3");
    broker_client_push(&stage->server, "other", "o0");
    broker_client_push(&stage->server, "celery", "c0");
    broker_client_push(&stage->server, "celery", "c0b");
    broker_client_open(&stage->a, 10);
    broker_client_await(&stage->a, 5);
    expect_ids(&stage->a, "c0 c0b o0 c3 o9");
    assert_true(bytes_equal_text(stage->a.deliveries[4]->queue, "other"));
}

static void test_takes_turns_among_queues(void **state)
{
    struct broker_stage *stage = *state;
    static const char *const queues[] = {"celery", "other"};
    stage->a.options.queues = queues;
    stage->a.options.queue_count = 2;
    push_many(stage, "celery", "c", 6);
    push_many(stage, "other", "o", 6);
    broker_client_open(&stage->a, 4);
    broker_client_await(&stage->a, 4);
    expect_ids(&stage->a, "c0 c1 o0 o1");
    for (size_t count = 5; count <= 8; count++) {
        stage->a.broker->ops->set_free_places(stage->a.broker, 1);
        broker_client_await(&stage->a, count);
    }
    expect_ids(&stage->a, "c0 c1 o0 o1 c2 o2 c3 o3");
}

static void test_keeps_the_declared_order_when_asked(void **state)
{
    struct broker_stage *stage = *state;
    static const char *const queues[] = {"other", "celery"};
    stage->a.options.queues = queues;
    stage->a.options.queue_count = 2;
    stage->a.options.order = BROKER_REDIS_SORTED;
    push_many(stage, "celery", "c", 3);
    push_many(stage, "other", "o", 3);
    broker_client_open(&stage->a, 4);
    broker_client_await(&stage->a, 4);
    expect_ids(&stage->a, "c0 c1 c2 o0");
}

static void test_never_takes_more_than_there_are_places(void **state)
{
    struct broker_stage *stage = *state;
    push_many(stage, "celery", "m", 20);
    broker_client_open(&stage->a, 3);
    broker_client_await(&stage->a, 3);
    loop_until_later(stage->loop, 300);
    assert_int_equal(stage->a.delivery_count, 3);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 17);
    stage->a.broker->ops->set_free_places(stage->a.broker, 2);
    broker_client_await(&stage->a, 5);
    loop_until_later(stage->loop, 300);
    assert_int_equal(stage->a.delivery_count, 5);
    stage->a.broker->ops->set_free_places(stage->a.broker, 5);
    stage->a.broker->ops->set_free_places(stage->a.broker, 0);
    loop_until_later(stage->loop, 300);
    assert_int_equal(stage->a.delivery_count, 5);
}

static void test_wakes_up_at_once(void **state)
{
    struct broker_stage *stage = *state;
    int prompt_count = 0;
    open_and_settle_down(stage, 100);
    for (size_t count = 1; count <= 20; count++) {
        int64_t start_ms = loop_now_ms(stage->loop);
        broker_client_push(&stage->server, count % 2 ? "celery" : BROKER_CLIENT_STEP_3, "m");
        broker_client_await(&stage->a, count);
        prompt_count += loop_now_ms(stage->loop) - start_ms < 50;
    }
    assert_true(prompt_count >= 15); /* polling would be so prompt with one in five */
}

/* The gap to be afraid of is between the reply of a pop and the moment when the lists are
 * watched again: push while it passes, at all distances, with polling out of the way. */
static void test_misses_nothing_while_it_looks_away(void **state)
{
    struct broker_stage *stage = *state;
    open_and_settle_down(stage, 4000);
    size_t count = 0;
    for (int round = 0; round < 200; round++) {
        int64_t start_ms = loop_now_ms(stage->loop);
        broker_client_push(&stage->server, "celery", "m");
        for (int turn = 0; turn < round % 10; turn++) {
            loop_run_once(stage->loop, false);
        }
        broker_client_push(&stage->server, BROKER_CLIENT_STEP_3, "m");
        count += 2;
        broker_client_await(&stage->a, count);
        assert_true(loop_now_ms(stage->loop) - start_ms < 3000); /* not by the look every 5 s */
    }
}

static void test_is_quiet_when_idle(void **state)
{
    struct broker_stage *stage = *state;
    char info[8192];
    open_and_settle_down(stage, 10);
    redis_server_do(&stage->server, "CONFIG RESETSTAT");
    loop_until_later(stage->loop, 3000);
    redis_server_text(&stage->server, info, sizeof(info), "INFO stats");
    const char *line = strstr(info, "total_commands_processed:");
    assert_non_null(line);
    assert_true(strtol(strchr(line, ':') + 1, NULL, 10) < 15);
}

static bool has_notice(void *context)
{
    return ((struct broker_stage *)context)->a.notice_count > 0;
}

static void test_polls_when_it_is_not_told(void **state)
{
    struct broker_stage *stage = *state;
    redis_server_do(&stage->server, "ACL SETUSER default -client|tracking");
    broker_client_open(&stage->a, 10);
    loop_until(stage->loop, has_notice, stage);
    assert_int_equal(stage->a.notice_count, 1);
    assert_non_null(strstr(stage->a.notice, "looking every 250 ms"));
    broker_client_push(&stage->server, "celery", "m");
    broker_client_await(&stage->a, 1);
}

static void test_puts_aside_what_is_no_message(void **state)
{
    struct broker_stage *stage = *state;
    static const char *const elements[] = {
        "nonsense",
        "",
        "[1]",
        "null",
        "{\"a\":1} x",
        "{\"a\":1}{\"b\":2}",
        "{\"a\":}",
        "{\"a\":01}",
        "{\"a\":0x1f}",
        "{\"a\":1.}",
        "{\"a\":-}",
        "{\"a\":+1}",
        "{\"a\":nan}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xe2\xc3\xa9\x82\xac\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"b}",
        "{\"a\":\"b\\\"}",
        "{a:1}",
        "{'a':1}",
        "\xef\xbb\xbf{\"a\":1}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(elements); index++) {
        redis_server_do(&stage->server, "LPUSH celery %s", elements[index]);
    }
    broker_client_push(&stage->server, "celery", "good");
    broker_client_open(&stage->a, 10);
    broker_client_await(&stage->a, 1);
    loop_until_later(stage->loop, 20);
    expect_ids(&stage->a, "good");
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN petiole:rejected:celery"),
                     (int64_t)ARRAY_LENGTH(elements));
    assert_int_equal(stage->a.notice_count, 1);
    assert_non_null(strstr(stage->a.notice, "petiole:rejected:celery"));
}

static void test_takes_unusual_messages(void **state)
{
    struct broker_stage *stage = *state;
    static const char *const elements[] = {
        "{}",
        " \t\r\n{\"a\" : [ ] }\n",
        "{\"a\":NaN,\"b\":-Infinity,\"c\":Infinity,\"d\":-0.5e+10,\"e\":1E3,\"f\":0}",
        "{\"a\":\"\\ud800 \\\\ud800 \\\\\\\" \\/\\b\\f\\n\\r\\t\"}",
        "{\"a\":\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 \x7f\"}",
        "{\"a\":\"{[,:\",\"a\":\"}\"}",
        "{\"a\":12345678901234567890123456789012345678901234567890}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(elements); index++) {
        redis_server_do(&stage->server, "LPUSH celery %s", elements[index]);
    }
    broker_client_open(&stage->a, 10);
    broker_client_await(&stage->a, ARRAY_LENGTH(elements));
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS petiole:rejected:celery"), 0);
}

/* Deeper than we read, but not than Redis' own parser: found out after it was registered. */
static void test_puts_aside_what_only_we_refuse(void **state)
{
    struct broker_stage *stage = *state;
    char deep[1024] = "{\"a\":";
    memset(deep + strlen(deep), '[', 300);
    memset(deep + strlen(deep), ']', 300);
    deep[strlen(deep)] = '}';
    redis_server_do(&stage->server, "LPUSH celery %s", deep);
    broker_client_push(&stage->server, "celery", "good");
    broker_client_open(&stage->a, 10);
    broker_client_await(&stage->a, 1);
    loop_until_later(stage->loop, 50);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN petiole:rejected:celery"), 1);
}

static void test_bounds_what_it_puts_aside(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.max_rejected = 10;
    for (int index = 0; index < 30; index++) {
        redis_server_do(&stage->server, "LPUSH celery bad");
    }
    broker_client_push(&stage->server, "celery", "good");
    broker_client_open(&stage->a, 10);
    broker_client_await(&stage->a, 1);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN petiole:rejected:celery"), 10);
}

static void test_loses_nothing_when_a_step_fails(void **state)
{
    struct broker_stage *stage = *state;
    redis_server_do(&stage->server, "SET unacked text");
    push_many(stage, "celery", "m", 5);
    broker_client_open(&stage->a, 10);
    loop_until_later(stage->loop, 1500);
    assert_int_equal(stage->a.delivery_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 5);
    assert_true(stage->a.notice_count >= 1 && stage->a.notice_count <= 2);
    redis_server_do(&stage->server, "DEL unacked");
    broker_client_await(&stage->a, 5);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 5);
}

static void test_loses_nothing_when_it_may_not_trim(void **state)
{
    struct broker_stage *stage = *state;
    redis_server_do(&stage->server, "ACL SETUSER default -ltrim");
    push_many(stage, "celery", "m", 5);
    broker_client_open(&stage->a, 10);
    loop_until_later(stage->loop, 1000);
    assert_int_equal(stage->a.delivery_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 5);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked"), 0);
}

static bool has_swallowed(void *context)
{
    return relay_swallowed(((struct broker_stage *)context)->relay) > 1000;
}

static bool is_up_again(void *context)
{
    return ((struct broker_stage *)context)->a.up_count > 1;
}

static void test_recovers_what_a_lost_reply_brought(void **state)
{
    struct broker_stage *stage = *state;
    broker_stage_use_relay(stage);
    open_and_settle_down(stage, 0);
    relay_set_mute(stage->relay, true);
    push_many(stage, "celery", "m", 20);
    stage->a.broker->ops->set_free_places(stage->a.broker, 15);
    loop_until(stage->loop, has_swallowed, stage);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 15);
    assert_int_equal(stage->a.delivery_count, 0);
    relay_cut(stage->relay);
    relay_set_mute(stage->relay, false);
    loop_until(stage->loop, is_up_again, stage);
    broker_client_await(&stage->a, 15);
    loop_until_later(stage->loop, 100);
    assert_int_equal(stage->a.delivery_count, 15);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 15);
    assert_string_equal(broker_client_id(&stage->a, 0), "m0");
    assert_true(bytes_equal_text(stage->a.deliveries[0]->queue, "celery"));
}

static void test_goes_on_after_a_crash_of_the_server(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_open(&stage->a, 10);
    redis_server_kill(&stage->server);
    loop_until_later(stage->loop, 50);
    assert_int_equal(stage->a.down_count, 1);
    assert_false(stage->a.broker->ops->is_up(stage->a.broker));
    redis_server_restart(&stage->server);
    loop_until(stage->loop, is_up_again, stage);
    broker_client_push(&stage->server, "celery", "m");
    broker_client_await(&stage->a, 1);
}

static void test_survives_a_script_flush(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_open(&stage->a, 100);
    for (size_t count = 1; count <= 3; count++) {
        redis_server_do(&stage->server, "SCRIPT FLUSH");
        broker_client_push(&stage->server, "celery", "m");
        broker_client_await(&stage->a, count);
    }
    assert_int_equal(stage->a.notice_count, 0);
}

/* The look for expired messages is over too, and its lock gone. */
static bool has_three_keys(void *context)
{
    return redis_server_integer(&((struct broker_stage *)context)->server, "DBSIZE") == 3;
}

static void test_honours_prefix_and_names(void **state)
{
    struct broker_stage *stage = *state;
    static const int steps[] = {0, 5};
    stage->a.options.global_keyprefix = "pfx:";
    stage->a.options.separator = "-";
    stage->a.options.unacked_key = "held";
    stage->a.options.unacked_index_key = "held_index";
    stage->a.options.priority_steps = steps;
    stage->a.options.priority_step_count = 2;
    broker_client_push(&stage->server, "pfx:celery-5", "five");
    redis_server_do(&stage->server, "LPUSH pfx:celery bad");
    broker_client_open(&stage->a, 10);
    broker_client_await(&stage->a, 1);
    loop_until(stage->loop, has_three_keys, stage);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN pfx:held"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD pfx:held_index"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN pfx:petiole:rejected:celery"), 1);
}

static bool has_counted_five(void *context)
{
    struct broker *broker = ((struct broker_stage *)context)->a.broker;
    return broker->ops->queue_length(broker, BYTES("celery")) == 5;
}

static void test_counts_what_is_waiting(void **state)
{
    struct broker_stage *stage = *state;
    push_many(stage, "celery", "m", 3);
    push_many(stage, BROKER_CLIENT_STEP_3, "m", 2);
    broker_client_open(&stage->a, 0);
    loop_until(stage->loop, has_counted_five, stage);
    assert_int_equal(stage->a.broker->ops->queue_length(stage->a.broker, BYTES("nobody")), -1);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, broker_stage_set_up, broker_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_registers_what_it_takes),
        TEST(test_takes_in_order_of_urgency),
        TEST(test_takes_turns_among_queues),
        TEST(test_keeps_the_declared_order_when_asked),
        TEST(test_never_takes_more_than_there_are_places),
        TEST(test_wakes_up_at_once),
        TEST(test_misses_nothing_while_it_looks_away),
        TEST(test_is_quiet_when_idle),
        TEST(test_polls_when_it_is_not_told),
        TEST(test_puts_aside_what_is_no_message),
        TEST(test_takes_unusual_messages),
        TEST(test_puts_aside_what_only_we_refuse),
        TEST(test_bounds_what_it_puts_aside),
        TEST(test_loses_nothing_when_a_step_fails),
        TEST(test_loses_nothing_when_it_may_not_trim),
        TEST(test_recovers_what_a_lost_reply_brought),
        TEST(test_goes_on_after_a_crash_of_the_server),
        TEST(test_survives_a_script_flush),
        TEST(test_honours_prefix_and_names),
        TEST(test_counts_what_is_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
