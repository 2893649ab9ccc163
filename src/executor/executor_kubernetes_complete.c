/*
 * From finished Job to outcome: the Job is read again (so that only its present owner reports it),
 * then its pod's report, then, for a large result, the end of its log. And the farewell of a Job
 * that is reported.
 */
#include <stdio.h>

#include "executor/executor_kubernetes_private.h"
#include "executor/job_result.h"

#define RETRY_FIRST_MS     500
#define RETRY_MOST_MS      30000
#define RESULT_LOG_LINES   "600" /* more than JOB_RESULT_MAX_PAYLOAD_BYTES needs */
#define MAX_LOG_LINE_BYTES ((size_t)4096)

/* A finished Job on its way to on_completed. */
struct finishing {
    struct list_node node;
    struct executor_kubernetes *executor;
    struct arena *arena; /* owned; holds this struct too */
    char name[JOB_NAME_SIZE];
    struct json object;
    struct kubernetes_job job;
    struct job_pod pod;
    bool has_pod;
    struct job_result result;
    struct buffer log;
    struct kubernetes_call *call;
    struct job_inquiry *inquiry;
    struct executor_kubernetes_rerun *rerun;
};

static void end_finishing(struct finishing *finishing)
{
    struct arena *arena = finishing->arena;
    list_remove(&finishing->node);
    kubernetes_api_cancel(&finishing->call);
    job_inquiry_close(&finishing->inquiry);
    executor_kubernetes_end_rerun(&finishing->rerun);
    buffer_fini(&finishing->log);
    arena_free(&arena);
}

/* Not now: the next sweep looks again. */
static void put_off(struct finishing *finishing)
{
    struct job_entry *entry =
        executor_kubernetes_find(finishing->executor, bytes_from_text(finishing->name));
    if (entry) {
        entry->is_completing = false;
    }
    end_finishing(finishing);
}

/* The entry of a Job whose end can be told now, or NULL. */
static struct job_entry *entry_to_tell(const struct finishing *finishing)
{
    const struct executor_kubernetes *executor = finishing->executor;
    struct job_entry *entry = executor_kubernetes_find(executor, bytes_from_text(finishing->name));
    bool is_ours = entry && entry->is_mine && executor_kubernetes_is_owner(executor);
    return is_ours && !executor->is_closing ? entry : NULL;
}

static struct completion completion_of(const struct finishing *finishing,
                                       const struct job_entry *entry, const struct outcome *outcome)
{
    return (struct completion){
        .receipt = bytes_from_text(finishing->name),
        .record = finishing->job.record,
        .tag = finishing->job.tag,
        .is_settled = entry->is_settled,
        .is_taken_over = entry->is_taken_over,
        .outcome = outcome,
    };
}

static void complete(struct finishing *finishing, const struct outcome *outcome)
{
    struct executor_kubernetes *executor = finishing->executor;
    const struct job_entry *entry = entry_to_tell(finishing);
    if (entry) {
        struct completion completion = completion_of(finishing, entry, outcome);
        list_remove(&finishing->node); /* the callback may close the executor */
        executor->events->on_completed(executor->context, &completion);
        end_finishing(finishing);
    } else {
        put_off(finishing);
    }
}

/* There is no report to go by: what the Job and its pod tell is the outcome. */

static void on_explained(void *context, const struct outcome *outcome)
{
    struct finishing *finishing = context;
    finishing->inquiry = NULL;
    complete(finishing, outcome);
}

static void explain(struct finishing *finishing)
{
    const struct job_facts facts = {
        .job = finishing->object,
        .pod = finishing->has_pod ? &finishing->pod : NULL,
        .attempts = finishing->job.attempt + 1,
    };
    finishing->inquiry = job_inquiry_open(finishing->executor->api, finishing->name, &facts,
                                          finishing->arena, on_explained, finishing);
}

/* The next Job is there: the old one is let go when the outbox knows of the new one. */
static void tell_rerun(struct finishing *finishing, const char *name)
{
    struct executor_kubernetes *executor = finishing->executor;
    const struct job_entry *entry =
        executor_kubernetes_find(executor, bytes_from_text(finishing->name));
    static const struct job_entry deleted = {.is_mine = true};
    entry = entry ? entry : &deleted;
    if (entry->is_mine && !executor->is_closing) {
        struct completion ended = completion_of(finishing, entry, NULL);
        list_remove(&finishing->node); /* the callback may close the executor */
        executor->events->on_rerun(executor->context, &ended, bytes_from_text(name));
        end_finishing(finishing);
    } else {
        put_off(finishing);
    }
}

