/* The parts of a worker, built from its settings: everything that can be wrong is found before
 * anything is connected. */
#include <unistd.h>

#include <petiole.h>

#include "executor/executor_kubernetes.h"
#include "executor/executor_local.h"
#include "executor/executor_native.h"
#include "executor/plugin.h"
#include "worker/nodename.h"
#include "worker/run_dir.h"
#include "worker/settings_redis.h"
#include "worker/settings_tasks.h"
#include "worker/worker_private.h"

#define MAX_BODY_BYTES      ((size_t)512 << 20) /* Redis' own limit of a value */
#define LOCAL_LIMIT_GRACE_S 30.0                /* as a pod's: src/executor/kubernetes_job.c */
#define MAX_REPORTS         ((size_t)4096) /* far more than are under way with a backend that answers */

/* Telemetry */

static void build_metrics(struct worker *worker)
{
    const struct settings *settings = worker->settings;
    struct metrics_options options = {
        .hostname = nodename_host(worker->node_name),
        .tenant = settings->tenant,
        .runtime_buckets = settings->runtime_buckets,
        .runtime_bucket_count = settings->runtime_bucket_count,
    };
    struct bytes version = BYTES(PETIOLE_VERSION);
    worker->metrics = metrics_new(&options);
    metrics_set(worker->metrics, METRICS_BUILD_INFO, &version, 1);
}

/* Says what to do about an address that is in use; a worker that did not ask for its port, such as
 * the second one of a machine, runs without. */
static bool do_without_address(const struct worker *worker, struct error *reterr)
{
    (void)error_wrap(reterr, "worker_http_address");
    if (reterr->kind != ERROR_CONFLICT) {
        return false;
    }
    struct error inner = *reterr;
    (void)error_set(reterr, ERROR_CONFLICT,
                    "%s. Set worker_http_address to another one, or to nothing.", inner.message);
    if (worker->settings->is_set[SETTING_ID_worker_http_address]) {
        return false;
    }
    log_write(LOG_WARNING, "%s", reterr->message);
    return true;
}

static bool open_servers(struct worker *worker, const char *run_folder, struct error *reterr)
{
    const char *address = worker->settings->worker_http_address;
    if (address && address[0] != '\0') {
        worker->servers[0] =
            status_server_open(worker->loop, address, &worker_status_events, worker, reterr);
        if (!worker->servers[0] && !do_without_address(worker, reterr)) {
            return false;
        }
    }
    if (run_folder) {
        const char *socket = run_dir_socket_address(run_folder, worker->node_name, worker->arena);
        struct error ignored;
        worker->servers[1] =
            status_server_open(worker->loop, socket, &worker_status_events, worker, &ignored);
    }
    return true;
}

/* Broker and backend */

static bool build_broker(struct worker *worker, struct error *reterr)
{
    struct broker_redis_options options;
    if (!settings_redis_broker(worker->settings, &options, reterr)) {
        return false;
    }
    options.instance_id = worker->instance_id;
    if (worker->settings->worker_enable_remote_control) {
        options.control_exchange = worker->settings->control_exchange;
    }
    worker->broker_url = options.url.display;
    worker->broker = broker_redis_new(worker->loop, &options, &worker_broker_events, worker);
    pipeline_set_broker(worker->pipeline, worker->broker);
    if (worker->remote_control) {
        remote_control_set_broker(worker->remote_control, worker->broker);
    }
    return true;
}

static bool build_backend(struct worker *worker, struct error *reterr)
{
    struct result_redis_options options;
    struct error error = {0};
    if (!settings_redis_backend(worker->settings, &options, &error)) {
        if (error.kind == ERROR_NOT_FOUND) {
            return true; /* results are disabled */
        }
        return error_set(reterr, error.kind, "%s", error.message);
    }
    worker->backend_url = options.url.display;
    worker->backend = result_redis_new(worker->loop, &options, &worker_result_events, worker);
    pipeline_set_backend(worker->pipeline, worker->backend);
    return true;
}

/* Celery's own variables; 0 without them (celery/worker/state.py). */
static double revoke_limit(const char *name)
{
    const char *text = getenv(name); // NOLINT(concurrency-mt-unsafe): never changed
    double value = text ? strtod(text, NULL) : 0;
    return value >= 1 && value <= 1e9 ? value : 0;
}

static void build_remote_control(struct worker *worker)
{
    double most = revoke_limit("CELERY_WORKER_REVOKES_MAX");
    double expires_s = revoke_limit("CELERY_WORKER_REVOKE_EXPIRES");
    struct remote_control_options options = {
        .loop = worker->loop,
        .pipeline = worker->pipeline,
        .node_name = worker->node_name,
        .namespace_name = worker->settings->tenant,
        .revoke_expires_s = expires_s > 0 ? expires_s : REVOKED_EXPIRES_S,
        .revokes_max = most > 0 ? (size_t)most : REVOKED_MAX,
        .on_loaded = worker_on_revoked_loaded,
        .context = worker,
    };
    if (worker->settings->worker_enable_remote_control) {
        worker->remote_control = remote_control_new(&options);
    }
}

