/* From request to Job: render, POST, and what the answer means. */
#include <stdlib.h>

#include "executor/executor_kubernetes_private.h"

#define RETRY_FIRST_MS 500
#define RETRY_MOST_MS  30000

struct submission {
    struct list_node node;
    struct executor_kubernetes *executor;
    struct request *request; /* borrowed until started or finished */
    char name[JOB_NAME_SIZE];
    char *body;     /* owned by jansson's allocator: the Job as JSON */
    int64_t *asked; /* owned: what it asks of the quota; NULL: unknown, or nothing is limited */
    enum job_quota_stage stage;
    bool waits_for_quota; /* the quota of Jobs refused it */
    struct loop_call begin;
    struct timer timer;
    struct kubernetes_call *call;
    bool is_cancelled; /* is not tried again */
};

/* Moves what it asks in or out of the quota's sums. */
static void stage(struct submission *submission, enum job_quota_stage stage)
{
    if (submission->asked) {
        job_quota_move(&submission->executor->quota, submission->asked, submission->stage, stage);
    }
    submission->stage = stage;
}

/* Whether the quota has no room for one that is not in its sums. */
static bool has_no_room(const struct submission *submission)
{
    return submission->asked
           && job_quota_find_short(&submission->executor->quota, submission->asked);
}

/* Takes the submission out of the books and gives its request. */
static struct request *end_submission(struct submission *submission)
{
    struct executor_kubernetes *executor = submission->executor;
    struct request *request = submission->request;
    list_remove(&submission->node);
    executor->submission_count--;
    stage(submission, JOB_QUOTA_ABSENT);
    memory_free(&submission->asked);
    loop_cancel(executor->loop, &submission->begin);
    loop_stop_timer(executor->loop, &submission->timer);
    kubernetes_api_cancel(&submission->call);
    free(submission->body);
    memory_free(&submission);
    return request;
}

static void end_with(struct submission *submission, const struct outcome *outcome)
{
    struct executor_kubernetes *executor = submission->executor;
    struct request *request = end_submission(submission);
    executor->events->on_finished(executor->context, request, outcome);
    executor->events->on_free_slots(executor->context, &executor->base);
    executor_kubernetes_check_closed(executor);
}

static void fail(struct submission *submission, const char *category, const char *sentence)
{
    struct outcome outcome;
    executor_failure(submission->request->arena, category, sentence, NULL, &outcome);
    end_with(submission, &outcome);
}

/* The Job exists: from here on it is the receipt. */
static void started(struct submission *submission)
{
    struct executor_kubernetes *executor = submission->executor;
    char name[JOB_NAME_SIZE];
    memcpy(name, submission->name, sizeof(name));
    executor_kubernetes_note_created(executor, name, submission->asked);
    struct request *request = end_submission(submission);
    executor->events->on_started(executor->context, request, bytes_from_text(name));
    executor_kubernetes_check_closed(executor);
}

static void give_back(void *context)
{
    struct outcome outcome;
    executor_given_back(&outcome);
    end_with(context, &outcome);
}

/* Is to be tried again later, but never from here: while it waits, another worker may restore its
 * message, run it, and let its Job go. So it is given back when the time has come, and its lease is
 * confirmed before the next POST. When closing, it goes back at once. */
static void try_later(struct submission *submission, int64_t asked_ms)
{
    struct executor_kubernetes *executor = submission->executor;
    if (executor->is_closing || submission->is_cancelled) {
        give_back(submission);
        return;
    }
    stage(submission, JOB_QUOTA_ABSENT);
    int64_t delay_ms = loop_backoff_ms(executor->loop, RETRY_FIRST_MS,
                                       submission->request->attempts++, RETRY_MOST_MS);
    loop_start_timer(executor->loop, &submission->timer, asked_ms > delay_ms ? asked_ms : delay_ms);
}

/* Adopting: a Job that exists already */

/* The Job was reported, and whoever did so has left the outbox: nothing is to be done for this copy
 * of its message but to settle it. */
static void end_reported(struct submission *submission)
{
    struct outcome outcome = {.kind = OUTCOME_IGNORE};
    end_with(submission, &outcome);
}

