/* Where a manifest comes from (worker/manifest.h), with shell scripts in Python's place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/manifest.h"
#include "worker/options.h"

struct fixture {
    char folder[32];
    char python[64];
    char variable[96];
    char *environment[2];
    struct options options;
    struct manifest manifest;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    (void)snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/petiole-test-XXXXXX");
    *state = fixture;
    if (!mkdtemp(fixture->folder)) {
        return -1;
    }
    (void)snprintf(fixture->python, sizeof(fixture->python), "%s/python", fixture->folder);
    (void)snprintf(fixture->variable, sizeof(fixture->variable), "PETIOLE_PYTHON=%s",
                   fixture->python);
    fixture->environment[0] = fixture->variable;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    manifest_fini(&fixture->manifest);
    (void)unlink(fixture->python);
    (void)rmdir(fixture->folder);
    memory_free(&fixture);
    return 0;
}

/* Makes `script` the Python. */
static void set_python(struct fixture *fixture, const char *script)
{
    FILE *file = fopen(fixture->python, "we");
    assert_non_null(file);
    assert_true(fprintf(file, "#!/bin/sh\n%s\n", script) > 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(fixture->python, S_IRWXU), 0);
}

static void load(struct fixture *fixture)
{
    struct error error = {0};
    manifest_fini(&fixture->manifest);
    if (!manifest_load(&fixture->manifest, &fixture->options, fixture->environment, &error)) {
        fail_msg("%s", error.message);
    }
}

static void check_fails(struct fixture *fixture, enum error_kind kind, const char *expected)
{
    struct error error = {0};
    manifest_fini(&fixture->manifest);
    assert_false(
        manifest_load(&fixture->manifest, &fixture->options, fixture->environment, &error));
    assert_int_equal(error.kind, kind);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" is not in \"%s\"", expected, error.message);
    }
}

static void check_text(const struct fixture *fixture, const char *expected)
{
    assert_true(bytes_equal(buffer_view(&fixture->manifest.text), bytes_from_text(expected)));
}

static void test_nothing_is_asked_for(void **state)
{
    struct fixture *fixture = *state;
    set_python(fixture, "exit 1");
    load(fixture);
    assert_null(fixture->manifest.origin);
    assert_null(fixture->manifest.warning);
}

static void test_python_is_asked(void **state)
{
    struct fixture *fixture = *state;
    set_python(fixture, "printf '%s ' \"$@\"");
    fixture->options = (struct options){.app = "proj", .include = "a,b", .config_module = "c"};
    load(fixture);
    check_text(fixture,
               "-m petiole.manifest --app proj --include a,b --config c --with-credentials ");
    assert_string_equal(fixture->manifest.origin, "app proj");
    fixture->options = (struct options){.config_module = "c"};
    load(fixture);
    check_text(fixture, "-m petiole.manifest --config c --with-credentials ");
    assert_string_equal(fixture->manifest.origin, "config module c");
}

static void test_python_fails(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.app = "proj";
    set_python(fixture, "exit 2");
    check_fails(fixture, ERROR_NOT_FOUND, "app proj cannot be loaded");
    assert_true(fixture->manifest.is_told);
    set_python(fixture, "test \"$1\" = -c || exit 1");
    check_fails(fixture, ERROR_INVALID, "exit code 1");
    assert_true(fixture->manifest.is_told);
    set_python(fixture, "test \"$1\" = -c || kill -9 $$");
    check_fails(fixture, ERROR_INVALID, "exit code 137");
    assert_false(fixture->manifest.is_told);
    set_python(fixture, "kill -9 $$");
    load(fixture); /* neither can it import the package */
    assert_non_null(strstr(fixture->manifest.warning, "has no package petiole"));
}

static void test_there_is_no_python(void **state)
{
    struct fixture *fixture = *state;
    fixture->options.app = "proj";
    load(fixture);
    assert_null(fixture->manifest.origin);
    assert_non_null(strstr(fixture->manifest.warning, "app proj"));
    assert_non_null(strstr(fixture->manifest.warning, fixture->python));
    fixture->environment[0] = (char[]){"PATH=/nonexistent"};
    load(fixture);
    assert_non_null(strstr(fixture->manifest.warning, "no python3 on PATH"));
}

static void test_file(void **state)
{
    struct fixture *fixture = *state;
    set_python(fixture, "exit 1");
    fixture->options = (struct options){.app = "proj", .manifest_path = fixture->python};
    load(fixture);
    check_text(fixture, "#!/bin/sh\nexit 1\n");
    assert_string_equal(fixture->manifest.origin, fixture->python);
    fixture->options.manifest_path = "/nonexistent/m.json";
    check_fails(fixture, ERROR_INVALID, "/nonexistent/m.json: cannot be opened");
    fixture->options.manifest_path = fixture->folder;
    check_fails(fixture, ERROR_INVALID, "cannot be read");
    fixture->options.manifest_path = "/dev/zero";
    check_fails(fixture, ERROR_TOO_LARGE, "/dev/zero: larger than");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_python_is_asked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_python_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_there_is_no_python, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
