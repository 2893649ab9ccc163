/* Jobs as processes, from the rendered template to the outcome (executor/local_run.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "executor/local_folder.h"
#include "executor/local_process.h"
#include "executor/local_run.h"
#include "support/scratch_folder.h"

#define DEADLINE_MS 60000
#define LONG_GRACE  30.0

static char *const environment[] = {
    (char[]){"PATH=/usr/bin:/bin"},
    (char[]){"JWT_SECRET=secret"},
    NULL,
};

static const char *const passed_names[] = {"PATH", NULL};

struct fixture {
    struct arena *arena;
    const char *folder;
    struct local_run_site site;
    struct local_run *run;
    bool is_table_closed;
    bool has_started;
    bool has_ended;
    struct outcome outcome;
    bool has_progress;
    const char *state;
    const char *meta;
};

static void set_flag(void *context)
{
    bool *flag = context;
    *flag = true;
}

static void wait_for(struct fixture *fixture, const bool *flag)
{
    bool is_over = false;
    struct timer deadline = {.on_due = set_flag, .context = &is_over};
    loop_start_timer(fixture->site.loop, &deadline, DEADLINE_MS);
    while (!*flag && !is_over) {
        loop_run_once(fixture->site.loop, true);
    }
    loop_stop_timer(fixture->site.loop, &deadline);
    assert_false(is_over);
}

static void on_started(void *context)
{
    struct fixture *fixture = context;
    assert_false(fixture->has_started || fixture->has_ended);
    fixture->has_started = true;
}

static void on_ended(void *context, const struct outcome *outcome)
{
    struct fixture *fixture = context;
    assert_false(fixture->has_ended);
    fixture->has_ended = true;
    fixture->outcome = *outcome;
    fixture->outcome.result = arena_copy(fixture->arena, outcome->result);
    fixture->outcome.exc_type = arena_copy(fixture->arena, outcome->exc_type);
    fixture->outcome.exc_message = arena_copy(fixture->arena, outcome->exc_message);
    local_run_free(&fixture->run);
}

static void on_progress(void *context, const struct progress *progress)
{
    struct fixture *fixture = context;
    assert_true(fixture->has_started && !fixture->has_ended);
    fixture->has_progress = true;
    fixture->state = arena_text(fixture->arena, progress->state);
    fixture->meta = arena_text(fixture->arena, progress->meta.text);
}

static const struct local_run_events run_events = {on_started, on_ended, on_progress};

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct fixture *fixture = arena_alloc(arena, sizeof(*fixture));
    struct loop *loop = loop_new(LOOP_CLOCK_REAL);
    fixture->arena = arena;
    fixture->folder = scratch_folder_make(arena);
    fixture->site = (struct local_run_site){
        .loop = loop,
        .table = local_process_table_new(loop, NULL),
        .namespace_name = "tenant-user",
        .log_folder = arena_format(arena, "%s/logs", fixture->folder),
        .work_folder = arena_format(arena, "%s/work", fixture->folder),
        .claims_folder = arena_format(arena, "%s/claims", fixture->folder),
        .environment = environment,
        .passed_names = passed_names,
    };
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct arena *arena = fixture->arena;
    local_process_table_close(&fixture->site.table, set_flag, &fixture->is_table_closed);
    wait_for(fixture, &fixture->is_table_closed);
    loop_free(&fixture->site.loop);
    scratch_folder_remove(fixture->folder);
    arena_free(&arena);
    return 0;
}

/* A Job that runs `script` in a shell; `pod_spec` is more of the pod's spec, with a comma
 * behind. */
