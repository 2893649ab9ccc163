#include "executor/job_quantity.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void assert_milli(const char *text, int64_t expected)
{
    int64_t milli = -1;
    assert_true(job_quantity_parse(bytes_from_text(text), &milli));
    assert_int_equal(expected, milli);
}

static void reads_what_kubernetes_writes(void **state)
{
    (void)state;
    assert_milli("0", 0);
    assert_milli("1", 1000);
    assert_milli("+3", 3000);
    assert_milli("500m", 500);
    assert_milli("1.5", 1500);
    assert_milli(".5", 500);
    assert_milli("2.", 2000);
    assert_milli("2Gi", INT64_C(2147483648000));
    assert_milli("100.123456789Gi", INT64_C(107506743117807));
    assert_milli("64Mi", INT64_C(67108864000));
    assert_milli("1k", 1000000);
    assert_milli("2M", INT64_C(2000000000));
    assert_milli("1e3", 1000000);
    assert_milli("1E3", 1000000);
    assert_milli("15e-1", 1500);
    assert_milli("1E", INT64_MAX);
    assert_milli("1P", INT64_C(1000000000000000000));
}

static void rounds_up_and_stays_in_range(void **state)
{
    (void)state;
    assert_milli("1n", 1);
    assert_milli("1u", 1);
    assert_milli("1000001u", 1001);
    assert_milli("0.0000000000001", 1);
    assert_milli("0.9999999999", 1000);
    assert_milli("8Ei", INT64_MAX);
    assert_milli("99999999999999999999999999", INT64_MAX);
    assert_milli("1e99", INT64_MAX);
    assert_milli("1e-99", 1);
}

static void refuses_everything_else(void **state)
{
    (void)state;
    static const char *const texts[] = {"",    ".",  "m",    "-1",   "1 ",  " 1",    "1Mib", "1mm",
                                        "1,5", "1e", "1e1x", "0x10", "NaN", "1.2.3", "1ki",  "e3"};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        int64_t milli = 42;
        assert_false(job_quantity_parse(bytes_from_text(texts[i]), &milli));
        assert_int_equal(42, milli);
    }
}

static const char pod_text[] =
    "{\"spec\":{\"template\":{\"spec\":{"
    "\"initContainers\":["
    " {\"resources\":{\"requests\":{\"cpu\":\"900m\",\"memory\":\"1Mi\"}}},"
    " {\"restartPolicy\":\"Always\",\"resources\":{\"requests\":{\"cpu\":\"50m\"}}}],"
    "\"containers\":["
    " {\"resources\":{\"requests\":{\"cpu\":\"100m\",\"memory\":\"64Mi\"},\"limits\":{\"cpu\":1}}},"
    " {\"resources\":{\"limits\":{\"cpu\":0.2,\"nvidia.com/gpu\":\"2\"}}}]}}}}";

static void counts_a_pod_as_kubernetes_does(void **state)
{
    (void)state;
    json_t *job = json_loads(pod_text, 0, NULL);
    assert_non_null(job);
    assert_int_equal(1000, job_quantity_of_job(job, "pods"));
    assert_int_equal(1000, job_quantity_of_job(job, "count/jobs.batch"));
    assert_int_equal(900, job_quantity_of_job(job, "requests.cpu"));
    assert_int_equal(900, job_quantity_of_job(job, "cpu"));
    assert_int_equal(1200, job_quantity_of_job(job, "limits.cpu"));
    assert_int_equal(INT64_C(67108864000), job_quantity_of_job(job, "requests.memory"));
    assert_int_equal(2000, job_quantity_of_job(job, "requests.nvidia.com/gpu"));
    assert_int_equal(0, job_quantity_of_job(job, "services"));
    json_decref(job);
}

static void assert_written(const char *expected, const char *resource, int64_t milli)
{
    char text[JOB_QUANTITY_TEXT_SIZE];
    job_quantity_format(resource, milli, text);
    assert_string_equal(expected, text);
}

static void writes_as_manifests_do(void **state)
{
    (void)state;
    assert_written("0", "pods", 0);
    assert_written("1024", "pods", 1024000);
    assert_written("500m", "requests.cpu", 500);
    assert_written("2", "requests.cpu", 2000);
    assert_written("64Mi", "requests.memory", INT64_C(67108864000));
    assert_written("2Gi", "limits.memory", INT64_C(2147483648000));
    assert_written("1000", "memory", 1000000);
    assert_written("0", "memory", 0);
}

static void a_pod_may_say_it_as_a_whole(void **state)
{
    (void)state;
    json_t *job = json_loads("{\"spec\":{\"template\":{\"spec\":{\"resources\":{\"requests\":"
                             "{\"cpu\":\"2\"}},\"containers\":[{\"resources\":{\"requests\":"
                             "{\"cpu\":\"1\",\"memory\":\"1Mi\"}}}]}}}}",
                             0, NULL);
    assert_int_equal(2000, job_quantity_of_job(job, "requests.cpu"));
    assert_int_equal(INT64_C(1048576000), job_quantity_of_job(job, "requests.memory"));
    json_decref(job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_kubernetes_writes),
        cmocka_unit_test(rounds_up_and_stays_in_range),
        cmocka_unit_test(refuses_everything_else),
        cmocka_unit_test(counts_a_pod_as_kubernetes_does),
        cmocka_unit_test(writes_as_manifests_do),
        cmocka_unit_test(a_pod_may_say_it_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