/* Only a Job of the same message is ours (contracts: 409). */
static bool is_same(const struct submission *submission, const struct kubernetes_job *job)
{
    char digest[65];
    message_digest(&submission->request->message, digest);
    return job->is_managed && bytes_equal(job->task_id, submission->request->message.id)
           && bytes_equal_text(job->digest, digest);
}

/* There is no Job of the request. */
static void on_none(struct submission *submission)
{
    submission->request->may_have_job = false;
    if (submission->request->is_over) {
        give_back(submission);
    } else {
        submission->request->attempts = 0;
        try_later(submission, 0); /* it went between the two requests */
    }
}

static void on_existing(void *context, const struct kubernetes_answer *answer)
{
    struct submission *submission = context;
    submission->call = NULL;
    if (answer->verdict == KUBERNETES_NOT_FOUND) {
        on_none(submission);
        return;
    }
    if (answer->verdict != KUBERNETES_DONE) {
        try_later(submission, answer->retry_after_ms);
        return;
    }
    struct arena *arena = arena_new(1024);
    struct kubernetes_job job;
    kubernetes_job_read(answer->body, arena, &job);
    /* It may have been reported since the answer left the server. */
    const struct job_entry *entry =
        executor_kubernetes_find(submission->executor, bytes_from_text(submission->name));
    bool is_reported = job.is_reported || (entry && entry->is_reported);
    if (is_same(submission, &job) && is_reported) {
        end_reported(submission);
    } else if (is_same(submission, &job)) {
        executor_kubernetes_see_job(submission->executor, answer->body);
        started(submission);
    } else if (submission->request->is_over) {
        on_none(submission);
    } else {
        const char *sentence = arena_format(
            submission->request->arena,
            "Job %s exists already and is not of this task: delete it, or send the task under "
            "another id",
            submission->name);
        fail(submission, "JobNameConflict", sentence);
    }
    arena_free(&arena);
}

static void find_existing(struct submission *submission)
{
    submission->call =
        kubernetes_api_call(submission->executor->api,
                            &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_JOBS,
                                                         .name = submission->name},
                            on_existing, submission);
}

/* Making */

static void on_posted(void *context, const struct kubernetes_answer *answer)
{
    struct submission *submission = context;
    submission->call = NULL;
    switch (answer->verdict) {
    case KUBERNETES_DONE:
        started(submission);
        break;
    case KUBERNETES_EXISTS:
        find_existing(submission);
        break;
    case KUBERNETES_QUOTA:
        submission->waits_for_quota = true;
        try_later(submission, answer->retry_after_ms);
        break;
    case KUBERNETES_BUSY:
        submission->request->may_have_job |= answer->may_be_done;
        try_later(submission, answer->retry_after_ms);
        break;
    case KUBERNETES_CONFLICT:
        try_later(submission, answer->retry_after_ms);
        break;
    case KUBERNETES_NOT_FOUND:
    case KUBERNETES_GONE:
    case KUBERNETES_REFUSED:
    default:
        fail(submission, "AdmissionDenied",
             arena_format(submission->request->arena, "the API server refuses Job %s: %s",
                          submission->name, answer->message));
        break;
    }
}

static void post(struct submission *submission)
{
    submission->call =
        kubernetes_api_call(submission->executor->api,
                            &(struct kubernetes_request){.method = "POST",
                                                         .resource = EXECUTOR_KUBERNETES_JOBS,
                                                         .body = bytes_from_text(submission->body)},
                            on_posted, submission);
}

/* Building */

json_t *executor_kubernetes_build(struct executor_kubernetes *executor,
                                  const struct request *request, struct error *reterr)
{
    char name[JOB_NAME_SIZE];
    job_name_format(&request->message, 0, name);
    const struct kubernetes_job_marks marks = {
        .name = name,
        .namespace_name = executor->options.namespace_name,
        .instance_id = executor->options.instance_id,
        .tenant = executor->options.tenant,
    };
    json_t *job = job_template_render(executor->templates[request->type->job_template_index],
                                      &request->message, reterr);
    if (job && !kubernetes_job_complete(job, request, &marks, reterr)) {
        json_decref(job);
        return NULL;
    }
    return job;
}

