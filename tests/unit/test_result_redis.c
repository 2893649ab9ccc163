#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>
#include <zlib.h>

#include "base/memory.h"
#include "base/redis_link.h"
#include "result/result_redis.h"
#include "support/loop_until.h"
#include "support/redis_server.h"
#include "support/relay.h"

#define SUCCESS "{\"status\": \"SUCCESS\", \"result\": 4}"
#define FAILURE "{\"status\": \"FAILURE\", \"result\": null}"
#define OTHER   "{\"status\": \"FAILURE\", \"result\": \"another worker's\"}"
#define STARTED "{\"status\": \"STARTED\", \"result\": null}"
#define STEP    "{\"status\": \"STEP\", \"result\": 1}"
#define LATER   "{\"status\": \"STEP\", \"result\": 2}"

struct stage {
    struct redis_server server;
    struct redis_link *listener; /* of all publications */
    struct loop *loop;
    struct arena *arena;
    struct relay *relay;
    struct result_redis_options options;
    struct result_backend *backend;
    int up_count;
    int down_count;
    int stored_count;
    int failed_count;
    int expected_count;
    struct error error;
    char state[32];
    int state_count;
    int publication_count;
    char published[512]; /* "channel=payload " of each */
    bool is_closed;
};

static int set_up(void **state)
{
    struct stage *stage = memory_new(sizeof(*stage));
    struct error error = {0};
    redis_server_start(&stage->server, false);
    stage->loop = loop_new(LOOP_CLOCK_REAL);
    stage->arena = arena_new(0);
    if (!redis_url_parse(stage->server.url, true, stage->arena, &stage->options.url, &error)) {
        fail_msg("%s", error.message);
    }
    *state = stage;
    return 0;
}

static bool is_closed(void *context)
{
    return ((struct stage *)context)->is_closed;
}

static void on_closed(void *context)
{
    struct stage *stage = context;
    stage->is_closed = true;
    stage->backend = NULL;
}

static void close_backend(struct stage *stage, int64_t deadline_ms)
{
    stage->is_closed = false;
    stage->backend->ops->close(stage->backend, deadline_ms, on_closed, stage);
    loop_until(stage->loop, is_closed, stage);
}

static int tear_down(void **state)
{
    struct stage *stage = *state;
    if (stage->backend) {
        close_backend(stage, 0);
    }
    redis_link_close(&stage->listener);
    relay_free(&stage->relay);
    loop_free(&stage->loop);
    arena_free(&stage->arena);
    redis_server_stop(&stage->server);
    memory_free(&stage);
    return 0;
}

static void on_up(void *context, const char *where)
{
    assert_non_null(where);
    ((struct stage *)context)->up_count++;
}

static void on_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct stage *stage = context;
    assert_true(retry_ms > 0);
    stage->down_count++;
    stage->error = *error;
}

static void on_stored(void *context, bool ok, const struct error *error)
{
    struct stage *stage = context;
    stage->stored_count++;
    if (!ok) {
        stage->failed_count++;
        stage->error = *error;
    }
}

static void on_state(void *context, struct bytes text, const struct error *error)
{
    struct stage *stage = context;
    assert_null(error);
    stage->state_count++;
    (void)snprintf(stage->state, sizeof(stage->state), "%.*s", BYTES_FORMAT(text));
}

static bool is_up(void *context)
{
    return ((struct stage *)context)->up_count > 0;
}

static bool are_stored(void *context)
{
    const struct stage *stage = context;
    return stage->stored_count == stage->expected_count;
}

static bool has_state(void *context)
{
    return ((struct stage *)context)->state_count > 0;
}

static bool is_listening(void *context)
{
    struct stage *stage = context;
    return redis_server_integer(&stage->server, "PUBLISH probe x") == 1;
}

static void ignore_event(void *context)
{
    (void)context;
}

static void ignore_down(void *context, const struct error *error, int64_t retry_ms)
{
    (void)context;
    (void)error;
    (void)retry_ms;
}

static void on_publication(void *context, const redisReply *message)
{
    struct stage *stage = context;
    struct bytes channel = redis_link_text(message->element[2]);
    if (bytes_equal_text(channel, "probe")) {
        return;
    }
    size_t length = strlen(stage->published);
    (void)snprintf(stage->published + length, sizeof(stage->published) - length, "%.*s=%.*s ",
                   BYTES_FORMAT(channel), BYTES_FORMAT(redis_link_text(message->element[3])));
    stage->publication_count++;
}