static json_t *job_of(const char *script, const char *pod_spec)
{
    char text[4096];
    (void)snprintf(text, sizeof(text),
                   "{\"spec\": {\"template\": {\"spec\": {%s \"containers\": [{\"name\": \"main\", "
                   "\"command\": [\"sh\", \"-c\"], \"args\": [], \"volumeMounts\": [{\"name\": "
                   "\"out\", \"mountPath\": \"/out\"}], \"env\": [{\"name\": \"OUT\", \"value\": "
                   "\"/out\"}]}], \"volumes\": [{\"name\": \"out\", \"persistentVolumeClaim\": "
                   "{\"claimName\": \"results\"}}]}}}}",
                   pod_spec);
    json_t *job = json_loads(text, 0, NULL);
    assert_non_null(job);
    json_t *pod = json_object_get(json_object_get(job, "spec"), "template");
    json_t *containers = json_object_get(json_object_get(pod, "spec"), "containers");
    json_t *args = json_object_get(json_array_get(containers, 0), "args");
    assert_int_equal(json_array_append_new(args, json_string(script)), 0);
    return job;
}

static void begin(struct fixture *fixture, const char *script, const char *pod_spec,
                  double hard_limit_s)
{
    fixture->has_started = false;
    fixture->has_ended = false;
    fixture->run = local_run_new(&fixture->site, "train-1", BYTES("{\"v\": 1}"), hard_limit_s,
                                 &run_events, fixture);
    local_run_begin(fixture->run, job_of(script, pod_spec));
}

/* Checks the outcome and that nothing is left of the private folder. */
static void check_outcome(struct fixture *fixture, enum outcome_kind kind, const char *type,
                          const char *part_of_message)
{
    wait_for(fixture, &fixture->has_ended);
    const char *message = arena_text(fixture->arena, fixture->outcome.exc_message);
    if (!strstr(message, part_of_message)) {
        fail_msg("\"%s\" is not in \"%s\"", part_of_message, message);
    }
    assert_string_equal(arena_text(fixture->arena, fixture->outcome.exc_type), type);
    assert_int_equal(fixture->outcome.kind, kind);
    DIR *folder = opendir(fixture->site.work_folder);
    assert_non_null(folder);
    const struct dirent *entry = NULL;
    while ((entry = readdir(folder)) != NULL) {
        assert_int_equal(entry->d_name[0], '.');
    }
    (void)closedir(folder);
}

static void test_report_log_and_claim(void **state)
{
    struct fixture *fixture = *state;
    const char *script =
        "cat $PETIOLE_TASK_FILE; echo; echo ${JWT_SECRET:-none}; echo model > $OUT/model; "
        "text='{\"a\": 1}'; sum=$(printf %s \"$text\" | sha256sum | cut -d' ' -f1); "
        "printf '{\"v\":1,\"state\":\"SUCCESS\",\"result\":%s,\"traceback\":null,\"bytes\":%d,"
        "\"sha256\":\"%s\"}' \"$text\" ${#text} $sum > $PETIOLE_RESULT_FILE";
    begin(fixture, script, "", 0.0);
    check_outcome(fixture, OUTCOME_SUCCESS, "", "");
    assert_true(fixture->has_started);
    assert_true(bytes_equal_text(fixture->outcome.result, "{\"a\": 1}"));
    assert_true(fixture->outcome.runtime_s >= 0.0);
    struct bytes log = local_folder_read_end(
        arena_format(fixture->arena, "%s/train-1.log", fixture->site.log_folder), 1000,
        fixture->arena);
    assert_string_equal(arena_text(fixture->arena, log), "{\"v\": 1}\nnone\n");
    struct bytes model = local_folder_read_end(
        arena_format(fixture->arena, "%s/results/model", fixture->site.claims_folder), 1000,
        fixture->arena);
    assert_string_equal(arena_text(fixture->arena, model), "model\n");
}

