/*
 * What an operator can set, read from everywhere it can be set. Later ones win: defaults, the app's
 * own settings (its manifest), the settings file, the environment, the command line. Every row of settings_table.h is a member of
 * struct settings of the same name; the rows' kinds say how its text is read. Loading connects to
 * nothing and logs nothing: what there is to say is kept as notes, to be logged once the log is
 * open.
 *
 * No message made here contains a password: URLs are shown with ** in its place, and other secrets
 * not at all.
 */
#ifndef PETIOLE_WORKER_SETTINGS_H
#define PETIOLE_WORKER_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/yaml.h"
#include "dispatch/registry.h"

/* Kinds, each with the type of its member */

enum setting_kind {
    /* true/false, yes/no, on/off, 1/0 in any case, as YAML 1.1 and Celery's str_to_bool */
    SETTING_BOOL,
    SETTING_TRISTATE, /* the same, or None */
    SETTING_INT,      /* a whole number; None is -1 */
    SETTING_COUNT,    /* a whole number from 0; None and auto are 0 */
    SETTING_SECONDS,  /* a number from 0; None is 0 */
    SETTING_TEXT,     /* None is NULL */
    /* a sequence of texts, or texts between commas; ends with NULL, never NULL itself */
    SETTING_LIST,
    SETTING_URL,      /* as TEXT; shown without its password */
    SETTING_URLS,     /* as LIST, or URLs between semicolons */
    SETTING_TREE,     /* a mapping or sequence, kept as it is; NULL when it is not set or None */
    SETTING_ACCEPTED, /* Celery's, without effect here: anything goes; NULL when it is not set */
};

enum setting_tristate {
    SETTING_NONE,
    SETTING_FALSE,
    SETTING_TRUE
};

#define SETTING_TYPE_BOOL     bool
#define SETTING_TYPE_TRISTATE enum setting_tristate
#define SETTING_TYPE_INT      int64_t
#define SETTING_TYPE_COUNT    int64_t
#define SETTING_TYPE_SECONDS  double
#define SETTING_TYPE_TEXT     const char *
#define SETTING_TYPE_LIST     const char *const *
#define SETTING_TYPE_URL      const char *
#define SETTING_TYPE_URLS     const char *const *
#define SETTING_TYPE_TREE     const struct yaml *
#define SETTING_TYPE_ACCEPTED const struct yaml *

enum setting_id {
#define SETTING(name, kind, default_text, purpose) SETTING_ID_##name,
#include "worker/settings_table.h"
#undef SETTING
    SETTING_COUNT_OF_ALL
};

/* One row of the table. */
struct setting_row {
    const char *name;
    enum setting_kind kind;
    const char *default_text; /* as one would write it in the file; "None" for none */
    const char *purpose;      /* one line */
    size_t offset;            /* of the member in struct settings */
};

extern const struct setting_row settings_rows[SETTING_COUNT_OF_ALL];

/* Where a value comes from */

/* One value from the command line. Strings are borrowed for as long as the settings live. */
struct setting_override {
    const char *name;   /* of a row */
    const char *text;   /* read as a value in the file would be */
    const char *origin; /* for messages: "--concurrency" */
};

struct settings_sources {
    struct bytes manifest;                    /* the text of an app's manifest */
    const char *manifest_origin;              /* for messages: "app proj", a path; NULL: none */
    const char *config_path;                  /* a .yaml, .yml or .json file; NULL: none */
    char *const *environment;                 /* "NAME=value"; ends with NULL */
    const struct setting_override *overrides; /* the command line's, in order: the last one wins */
    size_t override_count;
    const char *queues;         /* -Q: names between commas; NULL: not given */
    const char *exclude_queues; /* -X */
    const char *node_name;      /* for worker_direct; NULL: none */
    const char *namespace_path; /* the pod's own namespace; NULL: where Kubernetes mounts it */
};

struct settings_note {
    enum log_level level;
    const char *text;
};

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): in the order of the table */
struct settings {
#define SETTING(name, kind, default_text, purpose) SETTING_TYPE_##kind name;
#include "worker/settings_table.h"
#undef SETTING

    /* Worked out of the above */

    /* the URL to read from: the first of broker_read_url or broker_url that we can speak; NULL */
    const char *broker;
    const char *const *queues; /* what to consume, without doubles; ends with NULL */
    size_t queue_count;
    const double *runtime_buckets; /* worker_runtime_buckets in seconds, ascending */
    size_t runtime_bucket_count;
    const char *tenant; /* whose worker this is: kubernetes_namespace, else tenant_default */
    /* owned: the tasks of the manifest and the rows of `tasks`, with the task_* settings as their
     * defaults */
    struct registry *registry;

    struct arena *arena;         /* owned: everything above lives in it */
    struct settings_note *notes; /* what to log, in order */
    size_t note_count;
    bool has_explicit_queues;                  /* -Q or task_queues named them */
    bool is_set[SETTING_COUNT_OF_ALL];         /* somebody set it: its value is not the default */
    const char *origins[SETTING_COUNT_OF_ALL]; /* who: a file, "option -c"; NULL: nobody */
    const struct yaml *nodes[SETTING_COUNT_OF_ALL]; /* where it stands there; NULL: nobody set it */
    const char *config_path;                        /* the settings file; NULL: none */
    const char *manifest_origin;                    /* whose manifest was read; NULL: none was */
    size_t manifest_task_count;                     /* how many tasks it has */
};

/* Reads every source into `settings`, which is zeroed or uninitialized memory. Fails with INVALID
 * before anything is connected; the message names where ("petiole.yaml:3", "environment variable
 * X", "option --y"), the setting, and what is allowed. Free with settings_fini, also after a
 * failure. */
bool settings_load(struct settings *settings, const struct settings_sources *sources,
                   struct error *reterr) MUST_CHECK;

/* Frees what it owns; the struct is zeroed. */
void settings_fini(struct settings *settings);

/* Tells which namespace the cluster's credentials name (kubeconfig), for when neither the settings
 * nor the pod did: it becomes kubernetes_namespace, the tenant, and, unless queues were named, the
 * queue. No effect when kubernetes_namespace is set. Copies. */
void settings_set_namespace(struct settings *settings, const char *namespace_name);

/* Logs the notes and forgets them. */
void settings_log_notes(struct settings *settings);

/* The row called `name`, or NULL. */
const struct setting_row *settings_find_row(struct bytes name);

/* Prints the table as Markdown: name, default, meaning. */
void settings_print_markdown(FILE *file);

#endif
