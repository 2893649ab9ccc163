#include "worker/settings_tasks.h"

#include <fnmatch.h>
#include <stdarg.h>

#include "base/yaml_json.h"
#include "worker/settings_names.h"
#include "worker/settings_value.h"

/* One row while it is read: of `tasks`, or of the manifest. */
struct row {
    struct settings *settings;
    const struct settings_manifest *manifest;
    const char *pattern; /* for messages: which row of which source is being read */
    bool is_of_app;      /* the manifest's options are being read */
    bool is_quiet;       /* what has no effect was said already */
    bool has_executor;   /* one was named */
    struct task_type type;
    enum setting_tristate acks_on_failure_or_timeout;
    enum setting_tristate acks_on_failure;
    enum setting_tristate acks_on_timeout;
    struct error *reterr;
};

typedef bool(option_fn)(struct row *row, void *member, const struct yaml *value, const char *name);

static bool fail(const struct row *row, const struct yaml *node, const char *name,
                 const char *format, ...) PRINTF_FORMAT(4, 5);

static bool fail(const struct row *row, const struct yaml *node, const char *name,
                 const char *format, ...)
{
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (row->is_of_app) {
        return error_set(row->reterr, ERROR_INVALID, "%s: tasks: %.128s: %s: %s",
                         row->manifest->origin, row->pattern, name, text);
    }
    return settings_value_fail(row->settings, SETTING_ID_tasks, node, row->reterr, "%.128s: %s: %s",
                               row->pattern, name, text);
}

/* Readers of one option; `member` is where it goes */

static bool read_flag(struct row *row, void *member, const struct yaml *value, const char *name)
{
    if (!settings_value_bool(value, member)) {
        return fail(row, value, name, "true or false is allowed, not %s", yaml_type_name(value));
    }
    return true;
}

static bool read_tristate(struct row *row, void *member, const struct yaml *value, const char *name)
{
    bool flag = false;
    if (yaml_is_null(value)) {
        return true;
    }
    if (!read_flag(row, &flag, value, name)) {
        return false;
    }
    *(enum setting_tristate *)member = flag ? SETTING_TRUE : SETTING_FALSE;
    return true;
}

static bool read_ignore_result(struct row *row, void *member, const struct yaml *value,
                               const char *name)
{
    bool flag = false;
    if (!read_flag(row, &flag, value, name)) {
        return false;
    }
    *(enum message_flag *)member = flag ? MESSAGE_YES : MESSAGE_NO;
    return true;
}

static bool read_seconds(struct row *row, void *member, const struct yaml *value, const char *name)
{
    double seconds = 0;
    if (!yaml_is_null(value) && (!yaml_double(value, &seconds) || seconds < 0 || seconds > 1e9)) {
        return fail(row, value, name, "a number of seconds from 0, or null, is allowed, not %s",
                    yaml_type_name(value));
    }
    *(double *)member = seconds;
    return true;
}

static bool read_max_retries(struct row *row, void *member, const struct yaml *value,
                             const char *name)
{
    int64_t count = -1;
    if (!yaml_is_null(value) && (!yaml_integer(value, &count) || count < 0 || count > 1000000000)) {
        return fail(row, value, name, "a whole number from 0, or null, is allowed, not %s",
                    yaml_type_name(value));
    }
    *(int64_t *)member = count;
    return true;
}

static bool read_attempts(struct row *row, void *member, const struct yaml *value, const char *name)
{
    int64_t count = 0;
    if (!yaml_integer(value, &count) || count < 1 || count > 1000) {
        return fail(row, value, name, "a whole number from 1 to 1000 is allowed, not %s",
                    yaml_type_name(value));
    }
    *(int64_t *)member = count;
    return true;
}

/* celery/app/autoretry.py: float(retry_backoff), so true is 1. */
static bool read_backoff(struct row *row, void *member, const struct yaml *value, const char *name)
{
    bool flag = false;
    if (yaml_bool(value, &flag)) {
        *(double *)member = flag ? 1 : 0;
        return true;
    }
    return read_seconds(row, member, value, name);
}

static bool read_names(struct row *row, void *member, const struct yaml *value, const char *name)
{
    const char *const *list = settings_value_list(value, ',', row->settings->arena);
    if (!list) {
        return fail(row, value, name, "a list of texts is allowed, not %s", yaml_type_name(value));
    }
    *(const char *const **)member = list[0] ? list : NULL;
    return true;
}

