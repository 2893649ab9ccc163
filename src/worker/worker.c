#include "worker/worker.h"

#include <signal.h>
#include <unistd.h>

#include "worker/banner.h"
#include "worker/nodename.h"
#include "worker/pidfile.h"
#include "worker/purge.h"
#include "worker/settings_bindings.h"
#include "worker/settings_redis.h"
#include "worker/worker_private.h"

/* contracts, Shutdown: with Jobs alone the worker is gone within 2 s of the signal, whatever is
 * away. Results of tasks that ran here exist nowhere else, and get more time. */
#define DURABLE_DRAIN_MS 500
#define TRIM_EVERY_MS    10000
#define DRAIN_LOOK_MS    100
#define DURABLE_FLUSH_MS 500
#define DIRECT_FLUSH_MS  5000

/* Readiness */

static bool are_executors_ready(const struct worker *worker)
{
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        if (worker->executors[index].executor && !worker->executors[index].is_ready) {
            return false;
        }
    }
    return true;
}

/* "<node> ready.", which supervisors and tests wait for, once broker and executors are. */
static void become_ready(struct worker *worker)
{
    if (worker->phase != WORKER_STARTING || !worker->broker_is_up || !are_executors_ready(worker)
        || (worker->remote_control && !worker->knows_revoked)) {
        return;
    }
    worker->phase = WORKER_RUNNING;
    worker_outbox_start(worker);
    pipeline_accept(worker->pipeline);
    log_write(LOG_INFO, "%s ready.", worker->node_name);
}

void worker_on_executor_ready(void *context, struct executor *executor)
{
    struct worker *worker = context;
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        if (worker->executors[index].executor == executor) {
            worker->executors[index].is_ready = true;
        }
    }
    become_ready(worker);
}

void worker_on_revoked_loaded(void *context)
{
    struct worker *worker = context;
    worker->knows_revoked = true;
    become_ready(worker);
}

/* Broker and backend (celery/worker/consumer/connection.py, consumer.py) */

static void on_broker_up(void *context, const char *where)
{
    struct worker *worker = context;
    worker->broker_is_up = true;
    worker->broker_was_up = true;
    worker->broker_attempts = 0;
    log_write(LOG_INFO, "Connected to %s", where);
    if (worker->remote_control) {
        remote_control_load(worker->remote_control);
    }
    become_ready(worker);
}

/* Whether the settings let us try again. */
static bool may_retry(const struct worker *worker)
{
    const struct settings *settings = worker->settings;
    bool is_allowed = settings->broker_connection_retry;
    if (!worker->broker_was_up && settings->broker_connection_retry_on_startup != SETTING_NONE) {
        is_allowed = settings->broker_connection_retry_on_startup == SETTING_TRUE;
    }
    int64_t most = settings->broker_connection_max_retries;
    return is_allowed && (most <= 0 || worker->broker_attempts <= most);
}

static void on_broker_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct worker *worker = context;
    bool was_up = worker->broker_is_up;
    worker->broker_is_up = false;
    if (worker->phase >= WORKER_CLOSING) {
        return;
    }
    worker->broker_attempts++;
    if (was_up) {
        metrics_add(worker->metrics, METRICS_BROKER_RECONNECTS, NULL, 1);
        log_write(
            LOG_WARNING,
            "consumer: Connection to broker lost. Trying to re-establish the connection... (%s)",
            error->message);
        return;
    }
    if (error->kind == ERROR_UNSUPPORTED || !may_retry(worker)) {
        worker_fail(worker, error);
        return;
    }
    char most[32] = "inf";
    if (worker->settings->broker_connection_max_retries > 0) {
        (void)snprintf(most, sizeof(most), "%lld",
                       (long long)worker->settings->broker_connection_max_retries);
    }
    log_write(
        LOG_ERROR, "consumer: Cannot connect to %s: %s. Trying again in %.2f seconds... (%d/%s)",
        worker->broker_url, error->message, (double)retry_ms / 1000, worker->broker_attempts, most);
}