static void listen_to_all(struct stage *stage)
{
    static const struct redis_link_events events = {ignore_event, ignore_down, on_publication};
    struct redis_url url = stage->options.url;
    url.stream.port = stage->server.port;
    stage->listener = redis_link_open(stage->loop, &url, "listener", &events, stage);
    while (!redis_link_is_up(stage->listener)) {
        loop_run_once(stage->loop, true);
    }
    struct bytes subscribe[] = {BYTES("PSUBSCRIBE"), BYTES("*")};
    redis_link_command(stage->listener, subscribe, ARRAY_LENGTH(subscribe), NULL, NULL);
    loop_until_later(stage->loop, 1);
    loop_until(stage->loop, is_listening, stage);
}

static void open_backend(struct stage *stage)
{
    static const struct result_events events = {on_up, on_down};
    stage->backend = result_redis_new(stage->loop, &stage->options, &events, stage);
    stage->backend->ops->start(stage->backend);
    loop_until(stage->loop, is_up, stage);
}

static void store(struct stage *stage, const char *id, const char *document)
{
    stage->backend->ops->store(stage->backend, bytes_from_text(id), bytes_from_text(document), 100,
                               on_stored, stage);
    stage->expected_count++;
}

static void expect_stored(struct stage *stage, const char *key, const char *document)
{
    char text[256];
    redis_server_text(&stage->server, text, sizeof(text), "GET %s", key);
    assert_string_equal(text, document);
}

static void test_stores_and_publishes(void **state)
{
    struct stage *stage = *state;
    listen_to_all(stage);
    open_backend(stage);
    store(stage, "one", SUCCESS);
    stage->backend->ops->store(stage->backend, BYTES("two"), BYTES(FAILURE), 0, on_stored, stage);
    stage->expected_count++;
    assert_int_equal(stage->stored_count, 0);
    loop_until(stage->loop, are_stored, stage);
    loop_until_later(stage->loop, 20);
    expect_stored(stage, "celery-task-meta-one", SUCCESS);
    assert_true(redis_server_integer(&stage->server, "TTL celery-task-meta-one") > 90);
    assert_int_equal(redis_server_integer(&stage->server, "TTL celery-task-meta-two"), -1);
    assert_string_equal(stage->published,
                        "celery-task-meta-one=" SUCCESS " celery-task-meta-two=" FAILURE " ");
}

static void test_never_replaces_a_success(void **state)
{
    struct stage *stage = *state;
    redis_server_do(&stage->server, "SET celery-task-meta-one %s", SUCCESS);
    redis_server_do(&stage->server, "SET celery-task-meta-two %s", STARTED);
    redis_server_do(&stage->server, "SET celery-task-meta-three %s", "no json");
    listen_to_all(stage);
    open_backend(stage);
    store(stage, "one", FAILURE);
    store(stage, "two", FAILURE);
    store(stage, "three", FAILURE);
    loop_until(stage->loop, are_stored, stage);
    loop_until_later(stage->loop, 20);
    assert_int_equal(stage->failed_count, 0);
    expect_stored(stage, "celery-task-meta-one", SUCCESS);
    expect_stored(stage, "celery-task-meta-two", FAILURE);
    expect_stored(stage, "celery-task-meta-three", FAILURE);
    assert_int_equal(stage->publication_count, 2);
}

static void test_looks_into_compressed_documents(void **state)
{
    struct stage *stage = *state;
    static const char head[] = "\0celery-compressed\0application/x-gzip";
    unsigned char value[256];
    uLongf length = sizeof(value) - sizeof(head);
    memcpy(value, head, sizeof(head));
    assert_int_equal(compress(value + sizeof(head), &length, (const unsigned char *)SUCCESS,
                              sizeof(SUCCESS) - 1),
                     Z_OK);
    redis_server_do(&stage->server, "SET celery-task-meta-one %b", value, sizeof(head) + length);
    redis_server_do(&stage->server, "SET celery-task-meta-two %b", value, sizeof(head) + 3);
    open_backend(stage);
    store(stage, "one", FAILURE);
    store(stage, "two", FAILURE);
    loop_until(stage->loop, are_stored, stage);
    expect_stored(stage, "celery-task-meta-one", "");
    expect_stored(stage, "celery-task-meta-two", FAILURE);
}

