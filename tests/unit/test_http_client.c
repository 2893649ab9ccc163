#include "base/http_client.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <time.h>

#include "base/memory.h"
#include "support/http_server.h"

#define URL_BYTES     64
#define REQUEST_BYTES 8192
#define GUARD_MS      10000
#define SLOW_PIECES   5
#define SLOW_PAUSE_MS 500

struct fixture {
    struct loop *loop;
    struct http_client *client;
    struct http_server *server;
    struct timer guard;
    bool is_late;
    int answers;
    int status;
    int64_t retry_after_ms;
    enum error_kind error_kind;
    bool is_unsent;
    char body[REQUEST_BYTES];
    size_t body_bytes;
    char pieces[REQUEST_BYTES];
    size_t piece_bytes;
    struct http_request *to_cancel;
    bool frees_client;
};

/* Takes longer in all than the silence that the test allows, but never stops for so long. */
static void speak_slowly(int descriptor)
{
    const struct timespec pause = {.tv_nsec = SLOW_PAUSE_MS * 1000000L};
    http_server_write(descriptor, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int count = 0; count < SLOW_PIECES; count++) {
        http_server_write(descriptor, "4\r\none\n\r\n");
        (void)nanosleep(&pause, NULL);
    }
    http_server_write(descriptor, "0\r\n\r\n");
}

static void answer(void *context, int descriptor, const char *request, int number)
{
    (void)context;
    (void)number;
    if (strstr(request, " /ok ")) {
        http_server_write(descriptor, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    } else if (strstr(request, " /busy ")) {
        http_server_write(descriptor, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n"
                                      "Content-Length: 4\r\n\r\nwait");
    } else if (strstr(request, " /cut ")) {
        http_server_write(descriptor, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf");
    } else if (strstr(request, " /stream ")) {
        http_server_write(descriptor, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                      "4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n");
    } else if (strstr(request, " /open ")) {
        http_server_write(descriptor, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                      "4\r\none\n\r\n");
        http_server_linger(descriptor);
    } else if (strstr(request, " /slow ")) {
        speak_slowly(descriptor);
    } else {
        http_server_linger(descriptor); /* /silent */
    }
}

static void on_guard(void *context)
{
    struct fixture *f = context;
    f->is_late = true;
}

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    struct http_client_options options = {.connect_timeout_ms = 2000, .user_agent = "test/1"};
    f->loop = loop_new(LOOP_CLOCK_REAL);
    f->client = http_client_new(f->loop, &options, NULL);
    f->guard = (struct timer){.on_due = on_guard, .context = f};
    loop_start_timer(f->loop, &f->guard, GUARD_MS);
    f->server = http_server_start(answer, NULL);
    *state = f;
    return f->client ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    http_client_free(&f->client);
    http_server_stop(&f->server);
    loop_stop_timer(f->loop, &f->guard);
    loop_free(&f->loop);
    memory_free(&f);
    return 0;
}

static void on_answer(void *context, const struct http_answer *answer)
{
    struct fixture *f = context;
    f->answers++;
    f->status = answer->status;
    f->retry_after_ms = answer->retry_after_ms;
    f->error_kind = answer->error ? answer->error->kind : ERROR_NONE;
    f->is_unsent = answer->is_unsent;
    f->body_bytes = answer->body.length;
    if (answer->body.length > 0) {
        assert_true(answer->body.length < sizeof(f->body));
        memcpy(f->body, answer->body.data, answer->body.length);
    }
    if (f->frees_client) {
        http_client_free(&f->client);
    }
}

static void on_piece(void *context, struct bytes piece)
{
    struct fixture *f = context;
    assert_true(f->piece_bytes + piece.length < sizeof(f->pieces));
    memcpy(f->pieces + f->piece_bytes, piece.data, piece.length);
    f->piece_bytes += piece.length;
    http_client_cancel(&f->to_cancel);
}

static struct http_request *send_call(struct fixture *f, struct http_call call, const char *path,
                                      http_piece_fn *piece)
{
    char url[URL_BYTES];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", (int)http_server_port(f->server),
                   path);
    call.url = url;
    call.method = call.method ? call.method : "GET";
    call.max_answer_bytes = call.max_answer_bytes ? call.max_answer_bytes : sizeof(f->body);
    call.timeout_ms = call.timeout_ms ? call.timeout_ms : GUARD_MS;
    return http_client_send(f->client, &call, piece, on_answer, f);
}

