/* result_redis while more is to follow at once: on a virtual clock, since it is about a millisecond. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "result/result_redis.h"
#include "support/loop_until.h"
#include "support/redis_server.h"

#define SUCCESS   "{\"status\": \"SUCCESS\", \"result\": 4}"
#define TURNS     20 /* more than connection and server ever need */
#define INFO_SIZE 8192

struct stage {
    struct redis_server server;
    struct loop *loop;
    struct arena *arena;
    struct result_redis_options options;
    struct result_backend *backend;
    bool is_up;
    bool is_closed;
    int stored_count;
};

static void on_up(void *context, const char *where)
{
    (void)where;
    ((struct stage *)context)->is_up = true;
}

static void on_down(void *context, const struct error *error, int64_t retry_ms)
{
    (void)context;
    (void)retry_ms;
    fail_msg("%s", error->message);
}

static void on_stored(void *context, bool ok, const struct error *error)
{
    (void)error;
    assert_true(ok);
    ((struct stage *)context)->stored_count++;
}

static void on_closed(void *context)
{
    ((struct stage *)context)->is_closed = true;
}

static bool is_up(void *context)
{
    return ((struct stage *)context)->is_up;
}

static bool are_two_stored(void *context)
{
    return ((struct stage *)context)->stored_count == 2;
}

static int set_up(void **state)
{
    static const struct result_events events = {on_up, on_down};
    struct stage *stage = memory_new(sizeof(*stage));
    struct error error = {0};
    redis_server_start(&stage->server, false);
    stage->loop = loop_new(LOOP_CLOCK_VIRTUAL);
    stage->arena = arena_new(0);
    if (!redis_url_parse(stage->server.url, true, stage->arena, &stage->options.url, &error)) {
        fail_msg("%s", error.message);
    }
    stage->backend = result_redis_new(stage->loop, &stage->options, &events, stage);
    stage->backend->ops->start(stage->backend);
    loop_until(stage->loop, is_up, stage);
    *state = stage;
    return 0;
}

static void close_backend(struct stage *stage)
{
    stage->backend->ops->close(stage->backend, 5000, on_closed, stage);
    stage->backend = NULL;
    while (!stage->is_closed) {
        /* A millisecond passes no sooner than the server has answered what it was asked. */
        (void)redis_server_integer(&stage->server, "DBSIZE");
        loop_run_once(stage->loop, false);
        loop_advance(stage->loop, 1);
    }
}

static int tear_down(void **state)
{
    struct stage *stage = *state;
    if (stage->backend) {
        close_backend(stage);
    }
    loop_free(&stage->loop);
    arena_free(&stage->arena);
    redis_server_stop(&stage->server);
    memory_free(&stage);
    return 0;
}

/* Asks for a store, and gives what is sent for it the time to be carried out. */
static void store(struct stage *stage, const char *id)
{
    stage->backend->ops->store(stage->backend, bytes_from_text(id), BYTES(SUCCESS), 100, on_stored,
                               stage);
    for (int turn = 0; turn < TURNS; turn++) {
        loop_run_once(stage->loop, false);
        (void)redis_server_integer(&stage->server, "DBSIZE");
    }
}

/* How many transactions the server has carried out; none yet: no line of them. */
static void expect_transactions(struct stage *stage, const char *expected)
{
    char info[INFO_SIZE];
    redis_server_text(&stage->server, info, sizeof(info), "INFO commandstats");
    assert_non_null(strstr(info, expected));
}

static void test_stores_at_once(void **state)
{
    struct stage *stage = *state;
    store(stage, "one");
    store(stage, "two");
    loop_until(stage->loop, are_two_stored, stage);
    expect_transactions(stage, "cmdstat_exec:calls=2,");
}

static void test_waits_for_what_follows(void **state)
{
    struct stage *stage = *state;
    stage->backend->ops->gather(stage->backend, true);
    store(stage, "one");
    store(stage, "two");
    assert_int_equal(redis_server_integer(&stage->server, "DBSIZE"), 0);
    loop_advance(stage->loop, 1);
    loop_until(stage->loop, are_two_stored, stage);
    expect_transactions(stage, "cmdstat_exec:calls=1,");
}

static void test_waits_no_more(void **state)
{
    struct stage *stage = *state;
    stage->backend->ops->gather(stage->backend, true);
    stage->backend->ops->gather(stage->backend, false);
    store(stage, "one");
    assert_int_equal(redis_server_integer(&stage->server, "DBSIZE"), 1);
}

static void test_flushes_before_it_closes(void **state)
{
    struct stage *stage = *state;
    stage->backend->ops->gather(stage->backend, true);
    store(stage, "one");
    store(stage, "two");
    close_backend(stage);
    assert_int_equal(stage->stored_count, 2);
    assert_int_equal(redis_server_integer(&stage->server, "DBSIZE"), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stores_at_once),
        TEST(test_waits_for_what_follows),
        TEST(test_waits_no_more),
        TEST(test_flushes_before_it_closes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
