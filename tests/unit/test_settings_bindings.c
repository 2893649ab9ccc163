/* How queues are bound (worker/settings_bindings.h). What is expected was seen with Celery 5.7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/settings_bindings.h"

#define MAX_OVERRIDES 8

static int set_up(void **state)
{
    *state = memory_new(sizeof(struct settings));
    return 0;
}

static int tear_down(void **state)
{
    struct settings *settings = *state;
    settings_fini(settings);
    memory_free(&settings);
    return 0;
}

/* Loads settings from pairs of a name and a value, which end with NULL. */
static bool load(struct settings *settings, const char *queues, const char *const *pairs,
                 struct error *reterr)
{
    struct setting_override overrides[MAX_OVERRIDES];
    struct settings_sources sources = {.overrides = overrides,
                                       .queues = queues,
                                       .node_name = "w@h",
                                       .namespace_path = "/nonexistent/namespace"};
    for (size_t index = 0; pairs[index]; index += 2) {
        overrides[sources.override_count++] =
            (struct setting_override){pairs[index], pairs[index + 1], "option -x"};
    }
    return settings_load(settings, &sources, reterr);
}

static void load_ok(struct settings *settings, const char *queues, const char *const *pairs)
{
    struct error error = {0};
    if (!load(settings, queues, pairs, &error)) {
        fail_msg("%s", error.message);
    }
}

/* What the banner shows of a queue: "exchange(type) key". */
static void check_shown(const struct settings *settings, const char *name, const char *expected)
{
    char text[256];
    struct settings_bindings_queue queue = settings_bindings_of(settings, name);
    (void)snprintf(text, sizeof(text), "%s(%s) %s", queue.exchange, queue.exchange_type,
                   queue.routing_key);
    assert_string_equal(text, expected);
}

/* All bindings: "exchange key queue" each, topics with a star, in order. */
static void check_bound(const struct settings *settings, const char *expected)
{
    size_t count = 0;
    const struct broker_redis_binding *bindings = settings_bindings_all(settings, &count);
    struct buffer text;
    buffer_init(&text, 4096);
    for (size_t index = 0; index < count; index++) {
        (void)buffer_format(&text, "%s%s%s %s %s", index > 0 ? ", " : "",
                            bindings[index].is_topic ? "*" : "", bindings[index].exchange,
                            bindings[index].routing_key, bindings[index].queue);
    }
    (void)buffer_append_byte(&text, '\0');
    assert_string_equal(text.data, expected);
    buffer_fini(&text);
}

static size_t count_notes(const struct settings *settings, const char *part)
{
    size_t count = 0;
    for (size_t index = 0; index < settings->note_count; index++) {
        count += strstr(settings->notes[index].text, part) ? 1 : 0;
    }
    return count;
}

static void test_queues_of_kombu(void **state)
{
    static const char *const pairs[] = {
        "task_queues",
        "[{name: lo, exchange: shop, exchange_type: direct, routing_key: lo.key},"
        " {name: orders, exchange: events, exchange_type: topic, routing_key: 'order.#'},"
        " {name: none, exchange: ''}, {name: own, exchange: '', routing_key: k}]",
        NULL};
    struct settings *settings = *state;
    load_ok(settings, NULL, pairs);
    check_shown(settings, "lo", "shop(direct) lo.key");
    check_shown(settings, "orders", "events(topic) order.#");
    check_shown(settings, "none", "celery(direct) celery");
    check_shown(settings, "own", "celery(direct) k");
    check_bound(settings, "shop lo.key lo, *events order.# orders, celery celery none, "
                          "celery k own");
}

static void test_options_by_name(void **state)
{
    static const char *const pairs[] = {
        "task_queues",
        "{d1: {exchange: dx, exchange_type: topic, routing_key: 'd.#'}, d2: {binding_key: bk},"
        " d3: {exchange: d3x, exchange_type: null}, d4: {}}",
        NULL};
    struct settings *settings = *state;
    load_ok(settings, NULL, pairs);
    check_bound(settings, "*dx d.# d1, celery bk d2, d3x d3 d3, celery d4 d4");
}

