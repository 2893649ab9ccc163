#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/redis_url.h"

struct fixture {
    struct arena *arena;
    struct redis_url url;
    struct error error;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    fixture->arena = arena_new(0);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

static const struct redis_url *parse(struct fixture *fixture, const char *text)
{
    if (!redis_url_parse(text, false, fixture->arena, &fixture->url, &fixture->error)) {
        fail_msg("%s: %s", text, fixture->error.message);
    }
    return &fixture->url;
}

static void expect_refused(struct fixture *fixture, const char *text, bool for_backend,
                           enum error_kind kind)
{
    assert_false(
        redis_url_parse(text, for_backend, fixture->arena, &fixture->url, &fixture->error));
    assert_int_equal(fixture->error.kind, kind);
    assert_null(strstr(fixture->error.message, "secret"));
}

static void test_fills_in_what_is_missing(void **state)
{
    const struct redis_url *url = parse(*state, "redis://");
    assert_string_equal(url->stream.host, "127.0.0.1");
    assert_int_equal(url->stream.port, 6379);
    assert_int_equal(url->database, 0);
    assert_null(url->user);
    assert_null(url->password);
    assert_false(url->stream.tls.enabled);
    assert_string_equal(url->display, "redis://127.0.0.1:6379/0");
    assert_int_equal(parse(*state, "redis://h/")->database, 0);
}

static void test_reads_all_parts_and_hides_the_password(void **state)
{
    const struct redis_url *url = parse(*state, "redis://al%40ice:sec%2Fret@h.example:7000/12");
    assert_string_equal(url->user, "al@ice");
    assert_string_equal(url->password, "sec/ret");
    assert_string_equal(url->stream.host, "h.example");
    assert_int_equal(url->stream.port, 7000);
    assert_int_equal(url->database, 12);
    assert_string_equal(url->display, "redis://al@ice:**@h.example:7000/12");
    url = parse(*state, "redis://:secret@h");
    assert_null(url->user);
    assert_string_equal(url->password, "secret");
    assert_string_equal(url->display, "redis://:**@h:6379/0");
    url = parse(*state, "redis://[::1]:7000/5");
    assert_string_equal(url->stream.host, "::1");
    assert_string_equal(url->display, "redis://[::1]:7000/5");
}

static void test_reads_sockets(void **state)
{
    const struct redis_url *url = parse(*state, "redis+socket:///run/re%20dis.sock?virtual_host=2");
    assert_string_equal(url->stream.unix_path, "/run/re dis.sock");
    assert_null(url->stream.host);
    assert_int_equal(url->database, 2);
    url = parse(*state, "socket://user:secret@/run/redis.sock");
    assert_string_equal(url->stream.unix_path, "/run/redis.sock");
    assert_string_equal(url->user, "user");
    assert_string_equal(url->display, "redis+socket://user:**@/run/redis.sock?virtual_host=0");
    expect_refused(*state, "redis+socket://", false, ERROR_INVALID);
}

static void test_reads_tls_arguments(void **state)
{
    const struct redis_url *url = parse(*state, "rediss://h");
    assert_true(url->stream.tls.enabled);
    assert_int_equal(url->stream.tls.verify, STREAM_VERIFY_NONE);
    url = parse(*state, "rediss://h/1?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=%2Fca.pem"
                        "&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=False");
    assert_int_equal(url->stream.tls.verify, STREAM_VERIFY_REQUIRED);
    assert_string_equal(url->stream.tls.ca_file, "/ca.pem");
    assert_string_equal(url->stream.tls.certificate_file, "/c.pem");
    assert_string_equal(url->stream.tls.key_file, "/k.pem");
    assert_false(url->stream.tls.check_hostname);
    url = parse(*state, "rediss://h?ssl_ca_certs=/ca.pem");
    assert_int_equal(url->stream.tls.verify, STREAM_VERIFY_REQUIRED);
    assert_true(url->stream.tls.check_hostname);
    url = parse(*state, "rediss://h?ssl_cert_reqs=optional");
    assert_int_equal(url->stream.tls.verify, STREAM_VERIFY_OPTIONAL);
    expect_refused(*state, "rediss://:secret@h?ssl_cert_reqs=maybe", false, ERROR_INVALID);
    expect_refused(*state, "rediss://:secret@h?ssl_ciphers=ALL", false, ERROR_UNSUPPORTED);
}

static void test_holds_backends_to_stricter_rules(void **state)
{
    struct fixture *fixture = *state;
    expect_refused(fixture, "rediss://:secret@h", true, ERROR_INVALID);
    expect_refused(fixture, "redis://:secret@h?ssl_cert_reqs=none", true, ERROR_INVALID);
    assert_true(redis_url_parse("rediss://h?ssl_cert_reqs=none", true, fixture->arena,
                                &fixture->url, &fixture->error));
}

static void test_refuses_what_it_cannot_use(void **state)
{
    expect_refused(*state, "sentinel://:secret@h:26379/0", false, ERROR_UNSUPPORTED);
    expect_refused(*state, "amqp://u:secret@h", false, ERROR_UNSUPPORTED);
    expect_refused(*state, "localhost", false, ERROR_INVALID);
    expect_refused(*state, "redis://:secret@h/one", false, ERROR_INVALID);
    expect_refused(*state, "redis://:secret@h:port/0", false, ERROR_INVALID);
    expect_refused(*state, "redis://:secret@h:65536/0", false, ERROR_INVALID);
    expect_refused(*state, "redis://:secret@h/0?socket_connect_timeout=soon", false, ERROR_INVALID);
    expect_refused(*state, "redis://:secret@h/0?credential_provider=a.b", false, ERROR_UNSUPPORTED);
}

static void test_takes_the_connect_timeout(void **state)
{
    assert_int_equal(
        parse(*state, "redis://h?socket_connect_timeout=2.5")->stream.connect_timeout_ms, 2500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fills_in_what_is_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_all_parts_and_hides_the_password, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_reads_sockets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_tls_arguments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_holds_backends_to_stricter_rules, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_what_it_cannot_use, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_takes_the_connect_timeout, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
