#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatch/strategy.h"
#include "support/golden.h"

static const struct strategy_rules rules = {"tenant-user", "kwargs.tenant", "petiole_tenant", NULL};

#define NOW_S 1893553445.0

/* A request for a message from our own queue, with nothing special about it. */
static struct request plain_request(struct delivery *delivery)
{
    *delivery = (struct delivery){.queue = BYTES("tenant-user")};
    return (struct request){
        .type = &registry_defaults,
        .delivery = delivery,
        .message = {.task = BYTES("t"), .id = BYTES("i")},
    };
}

static struct verdict decide(const struct request *request)
{
    struct verdict verdict;
    strategy_decide(&rules, request, NOW_S, &verdict);
    return verdict;
}

static struct json parsed(const char *text)
{
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    assert_true(json_parse(bytes_from_text(text), &value, NULL));
    return value;
}

static void set_eta(struct request *request, double wall_s)
{
    request->message.eta = BYTES("a time");
    request->message.eta_wall_s = wall_s;
}

static void set_expires(struct request *request, double wall_s)
{
    request->message.expires = BYTES("a time");
    request->message.expires_wall_s = wall_s;
}

static void test_a_plain_task_runs(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    assert_int_equal(decide(&request).kind, VERDICT_RUN);
}

static void test_a_task_without_a_type_is_unregistered_before_all_else(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    request.type = NULL;
    set_expires(&request, NOW_S - 10);
    request.message.kwargs = parsed("{\"tenant\": \"other\"}");
    assert_int_equal(decide(&request).kind, VERDICT_UNREGISTERED);
}

static void test_another_tenants_task_is_refused_with_a_reason(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    request.message.kwargs = parsed("{\"tenant\": \"other\"}");
    set_expires(&request, NOW_S - 10);
    struct verdict verdict = decide(&request);
    assert_int_equal(verdict.kind, VERDICT_FOREIGN_TENANT);
    assert_non_null(strstr(verdict.reason.message, "other"));
}

static void test_a_task_expires_strictly_after_its_time(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    set_expires(&request, NOW_S);
    assert_int_equal(decide(&request).kind, VERDICT_RUN);
    set_expires(&request, NOW_S - 0.000001);
    assert_int_equal(decide(&request).kind, VERDICT_EXPIRED);
    set_expires(&request, 0); /* the Epoch is a time, too */
    assert_int_equal(decide(&request).kind, VERDICT_EXPIRED);
}

static void test_a_task_waits_for_its_eta(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    set_eta(&request, NOW_S + 0.5);
    struct verdict verdict = decide(&request);
    assert_int_equal(verdict.kind, VERDICT_WAIT);
    assert_true(verdict.until_wall_s == NOW_S + 0.5);
    set_eta(&request, NOW_S);
    assert_int_equal(decide(&request).kind, VERDICT_RUN);
    set_eta(&request, NOW_S - 1000);
    assert_int_equal(decide(&request).kind, VERDICT_RUN);
}

static void test_an_expired_task_does_not_wait(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    set_eta(&request, NOW_S + 10);
    set_expires(&request, NOW_S - 10);
    assert_int_equal(decide(&request).kind, VERDICT_EXPIRED);
}

static void test_an_eta_after_the_expiry_still_waits_first(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    set_eta(&request, NOW_S + 10);
    set_expires(&request, NOW_S + 5);
    assert_int_equal(decide(&request).kind, VERDICT_WAIT);
}

static void test_canvas_is_refused_by_name(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request requests[4] = {plain_request(&delivery), plain_request(&delivery),
                                  plain_request(&delivery), plain_request(&delivery)};
    static const char *const words[] = {"callback", "errback", "chain", "chord"};
    requests[0].message.callbacks = parsed("[{}]");
    requests[1].message.errbacks = parsed("[{}]");
    requests[2].message.chain = parsed("[{}]");
    requests[3].message.chord = parsed("{}");
    struct task_type native = *requests[0].type;
    native.executor = TASK_NATIVE;
    for (size_t index = 0; index < ARRAY_LENGTH(requests); index++) {
        requests[index].type = &native;
        struct verdict verdict = decide(&requests[index]);
        assert_int_equal(verdict.kind, VERDICT_UNSUPPORTED);
        assert_non_null(strstr(verdict.reason.message, words[index]));
    }
}

static void test_of_canvas_a_container_counts_no_chord(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    struct task_type type = *request.type;
    request.type = &type;
    request.message.callbacks = parsed("[{}]");
    request.message.errbacks = parsed("[{}]");
    request.message.chain = parsed("[{}]");

    static const enum task_executor containers[] = {TASK_KUBERNETES, TASK_LOCAL};

    for (size_t index = 0; index < ARRAY_LENGTH(containers); index++) {
        type.executor = containers[index];
        request.message.chord = parsed("null");
        assert_int_equal(decide(&request).kind, VERDICT_RUN);
        request.message.chord = parsed("{}");
        struct verdict verdict = decide(&request);
        assert_int_equal(verdict.kind, VERDICT_UNSUPPORTED);
        assert_non_null(strstr(verdict.reason.message, "a chord"));
    }
    type.executor = TASK_PROCESS;
    assert_int_equal(decide(&request).kind, VERDICT_RUN);
}

static void test_empty_canvas_asks_for_nothing(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    request.message.callbacks = parsed("[]");
    request.message.errbacks = parsed("null");
    request.message.chain = parsed("[]");
    request.message.chord = parsed("null");
    assert_int_equal(decide(&request).kind, VERDICT_RUN);
}

static void test_a_revoked_task_ends_before_it_waits(void **state)
{
    (void)state;
    struct delivery delivery;
    struct request request = plain_request(&delivery);
    struct revoked *revoked = revoked_new(0, 0);
    struct strategy_rules with_revoked = rules;
    struct verdict verdict;
    with_revoked.revoked = revoked;
    request.message.id = BYTES("t1");
    set_eta(&request, NOW_S + 10);
    revoked_add(revoked, BYTES("t2"), true, NOW_S);
    strategy_decide(&with_revoked, &request, NOW_S, &verdict);
    assert_int_equal(verdict.kind, VERDICT_WAIT);
    revoked_add(revoked, BYTES("t1"), false, NOW_S);
    strategy_decide(&with_revoked, &request, NOW_S, &verdict);
    assert_int_equal(verdict.kind, VERDICT_REVOKED);
    set_expires(&request, NOW_S - 10);
    strategy_decide(&with_revoked, &request, NOW_S, &verdict);
    assert_int_equal(verdict.kind, VERDICT_EXPIRED);
    revoked_free(&revoked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_plain_task_runs),
        cmocka_unit_test(test_a_task_without_a_type_is_unregistered_before_all_else),
        cmocka_unit_test(test_another_tenants_task_is_refused_with_a_reason),
        cmocka_unit_test(test_a_task_expires_strictly_after_its_time),
        cmocka_unit_test(test_a_task_waits_for_its_eta),
        cmocka_unit_test(test_an_expired_task_does_not_wait),
        cmocka_unit_test(test_an_eta_after_the_expiry_still_waits_first),
        cmocka_unit_test(test_canvas_is_refused_by_name),
        cmocka_unit_test(test_of_canvas_a_container_counts_no_chord),
        cmocka_unit_test(test_a_revoked_task_ends_before_it_waits),
        cmocka_unit_test(test_empty_canvas_asks_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