static bool read_override(struct row *row, void *member, const struct yaml *value, const char *name)
{
    if (!read_names(row, member, value, name)) {
        return false;
    }
    const char *const *list = *(const char *const **)member;
    for (size_t index = 0; list && list[index]; index++) {
        if (list[index][0] != '/') {
            return fail(row, value, name,
                        "JSON pointers such as /spec/template/… are allowed, not \"%.64s\"",
                        list[index]);
        }
    }
    return true;
}

static bool read_executor(struct row *row, void *member, const struct yaml *value, const char *name)
{
    static const char *const names[TASK_EXECUTOR_COUNT] = {
        [TASK_KUBERNETES] = "kubernetes",
        [TASK_LOCAL] = "local",
        [TASK_PROCESS] = "process",
        [TASK_NATIVE] = "native",
    };
    for (size_t index = 0; index < TASK_EXECUTOR_COUNT; index++) {
        if (value->type == YAML_SCALAR && bytes_equal_text(value->text, names[index])) {
            *(enum task_executor *)member = (enum task_executor)index;
            row->has_executor = true;
            return true;
        }
    }
    return fail(row, value, name, "kubernetes, local, process or native is allowed, not \"%.64s\"",
                value->type == YAML_SCALAR ? value->text.data : yaml_type_name(value));
}

/* A path beside the settings file. */
static bool read_path(struct row *row, void *member, const struct yaml *value, const char *name)
{
    if (yaml_is_null(value) || value->type != YAML_SCALAR || value->text.length == 0) {
        return fail(row, value, name, "the path of a file is allowed, not %s",
                    yaml_type_name(value));
    }
    const struct settings *settings = row->settings;
    const char *file = settings->origins[SETTING_ID_tasks];
    const char *slash = file && file == settings->config_path ? strrchr(file, '/') : NULL;
    const char *path = value->text.data;
    if (slash && path[0] != '/') {
        path = arena_format(settings->arena, "%.*s/%s", (int)(slash - file), file, path);
    }
    *(const char **)member = path;
    return true;
}