static void run_until_answers(struct fixture *f, int count)
{
    while (f->answers < count && !f->is_late) {
        loop_run_once(f->loop, true);
    }
    assert_false(f->is_late);
}

static void gives_the_whole_answer(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){0}, "/ok", NULL);
    assert_int_equal(0, f->answers);
    run_until_answers(f, 1);
    assert_int_equal(200, f->status);
    assert_int_equal(-1, f->retry_after_ms);
    assert_memory_equal("hello", f->body, 5);
    assert_int_equal(5, f->body_bytes);
    assert_non_null(strstr(http_server_last(f->server), "User-Agent: test/1\r\n"));
    assert_null(strstr(http_server_last(f->server), "Authorization"));
}

static void sends_method_token_and_body(void **state)
{
    struct fixture *f = *state;
    struct http_call call = {.method = "PATCH",
                             .bearer_token = "secret",
                             .content_type = "application/merge-patch+json",
                             .body = BYTES("{\"a\":1}")};
    (void)send_call(f, call, "/ok", NULL);
    run_until_answers(f, 1);
    assert_int_equal(0, strncmp(http_server_last(f->server), "PATCH /ok HTTP/1.1\r\n", 20));
    assert_non_null(strstr(http_server_last(f->server), "Authorization: Bearer secret\r\n"));
    assert_non_null(
        strstr(http_server_last(f->server), "Content-Type: application/merge-patch+json\r\n"));
    assert_non_null(strstr(http_server_last(f->server), "\r\n\r\n{\"a\":1}"));
    assert_null(strstr(http_server_last(f->server), "Expect"));
}

static void sends_nothing_of_the_call_before(void **state)
{
    struct fixture *f = *state;
    struct http_call call = {.method = "POST",
                             .bearer_token = "secret",
                             .content_type = "application/json",
                             .body = BYTES("{}")};
    (void)send_call(f, call, "/ok", NULL);
    run_until_answers(f, 1);
    (void)send_call(f, (struct http_call){.method = "DELETE"}, "/ok", NULL);
    run_until_answers(f, 2);
    assert_int_equal(0, strncmp(http_server_last(f->server), "DELETE /ok HTTP/1.1\r\n", 21));
    assert_null(strstr(http_server_last(f->server), "secret"));
    assert_null(strstr(http_server_last(f->server), "Content-"));
}

static void reads_retry_after(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){0}, "/busy", NULL);
    run_until_answers(f, 1);
    assert_int_equal(429, f->status);
    assert_int_equal(7000, f->retry_after_ms);
    assert_memory_equal("wait", f->body, 4);
}

static void refuses_a_longer_answer(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){.max_answer_bytes = 4}, "/ok", NULL);
    run_until_answers(f, 1);
    assert_int_equal(0, f->status);
    assert_int_equal(ERROR_TOO_LARGE, f->error_kind);
}

static void tells_a_cut_answer_from_a_whole_one(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){0}, "/cut", NULL);
    run_until_answers(f, 1);
    assert_int_equal(0, f->status);
    assert_int_equal(ERROR_TEMPORARY, f->error_kind);
    assert_false(f->is_unsent);
}

static void gives_up_on_a_silent_server(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){.timeout_ms = 50}, "/silent", NULL);
    run_until_answers(f, 1);
    assert_int_equal(ERROR_TIMEOUT, f->error_kind);
    assert_false(f->is_unsent);
}

static void says_when_nobody_listens(void **state)
{
    struct fixture *f = *state;
    struct http_call call = {
        .method = "GET", .url = "http://127.0.0.1:1/", .timeout_ms = 1000, .max_answer_bytes = 10};
    (void)http_client_send(f->client, &call, NULL, on_answer, f);
    run_until_answers(f, 1);
    assert_int_equal(ERROR_TEMPORARY, f->error_kind);
    assert_true(f->is_unsent);
}

static void hands_up_pieces_before_the_end(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){0}, "/stream", on_piece);
    run_until_answers(f, 1);
    assert_int_equal(200, f->status);
    assert_int_equal(8, f->piece_bytes);
    assert_memory_equal("one\ntwo\n", f->pieces, 8);
    assert_int_equal(0, f->body_bytes);
}

static void gives_a_refused_stream_as_an_answer(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){0}, "/busy", on_piece);
    run_until_answers(f, 1);
    assert_int_equal(429, f->status);
    assert_int_equal(0, f->piece_bytes);
    assert_memory_equal("wait", f->body, 4);
}

