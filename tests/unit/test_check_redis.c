/* Trying a Redis server (worker/check_redis.h), against a real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/redis_server.h"
#include "worker/check_redis.h"

struct fixture {
    struct redis_server server;
    struct loop *loop;
    struct arena *arena;
    char text[512];
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

static bool check_broker(struct fixture *fixture, const char *url)
{
    static const char *const queues[] = {"tenant-a"};
    struct broker_redis_options options = {.queues = queues, .queue_count = 1};
    struct error error = {0};
    assert_true(redis_url_parse(url, false, fixture->arena, &options.url, &error));
    return check_redis_broker(fixture->loop, &options, fixture->text, sizeof(fixture->text));
}

static bool check_backend(struct fixture *fixture, const char *url)
{
    struct result_redis_options options = {.global_keyprefix = "p"};
    struct error error = {0};
    assert_true(redis_url_parse(url, true, fixture->arena, &options.url, &error));
    return check_redis_backend(fixture->loop, &options, fixture->text, sizeof(fixture->text));
}

static void test_well(void **state)
{
    struct fixture *fixture = *state;
    assert_true(check_broker(fixture, fixture->server.url));
    assert_int_equal(strncmp(fixture->text, "Redis ", 6), 0);
    assert_true(check_backend(fixture, fixture->server.url));
}

static void test_nobody_listens(void **state)
{
    struct fixture *fixture = *state;
    redis_server_kill(&fixture->server);
    assert_false(check_broker(fixture, fixture->server.url));
    assert_non_null(strstr(fixture->text, "refused"));
}

static void test_read_only_replica(void **state)
{
    struct fixture *fixture = *state;
    redis_server_do(&fixture->server, "REPLICAOF 127.0.0.1 1");
    assert_false(check_broker(fixture, fixture->server.url));
    assert_non_null(strstr(fixture->text, "READONLY"));
    assert_false(check_backend(fixture, fixture->server.url));
}

static void test_missing_right(void **state)
{
    struct fixture *fixture = *state;
    redis_server_do(&fixture->server, "ACL SETUSER worker on >secret ~* +@all -hdel -info");
    const char *url = arena_format(fixture->arena, "redis://worker:secret@127.0.0.1:%d/0",
                                   (int)fixture->server.port);
    assert_false(check_broker(fixture, url));
    assert_non_null(strstr(fixture->text, "HDEL unacked: NOPERM"));
    redis_server_do(&fixture->server, "ACL SETUSER worker +hdel");
    assert_true(check_broker(fixture, url));
    assert_non_null(strstr(fixture->text, "its version is not told"));
}

static void test_wrong_password(void **state)
{
    struct fixture *fixture = *state;
    const char *url = arena_format(fixture->arena, "redis://worker:hunter2@127.0.0.1:%d/0",
                                   (int)fixture->server.port);
    assert_false(check_backend(fixture, url));
    assert_non_null(strstr(fixture->text, "WRONGPASS"));
    assert_null(strstr(fixture->text, "redis://")); /* the line of the check names it */
    assert_null(strstr(fixture->text, "hunter2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_well, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_listens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_read_only_replica, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_right, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_password, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("check_redis", tests, NULL, NULL);
}
