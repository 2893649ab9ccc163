/* The pool of Python processes, as the settings and the command line want it. */
#include <unistd.h>

#include "executor/executor_process.h"
#include "worker/manifest.h"
#include "worker/privileges.h"
#include "worker/settings_python.h"
#include "worker/worker_private.h"

#define MAX_ARGUMENTS       16
#define MAX_OVERRIDES_BYTES ((size_t)120 << 10) /* one argument of a program has 128 KiB at most */

/* Whether a row of `tasks` asks for the pool; else it is only there for what no row names. */
static bool is_asked_for(const struct worker *worker)
{
    const struct task_type *row = NULL;
    for (size_t index = 0; (row = registry_row(worker->settings->registry, index)) != NULL;
         index++) {
        if (row->executor == TASK_PROCESS && !row->is_exact) {
            return true;
        }
    }
    return false;
}

/* Celery takes its own variable for every app of a process (celery/app/utils.py: Settings), the other
 * one python -m petiole.pool for the worker's app alone: so Celery's is there only if it was before. */
static const char *variable_for(const char *celerys, const char *other)
{
    return getenv(celerys) ? celerys : other; // NOLINT(concurrency-mt-unsafe): never changed
}

/* The variables of the Python processes: ours, and the broker and backend that are used here, which
 * may come from elsewhere. */
static char *const *environment_of(const struct worker *worker)
{
    const struct settings *settings = worker->settings;

    const struct {
        const char *name;
        const char *value;
    } added[] = {
        {variable_for("CELERY_BROKER_URL", "PETIOLE_BROKER_URL"), settings->broker},
        {variable_for("CELERY_RESULT_BACKEND", "PETIOLE_RESULT_BACKEND"), settings->result_backend},
        {"CELERY_CONFIG_MODULE", worker->options->config_module},
    };

    size_t count = 0;
    while (environ[count]) {
        count++;
    }
    char **copy = arena_alloc(worker->arena, (count + ARRAY_LENGTH(added) + 1) * sizeof(*copy));
    size_t kept = 0;
    for (size_t index = 0; index < ARRAY_LENGTH(added); index++) {
        if (added[index].value) {
            copy[kept++] =
                arena_format(worker->arena, "%s=%s", added[index].name, added[index].value);
        }
    }
    /* Of two variables with one name the first one counts. */
    for (size_t index = 0; index < count; index++) {
        copy[kept++] = environ[index];
    }
    return copy;
}

static char *const *arguments_of(const struct worker *worker, const char *program,
                                 const char *overrides)
{
    const struct options *options = worker->options;
    const char *const words[] = {program,
                                 "-m",
                                 "petiole.pool",
                                 "-A",
                                 options->app,
                                 "-n",
                                 worker->node_name,
                                 "-l",
                                 log_level_name(options->log_level)};
    char **copy = arena_alloc(worker->arena, MAX_ARGUMENTS * sizeof(*copy));
    size_t count = 0;
    for (; count < ARRAY_LENGTH(words); count++) {
        copy[count] = arena_text(worker->arena, bytes_from_text(words[count]));
    }
    copy[count++] = arena_format(worker->arena, "--overrides=%s", overrides);
    if (options->include) {
        copy[count++] = arena_format(worker->arena, "--include=%s", options->include);
    }
    if (!worker->backend) {
        copy[count++] = arena_text(worker->arena, BYTES("--own-results"));
    }
    return copy;
}

/* What wins over the app's settings in the processes; NULL: too much. */
static const char *overrides_of(const struct worker *worker, struct error *reterr)
{
    struct buffer text;
    buffer_init(&text, MAX_OVERRIDES_BYTES);
    settings_python_append(&text, worker->settings);
    const char *overrides = text.overflowed ? NULL : arena_text(worker->arena, buffer_view(&text));
    buffer_fini(&text);
    if (!overrides) {
        (void)error_set(reterr, ERROR_TOO_LARGE,
                        "tasks: the options for Python processes take more than %zu bytes",
                        MAX_OVERRIDES_BYTES);
    }
    return overrides;
}

static size_t process_count(const struct settings *settings)
{
    return strcmp(settings->worker_pool, "solo") == 0 ? 1 : (size_t)settings->worker_concurrency;
}

static bool accepts_pickle(const struct settings *settings)
{
    bool accepts = false;
    for (size_t index = 0; settings->accept_content[index]; index++) {
        const char *name = settings->accept_content[index];
        accepts = accepts || strcmp(name, "pickle") == 0
                  || strcmp(name, "application/x-python-serialize") == 0;
    }
    return accepts;
}

static bool check_privileges(const struct worker *worker, struct error *reterr)
{
    const char *force = getenv("C_FORCE_ROOT"); // NOLINT(concurrency-mt-unsafe): never changed
    if (!accepts_pickle(worker->settings) || (force && force[0] != '\0')) {
        return true;
    }
    struct privileges privileges = privileges_of_process(worker->arena);
    return privileges_allow_pickle(&privileges, reterr);
}

bool worker_process_build(struct worker *worker, struct executor **ret_executor,
                          struct error *reterr)
{
    const struct settings *settings = worker->settings;
    const char *program = manifest_python(environ, worker->arena);
    const char *reason = manifest_obstacle(worker->options, program);
    *ret_executor = NULL;
    if (reason && is_asked_for(worker)) {
        return error_set(reterr, ERROR_INVALID, "tasks: executor process: %s", reason);
    }
    if (reason) {
        log_write(LOG_WARNING, "Tasks of %s that no row of `tasks` names are not run here: %s.",
                  settings->manifest_origin, reason);
        return true;
    }
    const char *overrides = overrides_of(worker, reterr);
    if (!overrides || !check_privileges(worker, reterr)) {
        return false;
    }
    struct executor_process_options options = {
        .program = program,
        .arguments = arguments_of(worker, program, overrides),
        .environment = environment_of(worker),
        .hostname = worker->node_name,
        .max_processes = process_count(settings),
        .idle_timeout_ms = (int64_t)(settings->process_idle_timeout * 1000),
        .max_tasks_per_child = (uint64_t)settings->worker_max_tasks_per_child,
        .max_memory_per_child_kib = (uint64_t)settings->worker_max_memory_per_child,
    };
    *ret_executor = executor_process_new(worker->loop, &options, &pipeline_executor_events,
                                         worker->pipeline, reterr);
    return *ret_executor != NULL;
}
