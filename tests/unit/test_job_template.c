#include "executor/job_template.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <unistd.h>

#include "executor/job_tree.h"

#define TEXT_BYTES 8192

struct fixture {
    char path[64];
    struct error error;
    struct message message;
    struct job_template *template;
    json_t *job;
};

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    (void)snprintf(f->path, sizeof(f->path), "/tmp/petiole-template-%d.yaml", (int)getpid());
    f->message.id = BYTES("6f1a");
    assert_true(json_parse(BYTES("{\"n\": 7, \"name\": \"a b\", \"mem\": \"1Gi\"}"),
                           &f->message.kwargs, NULL));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    json_decref(f->job);
    job_template_free(&f->template);
    (void)unlink(f->path);
    memory_free(&f);
    return 0;
}

#define HEAD "apiVersion: batch/v1\nkind: Job\n"
#define CONTAINER                                                                                  \
    "spec:\n"                                                                                      \
    "  template:\n"                                                                                \
    "    spec:\n"                                                                                  \
    "      containers:\n"                                                                          \
    "      - name: main\n"                                                                         \
    "        image: i:1\n"

static bool load(struct fixture *f, const char *text, const char *const *overrides)
{
    FILE *file = fopen(f->path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(0, fclose(file));
    job_template_free(&f->template);
    f->error = (struct error){0};
    f->template = job_template_load(f->path, overrides, &f->error);
    return f->template != NULL;
}

static bool render(struct fixture *f)
{
    json_decref(f->job);
    f->job = job_template_render(f->template, &f->message, &f->error);
    return f->job != NULL;
}

static void set_headers(struct fixture *f, const char *text)
{
    assert_true(json_parse(bytes_from_text(text), &f->message.headers, NULL));
}

/* The file is refused at `line`, with these words behind "file:line: ". */
static void assert_refused(struct fixture *f, const char *text, int line, const char *words)
{
    char expected[TEXT_BYTES];
    assert_false(load(f, text, NULL));
    (void)snprintf(expected, sizeof(expected), "%s:%d: %s", f->path, line, words);
    assert_int_equal(0, strncmp(expected, f->error.message, strlen(expected)));
    assert_int_equal(ERROR_INVALID, f->error.kind);
}

static const char *text_at(const struct fixture *f, const char *pointer)
{
    return json_string_value(job_tree_get(f->job, pointer));
}

#define MAIN "/spec/template/spec/containers/0"

static void puts_typed_values_into_the_tree(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f,
                     HEAD "metadata: {annotations: {x/y: \"run ${kwargs.name}\"}}\n" CONTAINER
                          "        command: [train, \"--n\", \"${kwargs.n:int}\"]\n"
                          "        env:\n"
                          "        - {name: COST, value: \"5$$ $(POD)\"}\n"
                          "        resources:\n"
                          "          requests: {memory: \"${kwargs.mem:quantity=64Mi}\"}\n"
                          "        volumeMounts:\n"
                          "        - {name: v, mountPath: /v, subPath: \"${id}\"}\n"
                          "      activeDeadlineSeconds: ${kwargs.n:int}\n",
                     NULL));
    assert_true(render(f));
    assert_string_equal("run a b", text_at(f, "/metadata/annotations/x~1y"));
    assert_string_equal("7", text_at(f, MAIN "/command/2"));
    assert_string_equal("5$ $(POD)", text_at(f, MAIN "/env/0/value"));
    assert_string_equal("1Gi", text_at(f, MAIN "/resources/requests/memory"));
    assert_string_equal("6f1a", text_at(f, MAIN "/volumeMounts/0/subPath"));
    assert_int_equal(
        7, json_integer_value(job_tree_get(f->job, "/spec/template/spec/activeDeadlineSeconds")));
    json_t *typical = job_template_typical(f->template);
    const char *memory =
        json_string_value(job_tree_get(typical, MAIN "/resources/requests/memory"));
    assert_string_equal("64Mi", memory);
    json_decref(typical);
}

static void renders_each_task_afresh(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f,
                     HEAD CONTAINER "        args: [a, \"${kwargs.name}\"]\n"
                                    "        command: [train]\n",
                     NULL));
    assert_true(render(f));
    assert_string_equal("a b", text_at(f, MAIN "/args/1"));
    assert_true(json_parse(BYTES("{\"name\": \"c\"}"), &f->message.kwargs, NULL));
    assert_true(render(f));
    assert_string_equal("c", text_at(f, MAIN "/args/1"));
}

