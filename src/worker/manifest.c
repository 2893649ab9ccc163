#include "worker/manifest.h"

#include <errno.h>

#include "executor/local_process.h"
#include "worker/manifest_process.h"
#include "worker/options.h"
#include "worker/settings_manifest.h"

#define DEADLINE_MS    120000
#define EXIT_IMPORT    1 /* python-shim/src/petiole/manifest.py: after a traceback */
#define EXIT_NO_APP    2 /* the same, after a sentence */
#define MAX_ARGUMENTS  12
#define PIECE_BYTES    65536
#define DEFAULT_PYTHON "python3"

static const char *find_variable(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (size_t index = 0; environment && environment[index]; index++) {
        const char *pair = environment[index];
        if (strncmp(pair, name, length) == 0 && pair[length] == '=' && pair[length + 1] != '\0') {
            return pair + length + 1;
        }
    }
    return NULL;
}

const char *manifest_python(char *const *environment, struct arena *arena)
{
    const char *named = find_variable(environment, "PETIOLE_PYTHON");
    return local_process_find(named ? named : DEFAULT_PYTHON, find_variable(environment, "PATH"),
                              arena);
}

const char *manifest_obstacle(const struct options *options, const char *python)
{
    if (!options->app) {
        return "the Celery app is not named: give it as -A";
    }
    return python ? NULL : "there is no Python: set PETIOLE_PYTHON";
}

static bool read_file(struct manifest *manifest, const char *path, struct error *reterr)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        return error_set(reterr, ERROR_INVALID, "%s: cannot be opened: %s", path,
                         strerrordesc_np(errno));
    }
    char piece[PIECE_BYTES];
    size_t count = 0;
    bool ok = true;
    while (ok && (count = fread(piece, 1, sizeof(piece), file)) > 0) {
        ok = buffer_append(&manifest->text, bytes_of(piece, count))
             || error_set(reterr, ERROR_TOO_LARGE, "%s: larger than %zu bytes", path,
                          manifest->text.max_bytes);
    }
    if (ok && ferror(file)) {
        ok = error_set(reterr, ERROR_INVALID, "%s: cannot be read: %s", path,
                       strerrordesc_np(errno));
    }
    (void)fclose(file);
    if (ok) {
        manifest->origin = path;
    }
    return ok;
}

/* "app proj", or what there is instead of an app. */
static const char *subject(const struct manifest *manifest, const struct options *options)
{
    if (options->app) {
        return arena_format(manifest->arena, "app %.128s", options->app);
    }
    return options->config_module
               ? arena_format(manifest->arena, "config module %.128s", options->config_module)
               : arena_format(manifest->arena, "modules %.128s", options->include);
}

static void warn(struct manifest *manifest, const struct options *options, const char *reason)
{
    manifest->warning = arena_format(
        manifest->arena,
        "The settings and tasks of the %s are not read: %.300s. Write them into the settings file "
        "(--config), or make a manifest (python -m petiole.manifest) and name it with --manifest.",
        subject(manifest, options), reason);
}

/* The arguments of `python -m petiole.manifest`; arrays of them are not written to. */
static char *const *arguments_of(const struct manifest *manifest, const struct options *options,
                                 const char *python)
{
    const char **words = arena_alloc(manifest->arena, MAX_ARGUMENTS * sizeof(*words));
    const char *const pairs[][2] = {
        {"-m", "petiole.manifest"},
        {"--app", options->app},
        {"--include", options->include},
        {"--config", options->config_module},
    };
    size_t count = 0;
    words[count++] = python;
    for (size_t index = 0; index < ARRAY_LENGTH(pairs); index++) {
        if (pairs[index][1]) {
            words[count++] = pairs[index][0];
            words[count++] = pairs[index][1];
        }
    }
    words[count] = "--with-credentials";
    return (char *const *)(uintptr_t)words;
}

/* Whether Python has the package and the Celery that it needs. */
static bool has_package(const char *python, char *const *environment)
{
    const char *const words[] = {python, "-c", "import petiole.manifest", NULL};
    const struct manifest_process_options options = {
        .program = python,
        .arguments = (char *const *)(uintptr_t)words,
        .environment = environment,
        .deadline_ms = DEADLINE_MS,
        .is_silent = true,
    };
    struct buffer nothing;
    int exit_code = 0;
    buffer_init(&nothing, PIECE_BYTES);
    bool ok = manifest_process_run(&options, &nothing, &exit_code, NULL);
    buffer_fini(&nothing);
    return !ok || exit_code == 0;
}

/* Why Python ended with an error: the app, or that nobody is there who could read it. */
static bool fail_exit(struct manifest *manifest, const struct options *options, const char *python,
                      char *const *environment, int exit_code, struct error *reterr)
{
    if (exit_code != EXIT_NO_APP && !has_package(python, environment)) {
        warn(manifest, options,
             arena_format(manifest->arena,
                          "%.200s has no package petiole (pip install ./python-shim)", python));
        return true;
    }
    manifest->is_told = exit_code == EXIT_NO_APP || exit_code == EXIT_IMPORT;
    return error_set(reterr, exit_code == EXIT_NO_APP ? ERROR_NOT_FOUND : ERROR_INVALID,
                     "the %s cannot be loaded: %.200s -m petiole.manifest ended with exit code %d",
                     subject(manifest, options), python, exit_code);
}

static bool ask_python(struct manifest *manifest, const struct options *options,
                       char *const *environment, struct error *reterr)
{
    const char *python = manifest_python(environment, manifest->arena);
    if (!python) {
        const char *named = find_variable(environment, "PETIOLE_PYTHON");
        warn(manifest, options,
             named ? arena_format(manifest->arena, "there is no %.200s (PETIOLE_PYTHON)", named)
                   : "there is no python3 on PATH");
        return true;
    }
    const struct manifest_process_options process = {
        .program = python,
        .arguments = arguments_of(manifest, options, python),
        .environment = environment,
        .deadline_ms = DEADLINE_MS,
    };
    struct error inner = {0};
    int exit_code = 0;
    if (!manifest_process_run(&process, &manifest->text, &exit_code, &inner)) {
        if (inner.kind == ERROR_NOT_FOUND) {
            warn(manifest, options, inner.message);
            return true;
        }
        return error_set(reterr, inner.kind, "the %s cannot be loaded: %s",
                         subject(manifest, options), inner.message);
    }
    if (exit_code != 0) {
        return fail_exit(manifest, options, python, environment, exit_code, reterr);
    }
    manifest->origin = subject(manifest, options);
    return true;
}

bool manifest_load(struct manifest *manifest, const struct options *options,
                   char *const *environment, struct error *reterr)
{
    *manifest = (struct manifest){.arena = arena_new(1024)};
    buffer_init(&manifest->text, SETTINGS_MANIFEST_MAX_BYTES);
    if (options->manifest_path) {
        return read_file(manifest, options->manifest_path, reterr);
    }
    if (options->app || options->config_module || options->include) {
        return ask_python(manifest, options, environment, reterr);
    }
    return true;
}

void manifest_fini(struct manifest *manifest)
{
    buffer_fini(&manifest->text);
    arena_free(&manifest->arena);
    *manifest = (struct manifest){.arena = NULL};
}
