/* Options of the Redis broker and backend (worker/settings_redis.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/settings_redis.h"

#define MAX_VARIABLES 4

struct fixture {
    struct settings settings;
    bool is_loaded;
};

static int set_up(void **state)
{
    *state = memory_new(sizeof(struct fixture));
    return 0;
}

static void unload(struct fixture *fixture)
{
    if (fixture->is_loaded) {
        settings_fini(&fixture->settings);
    }
    fixture->is_loaded = false;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    unload(fixture);
    memory_free(&fixture);
    return 0;
}

/* Loads settings from pairs of a name and a value, which end with NULL. */
static struct settings *load(struct fixture *fixture, const char *const *pairs)
{
    struct setting_override overrides[MAX_VARIABLES];
    struct settings_sources sources = {.overrides = overrides,
                                       .namespace_path = "/nonexistent/namespace"};
    struct error error = {0};
    unload(fixture);
    for (size_t index = 0; pairs[index]; index += 2) {
        overrides[sources.override_count++] =
            (struct setting_override){pairs[index], pairs[index + 1], "option -x"};
    }
    if (!settings_load(&fixture->settings, &sources, &error)) {
        fail_msg("%s", error.message);
    }
    fixture->is_loaded = true;
    return &fixture->settings;
}

static struct broker_redis_options broker(struct fixture *fixture, const char *const *pairs)
{
    struct broker_redis_options options;
    struct error error = {0};
    if (!settings_redis_broker(load(fixture, pairs), &options, &error)) {
        fail_msg("%s", error.message);
    }
    return options;
}

static void check_broker_refused(struct fixture *fixture, const char *name, const char *value,
                                 const char *expected)
{
    const char *const pairs[] = {"broker_url", "redis://:hunter2@h", name, value, NULL};
    struct broker_redis_options options;
    struct error error = {0};
    assert_false(settings_redis_broker(load(fixture, pairs), &options, &error));
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" is not in \"%s\"", expected, error.message);
    }
    assert_null(strstr(error.message, "hunter2"));
}

static struct result_redis_options backend(struct fixture *fixture, const char *const *pairs)
{
    struct result_redis_options options;
    struct error error = {0};
    if (!settings_redis_backend(load(fixture, pairs), &options, &error)) {
        fail_msg("%s", error.message);
    }
    return options;
}

static void test_broker_defaults(void **state)
{
    const char *const pairs[] = {"broker_url", "redis://u:hunter2@host:7000/3", NULL};
    struct broker_redis_options options = broker(*state, pairs);
    assert_string_equal(options.url.stream.host, "host");
    assert_int_equal(options.url.stream.port, 7000);
    assert_int_equal(options.url.database, 3);
    assert_string_equal(options.url.display, "redis://u:**@host:7000/3");
    assert_int_equal(options.url.stream.connect_timeout_ms, 4000);
    assert_false(options.url.stream.tls.enabled);
    assert_int_equal(options.order, BROKER_REDIS_ROUND_ROBIN);
    assert_int_equal(options.visibility_timeout_ms, 0);
    assert_int_equal(options.queue_count, 1);
    assert_string_equal(options.queues[0], "tenant-user");
}

static void test_transport_options(void **state)
{
    const char *const pairs[] = {
        "broker_url", "redis://h", "broker_transport_options",
        "{visibility_timeout: 2.5, queue_order_strategy: priority, priority_steps: [0, 5], sep: "
        "':', global_keyprefix: 'p:', unacked_key: a, unacked_index_key: b, unacked_mutex_key: c, "
        "unacked_mutex_expire: 60, socket_connect_timeout: 9, max_connections: 3, strange: 1}",
        NULL};
    struct fixture *fixture = *state;
    struct broker_redis_options options = broker(fixture, pairs);
    assert_int_equal(options.visibility_timeout_ms, 2500);
    assert_int_equal(options.order, BROKER_REDIS_PRIORITY);
    assert_int_equal(options.priority_step_count, 2);
    assert_int_equal(options.priority_steps[1], 5);
    assert_string_equal(options.separator, ":");
    assert_string_equal(options.global_keyprefix, "p:");
    assert_string_equal(options.unacked_key, "a");
    assert_string_equal(options.unacked_index_key, "b");
    assert_string_equal(options.unacked_mutex_key, "c");
    assert_int_equal(options.unacked_mutex_expire_ms, 60000);
    assert_int_equal(options.url.stream.connect_timeout_ms, 9000);
    assert_int_equal(fixture->settings.note_count, 2);
    assert_int_equal(fixture->settings.notes[1].level, LOG_WARNING);
    assert_non_null(strstr(fixture->settings.notes[1].text, "strange"));
}

