/* Folders and files of local tasks (executor/local_folder.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "executor/local_folder.h"
#include "support/scratch_folder.h"

struct fixture {
    struct arena *arena;
    const char *folder;
};

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct fixture *fixture = arena_alloc(arena, sizeof(*fixture));
    fixture->arena = arena;
    fixture->folder = scratch_folder_make(arena);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct arena *arena = fixture->arena;
    scratch_folder_remove(fixture->folder);
    arena_free(&arena);
    return 0;
}

static const char *path_of(struct fixture *fixture, const char *name)
{
    return arena_format(fixture->arena, "%s/%s", fixture->folder, name);
}

static void check_end(struct fixture *fixture, const char *path, size_t max_bytes,
                      const char *expected)
{
    struct bytes content = local_folder_read_end(path, max_bytes, fixture->arena);
    assert_true(bytes_equal_text(content, expected));
}

static int fill(struct fixture *fixture, const char *log_path, struct error *error)
{
    const char *folders[] = {path_of(fixture, "a/b"), path_of(fixture, "a/b"), NULL};
    struct local_plan_file files[] = {
        {path_of(fixture, "a/b/empty"), {NULL, 0}},
        {path_of(fixture, "a/file"), BYTES("hello")},
    };
    struct local_plan plan = {.folders = folders, .files = files, .file_count = 2};
    int descriptor = -1;
    (void)!local_folder_fill(&plan, log_path, &descriptor, error);
    return descriptor;
}

static void test_fill_and_read(void **state)
{
    struct fixture *fixture = *state;
    const char *log_path = path_of(fixture, "log");
    for (size_t round = 0; round < 2; round++) {
        int descriptor = fill(fixture, log_path, NULL);
        assert_true(descriptor >= 0);
        assert_int_equal(write(descriptor, "line\n", 5), 5);
        (void)close(descriptor);
    }
    check_end(fixture, path_of(fixture, "a/b/empty"), 10, "");
    check_end(fixture, path_of(fixture, "a/file"), 10, "hello");
    check_end(fixture, path_of(fixture, "a/file"), 5, "hello");
    check_end(fixture, path_of(fixture, "a/file"), 3, "llo");
    check_end(fixture, log_path, 100, "line\nline\n");
    struct stat status;
    assert_int_equal(stat(path_of(fixture, "a"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    assert_int_equal(stat(log_path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void test_what_is_no_file_is_empty(void **state)
{
    struct fixture *fixture = *state;
    check_end(fixture, path_of(fixture, "none"), 10, "");
    check_end(fixture, fixture->folder, 10, "");
    assert_int_equal(mkfifo(path_of(fixture, "pipe"), 0600), 0);
    check_end(fixture, path_of(fixture, "pipe"), 10, "");
    assert_int_equal(symlink("/etc/passwd", path_of(fixture, "link")), 0);
    check_end(fixture, path_of(fixture, "link"), 10, "");
}

static void test_errors_name_the_path(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    const char *log_path = path_of(fixture, "no/such/log");
    assert_int_equal(fill(fixture, log_path, &error), -1);
    assert_string_equal(error.message, arena_format(fixture->arena,
                                                    "cannot open the log %s: No such file or "
                                                    "directory",
                                                    log_path));
    const char *below_a_file = path_of(fixture, "a/file/folder");
    assert_false(local_folder_make(below_a_file, &error));
    assert_string_equal(
        error.message,
        arena_format(fixture->arena, "cannot make the folder %s: Not a directory", below_a_file));
}

static void test_remove_follows_no_links(void **state)
{
    struct fixture *fixture = *state;
    int descriptor = fill(fixture, path_of(fixture, "log"), NULL);
    (void)close(descriptor);
    assert_true(local_folder_make(path_of(fixture, "kept/inner"), NULL));
    assert_int_equal(symlink(path_of(fixture, "kept"), path_of(fixture, "a/link")), 0);
    local_folder_remove(path_of(fixture, "a"));
    assert_int_equal(access(path_of(fixture, "a"), F_OK), -1);
    assert_int_equal(access(path_of(fixture, "kept/inner"), F_OK), 0);
    local_folder_remove(path_of(fixture, "a"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_fill_and_read),
        TEST(test_what_is_no_file_is_empty),
        TEST(test_errors_name_the_path),
        TEST(test_remove_follows_no_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
