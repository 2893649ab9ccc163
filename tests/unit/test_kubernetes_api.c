#include "executor/kubernetes_api.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <sched.h>
#include <unistd.h>

#include "base/memory.h"
#include "support/http_server.h"

#define GUARD_MS    10000
#define TEXT_BYTES  1024
#define TOKEN_BYTES 64

struct fixture {
    struct loop *loop;
    struct http_server *server;
    struct kubernetes_api *api;
    struct timer guard;
    bool is_late;
    /* what the server says */
    int status;
    const char *head; /* instead of status and body */
    const char *body;
    /* what came */
    int answers;
    enum kubernetes_verdict verdict;
    bool may_be_done;
    int64_t retry_after_ms;
    char message[TEXT_BYTES];
    char body_text[TEXT_BYTES];
    char lines[TEXT_BYTES];
    struct kubernetes_call *to_cancel;
    char token_path[TOKEN_BYTES];
};

static void serve(void *context, int descriptor, const char *request, int number)
{
    struct fixture *f = context;
    (void)request;
    (void)number;
    if (f->head) {
        http_server_write(descriptor, f->head);
        http_server_write(descriptor, f->body);
    } else {
        http_server_answer(descriptor, f->status, f->body);
    }
}

static void on_guard(void *context)
{
    struct fixture *f = context;
    f->is_late = true;
}

static void write_token(struct fixture *f, const char *token)
{
    FILE *file = fopen(f->token_path, "we");
    assert_non_null(file);
    assert_true(fputs(token, file) >= 0);
    assert_int_equal(0, fclose(file));
}

/* Returns new: a client of the server. */
static struct kubernetes_api *api_on(struct fixture *f, struct loop *loop)
{
    char url[TOKEN_BYTES];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d", (int)http_server_port(f->server));
    struct kubeconfig config = {
        .server = url, .token_file = f->token_path, .origin = "test", .descriptors = {-1, -1, -1}};
    return kubernetes_api_new(loop, &config, "tenant-a", NULL);
}

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    f->loop = loop_new(LOOP_CLOCK_REAL);
    f->server = http_server_start(serve, f);
    f->guard = (struct timer){.on_due = on_guard, .context = f};
    loop_start_timer(f->loop, &f->guard, GUARD_MS);
    (void)snprintf(f->token_path, sizeof(f->token_path), "/tmp/petiole-token-%d", (int)getpid());
    write_token(f, "first\n");
    f->api = api_on(f, f->loop);
    *state = f;
    return f->api ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kubernetes_api_free(&f->api);
    http_server_stop(&f->server);
    (void)unlink(f->token_path);
    loop_stop_timer(f->loop, &f->guard);
    loop_free(&f->loop);
    memory_free(&f);
    return 0;
}

static void on_answer(void *context, const struct kubernetes_answer *answer)
{
    struct fixture *f = context;
    f->answers++;
    f->verdict = answer->verdict;
    f->may_be_done = answer->may_be_done;
    f->retry_after_ms = answer->retry_after_ms;
    (void)snprintf(f->message, sizeof(f->message), "%s", answer->message);
    (void)snprintf(f->body_text, sizeof(f->body_text), "%.*s", BYTES_FORMAT(answer->body.text));
}

static void run_until_answers(struct fixture *f, int count)
{
    while (f->answers < count && !f->is_late) {
        loop_run_once(f->loop, true);
    }
    assert_false(f->is_late);
}

/* Asks for "batch/v1 jobs" and waits for the answer. */
static void ask(struct fixture *f, const char *method, const char *name, const char *query,
                const char *body)
{
    (void)kubernetes_api_call(f->api,
                              &(struct kubernetes_request){.method = method,
                                                           .resource = "batch/v1 jobs",
                                                           .name = name,
                                                           .query = query,
                                                           .body = bytes_from_text(body)},
                              on_answer, f);
    run_until_answers(f, f->answers + 1);
}

static void assert_asked(struct fixture *f, const char *line)
{
    assert_int_equal(0, strncmp(http_server_last(f->server), line, strlen(line)));
}