static void on_made(void *context, enum executor_kubernetes_made made, const char *name)
{
    struct finishing *finishing = context;
    finishing->rerun = NULL;
    if (made == EXECUTOR_KUBERNETES_MADE) {
        tell_rerun(finishing, name);
    } else if (made == EXECUTOR_KUBERNETES_MADE_LATER) {
        put_off(finishing);
    } else {
        explain(finishing);
    }
}

static void complete_without_report(struct finishing *finishing)
{
    struct executor_kubernetes *executor = finishing->executor;
    struct job_entry *entry = executor_kubernetes_find(executor, bytes_from_text(finishing->name));
    const struct job_pod *pod = finishing->has_pod ? &finishing->pod : NULL;
    if (entry && !entry->is_terminated
        && job_failure_is_rerun(finishing->object, pod, finishing->arena)
        && executor_kubernetes_may_rerun(executor, &finishing->job)) {
        executor_kubernetes_mark_repeated(executor, entry);
        finishing->rerun = executor_kubernetes_rerun(executor, finishing->object, &finishing->job,
                                                     finishing->arena, on_made, finishing);
    }
    if (!finishing->rerun) {
        explain(finishing);
    }
}

/* A client wanted it ended: the Job goes when that is reported. */
static void complete_terminated(struct finishing *finishing)
{
    struct outcome outcome;
    executor_revoked(finishing->arena, "terminated", &outcome);
    complete(finishing, &outcome);
}

/* A report that is there and cannot be believed. */
static void complete_lost(struct finishing *finishing, const struct error *error)
{
    struct outcome outcome;
    const char *sentence =
        arena_format(finishing->arena, "Job %s ended, but its result is lost: %s", finishing->name,
                     error->message);
    executor_failure(finishing->arena, "ResultLost", sentence, NULL, &outcome);
    complete(finishing, &outcome);
}

static void complete_with_report(struct finishing *finishing)
{
    struct outcome outcome;
    struct error error = {0};
    if (job_result_outcome(&finishing->result, finishing->arena, &outcome, &error)) {
        outcome.runtime_s = finishing->pod.runtime_s;
        complete(finishing, &outcome);
    } else {
        complete_lost(finishing, &error);
    }
}

/* A large result stands at the end of the log */

static void on_log_line(void *context, struct bytes line)
{
    struct finishing *finishing = context;
    if (bytes_starts_with(line, BYTES(JOB_RESULT_LINE_HEAD))) { /* not the task's own text */
        (void)buffer_append(&finishing->log, line);
        (void)buffer_append_byte(&finishing->log, '\n');
    }
}

static void on_log_end(void *context, const struct kubernetes_answer *answer)
{
    struct finishing *finishing = context;
    struct error error = {0};
    finishing->call = NULL;
    if (answer->verdict == KUBERNETES_BUSY) {
        put_off(finishing);
        return;
    }
    struct bytes log = arena_copy(finishing->arena, buffer_view(&finishing->log));
    if (job_result_read_moved(log, finishing->arena, &finishing->result, &error)) {
        complete_with_report(finishing);
    } else {
        complete_lost(finishing, &error);
    }
}

static void fetch_log(struct finishing *finishing)
{
    const char *name =
        arena_format(finishing->arena, "%.*s/log", BYTES_FORMAT(finishing->pod.name));
    const char *query = arena_format(finishing->arena, "container=%.*s&tailLines=" RESULT_LOG_LINES,
                                     BYTES_FORMAT(finishing->pod.container));
    buffer_init(&finishing->log, JOB_RESULT_MAX_LOG_BYTES);
    finishing->call = kubernetes_api_stream(
        finishing->executor->api,
        &(struct kubernetes_request){
            .resource = EXECUTOR_KUBERNETES_PODS, .name = name, .query = query, .cuts_lines = true},
        MAX_LOG_LINE_BYTES, on_log_line, on_log_end, finishing);
}

/* The pod */

static void read_report(struct finishing *finishing)
{
    struct error error = {0};
    struct bytes message = finishing->has_pod ? finishing->pod.message : bytes_of(NULL, 0);
    if (job_result_read(message, finishing->arena, &finishing->result, &error)) {
        if (finishing->result.is_moved) {
            fetch_log(finishing);
        } else {
            complete_with_report(finishing);
        }
    } else if (error.kind == ERROR_NOT_FOUND) {
        complete_without_report(finishing);
    } else {
        complete_lost(finishing, &error);
    }
}

/* Takes the last pod of the list that ended as the Job did, else what was kept of it, else the last
 * one. */