static void test_progress(void **state)
{
    struct fixture *fixture = *state;
    for (int round = 1; round <= 2; round++) { /* the second one appends to the log of the first */
        char script[256];
        (void)snprintf(script, sizeof(script),
                       "echo text; echo '::petiole {\"seq\":1,\"state\":\"OLD\"}'; "
                       "echo '::petiole {\"seq\":2,\"state\":\"S%d\",\"meta\":[%d]}'; sleep 60",
                       round, round);
        fixture->has_progress = false;
        begin(fixture, script, "", 0.0);
        wait_for(fixture, &fixture->has_progress);
        assert_int_equal(fixture->state[1], '0' + round);
        assert_int_equal(fixture->meta[1], '0' + round);
        local_run_end(fixture->run, LOCAL_END_REVOKED, LONG_GRACE);
        check_outcome(fixture, OUTCOME_REVOKED, "TaskRevokedError", "terminated");
    }
}

static void test_failures(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, "echo why >&2; exit 7", "", 0.0);
    check_outcome(fixture, OUTCOME_FAILURE, "CrashExit", "\"exit_code\": 7");
    check_outcome(fixture, OUTCOME_FAILURE, "CrashExit", "\"log\": \"why\\n\"");
    begin(fixture, "kill -SEGV $$$$", "", 0.0);
    check_outcome(fixture, OUTCOME_FAILURE, "Signalled", "SIGSEGV");
    begin(fixture, "true", "", 0.0);
    check_outcome(fixture, OUTCOME_FAILURE, "ResultLost", "cannot be read");
}

static void test_what_cannot_start(void **state)
{
    struct fixture *fixture = *state;
    json_t *job = json_pack("{s:{s:{s:{s:[{s:s, s:[s]}]}}}}", "spec", "template", "spec",
                            "containers", "name", "main", "command", "no-such-program");
    fixture->run = local_run_new(&fixture->site, "train-1", BYTES("{}"), 0.0, &run_events, fixture);
    local_run_begin(fixture->run, job);
    check_outcome(fixture, OUTCOME_FAILURE, "CreateContainerError",
                  "Job train-1: there is no program no-such-program on this machine");
    assert_false(fixture->has_started);

    fixture->has_ended = false;
    fixture->run = local_run_new(&fixture->site, "train-1", BYTES("{}"), 0.0, &run_events, fixture);
    local_run_begin(fixture->run, json_object());
    check_outcome(fixture, OUTCOME_FAILURE, "TemplateError", "the Job has no container");

    struct error error = {ERROR_INVALID, "bad value"};
    fixture->has_ended = false;
    fixture->run = local_run_new(&fixture->site, "train-1", BYTES("{}"), 0.0, &run_events, fixture);
    local_run_refuse(fixture->run, "TemplateError", &error);
    assert_false(fixture->has_ended);
    check_outcome(fixture, OUTCOME_FAILURE, "TemplateError", "Job train-1: bad value");
    assert_false(fixture->has_started);
}

static void test_deadline_and_limit(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, "sleep 1000", "\"activeDeadlineSeconds\": 0.05,", 50.0);
    check_outcome(fixture, OUTCOME_FAILURE, "DeadlineExceeded", "before its deadline");
    assert_true(fixture->outcome.timed_out);
    assert_true(fixture->outcome.runtime_s >= 0.05);
    begin(fixture, "sleep 1000", "\"activeDeadlineSeconds\": 50,", 0.05);
    check_outcome(fixture, OUTCOME_FAILURE, "TimeLimitExceeded", "[0.05]");
    assert_true(fixture->outcome.timed_out);
}

static void test_runner_has_time_to_end_itself_at_the_limit(void **state)
{
    struct fixture *fixture = *state;
    fixture->site.limit_grace_s = 50.0;
    begin(fixture, "sleep 0.1; exit 3", "", 0.02);
    check_outcome(fixture, OUTCOME_FAILURE, "CrashExit", "\"exit_code\": 3");
}

static void test_deaf_process_is_killed_after_its_grace(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, "trap '' TERM; while :; do sleep 0.01; done",
          "\"activeDeadlineSeconds\": 1.0, \"terminationGracePeriodSeconds\": 0.05,", 0.0);
    check_outcome(fixture, OUTCOME_FAILURE, "DeadlineExceeded", "\"exit_code\": 137");
}

