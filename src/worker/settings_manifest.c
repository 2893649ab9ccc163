#include "worker/settings_manifest.h"

#include "base/yaml_json.h"
#include "worker/settings_value.h"

#define VERSION      1
#define MAX_WARNINGS 200
#define MAX_UNKNOWN  50

static const char *const keys[] = {"v", "settings", "tasks", "routes", "warnings"};

enum key {
    KEY_VERSION,
    KEY_SETTINGS,
    KEY_TASKS,
    KEY_ROUTES,
    KEY_WARNINGS
};

void settings_manifest_note_unknown(struct settings *settings, struct settings_manifest *manifest,
                                    const char *kind, struct bytes name)
{
    if (manifest->unknown_count++ < MAX_UNKNOWN) {
        settings_value_note(settings, LOG_DEBUG, "%s: the %s %.*s is not known and was left out.",
                            manifest->origin, kind, (int)(name.length < 64 ? name.length : 64),
                            name.data);
    }
}

static bool check_version(const struct settings_manifest *manifest, struct json version,
                          struct error *reterr)
{
    int64_t number = 0;
    if (!json_int64(version, &number)) {
        return error_set(reterr, ERROR_INVALID, "%s: v: is no manifest: its version is missing",
                         manifest->origin);
    }
    if (number != VERSION) {
        return error_set(reterr, ERROR_INVALID,
                         "%s: v: this worker reads manifests of version %d, not %lld",
                         manifest->origin, VERSION, (long long)number);
    }
    return true;
}

static bool check_type(const struct settings_manifest *manifest, enum key key, struct json value,
                       enum json_type wanted, struct error *reterr)
{
    if (value.type == wanted || value.type == JSON_TYPE_ABSENT) {
        return true;
    }
    return error_set(reterr, ERROR_INVALID, "%s: %s: %s is allowed, not %.32s", manifest->origin,
                     keys[key], wanted == JSON_TYPE_OBJECT ? "an object" : "a list",
                     value.type == JSON_TYPE_OBJECT  ? "an object"
                     : value.type == JSON_TYPE_ARRAY ? "a list"
                                                     : "a single value");
}

/* Two members of one name: nobody could tell which one counts. */
static bool check_keys(const struct settings_manifest *manifest, struct json document,
                       struct error *reterr)
{
    if (!yaml_json_check_keys(document, reterr)) {
        return error_wrap(reterr, "%s", manifest->origin);
    }
    if (!yaml_json_check_keys(manifest->tasks, reterr)) {
        return error_wrap(reterr, "%s: tasks", manifest->origin);
    }
    return true;
}

static bool check_tasks(const struct settings_manifest *manifest, struct error *reterr)
{
    struct json_walk walk = json_walk(manifest->tasks);
    struct bytes name;
    struct json options;
    while (json_next_member(&walk, &name, &options)) {
        if (options.type != JSON_TYPE_OBJECT || name.length == 0) {
            return error_set(reterr, ERROR_INVALID,
                             "%s: tasks: %.*s: an object of options is allowed", manifest->origin,
                             (int)(name.length < 128 ? name.length : 128), name.data);
        }
    }
    return true;
}

static bool read_settings(struct settings *settings, struct settings_manifest *manifest,
                          struct json object, struct error *reterr)
{
    if (object.type == JSON_TYPE_ABSENT) {
        return true;
    }
    manifest->settings = yaml_json_tree(object, settings->arena, reterr);
    if (!manifest->settings) {
        return error_wrap(reterr, "%s: settings", manifest->origin);
    }
    for (size_t index = 0; index < manifest->settings->count; index++) {
        struct yaml_entry entry = manifest->settings->entries[index];
        const struct setting_row *row = settings_find_row(entry.key->text);
        if (!row) {
            settings_manifest_note_unknown(settings, manifest, "setting", entry.key->text);
        } else if (!settings_value_read(settings, row, entry.value, manifest->origin, reterr)) {
            return false;
        }
    }
    return true;
}

static void note_warnings(struct settings *settings, const struct settings_manifest *manifest,
                          struct json warnings)
{
    struct json_walk walk = json_walk(warnings);
    struct json element;
    size_t count = 0;
    while (json_next_element(&walk, &element)) {
        struct bytes text;
        if (count < MAX_WARNINGS && json_text(element, settings->arena, &text)) {
            settings_value_note(settings, LOG_WARNING, "%s: %.*s", manifest->origin,
                                (int)(text.length < 900 ? text.length : 900), text.data);
            count++;
        }
    }
    if (json_count(warnings) > MAX_WARNINGS) {
        settings_value_note(settings, LOG_WARNING, "%s: %zu more warnings are in the manifest.",
                            manifest->origin, json_count(warnings) - count);
    }
}

bool settings_manifest_read(struct settings *settings, const struct settings_sources *sources,
                            struct settings_manifest *ret_manifest, struct error *reterr)
{
    struct json document;
    struct json members[ARRAY_LENGTH(keys)];
    struct settings_manifest manifest = {.origin = sources->manifest_origin};
    if (!manifest.origin) {
        *ret_manifest = manifest;
        return true;
    }
    manifest.origin = arena_text(settings->arena, bytes_from_text(manifest.origin));
    if (!json_parse(sources->manifest, &document, reterr)) {
        return error_wrap(reterr, "%s: is no manifest", manifest.origin);
    }
    json_pick(document, keys, ARRAY_LENGTH(keys), members);
    manifest.tasks = members[KEY_TASKS];
    manifest.routes = members[KEY_ROUTES];
    if (!check_version(&manifest, members[KEY_VERSION], reterr)
        || !check_type(&manifest, KEY_SETTINGS, members[KEY_SETTINGS], JSON_TYPE_OBJECT, reterr)
        || !check_type(&manifest, KEY_TASKS, manifest.tasks, JSON_TYPE_OBJECT, reterr)
        || !check_type(&manifest, KEY_ROUTES, manifest.routes, JSON_TYPE_ARRAY, reterr)
        || !check_type(&manifest, KEY_WARNINGS, members[KEY_WARNINGS], JSON_TYPE_ARRAY, reterr)
        || !check_keys(&manifest, document, reterr) || !check_tasks(&manifest, reterr)
        || !read_settings(settings, &manifest, members[KEY_SETTINGS], reterr)) {
        return false;
    }
    note_warnings(settings, &manifest, members[KEY_WARNINGS]);
    settings->manifest_origin = manifest.origin;
    settings->manifest_task_count = json_count(manifest.tasks);
    *ret_manifest = manifest;
    return true;
}

/* Whether the app's first route is python-shim/src/petiole/routing.py. */
static bool routes_by_tenant(const struct settings_manifest *manifest)
{
    struct json_walk walk = json_walk(manifest->routes);
    struct json route;
    while (json_next_element(&walk, &route)) {
        if (bytes_equal(json_get(route, "function").text, BYTES("\"petiole.routing.by_tenant\""))) {
            return true;
        }
    }
    return false;
}

void settings_manifest_note_queue(struct settings *settings,
                                  const struct settings_manifest *manifest)
{
    const char *queue = settings->task_default_queue ? settings->task_default_queue : "celery";
    if (!manifest->origin || settings->has_explicit_queues
        || strcmp(queue, settings->tenant) == 0) {
        return;
    }
    settings_value_note(settings, routes_by_tenant(manifest) ? LOG_INFO : LOG_WARNING,
                        "%s: messages without a route go to the queue %.128s; this worker consumes "
                        "the queue of its tenant. Name others with -Q or task_queues.",
                        manifest->origin, queue);
}
