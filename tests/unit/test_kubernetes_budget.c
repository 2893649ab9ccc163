#include "executor/kubernetes_budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW_MS  INT64_C(1000000)
#define HOUR_MS INT64_C(3600000)

/* How many can be taken at `now_ms`. */
static int take_all(struct kubernetes_budget *budget, int64_t now_ms)
{
    int count = 0;
    while (count < 1000 && kubernetes_budget_take(budget, now_ms)) {
        count++;
    }
    return count;
}

static void gives_a_burst_and_then_the_rate(void **state)
{
    (void)state;
    struct kubernetes_budget budget;
    kubernetes_budget_init(&budget, 5, 10, NOW_MS);
    assert_int_equal(0, kubernetes_budget_wait_ms(&budget, NOW_MS));
    assert_int_equal(10, take_all(&budget, NOW_MS));
    assert_int_equal(200, kubernetes_budget_wait_ms(&budget, NOW_MS));
    assert_int_equal(0, take_all(&budget, NOW_MS + 199));
    assert_int_equal(1, take_all(&budget, NOW_MS + 200));
    assert_int_equal(5, take_all(&budget, NOW_MS + 1200));
}

static void saves_up_no_more_than_a_burst(void **state)
{
    (void)state;
    struct kubernetes_budget budget;
    kubernetes_budget_init(&budget, 5, 10, NOW_MS);
    assert_int_equal(10, take_all(&budget, NOW_MS + HOUR_MS));
    assert_int_equal(10, take_all(&budget, NOW_MS + 1000 * HOUR_MS));
}

static void loses_no_fraction(void **state)
{
    (void)state;
    struct kubernetes_budget budget;
    int count = 0;
    kubernetes_budget_init(&budget, 7, 1, NOW_MS);
    for (int64_t passed_ms = 0; passed_ms < 10000; passed_ms += 3) {
        count += take_all(&budget, NOW_MS + passed_ms);
    }
    assert_int_equal(70, count);
}

static void may_be_overdrawn(void **state)
{
    (void)state;
    struct kubernetes_budget budget;
    kubernetes_budget_init(&budget, 10, 1, NOW_MS);
    kubernetes_budget_take_ahead(&budget, NOW_MS);
    kubernetes_budget_take_ahead(&budget, NOW_MS);
    kubernetes_budget_take_ahead(&budget, NOW_MS);
    assert_int_equal(300, kubernetes_budget_wait_ms(&budget, NOW_MS));
    assert_false(kubernetes_budget_take(&budget, NOW_MS + 299));
    assert_true(kubernetes_budget_take(&budget, NOW_MS + 300));
}

static void is_without_end_when_it_is_zero(void **state)
{
    (void)state;
    struct kubernetes_budget budget;
    kubernetes_budget_init(&budget, 0, 0, NOW_MS);
    assert_int_equal(1000, take_all(&budget, NOW_MS));
    kubernetes_budget_take_ahead(&budget, NOW_MS);
    assert_int_equal(0, kubernetes_budget_wait_ms(&budget, NOW_MS));
}

static void takes_the_largest_limits(void **state)
{
    (void)state;
    struct kubernetes_budget budget;
    kubernetes_budget_init(&budget, 1000000000, 1000000000, NOW_MS);
    assert_int_equal(1000, take_all(&budget, NOW_MS));
    assert_int_equal(1000, take_all(&budget, INT64_MAX / 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_a_burst_and_then_the_rate),
        cmocka_unit_test(saves_up_no_more_than_a_burst),
        cmocka_unit_test(loses_no_fraction),
        cmocka_unit_test(may_be_overdrawn),
        cmocka_unit_test(is_without_end_when_it_is_zero),
        cmocka_unit_test(takes_the_largest_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
