#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_failure.h"
#include "support/job_fixture.h"

#define DISRUPTED(reason)                                                                           \
    "\"conditions\": [{\"type\": \"DisruptionTarget\", \"status\": \"True\", \"reason\": \"" reason \
    "\"}]"
#define UNSCHEDULABLE                                                                              \
    "\"conditions\": [{\"type\": \"PodScheduled\", \"status\": \"False\", \"reason\": "            \
    "\"Unschedulable\", \"message\": \"0/1 nodes are available: 1 Insufficient cpu.\"}]"
#define INIT(code)                                                                                 \
    "\"initContainerStatuses\": [{\"name\": \"fetch\", \"state\": {\"terminated\": "               \
    "{\"exitCode\": " #code ", \"reason\": \"Error\"}}}]"
#define JOB(reason)                                                                                \
    "{\"metadata\": {\"name\": \"train-1-0\"}, \"status\": {\"conditions\": [{\"type\": "          \
    "\"Failed\", \"status\": \"True\", \"reason\": \"" reason "\"}]}}"
#define COMPLETE                                                                                   \
    "{\"metadata\": {\"name\": \"train-1-0\"}, \"status\": {\"conditions\": [{\"type\": "          \
    "\"Complete\", \"status\": \"True\"}]}}"

/* The category that `job` with `pod` (NULL: none) ends in. */
static void assert_category(struct arena *arena, const char *job, const char *pod_text,
                            const char *expected)
{
    struct job_pod pod;
    struct outcome outcome;
    if (pod_text) {
        job_pod_read(job_fixture_parsed(pod_text), arena, &pod);
    }
    struct job_facts facts = {.job = job_fixture_parsed(job), .pod = pod_text ? &pod : NULL};
    job_failure_explain(&facts, arena, &outcome);
    assert_int_equal(outcome.kind, OUTCOME_FAILURE);
    if (!bytes_equal_text(outcome.exc_type, expected)) {
        fail_msg("%.*s instead of %s", BYTES_FORMAT(outcome.exc_type), expected);
    }
    struct json message = job_fixture_parsed(arena_text(arena, outcome.exc_message));
    assert_int_equal(json_count(message), 2);
    struct bytes category = {NULL, 0};
    assert_true(json_text(json_get(json_at(message, 1), "category"), arena, &category));
    assert_true(bytes_equal_text(category, expected));
}

/* What Kubernetes says, and what it is called. */
static const struct {
    const char *job;
    const char *pod;
    const char *category;
} causes[] = {
    {JOB("BackoffLimitExceeded"),
     JOB_FIXTURE_POD("Failed",
                     JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 3, \"reason\": \"Error\"}")),
     "CrashExit"},
    {JOB("BackoffLimitExceeded"),
     JOB_FIXTURE_POD(
         "Failed",
         JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 137, \"reason\": \"OOMKilled\"}")),
     "OOMKilled"},
    {COMPLETE,
     JOB_FIXTURE_POD(
         "Succeeded",
         JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 0, \"reason\": \"OOMKilled\"}")),
     "OOMKilled"},
    {JOB("BackoffLimitExceeded"),
     JOB_FIXTURE_POD(
         "Failed", JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 143, \"reason\": \"Error\"}")),
     "Signalled"},
    {JOB("BackoffLimitExceeded"),
     JOB_FIXTURE_POD("Failed", "\"reason\": \"DeadlineExceeded\", " JOB_FIXTURE_STATE(
                                   "\"terminated\": {\"exitCode\": 137, \"reason\": \"Error\"}")),
     "DeadlineExceeded"},
    {JOB("DeadlineExceeded"), NULL, "DeadlineExceeded"},
    {JOB("DeadlineExceeded"),
     JOB_FIXTURE_POD(
         "Failed", JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 143, \"reason\": \"Error\"}")),
     "DeadlineExceeded"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", "\"reason\": \"Evicted\""), "Evicted"},
    {JOB("BackoffLimitExceeded"), NULL, "Unknown"},
    {COMPLETE, NULL, "ResultLost"},
    {COMPLETE,
     JOB_FIXTURE_POD(
         "Succeeded",
         JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 0, \"reason\": \"Completed\"}")),
     "ResultLost"},
    {"{}",
     JOB_FIXTURE_POD("Pending",
                     JOB_FIXTURE_STATE("\"waiting\": {\"reason\": \"ImagePullBackOff\"}")),
     "ImagePullError"},
    {"{}",
     JOB_FIXTURE_POD("Pending",
                     JOB_FIXTURE_STATE("\"waiting\": {\"reason\": \"InvalidImageName\"}")),
     "InvalidImage"},
    {"{}",
     JOB_FIXTURE_POD(
         "Pending", JOB_FIXTURE_STATE("\"waiting\": {\"reason\": \"CreateContainerConfigError\"}")),
     "ContainerConfigError"},
    {"{}",
     JOB_FIXTURE_POD("Pending",
                     JOB_FIXTURE_STATE("\"waiting\": {\"reason\": \"CreateContainerError\"}")),
     "CreateContainerError"},
    {"{}", JOB_FIXTURE_POD("Pending", UNSCHEDULABLE), "Unschedulable"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", DISRUPTED("PreemptionByScheduler")),
     "Preempted"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", DISRUPTED("EvictionByEvictionAPI")),
     "Evicted"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", DISRUPTED("DeletionByTaintManager")),
     "NodeLost"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", DISRUPTED("DeletionByPodGC")),
     "NodeLost"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", DISRUPTED("TerminationByKubelet")),
     "Evicted"},
    {JOB("BackoffLimitExceeded"),
     JOB_FIXTURE_POD("Failed", "\"reason\": \"Terminated\", " DISRUPTED("TerminationByKubelet")),
     "NodeLost"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", "\"reason\": \"OutOfcpu\""),
     "Unschedulable"},
    {JOB("BackoffLimitExceeded"),
     JOB_FIXTURE_POD("Failed", "\"reason\": \"UnexpectedAdmissionError\""), "AdmissionDenied"},
    {JOB("BackoffLimitExceeded"),
     JOB_FIXTURE_POD(
         "Failed",
         JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 128, \"reason\": \"StartError\"}")),
     "CreateContainerError"},
    {JOB("BackoffLimitExceeded"), JOB_FIXTURE_POD("Failed", INIT(9)), "CrashExit"},
};

