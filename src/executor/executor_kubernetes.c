#include "executor/executor_kubernetes.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "executor/executor_kubernetes_private.h"
#include "executor/kubernetes_page.h"

/* Enough to keep the API server busy; more would only fill memory with bodies that wait, and the
 * server's queues (429). What is not taken stays with the broker. */
#define MAX_SUBMISSIONS ((size_t)64)

#define CLOSE_MS 900 /* contracts: the worker is gone within 2 s of the signal */

struct executor_kubernetes *executor_kubernetes_of(const struct executor *base)
{
    union {
        const struct executor *constant;
        struct executor *base;
    } pointer = {.constant = base};

    return CONTAINER_OF(pointer.base, struct executor_kubernetes, base);
}

void executor_kubernetes_warn(struct executor_kubernetes *executor, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    executor->events->on_notice(executor->context, LOG_WARNING, text);
}

void executor_kubernetes_check_ready(struct executor_kubernetes *executor)
{
    if (executor->is_ready || executor->is_closing || !executor_kubernetes_is_owner(executor)
        || !executor->leases_known || !executor->jobs_watch
        || !kubernetes_watch_is_listed(executor->jobs_watch)
        || !kubernetes_watch_is_listed(executor->pods_watch)) {
        return;
    }
    executor->is_ready = true;
    executor->events->on_ready(executor->context, &executor->base);
    executor_kubernetes_sweep(executor);
    executor_kubernetes_hasten(executor);
    /* By Leases that are newer than all Jobs that are known: those of the first tick are not. */
    executor_kubernetes_look_for_orphans(executor);
}

/* Slots */

/* No more than what the limit of requests lets out within a second. */
static size_t most_submissions(const struct executor_kubernetes *executor)
{
    int64_t qps = executor->options.api_qps;
    return qps > 0 && qps < (int64_t)MAX_SUBMISSIONS ? (size_t)qps : MAX_SUBMISSIONS;
}

static size_t free_slots(const struct executor *base)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    size_t taken = executor->unfinished_count + executor->submission_count;
    size_t most = executor->options.max_jobs;
    if (!executor->is_ready || executor->is_closing) {
        return 0;
    }
    size_t free_count = most > taken ? most - taken : 0;
    size_t most_posts = most_submissions(executor);
    size_t free_posts =
        most_posts > executor->submission_count ? most_posts - executor->submission_count : 0;
    free_count = free_count < free_posts ? free_count : free_posts;
    return executor_kubernetes_slots(executor, free_count);
}

static size_t running_count(const struct executor *base)
{
    const struct executor_kubernetes *executor = executor_kubernetes_of(base);
    return executor->unfinished_count + executor->submission_count;
}

void executor_kubernetes_count(const struct executor *base, size_t *ret_running,
                               size_t *ret_pending)
{
    const struct executor_kubernetes *executor = executor_kubernetes_of(base);
    *ret_running = executor->unfinished_count - executor->waiting_count;
    *ret_pending = executor->waiting_count;
}

/* Life cycle */

static void start(struct executor *base)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    executor_kubernetes_own(executor);
    executor_kubernetes_follow_rules(executor); /* before Jobs, so that what they ask is known */
}

static void note_settled(struct executor *base, struct bytes receipt)
{
    struct job_entry *entry = executor_kubernetes_find(executor_kubernetes_of(base), receipt);
    if (entry) {
        entry->is_settled = true;
    }
}

static void free_map_values(struct map **map)
{
    size_t position = 0;
    struct bytes key;
    void *value = NULL;
    while (map_next(*map, &position, &key, &value)) {
        (void)map_remove(*map, key);
        memory_free(&value);
    }
    map_free(map);
}

static void free_executor(struct executor_kubernetes *executor)
{
    for (size_t index = 0; index < executor->template_count; index++) {
        job_template_free(&executor->templates[index]);
    }
    memory_free(&executor->templates);
    executor_kubernetes_free_entries(executor);
    executor_kubernetes_fini_rules(executor);
    free_map_values(&executor->leases);
    buffer_fini(&executor->leases_page);
    kubernetes_api_free(&executor->logs_api);
    kubernetes_api_free(&executor->api);
    memory_free(&executor);
}

static void finish_close(void *context)
{
    struct executor_kubernetes *executor = context;
    void (*on_closed)(void *) = executor->on_closed;
    void *closed_context = executor->closed_context;
    free_executor(executor);
    on_closed(closed_context);
}