static void test_keeps_the_order_of_one_task(void **state)
{
    struct stage *stage = *state;
    listen_to_all(stage);
    open_backend(stage);
    store(stage, "one", STARTED);
    store(stage, "one", SUCCESS);
    store(stage, "one", FAILURE);
    store(stage, "other", STARTED);
    loop_until(stage->loop, are_stored, stage);
    loop_until_later(stage->loop, 20);
    expect_stored(stage, "celery-task-meta-one", SUCCESS);
    expect_stored(stage, "celery-task-meta-other", STARTED);
    assert_int_equal(stage->publication_count, 3);
}

static void test_stores_thousands_in_one_turn(void **state)
{
    struct stage *stage = *state;
    char id[32];
    open_backend(stage);
    for (int index = 0; index < 5000; index++) {
        (void)snprintf(id, sizeof(id), "task-%d", index);
        store(stage, id, SUCCESS);
    }
    loop_until(stage->loop, are_stored, stage);
    assert_int_equal(stage->failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "DBSIZE"), 5000);
}

static void test_reads_states(void **state)
{
    struct stage *stage = *state;
    redis_server_do(&stage->server, "SET celery-task-meta-one %s", SUCCESS);
    open_backend(stage);
    stage->backend->ops->fetch_state(stage->backend, BYTES("one"), on_state, stage);
    loop_until(stage->loop, has_state, stage);
    assert_string_equal(stage->state, "SUCCESS");
    stage->state_count = 0;
    stage->backend->ops->fetch_state(stage->backend, BYTES("two"), on_state, stage);
    loop_until(stage->loop, has_state, stage);
    assert_string_equal(stage->state, "");
}

static void test_adds_the_prefix_as_celery_does(void **state)
{
    struct stage *stage = *state;
    stage->options.global_keyprefix = "rpfx";
    open_backend(stage);
    store(stage, "one", SUCCESS);
    loop_until(stage->loop, are_stored, stage);
    expect_stored(stage, "rpfx_celery-task-meta-one", SUCCESS);
    close_backend(stage, 1000);
    stage->up_count = 0;
    stage->options.global_keyprefix = "rpfx:";
    open_backend(stage);
    store(stage, "two", SUCCESS);
    loop_until(stage->loop, are_stored, stage);
    expect_stored(stage, "rpfx:celery-task-meta-two", SUCCESS);
}

static void test_publishes_once_although_the_reply_was_lost(void **state)
{
    struct stage *stage = *state;
    listen_to_all(stage);
    stage->relay = relay_new(stage->loop, stage->server.port);
    stage->options.url.stream.port = relay_port(stage->relay);
    open_backend(stage);
    store(stage, "zero", SUCCESS);
    loop_until(stage->loop, are_stored, stage);
    store(stage, "one", FAILURE);
    /* The reply of EXEC gets lost, the one of MGET not: it is short. */
    while (redis_server_integer(&stage->server, "EXISTS celery-task-meta-one") == 0) {
        relay_set_mute(stage->relay, redis_server_integer(&stage->server, "DBSIZE") > 1);
        loop_run_once(stage->loop, false);
    }
    relay_set_mute(stage->relay, true);
    loop_until_later(stage->loop, 20);
    relay_cut(stage->relay);
    relay_set_mute(stage->relay, false);
    store(stage, "two", FAILURE); /* while it is away */
    loop_until(stage->loop, are_stored, stage);
    loop_until_later(stage->loop, 20);
    assert_int_equal(stage->failed_count, 0);
    assert_string_equal(stage->published,
                        "celery-task-meta-zero=" SUCCESS " celery-task-meta-one=" FAILURE
                        " celery-task-meta-two=" FAILURE " ");
}

static void store_progress(struct stage *stage, const char *id, const char *document,
                           int64_t expires_s)
{
    stage->backend->ops->store_progress(stage->backend, bytes_from_text(id),
                                        bytes_from_text(document), expires_s);
}

static bool has_published(void *context)
{
    const struct stage *stage = context;
    return stage->publication_count >= stage->expected_count;
}

static void test_stores_the_newest_progress(void **state)
{
    struct stage *stage = *state;
    stage->options.global_keyprefix = "p:";
    listen_to_all(stage);
    open_backend(stage);
    store_progress(stage, "one", STEP, 100);
    store_progress(stage, "one", LATER, 100);
    store_progress(stage, "two", STEP, 0);
    stage->expected_count = 2;
    loop_until(stage->loop, has_published, stage);
    store_progress(stage, "two", LATER, 0);
    stage->expected_count = 3;
    loop_until(stage->loop, has_published, stage);
    loop_until_later(stage->loop, 20);
    expect_stored(stage, "p:celery-task-meta-one", LATER);
    expect_stored(stage, "p:celery-task-meta-two", LATER);
    assert_true(redis_server_integer(&stage->server, "TTL p:celery-task-meta-one") > 90);
    assert_int_equal(redis_server_integer(&stage->server, "TTL p:celery-task-meta-two"), -1);
    assert_int_equal(stage->publication_count, 3);
}

