/* Native tasks on real threads, with the sample plugin (executor/executor_native.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <petiole.h>
#include <pthread.h>

#include "base/log.h"
#include "executor/executor_native.h"
#include "executor/plugin.h"
#include "support/executor_fixture.h"
#include "support/sample_plugin.h"

#define THREAD_COUNT 2
#define FLOOD_COUNT  20000
#define RACE_COUNT   200

struct fixture {
    struct executor_fixture common;
    struct plugin_set *plugins;
    size_t flood_left;
};

/* A task that hears nothing: it ends when the test opens the gate. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t is_open_changed;
    bool is_open;
    size_t passed_count;
};

static struct gate *the_gate(const struct petiole_task_call *call)
{
    struct petiole_text text;
    void *address = NULL;
    struct petiole_json value = call->host->json_item(call->args, 0);
    assert_true(call->host->json_string(call, value, &text));
    assert_int_equal(sscanf(text.data, "%p", &address), 1);
    return address;
}

static void pass_gate(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    struct gate *gate = the_gate(call);
    (void)pthread_mutex_lock(&gate->lock);
    while (!gate->is_open) {
        (void)pthread_cond_wait(&gate->is_open_changed, &gate->lock);
    }
    gate->passed_count++;
    (void)pthread_cond_broadcast(&gate->is_open_changed);
    (void)pthread_mutex_unlock(&gate->lock);
    call->host->log(call, PETIOLE_LOG_ERROR, "passed");
    call->host->reply_string(reply, "late", 4);
}

static void log_line(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    (void)reply;
    call->host->log(call, PETIOLE_LOG_INFO, "hello");
}

static void reply_hostname(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    call->host->reply_string(reply, call->hostname.data, call->hostname.length);
}

static const struct petiole_task tasks[] = {
    {"test.gate", pass_gate},
    {"test.log", log_line},
    {"test.hostname", reply_hostname},
};

static const struct petiole_plugin plugin = {
    sizeof(struct petiole_plugin), PETIOLE_PLUGIN_ABI, "test", "1", tasks, ARRAY_LENGTH(tasks),
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    struct arena *arena = arena_new(1024);
    *state = fixture;
    executor_fixture_init(&fixture->common);
    fixture->plugins = plugin_set_new();
    assert_true(plugin_set_load(fixture->plugins, sample_plugin_path(arena), NULL));
    assert_true(plugin_set_add(fixture->plugins, &plugin, "test", NULL));
    arena_free(&arena);
    struct executor_native_options options = {
        .plugins = fixture->plugins,
        .thread_count = THREAD_COUNT,
        .hostname = "celery@here",
        .cancel_grace_ms = 20,
    };
    fixture->common.executor = executor_native_new(fixture->common.loop, &options,
                                                   fixture->common.events, &fixture->common, NULL);
    assert_non_null(fixture->common.executor);
    executor_fixture_start(&fixture->common);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    executor_fixture_fini(&fixture->common);
    plugin_set_free(&fixture->plugins);
    memory_free(&fixture);
    return 0;
}

static struct executor_record *record_gate(struct fixture *fixture, struct gate *gate)
{
    char args[64];
    *gate = (struct gate){.is_open = false};
    assert_int_equal(pthread_mutex_init(&gate->lock, NULL), 0);
    assert_int_equal(pthread_cond_init(&gate->is_open_changed, NULL), 0);
    (void)snprintf(args, sizeof(args), "[\"%p\"]", (void *)gate);
    return executor_fixture_record(&fixture->common, "test.gate", args, "{}");
}

static void open_gate(struct gate *gate)
{
    (void)pthread_mutex_lock(&gate->lock);
    gate->is_open = true;
    (void)pthread_cond_broadcast(&gate->is_open_changed);
    (void)pthread_mutex_unlock(&gate->lock);
}

static void wait_passed(struct gate *gate)
{
    (void)pthread_mutex_lock(&gate->lock);
    while (gate->passed_count == 0) {
        (void)pthread_cond_wait(&gate->is_open_changed, &gate->lock);
    }
    (void)pthread_mutex_unlock(&gate->lock);
}

/* Runs one task of the sample; `expected` is the result, or the exception as "Type message". */
static void check_sample(struct fixture *fixture, const char *task, const char *args,
                         const char *kwargs, const char *expected)
{
    struct executor_record *record = executor_fixture_record(&fixture->common, task, args, kwargs);
    executor_fixture_run(record);
    assert_int_equal(record->started_count, 1);
    char text[512];
    const struct outcome *outcome = &record->outcome;
    if (outcome->kind == OUTCOME_SUCCESS) {
        (void)snprintf(text, sizeof(text), "%.*s", BYTES_FORMAT(outcome->result));
    } else {
        (void)snprintf(text, sizeof(text), "%.*s %.*s", BYTES_FORMAT(outcome->exc_type),
                       BYTES_FORMAT(outcome->exc_message));
    }
    assert_string_equal(text, expected);
    executor_fixture_free_record(&record);
}

