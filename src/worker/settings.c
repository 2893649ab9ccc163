#include "worker/settings.h"

#include <ctype.h>

#include "worker/settings_bindings.h"
#include "worker/settings_check.h"
#include "worker/settings_manifest.h"
#include "worker/settings_names.h"
#include "worker/settings_queues.h"
#include "worker/settings_tasks.h"
#include "worker/settings_value.h"

#define MAX_FILE_BYTES 1048576
#define NAMESPACE_PATH "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

const struct setting_row settings_rows[SETTING_COUNT_OF_ALL] = {
#define SETTING(name, kind, default_text, purpose)                                                 \
    {#name, SETTING_##kind, default_text, purpose, offsetof(struct settings, name)},
#include "worker/settings_table.h"
#undef SETTING
};

/* The variables with which Celery overrules its configuration (celery/app/utils.py: Settings). */
static const struct {
    const char *variable;
    enum setting_id id;
} celery_variables[] = {
    {"CELERY_BROKER_URL", SETTING_ID_broker_url},
    {"CELERY_BROKER_READ_URL", SETTING_ID_broker_read_url},
    {"CELERY_BROKER_WRITE_URL", SETTING_ID_broker_write_url},
    {"CELERY_RESULT_BACKEND", SETTING_ID_result_backend},
};

/* Variables of Petiole that are no settings, without PETIOLE_. */
static const char *const other_variables[] = {
    "CONFIG", "MANIFEST", "PYTHON", "TASK_FILE", "RESULT_FILE",
};

const struct setting_row *settings_find_row(struct bytes name)
{
    for (size_t id = 0; id < SETTING_COUNT_OF_ALL; id++) {
        if (bytes_equal_text(name, settings_rows[id].name)) {
            return &settings_rows[id];
        }
    }
    return NULL;
}

static bool read_defaults(struct settings *settings, struct error *reterr)
{
    for (size_t id = 0; id < SETTING_COUNT_OF_ALL; id++) {
        const struct setting_row *row = &settings_rows[id];
        const char *text = row->kind == SETTING_ACCEPTED ? "null" : row->default_text;
        if (!settings_value_read_text(settings, row, text, NULL, reterr)) {
            return false;
        }
    }
    return true;
}

static bool fail_unknown_key(const struct settings *settings, const struct yaml *key,
                             struct error *reterr)
{
    const char *modern = settings_names_modern(key->text);
    if (modern) {
        return error_set(reterr, ERROR_INVALID,
                         "%s:%d: %.64s is the old name of a setting: write %s",
                         settings->config_path, key->line, key->text.data, modern);
    }
    struct buffer guesses;
    buffer_init(&guesses, 512);
    (void)buffer_append_text(&guesses, "");
    settings_names_append_nearest(&guesses, "", key->text, &settings_rows[0].name,
                                  SETTING_COUNT_OF_ALL, sizeof(settings_rows[0]));
    (void)error_set(reterr, ERROR_INVALID, "%s:%d: there is no setting \"%.64s\"%.*s",
                    settings->config_path, key->line, key->text.data,
                    BYTES_FORMAT(buffer_view(&guesses)));
    buffer_fini(&guesses);
    return false;
}

static bool read_entry(struct settings *settings, struct yaml_entry entry, struct error *reterr)
{
    const struct setting_row *row = settings_find_row(entry.key->text);
    if (!row) {
        return fail_unknown_key(settings, entry.key, reterr);
    }
    return settings_value_read(settings, row, entry.value, settings->config_path, reterr);
}

static bool read_file(struct settings *settings, const char *path, struct error *reterr)
{
    if (!path) {
        return true;
    }
    settings->config_path = arena_text(settings->arena, bytes_from_text(path));
    const struct yaml *root =
        yaml_read(settings->config_path, MAX_FILE_BYTES, settings->arena, reterr);
    if (!root) {
        if (reterr) {
            reterr->kind = ERROR_INVALID;
        }
        return false;
    }
    if (root->type != YAML_MAPPING) {
        return error_set(reterr, ERROR_INVALID,
                         "%s:%d: a mapping from settings to values is allowed, not %s",
                         settings->config_path, root->line, yaml_type_name(root));
    }
    for (size_t index = 0; index < root->count; index++) {
        if (!read_entry(settings, root->entries[index], reterr)) {
            return false;
        }
    }
    return true;
}

static const struct setting_row *row_of_celery_variable(struct bytes variable)
{
    for (size_t index = 0; index < ARRAY_LENGTH(celery_variables); index++) {
        if (bytes_equal_text(variable, celery_variables[index].variable)) {
            return &settings_rows[celery_variables[index].id];
        }
    }
    return NULL;
}

/* The row that the variable PETIOLE_<name> sets, the name in capitals; NULL when there is none. */
static const struct setting_row *row_of_own_variable(struct bytes name)
{
    char lower[80];
    if (name.length == 0 || name.length > sizeof(lower)) {
        return NULL;
    }
    for (size_t index = 0; index < name.length; index++) {
        if (islower((unsigned char)name.data[index])) {
            return NULL;
        }
        lower[index] = (char)tolower((unsigned char)name.data[index]);
    }
    return settings_find_row(bytes_of(lower, name.length));
}

static bool is_other_variable(struct bytes name)
{
    for (size_t index = 0; index < ARRAY_LENGTH(other_variables); index++) {
        if (bytes_equal_text(name, other_variables[index])) {
            return true;
        }
    }
    return false;
}

static const char *upper_case(struct arena *arena, struct bytes name)
{
    char *copy = arena_text(arena, name);
    for (char *letter = copy; *letter; letter++) {
        *letter = (char)toupper((unsigned char)*letter);
    }
    return copy;
}

/* Appends which variables PETIOLE_<name> may have meant. */
static void append_nearest_variables(struct buffer *buffer, struct bytes name)
{
    const char *names[SETTING_COUNT_OF_ALL + ARRAY_LENGTH(other_variables)];
    struct arena *arena = arena_new(8192);
    for (size_t id = 0; id < SETTING_COUNT_OF_ALL; id++) {
        names[id] = upper_case(arena, bytes_from_text(settings_rows[id].name));
    }
    for (size_t index = 0; index < ARRAY_LENGTH(other_variables); index++) {
        names[SETTING_COUNT_OF_ALL + index] = other_variables[index];
    }
    settings_names_append_nearest(buffer, "PETIOLE_", bytes_from_text(upper_case(arena, name)),
                                  names, ARRAY_LENGTH(names), sizeof(names[0]));
    arena_free(&arena);
}

/* What Kubernetes puts into each pod's environment for a Service (petiole-worker:
 * PETIOLE_WORKER_SERVICE_HOST, PETIOLE_WORKER_PORT=tcp://10.0.0.1:9808). */
static bool is_service_link(struct bytes name, const char *text)
{
    static const char service[] = "SERVICE_";
    return memmem(name.data, name.length, service, sizeof(service) - 1)
           || strncmp(text, "tcp://", 6) == 0 || strncmp(text, "udp://", 6) == 0
           || strncmp(text, "sctp://", 7) == 0;
}

/* A variable that looks like one of ours is mistyped; any other one may be anybody's. */
static void note_unknown_variable(struct settings *settings, struct bytes name, const char *text)
{
    struct buffer guesses;
    buffer_init(&guesses, 512);
    if (name.length > 0 && !is_service_link(name, text)) {
        append_nearest_variables(&guesses, name);
    }
    settings_value_note(settings, guesses.length > 0 ? LOG_WARNING : LOG_DEBUG,
                        "Environment variable PETIOLE_%.*s is not understood and was ignored%.*s%s",
                        BYTES_FORMAT(name), BYTES_FORMAT(buffer_view(&guesses)),
                        guesses.length > 0 ? "" : ".");
    buffer_fini(&guesses);
}

/* An empty variable is one that is not set, as in Celery, unless an empty text is a value. */
static bool says_something(const struct setting_row *row, const char *text)
{
    return text[0] != '\0' || row->kind == SETTING_TEXT || row->kind == SETTING_LIST;
}

static bool read_variable(struct settings *settings, const struct setting_row *row,
                          struct bytes variable, const char *text, struct error *reterr)
{
    if (!says_something(row, text)) {
        return true;
    }
    const char *origin =
        arena_format(settings->arena, "environment variable %.*s", BYTES_FORMAT(variable));
    return settings_value_read_text(settings, row, text, origin, reterr);
}

/* One pass over the environment: Celery's own variables first, so that PETIOLE_BROKER_URL wins over
 * CELERY_BROKER_URL. */
static bool read_variables(struct settings *settings, char *const *environment, bool is_own,
                           struct error *reterr)
{
    for (size_t index = 0; environment && environment[index]; index++) {
        struct bytes pair = bytes_from_text(environment[index]);
        struct bytes variable = bytes_of(pair.data, bytes_find(pair, '='));
        if (variable.length == pair.length
            || is_own != bytes_starts_with(variable, BYTES("PETIOLE_"))) {
            continue;
        }
        const char *text = pair.data + variable.length + 1;
        struct bytes name = bytes_skip(variable, sizeof("PETIOLE_") - 1);
        const struct setting_row *row =
            is_own ? row_of_own_variable(name) : row_of_celery_variable(variable);
        if (row && !read_variable(settings, row, variable, text, reterr)) {
            return false;
        }
        if (!row && is_own && !is_other_variable(name)) {
            note_unknown_variable(settings, name, text);
        }
    }
    return true;
}

static bool read_overrides(struct settings *settings, const struct settings_sources *sources,
                           struct error *reterr)
{
    for (size_t index = 0; index < sources->override_count; index++) {
        const struct setting_override *override = &sources->overrides[index];
        const struct setting_row *row = settings_find_row(bytes_from_text(override->name));
        if (!row) {
            return error_set(reterr, ERROR_INVALID, "%s: there is no setting \"%.64s\"",
                             override->origin, override->name);
        }
        if (!settings_value_read_text(settings, row, override->text, override->origin, reterr)) {
            return false;
        }
    }
    return true;
}

/* The namespace of the pod that we are in, when nobody said another one. */
static void read_pod_namespace(struct settings *settings, const char *path)
{
    FILE *file = settings->kubernetes_namespace ? NULL : fopen(path ? path : NAMESPACE_PATH, "re");
    if (!file) {
        return;
    }
    char text[64] = "";
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    (void)fclose(file);
    length = length > 0 ? strcspn(text, "\r\n") : 0;
    if (length > 0) {
        settings->kubernetes_namespace = arena_text(settings->arena, bytes_of(text, length));
    }
}

bool settings_load(struct settings *settings, const struct settings_sources *sources,
                   struct error *reterr)
{
    *settings = (struct settings){.arena = arena_new(65536), .registry = registry_new()};
    struct settings_manifest manifest;
    if (!read_defaults(settings, reterr)
        || !settings_manifest_read(settings, sources, &manifest, reterr)
        || !read_file(settings, sources->config_path, reterr)
        || !read_variables(settings, sources->environment, false, reterr)
        || !read_variables(settings, sources->environment, true, reterr)
        || !read_overrides(settings, sources, reterr)) {
        return false;
    }
    read_pod_namespace(settings, sources->namespace_path);
    if (!settings_check_all(settings, reterr) || !settings_tasks_read(settings, &manifest, reterr)
        || !settings_queues_choose(settings, sources, reterr)) {
        return false;
    }
    settings_bindings_note(settings);
    settings_manifest_note_queue(settings, &manifest);
    settings_check_tasks(settings);
    return true;
}

void settings_fini(struct settings *settings)
{
    registry_free(&settings->registry);
    arena_free(&settings->arena);
    *settings = (struct settings){.arena = NULL};
}

void settings_set_namespace(struct settings *settings, const char *namespace_name)
{
    if (settings->kubernetes_namespace || !namespace_name || !namespace_name[0]) {
        return;
    }
    settings->kubernetes_namespace = arena_text(settings->arena, bytes_from_text(namespace_name));
    settings_queues_rename(settings);
}

void settings_log_notes(struct settings *settings)
{
    for (size_t index = 0; index < settings->note_count; index++) {
        log_write(settings->notes[index].level, "%s", settings->notes[index].text);
    }
    settings->note_count = 0;
}

static void print_rows(FILE *file, bool is_accepted)
{
    for (size_t id = 0; id < SETTING_COUNT_OF_ALL; id++) {
        const struct setting_row *row = &settings_rows[id];
        if ((row->kind == SETTING_ACCEPTED) == is_accepted) {
            (void)fprintf(file, "| `%s` | `%s` | %s |\n", row->name, row->default_text,
                          row->purpose);
        }
    }
}

void settings_print_markdown(FILE *file)
{
    static const char heading[] = "| name | default | meaning |\n|---|---|---|\n";
    (void)fprintf(file, "%s", heading);
    print_rows(file, false);
    (void)fprintf(
        file, "\nAccepted, without effect here; one that is set is told at log level DEBUG:\n\n%s",
        heading);
    print_rows(file, true);
}