static bool build_pipeline(struct worker *worker, struct error *reterr)
{
    const struct settings *settings = worker->settings;
    const char *zone = settings->timezone ? settings->timezone : "UTC";
    if (!timezone_load(zone, (int64_t)loop_wall_s(worker->loop), &worker->timezone, reterr)) {
        return error_wrap(reterr, "timezone");
    }
    struct pipeline_options options = {
        .loop = worker->loop,
        .registry = settings->registry,
        .metrics = worker->metrics,
        .rules = {settings->tenant, settings->tenant_path, settings->tenant_header, NULL},
        .revoked = worker->revoked,
        .message_rules = {settings->accept_content, MAX_BODY_BYTES},
        .document = {settings->result_extended, worker->node_name, &worker->timezone},
        .result_expires_s = (int64_t)settings->result_expires,
        .lookahead = (size_t)settings->worker_lookahead,
        .waiting_timeout_ms = (int64_t)(settings->kubernetes_quota_timeout * 1000),
        .max_scheduled = (size_t)settings->worker_eta_task_limit,
        .max_reports = MAX_REPORTS,
        .namespace_name = settings->tenant,
        .queues = settings->queues,
        .publish_queues = settings->kubernetes_publish_queues,
        .manifest_origin = settings->manifest_origin,
        .on_idle = worker_on_idle,
        .on_executor_ready = worker_on_executor_ready,
        .context = worker,
    };
    worker->pipeline = pipeline_new(&options);
    build_remote_control(worker);
    return true;
}

/* Executors */

/* How many rows of `tasks` want this executor. */
static bool is_used(const struct worker *worker, enum task_executor which)
{
    struct task_type *row = NULL;
    for (size_t index = 0; (row = registry_row(worker->settings->registry, index)) != NULL;
         index++) {
        if (row->executor == which) {
            return true;
        }
    }
    return false;
}

/* Loads the plugins. Their tasks need no row in `tasks`: what no row names gets Celery's defaults. */
static bool load_plugins(struct worker *worker, struct error *reterr)
{
    worker->plugins = plugin_set_new();
    for (const char *const *path = worker->settings->plugins; *path; path++) {
        if (!plugin_set_load(worker->plugins, *path, reterr)) {
            return false;
        }
    }
    size_t position = 0;
    const struct petiole_task *task = NULL;
    while ((task = plugin_set_next(worker->plugins, &position)) != NULL) {
        if (!registry_find(worker->settings->registry, bytes_from_text(task->name))) {
            struct task_type type = settings_tasks_defaults(worker->settings);
            type.pattern = task->name;
            type.executor = TASK_NATIVE;
            (void)registry_add(worker->settings->registry, &type);
        }
    }
    return true;
}

static struct executor *build_native(struct worker *worker, struct error *reterr)
{
    struct executor_native_options options = {
        .plugins = worker->plugins,
        .thread_count = (size_t)worker->settings->native_threads,
        .hostname = worker->node_name,
    };
    return executor_native_new(worker->loop, &options, &pipeline_executor_events, worker->pipeline,
                               reterr);
}

static struct executor *build_local(struct worker *worker, struct error *reterr)
{
    const struct settings *settings = worker->settings;
    if (!worker->run_folder) {
        (void)error_set(reterr, ERROR_INVALID,
                        "executor local needs a folder for its files: set run_dir");
        return NULL;
    }
    int64_t most = settings->local_max_processes > 0 ? settings->local_max_processes
                                                     : settings->worker_concurrency;
    struct executor_local_options options = {
        .registry = settings->registry,
        .namespace_name = settings->tenant,
        .max_processes = (size_t)most,
        .log_folder = settings->local_log_dir
                          ? settings->local_log_dir
                          : arena_format(worker->arena, "%s/logs", worker->run_folder),
        .work_folder = arena_format(worker->arena, "%s/work", worker->run_folder),
        .claims_folder = arena_format(worker->arena, "%s/claims", worker->run_folder),
        .limit_grace_s = LOCAL_LIMIT_GRACE_S,
        .environment = environ,
    };
    return executor_local_new(worker->loop, &options, &pipeline_executor_events, worker->pipeline,
                              reterr);
}

/* What of the quota's pods is left free: kubernetes_quota_reserve, less this worker's own pod when
 * the quota counts that already. */
static int64_t reserved_pods(const struct worker *worker)
{
    int64_t pods = 0;
    const struct yaml *setting = yaml_get(worker->settings->kubernetes_quota_reserve, "pods");
    if (setting && !yaml_integer(setting, &pods)) {
        pods = 0;
    }
    const struct kubeconfig *kubeconfig = worker->kubeconfig;
    bool is_inside = kubeconfig->token_file && getenv("KUBERNETES_SERVICE_HOST") // NOLINT
                     && kubeconfig->namespace_name
                     && strcmp(kubeconfig->namespace_name, worker->settings->tenant) == 0;
    return is_inside && pods > 0 ? pods - 1 : pods;
}