static void test_names_the_cause(void **state)
{
    for (size_t index = 0; index < ARRAY_LENGTH(causes); index++) {
        assert_category(*state, causes[index].job, causes[index].pod, causes[index].category);
    }
}

static void test_an_event_explains_a_job_without_pod(void **state)
{
    static const struct {
        const char *reason;
        const char *message;
        const char *category;
    } cases[] = {
        {"FailedCreate", "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\"",
         "PodSecurityViolation"},
        {"FailedCreate", "pods \"p\" is forbidden: exceeded quota: q", "QuotaExceeded"},
        {"FailedCreate", "admission webhook \"w\" denied the request", "AdmissionDenied"},
        {"TaintManagerEviction", "Marking for deletion Pod", "NodeLost"},
        {"Preempted", "Preempted by pod", "Preempted"},
        {"Evicted", "The node was low on resource: memory.", "Evicted"},
        {"FailedScheduling", "0/1 nodes are available", "Unschedulable"},
        {"Surprise", "", "Unknown"},
    };

    struct json job = job_fixture_parsed(JOB("BackoffLimitExceeded"));
    assert_true(job_failure_needs_event(job, NULL, *state));
    for (size_t index = 0; index < ARRAY_LENGTH(cases); index++) {
        struct outcome outcome;
        struct job_facts facts = {
            .job = job,
            .event = {bytes_from_text(cases[index].reason), bytes_from_text(cases[index].message)}};
        job_failure_explain(&facts, *state, &outcome);
        if (!bytes_equal_text(outcome.exc_type, cases[index].category)) {
            fail_msg("%s: %.*s", cases[index].reason, BYTES_FORMAT(outcome.exc_type));
        }
    }
}

static bool is_rerun(struct arena *arena, const char *job, const char *pod_text)
{
    struct job_pod pod;
    job_pod_read(job_fixture_parsed(pod_text), arena, &pod);
    return job_failure_is_rerun(job_fixture_parsed(job), &pod, arena);
}

static void test_repeats_only_what_never_ran(void **state)
{
    static const char failed[] = JOB("BackoffLimitExceeded");
    assert_true(is_rerun(*state, failed, JOB_FIXTURE_POD("Failed", "\"reason\": \"Evicted\"")));
    assert_true(is_rerun(*state, failed, JOB_FIXTURE_POD("Failed", "\"reason\": \"OutOfcpu\"")));
    assert_true(is_rerun(*state, failed, JOB_FIXTURE_POD("Failed", INIT(9))));
    assert_false(
        is_rerun(*state, failed, JOB_FIXTURE_POD("Failed", "\"reason\": \"DeadlineExceeded\"")));
    assert_false(is_rerun(*state, JOB("DeadlineExceeded"),
                          JOB_FIXTURE_POD("Failed", "\"reason\": \"Evicted\"")));
    assert_false(is_rerun(*state, "{}", JOB_FIXTURE_POD("Failed", "\"reason\": \"Evicted\"")));
    assert_false(is_rerun(*state, failed,
                          JOB_FIXTURE_POD("Failed", "\"reason\": \"Evicted\", " JOB_FIXTURE_STATE(
                                                        "\"terminated\": {\"exitCode\": 137}"))));
    assert_false(
        is_rerun(*state, failed, JOB_FIXTURE_POD("Running", JOB_FIXTURE_STATE("\"running\": {}"))));
    /* What is wrong with a command stays wrong. */
    assert_false(is_rerun(
        *state, failed,
        JOB_FIXTURE_POD(
            "Failed",
            JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 128, \"reason\": \"StartError\"}"))));
}

static void test_tells_a_deleted_job(void **state)
{
    struct outcome outcome;
    job_failure_deleted(BYTES("train-1-0"), NULL, *state, &outcome);
    assert_true(bytes_equal_text(outcome.exc_type, "JobDeleted"));
    assert_true(bytes_starts_with(outcome.exc_message, BYTES("[\"Job train-1-0: somebody")));
}

static void test_shows_the_end_of_the_log(void **state)
{
    char log[5000];
    struct outcome outcome;
    memset(log, 'x', sizeof(log));
    memcpy(log + sizeof(log) - 12, "\nlast line\n", 11);
    log[sizeof(log) - 1] = '\0';
    struct job_facts facts = {.job = job_fixture_parsed(JOB("BackoffLimitExceeded")),
                              .log = bytes_from_text(log)};
    job_failure_explain(&facts, *state, &outcome);
    struct json message = job_fixture_parsed(arena_text(*state, outcome.exc_message));
    struct bytes shown = {NULL, 0};
    assert_true(json_text(json_get(json_at(message, 1), "log"), *state, &shown));
    assert_true(bytes_equal_text(shown, "last line\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names_the_cause, job_fixture_set_up_arena,
                                        job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_an_event_explains_a_job_without_pod,
                                        job_fixture_set_up_arena, job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_repeats_only_what_never_ran, job_fixture_set_up_arena,
                                        job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_tells_a_deleted_job, job_fixture_set_up_arena,
                                        job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_shows_the_end_of_the_log, job_fixture_set_up_arena,
                                        job_fixture_tear_down_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