static bool build(struct submission *submission, struct error *reterr)
{
    struct executor_kubernetes *executor = submission->executor;
    json_t *job = executor_kubernetes_build(executor, submission->request, reterr);
    if (!job) {
        return false;
    }
    submission->body = json_dumps(job, JSON_COMPACT);
    if (executor->quota.count > 0 && !submission->asked) {
        submission->asked = executor_kubernetes_ask(executor, job);
    }
    json_decref(job);
    return submission->body
           || error_set(reterr, ERROR_INVALID, "the Job cannot be written as JSON");
}

/* Takes its place in the quota's sums, if there is one beside all that came before it. */
static void take_place(struct submission *submission)
{
    if (submission->asked && submission->stage == JOB_QUOTA_ABSENT && !has_no_room(submission)) {
        stage(submission, JOB_QUOTA_STARTING);
    }
}

static void begin(void *context)
{
    struct submission *submission = context;
    struct error error = {0};
    job_name_format(&submission->request->message, 0, submission->name);
    if (submission->request->is_over) {
        find_existing(submission);
        return;
    }
    if (!build(submission, &error)) {
        fail(submission, error.kind == ERROR_TOO_LARGE ? "MessageTooLarge" : "TemplateError",
             error.message);
        return;
    }
    take_place(submission);
    if (submission->asked && submission->stage == JOB_QUOTA_ABSENT) {
        give_back(submission); /* the room has gone since it was admitted */
    } else {
        post(submission);
    }
}

void executor_kubernetes_ask_submissions(struct executor_kubernetes *executor)
{
    list_for_each(node, following, &executor->submissions) {
        struct submission *submission = list_entry(node, struct submission, node);
        memory_free(&submission->asked);
        json_t *job = submission->body ? json_loads(submission->body, 0, NULL) : NULL;
        if (job && executor->quota.count > 0) {
            submission->asked = executor_kubernetes_ask(executor, job);
        }
        json_decref(job);
        if (submission->asked) {
            job_quota_move(&executor->quota, submission->asked, JOB_QUOTA_ABSENT,
                           submission->stage);
        }
    }
}

void executor_kubernetes_wake_submissions(struct executor_kubernetes *executor)
{
    list_for_each(node, following, &executor->submissions) {
        struct submission *submission = list_entry(node, struct submission, node);
        if (submission->waits_for_quota && !submission->call && !has_no_room(submission)) {
            give_back(submission);
        }
    }
}

void executor_kubernetes_submit(struct executor *base, struct request *request)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    struct submission *submission = memory_new(sizeof(*submission));
    submission->executor = executor;
    submission->request = request;
    submission->begin = (struct loop_call){.function = begin, .context = submission};
    submission->timer = (struct timer){.on_due = give_back, .context = submission};
    if (!request->is_over) {
        submission->asked = executor_kubernetes_copy_asked(executor, request);
        take_place(submission);
    }
    list_append(&executor->submissions, &submission->node);
    executor->submission_count++;
    loop_defer(executor->loop, &submission->begin);
}

void executor_kubernetes_cancel(struct executor *base, struct request *request, int signal_number)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    (void)signal_number;
    list_for_each(node, following, &executor->submissions) {
        struct submission *submission = list_entry(node, struct submission, node);
        if (submission->request == request) {
            submission->is_cancelled = true;
        }
        if (submission->request == request && timer_is_armed(&submission->timer)) {
            loop_stop_timer(executor->loop, &submission->timer);
            loop_start_timer(executor->loop, &submission->timer, 0);
        }
    }
}

void executor_kubernetes_end_submissions(struct executor_kubernetes *executor, bool force)
{
    list_for_each(node, following, &executor->submissions) {
        struct submission *submission = list_entry(node, struct submission, node);
        if (force || !submission->call) {
            struct outcome outcome = {.kind = OUTCOME_REJECT, .requeue = true};
            struct request *request = end_submission(submission);
            executor->events->on_finished(executor->context, request, &outcome);
        }
    }
}
