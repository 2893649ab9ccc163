/* The folder of this machine's workers (worker/run_dir.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/run_dir.h"

struct fixture {
    char folder[32];
    struct arena *arena;
    struct settings settings;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    (void)snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/petiole-test-XXXXXX");
    fixture->arena = arena_new(1024);
    *state = fixture;
    return mkdtemp(fixture->folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)rmdir(fixture->folder);
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

static void test_folder_is_made(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    const char *path = NULL;
    struct stat status;
    fixture->settings.run_dir = arena_format(fixture->arena, "%s/run", fixture->folder);
    assert_true(run_dir_open(&fixture->settings, fixture->arena, &path, &error));
    assert_string_equal(path, fixture->settings.run_dir);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_true(run_dir_open(&fixture->settings, fixture->arena, &path, &error));
    assert_int_equal(rmdir(path), 0);
}

static void test_foreign_folders_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    const char *path = NULL;
    fixture->settings.run_dir = arena_format(fixture->arena, "%s/a/b", fixture->folder);
    assert_false(run_dir_open(&fixture->settings, fixture->arena, &path, &error));
    assert_int_equal(error.kind, ERROR_REFUSED);
    assert_true(run_dir_is_ours(fixture->folder));
    assert_int_equal(chmod(fixture->folder, 0777), 0);
    assert_false(run_dir_is_ours(fixture->folder));
    fixture->settings.run_dir = fixture->folder;
    assert_false(run_dir_open(&fixture->settings, fixture->arena, &path, &error));

    const char *link = arena_format(fixture->arena, "%s/link", fixture->folder);
    assert_int_equal(symlink("/tmp", link), 0);
    assert_false(run_dir_is_ours(link));
    assert_int_equal(unlink(link), 0);
}

static void test_candidates(void **state)
{
    struct fixture *fixture = *state;
    const char *paths[RUN_DIR_MAX_CANDIDATES];
    size_t count = run_dir_candidates(&fixture->settings, fixture->arena, paths);
    assert_true(count >= 2);
    assert_string_equal(paths[0], "/run/petiole");
    fixture->settings.run_dir = "/own";
    assert_int_equal(run_dir_candidates(&fixture->settings, fixture->arena, paths), 1);
    assert_string_equal(paths[0], "/own");
}

static void test_socket_addresses(void **state)
{
    struct fixture *fixture = *state;
    assert_string_equal(run_dir_socket_address("/run/petiole", "w@box", fixture->arena),
                        "unix:/run/petiole/w@box.sock");
    assert_string_equal(run_dir_socket_address("/run/petiole", "../w@box", fixture->arena),
                        "unix:/run/petiole/.._w@box.sock");
    char name[300];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    const char *address = run_dir_socket_address("/run/petiole", name, fixture->arena);
    assert_int_equal(strlen(address), strlen("unix:") + 107);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_folder_is_made, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_foreign_folders_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_candidates, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_socket_addresses, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("run_dir", tests, NULL, NULL);
}