static void makes_paths(void **state)
{
    struct fixture *f = *state;
    f->status = 200;
    f->body = "{\"kind\":\"Job\"}";
    ask(f, "GET", "x-1", NULL, NULL);
    assert_asked(f, "GET /apis/batch/v1/namespaces/tenant-a/jobs/x-1 HTTP/1.1\r\n");
    assert_non_null(strstr(http_server_last(f->server), "Authorization: Bearer first\r\n"));
    assert_int_equal(KUBERNETES_DONE, f->verdict);
    assert_string_equal("{\"kind\":\"Job\"}", f->body_text);
    assert_string_equal("", f->message);
    ask(f, "PATCH", "x-1", NULL, "{}");
    assert_asked(f, "PATCH /apis/batch/v1/namespaces/tenant-a/jobs/x-1?fieldManager=petiole HTTP");
    assert_non_null(
        strstr(http_server_last(f->server), "Content-Type: application/merge-patch+json\r\n"));
    ask(f, "POST", NULL, "fieldValidation=Strict", "{}");
    assert_asked(f, "POST /apis/batch/v1/namespaces/tenant-a/jobs?fieldValidation=Strict&"
                    "fieldManager=petiole HTTP");
    assert_non_null(strstr(http_server_last(f->server), "Content-Type: application/json\r\n"));
    (void)kubernetes_api_call(f->api,
                              &(struct kubernetes_request){
                                  .resource = "v1 pods", .name = "p/log", .query = "tailLines=5"},
                              on_answer, f);
    run_until_answers(f, 4);
    assert_asked(f, "GET /api/v1/namespaces/tenant-a/pods/p/log?tailLines=5 HTTP");
    (void)kubernetes_api_call(f->api,
                              &(struct kubernetes_request){
                                  .method = "POST",
                                  .resource = "/authorization.k8s.io/v1 selfsubjectaccessreviews",
                                  .body = BYTES("{}")},
                              on_answer, f);
    run_until_answers(f, 5);
    assert_asked(f, "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews?");
}

static void escapes_hostile_names(void **state)
{
    struct fixture *f = *state;
    f->status = 404;
    f->body = "";
    ask(f, "GET", "a/../../b?x=1#y z", NULL, NULL);
    assert_asked(f,
                 "GET /apis/batch/v1/namespaces/tenant-a/jobs/a/..%2F..%2Fb%3Fx%3D1%23y%20z HTTP");
}

static void gives_the_sentence_and_the_wait(void **state)
{
    struct fixture *f = *state;
    f->status = 504;
    f->body = "{\"message\":\"Too \\\"large\\\"\",\"details\":{\"retryAfterSeconds\":3}}";
    ask(f, "GET", NULL, NULL, NULL);
    assert_string_equal("Too \"large\"", f->message);
    assert_int_equal(3000, f->retry_after_ms);
    f->body = "{\"details\":{\"retryAfterSeconds\":9000000000}}";
    ask(f, "GET", NULL, NULL, NULL);
    assert_int_equal(60000, f->retry_after_ms);
    f->body = "";
    ask(f, "GET", NULL, NULL, NULL);
    assert_string_equal("the API server answered 504", f->message);
    assert_true(f->may_be_done);
    assert_int_equal(-1, f->retry_after_ms);
    f->head = "HTTP/1.1 429 Busy\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\n";
    f->body = "busy\n";
    ask(f, "GET", NULL, NULL, NULL);
    assert_string_equal("busy", f->message);
    assert_false(f->may_be_done);
    assert_int_equal(1000, f->retry_after_ms);
}

static void reads_the_token_again_after_a_401(void **state)
{
    struct fixture *f = *state;
    f->status = 200;
    f->body = "{}";
    ask(f, "GET", "a", NULL, NULL);
    write_token(f, "second");
    ask(f, "GET", "a", NULL, NULL);
    assert_non_null(strstr(http_server_last(f->server), "Bearer first\r\n"));
    f->status = 401;
    ask(f, "GET", "a", NULL, NULL);
    f->status = 200;
    ask(f, "GET", "a", NULL, NULL);
    assert_non_null(strstr(http_server_last(f->server), "Bearer second\r\n"));
}

/* Asks on the virtual clock, which stands still meanwhile. */
static void ask_at_once(struct fixture *f, struct kubernetes_api *api, const char *expected_words)
{
    int count = f->answers + 1;
    (void)kubernetes_api_call(api, &(struct kubernetes_request){.resource = "batch/v1 jobs"},
                              on_answer, f);
    while (f->answers < count) {
        loop_run_once(kubernetes_api_loop(api), false);
        (void)sched_yield();
    }
    assert_non_null(strstr(http_server_last(f->server), expected_words));
}

