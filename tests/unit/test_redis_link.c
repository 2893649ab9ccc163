#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "base/memory.h"
#include "base/redis_link.h"
#include "support/loop_until.h"
#include "support/redis_server.h"

struct fixture {
    struct redis_server server;
    struct loop *loop;
    struct arena *arena;
    struct redis_link *link;
    int up_count;
    int down_count;
    struct error error;
    int push_count;
    char pushed[64];
    int reply_count;
    int null_count;
    char text[64]; /* of the last reply */
    int64_t number;
    size_t length;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    redis_server_start(&fixture->server, true);
    fixture->loop = loop_new(LOOP_CLOCK_REAL);
    fixture->arena = arena_new(0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    redis_link_close(&fixture->link);
    loop_free(&fixture->loop);
    arena_free(&fixture->arena);
    redis_server_stop(&fixture->server);
    memory_free(&fixture);
    return 0;
}

static void on_up(void *context)
{
    struct fixture *fixture = context;
    fixture->up_count++;
}

static void on_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct fixture *fixture = context;
    assert_true(retry_ms > 0);
    fixture->down_count++;
    fixture->error = *error;
}

static void on_push(void *context, const redisReply *reply)
{
    struct fixture *fixture = context;
    fixture->push_count++;
    (void)snprintf(fixture->pushed, sizeof(fixture->pushed), "%s",
                   reply->element[reply->elements - 1]->str);
}

static void on_reply(void *context, const redisReply *reply)
{
    struct fixture *fixture = context;
    fixture->reply_count++;
    if (!reply) {
        fixture->null_count++;
        return;
    }
    struct bytes text = redis_link_text(reply);
    fixture->number = reply->integer;
    fixture->length = text.length;
    (void)snprintf(fixture->text, sizeof(fixture->text), "%.*s", BYTES_FORMAT(text));
}

static bool is_up(void *context)
{
    const struct fixture *fixture = context;
    return redis_link_is_up(fixture->link);
}

static bool is_down(void *context)
{
    const struct fixture *fixture = context;
    return fixture->down_count > 0;
}

static bool has_all_replies(void *context)
{
    const struct fixture *fixture = context;
    return redis_link_waiting_count(fixture->link) == 0;
}

static bool has_reply(void *context)
{
    const struct fixture *fixture = context;
    return fixture->reply_count > 0;
}

static bool has_push(void *context)
{
    const struct fixture *fixture = context;
    return fixture->push_count > 0;
}

static void open_link(struct fixture *fixture, const char *url_text)
{
    static const struct redis_link_events events = {on_up, on_down, on_push};
    struct redis_url url;
    struct error error = {0};
    if (!redis_url_parse(url_text, false, fixture->arena, &url, &error)) {
        fail_msg("%s", error.message);
    }
    fixture->link = redis_link_open(fixture->loop, &url, "petiole-test", &events, fixture);
}

static void command(struct fixture *fixture, const char *name, const char *argument)
{
    struct bytes arguments[] = {bytes_from_text(name), bytes_from_text(argument)};
    redis_link_command(fixture->link, arguments, argument ? 2 : 1, on_reply, fixture);
}

static void test_answers_pipelined_commands_in_order(void **state)
{
    struct fixture *fixture = *state;
    open_link(fixture, fixture->server.url);
    loop_until(fixture->loop, is_up, fixture);
    for (int index = 1; index <= 1000; index++) {
        command(fixture, "INCR", "n");
    }
    assert_int_equal(fixture->reply_count, 0);
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_int_equal(fixture->reply_count, 1000);
    assert_int_equal(fixture->number, 1000);
    redis_link_begin(fixture->link, 3);
    redis_link_argument_text(fixture->link, "SET");
    redis_link_argument_integer(fixture->link, INT64_MIN);
    redis_link_argument_integer(fixture->link, INT64_MAX);
    redis_link_end(fixture->link, on_reply, fixture);
    command(fixture, "GET", "-9223372036854775808");
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_string_equal(fixture->text, "9223372036854775807");
}

