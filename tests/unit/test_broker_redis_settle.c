#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

static void open_with_messages(struct broker_stage *stage, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        broker_client_push(&stage->server, "celery", "m");
    }
    broker_client_open(&stage->a, count);
    broker_client_await(&stage->a, count);
}

static bool is_up_again(void *context)
{
    return ((struct broker_stage *)context)->a.up_count > 1;
}

static bool is_one_settled_of_two(void *context)
{
    return redis_server_integer(&((struct broker_stage *)context)->server, "HLEN unacked") == 1;
}

static bool is_outbox_read(void *context)
{
    return ((struct broker_client *)context)->is_outbox_read;
}

static void test_acknowledges(void **state)
{
    struct broker_stage *stage = *state;
    open_with_messages(stage, 3);
    broker_client_settle(&stage->a, 0, SETTLEMENT_ACK);
    broker_client_settle(&stage->a, 2, SETTLEMENT_DISCARD);
    assert_int_equal(stage->a.done_count, 0);
    broker_client_await_done(&stage->a, 2);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "HEXISTS unacked a:2"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 1);
}

static void test_lets_the_delivery_go_before_it_is_confirmed(void **state)
{
    struct broker_stage *stage = *state;
    open_with_messages(stage, 1);
    broker_client_settle(&stage->a, 0, SETTLEMENT_ACK);
    delivery_free(&stage->a.deliveries[0]);
    stage->a.delivery_count = 0;
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked"), 0);
}

static void test_settles_thousands_in_one_turn(void **state)
{
    struct broker_stage *stage = *state;
    char info[8192];
    open_with_messages(stage, 2500);
    redis_server_do(&stage->server, "CONFIG RESETSTAT");
    for (size_t index = 0; index < 2500; index++) {
        broker_client_settle(&stage->a, index, SETTLEMENT_ACK);
    }
    broker_client_await_done(&stage->a, 2500);
    redis_server_text(&stage->server, info, sizeof(info), "INFO commandstats");
    assert_non_null(strstr(info, "cmdstat_hdel:calls=3,"));
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked unacked_index"), 0);
}

static void test_says_it_again_after_a_lost_reply(void **state)
{
    struct broker_stage *stage = *state;
    broker_stage_use_relay(stage);
    open_with_messages(stage, 2);
    relay_set_mute(stage->relay, true);
    broker_client_settle(&stage->a, 0, SETTLEMENT_ACK);
    loop_until(stage->loop, is_one_settled_of_two, stage);
    relay_cut(stage->relay);
    relay_set_mute(stage->relay, false);
    broker_client_settle(&stage->a, 1, SETTLEMENT_ACK); /* while it is away */
    assert_int_equal(stage->a.done_count, 0);
    loop_until(stage->loop, is_up_again, stage);
    broker_client_await_done(&stage->a, 2);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked"), 0);
}

static void test_tries_again_when_redis_refuses(void **state)
{
    struct broker_stage *stage = *state;
    open_with_messages(stage, 1);
    struct broker_outbox_entry entry = {BYTES("tenant"), BYTES("job"), BYTES("id")};
    redis_server_do(&stage->server, "SET petiole:jobs:tenant text");
    stage->a.broker->ops->settle(stage->a.broker, stage->a.deliveries[0], SETTLEMENT_ACK, &entry,
                                 broker_client_on_done, &stage->a);
    loop_until_later(stage->loop, 1200);
    assert_int_equal(stage->a.done_count, 0);
    assert_int_equal(stage->a.notice_count, 1);
    assert_non_null(strstr(stage->a.notice, "WRONGTYPE"));
    redis_server_do(&stage->server, "DEL petiole:jobs:tenant");
    broker_client_await_done(&stage->a, 1);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN petiole:jobs:tenant"), 1);
}

/* An earlier worker holds a message. */
static void hold_of_old(struct broker_stage *stage, const char *tag, const char *value)
{
    redis_server_do(&stage->server, "HSET unacked %s %s", tag, value);
    redis_server_do(&stage->server, "ZADD unacked_index 9999999999 %s", tag);
}

/* Settles it as one of task "i". */
static void settle_old(struct broker_stage *stage, const char *tag)
{
    stage->a.broker->ops->settle_tag(stage->a.broker, bytes_from_text(tag), BYTES("i"),
                                     broker_client_on_done, &stage->a);
}

