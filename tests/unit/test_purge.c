/* Erasing what waits in queues (worker/purge.h), on a real Redis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/redis_server.h"
#include "worker/purge.h"

struct fixture {
    struct redis_server server;
    struct loop *loop;
    struct arena *arena;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    redis_server_start(&fixture->server, false);
    fixture->loop = loop_new(LOOP_CLOCK_REAL);
    fixture->arena = arena_new(1024);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    redis_server_stop(&fixture->server);
    loop_free(&fixture->loop);
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

static struct broker_redis_options options_of(struct fixture *fixture)
{
    static const char *const queues[] = {"a", "b"};
    struct broker_redis_options options = {.queues = queues, .queue_count = 2};
    struct error error = {0};
    assert_true(redis_url_parse(fixture->server.url, false, fixture->arena, &options.url, &error));
    return options;
}

static void test_every_step_of_every_queue(void **state)
{
    struct fixture *fixture = *state;
    struct broker_redis_options options = options_of(fixture);
    struct error error = {0};
    int64_t count = -1;
    redis_server_do(&fixture->server, "RPUSH a 1 2");
    redis_server_do(&fixture->server, "RPUSH %s 3",
                    "a\x06\x16"
                    "9");
    redis_server_do(&fixture->server, "RPUSH b 4");
    redis_server_do(&fixture->server, "RPUSH other 5");
    redis_server_do(&fixture->server, "HSET unacked tag 6");
    assert_true(purge_run(fixture->loop, &options, &count, &error));
    assert_int_equal(count, 4);
    assert_int_equal(redis_server_integer(&fixture->server, "DBSIZE"), 2);
    assert_true(purge_run(fixture->loop, &options, &count, &error));
    assert_int_equal(count, 0);
}

static void test_own_names(void **state)
{
    static const int steps[] = {0, 5};
    struct fixture *fixture = *state;
    struct broker_redis_options options = options_of(fixture);
    int64_t count = -1;
    options.priority_steps = steps;
    options.priority_step_count = 2;
    options.separator = ":";
    options.global_keyprefix = "p_";
    redis_server_do(&fixture->server, "RPUSH p_a 1");
    redis_server_do(&fixture->server, "RPUSH p_a:5 2");
    redis_server_do(&fixture->server, "RPUSH a 3");
    assert_true(purge_run(fixture->loop, &options, &count, NULL));
    assert_int_equal(count, 2);
    assert_int_equal(redis_server_integer(&fixture->server, "LLEN a"), 1);
}

static void test_wrong_type(void **state)
{
    struct fixture *fixture = *state;
    struct broker_redis_options options = options_of(fixture);
    struct error error = {0};
    int64_t count = -1;
    redis_server_do(&fixture->server, "SET a text");
    assert_false(purge_run(fixture->loop, &options, &count, &error));
    assert_int_equal(error.kind, ERROR_REFUSED);
    assert_int_equal(count, -1);
}

static void test_no_server(void **state)
{
    struct fixture *fixture = *state;
    struct broker_redis_options options = options_of(fixture);
    struct error error = {0};
    int64_t count = -1;
    redis_server_kill(&fixture->server);
    assert_false(purge_run(fixture->loop, &options, &count, &error));
    assert_non_null(strstr(error.message, "purge: "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_step_of_every_queue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_type, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_server, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("purge", tests, NULL, NULL);
}