static void on_pods(void *context, const struct kubernetes_answer *answer)
{
    struct finishing *finishing = context;
    finishing->call = NULL;
    if (answer->verdict != KUBERNETES_DONE) {
        put_off(finishing);
        return;
    }
    struct bytes text = arena_copy(finishing->arena, answer->body.text);
    struct json list = {JSON_TYPE_OBJECT, text};
    struct json_walk walk = json_walk(json_get(list, "items"));
    struct json item;
    bool is_kept = finishing->has_pod;
    bool is_complete = finishing->job.is_complete;
    while (json_next_element(&walk, &item)) {
        struct job_pod pod;
        job_pod_read(item, finishing->arena, &pod);
        bool is_same = is_kept && bytes_equal(pod.name, finishing->pod.name);
        bool is_worse = finishing->has_pod && !is_same
                        && (is_kept || job_pod_fits(&finishing->pod, is_complete));
        if (job_pod_fits(&pod, is_complete) || !is_worse) {
            finishing->pod = pod;
            finishing->has_pod = true;
            is_kept = false;
        }
    }
    read_report(finishing);
}

/* What is known of a pod may be older than the end of the Job: then the pods are read again. */
static void find_pod(struct finishing *finishing, const struct job_entry *entry)
{
    const struct kubernetes_job *job = &finishing->job;
    if (entry->pod) {
        finishing->pod = job_pod_copy(&entry->pod->pod, finishing->arena);
        finishing->has_pod = true;
        if (!job->is_finished || job_pod_fits(&finishing->pod, job->is_complete)) {
            read_report(finishing);
            return;
        }
    }
    const char *query = arena_format(
        finishing->arena, "labelSelector=batch.kubernetes.io%%2Fjob-name%%3D%s", finishing->name);
    finishing->call = kubernetes_api_call(
        finishing->executor->api,
        &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_PODS, .query = query}, on_pods,
        finishing);
}

/* The Job */

static void on_job_read(void *context, const struct kubernetes_answer *answer)
{
    struct finishing *finishing = context;
    struct executor_kubernetes *executor = finishing->executor;
    struct job_entry *entry = executor_kubernetes_find(executor, bytes_from_text(finishing->name));
    finishing->call = NULL;
    if (answer->verdict != KUBERNETES_DONE || !entry) {
        put_off(finishing);
        return;
    }
    struct bytes text = arena_copy(finishing->arena, answer->body.text);
    finishing->object = (struct json){JSON_TYPE_OBJECT, text};
    kubernetes_job_read(finishing->object, finishing->arena, &finishing->job);
    bool is_ours = bytes_equal_text(finishing->job.owner, executor->options.instance_id);
    if (!is_ours || finishing->job.is_reported || !executor_kubernetes_is_owner(executor)) {
        executor_kubernetes_see_job(executor, finishing->object);
        put_off(finishing);
        return;
    }
    const struct job_entry *followed = executor_kubernetes_find(executor, finishing->job.follows);
    bool is_early = followed && followed->exists
                    && (!followed->is_reported
                        || executor_kubernetes_is_leaving(executor, finishing->job.follows));
    bool is_ended = finishing->job.is_finished;
    bool is_moving = !is_ended && !entry->is_terminated && entry->stuck_since_ms == 0;
    if (is_early || is_moving) {
        /* The Job before it would be repeated again if this one went first; or its pod has begun
         * to run at last. */
        put_off(finishing);
        return;
    }
    if (entry->is_terminated && !is_ended) {
        complete_terminated(finishing);
    } else {
        find_pod(finishing, entry);
    }
}

void executor_kubernetes_consider(struct executor_kubernetes *executor, struct job_entry *entry)
{
    bool is_due = entry->exists && entry->is_mine
                  && (entry->is_finished || entry->is_stuck || entry->is_terminated)
                  && !entry->is_reported && !entry->is_completing;
    executor_kubernetes_review_follower(executor, entry);
    if (!is_due || executor->is_closing || !executor->is_ready
        || !executor_kubernetes_is_owner(executor)) {
        return;
    }
    struct arena *arena = arena_new(4096);
    struct finishing *finishing = arena_alloc(arena, sizeof(*finishing));
    finishing->executor = executor;
    finishing->arena = arena;
    memcpy(finishing->name, entry->name, sizeof(finishing->name));
    entry->is_completing = true;
    executor_kubernetes_review_follower(executor, entry);
    list_append(&executor->completions, &finishing->node);
    finishing->call = kubernetes_api_call(
        executor->api,
        &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_JOBS, .name = finishing->name},
        on_job_read, finishing);
}

void executor_kubernetes_end_completions(struct executor_kubernetes *executor)
{
    struct list_node *node = NULL;
    while ((node = list_first(&executor->completions)) != NULL) {
        end_finishing(list_entry(node, struct finishing, node));
    }
}

/* Farewell */

/* A Job that is reported: marked as such with a short TTL, or deleted when it would never end. */
struct farewell {
    struct list_node node;
    struct executor_kubernetes *executor;
    char name[JOB_NAME_SIZE];
    bool is_stuck;
    bool is_marked;
    bool is_awaited; /* keeps its long TTL */
    unsigned attempts;
    struct timer timer;
    struct kubernetes_call *call;
};

