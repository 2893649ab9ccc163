#include "executor/kubernetes_verdict.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct judged {
    int status;
    const char *body;
    enum kubernetes_verdict verdict;
};

/* Reads the answer as kubernetes_api.c does. */
static enum kubernetes_verdict verdict_of(const struct judged *judged)
{
    struct arena *arena = arena_new(1024);
    struct kubernetes_answer answer = {.status = judged->status, .message = judged->body};
    struct json body;
    struct bytes message;
    if (judged->body[0] == '{' && json_parse(bytes_from_text(judged->body), &body, NULL)) {
        answer.body = body;
    }
    if (json_text(json_get(answer.body, "message"), arena, &message)) {
        answer.message = arena_text(arena, message);
    }
    enum kubernetes_verdict verdict = kubernetes_verdict_of(&answer, NULL, true);
    arena_free(&arena);
    return verdict;
}

static void tells_answers_apart(void **state)
{
    (void)state;
    static const struct judged cases[] = {
        {201, "{}", KUBERNETES_DONE},
        {409, "{\"message\":\"jobs.batch \\\"j1\\\" already exists\",\"reason\":\"AlreadyExists\"}",
         KUBERNETES_EXISTS},
        {409, "{\"reason\":\"Conflict\",\"details\":{\"kind\":\"jobs\"}}", KUBERNETES_CONFLICT},
        {409, "{\"reason\":\"Conflict\",\"details\":{\"kind\":\"resourcequotas\"}}",
         KUBERNETES_QUOTA},
        {409,
         "{\"reason\":\"Conflict\",\"message\":\"Operation cannot be fulfilled on resourcequotas "
         "\\\"q\\\": the object has been modified\"}",
         KUBERNETES_QUOTA},
        {403, "{\"reason\":\"Forbidden\",\"message\":\"jobs \\\"a\\\": exceeded quota: q\"}",
         KUBERNETES_QUOTA},
        {403, "{\"reason\":\"Forbidden\",\"message\":\"cannot create resource\"}",
         KUBERNETES_REFUSED},
        {404, "{\"reason\":\"NotFound\",\"details\":{\"kind\":\"jobs\"}}", KUBERNETES_NOT_FOUND},
        {404, "{\"reason\":\"NotFound\",\"details\":{\"kind\":\"namespaces\"}}",
         KUBERNETES_REFUSED},
        {404, "404 page not found", KUBERNETES_REFUSED},
        {404, "{\"error\":\"no such route\"}", KUBERNETES_REFUSED},
        {410, "{\"reason\":\"Expired\"}", KUBERNETES_GONE},
        {401, "{\"reason\":\"Unauthorized\"}", KUBERNETES_BUSY},
        {400, "{\"reason\":\"BadRequest\"}", KUBERNETES_REFUSED},
        {422, "{\"reason\":\"Invalid\"}", KUBERNETES_REFUSED},
        {500, "{\"message\":\"resource quota evaluation timed out\"}", KUBERNETES_QUOTA},
        {503, "not JSON", KUBERNETES_BUSY},
        {429, "Too many requests, please try again later.", KUBERNETES_BUSY},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        assert_int_equal(cases[i].verdict, verdict_of(&cases[i]));
    }
}

static void tells_apart_why_there_is_no_answer(void **state)
{
    (void)state;
    struct kubernetes_answer answer = {.message = ""};
    struct error lost = {.kind = ERROR_TEMPORARY};
    struct error late = {.kind = ERROR_TIMEOUT};
    struct error large = {.kind = ERROR_TOO_LARGE};
    assert_int_equal(KUBERNETES_BUSY, kubernetes_verdict_of(&answer, &lost, false));
    assert_int_equal(KUBERNETES_BUSY, kubernetes_verdict_of(&answer, &late, false));
    assert_int_equal(KUBERNETES_REFUSED, kubernetes_verdict_of(&answer, &large, false));
}

static void a_collection_is_never_missing(void **state)
{
    (void)state;
    struct kubernetes_answer answer = {.status = 404, .message = ""};
    assert_true(json_parse(BYTES("{\"reason\":\"NotFound\",\"details\":{\"kind\":\"jobs\"}}"),
                           &answer.body, NULL));
    assert_int_equal(KUBERNETES_REFUSED, kubernetes_verdict_of(&answer, NULL, false));
    assert_int_equal(KUBERNETES_NOT_FOUND, kubernetes_verdict_of(&answer, NULL, true));
}

static void knows_a_denial(void **state)
{
    (void)state;
    struct kubernetes_answer answer = {
        .status = 403,
        .verdict = KUBERNETES_REFUSED,
        .message = "jobs.batch is forbidden: User \"a\" cannot create resource \"jobs\"",
    };
    assert_true(kubernetes_verdict_is_denial(&answer));
    answer.message = "jobs.batch is forbidden: violates PodSecurity \"restricted:latest\"";
    assert_false(kubernetes_verdict_is_denial(&answer));
    answer.message = "a cannot b";
    answer.status = 422;
    assert_false(kubernetes_verdict_is_denial(&answer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_answers_apart),
        cmocka_unit_test(tells_apart_why_there_is_no_answer),
        cmocka_unit_test(a_collection_is_never_missing),
        cmocka_unit_test(knows_a_denial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
