#include "executor/job_field.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ARENA_BYTES 1024

struct fixture {
    struct arena *arena;
    struct message message;
    struct error error;
};

static int set_up(void **state)
{
    static const char kwargs[] =
        "{\"tag\":\"v1.2\",\"bad_tag\":\"v1@sha256:x\",\"name\":\"run_1\",\"up\":\"..\",\"here\":"
        "\".\",\"dir\":\"a/b\",\"dollar\":\"$(TOKEN) $$\",\"n\":5,\"zero\":0,\"huge\":9999999999,"
        "\"empty\":\"\",\"gpu\":-1,\"o\":{\"a\":\"$x\"}}";
    struct fixture *f = memory_new(sizeof(*f));
    f->arena = arena_new(ARENA_BYTES);
    f->message.id = BYTES("an-id");
    assert_true(json_parse(bytes_from_text(kwargs), &f->message.kwargs, NULL));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_free(&f->arena);
    memory_free(&f);
    return 0;
}

static void lists_what_a_message_may_reach(void **state)
{
    (void)state;

    static const struct {
        const char *pointer;
        enum job_field_kind kind;
    } fields[] = {
        {"/metadata/labels/x", JOB_FIELD_TEXT},
        {"/metadata/annotations/lora~1experiment", JOB_FIELD_TEXT},
        {"/metadata/labels/kueue.x-k8s.io~1queue-name", JOB_FIELD_TEXT},
        {"/spec/activeDeadlineSeconds", JOB_FIELD_SECONDS},
        {"/spec/template/spec/containers/0/command/1", JOB_FIELD_ARGUMENT},
        {"/spec/template/spec/containers/12/env/3/value", JOB_FIELD_ARGUMENT},
        {"/spec/template/spec/initContainers/0/args/0", JOB_FIELD_ARGUMENT},
        {"/spec/template/spec/containers/0/image", JOB_FIELD_IMAGE},
        {"/spec/template/spec/containers/0/resources/limits/nvidia.com~1gpu", JOB_FIELD_QUANTITY},
        {"/spec/template/spec/containers/0/volumeMounts/0/subPath", JOB_FIELD_FOLDER},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
        enum job_field_kind kind = JOB_FIELD_TEXT;
        assert_true(job_field_find(fields[i].pointer, &kind));
        assert_int_equal(fields[i].kind, kind);
    }
}

static void keeps_everything_else_from_messages(void **state)
{
    (void)state;
    static const char *const pointers[] = {
        "",
        "/",
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/labels",
        "/metadata/labels/",
        "/metadata/labels/petiole.dev~1owner",
        "/metadata/labels/app.kubernetes.io~1managed-by",
        "/metadata/annotations/x.k8s.io~1y",
        "/metadata/annotations/Kubernetes.IO~1y",
        "/spec/template/metadata/annotations/petiole.dev~1message",
        "/spec/template/metadata/annotations/container.apparmor.security.beta.kubernetes.io~1a",
        "/spec/backoffLimit",
        "/spec/ttlSecondsAfterFinished",
        "/spec/template/spec/serviceAccountName",
        "/spec/template/spec/automountServiceAccountToken",
        "/spec/template/spec/hostNetwork",
        "/spec/template/spec/nodeName",
        "/spec/template/spec/priorityClassName",
        "/spec/template/spec/runtimeClassName",
        "/spec/template/spec/securityContext/runAsUser",
        "/spec/template/spec/imagePullSecrets/0/name",
        "/spec/template/spec/volumes/0/hostPath/path",
        "/spec/template/spec/volumes/0/secret/secretName",
        "/spec/template/spec/volumes/0/persistentVolumeClaim/claimName",
        "/spec/template/spec/containers/0",
        "/spec/template/spec/containers/0/name",
        "/spec/template/spec/containers/0/securityContext/privileged",
        "/spec/template/spec/containers/0/env/0/name",
        "/spec/template/spec/containers/0/env/0/valueFrom/secretKeyRef/name",
        "/spec/template/spec/containers/0/envFrom/0/secretRef/name",
        "/spec/template/spec/containers/0/volumeMounts/0/mountPath",
        "/spec/template/spec/containers/0/volumeMounts/0/subPathExpr",
        "/spec/template/spec/containers/0/lifecycle/preStop/exec/command/0",
        "/spec/template/spec/containers/0/args/0/x",
        "/spec/template/spec/ephemeralContainers/0/args/0",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(pointers); i++) {
        enum job_field_kind kind = JOB_FIELD_TEXT;
        assert_false(job_field_find(pointers[i], &kind));
    }
}