static void test_sample_add(void **state)
{
    const char *add = "petiole.sample.add";
    check_sample(*state, add, "[2, 3]", "{}", "5");
    check_sample(*state, add, "[-9223372036854775807]", "{\"y\": -1}", "-9223372036854775808");
    check_sample(*state, add, "[0.1, 0.2]", "{}", "0.30000000000000004");
    check_sample(*state, add, "[1, 2.0]", "{}", "3.0");
    check_sample(*state, add, "[true, 2]", "{}", "3");
    check_sample(*state, add, "[9223372036854775807, 1]", "{}",
                 "OverflowError [\"add() works with integers of up to 64 bits\"]");
    check_sample(*state, add, "[92233720368547758070, 1]", "{}",
                 "OverflowError [\"add() works with integers of up to 64 bits\"]");
    check_sample(*state, add, "[null, 1]", "{}",
                 "TypeError [\"unsupported operand type(s) for +: 'NoneType' and 'int'\"]");
    check_sample(*state, add, "[1]", "{}",
                 "TypeError [\"add() missing 1 required positional argument: 'y'\"]");
}

static void test_sample_others(void **state)
{
    check_sample(*state, "petiole.sample.echo", "[{\"a\":[1, 2.50]}]", "{}", "{\"a\":[1, 2.50]}");
    check_sample(*state, "petiole.sample.echo", "[1, 2]", "{}",
                 "TypeError [\"echo() takes 1 positional argument but 2 were given\"]");
    check_sample(*state, "petiole.sample.sleep", "[0.001]", "{}", "null");
    check_sample(*state, "petiole.sample.sleep", "[-1]", "{}",
                 "ValueError [\"sleep length must be non-negative\"]");
    check_sample(*state, "petiole.sample.sleep", "[\"1\"]", "{}",
                 "TypeError [\"'str' object cannot be interpreted as an integer\"]");
    check_sample(*state, "petiole.sample.fail", "[\"no \\\"way\\\"\"]", "{}",
                 "ValueError [\"no \\\"way\\\"\"]");
    check_sample(*state, "petiole.sample.fail", "[]", "{}", "ValueError []");
    check_sample(*state, "test.hostname", "[]", "{}", "\"celery@here\"");
}

static void test_unknown_task(void **state)
{
    struct fixture *fixture = *state;
    struct executor_record *record =
        executor_fixture_record(&fixture->common, "no.such", "[]", "{}");
    executor_fixture_run(record);
    assert_int_equal(record->started_count, 0);
    executor_fixture_assert_exception(record, OUTCOME_FAILURE, "celery.exceptions", "NotRegistered",
                                      "[\"no.such\"]");
    executor_fixture_free_record(&record);
}

