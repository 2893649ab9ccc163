#include "worker/options.h"

#include "worker/manifest.h"
#include "worker/options_apply.h"
#include "worker/options_table.h"
#include "worker/settings_names.h"
#include "worker/settings_value.h"

/* Arguments */

static bool is_spelled(const struct options_row *row, struct bytes spelling)
{
    return bytes_equal_text(spelling, row->name)
           || (row->other && bytes_equal_text(spelling, row->other))
           || (row->short_name && bytes_equal_text(spelling, row->short_name));
}

static const struct options_row *find_row(struct bytes spelling, unsigned place)
{
    for (size_t index = 0; index < options_table_count; index++) {
        const struct options_row *row = &options_table_rows[index];
        if ((row->places & place) != 0 && is_spelled(row, spelling)) {
            return row;
        }
    }
    return NULL;
}

static const char *command_name(enum options_command command)
{
    switch (command) {
    case OPTIONS_CHECK:
        return "check";
    case OPTIONS_PROBE:
        return "probe";
    case OPTIONS_HELP:
    case OPTIONS_VERSION:
    case OPTIONS_WORKER:
    case OPTIONS_HELP_SETTINGS:
        break;
    }
    return "worker";
}

/* A global option behind the command; -A there is what Celery 5 stopped to take. */
static bool fail_misplaced(struct options_reader *reader, struct bytes spelling)
{
    const char *command = command_name(reader->options->command);
    if (bytes_equal_text(spelling, "-A") || bytes_equal_text(spelling, "--app")) {
        return options_apply_fail(
            reader,
            "You are using `%.*s` as an option of the %s sub-command: it is a global option "
            "since Celery 5.0, so write: petiole %.*s celeryapp %s <...>",
            BYTES_FORMAT(spelling), command, BYTES_FORMAT(spelling), command);
    }
    return options_apply_fail(
        reader, "No such option '%.*s': it is a global option, so write it before %s.",
        BYTES_FORMAT(spelling), command);
}

static bool fail_unknown(struct options_reader *reader, struct bytes spelling)
{
    if (reader->has_command && find_row(spelling, OPTIONS_BEFORE_COMMAND)) {
        return fail_misplaced(reader, spelling);
    }
    struct buffer guess;
    buffer_init(&guess, 128);
    settings_names_append_nearest(&guess, "", spelling, &options_table_rows[0].name,
                                  options_table_count, sizeof(options_table_rows[0]));
    bool ok = options_apply_fail(reader, "No such option '%.*s'%.*s%s", BYTES_FORMAT(spelling),
                                 BYTES_FORMAT(buffer_view(&guess)), guess.length > 0 ? "" : ".");
    buffer_fini(&guess);
    return ok;
}

/* Gives the option its value: what is joined to it, else the next argument. */
static bool use_option(struct options_reader *reader, const struct options_row *row,
                       const char *spelling, const char *joined)
{
    struct options_use use = {.row = row, .spelling = spelling, .text = joined};
    if (row->value == OPTIONS_VALUE_NONE) {
        return joined ? options_apply_fail(reader, "Option '%s' does not take a value.", spelling)
                      : options_apply(reader, &use);
    }
    if (!joined) {
        if (reader->position >= reader->count) {
            return options_apply_fail(reader, "Option '%s' requires an argument.", spelling);
        }
        use.text = reader->arguments[reader->position++];
    }
    return options_apply(reader, &use);
}

static bool read_long(struct options_reader *reader, const char *argument)
{
    struct bytes text = bytes_from_text(argument);
    size_t equals = bytes_find(text, '=');
    struct bytes spelling = bytes_of(argument, equals);
    const struct options_row *row = find_row(spelling, reader->place);
    if (!row) {
        return fail_unknown(reader, spelling);
    }
    const char *joined = equals < text.length ? argument + equals + 1 : NULL;
    return use_option(reader, row, arena_text(reader->options->arena, spelling), joined);
}

