/* The command line and its environment (worker/options.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/options.h"

#define MAX_WORDS 32

struct fixture {
    struct options options;
    struct arena *arena;
    char **environment;
    int environment_count;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    fixture->arena = arena_new(4096);
    fixture->environment = arena_alloc(fixture->arena, MAX_WORDS * sizeof(char *));
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    options_fini(&fixture->options);
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

static void set_variable(struct fixture *fixture, const char *pair)
{
    fixture->environment[fixture->environment_count++] =
        arena_text(fixture->arena, bytes_from_text(pair));
}

/* Parses `line`, words between blanks, behind the program's name. */
static bool parse_line(struct fixture *fixture, const char *line, struct error *reterr)
{
    char **words = arena_alloc(fixture->arena, MAX_WORDS * sizeof(char *));
    int count = 0;
    words[count++] = arena_text(fixture->arena, BYTES("petiole"));
    struct bytes rest = bytes_from_text(line);
    while (rest.length > 0) {
        size_t end = bytes_find(rest, ' ');
        words[count++] = arena_text(fixture->arena, bytes_of(rest.data, end));
        rest = bytes_skip(rest, end + 1);
    }
    options_fini(&fixture->options);
    return options_parse(&fixture->options, count, words, fixture->environment, reterr);
}

static const struct options *parse(struct fixture *fixture, const char *line)
{
    struct error error = {0};
    if (!parse_line(fixture, line, &error)) {
        fail_msg("%s: %s", line, error.message);
    }
    return &fixture->options;
}

static void check_refused(struct fixture *fixture, const char *line, const char *expected)
{
    struct error error = {0};
    assert_false(parse_line(fixture, line, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" is not in \"%s\"", expected, error.message);
    }
}

/* The last value that the options give the setting, or "". */
static const char *setting(const struct options *options, const char *name)
{
    const char *text = "";
    for (size_t index = 0; index < options->override_count; index++) {
        if (strcmp(options->overrides[index].name, name) == 0) {
            text = options->overrides[index].text;
        }
    }
    return text;
}

static void test_command_line_of_a_deployment(void **state)
{
    const struct options *options =
        parse(*state, "-A app.tasks worker --loglevel=info -P solo -Q a,b -c4 -E");
    assert_int_equal(options->command, OPTIONS_WORKER);
    assert_string_equal(options->app, "app.tasks");
    assert_int_equal(options->log_level, LOG_INFO);
    assert_true(options->has_log_level);
    assert_string_equal(options->queues, "a,b");
    assert_string_equal(setting(options, "worker_concurrency"), "4");
    assert_string_equal(setting(options, "worker_send_task_events"), "true");
    assert_string_equal(setting(options, "worker_pool"), "solo");
    assert_int_equal(options->warning_count, 0);
}

static void test_spellings(void **state)
{
    static const char *const lines[] = {"worker -lDEBUG", "worker -l debug",
                                        "worker --loglevel Debug", "worker --loglevel=DEBUG"};
    for (size_t index = 0; index < ARRAY_LENGTH(lines); index++) {
        assert_int_equal(parse(*state, lines[index])->log_level, LOG_DEBUG);
    }
    const struct options *options = parse(*state, "-qC -bredis://a worker -Ec2 --events");
    assert_true(options->is_quiet);
    assert_true(options->has_no_color);
    assert_string_equal(setting(options, "broker_url"), "redis://a");
    assert_string_equal(setting(options, "worker_concurrency"), "2");
    assert_string_equal(parse(*state, "worker -n a@%h -X c")->node_name, "a@%h");
    assert_string_equal(parse(*state, "worker -n a@%h -X c")->exclude_queues, "c");
}