static void fails_a_task_with_a_bad_value(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f, HEAD CONTAINER "        command: [t, \"${kwargs.name:int}\"]\n", NULL));
    assert_false(render(f));
    assert_string_equal(MAIN "/command/1: ${kwargs.name:int}: must be a whole number, not text",
                        f->error.message);
    assert_int_equal(ERROR_INVALID, f->error.kind);
}

static void refuses_what_is_no_job(void **state)
{
    struct fixture *f = *state;
    assert_refused(f, "kind: Job\n", 1, "/apiVersion: must be batch/v1");
    assert_refused(f, "apiVersion: batch/v1\nkind: Pod\n", 2, "/kind: must be Job");
    assert_refused(f, HEAD "spec: {}\n", 3, "/spec/template/spec/containers: needs at least one");
    assert_refused(f, HEAD "spec:\n  template:\n    spec:\n      containers:\n      - name: x\n", 7,
                   "/spec/template/spec/containers/0: needs a name and an image");
    assert_refused(f, "just text\n", 1, "/apiVersion");
    assert_refused(f, HEAD "kind: Job\n", 3, "");
    assert_refused(f, HEAD "---\na: b\n", 3, "");
    assert_false(job_template_load("/nowhere/x.yaml", NULL, &f->error));
    assert_int_equal(ERROR_NOT_FOUND, f->error.kind);
}

static void refuses_what_is_ours_to_set(void **state)
{
    struct fixture *f = *state;
    assert_refused(f, HEAD "metadata: {namespace: other}\n" CONTAINER, 3,
                   "/metadata/namespace: must be left out");
    assert_refused(f, HEAD CONTAINER "  backoffLimit: 3\n", 9, "/spec/backoffLimit: must be 0");
    assert_refused(f, HEAD CONTAINER "      restartPolicy: OnFailure\n", 9,
                   "/spec/template/spec/restartPolicy: must be Never");
    assert_refused(f, HEAD CONTAINER "  parallelism: 2\n", 9, "/spec/parallelism: must be 1");
    assert_refused(f, HEAD "metadata: {finalizers: [x]}\n" CONTAINER, 3, "/metadata/finalizers");
    assert_true(load(f, HEAD CONTAINER "      restartPolicy: Never\n  backoffLimit: 0\n", NULL));
}

static void refuses_placeholders_where_no_message_may_reach(void **state)
{
    static const char *const bad[] = {
        "      serviceAccountName: \"${kwargs.x}\"\n",
        "      nodeName: \"${kwargs.x}\"\n",
        "      volumes: [{name: v, hostPath: {path: \"${kwargs.x}\"}}]\n",
        "      volumes: [{name: v, secret: {secretName: \"${kwargs.x}\"}}]\n",
        "      volumes: [{name: v, persistentVolumeClaim: {claimName: \"${kwargs.x}\"}}]\n",
        "        envFrom: [{secretRef: {name: \"${kwargs.x}\"}}]\n",
        "        securityContext: {privileged: \"${kwargs.x:bool}\"}\n",
        "        env: [{name: \"${kwargs.x}\", value: y}]\n",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        char text[TEXT_BYTES];
        (void)snprintf(text, sizeof(text), HEAD CONTAINER "%s", bad[i]);
        assert_refused(f, text, 9, "/spec/template/spec/");
        assert_non_null(strstr(f->error.message, ": no message may reach this field"));
    }
    assert_refused(f, HEAD "metadata: {name: \"${id}\"}\n" CONTAINER, 3, "/metadata/name: no");
    assert_refused(f, HEAD "metadata: {labels: {petiole.dev/owner: \"${id}\"}}\n" CONTAINER, 3,
                   "/metadata/labels/petiole.dev~1owner: no message");
}

static void refuses_values_in_what_a_shell_runs(void **state)
{
    struct fixture *f = *state;
    assert_refused(f,
                   HEAD CONTAINER "        command: [sh, -c]\n"
                                  "        args: [\"echo ${kwargs.name}\"]\n",
                   10, MAIN "/args/0: a shell or interpreter would run this");
    assert_refused(f, HEAD CONTAINER "        command: [\"${kwargs.name}\"]\n", 9,
                   MAIN "/command/0: the program to run must be fixed");
    assert_refused(f, HEAD CONTAINER "        args: [\"${kwargs.name}\"]\n", 9,
                   MAIN "/args/0: needs a command beside it");
    assert_refused(f,
                   HEAD CONTAINER "      initContainers:\n"
                                  "      - {name: i, image: i, command: [bash, -c, \"${id}\"]}\n",
                   10, "/spec/template/spec/initContainers/0/command/2: a shell");
}

