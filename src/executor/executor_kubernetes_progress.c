/*
 * What running tasks say of themselves: the logs of at most follow_logs of our pods are followed, on
 * connections of their own, so that no log holds up a Job. Nothing depends on it: whatever goes
 * wrong here costs news, never a result.
 *
 *   pod has run for a moment ─> read it ─> follow its log ─ line ─> newest state ─> on_progress
 *                                              └─ end ─> a pause ─┘
 *
 * A log is read from shortly before its end, which says again what was read before: states carry
 * numbers.
 */
#include "codec/message_record.h"
#include "executor/executor_kubernetes_private.h"
#include "executor/job_progress.h"

#define FIRST_LOOK_MS 500 /* a task that is over by then needs no news */
#define PAUSE_MS      1000
#define MOST_PAUSE_MS 60000
#define HEALTHY_MS    10000 /* a log that was followed for so long is followed again at once */
/* A task may write faster than anybody can read: after so many bytes there is a pause. */
#define LOG_QUERY        "follow=true&tailLines=1000&limitBytes=8388608"
#define STATUS_FORBIDDEN 403

/* One Job whose log is followed; the entry owns it. */
struct job_follower {
    struct executor_kubernetes *executor;
    struct job_entry *entry;
    struct bytes record; /* owned: the message; empty until the pod is read */
    char *log_name;      /* owned: "<pod>/log" */
    char *log_query;     /* owned */
    struct job_progress progress;
    struct kubernetes_call *call;
    struct timer pause_timer;
    struct timer tell_timer;
    unsigned failures; /* in a row */
    int64_t opened_ms;
    bool has_complained;
};

static bool is_to_follow(const struct job_entry *entry)
{
    return entry->exists && entry->is_mine && entry->running_since_ms > 0 && !entry->is_finished
           && !entry->is_reported && !entry->is_completing && !entry->is_terminated
           && !entry->is_silent;
}

/* Ends */

static void free_follower(struct job_follower *follower)
{
    struct executor_kubernetes *executor = follower->executor;
    follower->entry->follower = NULL;
    executor->follower_count--;
    kubernetes_api_cancel(&follower->call);
    loop_stop_timer(executor->loop, &follower->pause_timer);
    loop_stop_timer(executor->loop, &follower->tell_timer);
    job_progress_fini(&follower->progress);
    memory_free(&follower->record.data);
    memory_free(&follower->log_name);
    memory_free(&follower->log_query);
    memory_free(&follower);
}

/* Leaves its place to another pod. */
static void unfollow(struct job_follower *follower)
{
    struct executor_kubernetes *executor = follower->executor;
    free_follower(follower);
    executor_kubernetes_follow(executor);
}

void executor_kubernetes_review_follower(struct executor_kubernetes *executor,
                                         struct job_entry *entry)
{
    if (entry->follower && !is_to_follow(entry)) {
        unfollow(entry->follower);
    } else if (!entry->follower && is_to_follow(entry)) {
        executor_kubernetes_follow(executor);
    }
}

void executor_kubernetes_unfollow(struct job_entry *entry)
{
    if (entry->follower) {
        unfollow(entry->follower);
    }
}

void executor_kubernetes_end_progress(struct executor_kubernetes *executor)
{
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (entry->follower) {
            free_follower(entry->follower);
        }
    }
    loop_stop_timer(executor->loop, &executor->follow_timer);
}

/* Lines */

/* Only the present owner speaks for the task: one that was away first hears what is still its own. */
static bool may_tell(const struct executor_kubernetes *executor)
{
    return executor_kubernetes_is_owner(executor)
           && kubernetes_watch_is_listed(executor->jobs_watch);
}