static bool accepts(struct fixture *f, enum job_field_kind kind, const char *text)
{
    struct job_placeholder_text parsed;
    assert_true(job_placeholder_parse(bytes_from_text(text), f->arena, &parsed, &f->error));
    return job_field_accepts(kind, &parsed, &f->error);
}

static void takes_placeholders_of_the_right_kind(void **state)
{
    struct fixture *f = *state;
    assert_true(accepts(f, JOB_FIELD_TEXT, "a ${id} ${retries} ${kwargs.x:float}"));
    assert_true(accepts(f, JOB_FIELD_ARGUMENT, "${kwargs.x:json}"));
    assert_false(accepts(f, JOB_FIELD_ARGUMENT, "--x=${kwargs.x:json}"));
    assert_false(accepts(f, JOB_FIELD_TEXT, "is ${kwargs.x:bool}"));
    assert_true(accepts(f, JOB_FIELD_QUANTITY, "${kwargs.x:quantity=1}"));
    assert_true(accepts(f, JOB_FIELD_QUANTITY, "${kwargs.x:int}"));
    assert_false(accepts(f, JOB_FIELD_QUANTITY, "${kwargs.x:int}Gi"));
    assert_false(accepts(f, JOB_FIELD_QUANTITY, "${kwargs.x}"));
    assert_true(accepts(f, JOB_FIELD_SECONDS, "${kwargs.x:int}"));
    assert_false(accepts(f, JOB_FIELD_SECONDS, "${kwargs.x:float}"));
    assert_true(accepts(f, JOB_FIELD_IMAGE, "host:5000/image:${kwargs.tag}"));
    assert_true(accepts(f, JOB_FIELD_IMAGE, "image:v${kwargs.tag}-x"));
    assert_false(accepts(f, JOB_FIELD_IMAGE, "${kwargs.image}"));
    assert_false(accepts(f, JOB_FIELD_IMAGE, "host:5000/${kwargs.tag}"));
    assert_false(accepts(f, JOB_FIELD_IMAGE, "image${kwargs.tag}"));
    assert_false(accepts(f, JOB_FIELD_FOLDER, "${kwargs.x:json}"));
}

/* The rendered value as JSON text, or NULL. */
static const char *render(struct fixture *f, enum job_field_kind kind, const char *text)
{
    struct job_placeholder_text parsed;
    assert_true(job_placeholder_parse(bytes_from_text(text), f->arena, &parsed, &f->error));
    json_t *value = job_field_render(kind, &parsed, &f->message, &f->error);
    if (!value) {
        return NULL;
    }
    char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    const char *kept = arena_text(f->arena, bytes_from_text(dump));
    free(dump);
    json_decref(value);
    return kept;
}

static void makes_texts(void **state)
{
    struct fixture *f = *state;
    assert_string_equal("\"run run_1 5\"",
                        render(f, JOB_FIELD_TEXT, "run ${kwargs.name} ${kwargs.n:int}"));
    assert_string_equal("\"5\"", render(f, JOB_FIELD_TEXT, "${kwargs.n:int}"));
    assert_string_equal("\"$(TOKEN) $$\"", render(f, JOB_FIELD_TEXT, "${kwargs.dollar}"));
    assert_string_equal("\"image:v1.2\"", render(f, JOB_FIELD_IMAGE, "image:${kwargs.tag}"));
    assert_string_equal("\"an-id/run_1\"", render(f, JOB_FIELD_FOLDER, "${id}/${kwargs.name}"));
}

