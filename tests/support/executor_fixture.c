#include "support/executor_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>

#include "base/json.h"

#define DEADLINE_MS 60000

static struct executor_record *record_of(struct request *request)
{
    return CONTAINER_OF(request, struct executor_record, request);
}

static void on_ready(void *context, struct executor *executor)
{
    struct executor_fixture *fixture = context;
    assert_ptr_equal(executor, fixture->executor);
    fixture->ready_count++;
}

static void on_free_slots(void *context, struct executor *executor)
{
    struct executor_fixture *fixture = context;
    assert_ptr_equal(executor, fixture->executor);
    fixture->free_slots_count++;
}

static void on_started(void *context, struct request *request, struct bytes receipt)
{
    struct executor_fixture *fixture = context;
    struct executor_record *record = record_of(request);
    (void)receipt;
    assert_int_equal(record->finished_count, 0);
    record->started_count++;
    record->started_order = ++fixture->order;
}

static struct outcome copy_outcome(struct arena *arena, const struct outcome *outcome)
{
    struct outcome copy = *outcome;
    copy.result = arena_copy(arena, outcome->result);
    copy.exc_type = arena_copy(arena, outcome->exc_type);
    copy.exc_module = arena_copy(arena, outcome->exc_module);
    copy.exc_message = arena_copy(arena, outcome->exc_message);
    copy.traceback = arena_copy(arena, outcome->traceback);
    return copy;
}

static void on_finished(void *context, struct request *request, const struct outcome *outcome)
{
    struct executor_fixture *fixture = context;
    struct executor_record *record = record_of(request);
    record->finished_count++;
    record->finished_order = ++fixture->order;
    record->outcome = copy_outcome(request->arena, outcome);
    fixture->finished_count++;
    if (fixture->on_finished) {
        fixture->on_finished(fixture, record);
    }
}

static void on_running(void *context, const struct completion *running)
{
    (void)context;
    (void)running;
    fail_msg("only durable executors tell on_running");
}

static void on_completed(void *context, const struct completion *completion)
{
    (void)context;
    (void)completion;
    fail_msg("only durable executors tell on_completed");
}

static void on_notice(void *context, int level, const char *text)
{
    struct executor_fixture *fixture = context;
    fixture->notice_count++;
    fixture->notice_level = level;
    (void)snprintf(fixture->notice, sizeof(fixture->notice), "%s", text);
}

static void on_closed(void *context)
{
    struct executor_fixture *fixture = context;
    fixture->closed_count++;
    fixture->executor = NULL;
}

static const struct executor_events fixture_events = {
    .on_ready = on_ready,
    .on_free_slots = on_free_slots,
    .on_started = on_started,
    .on_finished = on_finished,
    .on_running = on_running,
    .on_completed = on_completed,
    .on_notice = on_notice,
};

static void on_deadline(void *context)
{
    bool *is_over = context;
    *is_over = true;
}

void executor_fixture_wait_count(struct executor_fixture *fixture, const size_t *counter,
                                 size_t at_least)
{
    bool is_over = false;
    struct timer deadline = {.on_due = on_deadline, .context = &is_over};
    loop_start_timer(fixture->loop, &deadline, DEADLINE_MS);
    while (*counter < at_least && !is_over) {
        loop_run_once(fixture->loop, true);
    }
    loop_stop_timer(fixture->loop, &deadline);
    assert_false(is_over);
}

void executor_fixture_init(struct executor_fixture *fixture)
{
    memset(fixture, 0, sizeof(*fixture));
    fixture->loop = loop_new(LOOP_CLOCK_REAL);
    fixture->events = &fixture_events;
}

void executor_fixture_fini(struct executor_fixture *fixture)
{
    if (fixture->executor) {
        executor_fixture_close(fixture, true);
    }
    loop_free(&fixture->loop);
}

void executor_fixture_start(struct executor_fixture *fixture)
{
    fixture->executor->ops->start(fixture->executor);
    assert_int_equal(fixture->ready_count, 0);
    executor_fixture_wait_count(fixture, &fixture->ready_count, 1);
}