static void test_moves_large_values(void **state)
{
    struct fixture *fixture = *state;
    size_t length = (size_t)20 * 1024 * 1024;
    char *large = memory_new(length);
    memset(large, 'x', length);
    open_link(fixture, fixture->server.url);
    loop_until(fixture->loop, is_up, fixture);
    struct bytes set[] = {BYTES("SET"), BYTES("large"), bytes_of(large, length)};
    redis_link_command(fixture->link, set, ARRAY_LENGTH(set), on_reply, fixture);
    command(fixture, "GET", "large");
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_true(fixture->length == length);
    memory_free(&large);
}

static void test_logs_in_and_selects(void **state)
{
    struct fixture *fixture = *state;
    redis_server_do(&fixture->server, "ACL SETUSER alice on >s3c/ret ~* &* +@all");
    redis_server_do(&fixture->server, "ACL SETUSER default >root");
    redis_server_do(&fixture->server, "AUTH root");
    char url[128];
    (void)snprintf(url, sizeof(url), "redis://alice:s3c%%2Fret@localhost:%u/7",
                   (unsigned)fixture->server.port);
    open_link(fixture, url);
    loop_until(fixture->loop, is_up, fixture);
    assert_true(redis_link_id(fixture->link) > 0);
    command(fixture, "CLIENT", "LIST");
    command(fixture, "ACL", "WHOAMI");
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_string_equal(fixture->text, "alice");
    struct bytes set[] = {BYTES("SET"), BYTES("here"), BYTES("1")};
    redis_link_command(fixture->link, set, ARRAY_LENGTH(set), on_reply, fixture);
    loop_until(fixture->loop, has_all_replies, fixture);
    redis_server_do(&fixture->server, "SELECT 7");
    assert_int_equal(redis_server_integer(&fixture->server, "EXISTS here"), 1);
}

static void test_reports_a_refused_password(void **state)
{
    struct fixture *fixture = *state;
    char url[128];
    (void)snprintf(url, sizeof(url), "redis://alice:wrong@127.0.0.1:%u/0",
                   (unsigned)fixture->server.port);
    open_link(fixture, url);
    loop_until(fixture->loop, is_down, fixture);
    assert_int_equal(fixture->error.kind, ERROR_REFUSED);
    assert_null(strstr(fixture->error.message, "wrong@"));
    assert_non_null(strstr(fixture->error.message, "WRONGPASS"));
    assert_null(strstr(fixture->error.message, "redis://"));
    assert_int_not_equal(fixture->error.message[strlen(fixture->error.message) - 1], '.');
    assert_int_equal(fixture->up_count, 0);
}

static void test_uses_a_unix_socket(void **state)
{
    struct fixture *fixture = *state;
    char url[128];
    (void)snprintf(url, sizeof(url), "redis+socket://%s", fixture->server.unix_path);
    open_link(fixture, url);
    loop_until(fixture->loop, is_up, fixture);
    command(fixture, "PING", NULL);
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_string_equal(fixture->text, "PONG");
}

static void open_tls(struct fixture *fixture, const char *host, const char *arguments)
{
    char url[256];
    (void)snprintf(url, sizeof(url), "rediss://%s:%u/0?%s%s%s", host,
                   (unsigned)fixture->server.tls_port, arguments,
                   strstr(arguments, "ssl_ca_certs=") ? fixture->server.directory : "",
                   strstr(arguments, "ssl_ca_certs=") ? "/ca.crt" : "");
    open_link(fixture, url);
}

static void test_speaks_tls(void **state)
{
    struct fixture *fixture = *state;
    size_t length = (size_t)3 * 1024 * 1024;
    char *large = memory_new(length);
    memset(large, 'x', length);
    open_tls(fixture, "localhost", "ssl_cert_reqs=required&ssl_ca_certs=");
    loop_until(fixture->loop, is_up, fixture);
    struct bytes set[] = {BYTES("SET"), BYTES("large"), bytes_of(large, length)};
    redis_link_command(fixture->link, set, ARRAY_LENGTH(set), on_reply, fixture);
    command(fixture, "GET", "large");
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_true(fixture->length == length);
    memory_free(&large);
}

