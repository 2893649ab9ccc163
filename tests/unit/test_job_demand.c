#include "executor/job_demand.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "executor/job_quantity.h"

#define JOB(pod_spec) "{\"spec\":{\"template\":{\"spec\":" pod_spec "}}}"
#define BARE          JOB("{\"containers\":[{\"name\":\"main\"}]}")

static json_t *tree(const char *text)
{
    json_t *loaded = json_loads(text, 0, NULL);
    assert_non_null(loaded);
    return loaded;
}

static bool is_in_scope(const char *job_text, const char *quota_spec)
{
    json_t *job = tree(job_text);
    json_t *quota = json_pack("{s:o}", "spec", tree(quota_spec));
    bool is_counted = job_demand_is_in_scope(job, quota);
    json_decref(quota);
    json_decref(job);
    return is_counted;
}

static void assert_missing(const char *job_text, const char *hard, const char *expected)
{
    json_t *job = tree(job_text);
    json_t *quota = json_pack("{s:{s:o}}", "spec", "hard", tree(hard));
    struct buffer text;
    buffer_init(&text, 1024);
    job_demand_fill_in(job, NULL);
    assert_true(job_demand_append_missing(&text, job, quota) == (expected[0] != '\0'));
    (void)buffer_append_byte(&text, '\0');
    assert_string_equal(expected, text.data);
    buffer_fini(&text);
    json_decref(quota);
    json_decref(job);
}

static void says_what_is_missing_as_kubernetes_does(void **state)
{
    (void)state;
    assert_missing(BARE, "{\"pods\":\"3\"}", "");
    assert_missing(BARE, "{\"requests.nvidia.com/gpu\":\"1\"}", "");
    assert_missing(BARE, "{\"requests.cpu\":\"1\",\"requests.memory\":\"2Gi\",\"pods\":\"3\"}",
                   "requests.cpu for: main; requests.memory for: main");
    assert_missing(JOB("{\"initContainers\":[{\"name\":\"first\"}],\"containers\":["
                       "{\"name\":\"main\",\"resources\":{\"limits\":{\"cpu\":\"1\"}}},"
                       "{\"name\":\"side\"}]}"),
                   "{\"cpu\":\"1\",\"limits.cpu\":\"1\"}",
                   "cpu for: first,side; limits.cpu for: first,side");
    assert_missing(JOB("{\"resources\":{\"requests\":{\"cpu\":\"1\"}},"
                       "\"containers\":[{\"name\":\"main\"}]}"),
                   "{\"requests.cpu\":\"1\"}", "");
    assert_missing(JOB("{\"containers\":[{\"name\":\"main\","
                       "\"resources\":{\"requests\":{\"cpu\":\"0\"}}}]}"),
                   "{\"requests.cpu\":\"1\"}", "");
}

static void takes_the_defaults_of_limit_ranges(void **state)
{
    (void)state;
    json_t *job = tree(JOB("{\"containers\":[{\"name\":\"main\"},"
                           "{\"name\":\"own\",\"resources\":{\"limits\":{\"cpu\":\"300m\"}}}]}"));
    json_t *ranges =
        tree("[{\"spec\":{\"limits\":[{\"type\":\"Pod\",\"default\":{\"cpu\":\"9\"}},"
             "{\"type\":\"Container\",\"defaultRequest\":{\"cpu\":\"100m\",\"memory\":\"64Mi\"},"
             "\"default\":{\"cpu\":\"200m\"}}]}},"
             "{\"spec\":{\"limits\":[{\"type\":\"Container\",\"defaultRequest\":"
             "{\"cpu\":\"7\"}}]}}]");
    job_demand_fill_in(job, ranges);
    assert_int_equal(400, job_quantity_of_job(job, "requests.cpu"));
    assert_int_equal(500, job_quantity_of_job(job, "limits.cpu"));
    assert_int_equal(INT64_C(134217728000), job_quantity_of_job(job, "requests.memory"));
    json_decref(ranges);
    json_decref(job);
}

static void a_quota_counts_pods_of_its_scopes(void **state)
{
    (void)state;
    static const char ending[] = JOB("{\"activeDeadlineSeconds\":60,\"priorityClassName\":\"low\","
                                     "\"containers\":[{\"name\":\"main\",\"resources\":"
                                     "{\"requests\":{\"cpu\":\"1\"}}}]}");
    static const char near[] =
        JOB("{\"affinity\":{\"podAffinity\":{\"preferredDuringSchedulingIgnoredDuringExecution\":"
            "[{\"podAffinityTerm\":{\"namespaces\":[\"other\"]}}]}}}");
    assert_true(is_in_scope(BARE, "{}"));
    assert_true(is_in_scope(ending, "{\"scopes\":[\"Terminating\",\"NotBestEffort\"]}"));
    assert_false(is_in_scope(ending, "{\"scopes\":[\"Terminating\",\"BestEffort\"]}"));
    assert_false(is_in_scope(ending, "{\"scopes\":[\"NotTerminating\"]}"));
    assert_true(is_in_scope(BARE, "{\"scopes\":[\"NotTerminating\",\"BestEffort\"]}"));
    assert_false(is_in_scope(BARE, "{\"scopes\":[\"Terminating\"]}"));
    assert_true(is_in_scope(near, "{\"scopes\":[\"CrossNamespacePodAffinity\"]}"));
    assert_false(is_in_scope(BARE, "{\"scopes\":[\"CrossNamespacePodAffinity\"]}"));
    assert_false(is_in_scope(BARE, "{\"scopes\":[\"SomethingNew\"]}"));
    assert_true(is_in_scope(ending, "{\"scopes\":[\"PriorityClass\"]}"));
    assert_false(is_in_scope(BARE, "{\"scopes\":[\"PriorityClass\"]}"));
}

#define PRIORITY(operator, values)                                                                 \
    "{\"scopeSelector\":{\"matchExpressions\":[{\"scopeName\":\"PriorityClass\",\"operator\":\""   \
    operator"\",\"values\":[" values "]}]}}"

static void a_scope_selector_looks_at_the_priority_class(void **state)
{
    (void)state;
    static const char low[] = JOB("{\"priorityClassName\":\"low\"}");
    assert_true(is_in_scope(low, PRIORITY("In", "\"high\",\"low\"")));
    assert_false(is_in_scope(low, PRIORITY("In", "\"high\"")));
    assert_false(is_in_scope(BARE, PRIORITY("In", "\"low\"")));
    assert_true(is_in_scope(low, PRIORITY("NotIn", "\"high\"")));
    assert_true(is_in_scope(BARE, PRIORITY("NotIn", "\"high\"")));
    assert_true(is_in_scope(low, PRIORITY("Exists", "")));
    assert_true(is_in_scope(BARE, PRIORITY("DoesNotExist", "")));
    assert_false(is_in_scope(low, PRIORITY("DoesNotExist", "")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_is_missing_as_kubernetes_does),
        cmocka_unit_test(takes_the_defaults_of_limit_ranges),
        cmocka_unit_test(a_quota_counts_pods_of_its_scopes),
        cmocka_unit_test(a_scope_selector_looks_at_the_priority_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
