/* Real processes (executor/local_process.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor/local_folder.h"
#include "executor/local_process.h"
#include "support/scratch_folder.h"

#define DEADLINE_MS 60000

struct fixture {
    struct arena *arena;
    const char *folder;
    const char *log_path;
    int log_descriptor;
    struct loop *loop;
    struct local_process_table *table;
    struct local_process process;
    bool has_exited;
    bool is_closed;
    int exit_code;
    int signal_number;
};

static void on_exit_of_child(void *context, int exit_code, int signal_number)
{
    struct fixture *fixture = context;
    assert_false(fixture->has_exited);
    fixture->has_exited = true;
    fixture->exit_code = exit_code;
    fixture->signal_number = signal_number;
}

static void set_flag(void *context)
{
    bool *flag = context;
    *flag = true;
}

/* Turns the loop until `flag` is set. */
static void wait_for(struct fixture *fixture, const bool *flag)
{
    bool is_over = false;
    struct timer deadline = {.on_due = set_flag, .context = &is_over};
    loop_start_timer(fixture->loop, &deadline, DEADLINE_MS);
    while (!*flag && !is_over) {
        loop_run_once(fixture->loop, true);
    }
    loop_stop_timer(fixture->loop, &deadline);
    assert_false(is_over);
}

static int set_up(void **state)
{
    struct arena *arena = arena_new(1024);
    struct fixture *fixture = arena_alloc(arena, sizeof(*fixture));
    fixture->arena = arena;
    fixture->folder = scratch_folder_make(arena);
    fixture->log_path = arena_format(arena, "%s/log", fixture->folder);
    fixture->log_descriptor =
        open(fixture->log_path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    fixture->loop = loop_new(LOOP_CLOCK_REAL);
    fixture->table = local_process_table_new(fixture->loop, NULL);
    fixture->process.on_exit = on_exit_of_child;
    fixture->process.context = fixture;
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    struct arena *arena = fixture->arena;
    local_process_table_close(&fixture->table, set_flag, &fixture->is_closed);
    assert_null(fixture->table);
    wait_for(fixture, &fixture->is_closed);
    loop_free(&fixture->loop);
    (void)close(fixture->log_descriptor);
    scratch_folder_remove(fixture->folder);
    arena_free(&arena);
    return 0;
}

static bool start(struct fixture *fixture, const char *program, const char *script,
                  struct error *error)
{
    char *arguments[] = {arena_text(fixture->arena, bytes_from_text("sh")),
                         arena_text(fixture->arena, bytes_from_text("-c")),
                         arena_text(fixture->arena, bytes_from_text(script)), NULL};
    char *environment[] = {arena_text(fixture->arena, bytes_from_text("A=from the environment")),
                           NULL};
    struct local_process_options options = {
        .program = program,
        .arguments = arguments,
        .environment = environment,
        .working_folder = fixture->folder,
        .output = fixture->log_descriptor,
    };
    return local_process_start(fixture->table, &fixture->process, &options, error);
}

/* Runs `script` to its end and checks code, signal and output. */
static void check_script(struct fixture *fixture, const char *script, int exit_code,
                         int signal_number, const char *output)
{
    fixture->has_exited = false;
    assert_int_equal(ftruncate(fixture->log_descriptor, 0), 0);
    assert_true(start(fixture, "/bin/sh", script, NULL));
    assert_true(fixture->process.id > 0);
    wait_for(fixture, &fixture->has_exited);
    assert_int_equal(fixture->process.id, 0);
    assert_int_equal(fixture->exit_code, exit_code);
    assert_int_equal(fixture->signal_number, signal_number);
    struct bytes text = local_folder_read_end(fixture->log_path, 1000, fixture->arena);
    assert_string_equal(arena_text(fixture->arena, text), output);
}

static void test_codes_and_output(void **state)
{
    struct fixture *fixture = *state;
    check_script(fixture, "echo out; echo err >&2; exit 3", 3, 0, "out\nerr\n");
    check_script(fixture, "echo $A; cat; exit 0", 0, 0, "from the environment\n");
    check_script(fixture, "kill -KILL $$", -1, SIGKILL, "");
    check_script(fixture, "basename \"$(pwd)\" | cut -c1-8", 0, 0, "petiole-\n");
}

static void test_nothing_else_is_open(void **state)
{
    struct fixture *fixture = *state;
    int leak = open("/dev/null", O_RDONLY); /* NOLINT(android-cloexec-open): that is the test */
    assert_true(leak > 2);
    check_script(fixture,
                 arena_format(fixture->arena, "test -e /proc/self/fd/%d && echo open; true", leak),
                 0, 0, "");
    (void)close(leak);
}

static void test_signals_are_as_at_first(void **state)
{
    struct fixture *fixture = *state;
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction before;
    assert_int_equal(sigaction(SIGTERM, &ignore, &before), 0);
    check_script(fixture, "kill -TERM $$; echo survived", -1, SIGTERM, "");
    assert_int_equal(sigaction(SIGTERM, &before, NULL), 0);
}

static void test_leads_a_group(void **state)
{
    struct fixture *fixture = *state;
    assert_true(start(fixture, "/bin/sh", "sleep 1000 & wait", NULL));
    assert_int_equal(getpgid(fixture->process.id), fixture->process.id);
    local_process_signal(&fixture->process, SIGTERM);
    wait_for(fixture, &fixture->has_exited);
    assert_int_equal(fixture->signal_number, SIGTERM);
    local_process_signal(&fixture->process, SIGTERM);
}

/* Reads the end of a pipe whose writers have all gone, or fails after the test's deadline. */
static void wait_for_closed_pipe(int descriptor)
{
    char byte;
    (void)alarm(DEADLINE_MS / 1000);
    while (read(descriptor, &byte, 1) > 0) {
    }
    (void)alarm(0);
}

static void test_rest_of_the_group_is_killed(void **state)
{
    struct fixture *fixture = *state;
    int output[2];
    assert_int_equal(pipe(output), 0); /* NOLINT(android-cloexec-pipe) */
    int log_descriptor = fixture->log_descriptor;
    fixture->log_descriptor = output[1];
    assert_true(start(fixture, "/bin/sh", "sleep 1000 & exit 0", NULL));
    fixture->log_descriptor = log_descriptor;
    (void)close(output[1]);
    wait_for(fixture, &fixture->has_exited);
    wait_for_closed_pipe(output[0]);
    (void)close(output[0]);
}

static void test_dies_with_its_parent(void **state)
{
    struct fixture *fixture = *state;
    int output[2];
    assert_int_equal(pipe(output), 0); /* NOLINT(android-cloexec-pipe) */
    pid_t worker = fork();
    if (worker == 0) {
        (void)close(output[0]);
        fixture->log_descriptor = output[1];
        bool is_started = start(fixture, "/bin/sh", "exec sleep 1000", NULL);
        (void)!write(output[1], is_started ? "1" : "0", 1);
        (void)pause();
        _exit(0);
    }
    (void)close(output[1]);
    char byte = '0';
    assert_int_equal(read(output[0], &byte, 1), 1);
    assert_int_equal(byte, '1');
    assert_int_equal(kill(worker, SIGKILL), 0);
    assert_int_equal(waitpid(worker, NULL, 0), worker);
    wait_for_closed_pipe(output[0]);
    (void)close(output[0]);
}

static void test_what_cannot_run_tells_why(void **state)
{
    struct fixture *fixture = *state;
    struct error error;
    assert_false(start(fixture, "/no/such/program", "", &error));
    assert_int_equal(error.kind, ERROR_NOT_FOUND);
    assert_string_equal(error.message, "cannot run /no/such/program: No such file or directory");
    assert_false(start(fixture, fixture->folder, "", &error));
    assert_int_equal(error.kind, ERROR_REFUSED);
    assert_int_equal(fixture->process.id, 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void test_find(void **state)
{
    struct fixture *fixture = *state;
    struct arena *arena = fixture->arena;
    assert_string_equal(local_process_find("./x/y", "/bin", arena), "./x/y");
    assert_string_equal(local_process_find("sh", "/no/such:/bin:/usr/bin", arena), "/bin/sh");
    assert_non_null(local_process_find("sh", NULL, arena));
    assert_null(local_process_find("no-such-program", "/bin::/usr/bin", arena));
    assert_null(local_process_find("bin", "/usr", arena));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_codes_and_output),
        TEST(test_nothing_else_is_open),
        TEST(test_signals_are_as_at_first),
        TEST(test_leads_a_group),
        TEST(test_rest_of_the_group_is_killed),
        TEST(test_dies_with_its_parent),
        TEST(test_what_cannot_run_tells_why),
        TEST(test_find),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