static void test_every_option_of_celery_is_known(void **state)
{
    const struct options *options =
        parse(*state, "--loader l --config celeryconfig --workdir /tmp --skip-checks worker -D "
                      "--uid u --gid g --umask 022 --executable x -S db -O fair --purge");
    assert_string_equal(options->config_module, "celeryconfig");
    assert_string_equal(options->workdir, "/tmp");
    assert_true(options->is_detached);
    assert_true(options->is_purging);
    assert_string_equal(setting(options, "worker_uid"), "u");
    options = parse(*state, "worker --pool-start-method spawn --max-tasks-per-child 1 "
                            "--max-memory-per-child 2 --prefetch-multiplier 0 --disable-prefetch "
                            "--autoscale 3,1 -I a -s f --scheduler x --heartbeat-interval 2 "
                            "--without-gossip --without-mingle --without-heartbeat --discard");
    assert_int_equal(options->warning_count, 7);
    assert_string_equal(setting(options, "worker_max_tasks_per_child"), "1");
    assert_string_equal(setting(options, "worker_max_memory_per_child"), "2");
    assert_string_equal(setting(options, "worker_concurrency"), "3");
    options = parse(*state, "worker --time-limit 1.5 --soft-time-limit 1 -f /l --pidfile /p");
    assert_string_equal(setting(options, "task_time_limit"), "1.5");
    assert_string_equal(setting(options, "worker_logfile"), "/l");
    assert_string_equal(setting(options, "worker_pidfile"), "/p");
}

static void test_refused(void **state)
{
    check_refused(*state, "--bogus worker", "No such option '--bogus'.");
    check_refused(*state, "worker --loglvel=x", "'--loglvel', did you mean --loglevel");
    check_refused(*state, "worker -Z", "No such option '-Z'.");
    check_refused(*state, "worker -EZ", "No such option '-Z'.");
    check_refused(*state, "worker -b redis://h", "a global option, so write it before worker.");
    check_refused(*state, "worker -Q", "Option '-Q' requires an argument.");
    check_refused(*state, "worker --purge=1", "Option '--purge' does not take a value.");
    check_refused(*state, "worker -l bad",
                  "Invalid value for '-l' / '--loglevel': 'bad' is not one of 'DEBUG', 'INFO', "
                  "'WARNING', 'ERROR', 'CRITICAL', 'FATAL'.");
    check_refused(*state, "worker -c x", "must be a non-negative integer or 'auto', got 'x'");
    check_refused(*state, "worker -c=4", "got '=4'");
    check_refused(*state, "worker --time-limit soon", "'soon' is not a valid float.");
    check_refused(*state, "worker --prefetch-multiplier 1.5", "'1.5' is not a valid integer.");
    check_refused(*state, "worker -O best", "is not one of 'default', 'fair'.");
    check_refused(*state, "worker -B", "Option '-B' is not supported: run `celery beat`");
    check_refused(*state, "beat", "No such command 'beat'.");
    check_refused(*state, "wroker", "No such command 'wroker', did you mean worker?");
    check_refused(*state, "setings", "No such command 'setings'.");
    check_refused(*state, "worker -A app", "petiole -A celeryapp worker <...>");
    check_refused(*state, "worker --app=app", "You are using `--app` as an option of the worker");
}

static void test_environment(void **state)
{
    struct fixture *fixture = *state;
    set_variable(fixture, "CELERY_APP=app");
    set_variable(fixture, "BROKER_URL=redis://env");
    set_variable(fixture, "CELERY_WORKER_CONCURRENCY=7");
    set_variable(fixture, "CELERY_WORKER_LOGLEVEL=ERROR");
    set_variable(fixture, "CELERY_WORKER_TASK_EVENTS=true");
    set_variable(fixture, "CELERY_WORKER_PURGE=0");
    set_variable(fixture, "CELERY_WORKER_QUEUES=");
    set_variable(fixture, "NO_COLOR=whatever");
    set_variable(fixture, "CELERY_PORT=tcp://10.0.0.1:80");
    set_variable(fixture, "CELERY_BROKER_URL=redis://x");
    set_variable(fixture, "PETIOLE_CONFIG=petiole.yml");
    const struct options *options = parse(fixture, "worker -c 2");
    assert_string_equal(options->app, "app");
    assert_string_equal(setting(options, "broker_url"), "redis://env");
    assert_string_equal(setting(options, "worker_concurrency"), "2");
    assert_string_equal(setting(options, "worker_send_task_events"), "true");
    assert_int_equal(options->log_level, LOG_ERROR);
    assert_false(options->is_purging);
    assert_null(options->queues);
    assert_true(options->has_no_color);
    assert_string_equal(options->config_path, "petiole.yml");
    assert_int_equal(options->debug_count, 1);
    assert_non_null(strstr(options->debugs[0], "CELERY_PORT"));
    assert_int_equal(parse(fixture, "worker -l DEBUG")->log_level, LOG_DEBUG);
    assert_int_equal(parse(fixture, "probe live")->log_level, LOG_WARNING);
}