static void test_bad_transport_options(void **state)
{
    static const struct {
        const char *value;
        const char *expected;
    } cases[] = {
        {"{visibility_timeout: 0}", "visibility_timeout: a number of seconds above 0 is allowed"},
        {"{visibility_timeout: long}", "not long"},
        {"{queue_order_strategy: fifo}", "round_robin, priority or sorted is allowed, not fifo"},
        {"{priority_steps: [3, 0]}", "a growing list of whole numbers"},
        {"{priority_steps: []}", "a growing list of whole numbers"},
        {"{priority_steps: 3}", "a growing list of whole numbers"},
        {"{sep: [a]}", "sep: a text is allowed"},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(cases); index++) {
        check_broker_refused(*state, "broker_transport_options", cases[index].value,
                             cases[index].expected);
    }
}

static void test_broker_tls(void **state)
{
    const char *const plain[] = {"broker_url", "redis://h", "broker_use_ssl", "true", NULL};
    struct broker_redis_options options = broker(*state, plain);
    assert_true(options.url.stream.tls.enabled);
    assert_int_equal(options.url.stream.tls.verify, STREAM_VERIFY_REQUIRED);

    const char *const full[] = {
        "broker_url", "redis://h", "broker_use_ssl",
        "{ssl_cert_reqs: CERT_NONE, ssl_ca_certs: /ca, ssl_certfile: /c, ssl_keyfile: /k, "
        "ssl_check_hostname: false}",
        NULL};
    options = broker(*state, full);
    assert_int_equal(options.url.stream.tls.verify, STREAM_VERIFY_NONE);
    assert_string_equal(options.url.stream.tls.ca_file, "/ca");
    assert_string_equal(options.url.stream.tls.certificate_file, "/c");
    assert_string_equal(options.url.stream.tls.key_file, "/k");
    assert_false(options.url.stream.tls.check_hostname);

    check_broker_refused(*state, "broker_use_ssl", "{ssl_cert_reqs: maybe}", "required, optional");
    check_broker_refused(*state, "broker_use_ssl", "{ciphers: hunter2}",
                         "ssl_cert_reqs, ssl_check");
    check_broker_refused(*state, "broker_use_ssl", "[a]", "true, false or a mapping");
}

static void test_bad_broker_urls(void **state)
{
    const char *const none[] = {NULL};
    struct broker_redis_options options;
    struct error error = {0};
    assert_false(settings_redis_broker(load(*state, none), &options, &error));
    assert_non_null(strstr(error.message, "broker_url is not set"));
    const char *const amqp[] = {"broker_url", "amqp://u:hunter2@h//", NULL};
    assert_false(settings_redis_broker(load(*state, amqp), &options, &error));
    assert_non_null(strstr(error.message, "option -x: broker_url: amqp:// is not supported"));
    assert_null(strstr(error.message, "hunter2"));
}

static void test_backend(void **state)
{
    const char *const pairs[] = {"result_backend",
                                 "redis://h:1/2",
                                 "result_backend_transport_options",
                                 "{global_keyprefix: a}",
                                 "redis_password",
                                 "hunter2",
                                 NULL};
    struct result_redis_options options = backend(*state, pairs);
    assert_int_equal(options.url.database, 2);
    assert_string_equal(options.global_keyprefix, "a");
    assert_string_equal(options.url.password, "hunter2");
    assert_null(options.url.user);
    assert_int_equal(options.url.stream.connect_timeout_ms, 4000);

    const char *const slow[] = {"result_backend", "redis://h?socket_connect_timeout=7",
                                "redis_socket_connect_timeout", "9", NULL};
    assert_int_equal(backend(*state, slow).url.stream.connect_timeout_ms, 7000);
}

static void test_no_backend(void **state)
{
    const char *const none[] = {NULL};
    const char *const disabled[] = {"result_backend", "disabled", NULL};
    struct result_redis_options options;
    struct error error = {0};
    assert_false(settings_redis_backend(load(*state, none), &options, &error));
    assert_int_equal(error.kind, ERROR_NOT_FOUND);
    assert_false(settings_redis_backend(load(*state, disabled), &options, &error));
    assert_int_equal(error.kind, ERROR_NOT_FOUND);
}

/* A backend must say what is verified, in its URL or in redis_backend_use_ssl. */
static void test_backend_tls(void **state)
{
    const char *const silent[] = {"result_backend", "rediss://h", NULL};
    const char *const own[] = {"result_backend", "rediss://h", "redis_backend_use_ssl",
                               "{ssl_cert_reqs: optional}", NULL};
    const char *const incomplete[] = {"result_backend", "rediss://h", "redis_backend_use_ssl",
                                      "{ssl_ca_certs: /ca}", NULL};
    struct result_redis_options options;
    struct error error = {0};
    assert_false(settings_redis_backend(load(*state, silent), &options, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    assert_false(settings_redis_backend(load(*state, incomplete), &options, &error));
    assert_non_null(strstr(error.message, "ssl_cert_reqs is needed"));
    options = backend(*state, own);
    assert_true(options.url.stream.tls.enabled);
    assert_int_equal(options.url.stream.tls.verify, STREAM_VERIFY_OPTIONAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_broker_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_transport_options, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_transport_options, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_broker_tls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_broker_urls, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_backend, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_backend, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_backend_tls, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("settings_redis", tests, NULL, NULL);
}