static void on_delivery(void *context, struct delivery *delivery)
{
    struct worker *worker = context;
    pipeline_receive(worker->pipeline, delivery);
}

static void on_control(void *context, const struct delivery *delivery)
{
    struct worker *worker = context;
    if (worker->remote_control) {
        remote_control_receive(worker->remote_control, delivery);
    }
}

static void on_notice(void *context, int level, const char *text)
{
    (void)context;
    log_write((enum log_level)level, "%s", text);
}

const struct broker_events worker_broker_events = {
    .on_delivery = on_delivery,
    .on_up = on_broker_up,
    .on_down = on_broker_down,
    .on_notice = on_notice,
    .on_control = on_control,
};

static void on_backend_up(void *context, const char *where)
{
    struct worker *worker = context;
    worker->backend_is_up = true;
    log_write(LOG_DEBUG, "Result backend: connected to %s", where);
}

static void on_backend_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct worker *worker = context;
    bool was_up = worker->backend_is_up;
    worker->backend_is_up = false;
    if (worker->phase >= WORKER_CLOSING) {
        return;
    }
    if (was_up) {
        metrics_add(worker->metrics, METRICS_BACKEND_RECONNECTS, NULL, 1);
    }
    log_write(LOG_ERROR,
              "Connection to the result backend %s lost: %s. Trying again in %.2f seconds...",
              worker->backend_url, error->message, (double)retry_ms / 1000);
}

const struct result_events worker_result_events = {
    .on_up = on_backend_up,
    .on_down = on_backend_down,
};

/* Shutdown */

static void on_part_closed(void *context)
{
    struct worker *worker = context;
    worker->open_parts--;
    if (worker->open_parts == 0) {
        worker->phase = WORKER_STOPPED;
        loop_stop(worker->loop);
    }
}

static void on_broker_closed(void *context)
{
    struct worker *worker = context;
    worker->broker = NULL;
    pipeline_set_broker(worker->pipeline, NULL);
    if (worker->remote_control) {
        remote_control_set_broker(worker->remote_control, NULL);
    }
    on_part_closed(worker);
}

static void on_backend_closed(void *context)
{
    struct worker *worker = context;
    worker->backend = NULL;
    pipeline_set_backend(worker->pipeline, NULL);
    if (worker->broker) {
        worker->broker->ops->close(worker->broker, worker->flush_ms, on_broker_closed, worker);
    } else {
        on_part_closed(worker);
    }
}

/* The second pass: nothing runs any more, so results are flushed, then acknowledgements. */
static void close_parts(struct worker *worker)
{
    worker->phase = WORKER_CLOSING;
    loop_stop_timer(worker->loop, &worker->drain_timer);
    worker_outbox_stop(worker);
    worker->open_parts = 1;
    for (size_t index = 0; index < ARRAY_LENGTH(worker->servers); index++) {
        if (worker->servers[index]) {
            worker->open_parts++;
            status_server_close(&worker->servers[index], on_part_closed, worker);
        }
    }
    if (worker->backend) {
        worker->backend->ops->close(worker->backend, worker->flush_ms, on_backend_closed, worker);
    } else {
        on_backend_closed(worker);
    }
}

static void on_executor_closed(void *context)
{
    struct worker_executor *slot = context;
    slot->executor = NULL;
    pipeline_set_executor(slot->worker->pipeline, slot->which, NULL);
    worker_on_idle(slot->worker);
}

static void close_executor(struct worker_executor *slot, bool kill)
{
    if (slot->executor) {
        slot->is_closing = true;
        slot->executor->ops->close(slot->executor, kill, on_executor_closed, slot);
    }
}

/* Closes those that are (not) durable. */
static void close_executors(struct worker *worker, bool durable, bool kill)
{
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        struct worker_executor *slot = &worker->executors[index];
        if (slot->executor && slot->executor->ops->is_durable == durable
            && (!slot->is_closing || kill)) {
            close_executor(slot, kill);
        }
    }
}