static void test_revoked(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, "sleep 1000", "", 0.0);
    wait_for(fixture, &fixture->has_started);
    local_run_end(fixture->run, LOCAL_END_REVOKED, -1.0);
    check_outcome(fixture, OUTCOME_REVOKED, "TaskRevokedError", "[\"terminated\"]");
}

static void test_revoked_before_it_runs(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, "sleep 1000", "", 0.0);
    local_run_end(fixture->run, LOCAL_END_REVOKED, -1.0);
    check_outcome(fixture, OUTCOME_REVOKED, "TaskRevokedError", "[\"terminated\"]");
    assert_false(fixture->has_started);
}

/* Turns the loop until something stands in a file of the claim; its path. */
static const char *wait_for_file(struct fixture *fixture, const char *name)
{
    const char *path =
        arena_format(fixture->arena, "%s/results/%s", fixture->site.claims_folder, name);
    struct stat status = {.st_size = 0};
    while (stat(path, &status) != 0 || status.st_size == 0) {
        loop_run_once(fixture->site.loop, false);
    }
    return path;
}

static void test_kill_shortens_a_grace(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, "trap '' TERM; echo > $OUT/ready; while :; do sleep 0.01; done", "", 0.0);
    wait_for(fixture, &fixture->has_started);
    (void)wait_for_file(fixture, "ready");
    local_run_end(fixture->run, LOCAL_END_REVOKED, LONG_GRACE);
    local_run_end(fixture->run, LOCAL_END_KILLED, 0.01);
    check_outcome(fixture, OUTCOME_REVOKED, "TaskRevokedError", "[\"terminated\"]");
    assert_true(fixture->outcome.runtime_s < LONG_GRACE);
}

/* Begins a process that tells which signal it got and goes on, and waits until it listens. */
static void begin_deaf(struct fixture *fixture)
{
    begin(fixture,
          "trap 'echo TERM >> $OUT/got' TERM; trap 'echo USR1 >> $OUT/got' USR1; "
          "echo > $OUT/ready; while :; do sleep 0.01; done",
          "\"terminationGracePeriodSeconds\": 600,", 0.0);
    wait_for(fixture, &fixture->has_started);
    wait_for_file(fixture, "ready");
}

static void test_revoked_by_a_signal(void **state)
{
    struct fixture *fixture = *state;
    begin_deaf(fixture);
    local_run_revoke(fixture->run, SIGUSR1);
    const char *got = wait_for_file(fixture, "got");
    local_run_revoke(fixture->run, SIGTERM); /* it has been asked */
    local_run_revoke(fixture->run, SIGKILL);
    check_outcome(fixture, OUTCOME_REVOKED, "TaskRevokedError", "[\"terminated\"]");
    struct bytes text = local_folder_read_end(got, 100, fixture->arena);
    assert_string_equal(arena_text(fixture->arena, text), "USR1\n");
}

static void test_killed_is_lost(void **state)
{
    struct fixture *fixture = *state;
    begin(fixture, "sleep 1000", "", 0.0);
    wait_for(fixture, &fixture->has_started);
    local_run_end(fixture->run, LOCAL_END_KILLED, 1.0);
    check_outcome(fixture, OUTCOME_LOST, "WorkerLostError", "Worker shut down");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_report_log_and_claim),
        TEST(test_progress),
        TEST(test_failures),
        TEST(test_what_cannot_start),
        TEST(test_deadline_and_limit),
        TEST(test_runner_has_time_to_end_itself_at_the_limit),
        TEST(test_deaf_process_is_killed_after_its_grace),
        TEST(test_revoked),
        TEST(test_revoked_before_it_runs),
        TEST(test_kill_shortens_a_grace),
        TEST(test_revoked_by_a_signal),
        TEST(test_killed_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