/* A run of short options: -qC, -lINFO, -Ec4. */
static bool read_short(struct options_reader *reader, const char *argument)
{
    for (const char *letter = argument + 1; *letter; letter++) {
        const char *spelling = arena_format(reader->options->arena, "-%c", *letter);
        const struct options_row *row = find_row(bytes_from_text(spelling), reader->place);
        if (!row) {
            return fail_unknown(reader, bytes_from_text(spelling));
        }
        bool is_flag = row->value == OPTIONS_VALUE_NONE;
        const char *joined = !is_flag && letter[1] ? letter + 1 : NULL;
        if (!use_option(reader, row, spelling, joined)) {
            return false;
        }
        if (!is_flag) {
            return true;
        }
    }
    return true;
}

/* The commands, and behind them what else there is help for. */
static const struct command {
    const char *name;
    enum options_command command;
    unsigned place;
} commands[] = {
    {"worker", OPTIONS_WORKER, OPTIONS_AFTER_WORKER},
    {"check", OPTIONS_CHECK, OPTIONS_AFTER_WORKER},
    {"probe", OPTIONS_PROBE, OPTIONS_AFTER_PROBE},
    {"help", OPTIONS_HELP, OPTIONS_BEFORE_COMMAND},
    {"settings", OPTIONS_HELP_SETTINGS, OPTIONS_BEFORE_COMMAND},
};

#define COMMAND_COUNT    (ARRAY_LENGTH(commands) - 1)
#define HELP_TOPIC_COUNT ARRAY_LENGTH(commands)

/* One of the first `count`; NULL after a failure. */
static const struct command *find_command(struct options_reader *reader, const char *argument,
                                          size_t count)
{
    for (size_t index = 0; index < count; index++) {
        if (strcmp(argument, commands[index].name) == 0) {
            return &commands[index];
        }
    }
    struct buffer guess;
    buffer_init(&guess, 128);
    settings_names_append_nearest(&guess, "", bytes_from_text(argument), &commands[0].name, count,
                                  sizeof(commands[0]));
    (void)options_apply_fail(reader, "No such command '%.64s'%.*s%s", argument,
                             BYTES_FORMAT(buffer_view(&guess)), guess.length > 0 ? "" : ".");
    buffer_fini(&guess);
    return NULL;
}

static bool read_command(struct options_reader *reader, const char *argument)
{
    const struct command *command = find_command(reader, argument, COMMAND_COUNT);
    if (!command) {
        return false;
    }
    reader->options->command = command->command;
    reader->place = command->place;
    reader->has_command = true;
    return true;
}

/* celery/app/base.py: Celery.config_from_cmdline: section.key=value, or key=value of the section
 * worker. */
static bool read_setting(struct options_reader *reader, const char *argument)
{
    struct options *options = reader->options;
    const char *equals = strchr(argument, '=');
    const char *dot = strchr(argument, '.');
    if (!equals) {
        return options_apply_fail(
            reader,
            "Unable to parse extra configuration from command line: \"%.64s\" is no "
            "section.key=value",
            argument);
    }
    bool has_section = dot && dot < equals;
    const char *key = has_section ? dot + 1 : argument;
    const char *name =
        arena_format(options->arena, "%.*s_%.*s", has_section ? (int)(dot - argument) : 6,
                     has_section ? argument : "worker", (int)(equals - key), key);
    if (!settings_find_row(bytes_from_text(name))) {
        return options_apply_fail(
            reader,
            "Unable to parse extra configuration from command line: there is no setting "
            "\"%.64s\"",
            name);
    }
    options_apply_override(
        options, name, equals + 1,
        arena_format(options->arena, "argument %.*s", (int)(equals - argument), argument));
    return true;
}

static bool read_help_topic(struct options_reader *reader, const char *argument)
{
    struct options *options = reader->options;
    const struct command *topic = find_command(reader, argument, HELP_TOPIC_COUNT);
    if (topic && topic->command == OPTIONS_HELP_SETTINGS) {
        options->command = OPTIONS_HELP_SETTINGS;
    } else if (topic) {
        options->help_topic = topic->command;
    }
    return topic;
}