static void test_bad_environment(void **state)
{
    struct fixture *fixture = *state;
    set_variable(fixture, "CELERY_WORKER_CONCURRENCY=many");
    check_refused(fixture, "worker",
                  "Invalid value for '-c' / '--concurrency' (env var: "
                  "'CELERY_WORKER_CONCURRENCY'): must be");
    assert_int_equal(parse(fixture, "worker -c 1")->command, OPTIONS_WORKER);
    set_variable(fixture, "CELERY_WORKER_PURGE=perhaps");
    check_refused(fixture, "worker -c 1", "'perhaps' is not a valid boolean.");
}

static void test_autoscale(void **state)
{
    const struct options *options = parse(*state, "worker --autoscale=10,3 -c 2");
    assert_string_equal(setting(options, "worker_concurrency"), "10");
    assert_int_equal(options->warning_count, 1);
    assert_non_null(strstr(options->warnings[0], "up to 10 Python processes"));
    options = parse(*state, "worker -c 2 --autoscale 3,10");
    assert_string_equal(setting(options, "worker_concurrency"), "10");
    options = parse(*state, "worker --autoscale 8");
    assert_string_equal(setting(options, "worker_concurrency"), "8");
    assert_int_equal(options->warning_count, 0);
    check_refused(*state, "worker --autoscale a,1", "two comma separated integers");
    check_refused(*state, "worker --autoscale 1,2,3", "two comma separated integers");
    check_refused(*state, "worker --autoscale=", "two comma separated integers");
    check_refused(*state, "worker --autoscale=-1", "two comma separated integers");
}

static void test_config(void **state)
{
    struct fixture *fixture = *state;
    assert_string_equal(parse(fixture, "--config /x/petiole.yaml worker")->config_path,
                        "/x/petiole.yaml");
    assert_string_equal(parse(fixture, "worker --config a.json")->config_path, "a.json");
    set_variable(fixture, "PETIOLE_CONFIG=env.yaml");
    assert_string_equal(parse(fixture, "--config a.yaml worker")->config_path, "a.yaml");
    const struct options *options = parse(fixture, "--config celeryconfig worker");
    assert_string_equal(options->config_path, "env.yaml");
    assert_string_equal(options->config_module, "celeryconfig");
    options = parse(fixture, "worker --config=");
    assert_null(options->config_module);
    assert_string_equal(options->config_path, "env.yaml");
}

static void test_app(void **state)
{
    struct fixture *fixture = *state;
    const struct options *options = parse(fixture, "-A proj --manifest m.json worker -I a,b");
    assert_string_equal(options->manifest_path, "m.json");
    assert_string_equal(options->include, "a,b");
    assert_int_equal(options->warning_count, 0);
    assert_string_equal(parse(fixture, "check --manifest c.json")->manifest_path, "c.json");
    set_variable(fixture, "PETIOLE_MANIFEST=env.json");
    set_variable(fixture, "CELERY_WORKER_INCLUDE=c");
    options = parse(fixture, "worker");
    assert_string_equal(options->manifest_path, "env.json");
    assert_string_equal(options->include, "c");
    assert_string_equal(parse(fixture, "worker --manifest b")->manifest_path, "b");
    assert_null(parse(fixture, "--version")->manifest_path);
}

