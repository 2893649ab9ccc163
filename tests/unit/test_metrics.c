/* Metrics and their text format (telemetry/metrics.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "telemetry/metrics.h"

static const struct bytes add_labels[] = {{"app.add", 7}, {"tenant-a", 8}, {NULL, 0}};

static int set_up(void **state)
{
    struct metrics_options options = {.hostname = "host", .tenant = "tenant-a"};
    *state = metrics_new(&options);
    return 0;
}

static int tear_down(void **state)
{
    struct metrics *metrics = *state;
    metrics_free(&metrics);
    assert_null(metrics);
    metrics_free(&metrics);
    return 0;
}

/* Whether the text of `metrics` has `line` as a whole line. */
static bool has_line(struct metrics *metrics, const char *line)
{
    struct buffer buffer;
    buffer_init(&buffer, 1 << 20);
    buffer_append_text(&buffer, "\n");
    metrics_write(metrics, &buffer);
    buffer_append_byte(&buffer, '\0');
    char wanted[2048];
    (void)snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    bool found = strstr(buffer.data, wanted) != NULL;
    if (!found) {
        print_message("%s", buffer.data);
    }
    buffer_fini(&buffer);
    return found;
}

static void test_counters_and_their_siblings(void **state)
{
    metrics_add(*state, METRICS_TASK_RECEIVED, add_labels, 1);
    metrics_add(*state, METRICS_TASK_RECEIVED, add_labels, 2);
    assert_true(has_line(*state, "# TYPE celery_task_received_total counter"));
    assert_true(has_line(
        *state,
        "celery_task_received_total{hostname=\"host\",name=\"app.add\",queue_name=\"tenant-a\"} 3.0"));
    assert_true(has_line(
        *state,
        "celery_task_failed_total{exception=\"\",hostname=\"host\",name=\"app.add\",queue_name=\"tenant-a\"} 0.0"));
    assert_true(has_line(
        *state,
        "celery_task_retried_total{hostname=\"host\",name=\"app.add\",queue_name=\"tenant-a\"} 0.0"));
}

static void test_failures_by_exception(void **state)
{
    const struct bytes labels[] = {BYTES("app.add"), BYTES("q"), BYTES("JobOOMKilled")};
    metrics_add(*state, METRICS_TASK_FAILED, labels, 1);
    assert_true(metrics_value(*state, METRICS_TASK_FAILED, labels) == 1.0);
    assert_true(has_line(
        *state,
        "celery_task_failed_total{exception=\"JobOOMKilled\",hostname=\"host\",name=\"app.add\",queue_name=\"q\"} 1.0"));
}

static void test_gauges_with_tenant(void **state)
{
    metrics_set(*state, METRICS_JOBS_RUNNING, NULL, 3);
    metrics_set(*state, METRICS_JOBS_RUNNING, NULL, 2);
    metrics_set(*state, METRICS_WORKER_UP, NULL, 1);
    metrics_set(*state, METRICS_QUEUE_LENGTH, &add_labels[1], 7);
    assert_true(has_line(*state, "petiole_jobs_running{tenant=\"tenant-a\"} 2.0"));
    assert_true(has_line(*state, "celery_worker_up{hostname=\"host\"} 1.0"));
    assert_true(has_line(*state, "celery_queue_length{queue_name=\"tenant-a\"} 7.0"));
}

