/* remote_control.h, between a fake broker and an empty pipeline. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "worker/remote_control.h"

struct scene {
    struct broker broker; /* first member */
    struct loop *loop;
    struct registry *registry;
    struct metrics *metrics;
    struct revoked *revoked;
    struct timezone_table utc;
    struct pipeline *pipeline;
    struct remote_control *control;
    char answer[512]; /* the last one: "exchange key body" */
    char headers[128];
    char remembered[256];
    broker_revoked_fn *on_revoked;
    void *revoked_context;
    int loaded_count;
};

static void publish(struct broker *broker, const struct publication *publication,
                    broker_done_fn *on_done, void *context)
{
    struct scene *scene = (struct scene *)(void *)broker;
    (void)on_done;
    (void)context;
    (void)snprintf(scene->answer, sizeof(scene->answer), "%.*s %.*s %.*s",
                   BYTES_FORMAT(publication->exchange), BYTES_FORMAT(publication->routing_key),
                   BYTES_FORMAT(publication->body));
    (void)snprintf(scene->headers, sizeof(scene->headers), "%.*s",
                   BYTES_FORMAT(publication->headers));
}

static void remember(struct broker *broker, const struct broker_revoked *revoked, double expires_s,
                     size_t most)
{
    struct scene *scene = (struct scene *)(void *)broker;
    size_t length = strlen(scene->remembered);
    (void)snprintf(scene->remembered + length, sizeof(scene->remembered) - length,
                   "%.*s %.*s%s %g %zu,", BYTES_FORMAT(revoked->namespace_name),
                   BYTES_FORMAT(revoked->task_id), revoked->terminate ? "!" : "", expires_s, most);
}

static void list_revoked(struct broker *broker, struct bytes namespace_name, double since_wall_s,
                         broker_revoked_fn *on_revoked, void *context)
{
    struct scene *scene = (struct scene *)(void *)broker;
    (void)namespace_name;
    (void)since_wall_s;
    scene->on_revoked = on_revoked;
    scene->revoked_context = context;
}

static void set_free_places(struct broker *broker, size_t count)
{
    (void)broker;
    (void)count;
}

static const struct broker_ops fake_ops = {
    .publish = publish,
    .revoked_add = remember,
    .revoked_list = list_revoked,
    .set_free_places = set_free_places,
};

static void on_loaded(void *context)
{
    ((struct scene *)context)->loaded_count++;
}

static int set_up(void **state)
{
    struct scene *scene = memory_new(sizeof(*scene));
    struct metrics_options metrics = {.hostname = "test", .tenant = "tenant"};
    struct error error = {0};
    assert_true(log_open(NULL, LOG_CRITICAL, LOG_FORM_TEXT, false, &error));
    scene->broker.ops = &fake_ops;
    scene->loop = loop_new(LOOP_CLOCK_VIRTUAL);
    scene->registry = registry_new();
    scene->metrics = metrics_new(&metrics);
    scene->revoked = revoked_new(0, 0);
    scene->pipeline = pipeline_new(&(struct pipeline_options){.loop = scene->loop,
                                                              .registry = scene->registry,
                                                              .metrics = scene->metrics,
                                                              .revoked = scene->revoked});
    pipeline_set_broker(scene->pipeline, &scene->broker);
    scene->control = remote_control_new(&(struct remote_control_options){
        .loop = scene->loop,
        .pipeline = scene->pipeline,
        .node_name = "w1@test",
        .namespace_name = "tenant",
        .revoke_expires_s = 100,
        .revokes_max = 10,
        .on_loaded = on_loaded,
        .context = scene,
    });
    remote_control_set_broker(scene->control, &scene->broker);
    *state = scene;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *scene = *state;
    loop_advance(scene->loop, 0);
    remote_control_free(&scene->control);
    pipeline_free(&scene->pipeline);
    revoked_free(&scene->revoked);
    metrics_free(&scene->metrics);
    registry_free(&scene->registry);
    loop_free(&scene->loop);
    memory_free(&scene);
    return 0;
}

#define REPLY_TO ", \"ticket\": \"T\", \"reply_to\": {\"exchange\": \"E\", \"routing_key\": \"K\"}}"
#define HEAD     "E K {\"w1@test\": "

static void receive(struct scene *scene, const char *body)
{
    struct arena *arena = arena_new(0);
    struct delivery delivery = {
        .arena = arena,
        .content_type = BYTES("application/json"),
        .body = bytes_from_text(body),
    };
    assert_true(json_parse(BYTES("{\"clock\": 7}"), &delivery.headers, NULL));
    scene->answer[0] = '\0';
    remote_control_receive(scene->control, &delivery);
    arena_free(&arena);
}