static void ends_a_stream_that_falls_silent(void **state)
{
    struct fixture *f = *state;
    (void)send_call(f, (struct http_call){.timeout_ms = 50}, "/open", on_piece);
    run_until_answers(f, 1);
    assert_int_equal(0, f->status);
    assert_int_equal(ERROR_TIMEOUT, f->error_kind);
    assert_int_equal(4, f->piece_bytes);
}

/* Replaces the client by one that gives up connections which are silent for `silence_ms`. */
static void limit_silence(struct fixture *f, int64_t silence_ms)
{
    struct http_client_options options = {.connect_timeout_ms = 2000, .silence_ms = silence_ms};
    http_client_free(&f->client);
    f->client = http_client_new(f->loop, &options, NULL);
    assert_non_null(f->client);
}

static void closes_a_connection_that_falls_silent(void **state)
{
    struct fixture *f = *state;
    limit_silence(f, 50);
    (void)send_call(f, (struct http_call){0}, "/open", on_piece);
    run_until_answers(f, 1);
    assert_int_equal(0, f->status);
    assert_int_equal(ERROR_TEMPORARY, f->error_kind);
    assert_int_equal(4, f->piece_bytes);
    (void)send_call(f, (struct http_call){0}, "/silent", NULL);
    run_until_answers(f, 2);
    assert_int_equal(ERROR_TEMPORARY, f->error_kind);
    (void)send_call(f, (struct http_call){0}, "/ok", NULL);
    run_until_answers(f, 3);
    assert_int_equal(200, f->status);
}

static void allows_silence_when_told_to(void **state)
{
    struct fixture *f = *state;
    limit_silence(f, 50);
    http_client_allow_silence(f->client);
    (void)send_call(f, (struct http_call){.timeout_ms = 200}, "/silent", NULL);
    run_until_answers(f, 1);
    assert_int_equal(ERROR_TIMEOUT, f->error_kind);
}

static void leaves_a_connection_that_speaks(void **state)
{
    struct fixture *f = *state;
    limit_silence(f, 2000);
    (void)send_call(f, (struct http_call){0}, "/slow", on_piece);
    run_until_answers(f, 1);
    assert_int_equal(200, f->status);
    assert_int_equal(SLOW_PIECES * 4, f->piece_bytes);
}

static void cancels_from_a_piece_without_an_answer(void **state)
{
    struct fixture *f = *state;
    f->to_cancel = send_call(f, (struct http_call){0}, "/open", on_piece);
    while (f->piece_bytes == 0 && !f->is_late) {
        loop_run_once(f->loop, true);
    }
    assert_null(f->to_cancel);
    (void)send_call(f, (struct http_call){0}, "/ok", NULL);
    run_until_answers(f, 1);
    assert_int_equal(200, f->status);
}

static void cancels_before_it_was_sent(void **state)
{
    struct fixture *f = *state;
    struct http_request *request = send_call(f, (struct http_call){0}, "/ok", NULL);
    http_client_cancel(&request);
    assert_null(request);
    (void)send_call(f, (struct http_call){0}, "/busy", NULL);
    run_until_answers(f, 1);
    assert_int_equal(429, f->status);
}

static void may_be_freed_by_a_callback(void **state)
{
    struct fixture *f = *state;
    f->frees_client = true;
    (void)send_call(f, (struct http_call){0}, "/ok", NULL);
    (void)send_call(f, (struct http_call){0}, "/silent", NULL);
    run_until_answers(f, 1);
    assert_null(f->client);
    assert_int_equal(1, f->answers);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(gives_the_whole_answer),
        TEST(sends_method_token_and_body),
        TEST(sends_nothing_of_the_call_before),
        TEST(reads_retry_after),
        TEST(refuses_a_longer_answer),
        TEST(tells_a_cut_answer_from_a_whole_one),
        TEST(gives_up_on_a_silent_server),
        TEST(says_when_nobody_listens),
        TEST(hands_up_pieces_before_the_end),
        TEST(gives_a_refused_stream_as_an_answer),
        TEST(ends_a_stream_that_falls_silent),
        TEST(closes_a_connection_that_falls_silent),
        TEST(allows_silence_when_told_to),
        TEST(leaves_a_connection_that_speaks),
        TEST(cancels_from_a_piece_without_an_answer),
        TEST(cancels_before_it_was_sent),
        TEST(may_be_freed_by_a_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