static void test_histogram(void **state)
{
    metrics_observe(*state, METRICS_TASK_RUNTIME, add_labels, 0.005);
    metrics_observe(*state, METRICS_TASK_RUNTIME, add_labels, 0.3);
    metrics_observe(*state, METRICS_TASK_RUNTIME, add_labels, 1000);
#define RUNTIME_LABELS "hostname=\"host\",name=\"app.add\",queue_name=\"tenant-a\""
    assert_true(has_line(*state, "celery_task_runtime_bucket{" RUNTIME_LABELS ",le=\"0.005\"} 1"));
    assert_true(has_line(*state, "celery_task_runtime_bucket{" RUNTIME_LABELS ",le=\"0.5\"} 2"));
    assert_true(has_line(*state, "celery_task_runtime_bucket{" RUNTIME_LABELS ",le=\"10.0\"} 2"));
    assert_true(has_line(*state, "celery_task_runtime_bucket{" RUNTIME_LABELS ",le=\"+Inf\"} 3"));
    assert_true(has_line(*state, "celery_task_runtime_sum{" RUNTIME_LABELS "} 1000.305"));
    assert_true(has_line(*state, "celery_task_runtime_count{" RUNTIME_LABELS "} 3.0"));
    assert_true(metrics_value(*state, METRICS_TASK_RUNTIME, add_labels) == 3.0);
}

static void test_own_buckets(void **state)
{
    const double bounds[] = {1, 3600};
    struct metrics_options options = {
        .hostname = "h", .tenant = "t", .runtime_buckets = bounds, .runtime_bucket_count = 2};
    struct metrics *metrics = metrics_new(&options);
    metrics_observe(metrics, METRICS_TASK_RUNTIME, add_labels, 100);
    assert_true(has_line(metrics,
                         "celery_task_runtime_bucket{hostname=\"h\",name=\"app.add\",queue_name="
                         "\"tenant-a\",le=\"3600.0\"} 1"));
    metrics_free(&metrics);
    (void)state;
}

static void test_label_values_are_escaped_and_cut(void **state)
{
    const struct bytes strange = BYTES("a\"b\\c\nd");
    metrics_set(*state, METRICS_QUEUE_LENGTH, &strange, 1);
    assert_true(has_line(*state, "celery_queue_length{queue_name=\"a\\\"b\\\\c\\nd\"} 1.0"));

    char text[METRICS_MAX_LABEL_BYTES + 100];
    memset(text, 'x', sizeof(text));
    memcpy(text + METRICS_MAX_LABEL_BYTES - 1, "\xc3\xa9", 2);
    const struct bytes longer = bytes_of(text, sizeof(text));
    const struct bytes kept = bytes_of(text, METRICS_MAX_LABEL_BYTES - 1);
    metrics_set(*state, METRICS_QUEUE_LENGTH, &longer, 5);
    assert_true(metrics_value(*state, METRICS_QUEUE_LENGTH, &kept) == 5.0);
}

static void test_number_of_series_is_bounded(void **state)
{
    char name[32];
    for (int index = 0; index < METRICS_MAX_SERIES + 100; index++) {
        (void)snprintf(name, sizeof(name), "queue-%d", index);
        const struct bytes label = bytes_from_text(name);
        metrics_add(*state, METRICS_JOBS_CREATED, &label, 1);
    }
    const struct bytes other = BYTES("other");
    const struct bytes first = BYTES("queue-0");
    assert_true(metrics_value(*state, METRICS_JOBS_CREATED, &other) == 100.0);
    metrics_add(*state, METRICS_JOBS_CREATED, &first, 1);
    assert_true(metrics_value(*state, METRICS_JOBS_CREATED, &first) == 2.0);
}

static void test_process(void **state)
{
    struct buffer buffer;
    buffer_init(&buffer, 1 << 20);
    metrics_write(*state, &buffer);
    assert_true(metrics_value(*state, METRICS_RESIDENT_BYTES, NULL) > 100000);
    assert_true(metrics_value(*state, METRICS_OPEN_FDS, NULL) >= 1);
    assert_true(metrics_value(*state, METRICS_CPU_SECONDS, NULL) > 0);
    assert_true(metrics_value(*state, METRICS_START_TIME, NULL) > 1e9);
    assert_true(metrics_value(*state, METRICS_WORKER_UP, NULL) == 0.0);
    buffer_fini(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counters_and_their_siblings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failures_by_exception, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gauges_with_tenant, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_histogram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_buckets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_label_values_are_escaped_and_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_number_of_series_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_process, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
