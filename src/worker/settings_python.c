#include "worker/settings_python.h"

#include <inttypes.h>

#include "base/json.h"
#include "worker/settings_value.h"

/* What a comma stands before, but for the first one. */
static void append_comma(struct buffer *buffer, bool *is_first)
{
    (void)buffer_append_text(buffer, *is_first ? "" : ", ");
    *is_first = false;
}

static void append_key(struct buffer *buffer, bool *is_first, struct bytes key)
{
    append_comma(buffer, is_first);
    json_append_string(buffer, key);
    (void)buffer_append_text(buffer, ": ");
}

/* Whether a source above the app sets it. */
static bool is_over_app(const struct settings *settings, enum setting_id id)
{
    return settings->is_set[id] && settings->origins[id] != settings->manifest_origin;
}

static void append_settings(struct buffer *buffer, const struct settings *settings)
{
    const struct {
        enum setting_id id;
        bool value;
    } flags[] = {
        {SETTING_ID_result_extended, settings->result_extended},
        {SETTING_ID_task_acks_late, settings->task_acks_late},
        {SETTING_ID_task_ignore_result, settings->task_ignore_result},
        {SETTING_ID_task_reject_on_worker_lost,
         settings->task_reject_on_worker_lost == SETTING_TRUE},
        {SETTING_ID_task_retry_on_worker_lost, settings->task_retry_on_worker_lost},
        {SETTING_ID_task_store_errors_even_if_ignored, settings->task_store_errors_even_if_ignored},
        {SETTING_ID_task_track_started, settings->task_track_started},
    };

    bool is_first = true;
    for (size_t index = 0; index < ARRAY_LENGTH(flags); index++) {
        if (is_over_app(settings, flags[index].id)) {
            append_key(buffer, &is_first, bytes_from_text(settings_rows[flags[index].id].name));
            (void)buffer_append_text(buffer, flags[index].value ? "true" : "false");
        }
    }
    if (settings->timezone && is_over_app(settings, SETTING_ID_timezone)) {
        append_key(buffer, &is_first, BYTES("timezone"));
        json_append_string(buffer, bytes_from_text(settings->timezone));
    }
}

/* An option's value, which settings_tasks.c has checked: a flag, a number or null. */
static void append_value(struct buffer *buffer, const struct yaml *value, bool is_flag)
{
    bool flag = false;
    int64_t whole = 0;
    double number = 0;
    if (is_flag && settings_value_bool(value, &flag)) {
        (void)buffer_append_text(buffer, flag ? "true" : "false");
    } else if (yaml_integer(value, &whole)) {
        (void)buffer_format(buffer, "%" PRId64, whole);
    } else if (yaml_double(value, &number)) {
        json_append_double(buffer, number);
    } else {
        (void)buffer_append_text(buffer, "null");
    }
}

static const struct option {
    const char *name;
    bool is_flag;
} options[] = {
    {"acks_late", true},
    {"default_retry_delay", false},
    {"ignore_result", true},
    {"max_retries", false},
    {"reject_on_worker_lost", true},
    {"retry_on_worker_lost", true},
    {"store_errors_even_if_ignored", true},
    {"track_started", true},
};

/* How many rows there are up to the last one that says something of these. */
static size_t count_rows(const struct yaml *tasks)
{
    size_t count = 0;
    for (size_t index = 0; tasks && index < tasks->count; index++) {
        for (size_t option = 0; option < ARRAY_LENGTH(options); option++) {
            count = yaml_get(tasks->entries[index].value, options[option].name) ? index + 1 : count;
        }
    }
    return count;
}

static void append_row(struct buffer *buffer, struct yaml_entry row)
{
    bool is_first = true;
    (void)buffer_append_byte(buffer, '[');
    json_append_string(buffer, row.key->text);
    (void)buffer_append_text(buffer, ", {");
    for (size_t index = 0; index < ARRAY_LENGTH(options); index++) {
        const struct yaml *value = yaml_get(row.value, options[index].name);
        if (value) {
            append_key(buffer, &is_first, bytes_from_text(options[index].name));
            append_value(buffer, value, options[index].is_flag);
        }
    }
    (void)buffer_append_text(buffer, "}]");
}

void settings_python_append(struct buffer *buffer, const struct settings *settings)
{
    const struct yaml *tasks = settings->tasks;
    bool is_first = true;
    (void)buffer_append_text(buffer, "{\"settings\": {");
    append_settings(buffer, settings);
    (void)buffer_append_text(buffer, "}, \"tasks\": [");
    for (size_t index = 0; index < count_rows(tasks); index++) {
        append_comma(buffer, &is_first);
        append_row(buffer, tasks->entries[index]);
    }
    (void)buffer_append_text(buffer, "]}");
}