static void test_progress_never_replaces_a_result(void **state)
{
    static const char *const stored[] = {SUCCESS, FAILURE, "{\"status\": \"REVOKED\"}", "not JSON",
                                         "7"};
    struct stage *stage = *state;
    char key[64];
    for (int index = 0; index < (int)ARRAY_LENGTH(stored); index++) {
        redis_server_do(&stage->server, "SET celery-task-meta-%d %s", index, stored[index]);
    }
    redis_server_do(&stage->server, "SET celery-task-meta-last %s", STARTED);
    listen_to_all(stage);
    open_backend(stage);
    for (int index = 0; index < (int)ARRAY_LENGTH(stored); index++) {
        (void)snprintf(key, sizeof(key), "%d", index);
        store_progress(stage, key, STEP, 100);
    }
    store_progress(stage, "last", STEP, 100);
    stage->expected_count = 1;
    loop_until(stage->loop, has_published, stage);
    loop_until_later(stage->loop, 20);
    assert_string_equal(stage->published, "celery-task-meta-last=" STEP " ");
    for (int index = 0; index < (int)ARRAY_LENGTH(stored); index++) {
        (void)snprintf(key, sizeof(key), "celery-task-meta-%d", index);
        expect_stored(stage, key, stored[index]);
    }
}

static void test_progress_keeps_the_order_of_one_task(void **state)
{
    struct stage *stage = *state;
    listen_to_all(stage);
    open_backend(stage);
    store(stage, "one", STARTED);
    store_progress(stage, "one", STEP, 100);
    stage->expected_count = 2;
    loop_until(stage->loop, has_published, stage);
    store_progress(stage, "one", LATER, 100); /* which the result overtakes */
    store(stage, "one", FAILURE);
    stage->expected_count = 3;
    loop_until(stage->loop, has_published, stage);
    loop_until_later(stage->loop, 20);
    assert_string_equal(stage->published,
                        "celery-task-meta-one=" STARTED " celery-task-meta-one=" STEP
                        " celery-task-meta-one=" FAILURE " ");
}

static void test_progress_survives_a_broken_connection(void **state)
{
    struct stage *stage = *state;
    listen_to_all(stage);
    stage->relay = relay_new(stage->loop, stage->server.port);
    stage->options.url.stream.port = relay_port(stage->relay);
    open_backend(stage);
    relay_set_mute(stage->relay, true);
    store_progress(stage, "one", STEP, 100); /* stored, but the reply gets lost */
    stage->expected_count = 1;
    loop_until(stage->loop, has_published, stage);
    relay_cut(stage->relay);
    relay_set_mute(stage->relay, false);
    store_progress(stage, "one", LATER, 100);
    store_progress(stage, "two", STEP, 100);
    store_progress(stage, "two", LATER, 100); /* while it is away */
    stage->expected_count = 3;
    loop_until(stage->loop, has_published, stage);
    expect_stored(stage, "celery-task-meta-one", LATER);
    expect_stored(stage, "celery-task-meta-two", LATER);
    assert_int_equal(stage->publication_count, 3);
}

/* Begins to store `one` and loses the connection while another worker stores OTHER. */
static void store_late(struct stage *stage, bool is_shared)
{
    stage->relay = relay_new(stage->loop, stage->server.port);
    stage->options.url.stream.port = relay_port(stage->relay);
    open_backend(stage);
    relay_set_mute(stage->relay, true);
    const struct result_ops *ops = stage->backend->ops;
    (is_shared ? ops->store_once : ops->store)(stage->backend, BYTES("one"), BYTES(FAILURE), 100,
                                               on_stored, stage);
    stage->expected_count++;
    loop_until_later(stage->loop, 20);
    redis_server_do(&stage->server, "SET celery-task-meta-one %s", OTHER);
    relay_cut(stage->relay);
    relay_set_mute(stage->relay, false);
    loop_until(stage->loop, are_stored, stage);
    loop_until_later(stage->loop, 20);
}