static void refuses_bad_placeholders_at_load(void **state)
{
    struct fixture *f = *state;
    assert_refused(f, HEAD CONTAINER "        command: [t, \"${HOME}\"]\n", 9,
                   MAIN "/command/1: ${HOME}: does not begin with");
    assert_refused(f, HEAD CONTAINER "        resources: {limits: {cpu: \"${kwargs.c}\"}}\n", 9,
                   MAIN "/resources/limits/cpu: only one placeholder of type quantity or int");
}

#define MEMORY MAIN "/resources/requests/memory"

static void lets_a_message_set_what_is_listed(void **state)
{
    static const char *const overrides[] = {MEMORY, MAIN "/resources/limits/nvidia.com~1gpu", NULL};
    struct fixture *f = *state;
    assert_true(
        load(f, HEAD CONTAINER "        resources: {requests: {memory: 1Gi}}\n", overrides));
    assert_true(render(f));
    assert_string_equal("1Gi", text_at(f, MEMORY));
    set_headers(f, "{\"petiole_override\": {\"" MEMORY "\": \"2Gi\", \"" MAIN
                   "/resources/limits/nvidia.com\\u007e1gpu\": 1}}");
    assert_true(render(f));
    assert_string_equal("2Gi", text_at(f, MEMORY));
    assert_string_equal("1", text_at(f, MAIN "/resources/limits/nvidia.com~1gpu"));
    set_headers(f, "{\"petiole_override\": null}");
    assert_true(render(f));
}

static void assert_override_fails(struct fixture *f, const char *headers, const char *words)
{
    set_headers(f, headers);
    assert_false(render(f));
    assert_int_equal(ERROR_INVALID, f->error.kind);
    assert_non_null(strstr(f->error.message, words));
}

static void refuses_forged_overrides(void **state)
{
    static const char *const overrides[] = {MEMORY, NULL};
    struct fixture *f = *state;
    assert_true(load(f, HEAD CONTAINER, overrides));
    assert_override_fails(f, "{\"petiole_override\": {\"" MEMORY "\": \"much\"}}",
                          "must be a quantity");
    assert_override_fails(f, "{\"petiole_override\": {\"" MEMORY "\": {\"a\": 1}}}",
                          "must be a quantity");
    assert_override_fails(f, "{\"petiole_override\": {\"/metadata/namespace\": \"kube-system\"}}",
                          "/metadata/namespace: a message may not set this field");
    assert_override_fails(
        f, "{\"petiole_override\": {\"/spec/template/spec/serviceAccountName\": \"admin\"}}",
        "may not set this field");
    assert_override_fails(f, "{\"petiole_override\": {\"" MAIN "/securityContext\": {}}}",
                          "may not set this field");
    assert_override_fails(f, "{\"petiole_override\": [\"x\"]}", "must be an object");
    assert_override_fails(f, "{\"petiole_override\": {\"\": 1}}", "may not set this field");
    assert_override_fails(f, "{\"petiole_override\": {\"" MEMORY "\\u0000\": \"1Gi\"}}",
                          MEMORY "\\u0000: a message may not set this field");
}

static void refuses_overrides_that_no_message_may_have(void **state)
{
    static const char *const bad[] = {
        "/metadata/namespace", "/spec/template/spec/volumes/0/hostPath/path",
        MAIN "/image",         MAIN "/securityContext/privileged",
        "/spec/template/spec", MAIN "/args/0",
        "metadata/labels/a",   "/metadata/labels/petiole.dev~1tenant",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        const char *const overrides[] = {bad[i], NULL};
        assert_false(load(f, HEAD CONTAINER, overrides));
        assert_non_null(strstr(f->error.message, bad[i]));
    }
    const char *const script[] = {MAIN "/command/2", NULL};
    assert_false(load(f, HEAD CONTAINER "        command: [sh, -c, echo]\n", script));
    assert_non_null(strstr(f->error.message, "a shell or interpreter would run this"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(puts_typed_values_into_the_tree),
        TEST(renders_each_task_afresh),
        TEST(fails_a_task_with_a_bad_value),
        TEST(refuses_what_is_no_job),
        TEST(refuses_what_is_ours_to_set),
        TEST(refuses_placeholders_where_no_message_may_reach),
        TEST(refuses_values_in_what_a_shell_runs),
        TEST(refuses_bad_placeholders_at_load),
        TEST(lets_a_message_set_what_is_listed),
        TEST(refuses_forged_overrides),
        TEST(refuses_overrides_that_no_message_may_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