static void test_plugins(void **state)
{
    const struct options *options = parse(*state, "--plugin /a,b.so worker --plugin /c\"d.so");
    assert_string_equal(setting(options, "plugins"), "[\"/a,b.so\", \"/c\\\"d.so\"]");
}

static void test_extra_settings(void **state)
{
    const struct options *options =
        parse(*state, "worker -- broker.connection_timeout=9 lookahead=2");
    assert_string_equal(setting(options, "broker_connection_timeout"), "9");
    assert_string_equal(setting(options, "worker_lookahead"), "2");
    check_refused(*state, "worker foo", "\"foo\" is no section.key=value");
    check_refused(*state, "worker a.b=c", "there is no setting \"a_b\"");
}

static void test_probe(void **state)
{
    const struct options *options = parse(*state, "probe --address unix:/x ready");
    assert_int_equal(options->command, OPTIONS_PROBE);
    assert_string_equal(options->probe, "ready");
    assert_string_equal(options->address, "unix:/x");
    check_refused(*state, "probe", "Missing argument");
    check_refused(*state, "probe well", "Got unexpected extra argument (well)");
    check_refused(*state, "probe live -c 4", "No such option '-c'.");
}

static void test_help_and_version(void **state)
{
    assert_int_equal(parse(*state, "")->command, OPTIONS_HELP);
    assert_int_equal(parse(*state, "--version nonsense")->command, OPTIONS_VERSION);
    assert_int_equal(parse(*state, "--help")->help_topic, OPTIONS_HELP);
    assert_int_equal(parse(*state, "worker -c 2 --help")->command, OPTIONS_HELP);
    assert_int_equal(parse(*state, "worker -c 2 --help")->help_topic, OPTIONS_WORKER);
    assert_int_equal(parse(*state, "probe --help")->help_topic, OPTIONS_PROBE);
    assert_int_equal(parse(*state, "help")->help_topic, OPTIONS_HELP);
    assert_int_equal(parse(*state, "help check")->help_topic, OPTIONS_CHECK);
    assert_int_equal(parse(*state, "help settings")->command, OPTIONS_HELP_SETTINGS);
    check_refused(*state, "help beat", "No such command 'beat'.");
    check_refused(*state, "help setings", "No such command 'setings', did you mean settings?");
}

static void test_help_texts(void **state)
{
    static const char *const lines[] = {"--help", "worker --help", "check --help", "probe --help"};
    static const char *const parts[] = {"Commands:", "--loglevel", "FAIL", "--address ADDRESS"};
    for (size_t index = 0; index < ARRAY_LENGTH(lines); index++) {
        char *text = NULL;
        size_t length = 0;
        FILE *file = open_memstream(&text, &length);
        assert_non_null(file);
        options_print_help(file, parse(*state, lines[index]));
        assert_int_equal(fclose(file), 0);
        assert_non_null(strstr(text, parts[index]));
        assert_non_null(strstr(text, "--config FILE"));
        memory_free(&text);
    }
}

static void test_settings_of_options(void **state)
{
    struct fixture *fixture = *state;
    struct settings settings;
    struct error error = {0};
    const struct options *options =
        parse(fixture, "-b redis://u:hunter2@h:1/2 worker -Q x,y,x -X y -c auto");
    assert_true(
        options_load_settings(options, fixture->environment, "w@h", NULL, &settings, &error));
    assert_string_equal(settings.broker, "redis://u:hunter2@h:1/2");
    assert_int_equal(settings.queue_count, 1);
    assert_string_equal(settings.queues[0], "x");
    assert_true(settings.has_explicit_queues);
    settings_fini(&settings);
    options = parse(fixture, "worker -Q x -X x");
    assert_false(
        options_load_settings(options, fixture->environment, NULL, NULL, &settings, &error));
    assert_non_null(strstr(error.message, "no queue is left"));
    settings_fini(&settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_command_line_of_a_deployment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_spellings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_option_of_celery_is_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_environment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_environment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_autoscale, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_config, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_app, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_plugins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_extra_settings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_probe, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_help_and_version, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_help_texts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_settings_of_options, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
