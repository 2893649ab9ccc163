/* What is known of each Job, from two watches: Jobs and their pods. */
#include "executor/executor_kubernetes_private.h"

#define JOB_NAME_LABEL     "batch.kubernetes.io/job-name"
#define OLD_JOB_NAME_LABEL "job-name"

/* Entries */

struct job_entry *executor_kubernetes_find(const struct executor_kubernetes *executor,
                                           struct bytes name)
{
    return map_get(executor->jobs, name);
}

struct job_entry *executor_kubernetes_next(const struct executor_kubernetes *executor,
                                           size_t *position)
{
    struct bytes name;
    void *entry = NULL;
    return map_next(executor->jobs, position, &name, &entry) ? entry : NULL;
}

static struct job_entry *find_or_add(struct executor_kubernetes *executor, struct bytes name)
{
    struct job_entry *entry = executor_kubernetes_find(executor, name);
    if (!entry && name.length > 0 && name.length < sizeof(entry->name)) {
        entry = memory_new(sizeof(*entry));
        memcpy(entry->name, name.data, name.length);
        (void)map_set(executor->jobs, name, entry);
    }
    return entry;
}

static void drop_facts(struct job_entry *entry)
{
    if (entry->pod) {
        struct arena *arena = entry->pod->arena;
        entry->pod = NULL;
        arena_free(&arena);
    }
}

/* Counts `entry` in (+1) or out (-1): call before and after its marks change. */
static void count(struct executor_kubernetes *executor, const struct job_entry *entry, int step)
{
    bool is_over = entry->is_finished && !entry->is_repeated;
    if (!entry->exists || is_over || entry->is_reported) {
        return;
    }
    if (entry->is_mine) {
        executor->unfinished_count += (size_t)step;
        executor->waiting_count += entry->is_active ? 0 : (size_t)step;
    }
}

static void remove_entry(struct executor_kubernetes *executor, struct job_entry *entry)
{
    count(executor, entry, -1);
    executor_kubernetes_unstage(executor, entry);
    executor_kubernetes_unfollow(entry);
    (void)map_remove(executor->jobs, bytes_from_text(entry->name));
    drop_facts(entry);
    memory_free(&entry);
}

void executor_kubernetes_free_entries(struct executor_kubernetes *executor)
{
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        remove_entry(executor, entry);
    }
    map_free(&executor->jobs);
}

void executor_kubernetes_note_created(struct executor_kubernetes *executor, const char *name,
                                      const int64_t *asked)
{
    struct job_entry *entry = find_or_add(executor, bytes_from_text(name));
    if (entry->exists) {
        return;
    }
    count(executor, entry, -1);
    entry->exists = true;
    entry->is_listed = true;
    entry->is_mine = true;
    (void)snprintf(entry->owner, sizeof(entry->owner), "%s", executor->options.instance_id);
    count(executor, entry, 1);
    executor_kubernetes_note_asked(executor, entry, asked);
    executor_kubernetes_stage(executor, entry, false);
}

void executor_kubernetes_mark_reported(struct executor_kubernetes *executor,
                                       struct job_entry *entry)
{
    count(executor, entry, -1);
    entry->is_reported = true;
    count(executor, entry, 1);
    executor_kubernetes_stage(executor, entry, !entry->is_finished);
    drop_facts(entry);
    executor->events->on_free_slots(executor->context, &executor->base);
}

void executor_kubernetes_mark_repeated(struct executor_kubernetes *executor,
                                       struct job_entry *entry)
{
    count(executor, entry, -1);
    entry->is_repeated = true;
    count(executor, entry, 1);
}

/* Jobs */

