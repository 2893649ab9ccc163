#include "executor/executor_local.h"

#include "base/memory.h"
#include "codec/message_record.h"
#include "executor/job_name.h"
#include "executor/job_template.h"
#include "executor/kubernetes_job.h"
#include "executor/local_process.h"
#include "executor/local_run.h"

#define MAX_RECORD_BYTES ((size_t)64 * 1024 * 1024)
#define KILL_GRACE_S     2.0
#define OWN_PREFIX       "PETIOLE_"

const char *const executor_local_passed_names[] = {
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "PETIOLE_PYTHON",
    "PETIOLE_APP",
    "CELERY_APP",
    "PETIOLE_FUNCTION",
    "PETIOLE_ACCEPT_CONTENT",
    NULL,
};

/* Each also with PETIOLE_ before it. */
static const char *const credential_names[] = {
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
    "BROKER_URL",
    "BROKER_READ_URL",
    "BROKER_WRITE_URL",
    "RESULT_BACKEND",
    "JWT_SECRET",
    "KUBECONFIG",
};

struct executor_local {
    struct executor base;
    struct local_run_site site;
    struct registry *registry;
    size_t max_processes;
    const struct executor_events *events;
    void *context;
    struct job_template **templates; /* owned */
    size_t template_count;
    struct list submissions;
    size_t submission_count;
    struct loop_call ready_call;
    struct loop_call close_call;
    bool is_closing;
    void (*on_closed)(void *context);
    void *closed_context;
};

struct submission {
    struct executor_local *local;
    struct request *request;
    struct list_node node;
    struct local_run *run; /* owned */
};

static struct executor_local *local_of(struct executor *executor)
{
    return CONTAINER_OF(executor, struct executor_local, base);
}

static const struct executor_local *const_local_of(const struct executor *executor)
{
    return (const struct executor_local *)(const void *)executor; /* the head of its struct */
}

/* Runs */

static void defer_close(struct executor_local *local)
{
    if (local->is_closing && local->submission_count == 0) {
        loop_defer(local->site.loop, &local->close_call);
    }
}

static void on_started(void *context)
{
    struct submission *submission = context;
    struct executor_local *local = submission->local;
    local->events->on_started(local->context, submission->request, bytes_of(NULL, 0));
}

static void on_ended(void *context, const struct outcome *outcome)
{
    struct submission *submission = context;
    struct executor_local *local = submission->local;
    struct request *request = submission->request;
    list_remove(&submission->node);
    local->submission_count--;
    request->executor_data = NULL;
    local->events->on_finished(local->context, request, outcome);
    local_run_free(&submission->run);
    memory_free(&submission);
    if (!local->is_closing) {
        local->events->on_free_slots(local->context, &local->base);
    }
    defer_close(local);
}

static void on_progress(void *context, const struct progress *progress)
{
    struct submission *submission = context;
    struct executor_local *local = submission->local;
    local->events->on_progress(local->context, submission->request, NULL, progress);
}

static const struct local_run_events run_events = {on_started, on_ended, on_progress};
static const struct local_run_events silent_run_events = {on_started, on_ended, NULL};

static struct local_run *make_run(struct submission *submission)
{
    struct executor_local *local = submission->local;
    const struct message *message = &submission->request->message;
    const struct local_run_events *events =
        request_stores_result(submission->request) ? &run_events : &silent_run_events;
    char name[JOB_NAME_SIZE];
    struct buffer record CLEANUP(buffer_fini);
    job_name_format(message, 0, name);
    buffer_init(&record, MAX_RECORD_BYTES);
    message_record_append(&record, message);
    return local_run_new(&local->site, name, buffer_view(&record),
                         executor_hard_limit_s(submission->request), events, submission);
}

/* Templates */

static bool load_template(struct executor_local *local, struct task_type *type,
                          struct error *reterr)
{
    if (!type->job_template) {
        return error_set(reterr, ERROR_INVALID,
                         "tasks, \"%s\": the executor local needs a "
                         "job_template",
                         type->pattern);
    }
    struct job_template *template = job_template_load(type->job_template, type->overrides, reterr);
    if (!template) {
        return error_wrap(reterr, "tasks, \"%s\"", type->pattern);
    }
    size_t count = local->template_count + 1;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): the elements are pointers */
    local->templates = memory_resize(local->templates, count, sizeof(*local->templates));
    local->templates[local->template_count] = template;
    type->job_template_index = local->template_count;
    local->template_count = count;
    return true;
}

static bool load_templates(struct executor_local *local, struct error *reterr)
{
    struct task_type *type = NULL;
    for (size_t i = 0; (type = registry_row(local->registry, i)) != NULL; i++) {
        if (type->executor == TASK_LOCAL && !load_template(local, type, reterr)) {
            return false;
        }
    }
    return true;
}

/* Credentials */

