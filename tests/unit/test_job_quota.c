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

static size_t fits(const char *text, size_t uncounted, int64_t reserved)
{
    struct job_quota quota = quota_of(text);
    return job_quota_fits(&quota, small_pod, NULL, uncounted, reserved);
}

#define USER_QUOTA(pods, cpu, memory)                                                              \
    "{\"status\": {\"hard\": {\"pods\": \"3\", \"requests.cpu\": \"1\", \"requests.memory\": "     \
    "\"2Gi\"}, \"used\": {\"pods\": \"" pods "\", \"requests.cpu\": \"" cpu                        \
    "\", \"requests.memory\": \"" memory "\"}}}"

static void test_the_scarcest_resource_decides(void **state)
{
    (void)state;
    assert_int_equal(fits(USER_QUOTA("0", "0", "0"), 0, 0), 3);
    assert_int_equal(fits(USER_QUOTA("1", "10m", "16Mi"), 0, 0), 2);
    assert_int_equal(fits(USER_QUOTA("0", "900m", "0"), 0, 0), 0);
    assert_int_equal(fits(USER_QUOTA("0", "500m", "0"), 0, 0), 2);
    assert_int_equal(fits(USER_QUOTA("0", "0", "1792Mi"), 0, 0), 1);
    assert_int_equal(fits(USER_QUOTA("3", "600m", "768Mi"), 0, 0), 0);
}

static void test_uncounted_jobs_and_the_reserve_take_places(void **state)
{
    (void)state;
    assert_int_equal(fits(USER_QUOTA("0", "0", "0"), 2, 0), 1);
    assert_int_equal(fits(USER_QUOTA("0", "0", "0"), 9, 0), 0);
    assert_int_equal(fits(USER_QUOTA("0", "0", "0"), 0, 1), 2);
    assert_int_equal(fits(USER_QUOTA("3", "0", "0"), 0, 1), 0);
}

static void test_without_a_quota_there_is_no_limit(void **state)
{
    (void)state;
    struct job_quota none = {.count = 0};
    assert_true(job_quota_fits(&none, small_pod, NULL, 5, 1) == JOB_QUOTA_UNLIMITED);
    assert_true(fits("{\"status\": {\"hard\": {\"services\": \"0\"}}}", 0, 0)
                == JOB_QUOTA_UNLIMITED);
}

static void test_a_quota_without_status_counts_from_its_spec(void **state)
{
    (void)state;
    assert_int_equal(fits("{\"spec\": {\"hard\": {\"pods\": \"3\"}}}", 0, 0), 3);
}

static void test_the_narrowest_of_several_quotas_decides(void **state)
{
    (void)state;
    struct job_quota quota = quota_of(USER_QUOTA("0", "0", "0"));
    struct json second;
    assert_true(
        json_parse(BYTES("{\"status\": {\"hard\": {\"pods\": 1}, \"used\": {}}}"), &second, NULL));
    job_quota_add(&quota, second);
    assert_int_equal(job_quota_fits(&quota, small_pod, NULL, 0, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_scarcest_resource_decides),
        cmocka_unit_test(test_uncounted_jobs_and_the_reserve_take_places),
        cmocka_unit_test(test_without_a_quota_there_is_no_limit),
        cmocka_unit_test(test_a_quota_without_status_counts_from_its_spec),
        cmocka_unit_test(test_the_narrowest_of_several_quotas_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