static bool has_executors(const struct worker *worker)
{
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        if (worker->executors[index].executor) {
            return true;
        }
    }
    return false;
}

/* What has not been reported by now need not be waited for: it is in unacked, or in a Job. */
static void on_drain_deadline(void *context)
{
    struct worker *worker = context;
    loop_start_timer(worker->loop, &worker->drain_timer, DRAIN_LOOK_MS);
    close_executors(worker, true, false);
    if (!has_executors(worker) && pipeline_count(worker->pipeline, REQUEST_RUNNING) == 0) {
        close_parts(worker);
    }
}

void worker_on_idle(void *context)
{
    struct worker *worker = context;
    if (worker->phase != WORKER_DRAINING && worker->phase != WORKER_RECALLING) {
        return;
    }
    if (!pipeline_is_idle(worker->pipeline)) {
        return;
    }
    close_executors(worker, true, false);
    if (!has_executors(worker)) {
        close_parts(worker);
    } /* else the closing of the last one comes back here */
}

static bool has_direct_executors(const struct worker *worker)
{
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        const struct executor *executor = worker->executors[index].executor;
        if (executor && !executor->ops->is_durable) {
            return true;
        }
    }
    return false;
}

static void start_drain_timer(struct worker *worker)
{
    worker->flush_ms = has_direct_executors(worker) ? DIRECT_FLUSH_MS : DURABLE_FLUSH_MS;
    worker->drain_timer.on_due = on_drain_deadline;
    worker->drain_timer.context = worker;
    loop_start_timer(worker->loop, &worker->drain_timer, DURABLE_DRAIN_MS);
}

static void drain(struct worker *worker)
{
    log_write(LOG_WARNING, "worker: Warm shutdown (MainProcess)");
    worker->phase = WORKER_DRAINING;
    pipeline_stop(worker->pipeline, false);
    start_drain_timer(worker);
    close_executors(worker, false, false);
}

static void recall(struct worker *worker)
{
    log_write(LOG_WARNING, "worker: Cold shutdown (MainProcess)");
    worker->phase = WORKER_RECALLING;
    pipeline_stop(worker->pipeline, true);
    if (!timer_is_armed(&worker->drain_timer)) {
        start_drain_timer(worker);
    }
    close_executors(worker, false, true);
    close_executors(worker, true, false);
}

void worker_fail(struct worker *worker, const struct error *error)
{
    log_write(LOG_CRITICAL, "Unrecoverable error: OperationalError('%s')", error->message);
    worker->exit_code = 1;
    if (worker->phase < WORKER_DRAINING) {
        recall(worker);
    }
}

/* reference 7.8: SIGTERM warm (0), SIGINT warm (1), a second one cold, SIGQUIT cold (0), a third
 * one at once (1). SIGHUP restarts Celery's worker (celery/apps/worker.py:
 * install_worker_restart_handler); ours could not take back its identity, folder and terminal. */
static void on_signal(void *context, int signal_number)
{
    struct worker *worker = context;
    if (signal_number == SIGHUP) {
        log_reopen();
        log_write(LOG_WARNING, "SIGHUP opens the log file again, and does not restart the worker: "
                               "send SIGTERM, and start it anew.");
        return;
    }
    const char *remapped = getenv("REMAP_SIGTERM"); // NOLINT(concurrency-mt-unsafe): never changed
    bool is_cold = signal_number == SIGQUIT
                   || (signal_number == SIGTERM && remapped && strcmp(remapped, "SIGQUIT") == 0);
    if (signal_number == SIGINT) {
        worker->exit_code = 1;
    }
    if (worker->phase == WORKER_RECALLING || worker->phase == WORKER_CLOSING) {
        _exit(1); /* somebody is in a hurry; what was taken is in unacked or in Jobs */
    } else if (worker->phase == WORKER_DRAINING || is_cold) {
        (void)fputs("worker: Hitting Ctrl+C again will terminate all running tasks!\n", stderr);
        recall(worker);
    } else {
        if (signal_number == SIGINT) {
            (void)fputs(
                "\nworker: Hitting Ctrl+C again will initiate cold shutdown, terminating all "
                "running tasks!\n",
                stderr);
        }
        drain(worker);
    }
}

