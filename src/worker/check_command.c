#include "worker/check_command.h"

#include <stdarg.h>

#include "executor/job_template.h"
#include "executor/plugin.h"
#include "worker/check_kubernetes.h"
#include "worker/check_redis.h"
#include "worker/manifest.h"
#include "worker/nodename.h"
#include "worker/settings_redis.h"

#define MAX_TEXT_BYTES 1024

struct checker {
    const struct options *options;
    char *const *environment;
    struct settings settings;
    struct arena *arena;
    struct loop *loop;
    int failure_count;
    bool has_noted_process; /* that tasks of the app are not run */
};

/* One line about one thing. */
static void report(struct checker *checker, bool ok, const char *what, const char *format, ...)
    PRINTF_FORMAT(4, 5);

static void report(struct checker *checker, bool ok, const char *what, const char *format, ...)
{
    char text[MAX_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    (void)printf("%-4s %-14s %s\n", ok ? "ok" : "FAIL", what, text);
    (void)fflush(stdout);
    checker->failure_count += ok ? 0 : 1;
}

static bool load_settings(struct checker *checker, const struct manifest *manifest,
                          struct error *reterr)
{
    const struct options *options = checker->options;
    const char *node_name = NULL;
    return nodename_make(options->node_name, nodename_hostname(checker->arena), checker->arena,
                         &node_name, reterr)
           && options_load_settings(options, checker->environment, node_name, manifest,
                                    &checker->settings, reterr);
}

static void print_notes(const struct checker *checker)
{
    const struct options *options = checker->options;
    const struct settings *settings = &checker->settings;
    for (size_t index = 0; index < options->warning_count; index++) {
        (void)printf("note %-14s %s\n", "options", options->warnings[index]);
    }
    for (size_t index = 0; index < settings->note_count; index++) {
        if (settings->notes[index].level >= LOG_WARNING) {
            (void)printf("note %-14s %s\n", "settings", settings->notes[index].text);
        }
    }
}

static bool check_settings(struct checker *checker)
{
    const struct settings *settings = &checker->settings;
    struct manifest manifest;
    struct error error = {0};
    if (!manifest_load(&manifest, checker->options, checker->environment, &error)) {
        report(checker, false, "app", "%s", error.message);
        manifest_fini(&manifest);
        return false;
    }
    bool ok = load_settings(checker, &manifest, &error);
    manifest_fini(&manifest);
    if (!ok) {
        report(checker, false, "settings", "%s", error.message);
        return false;
    }
    if (settings->manifest_origin) {
        report(checker, true, "app", "%s: %zu tasks", settings->manifest_origin,
               settings->manifest_task_count);
    }
    report(checker, true, "settings", "%s",
           settings->config_path ? settings->config_path : "no file is named");
    print_notes(checker);
    return true;
}

/* Tasks */

static void check_template(struct checker *checker, const struct task_type *type)
{
    struct error error = {0};
    struct job_template *job_template =
        job_template_load(type->job_template, type->overrides, &error);
    bool ok = job_template != NULL;
    report(checker, ok, "task", "%s: %s", type->pattern, ok ? type->job_template : error.message);
    job_template_free(&job_template);
}

static void check_native(struct checker *checker, const struct plugin_set *plugins,
                         const struct task_type *type)
{
    bool is_glob = strpbrk(type->pattern, "*?[") != NULL;
    bool ok = is_glob ? plugin_set_count(plugins) > 0
                      : plugin_set_find(plugins, bytes_from_text(type->pattern)) != NULL;
    report(checker, ok, "task", "%s: %s", type->pattern,
           ok ? "native" : "executor native, but no plugin has it");
}

/* The app's own tasks were counted already; without Python they are another worker's. */
static void check_process(struct checker *checker, const struct task_type *type)
{
    const char *python = manifest_python(checker->environment, checker->arena);
    const char *obstacle = manifest_obstacle(checker->options, python);
    if (type->is_exact) {
        if (obstacle && !checker->has_noted_process) {
            (void)printf(
                "note %-14s tasks of the app that no row of `tasks` names are not run here: "
                "%s\n",
                "task", obstacle);
            checker->has_noted_process = true;
        }
        return;
    }
    report(checker, !obstacle, "task", "%s: %s", type->pattern,
           obstacle ? obstacle : arena_format(checker->arena, "in a Python process (%s)", python));
}

static void check_tasks(struct checker *checker, const struct plugin_set *plugins)
{
    const struct task_type *type = NULL;
    for (size_t index = 0; (type = registry_row(checker->settings.registry, index)) != NULL;
         index++) {
        switch (type->executor) {
        case TASK_KUBERNETES:
        case TASK_LOCAL:
            check_template(checker, type);
            break;
        case TASK_NATIVE:
            check_native(checker, plugins, type);
            break;
        case TASK_PROCESS:
            check_process(checker, type);
            break;
        }
    }
    if (!registry_row(checker->settings.registry, 0) && plugin_set_count(plugins) == 0) {
        report(checker, false, "tasks", "the settings name none: every message would be refused");
    }
}

static void check_plugins_and_tasks(struct checker *checker)
{
    struct plugin_set *plugins = plugin_set_new();
    for (const char *const *path = checker->settings.plugins; *path; path++) {
        struct error error = {0};
        bool ok = plugin_set_load(plugins, *path, &error);
        report(checker, ok, "plugin", "%s", ok ? *path : error.message);
    }
    check_tasks(checker, plugins);
    plugin_set_free(&plugins);
}

/* Servers */

static void check_broker(struct checker *checker)
{
    struct broker_redis_options options;
    struct error error = {0};
    char text[MAX_TEXT_BYTES / 2] = "";
    if (!settings_redis_broker(&checker->settings, &options, &error)) {
        report(checker, false, "broker", "%s", error.message);
        return;
    }
    bool ok = check_redis_broker(checker->loop, &options, text, sizeof(text));
    report(checker, ok, "broker", "%s: %s", options.url.display, text);
    for (size_t index = 0; ok && index < options.queue_count; index++) {
        report(checker, true, "queue", "%s", options.queues[index]);
    }
}

static void check_backend(struct checker *checker)
{
    struct result_redis_options options;
    struct error error = {0};
    char text[MAX_TEXT_BYTES / 2] = "";
    if (!settings_redis_backend(&checker->settings, &options, &error)) {
        bool ok = error.kind == ERROR_NOT_FOUND;
        report(checker, ok, "results", "%s", ok ? "not stored: no result_backend" : error.message);
        return;
    }
    bool ok = check_redis_backend(checker->loop, &options, text, sizeof(text));
    report(checker, ok, "results", "%s: %s", options.url.display, text);
}

static void on_kubernetes(void *context, bool ok, const char *what, const char *text)
{
    report(context, ok, what, "%s", text);
}

static bool uses_kubernetes(const struct checker *checker)
{
    const struct task_type *type = NULL;
    for (size_t index = 0; (type = registry_row(checker->settings.registry, index)) != NULL;
         index++) {
        if (type->executor == TASK_KUBERNETES) {
            return true;
        }
    }
    return false;
}

int check_command_run(const struct options *options, char *const *environment)
{
    struct checker checker = {.options = options,
                              .environment = environment,
                              .arena = arena_new(4096),
                              .loop = loop_new(LOOP_CLOCK_REAL)};
    if (check_settings(&checker)) {
        if (uses_kubernetes(&checker)) {
            check_kubernetes_run(checker.loop, &checker.settings, environment, on_kubernetes,
                                 &checker);
        }
        check_plugins_and_tasks(&checker);
        check_broker(&checker);
        check_backend(&checker);
    }
    settings_fini(&checker.settings);
    loop_free(&checker.loop);
    arena_free(&checker.arena);
    return checker.failure_count == 0 ? 0 : 1;
}
