/* Heads of HTTP requests (telemetry/status_request.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "telemetry/status_request.h"

static struct status_request parse(const char *text)
{
    struct status_request request = {0};
    assert_true(status_request_parse(bytes_from_text(text), &request));
    assert_true(request.length <= strlen(text));
    return request;
}

static void check_refused(const char *text, int status)
{
    struct status_request request = parse(text);
    assert_int_equal(request.refusal, status);
    assert_true(status == 405 || !request.keeps_alive);
}

static void test_get_and_head(void **state)
{
    (void)state;
    struct status_request request = parse("GET /livez?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\nGET");
    assert_int_equal(request.refusal, 0);
    assert_true(bytes_equal_text(request.path, "/livez"));
    assert_true(request.keeps_alive);
    assert_false(request.is_head);
    assert_int_equal(request.length, strlen("GET /livez?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_true(parse("HEAD / HTTP/1.1\r\n\r\n").is_head);
}

static void test_keep_alive(void **state)
{
    (void)state;
    assert_false(parse("GET / HTTP/1.0\r\n\r\n").keeps_alive);
    assert_true(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keeps_alive);
    assert_false(parse("GET / HTTP/1.1\r\nCONNECTION:close\r\n\r\n").keeps_alive);
    assert_true(parse("GET / HTTP/1.1\r\nConnection: keep-alive \r\n\r\n").keeps_alive);
}

static void test_incomplete(void **state)
{
    (void)state;
    struct status_request request;
    assert_false(status_request_parse(bytes_from_text(""), &request));
    assert_false(status_request_parse(bytes_from_text("GET / HTTP/1.1\r\nHost: x\r\n"), &request));
    assert_false(status_request_parse(bytes_from_text("\n\n\n\n"), &request));
}

static void test_refused(void **state)
{
    (void)state;
    check_refused("POST /livez HTTP/1.1\r\n\r\n", 405);
    check_refused("GET /livez HTTP/2.0\r\n\r\n", 505);
    check_refused("GET /livez\r\n\r\n", 400);
    check_refused("GET livez HTTP/1.1\r\n\r\n", 400);
    check_refused("\r\n\r\n", 400);
    check_refused("GET /livez HTTP/1.1\r\nno colon\r\n\r\n", 400);
    check_refused("GET /livez HTTP/1.1\r\n: x\r\n\r\n", 400);
    check_refused("GET /livez HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400);
    check_refused("GET /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413);
    check_refused("POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413);
    assert_int_equal(parse("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").refusal, 0);

    struct status_request request;
    const char text[] = "GET /livez HTTP/1.1\r\nA: \0\r\n\r\n";
    assert_true(status_request_parse(bytes_of(text, sizeof(text) - 1), &request));
    assert_int_equal(request.refusal, 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_and_head),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("status_request", tests, NULL, NULL);
}