static bool watch_signals(struct worker *worker, struct error *reterr)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
    (void)signal(SIGPIPE, SIG_IGN);
    for (size_t index = 0; index < ARRAY_LENGTH(signals); index++) {
        if (!loop_on_signal(worker->loop, signals[index], on_signal, worker, reterr)) {
            return false;
        }
    }
    return true;
}

/* Start */

/* The tasks of the banner; Celery's own of an app only for who debugs (celery/apps/worker.py:
 * Worker.tasklist). */
static void list_tasks(const struct worker *worker, const char **tasks, size_t size)
{
    size_t count = 0;
    const struct task_type *row = NULL;
    for (size_t index = 0;
         count + 1 < size && (row = registry_row(worker->settings->registry, index)) != NULL;
         index++) {
        bool is_builtin = row->is_exact && strncmp(row->pattern, "celery.", 7) == 0;
        if (!is_builtin || log_enabled(LOG_DEBUG)) {
            tasks[count++] = row->pattern;
        }
    }
    tasks[count] = NULL;
}

static const struct settings_bindings_queue *declared_queues(const struct worker *worker)
{
    const struct settings *settings = worker->settings;
    struct settings_bindings_queue *queues =
        arena_alloc(worker->arena, (settings->queue_count + 1) * sizeof(*queues));
    for (size_t index = 0; index < settings->queue_count; index++) {
        queues[index] = settings_bindings_of(settings, settings->queues[index]);
    }
    return queues;
}

static void print_banner(const struct worker *worker)
{
    const char *tasks[256];
    list_tasks(worker, tasks, ARRAY_LENGTH(tasks));
    struct buffer pool;
    buffer_init(&pool, 256);
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        if (worker->executors[index].executor) {
            (void)buffer_format(&pool, "%s%s", pool.length > 0 ? ", " : "",
                                worker->executors[index].executor->ops->name);
        }
    }
    (void)buffer_append_byte(&pool, '\0');
    struct banner banner = {
        .node_name = worker->node_name,
        .version = "petiole " PETIOLE_VERSION,
        .app = worker->options->app,
        .transport = worker->broker_url,
        .results = worker->backend_url,
        .concurrency =
            (size_t)(worker->settings->worker_concurrency > 0 ? worker->settings->worker_concurrency
                                                              : sysconf(_SC_NPROCESSORS_ONLN)),
        .pool = pool.data,
        .sends_task_events = worker->settings->worker_send_task_events,
        .queues = declared_queues(worker),
        .queue_count = worker->settings->queue_count,
        .tasks = log_enabled(LOG_INFO) ? tasks : NULL,
        .is_colored = isatty(STDOUT_FILENO) && !worker->options->has_no_color,
    };
    banner_print(stdout, &banner, loop_wall_s(worker->loop));
    buffer_fini(&pool);
}

/* A worker that rests holds no more memory than it needs to rest. */
static void on_trim(void *context)
{
    struct worker *worker = context;
    worker->trim_timer = (struct timer){.on_due = on_trim, .context = worker};
    loop_start_timer(worker->loop, &worker->trim_timer, TRIM_EVERY_MS);
    if (!pipeline_is_idle(worker->pipeline)) {
        return;
    }
    memory_trim();
    if (worker->phase == WORKER_RUNNING && !worker->has_forgotten_start) {
        worker->has_forgotten_start = true;
        memory_forget_start();
    }
}

static void make_instance_id(struct worker *worker)
{
    (void)snprintf(worker->instance_id, sizeof(worker->instance_id), "%016llx",
                   (unsigned long long)loop_random(worker->loop));
}

