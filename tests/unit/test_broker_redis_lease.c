#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

static double score_of(struct broker_stage *stage, const char *tag)
{
    char score[64];
    redis_server_text(&stage->server, score, sizeof(score), "ZSCORE unacked_index %s", tag);
    return strtod(score, NULL);
}

static bool has_notice(void *context)
{
    return ((struct broker_stage *)context)->a.notice_count > 0;
}

static bool has_lease_answer(void *context)
{
    return ((struct broker_stage *)context)->a.lease_count > 0;
}

static void open_with_messages(struct broker_stage *stage, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        broker_client_push(&stage->server, "celery", "m");
    }
    broker_client_open(&stage->a, count);
    broker_client_await(&stage->a, count);
}

static void ask(struct broker_stage *stage)
{
    stage->a.lease_count = 0;
    stage->a.broker->ops->confirm_lease(stage->a.broker, stage->a.deliveries[0],
                                        broker_client_on_lease, &stage->a);
    assert_int_equal(stage->a.lease_count, 0);
    loop_until(stage->loop, has_lease_answer, stage);
}

struct renewal {
    struct broker_stage *stage;
    double first;
    double last;
};

static bool are_renewed(void *context)
{
    const struct renewal *renewal = context;
    return score_of(renewal->stage, "a:1") > renewal->first + 1.0
           && score_of(renewal->stage, "a:1200") > renewal->last + 1.0;
}

static void test_renews_what_is_held(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.visibility_timeout_ms = 600;
    open_with_messages(stage, 1200);
    struct renewal renewal = {stage, score_of(stage, "a:1"), score_of(stage, "a:1200")};
    loop_until(stage->loop, are_renewed, &renewal);
    assert_int_equal(redis_server_integer(&stage->server, "HLEN unacked"), 1200);
    assert_int_equal(stage->a.delivery_count, 1200);
    assert_int_equal(stage->a.notice_count, 0);
}

static void test_notices_what_somebody_else_restored(void **state)
{
    struct broker_stage *stage = *state;
    stage->a.options.visibility_timeout_ms = 600;
    open_with_messages(stage, 3);
    redis_server_do(&stage->server, "ZREM unacked_index a:2");
    redis_server_do(&stage->server, "HDEL unacked a:2");
    loop_until(stage->loop, has_notice, stage);
    assert_non_null(strstr(stage->a.notice, "a:2"));
    loop_until_later(stage->loop, 500);
    assert_int_equal(stage->a.notice_count, 1);
    assert_int_equal(redis_server_integer(&stage->server, "ZCARD unacked_index"), 2);
}

static void test_confirms_a_lease(void **state)
{
    struct broker_stage *stage = *state;
    open_with_messages(stage, 1);
    redis_server_do(&stage->server, "ZADD unacked_index 5 a:1");
    ask(stage);
    assert_true(stage->a.is_held);
    assert_true(score_of(stage, "a:1") > 1000.0);
    redis_server_do(&stage->server, "ZREM unacked_index a:1");
    ask(stage);
    assert_false(stage->a.is_held);
    assert_int_equal(stage->a.notice_count, 1);
}

static void test_confirms_a_lease_after_a_reconnect(void **state)
{
    struct broker_stage *stage = *state;
    broker_stage_use_relay(stage);
    open_with_messages(stage, 1);
    relay_cut(stage->relay);
    loop_until_later(stage->loop, 1);
    ask(stage);
    assert_true(stage->a.is_held);
}

static void test_answers_at_the_latest_when_it_is_closed(void **state)
{
    struct broker_stage *stage = *state;
    open_with_messages(stage, 1);
    redis_server_kill(&stage->server);
    loop_until_later(stage->loop, 20);
    stage->a.broker->ops->confirm_lease(stage->a.broker, stage->a.deliveries[0],
                                        broker_client_on_lease, &stage->a);
    broker_client_close(&stage->a, 20);
    assert_int_equal(stage->a.lease_count, 1);
    assert_false(stage->a.is_held);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, broker_stage_set_up, broker_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_renews_what_is_held),
        TEST(test_notices_what_somebody_else_restored),
        TEST(test_confirms_a_lease),
        TEST(test_confirms_a_lease_after_a_reconnect),
        TEST(test_answers_at_the_latest_when_it_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
