#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_quota.h"

#define MEBIBYTE_MILLI ((int64_t)1048576 * 1000)

/* A pod of 200m CPU and 256Mi. */
static int64_t small_pod(const void *context, const char *resource)
{
    (void)context;
    if (strcmp(resource, "requests.cpu") == 0) {
        return 200;
    }
    return strcmp(resource, "requests.memory") == 0 ? 256 * MEBIBYTE_MILLI : 0;
}

static struct job_quota quota_of(const char *text)
{
    struct job_quota quota = {.count = 0};
    struct json object;
    assert_true(json_parse(bytes_from_text(text), &object, NULL));
    job_quota_add(&quota, object);
    return quota;
}

/* How many Jobs fit in all, with `unfinished` of ours of which `counted` have a pod. */
static size_t capacity(const char *text, size_t unfinished, size_t counted, int64_t reserved)
{
    struct job_quota quota = quota_of(text);
    const struct job_quota_jobs jobs = {.unfinished = unfinished, .counted = counted};
    return job_quota_capacity(&quota, small_pod, NULL, &jobs, reserved);
}

#define USER_QUOTA(pods, cpu, memory)                                                              \
    "{\"status\": {\"hard\": {\"pods\": \"3\", \"requests.cpu\": \"1\", \"requests.memory\": "     \
    "\"2Gi\"}, \"used\": {\"pods\": \"" pods "\", \"requests.cpu\": \"" cpu                        \
    "\", \"requests.memory\": \"" memory "\"}}}"

static void test_the_scarcest_resource_decides(void **state)
{
    (void)state;
    assert_int_equal(capacity(USER_QUOTA("0", "0", "0"), 0, 0, 0), 3);
    assert_int_equal(capacity(USER_QUOTA("1", "10m", "16Mi"), 0, 0, 0), 2);
    assert_int_equal(capacity(USER_QUOTA("0", "900m", "0"), 0, 0, 0), 0);
    assert_int_equal(capacity(USER_QUOTA("0", "500m", "0"), 0, 0, 0), 2);
    assert_int_equal(capacity(USER_QUOTA("0", "0", "1792Mi"), 0, 0, 0), 1);
    assert_int_equal(capacity(USER_QUOTA("3", "600m", "768Mi"), 0, 0, 0), 0);
}

static void test_our_own_pods_are_not_others(void **state)
{
    (void)state;
    assert_int_equal(capacity(USER_QUOTA("3", "600m", "768Mi"), 3, 3, 0), 3);
    assert_int_equal(capacity(USER_QUOTA("3", "410m", "528Mi"), 2, 2, 0), 2);
    assert_int_equal(capacity(USER_QUOTA("0", "0", "0"), 4, 0, 1), 2);
}

static void test_a_late_status_makes_no_room(void **state)
{
    (void)state;
    /* Another's pod and two of ours, which the status tells of one after the other. */
    static const char *const statuses[] = {USER_QUOTA("1", "0", "0"), USER_QUOTA("2", "0", "0"),
                                           USER_QUOTA("3", "0", "0"), USER_QUOTA("3", "0", "0")};
    static const struct job_quota_jobs jobs[] = {
        {.unfinished = 0}, {.unfinished = 2}, {.unfinished = 2}, {.unfinished = 2, .counted = 2}};
    struct job_quota quota = {.count = 0};
    for (size_t step = 0; step < ARRAY_LENGTH(statuses); step++) {
        struct job_quota old = quota;
        quota = quota_of(statuses[step]);
        job_quota_carry(&quota, &old);
        assert_int_equal(job_quota_capacity(&quota, small_pod, NULL, &jobs[step], 0), 2);
    }
    /* One of ours ends; the status follows a moment later: the place is free at once. */
    const struct job_quota_jobs ending = {.unfinished = 1, .counted = 1, .leaving = 1};
    assert_int_equal(job_quota_capacity(&quota, small_pod, NULL, &ending, 0), 2);
}

static void test_others_that_come_take_places(void **state)
{
    (void)state;
    struct job_quota quota = quota_of(USER_QUOTA("1", "0", "0"));
    const struct job_quota_jobs jobs = {.unfinished = 1, .counted = 1};
    assert_int_equal(job_quota_capacity(&quota, small_pod, NULL, &jobs, 0), 3);
    struct job_quota old = quota;
    quota = quota_of(USER_QUOTA("3", "0", "0"));
    job_quota_carry(&quota, &old);
    assert_int_equal(job_quota_capacity(&quota, small_pod, NULL, &jobs, 0), 1);
}

static void test_without_a_quota_there_is_no_limit(void **state)
{
    (void)state;
    struct job_quota none = {.count = 0};
    const struct job_quota_jobs jobs = {.unfinished = 5};
    assert_true(job_quota_capacity(&none, small_pod, NULL, &jobs, 1) == JOB_QUOTA_UNLIMITED);
    assert_true(capacity("{\"status\": {\"hard\": {\"services\": \"0\"}}}", 0, 0, 0)
                == JOB_QUOTA_UNLIMITED);
}

static void test_a_quota_without_status_counts_from_its_spec(void **state)
{
    (void)state;
    assert_int_equal(capacity("{\"spec\": {\"hard\": {\"pods\": \"3\"}}}", 0, 0, 0), 3);
}

static void test_the_narrowest_of_several_quotas_decides(void **state)
{
    (void)state;
    struct job_quota quota = quota_of(USER_QUOTA("0", "0", "0"));
    const struct job_quota_jobs jobs = {.unfinished = 0};
    struct json second;
    assert_true(
        json_parse(BYTES("{\"status\": {\"hard\": {\"pods\": 1}, \"used\": {}}}"), &second, NULL));
    job_quota_add(&quota, second);
    assert_int_equal(job_quota_capacity(&quota, small_pod, NULL, &jobs, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_scarcest_resource_decides),
        cmocka_unit_test(test_our_own_pods_are_not_others),
        cmocka_unit_test(test_a_late_status_makes_no_room),
        cmocka_unit_test(test_others_that_come_take_places),
        cmocka_unit_test(test_without_a_quota_there_is_no_limit),
        cmocka_unit_test(test_a_quota_without_status_counts_from_its_spec),
        cmocka_unit_test(test_the_narrowest_of_several_quotas_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