static bool open_log(const struct worker *worker, struct error *reterr)
{
    const struct settings *settings = worker->settings;
    const char *path = NULL;
    if (settings->worker_logfile
        && !nodename_expand(settings->worker_logfile, worker->node_name, worker->arena, &path,
                            reterr)) {
        return false;
    }
    bool is_colored = settings->worker_log_color == SETTING_NONE
                          ? !path && isatty(STDERR_FILENO) && !worker->options->has_no_color
                          : settings->worker_log_color == SETTING_TRUE;
    return log_open(path, worker->options->log_level,
                    settings->worker_log_json ? LOG_FORM_JSON : LOG_FORM_TEXT, is_colored, reterr);
}

/* --purge, in Celery's words (celery/apps/worker.py: Worker.purge_messages). */
static bool purge(struct worker *worker, struct error *reterr)
{
    struct broker_redis_options options;
    int64_t count = 0;
    if (!worker->options->is_purging) {
        return true;
    }
    if (!settings_redis_broker(worker->settings, &options, reterr)
        || !purge_run(worker->loop, &options, &count, reterr)) {
        return false;
    }
    if (count > 0) {
        (void)printf("purge: Erased %lld %s from the queue.\n\n", (long long)count,
                     count == 1 ? "message" : "messages");
    }
    return true;
}

/* Everything before the first connection but that of --purge. */
static bool prepare(struct worker *worker, struct error *reterr)
{
    make_instance_id(worker);
    if (!open_log(worker, reterr) || !purge(worker, reterr) || !worker_parts_build(worker, reterr)
        || !watch_signals(worker, reterr)) {
        return false;
    }
    if (!worker->options->is_quiet) {
        print_banner(worker);
    }
    options_log_notes(worker->options);
    settings_log_notes(worker->settings);
    return true;
}

/* NULL when none is wanted. */
static bool take_pidfile(const struct worker *worker, const char **ret_path, struct error *reterr)
{
    const char *setting = worker->settings->worker_pidfile;
    const char *path = NULL;
    if (setting
        && (!nodename_expand(setting, worker->node_name, worker->arena, &path, reterr)
            || !pidfile_create(path, stderr, reterr))) {
        return false;
    }
    *ret_path = path;
    return true;
}

/* Closes what was built before something was found to be wrong; nothing is connected yet. */
static void close_unstarted(struct worker *worker)
{
    if (!worker->pipeline) {
        return;
    }
    worker->phase = WORKER_RECALLING;
    pipeline_stop(worker->pipeline, true);
    close_executors(worker, false, true);
    close_executors(worker, true, false);
    loop_run(worker->loop);
}

static int run(struct worker *worker)
{
    struct error error = {0};
    const char *pidfile = NULL;
    int exit_code = 1;
    if (!take_pidfile(worker, &pidfile, &error)) {
        (void)fprintf(stderr, "%s\n", error.message);
        return error.kind == ERROR_CONFLICT ? PIDFILE_EXIT_CODE : 1;
    }
    if (prepare(worker, &error)) {
        worker_parts_start(worker);
        on_trim(worker);
        loop_run(worker->loop);
        exit_code = worker->exit_code;
    } else {
        settings_log_notes(worker->settings); /* one of them may be the reason */
        (void)fprintf(stderr, "petiole: %s\n", error.message);
        close_unstarted(worker);
    }
    if (pidfile) {
        pidfile_remove(pidfile);
    }
    return exit_code;
}

int worker_run(const struct options *options, struct settings *settings, const char *node_name)
{
    struct worker worker = {
        .options = options,
        .settings = settings,
        .node_name = node_name,
        .arena = arena_new(4096),
        .loop = loop_new(LOOP_CLOCK_REAL),
    };
    int exit_code = run(&worker);
    worker_parts_free(&worker);
    loop_free(&worker.loop);
    arena_free(&worker.arena);
    return exit_code;
}