static void test_checks_the_certificate(void **state)
{
    struct fixture *fixture = *state;
    open_tls(fixture, "localhost", "ssl_cert_reqs=required"); /* an unknown CA */
    loop_until(fixture->loop, is_down, fixture);
    assert_int_equal(fixture->error.kind, ERROR_REFUSED);
    redis_link_close(&fixture->link);
    fixture->down_count = 0;
    open_tls(fixture, "127.0.0.2", "ssl_cert_reqs=required&ssl_ca_certs="); /* nobody there */
    loop_until(fixture->loop, is_down, fixture);
    assert_int_equal(fixture->error.kind, ERROR_TEMPORARY);
    redis_link_close(&fixture->link);
    fixture->down_count = 0;
    open_tls(fixture, "127.0.0.1", "ssl_cert_reqs=none");
    loop_until(fixture->loop, is_up, fixture);
}

static void test_comes_back_after_a_crash(void **state)
{
    struct fixture *fixture = *state;
    open_link(fixture, fixture->server.url);
    loop_until(fixture->loop, is_up, fixture);
    struct bytes wait[] = {BYTES("BLPOP"), BYTES("never"), BYTES("0")};
    redis_link_command(fixture->link, wait, ARRAY_LENGTH(wait), on_reply, fixture);
    loop_until_later(fixture->loop, 20);
    redis_server_kill(&fixture->server);
    loop_until(fixture->loop, is_down, fixture);
    assert_int_equal(fixture->null_count, 1);
    command(fixture, "PING", NULL); /* while down */
    assert_int_equal(fixture->null_count, 1);
    loop_until_later(fixture->loop, 1);
    assert_int_equal(fixture->null_count, 2);
    redis_server_restart(&fixture->server);
    loop_until(fixture->loop, is_up, fixture);
    assert_int_equal(fixture->up_count, 2);
}

static void test_hands_up_messages_of_a_subscription(void **state)
{
    struct fixture *fixture = *state;
    open_link(fixture, fixture->server.url);
    loop_until(fixture->loop, is_up, fixture);
    command(fixture, "SUBSCRIBE", "news");
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_int_equal(fixture->reply_count, 1);
    assert_int_equal(redis_server_integer(&fixture->server, "PUBLISH news hello"), 1);
    loop_until(fixture->loop, has_push, fixture);
    assert_string_equal(fixture->pushed, "hello");
    command(fixture, "PING", NULL);
    loop_until(fixture->loop, has_all_replies, fixture);
    assert_int_equal(fixture->reply_count, 2);
}

static void close_in_reply(void *context, const redisReply *reply)
{
    struct fixture *fixture = context;
    fixture->reply_count++;
    fixture->null_count += reply ? 0 : 1;
    redis_link_close(&fixture->link);
}

static void test_may_be_closed_by_a_callback(void **state)
{
    struct fixture *fixture = *state;
    open_link(fixture, fixture->server.url);
    loop_until(fixture->loop, is_up, fixture);
    struct bytes ping = BYTES("PING");
    for (int index = 0; index < 3; index++) {
        redis_link_command(fixture->link, &ping, 1, close_in_reply, fixture);
    }
    loop_until(fixture->loop, has_reply, fixture);
    assert_int_equal(fixture->reply_count, 3);
    assert_int_equal(fixture->null_count, 2);
    assert_null(fixture->link);
    assert_int_equal(fixture->down_count, 0);
}

static void test_drops_on_request(void **state)
{
    struct fixture *fixture = *state;
    open_link(fixture, fixture->server.url);
    loop_until(fixture->loop, is_up, fixture);
    struct error error;
    (void)error_set(&error, ERROR_TEMPORARY, "of no use");
    command(fixture, "PING", NULL);
    redis_link_drop(fixture->link, &error);
    assert_int_equal(fixture->down_count, 1);
    assert_int_equal(fixture->null_count, 1);
    assert_string_equal(fixture->error.message, "of no use");
    loop_until(fixture->loop, is_up, fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers_pipelined_commands_in_order, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_moves_large_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_logs_in_and_selects, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reports_a_refused_password, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_uses_a_unix_socket, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_speaks_tls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_checks_the_certificate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_comes_back_after_a_crash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hands_up_messages_of_a_subscription, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_may_be_closed_by_a_callback, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_drops_on_request, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
