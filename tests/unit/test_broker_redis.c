#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/broker_client.h"
#include "support/loop_until.h"

static void test_chooses_the_step_as_kombu_does(void **state)
{
    static const int steps[] = {0, 3, 6, 9};
    static const int late[] = {3, 6};
    static const int expected[] = {0, 0, 0, 3, 3, 3, 6, 6, 6, 9};
    (void)state;
    for (int priority = 0; priority < 10; priority++) {
        assert_int_equal(broker_redis_step(steps, 4, priority), expected[priority]);
    }
    assert_int_equal(broker_redis_step(steps, 4, -5), 0);
    assert_int_equal(broker_redis_step(steps, 4, 255), 9);
    assert_int_equal(broker_redis_step(late, 2, 1), 6); /* Python's steps[-1] */
}

static void test_gives_everything_back_when_it_closes(void **state)
{
    struct broker_stage *stage = *state;
    char text[512];
    broker_client_push(&stage->server, "celery", "one");
    broker_client_push(&stage->server, "celery", "two");
    broker_client_push(&stage->server, "celery", "three");
    broker_client_open(&stage->a, 2);
    broker_client_await(&stage->a, 2);
    broker_client_close(&stage->a, 5000);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked unacked_index"), 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 3);
    redis_server_text(&stage->server, text, sizeof(text), "LRANGE celery -1 -1");
    assert_non_null(strstr(text, "\"one\""));
    assert_non_null(strstr(text, "\"redelivered\": true"));
    redis_server_text(&stage->server, text, sizeof(text), "LRANGE celery 0 0");
    assert_non_null(strstr(text, "\"three\""));
}

static void test_finishes_what_was_asked_before_it_closes(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_push(&stage->server, "celery", "one");
    broker_client_open(&stage->a, 1);
    broker_client_await(&stage->a, 1);
    struct publication publication = {
        .routing_key = BYTES("other"), .headers = BYTES("{}"), .delivery_tag = BYTES("t")};
    broker_client_settle(&stage->a, 0, SETTLEMENT_ACK);
    stage->a.broker->ops->publish(stage->a.broker, &publication, broker_client_on_done, &stage->a);
    broker_client_close(&stage->a, 5000);
    assert_int_equal(stage->a.done_count, 2);
    assert_int_equal(stage->a.failed_count, 0);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN other"), 1);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked celery"), 0);
}

static void test_gives_back_what_was_on_its_way_when_it_closed(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_open(&stage->a, 0);
    for (int index = 0; index < 20; index++) {
        broker_client_push(&stage->server, "celery", "m");
    }
    stage->a.broker->ops->set_free_places(stage->a.broker, 10);
    loop_run_once(stage->loop, false); /* the pop is asked for, or will be, at any of these turns */
    loop_run_once(stage->loop, false);
    broker_client_close(&stage->a, 5000);
    assert_int_equal(redis_server_integer(&stage->server, "LLEN celery"), 20);
    assert_int_equal(redis_server_integer(&stage->server, "EXISTS unacked"), 0);
}

static void test_closes_in_time_without_a_server(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_push(&stage->server, "celery", "one");
    broker_client_open(&stage->a, 1);
    broker_client_await(&stage->a, 1);
    redis_server_kill(&stage->server);
    loop_until_later(stage->loop, 20);
    broker_client_settle(&stage->a, 0, SETTLEMENT_ACK);
    int64_t start_ms = loop_now_ms(stage->loop);
    broker_client_close(&stage->a, 100);
    assert_true(loop_now_ms(stage->loop) - start_ms < 1000);
    assert_int_equal(stage->a.done_count, 1);
    assert_int_equal(stage->a.failed_count, 1);
}

static bool is_down(void *context)
{
    return ((struct broker_client *)context)->down_count > 0;
}