bool executor_kubernetes_is_leaving(const struct executor_kubernetes *executor, struct bytes name)
{
    list_for_each(node, following, &executor->farewells) {
        const struct farewell *farewell = list_entry(node, struct farewell, node);
        if (bytes_equal_text(name, farewell->name)) {
            return true;
        }
    }
    return false;
}

static void say_farewell(void *context);

static void end_farewell(struct farewell *farewell)
{
    struct executor_kubernetes *executor = farewell->executor;
    list_remove(&farewell->node);
    loop_stop_timer(executor->loop, &farewell->timer);
    kubernetes_api_cancel(&farewell->call);
    memory_free(&farewell);
    executor_kubernetes_check_closed(executor);
}

static void on_farewell(void *context, const struct kubernetes_answer *answer)
{
    struct farewell *farewell = context;
    struct executor_kubernetes *executor = farewell->executor;
    farewell->call = NULL;
    bool is_done = answer->verdict == KUBERNETES_DONE || answer->verdict == KUBERNETES_NOT_FOUND;
    if (is_done && farewell->is_stuck && !farewell->is_marked) {
        farewell->is_marked = true;
        say_farewell(farewell);
    } else if (is_done) {
        end_farewell(farewell);
        executor_kubernetes_make_room(executor);
    } else if (answer->verdict == KUBERNETES_REFUSED) {
        executor_kubernetes_warn(executor, "Job %s is reported, but cannot be marked so: %s",
                                 farewell->name, answer->message);
        end_farewell(farewell);
    } else {
        int64_t delay_ms =
            loop_backoff_ms(executor->loop, RETRY_FIRST_MS, farewell->attempts++, RETRY_MOST_MS);
        loop_start_timer(executor->loop, &farewell->timer,
                         answer->retry_after_ms > delay_ms ? answer->retry_after_ms : delay_ms);
    }
}

static void say_farewell(void *context)
{
    struct farewell *farewell = context;
    struct kubernetes_api *api = farewell->executor->api;
    if (farewell->is_marked) {
        /* Without the policy the API would leave the pods running. */
        farewell->call = kubernetes_api_call(
            api,
            &(struct kubernetes_request){.method = "DELETE",
                                         .resource = EXECUTOR_KUBERNETES_JOBS,
                                         .name = farewell->name,
                                         .query = "propagationPolicy=Background"},
            on_farewell, farewell);
        return;
    }
    struct buffer patch;
    buffer_init(&patch, 1024);
    int64_t ttl_s = farewell->is_awaited ? -1 : farewell->executor->options.result_ttl_s;
    kubernetes_job_append_reported(&patch, ttl_s);
    farewell->call =
        kubernetes_api_call(api,
                            &(struct kubernetes_request){.method = "PATCH",
                                                         .resource = EXECUTOR_KUBERNETES_JOBS,
                                                         .name = farewell->name,
                                                         .body = buffer_view(&patch)},
                            on_farewell, farewell);
    buffer_fini(&patch);
}

static struct farewell *new_farewell(struct executor_kubernetes *executor, struct job_entry *entry)
{
    struct farewell *farewell = memory_new(sizeof(*farewell));
    farewell->executor = executor;
    memcpy(farewell->name, entry->name, sizeof(farewell->name));
    farewell->is_stuck = !entry->is_finished;
    farewell->timer = (struct timer){.on_due = say_farewell, .context = farewell};
    list_append(&executor->farewells, &farewell->node);
    entry->is_leaving = true;
    return farewell;
}

void executor_kubernetes_forget(struct executor *base, struct bytes receipt, bool is_awaited)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    struct job_entry *entry = executor_kubernetes_find(executor, receipt);
    if (!entry) {
        return; /* the Job has gone before its report */
    }
    struct farewell *farewell = new_farewell(executor, entry);
    farewell->is_awaited = is_awaited;
    executor_kubernetes_mark_reported(executor, entry);
    say_farewell(farewell);
}

void executor_kubernetes_delete(struct executor_kubernetes *executor, struct job_entry *entry)
{
    struct farewell *farewell = new_farewell(executor, entry);
    farewell->is_marked = true;
    say_farewell(farewell);
}

void executor_kubernetes_end_farewells(struct executor_kubernetes *executor)
{
    struct list_node *node = NULL;
    while ((node = list_first(&executor->farewells)) != NULL) {
        struct farewell *farewell = list_entry(node, struct farewell, node);
        list_remove(&farewell->node);
        loop_stop_timer(executor->loop, &farewell->timer);
        kubernetes_api_cancel(&farewell->call);
        memory_free(&farewell);
    }
}