static void tell(void *context)
{
    struct job_follower *follower = context;
    struct executor_kubernetes *executor = follower->executor;
    if (!job_progress_is_new(&follower->progress)) {
        return;
    }
    loop_start_timer(executor->loop, &follower->tell_timer, JOB_PROGRESS_MIN_PERIOD_MS);
    if (!may_tell(executor)) {
        return;
    }
    struct progress progress = job_progress_give(&follower->progress);
    struct completion running = {
        .receipt = bytes_from_text(follower->entry->name),
        .record = follower->record,
    };
    executor->events->on_progress(executor->context, NULL, &running, &progress);
}

static void on_line(void *context, struct bytes line)
{
    struct job_follower *follower = context;
    struct executor_kubernetes *executor = follower->executor;
    struct error error = {0};
    enum job_progress_line kind = job_progress_take(&follower->progress, line, &error);
    if (kind == JOB_PROGRESS_BAD && !follower->has_complained) {
        follower->has_complained = true;
        executor_kubernetes_warn(executor, "Job %s tells its progress in a wrong way: %s",
                                 follower->entry->name, error.message);
    }
    if (kind == JOB_PROGRESS_NEW && !timer_is_armed(&follower->tell_timer)) {
        loop_start_timer(executor->loop, &follower->tell_timer, 0);
    }
}

/* The log */

static void pause_following(struct job_follower *follower, int64_t asked_ms)
{
    struct loop *loop = follower->executor->loop;
    int64_t pause_ms = loop_backoff_ms(loop, PAUSE_MS, follower->failures++, MOST_PAUSE_MS);
    loop_start_timer(loop, &follower->pause_timer, asked_ms > pause_ms ? asked_ms : pause_ms);
}

static void on_log_end(void *context, const struct kubernetes_answer *answer)
{
    struct job_follower *follower = context;
    struct executor_kubernetes *executor = follower->executor;
    follower->call = NULL;
    if (answer->status == STATUS_FORBIDDEN && !executor->has_complained_of_logs) {
        executor->has_complained_of_logs = true;
        executor_kubernetes_warn(executor, "progress of tasks is not seen: %s", answer->message);
    }
    if (answer->verdict == KUBERNETES_NOT_FOUND) {
        follower->entry->running_since_ms = 0; /* until it is seen running again */
        unfollow(follower);
        return;
    }
    bool was_healthy = loop_now_ms(executor->loop) - follower->opened_ms >= HEALTHY_MS;
    follower->failures = was_healthy ? 0 : follower->failures;
    pause_following(follower, answer->retry_after_ms);
}

static void open_log(struct job_follower *follower)
{
    struct executor_kubernetes *executor = follower->executor;
    follower->opened_ms = loop_now_ms(executor->loop);
    follower->call =
        kubernetes_api_stream(executor->logs_api,
                              &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_PODS,
                                                           .name = follower->log_name,
                                                           .query = follower->log_query,
                                                           .cuts_lines = true},
                              JOB_PROGRESS_MAX_LINE_BYTES + 1, on_line, on_log_end, follower);
}

/* The pod */

/* Whether anybody wants to know of the states of this message's task. */
static bool is_wanted(const struct executor_kubernetes *executor, struct bytes record)
{
    struct arena *arena = arena_new(record.length * 2 + 1024);
    struct request request = {.arena = arena};
    bool is_read = message_record_read(record, arena, &request.message, NULL);
    if (is_read) {
        request.type = registry_find(executor->options.registry, request.message.task);
    }
    bool is_wanted = is_read && request_stores_result(&request);
    arena_free(&arena);
    return is_wanted;
}

/* Keeps what following `pod` needs; false when it cannot or need not be followed. */
static bool keep_pod(struct job_follower *follower, const struct job_pod *pod, struct bytes record)
{
    if (!is_wanted(follower->executor, record)) {
        follower->entry->is_silent = true;
        return false;
    }
    struct buffer text;
    buffer_init(&text, 1024);
    (void)buffer_format(&text, "%.*s/log", BYTES_FORMAT(pod->name));
    follower->log_name = memory_text(buffer_view(&text));
    buffer_clear(&text);
    (void)buffer_format(&text, "container=%.*s&" LOG_QUERY, BYTES_FORMAT(pod->container));
    follower->log_query = memory_text(buffer_view(&text));
    buffer_fini(&text);
    follower->record = bytes_of(memory_text(record), record.length);
    return true;
}