static void test_started_comes_while_it_runs(void **state)
{
    struct fixture *fixture = *state;
    struct gate gates[THREAD_COUNT];
    struct executor_record *records[THREAD_COUNT];
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        records[i] = record_gate(fixture, &gates[i]);
        executor_fixture_submit(records[i]);
    }
    struct executor_record *waiting =
        executor_fixture_record(&fixture->common, "petiole.sample.add", "[1, 1]", "{}");
    executor_fixture_submit(waiting);
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        executor_fixture_wait_started(records[i]);
    }
    assert_int_equal(waiting->started_count, 0);
    open_gate(&gates[0]);
    executor_fixture_wait_finished(waiting);
    assert_true(waiting->started_order < waiting->finished_order);
    open_gate(&gates[1]);
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        executor_fixture_wait_finished(records[i]);
        executor_fixture_assert_result(records[i], "\"late\"");
        assert_true(records[i]->outcome.runtime_s > 0.0);
        executor_fixture_free_record(&records[i]);
    }
    executor_fixture_free_record(&waiting);
}

static void test_log_becomes_a_notice(void **state)
{
    struct fixture *fixture = *state;
    struct executor_record *record =
        executor_fixture_record(&fixture->common, "test.log", "[]", "{}");
    executor_fixture_run(record);
    assert_int_equal(fixture->common.notice_level, LOG_INFO);
    assert_string_equal(fixture->common.notice,
                        "test.log[4ba6c1f0-3d7e-4a52-9b1c-0f2a7c9d8e11]: hello");
    executor_fixture_free_record(&record);
}

static void test_soft_limit_is_heard(void **state)
{
    struct fixture *fixture = *state;
    struct executor_record *record =
        executor_fixture_record(&fixture->common, "petiole.sample.sleep", "[1000]", "{}");
    record->request.message.soft_limit_s = 0.02;
    record->request.message.hard_limit_s = 1000.0;
    executor_fixture_run(record);
    executor_fixture_assert_exception(record, OUTCOME_FAILURE, "billiard.exceptions",
                                      "SoftTimeLimitExceeded", "[]");
    assert_false(record->outcome.timed_out);
    assert_int_equal(fixture->common.notice_level, LOG_WARNING);
    assert_string_equal(fixture->common.notice,
                        "Soft time limit (0.02s) exceeded for "
                        "petiole.sample.sleep[4ba6c1f0-3d7e-4a52-9b1c-0f2a7c9d8e11]");
    executor_fixture_free_record(&record);
}

static void test_hard_limit_gives_the_thread_up(void **state)
{
    struct fixture *fixture = *state;
    struct gate gates[THREAD_COUNT + 1];
    struct executor_record *records[THREAD_COUNT + 1];
    for (size_t i = 0; i <= THREAD_COUNT; i++) {
        records[i] = record_gate(fixture, &gates[i]);
        records[i]->request.message.hard_limit_s = 0.02;
        executor_fixture_submit(records[i]);
    }
    for (size_t i = 0; i <= THREAD_COUNT; i++) {
        executor_fixture_wait_finished(records[i]);
        executor_fixture_assert_exception(records[i], OUTCOME_FAILURE, "billiard.exceptions",
                                          "TimeLimitExceeded", "[0.02]");
        assert_true(records[i]->outcome.timed_out);
        assert_true(records[i]->outcome.runtime_s >= 0.02);
        assert_int_equal(records[i]->started_count, 1);
        executor_fixture_free_record(&records[i]);
    }
    assert_int_equal(fixture->common.notice_level, LOG_ERROR);
    check_sample(fixture, "petiole.sample.add", "[1, 2]", "{}", "3");
    size_t finished_count = fixture->common.finished_count;
    for (size_t i = 0; i <= THREAD_COUNT; i++) {
        open_gate(&gates[i]);
        wait_passed(&gates[i]);
    }
    check_sample(fixture, "petiole.sample.add", "[1, 2]", "{}", "3");
    assert_int_equal(fixture->common.finished_count, finished_count + 1);
}