static bool is_credential(const char *name)
{
    size_t prefix_length = strlen(OWN_PREFIX);
    bool is_own = strncmp(name, OWN_PREFIX, prefix_length) == 0;
    for (size_t i = 0; i < ARRAY_LENGTH(credential_names); i++) {
        if (strcmp(name + (is_own ? prefix_length : 0), credential_names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool check_passed_names(const char *const *names, struct error *reterr)
{
    for (const char *const *name = names; *name; name++) {
        if (is_credential(*name)) {
            return error_set(reterr, ERROR_INVALID,
                             "%s is the worker's own and is never passed to a task", *name);
        }
    }
    return true;
}

/* The interface */

static void on_ready(void *context)
{
    struct executor_local *local = context;
    local->events->on_ready(local->context, &local->base);
}

static void local_start(struct executor *executor)
{
    struct executor_local *local = local_of(executor);
    loop_defer(local->site.loop, &local->ready_call);
}

static size_t local_free_slots(const struct executor *executor)
{
    const struct executor_local *local = const_local_of(executor);
    return local->is_closing || local->submission_count >= local->max_processes
               ? 0
               : local->max_processes - local->submission_count;
}

static void local_submit(struct executor *executor, struct request *request)
{
    struct executor_local *local = local_of(executor);
    struct submission *submission = memory_new(sizeof(*submission));
    struct error error = {.kind = ERROR_NONE};
    submission->local = local;
    submission->request = request;
    submission->run = make_run(submission);
    request->executor_data = submission;
    list_append(&local->submissions, &submission->node);
    local->submission_count++;
    const struct job_template *template = local->templates[request->type->job_template_index];
    json_t *job = job_template_render(template, &request->message, &error);
    if (job) {
        kubernetes_job_tell_runner(job, request);
        local_run_begin(submission->run, job);
    } else {
        local_run_refuse(submission->run, "TemplateError", &error);
    }
}

static void local_cancel(struct executor *executor, struct request *request, int signal_number)
{
    struct submission *submission = request->executor_data;
    (void)executor;
    if (submission) {
        local_run_revoke(submission->run, signal_number);
    }
}

static bool local_terminate(struct executor *executor, struct bytes task_id)
{
    (void)executor;
    (void)task_id;
    return false;
}

static void local_note_settled(struct executor *executor, struct bytes receipt)
{
    (void)executor;
    (void)receipt;
}

static void local_forget(struct executor *executor, struct bytes receipt, bool is_awaited)
{
    (void)is_awaited;
    (void)executor;
    (void)receipt;
}

static size_t local_running_count(const struct executor *executor)
{
    return const_local_of(executor)->submission_count;
}

static void free_local(struct executor_local *local)
{
    loop_cancel(local->site.loop, &local->ready_call);
    loop_cancel(local->site.loop, &local->close_call);
    for (size_t i = 0; i < local->template_count; i++) {
        job_template_free(&local->templates[i]);
    }
    memory_free(&local->templates);
    memory_free(&local);
}

static void on_table_closed(void *context)
{
    struct executor_local *local = context;
    void (*on_closed)(void *) = local->on_closed;
    void *closed_context = local->closed_context;
    free_local(local);
    on_closed(closed_context);
}

static void on_close(void *context)
{
    struct executor_local *local = context;
    if (local->site.table) {
        local_process_table_close(&local->site.table, on_table_closed, local);
    }
}

static void local_close(struct executor *executor, bool kill, void (*on_closed)(void *context),
                        void *context)
{
    struct executor_local *local = local_of(executor);
    if (!local->is_closing) {
        local->is_closing = true;
        local->on_closed = on_closed;
        local->closed_context = context;
    }
    if (kill) {
        list_for_each(node, following, &local->submissions) {
            struct submission *submission = list_entry(node, struct submission, node);
            local_run_end(submission->run, LOCAL_END_KILLED, KILL_GRACE_S);
        }
    }
    defer_close(local);
}

static const struct executor_ops local_ops = {
    .name = "local",
    .is_durable = false,
    .start = local_start,
    .free_slots = local_free_slots,
    .submit = local_submit,
    .cancel = local_cancel,
    .terminate = local_terminate,
    .note_settled = local_note_settled,
    .forget = local_forget,
    .running_count = local_running_count,
    .close = local_close,
};

static struct executor_local *make_local(struct loop *loop,
                                         const struct executor_local_options *options)
{
    struct executor_local *local = memory_new(sizeof(*local));
    local->base.ops = &local_ops;
    local->site = (struct local_run_site){
        .loop = loop,
        .namespace_name = options->namespace_name,
        .log_folder = options->log_folder,
        .work_folder = options->work_folder,
        .claims_folder = options->claims_folder,
        .limit_grace_s = options->limit_grace_s,
        .environment = options->environment,
        .passed_names = options->passed_names ? options->passed_names : executor_local_passed_names,
    };
    local->registry = options->registry;
    local->max_processes =
        options->max_processes > 0 ? options->max_processes : executor_cpu_count();
    list_init(&local->submissions);
    local->ready_call = (struct loop_call){.function = on_ready, .context = local};
    local->close_call = (struct loop_call){.function = on_close, .context = local};
    return local;
}

struct executor *executor_local_new(struct loop *loop, const struct executor_local_options *options,
                                    const struct executor_events *events, void *context,
                                    struct error *reterr)
{
    struct executor_local *local = make_local(loop, options);
    local->events = events;
    local->context = context;
    if (check_passed_names(local->site.passed_names, reterr) && load_templates(local, reterr)) {
        local->site.table = local_process_table_new(loop, reterr);
    }
    if (!local->site.table) {
        free_local(local);
        return NULL;
    }
    return &local->base;
}
