/* The command `petiole check` (worker/check_command.h) without a cluster, against a real Redis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "support/redis_server.h"
#include "worker/check_command.h"

#define TEMPLATE                                                                                   \
    "apiVersion: batch/v1\nkind: Job\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n" \
    "      containers:\n        - name: main\n          image: busybox\n"                          \
    "          command: [\"true\"]\n"

struct fixture {
    struct redis_server server;
    struct arena *arena;
    char config_path[128];
    char template_path[128];
    char output_path[128];
    char text[8192]; /* what was printed */
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    redis_server_start(&fixture->server, false);
    fixture->arena = arena_new(4096);
    const char *folder = fixture->server.directory;
    (void)snprintf(fixture->config_path, sizeof(fixture->config_path), "%s/p.yaml", folder);
    (void)snprintf(fixture->template_path, sizeof(fixture->template_path), "%s/job.yaml", folder);
    (void)snprintf(fixture->output_path, sizeof(fixture->output_path), "%s/out", folder);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)unlink(fixture->config_path);
    (void)unlink(fixture->template_path);
    (void)unlink(fixture->output_path);
    redis_server_stop(&fixture->server);
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Runs the command with its stdout in a file. */
static int check(struct fixture *fixture)
{
    char *words[] = {arena_text(fixture->arena, BYTES("petiole")),
                     arena_text(fixture->arena, BYTES("--config")), fixture->config_path,
                     arena_text(fixture->arena, BYTES("check"))};
    char *environment[] = {NULL};
    struct options options;
    struct error error = {0};
    assert_true(options_parse(&options, 4, words, environment, &error));
    (void)fflush(stdout);
    int terminal = dup(STDOUT_FILENO);
    assert_non_null(freopen(fixture->output_path, "w", stdout));
    int exit_code = check_command_run(&options, environment);
    (void)fflush(stdout);
    assert_int_equal(dup2(terminal, STDOUT_FILENO), STDOUT_FILENO);
    (void)close(terminal);
    options_fini(&options);
    FILE *file = fopen(fixture->output_path, "re");
    assert_non_null(file);
    fixture->text[fread(fixture->text, 1, sizeof(fixture->text) - 1, file)] = '\0';
    (void)fclose(file);
    return exit_code;
}

static void write_config(struct fixture *fixture, const char *tasks)
{
    write_file(fixture->config_path,
               arena_format(fixture->arena, "broker_url: %s\nresult_backend: %s\n%s",
                            fixture->server.url, fixture->server.url, tasks));
}

static void check_line(const struct fixture *fixture, const char *part)
{
    if (!strstr(fixture->text, part)) {
        fail_msg("\"%s\" is not in:\n%s", part, fixture->text);
    }
}

static void test_well(void **state)
{
    struct fixture *fixture = *state;
    write_file(fixture->template_path, TEMPLATE);
    write_config(fixture, "tasks: {a: {executor: local, job_template: job.yaml}}\n");
    int exit_code = check(fixture);
    check_line(fixture, "ok   settings");
    check_line(fixture, "ok   task           a: ");
    check_line(fixture, "ok   broker         redis://127.0.0.1:");
    check_line(fixture, "ok   queue          tenant-user\n");
    check_line(fixture, "ok   results        redis://127.0.0.1:");
    assert_null(strstr(fixture->text, "FAIL"));
    assert_int_equal(exit_code, 0);
}

static void test_every_fault_has_its_line(void **state)
{
    struct fixture *fixture = *state;
    write_config(fixture, "plugins: [/nonexistent/plugin.so]\n"
                          "tasks:\n  a: {executor: local, job_template: none.yaml}\n"
                          "  b: {executor: native}\n  c: {executor: process}\n");
    redis_server_kill(&fixture->server);
    assert_int_equal(check(fixture), 1);
    check_line(fixture, "ok   settings");
    check_line(fixture, "FAIL plugin         ");
    check_line(fixture, "FAIL task           a: ");
    check_line(fixture, "FAIL task           b: executor native, but no plugin has it");
    check_line(fixture, "FAIL task           c: the Celery app is not named: give it as -A");
    check_line(fixture, "FAIL broker         redis://127.0.0.1:");
    check_line(fixture, "FAIL results        redis://127.0.0.1:");
}

static void test_wrong_settings(void **state)
{
    struct fixture *fixture = *state;
    write_config(fixture, "no_such_setting: 1\n");
    assert_int_equal(check(fixture), 1);
    check_line(fixture, "FAIL settings");
    check_line(fixture, "p.yaml:3: there is no setting \"no_such_setting\"");
}

static void test_no_tasks_and_no_urls(void **state)
{
    struct fixture *fixture = *state;
    write_file(fixture->config_path, "{}\n");
    assert_int_equal(check(fixture), 1);
    check_line(fixture, "FAIL tasks          the settings name none");
    check_line(fixture, "FAIL broker         broker_url is not set");
    check_line(fixture, "ok   results        not stored: no result_backend");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_well, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_fault_has_its_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_settings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_tasks_and_no_urls, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("check_command", tests, NULL, NULL);
}