static void reads_the_token_again_each_minute(void **state)
{
    struct fixture *f = *state;
    struct loop *loop = loop_new(LOOP_CLOCK_VIRTUAL);
    struct kubernetes_api *api = api_on(f, loop);
    f->status = 200;
    f->body = "{}";
    ask_at_once(f, api, "Bearer first\r\n");
    write_token(f, "second");
    loop_advance(loop, 59999);
    ask_at_once(f, api, "Bearer first\r\n");
    loop_advance(loop, 1);
    ask_at_once(f, api, "Bearer second\r\n");
    kubernetes_api_free(&api);
    loop_run_once(loop, false);
    loop_free(&loop);
}

static void doubts_what_a_server_denies_that_was_away(void **state)
{
    static const char denied[] = "{\"message\":\"User \\\"x\\\" cannot create resource\"}";
    struct fixture *f = *state;
    f->status = 403;
    f->body = denied;
    ask(f, "GET", "a", NULL, NULL);
    assert_int_equal(KUBERNETES_REFUSED, f->verdict);
    f->head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    f->body = "{}";
    ask(f, "GET", "a", NULL, NULL);
    assert_int_equal(KUBERNETES_BUSY, f->verdict);
    f->head = NULL;
    f->body = denied;
    ask(f, "GET", "a", NULL, NULL);
    assert_int_equal(KUBERNETES_BUSY, f->verdict);
    f->body = "{\"message\":\"pods is forbidden: violates PodSecurity\"}";
    ask(f, "GET", "a", NULL, NULL);
    assert_int_equal(KUBERNETES_REFUSED, f->verdict);
}

static void believes_it_again_later(void **state)
{
    struct fixture *f = *state;
    struct loop *loop = loop_new(LOOP_CLOCK_VIRTUAL);
    struct kubernetes_api *api = api_on(f, loop);
    f->status = 503;
    f->body = "{\"message\":\"x cannot y\"}";
    ask_at_once(f, api, "GET");
    f->status = 403;
    loop_advance(loop, 9999);
    ask_at_once(f, api, "GET");
    assert_int_equal(KUBERNETES_BUSY, f->verdict);
    loop_advance(loop, 1);
    ask_at_once(f, api, "GET");
    assert_int_equal(KUBERNETES_REFUSED, f->verdict);
    kubernetes_api_free(&api);
    loop_run_once(loop, false);
    loop_free(&loop);
}

static void keeps_a_token_whose_file_has_gone(void **state)
{
    struct fixture *f = *state;
    f->status = 401;
    f->body = "{}";
    ask(f, "GET", "a", NULL, NULL);
    assert_int_equal(0, unlink(f->token_path));
    ask(f, "GET", "a", NULL, NULL);
    assert_non_null(strstr(http_server_last(f->server), "Bearer first\r\n"));
}

static struct kubernetes_call *post(struct fixture *f, const char *name, bool is_urgent)
{
    struct kubernetes_request request = {
        .method = "PATCH",
        .resource = "batch/v1 jobs",
        .name = name,
        .body = BYTES("{\"spec\":{}}"),
        .is_urgent = is_urgent,
    };
    return kubernetes_api_call(f->api, &request, on_answer, f);
}

static void keeps_to_the_limit(void **state)
{
    struct fixture *f = *state;
    f->status = 200;
    f->body = "{}";
    kubernetes_api_limit(f->api, 20, 2);
    int64_t began_ms = loop_now_ms(f->loop);
    for (int count = 0; count < 2; count++) {
        (void)post(f, "a", false);
    }
    run_until_answers(f, 2);
    write_token(f, "second");
    f->status = 401;
    (void)post(f, "b", false);
    (void)post(f, "c", false); /* waits until the file has been read again */
    run_until_answers(f, 4);
    assert_true(loop_now_ms(f->loop) - began_ms >= 2 * 50);
    assert_asked(f, "PATCH /apis/batch/v1/namespaces/tenant-a/jobs/c?fieldManager=petiole HTTP");
    const char *asked = http_server_last(f->server);
    assert_non_null(strstr(asked, "Authorization: Bearer second\r\n"));
    assert_non_null(strstr(asked, "Content-Type: application/merge-patch+json\r\n"));
    assert_non_null(strstr(asked, "\r\n\r\n{\"spec\":{}}"));
}

static void lets_what_is_urgent_go_first(void **state)
{
    struct fixture *f = *state;
    f->status = 200;
    f->body = "{}";
    kubernetes_api_limit(f->api, 5, 1);
    (void)post(f, "a", false);
    run_until_answers(f, 1);
    int64_t began_ms = loop_now_ms(f->loop);
    struct kubernetes_call *given_up = post(f, "b", false);
    (void)post(f, "c", false);
    (void)post(f, "d", true);
    run_until_answers(f, 2);
    assert_asked(f, "PATCH /apis/batch/v1/namespaces/tenant-a/jobs/d?");
    assert_true(loop_now_ms(f->loop) - began_ms < 200);
    kubernetes_api_cancel(&given_up);
    run_until_answers(f, 3);
    assert_asked(f, "PATCH /apis/batch/v1/namespaces/tenant-a/jobs/c?");
    assert_true(loop_now_ms(f->loop) - began_ms >= 200);
    (void)post(f, "e", false); /* still waits at the end */
}

