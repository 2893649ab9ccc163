#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

#define DIRECT "lo.key\x06\x16\x06\x16lo"
#define TOPIC  "order.#\x06\x16^order\\..*?$\x06\x16orders"

static const struct broker_redis_binding bindings[] = {
    {"lo", "shop", "lo.key", false},
    {"orders", "events", "order.#", true},
};

static void bind(struct broker_client *client)
{
    client->options.bindings = bindings;
    client->options.binding_count = ARRAY_LENGTH(bindings);
}

static int64_t is_member(struct broker_stage *stage, const char *key, const char *member)
{
    return redis_server_integer(&stage->server, "SISMEMBER %s %s", key, member);
}

/* Asks by a message of its own, which comes behind the bindings. */
static void settle_down(struct broker_stage *stage)
{
    static const struct publication message = {.routing_key = {"nowhere", 7}, .headers = {"{}", 2}};
    stage->a.broker->ops->publish(stage->a.broker, &message, broker_client_on_done, &stage->a);
    broker_client_await_done(&stage->a, stage->a.done_count + 1);
}

static void test_binds_when_it_is_up(void **state)
{
    struct broker_stage *stage = *state;
    bind(&stage->a);
    broker_client_open(&stage->a, 0);
    settle_down(stage);
    assert_int_equal(is_member(stage, "_kombu.binding.shop", DIRECT), 1);
    assert_int_equal(is_member(stage, "_kombu.binding_permanent.shop", DIRECT), 1);
    assert_int_equal(is_member(stage, "_kombu.binding.events", TOPIC), 1);
    assert_int_equal(is_member(stage, "_kombu.binding_permanent.events", TOPIC), 1);
    assert_int_equal(stage->a.notice_count, 0);
}

static void test_keeps_prefix_and_separator(void **state)
{
    struct broker_stage *stage = *state;
    bind(&stage->a);
    stage->a.options.global_keyprefix = "own:";
    stage->a.options.separator = "|";
    broker_client_open(&stage->a, 0);
    settle_down(stage);
    assert_int_equal(is_member(stage, "own:_kombu.binding.shop", "lo.key||lo"), 1);
    assert_int_equal(is_member(stage, "own:_kombu.binding_permanent.shop", "lo.key||lo"), 1);
}

static bool is_up_again(void *context)
{
    return ((struct broker_stage *)context)->a.up_count > 1;
}

static void test_binds_again_at_a_server_that_lost_its_data(void **state)
{
    struct broker_stage *stage = *state;
    bind(&stage->a);
    broker_client_open(&stage->a, 0);
    redis_server_kill(&stage->server);
    redis_server_restart(&stage->server);
    loop_until(stage->loop, is_up_again, stage);
    settle_down(stage);
    assert_int_equal(is_member(stage, "_kombu.binding.events", TOPIC), 1);
}

static void test_a_refusal_is_one_warning(void **state)
{
    struct broker_stage *stage = *state;
    bind(&stage->a);
    redis_server_do(&stage->server,
                    "ACL SETUSER default resetkeys ~celery* ~unacked* ~petiole:* ~nowhere "
                    "~_kombu.binding.events ~_kombu.binding_permanent.events");
    broker_client_open(&stage->a, 1);
    settle_down(stage);
    assert_int_equal(stage->a.notice_count, 1);
    assert_non_null(strstr(stage->a.notice, "bind queue lo to exchange shop: NOPERM"));
    assert_non_null(strstr(stage->a.notice, "allow the user to write the keys _kombu.binding*"));
    redis_server_do(&stage->server, "ACL SETUSER default allkeys");
    assert_int_equal(is_member(stage, "_kombu.binding.events", TOPIC), 1);
    broker_client_push(&stage->server, "celery", "x");
    broker_client_await(&stage->a, 1);
}

static bool are_bound(void *context)
{
    return is_member(context, "_kombu.binding.shop", DIRECT)
           && is_member(context, "_kombu.binding.events", TOPIC);
}

static bool has_notice(void *context)
{
    return ((struct broker_stage *)context)->a.notice_count > 0;
}

static void test_tries_again_when_memory_was_out(void **state)
{
    struct broker_stage *stage = *state;
    bind(&stage->a);
    redis_server_do(&stage->server, "CONFIG SET maxmemory 1");
    broker_client_open(&stage->a, 0);
    loop_until(stage->loop, has_notice, stage);
    assert_non_null(strstr(stage->a.notice, "OOM"));
    assert_int_equal(is_member(stage, "_kombu.binding.shop", DIRECT), 0);
    redis_server_do(&stage->server, "CONFIG SET maxmemory 0");
    loop_until(stage->loop, are_bound, stage);
}

#define TEST(function)                                                                             \
    cmocka_unit_test_setup_teardown(function, broker_stage_set_up, broker_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_binds_when_it_is_up),
        TEST(test_keeps_prefix_and_separator),
        TEST(test_binds_again_at_a_server_that_lost_its_data),
        TEST(test_a_refusal_is_one_warning),
        TEST(test_tries_again_when_memory_was_out),
    };
    return cmocka_run_group_tests_name("broker_redis_declare", tests, NULL, NULL);
}