void executor_kubernetes_see_job(struct executor_kubernetes *executor, struct json object)
{
    struct arena *arena = arena_new(1024);
    struct kubernetes_job job;
    kubernetes_job_read(object, arena, &job);
    struct job_entry *entry = job.is_managed ? find_or_add(executor, job.name) : NULL;
    if (entry) {
        count(executor, entry, -1);
        if (!bytes_equal_text(job.owner, entry->owner)) {
            (void)snprintf(entry->owner, sizeof(entry->owner), "%.*s", BYTES_FORMAT(job.owner));
            entry->owner_seen_ms = loop_now_ms(executor->loop);
        }
        (void)snprintf(entry->version, sizeof(entry->version), "%.*s",
                       BYTES_FORMAT(job.resource_version));
        bool was_there = entry->exists;
        bool was_foreign = was_there && !entry->is_mine;
        entry->exists = true;
        entry->is_listed = true;
        entry->is_mine = strcmp(entry->owner, executor->options.instance_id) == 0;
        entry->is_taken_over = entry->is_taken_over || (was_foreign && entry->is_mine);
        /* What had ended when it was seen first did so a while ago. */
        bool has_changed = entry->is_active != job.is_active
                           || (was_there && entry->is_finished != job.is_finished);
        entry->is_active = job.is_active;
        entry->is_finished = job.is_finished;
        entry->is_failing = job.is_failing;
        entry->is_reported = entry->is_reported || job.is_reported;
        count(executor, entry, 1);
        executor_kubernetes_mark_terminated(executor, entry, job.task_id);
        executor_kubernetes_ask_seen(executor, entry, object);
        executor_kubernetes_stage(executor, entry, has_changed);
        executor_kubernetes_consider(executor, entry);
        executor->events->on_free_slots(executor->context, &executor->base);
    }
    arena_free(&arena);
}

static void on_job(void *context, struct json object)
{
    executor_kubernetes_see_job(context, object);
}

/* A Job of ours that goes before its report was deleted by somebody else; after a restart the outbox
 * tells so. Removes the entry. */
static void tell_deleted(struct executor_kubernetes *executor, struct job_entry *entry,
                         const struct kubernetes_job *job, struct arena *arena)
{
    bool is_unknown = job->is_managed && entry->is_mine && !entry->is_reported && !job->is_reported
                      && !entry->is_completing && !entry->is_terminated;
    bool may_tell = executor->is_ready && !executor->is_closing
                    && executor_kubernetes_is_owner(executor)
                    && bytes_equal_text(job->owner, executor->options.instance_id);
    struct outcome outcome;
    struct completion completion = {
        .receipt = job->name,
        .record = job->record,
        .tag = job->tag,
        .is_settled = entry->is_settled,
        .is_taken_over = entry->is_taken_over,
        .outcome = &outcome,
    };
    job_failure_deleted(job->name, entry->pod ? &entry->pod->pod : NULL, arena, &outcome);
    remove_entry(executor, entry);
    if (is_unknown && may_tell) {
        executor->events->on_completed(executor->context, &completion);
    }
}

static void on_job_deleted(void *context, struct json object)
{
    struct executor_kubernetes *executor = context;
    struct arena *arena = arena_new(256);
    struct kubernetes_job job;
    kubernetes_job_read(object, arena, &job);
    struct job_entry *entry = executor_kubernetes_find(executor, job.name);
    if (entry) {
        tell_deleted(executor, entry, &job, arena);
        executor->events->on_free_slots(executor->context, &executor->base);
    }
    arena_free(&arena);
}

static void on_jobs_listing(void *context)
{
    struct executor_kubernetes *executor = context;
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        entry->is_listed = false;
    }
}

static void on_jobs_listed(void *context)
{
    struct executor_kubernetes *executor = context;
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (entry->exists && !entry->is_listed) {
            remove_entry(executor, entry);
        }
    }
    executor->is_asked = true;
    executor_kubernetes_check_ready(executor);
    executor->events->on_free_slots(executor->context, &executor->base);
}

/* Pods */

static struct bytes job_name_of(struct json pod, struct arena *arena)
{
    struct json labels = json_get(json_get(pod, "metadata"), "labels");
    struct bytes name = {NULL, 0};
    if (!json_text(json_get(labels, JOB_NAME_LABEL), arena, &name)) {
        (void)!json_text(json_get(labels, OLD_JOB_NAME_LABEL), arena, &name);
    }
    return name;
}

/* Keeps what the completion will need. */
static void keep_facts(struct job_entry *entry, const struct job_pod *pod)
{
    struct arena *arena = arena_new(256);
    struct pod_facts *facts = arena_alloc(arena, sizeof(*facts));
    facts->arena = arena;
    facts->pod = job_pod_copy(pod, arena);
    drop_facts(entry);
    entry->pod = facts;
}

