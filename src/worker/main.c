/* petiole: the command line in, an exit code out. */
#include <stdio.h>
#include <unistd.h>

#include "base/banned.h"
#include "worker/check_command.h"
#include "worker/daemon.h"
#include "worker/manifest.h"
#include "worker/nodename.h"
#include "worker/options.h"
#include "worker/probe_command.h"
#include "worker/settings.h"
#include "worker/worker.h"

#define EXIT_USAGE 2 /* click's, for a wrong command line or app */

/* Says why there is no worker, unless Python has said it; returns the exit code. */
static int fail_start(const struct manifest *manifest, const struct error *error)
{
    if (manifest->is_told) {
        return EXIT_USAGE;
    }
    if (manifest->warning) {
        (void)fprintf(stderr, "Warning: %s\n", manifest->warning);
    }
    (void)fprintf(stderr, "Error: %s\n", error->message);
    return 1;
}

/* Without a broker it was for the app to name one: that it is not read is what is wrong then. */
static bool check_app(struct manifest *manifest, const struct settings *settings,
                      struct error *reterr)
{
    const char *warning = manifest->warning;
    if (!warning || settings->broker) {
        return true;
    }
    manifest->warning = NULL;
    return error_set(reterr, ERROR_INVALID, "%s", warning);
}

/* `petiole worker`: app and settings first, so that a bad one is told before anything is
 * connected. */
static int run_worker(const struct options *options, char *const *environment)
{
    struct settings settings = {0};
    struct error error = {0};
    struct arena *arena = arena_new(512);
    struct manifest manifest = {.arena = NULL};
    const char *node_name = NULL;
    int exit_code = 1;
    bool ok =
        manifest_load(&manifest, options, environment, &error)
        && nodename_make(options->node_name, nodename_hostname(arena), arena, &node_name, &error)
        && options_load_settings(options, environment, node_name, &manifest, &settings, &error);
    ok = ok && check_app(&manifest, &settings, &error) && daemon_enter(options, &settings, &error);
    if (ok) {
        manifest_fini(&manifest);
        exit_code = worker_run(options, &settings, node_name);
    } else {
        exit_code = fail_start(&manifest, &error);
        manifest_fini(&manifest);
    }
    settings_fini(&settings);
    arena_free(&arena);
    return exit_code;
}

static int run_command(const struct options *options, char *const *environment)
{
    switch (options->command) {
    case OPTIONS_WORKER:
        return run_worker(options, environment);
    case OPTIONS_CHECK:
        return check_command_run(options, environment);
    case OPTIONS_PROBE:
        return probe_command_run(options, environment);
    case OPTIONS_VERSION:
        (void)printf("petiole %s\n", PETIOLE_VERSION);
        return 0;
    case OPTIONS_HELP_SETTINGS:
        settings_print_markdown(stdout);
        return 0;
    case OPTIONS_HELP:
    default:
        options_print_help(stdout, options);
        return 0;
    }
}

int main(int argument_count, char **arguments)
{
    struct options options = {0};
    struct error error = {0};
    int exit_code = EXIT_USAGE;
    if (!options_parse(&options, argument_count, arguments, environ, &error)) {
        (void)fprintf(stderr, "Error: %s\n", error.message);
    } else if (options.workdir && chdir(options.workdir) != 0) {
        (void)fprintf(stderr, "Error: cannot change to folder %s\n", options.workdir);
    } else {
        exit_code = run_command(&options, environ);
    }
    options_fini(&options);
    return exit_code;
}