static struct executor *build_kubernetes(struct worker *worker, struct error *reterr)
{
    const struct settings *settings = worker->settings;
    struct executor_kubernetes_options options = {
        .kubeconfig = worker->kubeconfig,
        .namespace_name = settings->kubernetes_namespace,
        .instance_id = worker->instance_id,
        .tenant = settings->tenant,
        .registry = settings->registry,
        .max_jobs = (size_t)settings->kubernetes_max_jobs,
        .result_ttl_s = settings->kubernetes_result_ttl,
        .api_qps = settings->kubernetes_api_qps,
        .api_burst = settings->kubernetes_api_burst,
        .reserve_pods = reserved_pods(worker),
        .revoked = worker->revoked,
        .follow_logs = worker->backend ? (size_t)settings->kubernetes_follow_logs : 0,
        .fatal_reasons = settings->kubernetes_fatal_pending_reasons,
        .image_grace_s = settings->kubernetes_image_pull_grace,
        .unschedulable_s = settings->kubernetes_unschedulable_timeout,
        .sidecar_grace_s = settings->kubernetes_sidecar_grace,
    };
    return executor_kubernetes_new(worker->loop, &options, &pipeline_executor_events,
                                   worker->pipeline, reterr);
}

/* The cluster's credentials, which may also say whose worker this is: before anything that depends
 * on the tenant. */
static bool load_kubeconfig(struct worker *worker, struct error *reterr)
{
    if (!is_used(worker, TASK_KUBERNETES)) {
        return true;
    }
    struct kubeconfig_sources sources = {.environment = environ};
    worker->kubeconfig = kubeconfig_load(&sources, reterr);
    if (!worker->kubeconfig) {
        return false;
    }
    if (worker->kubeconfig->namespace_name) {
        settings_set_namespace(worker->settings, worker->kubeconfig->namespace_name);
    }
    if (!worker->settings->kubernetes_namespace) {
        return error_set(reterr, ERROR_INVALID,
                         "kubernetes_namespace is not set, and neither the pod nor %s names one",
                         worker->kubeconfig->origin);
    }
    return true;
}

/* True also when there is none and none is needed. */
static bool build_executor(struct worker *worker, struct worker_executor *slot,
                           struct error *reterr)
{
    struct executor *(*const builders[TASK_EXECUTOR_COUNT])(struct worker *, struct error *) = {
        [TASK_KUBERNETES] = build_kubernetes,
        [TASK_LOCAL] = build_local,
        [TASK_NATIVE] = build_native,
    };
    if (slot->which == TASK_PROCESS) {
        return worker_process_build(worker, &slot->executor, reterr);
    }
    slot->executor = builders[slot->which](worker, reterr);
    return slot->executor != NULL;
}

static bool build_executors(struct worker *worker, struct error *reterr)
{
    bool has_one = false;
    if (!load_plugins(worker, reterr)) {
        return false;
    }
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        struct worker_executor *slot = &worker->executors[index];
        slot->worker = worker;
        slot->which = (enum task_executor)index;
        if (!is_used(worker, slot->which)) {
            continue;
        }
        if (!build_executor(worker, slot, reterr)) {
            return false;
        }
        pipeline_set_executor(worker->pipeline, slot->which, slot->executor);
        has_one = has_one || slot->executor;
    }
    return has_one
           || error_set(reterr, ERROR_INVALID,
                        "No task can be run here, and every message would be discarded: name tasks "
                        "in `tasks`, or an app (-A) that Python can import");
}

bool worker_parts_build(struct worker *worker, struct error *reterr)
{
    struct error no_folder = {0};
    if (!run_dir_open(worker->settings, worker->arena, &worker->run_folder, &no_folder)) {
        worker->run_folder = NULL; /* only probes by socket and the local executor need one */
    }
    if (!load_kubeconfig(worker, reterr)) {
        return false;
    }
    build_metrics(worker);
    worker->revoked = revoked_new((size_t)revoke_limit("CELERY_WORKER_REVOKES_MAX"),
                                  revoke_limit("CELERY_WORKER_REVOKE_EXPIRES"));
    return build_pipeline(worker, reterr) && build_broker(worker, reterr)
           && build_backend(worker, reterr) && build_executors(worker, reterr)
           && open_servers(worker, worker->run_folder, reterr);
}

void worker_parts_start(struct worker *worker)
{
    if (worker->backend) {
        worker->backend->ops->start(worker->backend);
    }
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        struct executor *executor = worker->executors[index].executor;
        if (executor) {
            executor->ops->start(executor);
        }
    }
    worker->broker->ops->start(worker->broker);
}

void worker_parts_free(struct worker *worker)
{
    remote_control_free(&worker->remote_control);
    pipeline_free(&worker->pipeline);
    revoked_free(&worker->revoked);
    plugin_set_free(&worker->plugins);
    kubeconfig_free(&worker->kubeconfig);
    metrics_free(&worker->metrics);
}
