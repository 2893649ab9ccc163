/*
 * The command line: Celery's own options and their short forms, in click's spellings (-lINFO, -l
 * INFO, --loglevel=info), with the environment variables that click gives each of them
 * (celery/bin/celery.py, celery/bin/worker.py). What is a setting becomes an override for
 * settings.h; the rest is a member here. Knows no terminal: main prints.
 */
#ifndef PETIOLE_WORKER_OPTIONS_H
#define PETIOLE_WORKER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "worker/settings.h"

struct manifest;

enum options_command {
    OPTIONS_HELP,    /* options_print_help, exit 0 */
    OPTIONS_VERSION, /* print PETIOLE_VERSION, exit 0 */
    OPTIONS_WORKER,
    OPTIONS_CHECK,
    OPTIONS_PROBE,
    OPTIONS_HELP_SETTINGS, /* settings_print_markdown, exit 0 */
};

/* All strings live as long as the options, the arguments and the environment that they were read
 * from. */
struct options {
    enum options_command command;
    enum options_command help_topic; /* HELP: of which command; HELP itself: the program */

    /* Global */
    const char *app;           /* -A; NULL: none */
    const char *manifest_path; /* --manifest, PETIOLE_MANIFEST: the app's; NULL: ask Python */
    const char *config_path;   /* --config, PETIOLE_CONFIG: a settings file of ours; NULL: none */
    const char *config_module; /* --config: anything else, a Celery config module; NULL: none */
    /* --workdir; options_load_settings does not change to it: main does, first */
    const char *workdir;
    bool is_quiet;     /* -q: no banner */
    bool has_no_color; /* -C, NO_COLOR */

    /* worker */
    const char *include;        /* -I: more modules that Python imports, between commas */
    const char *node_name;      /* -n as given, for nodename_make; NULL: the default */
    const char *queues;         /* -Q */
    const char *exclude_queues; /* -X */
    enum log_level log_level;   /* -l; WARNING, as Celery */
    bool has_log_level;         /* -l was given */
    bool is_purging;            /* --purge */
    bool is_detached;           /* --detach */

    /* probe */
    const char *probe;   /* "live" or "ready" */
    const char *address; /* --address; NULL: find it */

    struct setting_override *overrides; /* in order */
    size_t override_count;
    const char **warnings; /* one line each, to be logged at WARNING by the worker */
    size_t warning_count;
    const char **debugs; /* the same at DEBUG: variables that were not understood */
    size_t debug_count;
    struct arena *arena; /* owned */
};

/* Reads the arguments (`arguments[0]` is the program) and the environment ("NAME=value", ends with
 * NULL) into `options`. Borrows both. Fails with INVALID and one sentence in click's words ("No
 * such option '--foo'."); the exit code is then 2. Free with options_fini, also after a failure. */
bool options_parse(struct options *options, int argument_count, char *const *arguments,
                   char *const *environment, struct error *reterr) MUST_CHECK;

/* Frees what it owns; the struct is zeroed. */
void options_fini(struct options *options);

/* Prints the help that `options` ask for. */
void options_print_help(FILE *file, const struct options *options);

/* settings_load with everything that the command line has to say; `node_name` (may be NULL) is the
 * expanded one. `manifest` (NULL: none) is needed only during the call; its warning becomes one of
 * the notes. */
bool options_load_settings(const struct options *options, char *const *environment,
                           const char *node_name, const struct manifest *manifest,
                           struct settings *settings, struct error *reterr) MUST_CHECK;

/* Logs warnings and debug lines. */
void options_log_notes(const struct options *options);

#endif
