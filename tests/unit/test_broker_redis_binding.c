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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_direct_bindings_want_the_same_key),
        cmocka_unit_test(test_topic_bindings_follow_kombus_expressions),
        cmocka_unit_test(test_passes_over_what_is_no_binding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