static bool read_positional(struct options_reader *reader, const char *argument)
{
    struct options *options = reader->options;
    if (!reader->has_command) {
        return read_command(reader, argument);
    }
    if (options->command == OPTIONS_PROBE) {
        bool is_known = strcmp(argument, "live") == 0 || strcmp(argument, "ready") == 0;
        if (options->probe || !is_known) {
            return options_apply_fail(
                reader, "Got unexpected extra argument (%.64s): probe live or probe ready",
                argument);
        }
        options->probe = argument;
        return true;
    }
    return options->command == OPTIONS_HELP ? read_help_topic(reader, argument)
                                            : read_setting(reader, argument);
}

static bool read_argument(struct options_reader *reader)
{
    const char *argument = reader->arguments[reader->position++];
    if (reader->only_positional || argument[0] != '-' || argument[1] == '\0') {
        return read_positional(reader, argument);
    }
    if (strcmp(argument, "--") == 0) {
        reader->only_positional = true;
        return true;
    }
    return argument[1] == '-' ? read_long(reader, argument) : read_short(reader, argument);
}

static bool read_arguments(struct options_reader *reader)
{
    while (reader->position < reader->count && !reader->is_done) {
        if (!read_argument(reader)) {
            return false;
        }
    }
    return true;
}

/* Environment */

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

static bool apply_variable(struct options_reader *reader, const struct options_row *row,
                           const char *variable, const char *text)
{
    struct options_use use = {.row = row, .spelling = variable, .text = text, .is_variable = true};
    bool flag = true;
    if (row->value == OPTIONS_VALUE_NONE) {
        /* Its own variable (NO_COLOR) may have any value. */
        if (variable == row->variable && !options_apply_read_flag(reader, &use, &flag)) {
            return false;
        }
        use.text = NULL;
    }
    return !flag || options_apply(reader, &use);
}

static bool read_variables(struct options_reader *reader, char *const *environment)
{
    for (size_t index = 0; index < options_table_count; index++) {
        const struct options_row *row = &options_table_rows[index];
        bool is_wanted = (row->places & (OPTIONS_BEFORE_COMMAND | reader->place)) != 0;
        const char *names[] = {row->other_variable, row->variable};
        for (size_t which = 0; which < ARRAY_LENGTH(names); which++) {
            const char *text = names[which] && is_wanted && !reader->is_given[index]
                                   ? find_variable(environment, names[which])
                                   : NULL;
            if (text && !apply_variable(reader, row, names[which], text)) {
                return false;
            }
        }
    }
    return true;
}

static void read_config_variables(struct options *options, char *const *environment)
{
    const char *own = find_variable(environment, "PETIOLE_CONFIG");
    const char *module = find_variable(environment, "CELERY_CONFIG_MODULE");
    if (own && !options->config_path) {
        options_apply_config(options, own);
    }
    if (module && !options->config_module) {
        options->config_module = module;
    }
}

/* Variables of Celery that are no option: those that are settings, and those that only Python
 * reads. */
static bool is_known_variable(struct bytes name)
{
    static const char *const others[] = {
        "CELERY_BROKER_URL",         "CELERY_BROKER_READ_URL",
        "CELERY_BROKER_WRITE_URL",   "CELERY_RESULT_BACKEND",
        "CELERY_CONFIG_MODULE",      "CELERY_CUSTOM_WORKER_POOL",
        "CELERY_LOG_LEVEL",          "CELERY_LOG_FILE",
        "CELERY_LOG_REDIRECT",       "CELERY_RDBSIG",
        "CELERY_WORKER_REVOKES_MAX", "CELERY_WORKER_REVOKE_EXPIRES",
        "CELERY_LOG_REDIRECT_LEVEL",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(others); index++) {
        if (bytes_equal_text(name, others[index])) {
            return true;
        }
    }
    for (size_t index = 0; index < options_table_count; index++) {
        const char *variable = options_table_rows[index].variable;
        if (variable && bytes_equal_text(name, variable)) {
            return true;
        }
    }
    return false;
}

