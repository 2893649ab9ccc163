#include "worker/options_apply.h"

#include <stdarg.h>

#include "base/json.h"

bool options_apply_fail(struct options_reader *reader, const char *format, ...)
{
    char text[500];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return error_set(reader->reterr, ERROR_INVALID, "%s", text);
}

/* A copy of an array in the arena with room for one element more. */
static void *grow(struct arena *arena, const void *array, size_t count, size_t size)
{
    void *grown = arena_alloc(arena, (count + 1) * size);
    if (count > 0) {
        memcpy(grown, array, count * size);
    }
    return grown;
}

void options_apply_override(struct options *options, const char *name, const char *text,
                            const char *origin)
{
    options->overrides = grow(options->arena, options->overrides, options->override_count,
                              sizeof(struct setting_override));
    options->overrides[options->override_count++] = (struct setting_override){name, text, origin};
}

void options_apply_warn(struct options *options, const char *text)
{
    options->warnings =
        grow(options->arena, options->warnings, options->warning_count, sizeof(const char *));
    options->warnings[options->warning_count++] = text;
}

void options_apply_debug(struct options *options, const char *text)
{
    options->debugs =
        grow(options->arena, options->debugs, options->debug_count, sizeof(const char *));
    options->debugs[options->debug_count++] = text;
}

/* Values */

static bool fail_value(struct options_reader *reader, const struct options_use *use,
                       const char *format, ...) PRINTF_FORMAT(3, 4);

static bool fail_value(struct options_reader *reader, const struct options_use *use,
                       const char *format, ...)
{
    char text[300];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    const struct options_row *row = use->row;
    char names[80];
    (void)snprintf(names, sizeof(names), "%s%s%s'%s'", row->short_name ? "'" : "",
                   row->short_name ? row->short_name : "", row->short_name ? "' / " : "",
                   row->name);
    if (use->is_variable) {
        return options_apply_fail(reader, "Invalid value for %s (env var: '%s'): %s", names,
                                  use->spelling, text);
    }
    return options_apply_fail(reader, "Invalid value for %s: %s", names, text);
}

/* Whether `text` is one of the words between the bars of `choices`, in any case. */
static bool is_choice(const char *text, const char *choices)
{
    struct bytes rest = bytes_from_text(choices);
    while (rest.length > 0) {
        size_t end = bytes_find(rest, '|');
        if (strlen(text) == end && strncasecmp(text, rest.data, end) == 0) {
            return true;
        }
        rest = bytes_skip(rest, end + 1);
    }
    return false;
}

static bool fail_choice(struct options_reader *reader, const struct options_use *use)
{
    struct buffer words;
    buffer_init(&words, 256);
    struct bytes rest = bytes_from_text(use->row->value_name);
    while (rest.length > 0) {
        size_t end = bytes_find(rest, '|');
        (void)buffer_format(&words, "%s'%.*s'", words.length > 0 ? ", " : "", (int)end, rest.data);
        rest = bytes_skip(rest, end + 1);
    }
    bool ok = fail_value(reader, use, "'%.64s' is not one of %.*s.", use->text,
                         BYTES_FORMAT(buffer_view(&words)));
    buffer_fini(&words);
    return ok;
}

static bool check_value(struct options_reader *reader, const struct options_use *use)
{
    const char *text = use->text ? use->text : "";
    struct yaml scalar = {.type = YAML_SCALAR, .is_plain = true, .text = bytes_from_text(text)};
    int64_t integer = 0;
    double number = 0;
    switch (use->row->value) {
    case OPTIONS_VALUE_NONE:
    case OPTIONS_VALUE_TEXT:
        return true;
    case OPTIONS_VALUE_INTEGER:
        return yaml_integer(&scalar, &integer)
               || fail_value(reader, use, "'%.64s' is not a valid integer.", text);
    case OPTIONS_VALUE_FLOAT:
        return (yaml_double(&scalar, &number) && number >= 0)
               || fail_value(reader, use, "'%.64s' is not a valid float.", text);
    case OPTIONS_VALUE_COUNT:
        return strcmp(text, "auto") == 0 || (yaml_integer(&scalar, &integer) && integer >= 0)
               || fail_value(reader, use, "must be a non-negative integer or 'auto', got '%.64s'",
                             text);
    case OPTIONS_VALUE_CHOICE:
        break;
    }
    return is_choice(text, use->row->value_name) || fail_choice(reader, use);
}

/* Effects */

static bool is_settings_file(const char *path)
{
    static const char *const endings[] = {".yaml", ".yml", ".json"};
    size_t length = strlen(path);
    for (size_t index = 0; index < ARRAY_LENGTH(endings); index++) {
        size_t size = strlen(endings[index]);
        if (length > size && strcmp(path + length - size, endings[index]) == 0) {
            return true;
        }
    }
    return false;
}