void executor_fixture_begin_close(struct executor_fixture *fixture, bool kill)
{
    fixture->executor->ops->close(fixture->executor, kill, on_closed, fixture);
    assert_int_equal(fixture->closed_count, 0);
}

void executor_fixture_close(struct executor_fixture *fixture, bool kill)
{
    executor_fixture_begin_close(fixture, kill);
    executor_fixture_wait_count(fixture, &fixture->closed_count, 1);
}

struct executor_record *executor_fixture_record(struct executor_fixture *fixture, const char *task,
                                                const char *args, const char *kwargs)
{
    struct arena *arena = arena_new(1024);
    struct executor_record *record = arena_alloc(arena, sizeof(*record));
    struct message *message = &record->request.message;
    record->fixture = fixture;
    record->request.arena = arena;
    message->protocol = 2;
    message->task = arena_copy(arena, bytes_from_text(task));
    message->id = BYTES("4ba6c1f0-3d7e-4a52-9b1c-0f2a7c9d8e11");
    message->content_type = BYTES("application/json");
    message->content_encoding = BYTES("utf-8");
    assert_true(json_parse(bytes_from_text(arena_format(arena, "%s", args)), &message->args, NULL));
    assert_true(
        json_parse(bytes_from_text(arena_format(arena, "%s", kwargs)), &message->kwargs, NULL));
    message->body = bytes_from_text(arena_format(arena, "[%s, %s, {}]", args, kwargs));
    char *headers = arena_format(arena, "{\"task\": \"%s\", \"id\": \"%.*s\", \"lang\": \"py\"}",
                                 task, BYTES_FORMAT(message->id));
    assert_true(json_parse(bytes_from_text(headers), &message->headers, NULL));
    assert_true(json_parse(BYTES("{}"), &message->properties, NULL));
    return record;
}

void executor_fixture_free_record(struct executor_record **record)
{
    struct arena *arena = (*record)->request.arena;
    *record = NULL;
    arena_free(&arena);
}

void executor_fixture_submit(struct executor_record *record)
{
    struct executor *executor = record->fixture->executor;
    assert_true(executor->ops->free_slots(executor) > 0);
    executor->ops->submit(executor, &record->request);
    assert_int_equal(record->started_count + record->finished_count, 0);
}

void executor_fixture_cancel(struct executor_record *record)
{
    struct executor *executor = record->fixture->executor;
    size_t finished_count = record->finished_count;
    executor->ops->cancel(executor, &record->request, SIGTERM);
    assert_int_equal(record->finished_count, finished_count);
}

void executor_fixture_wait_started(struct executor_record *record)
{
    executor_fixture_wait_count(record->fixture, &record->started_count, 1);
}

void executor_fixture_wait_finished(struct executor_record *record)
{
    executor_fixture_wait_count(record->fixture, &record->finished_count, 1);
}

void executor_fixture_run(struct executor_record *record)
{
    executor_fixture_submit(record);
    executor_fixture_wait_finished(record);
}

static void assert_text(struct bytes actual, const char *expected)
{
    char text[4096];
    (void)snprintf(text, sizeof(text), "%.*s", BYTES_FORMAT(actual));
    assert_string_equal(text, expected);
}

void executor_fixture_assert_result(const struct executor_record *record, const char *result)
{
    assert_int_equal(record->finished_count, 1);
    assert_text(record->outcome.exc_message, "");
    assert_int_equal(record->outcome.kind, OUTCOME_SUCCESS);
    assert_text(record->outcome.result, result);
}

void executor_fixture_assert_exception(const struct executor_record *record, enum outcome_kind kind,
                                       const char *module, const char *type, const char *message)
{
    assert_int_equal(record->finished_count, 1);
    assert_text(record->outcome.exc_type, type);
    assert_text(record->outcome.exc_module, module);
    if (message) {
        assert_text(record->outcome.exc_message, message);
    }
    assert_int_equal(record->outcome.kind, kind);
}
