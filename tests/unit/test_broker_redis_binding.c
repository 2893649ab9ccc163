#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/broker_redis_binding.h"

static const char *lead(const char *member, const char *routing_key)
{
    struct bytes queue;
    struct bytes separator = BYTES("\x06\x16");
    bool leads = broker_redis_binding_leads(bytes_from_text(member), separator,
                                            bytes_from_text(routing_key), &queue);
    return leads ? queue.data : NULL;
}

static bool topic_leads(const char *key, const char *routing_key)
{
    char member[128];
    (void)snprintf(member, sizeof(member), "%s\x06\x16^pattern$\x06\x16queue", key);
    return lead(member, routing_key) != NULL;
}

static void test_direct_bindings_want_the_same_key(void **state)
{
    (void)state;
    assert_string_equal(lead("celery\x06\x16\x06\x16work", "celery"), "work");
    assert_null(lead("celery\x06\x16\x06\x16work", "other"));
    assert_string_equal(lead("\x06\x16\x06\x16w1@h.celery.pidbox", ""), "w1@h.celery.pidbox");
}

static void test_topic_bindings_follow_kombus_expressions(void **state)
{
    (void)state;
    assert_true(topic_leads("top.#", "top.a"));
    assert_true(topic_leads("top.#", "top.a.b"));
    assert_true(topic_leads("top.#", "top."));
    assert_false(topic_leads("top.#", "top"));
    assert_false(topic_leads("top.#", "stop.a"));
    assert_true(topic_leads("*.stock.#", "us.stock.db.q"));
    assert_false(topic_leads("*.stock.#", "a.b.stock.x"));
    assert_true(topic_leads("*", "word"));
    assert_false(topic_leads("*", "two.words"));
    assert_false(topic_leads("a.*", "a."));
    assert_true(topic_leads("#", ""));
    assert_true(topic_leads("#", "any.thing"));
    assert_true(topic_leads("#.end.#.tail", "x.end.end.y.tail"));
    assert_false(topic_leads("#.end.#.tail", "x.end.y.tail.more"));
    assert_true(topic_leads("#.*", "a.b.c"));
    assert_true(topic_leads("worker.heart#", "worker.heart#"));
    assert_true(topic_leads("a*.b", "a*.b"));
}

static void test_passes_over_what_is_no_binding(void **state)
{
    (void)state;
    assert_null(lead("celery", "celery"));
    assert_null(lead("celery\x06\x16", "celery"));
    assert_null(lead("celery\x06\x16\x06\x16", "celery"));
    assert_null(lead("", ""));
}

static void check_written(const struct broker_redis_binding *binding, const char *expected)
{
    struct buffer text;
    buffer_init(&text, 1024);
    broker_redis_binding_append(&text, BYTES("|"), binding);
    (void)buffer_append_byte(&text, '\0');
    assert_string_equal(text.data, expected);
    buffer_fini(&text);
}

/* What Kombu 5.7 writes for the same. */
static void test_writes_as_kombu_does(void **state)
{
    (void)state;

    static const struct {
        struct broker_redis_binding binding;
        const char *member;
    } rows[] = {
        {{"lo", "shop", "lo.key", false}, "lo.key||lo"},
        {{"orders", "events", "order.#", true}, "order.#|^order\\..*?$|orders"},
        {{"q", "e", "a.*", true}, "a.*|^a\\.[^\\.]+$|q"},
        {{"q", "e", "#.z-w_", true}, "#.z-w_|^.*?\\.z\\-w\\_$|q"},
        {{"q", "e", "a*.b..", true}, "a*.b..|^a*\\.b\\.\\.$|q"},
        {{"q", "e", "", true}, "|^$|q"},
    };

    for (size_t index = 0; index < sizeof(rows) / sizeof(rows[0]); index++) {
        check_written(&rows[index].binding, rows[index].member);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct_bindings_want_the_same_key),
        cmocka_unit_test(test_topic_bindings_follow_kombus_expressions),
        cmocka_unit_test(test_passes_over_what_is_no_binding),
        cmocka_unit_test(test_writes_as_kombu_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