static void note_unknown_variables(struct options *options, char *const *environment)
{
    for (size_t index = 0; environment && environment[index]; index++) {
        struct bytes pair = bytes_from_text(environment[index]);
        struct bytes name = bytes_of(pair.data, bytes_find(pair, '='));
        if (bytes_starts_with(name, BYTES("CELERY_")) && !is_known_variable(name)) {
            options_apply_debug(
                options,
                arena_format(options->arena,
                             "Environment variable %.*s is not understood and was ignored.",
                             BYTES_FORMAT(name)));
        }
    }
}

/* What is put together of several options; --autoscale wins over -c (celery/worker/components.py:
 * Pool.create). */
static void keep_collected(struct options_reader *reader)
{
    if (reader->autoscale) {
        options_apply_override(reader->options, "worker_concurrency", reader->autoscale,
                               "option --autoscale");
    }
    if (reader->plugins.length > 0) {
        (void)buffer_append_text(&reader->plugins, "]");
        options_apply_override(reader->options, "plugins",
                               arena_text(reader->options->arena, buffer_view(&reader->plugins)),
                               "option --plugin");
    }
}

static bool read_all(struct options_reader *reader, char *const *environment)
{
    struct options *options = reader->options;
    if (!read_arguments(reader)) {
        return false;
    }
    if (reader->is_done || options->command == OPTIONS_HELP
        || options->command == OPTIONS_HELP_SETTINGS) {
        return true;
    }
    if (options->command == OPTIONS_PROBE && !options->probe) {
        return options_apply_fail(reader, "Missing argument: probe live or probe ready");
    }
    if (!read_variables(reader, environment)) {
        return false;
    }
    read_config_variables(options, environment);
    note_unknown_variables(options, environment);
    keep_collected(reader);
    return true;
}

/* Public */

bool options_parse(struct options *options, int argument_count, char *const *arguments,
                   char *const *environment, struct error *reterr)
{
    *options = (struct options){.arena = arena_new(4096),
                                .command = OPTIONS_HELP,
                                .help_topic = OPTIONS_HELP,
                                .log_level = LOG_WARNING};
    struct options_reader reader = {.options = options,
                                    .arguments = arguments,
                                    .count = argument_count,
                                    .position = 1,
                                    .place = OPTIONS_BEFORE_COMMAND,
                                    .reterr = reterr};
    buffer_init(&reader.plugins, 65536);
    bool ok = read_all(&reader, environment);
    buffer_fini(&reader.plugins);
    return ok;
}

void options_fini(struct options *options)
{
    arena_free(&options->arena);
    *options = (struct options){.arena = NULL};
}

void options_print_help(FILE *file, const struct options *options)
{
    options_table_print(file, options->help_topic);
}

bool options_load_settings(const struct options *options, char *const *environment,
                           const char *node_name, const struct manifest *manifest,
                           struct settings *settings, struct error *reterr)
{
    const struct settings_sources sources = {
        .manifest = manifest ? buffer_view(&manifest->text) : bytes_of(NULL, 0),
        .manifest_origin = manifest ? manifest->origin : NULL,
        .config_path = options->config_path,
        .environment = environment,
        .overrides = options->overrides,
        .override_count = options->override_count,
        .queues = options->queues,
        .exclude_queues = options->exclude_queues,
        .node_name = node_name,
    };
    if (!settings_load(settings, &sources, reterr)) {
        return false;
    }
    if (manifest && manifest->warning) {
        settings_value_note(settings, LOG_WARNING, "%s", manifest->warning);
    }
    return true;
}

void options_log_notes(const struct options *options)
{
    for (size_t index = 0; index < options->warning_count; index++) {
        log_write(LOG_WARNING, "%s", options->warnings[index]);
    }
    for (size_t index = 0; index < options->debug_count; index++) {
        log_write(LOG_DEBUG, "%s", options->debugs[index]);
    }
}