static void test_leaves_what_was_stored_meanwhile(void **state)
{
    struct stage *stage = *state;
    listen_to_all(stage);
    store_late(stage, true);
    expect_stored(stage, "celery-task-meta-one", OTHER);
    assert_int_equal(stage->publication_count, 0);
}

static void test_replaces_what_is_nobody_elses(void **state)
{
    struct stage *stage = *state;
    listen_to_all(stage);
    store_late(stage, false);
    expect_stored(stage, "celery-task-meta-one", FAILURE);
    assert_int_equal(stage->publication_count, 1);
}

/* As after SIGSTOP: the answer was there in time, and nobody read it. */
static void test_reads_again_what_was_read_long_ago(void **state)
{
    struct stage *stage = *state;
    loop_free(&stage->loop);
    stage->loop = loop_new(LOOP_CLOCK_VIRTUAL);
    stage->relay = relay_new(stage->loop, stage->server.port); /* takes turns of its own */
    stage->options.url.stream.port = relay_port(stage->relay);
    open_backend(stage);
    stage->backend->ops->store_once(stage->backend, BYTES("one"), BYTES(FAILURE), 100, on_stored,
                                    stage);
    stage->expected_count++;
    loop_run_once(stage->loop, false);
    redis_server_do(&stage->server, "SET celery-task-meta-one %s", OTHER);
    loop_advance(stage->loop, 6000);
    loop_until(stage->loop, are_stored, stage);
    expect_stored(stage, "celery-task-meta-one", OTHER);
}

static void test_tries_again_while_memory_is_out(void **state)
{
    struct stage *stage = *state;
    open_backend(stage);
    redis_server_do(&stage->server, "CONFIG SET maxmemory 1");
    store(stage, "one", SUCCESS);
    loop_until_later(stage->loop, 300);
    assert_int_equal(stage->stored_count, 0);
    assert_false(stage->backend->ops->is_up(stage->backend));
    redis_server_do(&stage->server, "CONFIG SET maxmemory 0");
    loop_until(stage->loop, are_stored, stage);
    assert_int_equal(stage->failed_count, 0);
    assert_true(stage->backend->ops->is_up(stage->backend));
}

static void test_flushes_before_it_closes(void **state)
{
    struct stage *stage = *state;
    open_backend(stage);
    store(stage, "one", SUCCESS);
    close_backend(stage, 5000);
    assert_int_equal(stage->stored_count, 1);
    assert_int_equal(stage->failed_count, 0);
    expect_stored(stage, "celery-task-meta-one", SUCCESS);
}

static void test_closes_in_time_without_a_server(void **state)
{
    struct stage *stage = *state;
    open_backend(stage);
    redis_server_kill(&stage->server);
    store(stage, "one", SUCCESS);
    int64_t start_ms = loop_now_ms(stage->loop);
    close_backend(stage, 100);
    assert_true(loop_now_ms(stage->loop) - start_ms < 1000);
    assert_int_equal(stage->failed_count, 1);
}

static void test_refuses_what_no_redis_takes(void **state)
{
    struct stage *stage = *state;
    open_backend(stage);
    /* Its bytes are never looked at. */
    stage->backend->ops->store(stage->backend, BYTES("one"),
                               bytes_of(SUCCESS, ((size_t)512 << 20) + 1), 100, on_stored, stage);
    stage->expected_count++;
    assert_int_equal(stage->stored_count, 0);
    loop_until(stage->loop, are_stored, stage);
    assert_int_equal(stage->failed_count, 1);
    assert_int_equal(stage->error.kind, ERROR_TOO_LARGE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stores_and_publishes),
        TEST(test_never_replaces_a_success),
        TEST(test_looks_into_compressed_documents),
        TEST(test_keeps_the_order_of_one_task),
        TEST(test_stores_thousands_in_one_turn),
        TEST(test_reads_states),
        TEST(test_adds_the_prefix_as_celery_does),
        TEST(test_publishes_once_although_the_reply_was_lost),
        TEST(test_stores_the_newest_progress),
        TEST(test_progress_never_replaces_a_result),
        TEST(test_progress_keeps_the_order_of_one_task),
        TEST(test_progress_survives_a_broken_connection),
        TEST(test_leaves_what_was_stored_meanwhile),
        TEST(test_replaces_what_is_nobody_elses),
        TEST(test_reads_again_what_was_read_long_ago),
        TEST(test_tries_again_while_memory_is_out),
        TEST(test_flushes_before_it_closes),
        TEST(test_closes_in_time_without_a_server),
        TEST(test_refuses_what_no_redis_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
