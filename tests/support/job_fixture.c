#include "support/job_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TEMPLATE                                                                                   \
    "{\"apiVersion\": \"batch/v1\", \"kind\": \"Job\", \"metadata\": {\"generateName\": \"x-\"}, " \
    "\"spec\": {\"backoffLimit\": 2, \"template\": {\"spec\": {\"containers\": [{\"name\": "       \
    "\"main\", \"image\": \"i\"}]}}}}"

const struct kubernetes_job_marks job_fixture_marks = {
    .name = "add-1-0",
    .namespace_name = "tenant-user",
    .instance_id = "0123456789abcdef",
    .tenant = "tenant-user",
};

int job_fixture_set_up(void **state)
{
    struct job_fixture *fixture = memory_new(sizeof(*fixture));
    struct message *message = &fixture->request.message;
    fixture->arena = arena_new(1024);
    fixture->type = registry_defaults;
    fixture->delivery.tag = BYTES("instance:7");
    fixture->request.arena = fixture->arena;
    fixture->request.type = &fixture->type;
    fixture->request.delivery = &fixture->delivery;
    message->task = BYTES("my.app/tasks.add\xc3\xa9");
    message->id = BYTES("11111111-2222-3333-4444-555555555555");
    message->queue = BYTES("tenant-user");
    message->content_type = BYTES("application/json");
    message->content_encoding = BYTES("utf-8");
    message->body = BYTES("[[1, 2], {}, null]");
    message->headers = job_fixture_parsed("{\"task\": \"my.app/tasks.add\xc3\xa9\", \"id\": "
                                          "\"11111111-2222-3333-4444-555555555555\"}");
    fixture->job = json_loads(TEMPLATE, 0, NULL);
    *state = fixture;
    return 0;
}

int job_fixture_tear_down(void **state)
{
    struct job_fixture *fixture = *state;
    json_decref(fixture->job);
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

int job_fixture_set_up_arena(void **state)
{
    *state = arena_new(4096);
    return 0;
}

int job_fixture_tear_down_arena(void **state)
{
    struct arena *arena = *state;
    arena_free(&arena);
    return 0;
}

struct json job_fixture_parsed(const char *text)
{
    struct json value;
    struct error error = {0};
    if (!json_parse(bytes_from_text(text), &value, &error)) {
        fail_msg("%s: %s", text, error.message);
    }
    return value;
}