static void test_settles_what_an_earlier_worker_took(void **state)
{
    struct broker_stage *stage = *state;
    hold_of_old(stage, "old:7", "[{\"headers\":{\"id\":\"i\"}},\"\",\"q\"]");
    hold_of_old(stage, "old:8",
                "[{\"headers\":{},\"properties\":{\"correlation_id\":\"i\"}},\"\",\"q\"]");
    hold_of_old(stage, "old:9", "[{\"headers\":{\"id\":\"other\"}},\"\",\"q\"]");
    broker_client_open(&stage->a, 0);
    settle_old(stage, "old:7");
    settle_old(stage, "old:8");
    settle_old(stage, "unknown:1");
    broker_client_await_done(&stage->a, 3);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 1);
}

/* A Job may name any tag. */
static void test_leaves_what_is_another_tasks(void **state)
{
    struct broker_stage *stage = *state;
    static const char *const values[] = {
        "[{\"headers\":{\"id\":\"other\"},\"properties\":{\"correlation_id\":\"other\"}},\"\",\"q\"]",
        "[{\"headers\":null,\"properties\":null},\"\",\"q\"]",
        "[{\"headers\":[\"i\"],\"properties\":\"i\"},\"\",\"q\"]",
        "[\"i\"]",
        "{}",
        "i",
    };
    hold_of_old(stage, "old:1", values[0]);
    broker_client_open(&stage->a, 0);
    for (size_t index = 0; index < ARRAY_LENGTH(values); index++) {
        redis_server_do(&stage->server, "HSET unacked old:1 %s", values[index]);
        settle_old(stage, "old:1");
        broker_client_await_done(&stage->a, (int)index + 1);
        assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1);
        assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 1);
    }
    assert_int_equal(stage->a.failed_count, 0);
}

static void test_keeps_an_outbox(void **state)
{
    struct broker_stage *stage = *state;
    open_with_messages(stage, 2);
    struct broker *broker = stage->a.broker;
    struct broker_outbox_entry first = {BYTES("tenant"), BYTES("job-1"), BYTES("id-1")};
    struct broker_outbox_entry second = {BYTES("tenant"), BYTES("job-2"), BYTES("id-2")};
    broker->ops->settle(broker, stage->a.deliveries[0], SETTLEMENT_ACK, &first,
                        broker_client_on_done, &stage->a);
    broker->ops->settle(broker, stage->a.deliveries[1], SETTLEMENT_ACK, &second,
                        broker_client_on_done, &stage->a);
    broker_client_await_done(&stage->a, 2);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked"), 0);
    broker->ops->outbox_remove(broker, BYTES("tenant"), BYTES("job-1"), broker_client_on_done,
                               &stage->a);
    broker_client_await_done(&stage->a, 3);
    broker->ops->outbox_list(broker, BYTES("tenant"), broker_client_on_outbox, &stage->a);
    loop_until(stage->loop, is_outbox_read, &stage->a);
    assert_string_equal(stage->a.outbox, "job-2=id-2 ");
}

static void test_reads_a_large_outbox(void **state)
{
    struct broker_stage *stage = *state;
    for (int index = 0; index < 3000; index++) {
        redis_server_do(&stage->server, "HSET pfx:petiole:jobs:tenant job-%d id-%d", index, index);
    }
    stage->a.options.global_keyprefix = "pfx:";
    broker_client_open(&stage->a, 0);
    stage->a.broker->ops->outbox_list(stage->a.broker, BYTES("tenant"), broker_client_on_outbox,
                                      &stage->a);
    loop_until(stage->loop, is_outbox_read, &stage->a);
    assert_int_equal(stage->a.outbox_count, 3000);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, broker_stage_set_up, broker_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_acknowledges),
        TEST(test_lets_the_delivery_go_before_it_is_confirmed),
        TEST(test_settles_thousands_in_one_turn),
        TEST(test_says_it_again_after_a_lost_reply),
        TEST(test_tries_again_when_redis_refuses),
        TEST(test_settles_what_an_earlier_worker_took),
        TEST(test_leaves_what_is_another_tasks),
        TEST(test_keeps_an_outbox),
        TEST(test_reads_a_large_outbox),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