static void doubles_only_the_dollars_of_messages(void **state)
{
    struct fixture *f = *state;
    assert_string_equal("\"$(POD) $$(TOKEN) $$$$\"",
                        render(f, JOB_FIELD_ARGUMENT, "$(POD) ${kwargs.dollar}"));
    assert_string_equal("\"{\\\"a\\\":\\\"$$x\\\"}\"",
                        render(f, JOB_FIELD_ARGUMENT, "${kwargs.o:json}"));
}

static void makes_numbers(void **state)
{
    struct fixture *f = *state;
    assert_string_equal("5", render(f, JOB_FIELD_SECONDS, "${kwargs.n:int}"));
    assert_string_equal("5", render(f, JOB_FIELD_QUANTITY, "${kwargs.n:int}"));
    assert_string_equal("\"5\"", render(f, JOB_FIELD_QUANTITY, "${kwargs.n:quantity}"));
    assert_null(render(f, JOB_FIELD_SECONDS, "${kwargs.zero:int}"));
    assert_non_null(strstr(f->error.message, "${kwargs.zero:int}: must be 1 to"));
    assert_null(render(f, JOB_FIELD_SECONDS, "${kwargs.huge:int}"));
    assert_null(render(f, JOB_FIELD_QUANTITY, "${kwargs.gpu:int}"));
}

static void refuses_hostile_values(void **state)
{
    struct fixture *f = *state;
    assert_null(render(f, JOB_FIELD_IMAGE, "image:${kwargs.bad_tag}"));
    assert_non_null(strstr(f->error.message, "${kwargs.bad_tag}: must be 1 to 128 letters"));
    assert_null(render(f, JOB_FIELD_IMAGE, "image:${kwargs.empty}"));
    assert_null(render(f, JOB_FIELD_FOLDER, "${kwargs.up}"));
    assert_string_equal("${kwargs.up}: must not be . or ..", f->error.message);
    assert_null(render(f, JOB_FIELD_FOLDER, "a/${kwargs.up}/b"));
    assert_null(render(f, JOB_FIELD_FOLDER, "${kwargs.here}"));
    assert_null(render(f, JOB_FIELD_FOLDER, "${kwargs.here}${kwargs.here}"));
    assert_null(render(f, JOB_FIELD_FOLDER, "${kwargs.dir}"));
    assert_null(render(f, JOB_FIELD_FOLDER, "${kwargs.empty}"));
}

static bool overrides(enum job_field_kind kind, const char *text)
{
    struct json value;
    assert_true(json_parse(bytes_from_text(text), &value, NULL));
    json_t *made = job_field_override(kind, value, NULL);
    json_decref(made);
    return made != NULL;
}

static void checks_overrides(void **state)
{
    (void)state;
    assert_true(overrides(JOB_FIELD_QUANTITY, "\"2Gi\""));
    assert_true(overrides(JOB_FIELD_QUANTITY, "2"));
    assert_false(overrides(JOB_FIELD_QUANTITY, "\"lots\""));
    assert_false(overrides(JOB_FIELD_QUANTITY, "{\"cpu\": 1}"));
    assert_true(overrides(JOB_FIELD_SECONDS, "60"));
    assert_false(overrides(JOB_FIELD_SECONDS, "\"60\""));
    assert_false(overrides(JOB_FIELD_SECONDS, "-1"));
    assert_true(overrides(JOB_FIELD_ARGUMENT, "\"x\""));
    assert_false(overrides(JOB_FIELD_ARGUMENT, "[\"x\"]"));
    assert_false(overrides(JOB_FIELD_FOLDER, "\"..\""));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lists_what_a_message_may_reach),
        TEST(keeps_everything_else_from_messages),
        TEST(takes_placeholders_of_the_right_kind),
        TEST(makes_texts),
        TEST(doubles_only_the_dollars_of_messages),
        TEST(makes_numbers),
        TEST(refuses_hostile_values),
        TEST(checks_overrides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