static void test_names_have_exchanges_of_their_own(void **state)
{
    static const char *const pairs[] = {
        "task_queues", "[bare]",        "task_create_missing_queue_exchange_type",
        "topic",       "worker_direct", "true",
        NULL};
    struct settings *settings = *state;
    load_ok(settings, "bare,other,celery", pairs);
    check_bound(settings, "*bare bare bare, *other other other, *celery celery celery, "
                          "C.dq2 w@h w@h.dq2");
}

static void test_the_default_queue(void **state)
{
    static const char *const pairs[] = {"task_default_queue",
                                        "dq",
                                        "task_default_exchange",
                                        "dx",
                                        "task_default_exchange_type",
                                        "topic",
                                        "task_default_routing_key",
                                        "dk.#",
                                        NULL};
    struct settings *settings = *state;
    load_ok(settings, "dq,celery", pairs);
    check_bound(settings, "*dx dk.# dq, celery celery celery");
}

static void test_without_queues_the_tenants_is_bound(void **state)
{
    static const char *const pairs[] = {"tenant_default", "t", NULL};
    struct settings *settings = *state;
    load_ok(settings, NULL, pairs);
    check_bound(settings, "t t t");
    assert_int_equal(settings->note_count, 0);
}

static void test_several_bindings_take_the_place_of_the_exchange(void **state)
{
    static const char *const pairs[] = {
        "task_queues",
        "[{name: q, exchange: x, routing_key: k, bindings: ["
        "{exchange: m1, exchange_type: topic, routing_key: 'a.*'},"
        " {exchange: m1, routing_key: k3}, {exchange: '', routing_key: z}]}]",
        NULL};
    struct settings *settings = *state;
    load_ok(settings, NULL, pairs);
    check_bound(settings, "*m1 a.* q, m1 k3 q");
}

static void test_what_is_not_bound(void **state)
{
    static const char *const pairs[] = {
        "task_queues",
        "[{name: quiet, exchange: x, no_declare: true},"
        " {name: bcast.1, alias: bc, exchange: bc, exchange_type: fanout, auto_delete: true},"
        " {name: fan, exchange: fx, exchange_type: fanout, routing_key: k},"
        " {name: hd, exchange: hx, exchange_type: headers}]",
        NULL};
    struct settings *settings = *state;
    load_ok(settings, "quiet,bc,fan,hd", pairs);
    assert_string_equal(settings->queues[1], "bcast.1");
    check_bound(settings, "fx k fan");
    assert_int_equal(count_notes(settings, "Queue bcast.1 has the fanout exchange bc"), 1);
    assert_int_equal(count_notes(settings, "Queue fan has the fanout exchange fx"), 1);
    assert_int_equal(count_notes(settings, "Queue hd is not bound to exchange hx"), 1);
    assert_int_equal(settings->note_count, 3);
}

static void test_refuses_what_is_no_text(void **state)
{
    static const char *const rows[][2] = {
        {"[{name: q, exchange: {name: x}}]", "exchange: a text is allowed, not a mapping"},
        {"{q: {routing_key: [a]}}", "routing_key: a text is allowed, not a sequence"},
        {"[{name: q, bindings: x}]", "bindings: a list is allowed, not text"},
        {"[{name: q, bindings: [x]}]", "bindings: a mapping is allowed, not text"},
        {"[{name: q, bindings: [{exchange: [x]}]}]", "exchange: a text is allowed"},
    };
    struct settings *settings = *state;
    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        const char *const pairs[] = {"task_queues", rows[index][0], NULL};
        struct error error = {0};
        assert_false(load(settings, NULL, pairs, &error));
        assert_non_null(strstr(error.message, rows[index][1]));
        settings_fini(settings);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_queues_of_kombu),
        TEST(test_options_by_name),
        TEST(test_names_have_exchanges_of_their_own),
        TEST(test_the_default_queue),
        TEST(test_without_queues_the_tenants_is_bound),
        TEST(test_several_bindings_take_the_place_of_the_exchange),
        TEST(test_what_is_not_bound),
        TEST(test_refuses_what_is_no_text),
    };
    return cmocka_run_group_tests_name("settings_bindings", tests, NULL, NULL);
}