static void on_line(void *context, struct bytes line)
{
    struct fixture *f = context;
    size_t length = strlen(f->lines);
    (void)snprintf(f->lines + length, sizeof(f->lines) - length, "[%.*s]", BYTES_FORMAT(line));
    kubernetes_api_cancel(&f->to_cancel);
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static struct kubernetes_call *stream(struct fixture *f, const char *chunks, size_t max_line_bytes)
{
    f->head = CHUNKED;
    f->body = chunks;
    return kubernetes_api_stream(
        f->api, &(struct kubernetes_request){.resource = "v1 pods", .query = "watch=1"},
        max_line_bytes, on_line, on_answer, f);
}

static void cuts_a_stream_into_lines(void **state)
{
    struct fixture *f = *state;
    (void)stream(f, "3\r\none\r\n7\r\n\ntwo\nth\r\n5\r\nree\nx\r\n0\r\n\r\n", 5);
    run_until_answers(f, 1);
    assert_string_equal("[one][two][three][x]", f->lines);
    assert_int_equal(KUBERNETES_DONE, f->verdict);
}

static void ends_a_stream_at_too_long_a_line(void **state)
{
    struct fixture *f = *state;
    (void)stream(f, "4\r\none\n\r\n8\r\ntoo long\r\n0\r\n\r\n", 5);
    run_until_answers(f, 1);
    assert_string_equal("[one]", f->lines);
    assert_int_equal(KUBERNETES_REFUSED, f->verdict);
    assert_string_equal("a line is longer than 5 bytes", f->message);
}

static void cuts_a_line_that_is_too_long_when_asked_to(void **state)
{
    struct fixture *f = *state;
    f->head = CHUNKED;
    f->body = "9\r\nmuch too \r\n9\r\nmuch too \r\na\r\nlong\nthree\r\n"
              "d\r\nfour\ntoo long\r\n0\r\n\r\n";
    (void)kubernetes_api_stream(
        f->api,
        &(struct kubernetes_request){.resource = "v1 pods", .name = "x/log", .cuts_lines = true}, 5,
        on_line, on_answer, f);
    run_until_answers(f, 1);
    assert_string_equal("[much ][three][too l]", f->lines);
    assert_int_equal(KUBERNETES_DONE, f->verdict);
}

static void may_be_cancelled_by_a_line(void **state)
{
    struct fixture *f = *state;
    f->to_cancel = stream(f, "8\r\none\ntwo\n\r\n0\r\n\r\n", 100);
    while (!f->lines[0] && !f->is_late) {
        loop_run_once(f->loop, true);
    }
    assert_string_equal("[one]", f->lines);
    assert_int_equal(0, f->answers);
}

static void counts_no_streams(void **state)
{
    struct fixture *f = *state;
    kubernetes_api_limit(f->api, 1, 1);
    f->head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    f->body = "";
    for (int count = 0; count < 5; count++) {
        (void)kubernetes_api_stream(f->api, &(struct kubernetes_request){.resource = "v1 pods"}, 5,
                                    on_line, on_answer, f);
    }
    int64_t began_ms = loop_now_ms(f->loop);
    run_until_answers(f, 5);
    (void)post(f, "a", false);
    run_until_answers(f, 6);
    assert_true(loop_now_ms(f->loop) - began_ms < 1000);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(makes_paths),
        TEST(escapes_hostile_names),
        TEST(gives_the_sentence_and_the_wait),
        TEST(reads_the_token_again_after_a_401),
        TEST(reads_the_token_again_each_minute),
        TEST(doubts_what_a_server_denies_that_was_away),
        TEST(believes_it_again_later),
        TEST(keeps_a_token_whose_file_has_gone),
        TEST(keeps_to_the_limit),
        TEST(lets_what_is_urgent_go_first),
        TEST(counts_no_streams),
        TEST(cuts_a_stream_into_lines),
        TEST(ends_a_stream_at_too_long_a_line),
        TEST(cuts_a_line_that_is_too_long_when_asked_to),
        TEST(may_be_cancelled_by_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