/* Tells that the task has begun, for those that track it. */
static void tell_running(struct executor_kubernetes *executor, struct job_entry *entry,
                         struct json pod, struct arena *arena)
{
    struct json annotations = json_get(json_get(pod, "metadata"), "annotations");
    struct completion running = {.receipt = bytes_from_text(entry->name)};
    entry->is_running = true;
    if (json_text(json_get(annotations, "petiole.dev/message"), arena, &running.record)) {
        executor->events->on_running(executor->context, &running);
    }
}

static void on_pod(void *context, struct json object)
{
    struct executor_kubernetes *executor = context;
    struct arena *arena = arena_new(1024);
    struct job_pod pod;
    struct job_entry *entry = find_or_add(executor, job_name_of(object, arena));
    if (entry) {
        entry->has_pod = true;
        executor_kubernetes_stage(executor, entry, false); /* its Job tells of it a second later */
    }
    if (entry && !entry->is_reported) {
        job_pod_read(object, arena, &pod);
        executor_kubernetes_note_running(executor, entry, pod.state == JOB_POD_RUNNING);
        bool is_stuck = executor_kubernetes_may_be_stuck(executor, entry, &pod);
        if (!is_stuck) {
            entry->stuck_since_ms = 0;
        } else if (entry->stuck_since_ms == 0) {
            entry->stuck_since_ms = loop_now_ms(executor->loop);
        }
        if (pod.state == JOB_POD_ENDED || is_stuck || pod.is_deleted || pod.disruption.length > 0) {
            keep_facts(entry, &pod);
            executor_kubernetes_judge(executor, entry);
        } else if (pod.state == JOB_POD_RUNNING && !entry->is_running && entry->is_mine) {
            tell_running(executor, entry, object, arena);
        }
        executor_kubernetes_consider(executor, entry);
    }
    arena_free(&arena);
}

static void on_pod_deleted(void *context, struct json object)
{
    struct executor_kubernetes *executor = context;
    struct arena *arena = arena_new(256);
    struct job_entry *entry = executor_kubernetes_find(executor, job_name_of(object, arena));
    if (entry && !entry->exists) {
        remove_entry(executor, entry); /* its Job went before */
    }
    arena_free(&arena);
}

/* Facts are only ever replaced: a pod that is gone has told all it had to tell. */
static void on_pods_listing(void *context)
{
    struct executor_kubernetes *executor = context;
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        entry->has_pod = false;
    }
}

static void on_pods_listed(void *context)
{
    struct executor_kubernetes *executor = context;
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (!entry->exists && !entry->has_pod) {
            remove_entry(executor, entry); /* its deletion was not told */
        }
    }
    executor_kubernetes_check_ready(executor);
}

void executor_kubernetes_sweep(struct executor_kubernetes *executor)
{
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        executor_kubernetes_judge(executor, entry);
        executor_kubernetes_consider(executor, entry);
    }
}

static void on_trouble(void *context, const struct error *error, int64_t retry_ms)
{
    executor_kubernetes_warn(context, "Kubernetes: %s. Trying again in %.2f seconds...",
                             error->message, (double)retry_ms / 1000);
}

static const struct kubernetes_watch_events jobs_events = {
    .on_listing = on_jobs_listing,
    .on_object = on_job,
    .on_deleted = on_job_deleted,
    .on_listed = on_jobs_listed,
    .on_trouble = on_trouble,
};
static const struct kubernetes_watch_events pods_events = {
    .on_listing = on_pods_listing,
    .on_object = on_pod,
    .on_deleted = on_pod_deleted,
    .on_listed = on_pods_listed,
    .on_trouble = on_trouble,
};

void executor_kubernetes_observe(struct executor_kubernetes *executor)
{
    kubernetes_watch_close(&executor->jobs_watch);
    executor->jobs_watch = kubernetes_watch_open(executor->api, EXECUTOR_KUBERNETES_JOBS,
                                                 KUBERNETES_JOB_SELECTOR, &jobs_events, executor);
    if (!executor->pods_watch) {
        executor->pods_watch =
            kubernetes_watch_open(executor->api, EXECUTOR_KUBERNETES_PODS, KUBERNETES_JOB_SELECTOR,
                                  &pods_events, executor);
    }
}