/* A body that ends as soon as it is asked to has no say in why it ended. */
static void test_hard_limit_of_one_that_listens(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < RACE_COUNT; i++) {
        struct executor_record *record =
            executor_fixture_record(&fixture->common, "petiole.sample.sleep", "[1000]", "{}");
        record->request.message.hard_limit_s = 0.001;
        executor_fixture_run(record);
        executor_fixture_assert_exception(record, OUTCOME_FAILURE, "billiard.exceptions",
                                          "TimeLimitExceeded", "[0.001]");
        executor_fixture_free_record(&record);
    }
}

static void test_cancel_of_a_running_task(void **state)
{
    struct fixture *fixture = *state;
    struct executor_record *listens =
        executor_fixture_record(&fixture->common, "petiole.sample.sleep", "[1000]", "{}");
    struct gate gate;
    struct executor_record *deaf = record_gate(fixture, &gate);
    executor_fixture_submit(listens);
    executor_fixture_submit(deaf);
    executor_fixture_wait_started(listens);
    executor_fixture_wait_started(deaf);
    executor_fixture_cancel(listens);
    executor_fixture_cancel(deaf);
    executor_fixture_wait_finished(listens);
    executor_fixture_wait_finished(deaf);
    executor_fixture_cancel(deaf);
    executor_fixture_assert_exception(listens, OUTCOME_REVOKED, "celery.exceptions",
                                      "TaskRevokedError", "[\"terminated\"]");
    executor_fixture_assert_exception(deaf, OUTCOME_REVOKED, "celery.exceptions",
                                      "TaskRevokedError", "[\"terminated\"]");
    open_gate(&gate);
    wait_passed(&gate);
    executor_fixture_free_record(&listens);
    executor_fixture_free_record(&deaf);
}

static void test_cancel_before_it_begins(void **state)
{
    struct fixture *fixture = *state;
    struct executor_record *at_once =
        executor_fixture_record(&fixture->common, "petiole.sample.add", "[1, 2]", "{}");
    executor_fixture_submit(at_once);
    executor_fixture_cancel(at_once);
    executor_fixture_cancel(at_once);
    executor_fixture_wait_finished(at_once);
    assert_int_equal(at_once->started_count, 0);
    executor_fixture_assert_exception(at_once, OUTCOME_REVOKED, "celery.exceptions",
                                      "TaskRevokedError", "[\"terminated\"]");
    executor_fixture_free_record(&at_once);
}

static void test_cancel_of_a_queued_task(void **state)
{
    struct fixture *fixture = *state;
    struct gate gates[THREAD_COUNT];
    struct executor_record *running[THREAD_COUNT];
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        running[i] = record_gate(fixture, &gates[i]);
        executor_fixture_submit(running[i]);
    }
    struct executor_record *queued =
        executor_fixture_record(&fixture->common, "petiole.sample.add", "[1, 2]", "{}");
    executor_fixture_submit(queued);
    executor_fixture_wait_started(running[THREAD_COUNT - 1]);
    executor_fixture_cancel(queued);
    executor_fixture_wait_finished(queued);
    assert_int_equal(queued->started_count, 0);
    assert_int_equal(queued->outcome.kind, OUTCOME_REVOKED);
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        open_gate(&gates[i]);
        executor_fixture_wait_finished(running[i]);
        executor_fixture_free_record(&running[i]);
    }
    executor_fixture_free_record(&queued);
}

static void test_close_waits_for_what_runs(void **state)
{
    struct fixture *fixture = *state;
    struct gate gates[THREAD_COUNT];
    struct executor_record *running[THREAD_COUNT];
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        running[i] = record_gate(fixture, &gates[i]);
        executor_fixture_submit(running[i]);
        executor_fixture_wait_started(running[i]);
        open_gate(&gates[i]);
    }
    executor_fixture_close(&fixture->common, false);
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        executor_fixture_assert_result(running[i], "\"late\"");
        executor_fixture_free_record(&running[i]);
    }
}