void executor_kubernetes_check_closed(struct executor_kubernetes *executor)
{
    if (executor->is_closing && executor->submission_count == 0
        && list_is_empty(&executor->farewells) && !executor->lease_call) {
        loop_stop_timer(executor->loop, &executor->close_timer);
        loop_defer(executor->loop, &executor->closed);
    }
}

/* The time is over: what is still on its way is found again by name, by whoever comes next. */
static void on_close_deadline(void *context)
{
    struct executor_kubernetes *executor = context;
    executor_kubernetes_end_submissions(executor, true);
    executor_kubernetes_end_farewells(executor);
    kubernetes_api_cancel(&executor->lease_call);
    executor_kubernetes_check_closed(executor);
}

static void close_executor(struct executor *base, bool kill, void (*on_closed)(void *context),
                           void *context)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    (void)kill; /* Jobs are neither awaited nor ended */
    if (executor->is_closing) {
        return;
    }
    executor->is_closing = true;
    executor->on_closed = on_closed;
    executor->closed_context = context;
    executor->closed = (struct loop_call){.function = finish_close, .context = executor};
    executor->close_timer = (struct timer){.on_due = on_close_deadline, .context = executor};
    loop_start_timer(executor->loop, &executor->close_timer, CLOSE_MS);
    kubernetes_watch_close(&executor->jobs_watch);
    kubernetes_watch_close(&executor->pods_watch);
    executor_kubernetes_leave_rules(executor);
    executor_kubernetes_end_progress(executor);
    executor_kubernetes_end_completions(executor);
    executor_kubernetes_end_checks(executor);
    executor_kubernetes_disown(executor);
    executor_kubernetes_end_submissions(executor, false);
}

static const struct executor_ops ops = {
    .name = "kubernetes",
    .is_durable = true,
    .start = start,
    .free_slots = free_slots,
    .admit = executor_kubernetes_admit,
    .explain = executor_kubernetes_explain,
    .submit = executor_kubernetes_submit,
    .cancel = executor_kubernetes_cancel,
    .terminate = executor_kubernetes_terminate,
    .note_settled = note_settled,
    .forget = executor_kubernetes_forget,
    .running_count = running_count,
    .close = close_executor,
};

/* Loads the template of every row that runs as a Job. */
static bool load_templates(struct executor_kubernetes *executor, struct error *reterr)
{
    struct task_type *row = NULL;
    for (size_t index = 0; (row = registry_row(executor->options.registry, index)) != NULL;
         index++) {
        if (row->executor != TASK_KUBERNETES) {
            continue;
        }
        if (!row->job_template) {
            return error_set(reterr, ERROR_INVALID,
                             "tasks: %s: executor kubernetes needs job_template", row->pattern);
        }
        struct job_template *loaded = job_template_load(row->job_template, row->overrides, reterr);
        if (!loaded) {
            return error_wrap(reterr, "tasks: %s", row->pattern);
        }
        executor->templates = memory_resize(executor->templates, executor->template_count + 1,
                                            sizeof(struct job_template *));
        executor->templates[executor->template_count] = loaded;
        row->job_template_index = executor->template_count++;
    }
    return true;
}

struct executor *executor_kubernetes_new(struct loop *loop,
                                         const struct executor_kubernetes_options *options,
                                         const struct executor_events *events, void *context,
                                         struct error *reterr)
{
    struct executor_kubernetes *executor = memory_new(sizeof(*executor));
    executor->base.ops = &ops;
    executor->loop = loop;
    executor->options = *options;
    executor->events = events;
    executor->context = context;
    executor->jobs = map_new();
    executor_kubernetes_init_rules(executor);
    executor_kubernetes_init_hastening(executor);
    executor->leases = map_new();
    buffer_init(&executor->leases_page, KUBERNETES_PAGE_MAX_TOKEN);
    list_init(&executor->submissions);
    list_init(&executor->farewells);
    list_init(&executor->completions);
    list_init(&executor->checks);
    list_init(&executor->take_overs);
    if (load_templates(executor, reterr)) {
        executor->api =
            kubernetes_api_new(loop, options->kubeconfig, options->namespace_name, reterr);
    }
    if (executor->api && options->follow_logs > 0) {
        executor->logs_api =
            kubernetes_api_new(loop, options->kubeconfig, options->namespace_name, reterr);
    }
    if (!executor->api || (options->follow_logs > 0 && !executor->logs_api)) {
        free_executor(executor);
        return NULL;
    }
    kubernetes_api_limit(executor->api, options->api_qps, options->api_burst);
    if (executor->logs_api) {
        kubernetes_api_allow_silence(executor->logs_api);
    }
    return &executor->base;
}
