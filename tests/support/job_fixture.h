/*
 * A request on its way to become a Job, for the tests of what builds and reads Jobs; and pods as the
 * API server shows them.
 */
#ifndef PETIOLE_SUPPORT_JOB_FIXTURE_H
#define PETIOLE_SUPPORT_JOB_FIXTURE_H

#include <jansson.h>

#include "dispatch/registry.h"
#include "executor/executor.h"
#include "executor/kubernetes_job.h"

struct job_fixture {
    struct arena *arena;
    struct request request; /* as it is after its body was opened */
    struct task_type type;
    struct delivery delivery;
    json_t *job; /* of the template, before it is completed */
    struct error error;
};

/* The marks of the Job of that request. */
extern const struct kubernetes_job_marks job_fixture_marks;

/* For cmocka: `*state` is a struct job_fixture. */
int job_fixture_set_up(void **state);
int job_fixture_tear_down(void **state);

/* For cmocka: `*state` is an arena. */
int job_fixture_set_up_arena(void **state);
int job_fixture_tear_down_arena(void **state);

/* Reads `text`; the test fails when it is no JSON. */
struct json job_fixture_parsed(const char *text);

#define JOB_FIXTURE_POD(phase, status)                                                             \
    "{\"metadata\": {\"name\": \"p\"}, \"spec\": {\"containers\": [{\"name\": \"main\"}]}, "       \
    "\"status\": {\"phase\": \"" phase "\", " status "}}"
#define JOB_FIXTURE_STATE(state)                                                                   \
    "\"containerStatuses\": [{\"name\": \"main\", \"state\": {" state "}}]"

#endif
