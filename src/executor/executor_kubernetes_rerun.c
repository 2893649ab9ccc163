/*
 * The code of a task never ran: its pod was evicted, preempted, refused or deleted before, or an
 * init container failed. That is no fault of the task, so another Job is made for the same
 * delivery, free of the task's retries, at most max_delivery_attempts in all. Its name and body
 * follow from the old Job alone, so a worker that takes that over finds the Job that is already
 * there.
 */
#include <stdlib.h>

#include "executor/executor_kubernetes_private.h"
#include "executor/kubernetes_job_repeat.h"

struct executor_kubernetes_rerun {
    struct executor_kubernetes *executor;
    struct bytes task_id; /* of the task, and its message's digest; in the finishing's arena */
    struct bytes digest;
    char name[JOB_NAME_SIZE]; /* of the new Job */
    executor_kubernetes_rerun_fn *on_made;
    void *context;
    struct kubernetes_call *call;
};

void executor_kubernetes_end_rerun(struct executor_kubernetes_rerun **rerun)
{
    if (*rerun) {
        kubernetes_api_cancel(&(*rerun)->call);
        memory_free(rerun);
    }
}

static void finish(struct executor_kubernetes_rerun *rerun, enum executor_kubernetes_made made)
{
    executor_kubernetes_rerun_fn *on_made = rerun->on_made;
    void *context = rerun->context;
    char name[JOB_NAME_SIZE];
    memcpy(name, rerun->name, sizeof(name));
    executor_kubernetes_end_rerun(&rerun);
    on_made(context, made, name);
}

/* A Job of that name is there: made by whoever began this before us, or somebody else's. */
static void on_existing(void *context, const struct kubernetes_answer *answer)
{
    struct executor_kubernetes_rerun *rerun = context;
    enum executor_kubernetes_made made = EXECUTOR_KUBERNETES_MADE_LATER;
    rerun->call = NULL;
    if (answer->verdict == KUBERNETES_DONE) {
        struct arena *arena = arena_new(1024);
        struct kubernetes_job job;
        kubernetes_job_read(answer->body, arena, &job);
        bool is_same = job.is_managed && bytes_equal(job.task_id, rerun->task_id)
                       && bytes_equal(job.digest, rerun->digest);
        made = is_same ? EXECUTOR_KUBERNETES_MADE : EXECUTOR_KUBERNETES_MADE_NEVER;
        if (is_same) {
            executor_kubernetes_see_job(rerun->executor, answer->body);
        }
        arena_free(&arena);
    }
    finish(rerun, made);
}

static void on_posted(void *context, const struct kubernetes_answer *answer)
{
    struct executor_kubernetes_rerun *rerun = context;
    rerun->call = NULL;
    switch (answer->verdict) {
    case KUBERNETES_DONE:
        executor_kubernetes_see_job(rerun->executor, answer->body);
        finish(rerun, EXECUTOR_KUBERNETES_MADE);
        break;
    case KUBERNETES_EXISTS:
        rerun->call = kubernetes_api_call(
            rerun->executor->api,
            &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_JOBS, .name = rerun->name},
            on_existing, rerun);
        break;
    case KUBERNETES_CONFLICT:
    case KUBERNETES_QUOTA:
    case KUBERNETES_BUSY:
        finish(rerun, EXECUTOR_KUBERNETES_MADE_LATER);
        break;
    case KUBERNETES_NOT_FOUND:
    case KUBERNETES_GONE:
    case KUBERNETES_REFUSED:
    default:
        finish(rerun, EXECUTOR_KUBERNETES_MADE_NEVER);
        break;
    }
}

bool executor_kubernetes_may_rerun(const struct executor_kubernetes *executor,
                                   const struct kubernetes_job *job)
{
    const struct task_type *type = registry_find(executor->options.registry, job->task_name);
    int64_t most = (type ? type : &registry_defaults)->max_delivery_attempts;
    return job->attempt + 1 < most;
}

struct executor_kubernetes_rerun *executor_kubernetes_rerun(
    struct executor_kubernetes *executor, struct json object, const struct kubernetes_job *job,
    struct arena *arena, executor_kubernetes_rerun_fn *on_made, void *context)
{
    struct kubernetes_job_repetition repetition;
    struct error error = {0};
    if (!kubernetes_job_repeat(object, job, executor->options.instance_id, arena, &repetition,
                               &error)) {
        executor_kubernetes_warn(executor, "Job %.*s cannot be repeated: %s",
                                 BYTES_FORMAT(job->name), error.message);
        return NULL;
    }
    struct executor_kubernetes_rerun *rerun = memory_new(sizeof(*rerun));
    rerun->executor = executor;
    rerun->task_id = job->task_id;
    rerun->digest = job->digest;
    memcpy(rerun->name, repetition.name, sizeof(rerun->name));
    rerun->on_made = on_made;
    rerun->context = context;
    rerun->call =
        kubernetes_api_call(executor->api,
                            &(struct kubernetes_request){.method = "POST",
                                                         .resource = EXECUTOR_KUBERNETES_JOBS,
                                                         .body = bytes_from_text(repetition.body)},
                            on_posted, rerun);
    free(repetition.body);
    return rerun;
}
