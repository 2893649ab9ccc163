/*
 * What the tests of executors share: a real loop, requests made from JSON text, and a recorder of
 * everything that an executor tells.
 */
#ifndef PETIOLE_TESTS_EXECUTOR_FIXTURE_H
#define PETIOLE_TESTS_EXECUTOR_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/loop.h"
#include "base/memory.h"
#include "dispatch/request.h"
#include "executor/executor.h"

/* What was told about one request, texts copied into the request's arena. */
struct executor_record {
    struct request request; /* the head */
    struct executor_fixture *fixture;
    size_t started_count;
    size_t finished_count;
    size_t started_order; /* numbers of one sequence; 0: not yet */
    size_t finished_order;
    struct outcome outcome;
};

struct executor_fixture {
    struct loop *loop;
    struct executor *executor;
    const struct executor_events *events; /* to hand to the executor, with the fixture as context */
    size_t order;
    size_t ready_count;
    size_t free_slots_count;
    size_t finished_count;
    size_t closed_count;
    size_t notice_count;
    int notice_level;
    char notice[512]; /* the last one */
    void (*on_finished)(struct executor_fixture *fixture, struct executor_record *record);
};

/* Zeroes and makes a loop. */
void executor_fixture_init(struct executor_fixture *fixture);

/* Closes the executor, if one is left, with kill, and frees the loop. */
void executor_fixture_fini(struct executor_fixture *fixture);

/* Starts the executor and waits until it is ready. */
void executor_fixture_start(struct executor_fixture *fixture);

/* Asks the executor to close. */
void executor_fixture_begin_close(struct executor_fixture *fixture, bool kill);

/* Asks the executor to close and waits until it is closed. */
void executor_fixture_close(struct executor_fixture *fixture, bool kill);

/* Returns new: a request for `task`. `args` and `kwargs` are JSON text. Free with
 * executor_fixture_free_record. */
struct executor_record *executor_fixture_record(struct executor_fixture *fixture, const char *task,
                                                const char *args, const char *kwargs);
void executor_fixture_free_record(struct executor_record **record);

void executor_fixture_submit(struct executor_record *record);
void executor_fixture_cancel(struct executor_record *record);

/* Turn the loop until it has been told. Every wait of a test ends by this within the deadline of a
 * minute, or the test fails. */
void executor_fixture_wait_started(struct executor_record *record);
void executor_fixture_wait_finished(struct executor_record *record);
void executor_fixture_wait_count(struct executor_fixture *fixture, const size_t *counter,
                                 size_t at_least);

/* Submits and waits. */
void executor_fixture_run(struct executor_record *record);

/* Asserts on the outcome; a NULL is not looked at. */
void executor_fixture_assert_result(const struct executor_record *record, const char *result);
void executor_fixture_assert_exception(const struct executor_record *record, enum outcome_kind kind,
                                       const char *module, const char *type, const char *message);

#endif