void options_apply_config(struct options *options, const char *text)
{
    if (text[0] == '\0') {
        return; /* none is named (celery/bin/celery.py: celery) */
    }
    if (is_settings_file(text)) {
        options->config_path = text;
    } else {
        options->config_module = text;
    }
}

static const char *origin_of(const struct options_reader *reader, const struct options_use *use)
{
    return arena_format(reader->options->arena,
                        use->is_variable ? "environment variable %s" : "option %s", use->spelling);
}

static void set_member(struct options *options, const struct options_use *use)
{
    void *member = (char *)options + use->row->offset;
    if (use->row->value == OPTIONS_VALUE_NONE) {
        *(bool *)member = true;
    } else {
        *(const char **)member = use->text;
    }
}

static void add_plugin(struct options_reader *reader, const struct options_use *use)
{
    (void)buffer_append_text(&reader->plugins, reader->plugins.length == 0 ? "[" : ", ");
    json_append_string(&reader->plugins, bytes_from_text(use->text));
}

/* celery/bin/worker.py: Autoscale: one or two numbers, in any order. */
static bool read_autoscale(struct options_reader *reader, const struct options_use *use)
{
    struct options *options = reader->options;
    struct bytes text = bytes_from_text(use->text);
    size_t comma = bytes_find(text, ',');
    struct bytes pieces[] = {bytes_of(text.data, comma), bytes_skip(text, comma + 1)};
    int64_t numbers[ARRAY_LENGTH(pieces)] = {0, 0};
    for (size_t index = 0; index < (comma < text.length ? 2U : 1U); index++) {
        struct yaml scalar = {.type = YAML_SCALAR, .is_plain = true, .text = pieces[index]};
        scalar.text = arena_copy(options->arena, scalar.text);
        if (!yaml_integer(&scalar, &numbers[index]) || numbers[index] < 0) {
            return fail_value(reader, use, "Expected one integer or two comma separated integers.");
        }
    }
    int64_t most = numbers[0] > numbers[1] ? numbers[0] : numbers[1];
    int64_t least = numbers[0] > numbers[1] ? numbers[1] : numbers[0];
    reader->autoscale = arena_format(options->arena, "%lld", (long long)most);
    if (least > 0) {
        options_apply_warn(
            options, arena_format(options->arena,
                                  "Option %s: up to %lld Python processes are started as work "
                                  "comes, and end when they were idle for process_idle_timeout; "
                                  "that at least %lld are kept has no effect.",
                                  use->spelling, (long long)most, (long long)least));
    }
    return true;
}

bool options_apply(struct options_reader *reader, const struct options_use *use)
{
    struct options *options = reader->options;
    const struct options_row *row = use->row;
    if (!check_value(reader, use)) {
        return false;
    }
    reader->is_given[row - options_table_rows] = true;
    switch (row->effect) {
    case OPTIONS_SETS_MEMBER:
        set_member(options, use);
        break;
    case OPTIONS_SETS_SETTING:
        options_apply_override(options, row->detail, use->text ? use->text : "true",
                               origin_of(reader, use));
        break;
    case OPTIONS_SETS_CONFIG:
        options_apply_config(options, use->text);
        break;
    case OPTIONS_SETS_LOGLEVEL:
        options->has_log_level = log_level_parse(use->text, &options->log_level);
        break;
    case OPTIONS_ADDS_PLUGIN:
        add_plugin(reader, use);
        break;
    case OPTIONS_SETS_AUTOSCALE:
        return read_autoscale(reader, use);
    case OPTIONS_SHOWS_HELP:
        options->help_topic = reader->has_command ? options->command : OPTIONS_HELP;
        options->command = OPTIONS_HELP;
        reader->is_done = true;
        break;
    case OPTIONS_SHOWS_VERSION:
        options->command = OPTIONS_VERSION;
        reader->is_done = true;
        break;
    case OPTIONS_IS_ACCEPTED:
        break;
    case OPTIONS_WARNS:
        options_apply_warn(options, arena_format(options->arena, "Option %s has no effect: %s.",
                                                 use->spelling, row->detail));
        break;
    case OPTIONS_REFUSES:
        return options_apply_fail(reader, "Option '%s' is not supported: %s.", use->spelling,
                                  row->detail);
    }
    return true;
}

bool options_apply_read_flag(struct options_reader *reader, const struct options_use *use,
                             bool *ret_flag)
{
    static const char yes[] = "1|true|t|yes|y|on";
    static const char no[] = "0|false|f|no|n|off";
    *ret_flag = is_choice(use->text, yes);
    return *ret_flag || is_choice(use->text, no)
           || fail_value(reader, use, "'%.64s' is not a valid boolean.", use->text);
}
