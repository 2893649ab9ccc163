/* Pidfiles (worker/pidfile.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/pidfile.h"

struct fixture {
    char folder[32];
    char path[64];
    char *notices;
    size_t notices_length;
    FILE *file;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    (void)snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/petiole-test-XXXXXX");
    *state = fixture;
    if (!mkdtemp(fixture->folder)) {
        return -1;
    }
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/worker.pid", fixture->folder);
    fixture->file = open_memstream(&fixture->notices, &fixture->notices_length);
    return fixture->file ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)fclose(fixture->file);
    free(fixture->notices);
    (void)unlink(fixture->path);
    (void)rmdir(fixture->folder);
    free(fixture);
    return 0;
}

static void write_file(const struct fixture *fixture, const char *text)
{
    FILE *file = fopen(fixture->path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void check_created(struct fixture *fixture, const char *notice)
{
    char text[32] = "";
    char expected[32];
    struct stat status;
    struct error error = {0};
    assert_true(pidfile_create(fixture->path, fixture->file, &error));
    assert_int_equal(fflush(fixture->file), 0);
    assert_string_equal(fixture->notices, notice);
    FILE *file = fopen(fixture->path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    assert_int_equal(fclose(file), 0);
    (void)snprintf(expected, sizeof(expected), "%ld\n", (long)getpid());
    assert_string_equal(text, expected);
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 0777 & ~(mode_t)0644, 0);
}

static void test_new_file(void **state)
{
    struct fixture *fixture = *state;
    check_created(fixture, "");
    pidfile_remove(fixture->path);
    assert_int_equal(access(fixture->path, F_OK), -1);
}

static void test_broken_file(void **state)
{
    write_file(*state, "not a number\n");
    check_created(*state, "Broken pidfile found - Removing it.\n");
}

static void test_cut_file(void **state)
{
    write_file(*state, "123");
    check_created(*state, "Broken pidfile found - Removing it.\n");
}

static void test_stale_file(void **state)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    char text[32];
    (void)snprintf(text, sizeof(text), "%ld\n", (long)child);
    write_file(*state, text);
    check_created(*state, "Stale pidfile exists - Removing it.\n");
}

static void test_own_file(void **state)
{
    check_created(*state, "");
    check_created(*state, "");
}

static void test_live_file(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    char text[32];
    (void)snprintf(text, sizeof(text), "%ld\n", (long)getppid());
    write_file(fixture, text);
    assert_false(pidfile_create(fixture->path, fixture->file, &error));
    assert_int_equal(error.kind, ERROR_CONFLICT);
    assert_non_null(strstr(error.message, "already exists.\nSeems we're already running? (pid: "));
    pidfile_remove(fixture->path);
    assert_int_equal(access(fixture->path, F_OK), 0);
}

static void test_no_folder(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    assert_false(pidfile_create("/nonexistent/worker.pid", fixture->file, &error));
    assert_int_equal(error.kind, ERROR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_new_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_broken_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cut_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_live_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_folder, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("pidfile", tests, NULL, NULL);
}