static void test_close_gives_back_what_has_not_begun(void **state)
{
    struct fixture *fixture = *state;
    struct executor *executor = fixture->common.executor;
    struct gate gates[THREAD_COUNT];
    struct executor_record *records[THREAD_COUNT + 1];
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        records[i] = record_gate(fixture, &gates[i]);
        executor_fixture_submit(records[i]);
        executor_fixture_wait_started(records[i]);
    }
    records[THREAD_COUNT] =
        executor_fixture_record(&fixture->common, "petiole.sample.add", "[1, 2]", "{}");
    executor_fixture_submit(records[THREAD_COUNT]);
    executor_fixture_begin_close(&fixture->common, false);
    assert_int_equal(executor->ops->free_slots(executor), 0);
    executor_fixture_wait_finished(records[THREAD_COUNT]);
    assert_int_equal(records[THREAD_COUNT]->started_count, 0);
    executor_fixture_assert_exception(records[THREAD_COUNT], OUTCOME_REJECT, "", "", NULL);
    assert_true(records[THREAD_COUNT]->outcome.requeue);
    executor_fixture_free_record(&records[THREAD_COUNT]);
    executor_fixture_close(&fixture->common, true);
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        executor_fixture_assert_exception(records[i], OUTCOME_LOST, "billiard.exceptions",
                                          "WorkerLostError", NULL);
        executor_fixture_free_record(&records[i]);
    }
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        open_gate(&gates[i]);
        wait_passed(&gates[i]);
    }
}

static void submit_again(struct executor_fixture *common, struct executor_record *record)
{
    struct fixture *fixture = CONTAINER_OF(common, struct fixture, common);
    if (fixture->flood_left > 0) {
        fixture->flood_left--;
        record->started_count = 0;
        record->finished_count = 0;
        common->executor->ops->submit(common->executor, &record->request);
    }
}

static void test_flood_keeps_every_task(void **state)
{
    struct fixture *fixture = *state;
    struct executor *executor = fixture->common.executor;
    size_t slot_count = executor->ops->free_slots(executor);
    assert_int_equal(slot_count, THREAD_COUNT + EXECUTOR_NATIVE_QUEUE_LENGTH);
    struct executor_record **records = memory_resize(NULL, slot_count, sizeof(*records));
    fixture->flood_left = FLOOD_COUNT;
    fixture->common.on_finished = submit_again;
    for (size_t i = 0; i < slot_count; i++) {
        records[i] =
            executor_fixture_record(&fixture->common, "petiole.sample.add", "[1, 2]", "{}");
        executor_fixture_submit(records[i]);
    }
    assert_int_equal(executor->ops->free_slots(executor), 0);
    executor_fixture_wait_count(&fixture->common, &fixture->common.finished_count,
                                slot_count + FLOOD_COUNT);
    assert_int_equal(fixture->common.finished_count, slot_count + FLOOD_COUNT);
    for (size_t i = 0; i < slot_count; i++) {
        executor_fixture_assert_result(records[i], "3");
        assert_int_equal(records[i]->started_count, 1);
        executor_fixture_free_record(&records[i]);
    }
    memory_free(&records);
    assert_int_equal(executor->ops->running_count(executor), 0);
    assert_true(fixture->common.free_slots_count > 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sample_add),
        TEST(test_sample_others),
        TEST(test_unknown_task),
        TEST(test_started_comes_while_it_runs),
        TEST(test_log_becomes_a_notice),
        TEST(test_soft_limit_is_heard),
        TEST(test_hard_limit_gives_the_thread_up),
        TEST(test_hard_limit_of_one_that_listens),
        TEST(test_cancel_of_a_running_task),
        TEST(test_cancel_before_it_begins),
        TEST(test_cancel_of_a_queued_task),
        TEST(test_close_waits_for_what_runs),
        TEST(test_close_gives_back_what_has_not_begun),
        TEST(test_flood_keeps_every_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
