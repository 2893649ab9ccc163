#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_pod.h"
#include "support/job_fixture.h"

static void test_the_named_container_decides(void **state)
{
    struct job_pod pod;
    job_pod_read(
        job_fixture_parsed(
            "{\"metadata\": {\"name\": \"p\", \"annotations\": "
            "{\"kubectl.kubernetes.io/default-container\": \"main\"}}, \"spec\": {\"containers\": "
            "[{\"name\": \"sidecar\"}, {\"name\": \"main\"}]}, \"status\": {\"phase\": "
            "\"Running\", \"containerStatuses\": [{\"name\": \"sidecar\", \"state\": "
            "{\"running\": {}}}, {\"name\": \"main\", \"state\": {\"terminated\": {\"exitCode\": "
            "0, \"message\": \"m\", \"startedAt\": \"2026-01-01T00:00:00Z\", \"finishedAt\": "
            "\"2026-01-01T00:00:05Z\"}}}]}}"),
        *state, &pod);
    assert_int_equal(pod.state, JOB_POD_ENDED);
    assert_true(bytes_equal_text(pod.container, "main"));
    assert_true(bytes_equal_text(pod.message, "m"));
    assert_true(pod.runtime_s > 4.9 && pod.runtime_s < 5.1);
    assert_false(pod.is_over); /* its sidecar goes on */
    assert_true(pod.may_have_run);
}

static void test_an_init_container_explains_what_never_began(void **state)
{
    struct job_pod pod;
    job_pod_read(job_fixture_parsed(JOB_FIXTURE_POD(
                     "Failed", "\"initContainerStatuses\": [{\"name\": \"ok\", \"state\": "
                               "{\"terminated\": {\"exitCode\": 0}}}, {\"name\": \"fetch\", "
                               "\"state\": {\"terminated\": {\"exitCode\": 9, \"reason\": "
                               "\"Error\"}}}], " JOB_FIXTURE_STATE(
                                   "\"waiting\": {\"reason\": \"PodInitializing\"}"))),
                 *state, &pod);
    assert_true(pod.is_init);
    assert_true(bytes_equal_text(pod.container, "fetch"));
    assert_int_equal(pod.exit_code, 9);
    assert_true(job_pod_never_ran(&pod));
}

static void test_knows_what_will_not_come_by_itself(void **state)
{
    static const char *const reasons[] = {"ErrImagePull", "InvalidImageName", NULL};
    static const char *const none[] = {NULL};

    static const struct {
        const char *reason;
        bool is_stuck;
    } cases[] = {
        {"ErrImagePull", true},
        {"ImagePullBackOff", true},
        {"InvalidImageName", true},
        {"ContainerCreating", false},
    };
    struct job_pod pod;
    for (size_t index = 0; index < ARRAY_LENGTH(cases); index++) {
        const char *text = arena_format(
            *state,
            JOB_FIXTURE_POD("Pending", JOB_FIXTURE_STATE("\"waiting\": {\"reason\": \"%s\"}")),
            cases[index].reason);
        job_pod_read(job_fixture_parsed(text), *state, &pod);
        assert_int_equal(job_pod_is_stuck(&pod, reasons), cases[index].is_stuck);
        assert_false(job_pod_is_stuck(&pod, none));
    }
    job_pod_read(job_fixture_parsed("{}"), *state, &pod);
    assert_false(job_pod_is_stuck(&pod, reasons));
    assert_int_equal(pod.state, JOB_POD_WAITING);
}

static void test_tells_which_pod_ended_as_its_job_did(void **state)
{
    struct job_pod pod;
    job_pod_read(job_fixture_parsed(JOB_FIXTURE_POD(
                     "Succeeded", JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 0}"))),
                 *state, &pod);
    assert_true(job_pod_fits(&pod, true));
    assert_false(job_pod_fits(&pod, false));
    job_pod_read(job_fixture_parsed(JOB_FIXTURE_POD(
                     "Failed", JOB_FIXTURE_STATE("\"terminated\": {\"exitCode\": 1}"))),
                 *state, &pod);
    assert_false(job_pod_fits(&pod, true));
    assert_true(job_pod_fits(&pod, false));
    job_pod_read(
        job_fixture_parsed(JOB_FIXTURE_POD("Running", JOB_FIXTURE_STATE("\"running\": {}"))),
        *state, &pod);
    assert_false(job_pod_fits(&pod, true));
    assert_false(job_pod_fits(&pod, false));
}

static void test_a_pod_on_a_lost_node_may_have_run(void **state)
{
    struct job_pod pod;
    job_pod_read(job_fixture_parsed(
                     "{\"spec\": {\"nodeName\": \"n\"}, \"status\": {\"phase\": \"Failed\", "
                     "\"conditions\": [{\"type\": \"DisruptionTarget\", \"status\": \"True\", "
                     "\"reason\": \"DeletionByPodGC\"}]}}"),
                 *state, &pod);
    assert_false(job_pod_never_ran(&pod));
    job_pod_read(job_fixture_parsed(
                     "{\"metadata\": {\"deletionTimestamp\": \"2026-01-01T00:00:00Z\"}, "
                     "\"spec\": {\"nodeName\": \"n\"}, \"status\": {\"phase\": \"Pending\"}}"),
                 *state, &pod);
    assert_false(job_pod_never_ran(&pod)); /* its kubelet may yet tell otherwise */
    job_pod_read(
        job_fixture_parsed("{\"metadata\": {\"deletionTimestamp\": \"2026-01-01T00:00:00Z\"}, "
                           "\"status\": {\"phase\": \"Pending\"}}"),
        *state, &pod);
    assert_true(job_pod_never_ran(&pod)); /* it never had a node */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_named_container_decides, job_fixture_set_up_arena,
                                        job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_an_init_container_explains_what_never_began,
                                        job_fixture_set_up_arena, job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_knows_what_will_not_come_by_itself,
                                        job_fixture_set_up_arena, job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_tells_which_pod_ended_as_its_job_did,
                                        job_fixture_set_up_arena, job_fixture_tear_down_arena),
        cmocka_unit_test_setup_teardown(test_a_pod_on_a_lost_node_may_have_run,
                                        job_fixture_set_up_arena, job_fixture_tear_down_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