static void test_refuses_a_replica(void **state)
{
    struct broker_stage *stage = *state;
    broker_client_open(&stage->a, 1);
    redis_server_do(&stage->server, "REPLICAOF 127.0.0.1 1");
    redis_server_do(&stage->server, "CLIENT KILL TYPE normal SKIPME yes");
    loop_until(stage->loop, is_down, &stage->a);
    loop_until_later(stage->loop, 500);
    assert_int_equal(stage->a.up_count, 1);
    assert_non_null(strstr(stage->a.down_error.message, "replica"));
    redis_server_do(&stage->server, "REPLICAOF NO ONE");
    broker_client_push(&stage->server, "celery", "m");
    broker_client_await(&stage->a, 1);
}

/* A server that greets as Redis does and answers everything after that with its version. */
struct old_server {
    int listener;
    const char *hello;
    pthread_t thread;
};

static void *serve(void *context)
{
    static const char greeting[] = "+OK\r\n:7\r\n+PONG\r\n";
    const struct old_server *server = context;
    char request[4096];
    int peer = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
    while (peer >= 0) {
        if (recv(peer, request, sizeof(request), 0) > 0
            && send(peer, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL) > 0
            && recv(peer, request, sizeof(request), 0) > 0) {
            (void)send(peer, server->hello, strlen(server->hello), MSG_NOSIGNAL);
            (void)recv(peer, request, sizeof(request), 0);
        }
        (void)close(peer);
        peer = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
    }
    return NULL;
}

static void expect_unsupported(struct broker_stage *stage, const char *hello, const char *sentence)
{
    struct old_server server = {.hello = hello};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(server.listener, 4), 0);
    assert_int_equal(getsockname(server.listener, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
    stage->a.options.url.stream.port = ntohs(address.sin_port);
    stage->a.down_count = 0;
    broker_client_start(&stage->a);
    loop_until(stage->loop, is_down, &stage->a);
    broker_client_close(&stage->a, 0);
    (void)shutdown(server.listener, SHUT_RDWR);
    (void)pthread_join(server.thread, NULL);
    (void)close(server.listener);
    assert_int_equal(stage->a.down_error.kind, ERROR_UNSUPPORTED);
    assert_non_null(strstr(stage->a.down_error.message, sentence));
    assert_int_equal(stage->a.up_count, 0);
}

static void test_refuses_an_old_server(void **state)
{
    expect_unsupported(*state,
                       "*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n",
                       "Redis 6.2 or newer, or Valkey, is needed, this is 6.0.16");
    expect_unsupported(*state, "-ERR unknown command `HELLO`\r\n", "this is an older one");
}

static void test_works_with_the_rights_of_a_tenant(void **state)
{
    struct broker_stage *stage = *state;
    struct error error;
    char url[128];
    redis_server_do(&stage->server,
                    "ACL SETUSER tenant on >secret resetkeys ~celery ~celery\x06\x16* ~unacked* "
                    "~petiole:* ~_kombu.* resetchannels &__redis__:invalidate -@all +@read +@write "
                    "+@connection +@transaction +@scripting +@pubsub -@dangerous");
    (void)snprintf(url, sizeof(url), "redis://tenant:secret@127.0.0.1:%u/3",
                   (unsigned)stage->server.port);
    assert_true(redis_url_parse(url, false, stage->a.texts, &stage->a.options.url, &error));
    redis_server_do(&stage->server, "SELECT 3");
    broker_client_push(&stage->server, "celery", "m");
    broker_client_open(&stage->a, 5);
    broker_client_await(&stage->a, 1);
    broker_client_settle(&stage->a, 0, SETTLEMENT_ACK);
    broker_client_await_done(&stage->a, 1);
    loop_until_later(stage->loop, 300);
    assert_int_equal(stage->a.notice_count, 0);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, broker_stage_set_up, broker_stage_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chooses_the_step_as_kombu_does),
        TEST(test_gives_everything_back_when_it_closes),
        TEST(test_finishes_what_was_asked_before_it_closes),
        TEST(test_gives_back_what_was_on_its_way_when_it_closed),
        TEST(test_closes_in_time_without_a_server),
        TEST(test_refuses_a_replica),
        TEST(test_refuses_an_old_server),
        TEST(test_works_with_the_rights_of_a_tenant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