static bool read_retry_kwargs(struct row *row, void *member, const struct yaml *value,
                              const char *name)
{
    struct task_type *type = member;
    if (value->type != YAML_MAPPING) {
        return fail(row, value, name, "a mapping is allowed, not %s", yaml_type_name(value));
    }
    for (size_t index = 0; index < value->count; index++) {
        struct yaml_entry entry = value->entries[index];
        bool ok = false;
        if (bytes_equal_text(entry.key->text, "max_retries")) {
            ok = read_max_retries(row, &type->max_retries, entry.value, "retry_kwargs.max_retries");
        } else if (bytes_equal_text(entry.key->text, "countdown")) {
            ok = read_seconds(row, &type->default_retry_delay_s, entry.value,
                              "retry_kwargs.countdown");
        } else if (row->is_of_app) {
            ok = true; /* for Task.retry, in Python */
        } else {
            ok = fail(row, entry.key, name, "max_retries and countdown are allowed, not \"%.64s\"",
                      entry.key->text.data);
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* An option of Celery's that means nothing here. */
static bool accept(struct row *row, void *member, const struct yaml *value, const char *name)
{
    (void)member;
    (void)value;
    if (!row->is_quiet) {
        settings_value_note(row->settings, LOG_DEBUG, "tasks: %.128s: %s has no effect",
                            row->pattern, name);
    }
    return true;
}

/* Known to the registry, but not carried out yet. */
static bool accept_flag(struct row *row, void *member, const struct yaml *value, const char *name)
{
    return read_flag(row, member, value, name) && accept(row, NULL, NULL, name);
}

/* celery/utils/time.py: rate: a number, or a number a second, minute or hour. */
static bool accept_rate(struct row *row, void *member, const struct yaml *value, const char *name)
{
    double number = 0;
    if (yaml_is_null(value)) {
        *(const char **)member = NULL;
        return true;
    }
    struct yaml head = *value;
    bool ok = value->type == YAML_SCALAR;
    if (ok) {
        size_t slash = bytes_find(value->text, '/');
        struct bytes unit = bytes_skip(value->text, slash);
        head.is_plain = true;
        head.text = arena_copy(row->settings->arena, bytes_of(value->text.data, slash));
        ok = yaml_double(&head, &number) && number >= 0
             && (unit.length == 0 || bytes_equal_text(unit, "/s") || bytes_equal_text(unit, "/m")
                 || bytes_equal_text(unit, "/h"));
    }
    if (!ok) {
        return fail(row, value, name, "a number, 10/s, 10/m or 10/h is allowed, not %s",
                    yaml_type_name(value));
    }
    *(const char **)member = value->text.data;
    return accept(row, NULL, NULL, name);
}

#define TYPE(member) (offsetof(struct row, type) + offsetof(struct task_type, member))
#define ROW(member)  offsetof(struct row, member)

static const struct option {
    const char *name;
    option_fn *read;
    size_t offset; /* in struct row */
} options[] = {
    {"executor", read_executor, TYPE(executor)},
    {"job_template", read_path, TYPE(job_template)},
    {"override", read_override, TYPE(overrides)},
    {"acks_late", read_flag, TYPE(acks_late)},
    {"acks_on_failure_or_timeout", read_tristate, ROW(acks_on_failure_or_timeout)},
    {"acks_on_failure", read_tristate, ROW(acks_on_failure)},
    {"acks_on_timeout", read_tristate, ROW(acks_on_timeout)},
    {"reject_on_worker_lost", read_flag, TYPE(reject_on_worker_lost)},
    {"retry_on_worker_lost", read_flag, TYPE(retry_on_worker_lost)},
    {"ignore_result", read_ignore_result, TYPE(ignore_result)},
    {"store_errors_even_if_ignored", read_flag, TYPE(store_errors_even_if_ignored)},
    {"track_started", read_flag, TYPE(track_started)},
    {"time_limit", read_seconds, TYPE(time_limit_s)},
    {"soft_time_limit", read_seconds, TYPE(soft_time_limit_s)},
    {"autoretry_for", read_names, TYPE(autoretry_for)},
    {"dont_autoretry_for", read_names, TYPE(dont_autoretry_for)},
    {"max_retries", read_max_retries, TYPE(max_retries)},
    {"default_retry_delay", read_seconds, TYPE(default_retry_delay_s)},
    {"retry_backoff", read_backoff, TYPE(retry_backoff)},
    {"retry_backoff_max", read_seconds, TYPE(retry_backoff_max_s)},
    {"retry_jitter", read_flag, TYPE(retry_jitter)},
    {"max_delivery_attempts", read_attempts, TYPE(max_delivery_attempts)},
    {"retry_kwargs", read_retry_kwargs, ROW(type)},
    {"abstract", accept, 0},
    {"base", accept, 0},
    {"bind", accept, 0},
    {"compression", accept, 0},
    {"expires", accept, 0},
    {"name", accept, 0},
    {"priority", accept, 0},
    {"pydantic", accept, 0},
    {"queue", accept, 0},
    {"rate_limit", accept_rate, TYPE(rate_limit)},
    {"resultrepr_maxsize", accept, 0},
    {"send_events", accept_flag, TYPE(send_events)},
    {"serializer", accept, 0},
    {"shared", accept, 0},
    {"store_eager_result", accept, 0},
    {"throws", read_names, TYPE(throws)},
    {"trail", accept, 0},
    {"typing", accept, 0},
};

static bool fail_unknown(const struct row *row, const struct yaml *key)
{
    struct buffer text;
    buffer_init(&text, 256);
    (void)buffer_format(&text, "is no option of a task");
    settings_names_append_nearest(&text, "", key->text, &options[0].name, ARRAY_LENGTH(options),
                                  sizeof(options[0]));
    (void)buffer_append_byte(&text, '\0');
    bool ok = fail(row, key, arena_format(row->settings->arena, "%.64s", key->text.data), "%s",
                   text.data);
    buffer_fini(&text);
    return ok;
}

static const struct option *find_option(struct bytes name)
{
    for (size_t index = 0; index < ARRAY_LENGTH(options); index++) {
        if (bytes_equal_text(name, options[index].name)) {
            return &options[index];
        }
    }
    return NULL;
}

static bool read_option(struct row *row, const struct option *option, const struct yaml *value)
{
    return option->read(row, (char *)row + option->offset, value, option->name);
}

/* The options of a row of `tasks`. */
static bool read_options(struct row *row, const struct yaml *mapping)
{
    for (size_t index = 0; index < mapping->count; index++) {
        struct yaml_entry entry = mapping->entries[index];
        const struct option *option = find_option(entry.key->text);
        if (!option) {
            return fail_unknown(row, entry.key);
        }
        if (!read_option(row, option, entry.value)) {
            return false;
        }
    }
    return true;
}

/* The task's own value, else the setting's, else what `or_timeout` says (celery/app/task.py:
 * Task.bind). */
static bool acks_on(enum setting_tristate own, enum setting_tristate setting, bool or_timeout)
{
    if (own != SETTING_NONE) {
        return own == SETTING_TRUE;
    }
    return setting != SETTING_NONE ? setting == SETTING_TRUE : or_timeout;
}

struct task_type settings_tasks_defaults(const struct settings *settings)
{
    struct task_type type = registry_defaults;
    type.acks_late = settings->task_acks_late;
    type.reject_on_worker_lost = settings->task_reject_on_worker_lost == SETTING_TRUE;
    type.retry_on_worker_lost = settings->task_retry_on_worker_lost;
    type.ignore_result = settings->task_ignore_result ? MESSAGE_YES : MESSAGE_NO;
    type.store_errors_even_if_ignored = settings->task_store_errors_even_if_ignored;
    type.track_started = settings->task_track_started;
    type.time_limit_s = settings->task_time_limit;
    type.soft_time_limit_s = settings->task_soft_time_limit;
    type.max_delivery_attempts =
        settings->max_delivery_attempts > 0 ? settings->max_delivery_attempts : 1;
    bool or_timeout = settings->task_acks_on_failure_or_timeout;
    type.acks_on_failure = acks_on(SETTING_NONE, settings->task_acks_on_failure, or_timeout);
    type.acks_on_timeout = acks_on(SETTING_NONE, settings->task_acks_on_timeout, or_timeout);
    return type;
}

static void decide_acks(struct row *row)
{
    const struct settings *settings = row->settings;
    bool or_timeout = row->acks_on_failure_or_timeout != SETTING_NONE
                          ? row->acks_on_failure_or_timeout == SETTING_TRUE
                          : settings->task_acks_on_failure_or_timeout;
    row->type.acks_on_failure =
        acks_on(row->acks_on_failure, settings->task_acks_on_failure, or_timeout);
    row->type.acks_on_timeout =
        acks_on(row->acks_on_timeout, settings->task_acks_on_timeout, or_timeout);
}

/* What was said about executor and template must make sense together. */
static bool decide_executor(struct row *row, const struct yaml *node)
{
    if (!row->has_executor && row->manifest->origin && !row->type.job_template) {
        row->type.executor = TASK_PROCESS;
    }
    bool wants_template = row->type.executor == TASK_KUBERNETES || row->type.executor == TASK_LOCAL;
    if (wants_template && !row->type.job_template) {
        return fail(row, node, "job_template", "is needed by the executors kubernetes and local");
    }
    return true;
}

static struct row new_row(struct settings *settings, const struct settings_manifest *manifest,
                          const char *pattern, struct error *reterr)
{
    struct row row = {.settings = settings,
                      .manifest = manifest,
                      .pattern = pattern,
                      .type = settings_tasks_defaults(settings),
                      .reterr = reterr};
    row.type.pattern = pattern;
    return row;
}

static bool read_row(struct settings *settings, const struct settings_manifest *manifest,
                     struct yaml_entry entry, struct error *reterr)
{
    struct row row = new_row(settings, manifest, entry.key->text.data, reterr);
    if (entry.value->type != YAML_MAPPING) {
        return settings_value_fail(settings, SETTING_ID_tasks, entry.value, reterr,
                                   "%.128s: a mapping of options is allowed, not %s", row.pattern,
                                   yaml_type_name(entry.value));
    }
    if (!read_options(&row, entry.value) || !decide_executor(&row, entry.key)) {
        return false;
    }
    decide_acks(&row);
    (void)registry_add(settings->registry, &row.type);
    return true;
}

/* The tasks of the manifest */

/* celery/app/task.py: Task.from_config: the options that Celery fills in from settings, as far as
 * those settings mean something here. */
static const struct {
    const char *option;
    enum setting_id id;
} from_settings[] = {
    {"acks_late", SETTING_ID_task_acks_late},
    {"acks_on_failure_or_timeout", SETTING_ID_task_acks_on_failure_or_timeout},
    {"acks_on_failure", SETTING_ID_task_acks_on_failure},
    {"acks_on_timeout", SETTING_ID_task_acks_on_timeout},
    {"reject_on_worker_lost", SETTING_ID_task_reject_on_worker_lost},
    {"retry_on_worker_lost", SETTING_ID_task_retry_on_worker_lost},
    {"ignore_result", SETTING_ID_task_ignore_result},
    {"store_errors_even_if_ignored", SETTING_ID_task_store_errors_even_if_ignored},
    {"track_started", SETTING_ID_task_track_started},
    {"time_limit", SETTING_ID_task_time_limit},
    {"soft_time_limit", SETTING_ID_task_soft_time_limit},
};

/* What the app says of a setting, or its default. */
static const char *setting_in_app(const struct settings_manifest *manifest, enum setting_id id)
{
    const struct setting_row *row = &settings_rows[id];
    const struct yaml *setting = yaml_get(manifest->settings, row->name);
    return setting && setting->type == YAML_SCALAR ? setting->text.data : row->default_text;
}

/* Whether the option has the value of its setting in the app. The two forms of
 * acks_on_failure_or_timeout have that one's when they have none (Task.bind). */
static bool is_from_settings(const struct settings_manifest *manifest, const char *option,
                             const struct yaml *value)
{
    for (size_t index = 0; index < ARRAY_LENGTH(from_settings); index++) {
        if (strcmp(option, from_settings[index].option) != 0) {
            continue;
        }
        enum setting_id id = from_settings[index].id;
        const char *expected = setting_in_app(manifest, id);
        bool is_split =
            id == SETTING_ID_task_acks_on_failure || id == SETTING_ID_task_acks_on_timeout;
        if (is_split && strcmp(expected, "null") == 0) {
            expected = setting_in_app(manifest, SETTING_ID_task_acks_on_failure_or_timeout);
        }
        return value->type == YAML_SCALAR && bytes_equal_text(value->text, expected);
    }
    return false;
}

/* null is "not set" for Celery, but no limit of retries. */
static bool says_something(const struct option *option, const struct yaml *value)
{
    return !yaml_is_null(value) || strcmp(option->name, "max_retries") == 0;
}

static bool read_app_options(struct row *row, struct settings_manifest *manifest,
                             const struct yaml *mapping)
{
    for (size_t index = 0; index < mapping->count; index++) {
        struct yaml_entry entry = mapping->entries[index];
        const struct option *option = find_option(entry.key->text);
        if (!option) {
            settings_manifest_note_unknown(row->settings, manifest, "task option", entry.key->text);
        } else if (says_something(option, entry.value)
                   && !is_from_settings(manifest, option->name, entry.value)
                   && !read_option(row, option, entry.value)) {
            return false;
        }
    }
    return true;
}

/* The first row of `tasks` that matches `name`. */
static const struct yaml_entry *find_row(const struct yaml *tasks, const char *name)
{
    for (size_t index = 0; tasks && index < tasks->count; index++) {
        if (fnmatch(tasks->entries[index].key->text.data, name, 0) == 0) {
            return &tasks->entries[index];
        }
    }
    return NULL;
}

static bool read_app_task(struct settings *settings, struct settings_manifest *manifest,
                          const struct yaml_entry *task, struct error *reterr)
{
    struct row row = new_row(settings, manifest, task->key->text.data, reterr);
    row.type.is_exact = true;
    row.is_of_app = true;
    row.is_quiet = true;
    if (!read_app_options(&row, manifest, task->value)) {
        return false;
    }
    const struct yaml_entry *over = find_row(settings->tasks, row.pattern);
    row.is_of_app = false;
    if (over && over->value->type == YAML_MAPPING) {
        row.pattern = over->key->text.data;
        if (!read_options(&row, over->value)) {
            return false;
        }
    }
    if (!decide_executor(&row, over ? over->key : NULL)) {
        return false;
    }
    decide_acks(&row);
    (void)registry_add(settings->registry, &row.type);
    return true;
}

static bool read_app_tasks(struct settings *settings, struct settings_manifest *manifest,
                           struct error *reterr)
{
    struct json_walk walk = json_walk(manifest->tasks);
    struct bytes raw;
    struct json mapping;
    bool ok = true;
    while (ok && json_next_member(&walk, &raw, &mapping)) {
        /* The registry copies what it keeps: a tree lives for one task. */
        struct arena *scratch = arena_new(4096);
        struct json name = {JSON_TYPE_STRING, bytes_of(raw.data - 1, raw.length + 2)};
        struct yaml_entry task = {yaml_json_tree(name, scratch, reterr),
                                  yaml_json_tree(mapping, scratch, reterr)};
        ok = task.key && task.value
                 ? read_app_task(settings, manifest, &task, reterr)
                 : error_wrap(reterr, "%s: tasks: %.*s", manifest->origin,
                              (int)(raw.length < 128 ? raw.length : 128), raw.data);
        arena_free(&scratch);
    }
    return ok;
}

bool settings_tasks_read(struct settings *settings, struct settings_manifest *manifest,
                         struct error *reterr)
{
    const struct yaml *tasks = settings->tasks;
    if (tasks && tasks->type != YAML_MAPPING) {
        return settings_value_fail(settings, SETTING_ID_tasks, tasks, reterr,
                                   "a mapping from task names to options is allowed, not %s",
                                   yaml_type_name(tasks));
    }
    if (!read_app_tasks(settings, manifest, reterr)) {
        return false;
    }
    for (size_t index = 0; tasks && index < tasks->count; index++) {
        if (!read_row(settings, manifest, tasks->entries[index], reterr)) {
            return false;
        }
    }
    return true;
}
