#include "executor/local_outcome.h"

#include "base/json.h"
#include "executor/job_failure.h"
#include "executor/job_result.h"

static const char lost_sentence[] = "Worker shut down before the task ended.";

void local_outcome_of_error(const char *job_name, const char *category, const struct error *error,
                            struct arena *arena, struct outcome *ret_outcome)
{
    const char *sentence = arena_format(arena, "Job %s: %s", job_name, error->message);
    executor_failure(arena, category, sentence, NULL, ret_outcome);
}

/* Reads the process' own report. False when there is none that can be used; `reterr` has the kind
 * NOT_FOUND when nothing of the kind is there. */
static bool read_report(const struct local_end_state *state, struct arena *arena,
                        struct outcome *ret_outcome, struct error *reterr)
{
    struct job_result result;
    return job_result_read(state->report, arena, &result, reterr)
           && (!result.is_moved || job_result_read_moved(state->output, arena, &result, reterr))
           && job_result_outcome(&result, arena, ret_outcome, reterr);
}

/* The Job as the API server would have it, for job_failure_explain. */
static struct json job_object(const struct local_end_state *state, struct arena *arena)
{
    const char *condition = state->end == LOCAL_END_DEADLINE
                                ? "{\"type\": \"Failed\", \"reason\": \"DeadlineExceeded\"}"
                                : "";
    const char *text = arena_format(arena,
                                    "{\"metadata\": {\"name\": \"%s\"}, "
                                    "\"status\": {\"conditions\": [%s]}}",
                                    state->job_name, condition);
    struct json job = {.text = {NULL, 0}};
    (void)!json_parse(bytes_from_text(text), &job, NULL);
    return job;
}

static void explain(const struct local_end_state *state, struct arena *arena,
                    struct outcome *ret_outcome)
{
    struct job_pod pod = {
        .state = JOB_POD_ENDED,
        .name = bytes_from_text(state->job_name),
        .container = bytes_from_text(state->container),
        .exit_code = state->exit_code >= 0 ? state->exit_code : 128 + state->signal_number,
        .signal_number = state->signal_number,
        .is_over = true,
        .may_have_run = true,
    };
    struct job_facts facts = {.job = job_object(state, arena), .pod = &pod, .log = state->output};
    job_failure_explain(&facts, arena, ret_outcome);
}

void local_outcome_make(const struct local_end_state *state, struct arena *arena,
                        struct outcome *ret_outcome)
{
    struct error error = {.kind = ERROR_NONE};
    if (state->end == LOCAL_END_REVOKED) {
        executor_revoked(arena, "terminated", ret_outcome);
    } else if (read_report(state, arena, ret_outcome, &error)) {
        /* Whatever the process was told, it has said how it ended. */
    } else if (state->end == LOCAL_END_KILLED && !state->has_started) {
        executor_given_back(ret_outcome);
    } else if (state->end == LOCAL_END_KILLED) {
        executor_lost(arena, lost_sentence, ret_outcome);
    } else if (state->end == LOCAL_END_LIMIT) {
        executor_timed_out(arena, state->limit_s, ret_outcome);
    } else if (state->end == LOCAL_END_ITSELF && error.kind != ERROR_NOT_FOUND) {
        local_outcome_of_error(state->job_name, "ResultLost", &error, arena, ret_outcome);
    } else {
        explain(state, arena, ret_outcome);
    }
}