static void test_answers_ping(void **state)
{
    struct scene *scene = *state;
    receive(scene, "{\"method\": \"ping\"" REPLY_TO);
    assert_string_equal(scene->answer, HEAD "{\"ok\": \"pong\"}}");
    assert_string_equal(scene->headers, "{\"ticket\": \"T\", \"clock\": 8}");
    receive(scene, "{\"method\": \"ping\"}");
    assert_string_equal(scene->answer, "");
    receive(scene, "{\"method\": \"ping\", \"destination\": [\"w2@test\"]" REPLY_TO);
    assert_string_equal(scene->answer, "");
    receive(scene, "nonsense");
    assert_string_equal(scene->answer, "");
}

static void test_says_that_it_does_not_know_a_command(void **state)
{
    struct scene *scene = *state;
    receive(scene, "{\"method\": \"it's\"" REPLY_TO);
    assert_string_equal(scene->answer, HEAD "{\"error\": \"KeyError(\\\"it's\\\")\"}}");
}

static void test_flags_tasks_as_revoked(void **state)
{
    struct scene *scene = *state;
    receive(scene, "{\"method\": \"revoke\", \"arguments\": {\"task_id\": \"t1\"}" REPLY_TO);
    assert_string_equal(scene->answer, HEAD "{\"ok\": \"tasks {'t1'} flagged as revoked\"}}");
    assert_string_equal(scene->remembered, "tenant t1 100 10,");
    assert_true(revoked_has(scene->revoked, BYTES("t1")));
    receive(scene, "{\"method\": \"revoke\", \"arguments\": {\"task_id\": [\"t2\", 5, \"t3\"], "
                   "\"terminate\": false, \"signal\": \"SIGTERM\"}}");
    assert_true(revoked_has(scene->revoked, BYTES("t3")));
    assert_int_equal(revoked_count(scene->revoked), 3);
    receive(scene, "{\"method\": \"revoke\", \"arguments\": {\"task_id\": []}" REPLY_TO);
    assert_string_equal(scene->answer, HEAD "{\"ok\": \"tasks set() flagged as revoked\"}}");
}

static void test_terminates(void **state)
{
    struct scene *scene = *state;
    static const char *const signals[] = {"null", "\"SIGKILL\"", "\"TERM\"", "9"};
    char body[256];
    for (size_t index = 0; index < ARRAY_LENGTH(signals); index++) {
        (void)snprintf(body, sizeof(body),
                       "{\"method\": \"revoke\", \"arguments\": {\"task_id\": \"t1\", "
                       "\"terminate\": true, \"signal\": %s}" REPLY_TO,
                       signals[index]);
        receive(scene, body);
        assert_string_equal(scene->answer, HEAD "{\"ok\": \"terminate: tasks unknown\"}}");
    }
    assert_true(revoked_terminates(scene->revoked, BYTES("t1")));
    assert_non_null(strstr(scene->remembered, "tenant t1! 100 10,"));
}

static void test_refuses_bad_arguments(void **state)
{
    struct scene *scene = *state;
    static const char *const arguments[] = {
        "null",
        "{}",
        "{\"task_id\": 5}",
        "{\"task_id\": \"t1\", \"terminate\": true, \"signal\": \"NOSUCH\"}",
        "{\"task_id\": \"t1\", \"terminate\": true, \"signal\": 4000}",
        "{\"task_id\": \"t1\", \"terminate\": true, \"signal\": []}"};
    char body[256];
    for (size_t index = 0; index < ARRAY_LENGTH(arguments); index++) {
        (void)snprintf(body, sizeof(body), "{\"method\": \"revoke\", \"arguments\": %s" REPLY_TO,
                       arguments[index]);
        receive(scene, body);
        assert_non_null(strstr(scene->answer, "{\"error\": "));
    }
    assert_int_equal(revoked_count(scene->revoked), 0);
}

static void test_knows_what_was_revoked_before(void **state)
{
    struct scene *scene = *state;
    struct broker_revoked known = {.task_id = BYTES("t1"), .terminate = true};
    struct broker_revoked end = {.terminate = false};
    struct error error = {.kind = ERROR_TEMPORARY};
    remote_control_load(scene->control);
    scene->on_revoked(scene->revoked_context, &end, &error);
    assert_int_equal(scene->loaded_count, 0);
    remote_control_load(scene->control);
    scene->on_revoked(scene->revoked_context, &known, NULL);
    scene->on_revoked(scene->revoked_context, &end, NULL);
    assert_int_equal(scene->loaded_count, 1);
    assert_true(revoked_terminates(scene->revoked, BYTES("t1")));
    error.kind = ERROR_REFUSED;
    scene->on_revoked(scene->revoked_context, &end, &error);
    assert_int_equal(scene->loaded_count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers_ping, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_says_that_it_does_not_know_a_command, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_flags_tasks_as_revoked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_terminates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refuses_bad_arguments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_knows_what_was_revoked_before, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