static bool take_pod(struct job_follower *follower, struct json item, struct arena *arena)
{
    struct job_pod pod;
    struct bytes record = {NULL, 0};
    struct json annotations = json_get(json_get(item, "metadata"), "annotations");
    job_pod_read(item, arena, &pod);
    return pod.state == JOB_POD_RUNNING
           && json_text(json_get(annotations, "petiole.dev/message"), arena, &record)
           && keep_pod(follower, &pod, record);
}

static void on_pods(void *context, const struct kubernetes_answer *answer)
{
    struct job_follower *follower = context;
    follower->call = NULL;
    struct arena *arena = arena_new(4096);
    struct json_walk walk = json_walk(json_get(answer->body, "items"));
    struct json item;
    bool is_taken = false;
    while (answer->verdict == KUBERNETES_DONE && !is_taken && json_next_element(&walk, &item)) {
        is_taken = take_pod(follower, item, arena);
    }
    arena_free(&arena);
    if (is_taken) {
        open_log(follower);
    } else if (answer->verdict == KUBERNETES_DONE) {
        follower->entry->running_since_ms = 0; /* until it is seen running again */
        unfollow(follower);
    } else {
        pause_following(follower, answer->retry_after_ms);
    }
}

static void read_pod(struct job_follower *follower)
{
    char query[128];
    (void)snprintf(query, sizeof(query), "labelSelector=batch.kubernetes.io%%2Fjob-name%%3D%s",
                   follower->entry->name);
    follower->call = kubernetes_api_call(
        follower->executor->api,
        &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_PODS, .query = query}, on_pods,
        follower);
}

static void go_on(void *context)
{
    struct job_follower *follower = context;
    if (follower->log_name) {
        open_log(follower);
    } else {
        read_pod(follower);
    }
}

static void begin(struct executor_kubernetes *executor, struct job_entry *entry)
{
    struct job_follower *follower = memory_new(sizeof(*follower));
    follower->executor = executor;
    follower->entry = entry;
    follower->pause_timer = (struct timer){.on_due = go_on, .context = follower};
    follower->tell_timer = (struct timer){.on_due = tell, .context = follower};
    entry->follower = follower;
    executor->follower_count++;
    read_pod(follower);
}

/* Who is followed */

/* Begins with the pods that have run for a moment, as long as there are places. */
static void look(void *context)
{
    struct executor_kubernetes *executor = context;
    size_t position = 0;
    bool is_early = false;
    struct job_entry *entry = NULL;
    while (executor->follower_count < executor->options.follow_logs
           && (entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (entry->follower || !is_to_follow(entry)) {
            continue;
        }
        if (loop_now_ms(executor->loop) - entry->running_since_ms < FIRST_LOOK_MS) {
            is_early = true;
        } else {
            begin(executor, entry);
        }
    }
    if (is_early) {
        executor_kubernetes_follow(executor);
    }
}

void executor_kubernetes_follow(struct executor_kubernetes *executor)
{
    bool has_place = executor->follower_count < executor->options.follow_logs;
    if (has_place && !executor->is_closing && !timer_is_armed(&executor->follow_timer)) {
        executor->follow_timer = (struct timer){.on_due = look, .context = executor};
        loop_start_timer(executor->loop, &executor->follow_timer, FIRST_LOOK_MS);
    }
}

void executor_kubernetes_note_running(struct executor_kubernetes *executor, struct job_entry *entry,
                                      bool is_running)
{
    if (!is_running) {
        entry->running_since_ms = 0;
    } else if (entry->running_since_ms == 0) {
        entry->running_since_ms = loop_now_ms(executor->loop);
    }
}
