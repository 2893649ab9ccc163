/* Background, user, group and umask (worker/daemon.h), each in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/daemon.h"

/* What became of the process that called daemon_enter. */
struct finding {
    bool ok;
    pid_t session;
    pid_t process;
    uid_t user;
    gid_t group;
    mode_t mask;
    struct error error;
};

/* Enters in a child and returns what it found there. */
static struct finding enter(const struct options *options, const struct settings *settings)
{
    int pipes[2];
    struct finding finding = {.ok = false};
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        finding.ok = daemon_enter(options, settings, &finding.error);
        finding.session = getsid(0);
        finding.process = getpid();
        finding.user = geteuid();
        finding.group = getegid();
        finding.mask = umask(0);
        _exit(write(pipes[1], &finding, sizeof(finding)) == sizeof(finding) ? 0 : 1);
    }
    int status = -1;
    (void)close(pipes[1]);
    assert_int_equal(read(pipes[0], &finding, sizeof(finding)), sizeof(finding));
    (void)close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return finding;
}

static void test_nothing_asked_for(void **state)
{
    (void)state;
    const struct options options = {.is_detached = false};
    const struct settings settings = {.worker_uid = NULL};
    struct finding finding = enter(&options, &settings);
    assert_true(finding.ok);
    assert_int_equal(finding.user, geteuid());
    assert_int_equal(finding.session, getsid(0));
}

static void test_background(void **state)
{
    (void)state;
    const struct options options = {.is_detached = true};
    const struct settings settings = {.worker_umask = "027"};
    struct finding finding = enter(&options, &settings);
    assert_true(finding.ok);
    assert_int_not_equal(finding.session, getsid(0));
    assert_int_not_equal(finding.session, finding.process);
    assert_int_equal(finding.mask, 027);
}

/* Root becomes nobody; anybody else may only stay who he is. */
static void test_user(void **state)
{
    (void)state;
    const struct options options = {.is_detached = false};
    char own[32];
    (void)snprintf(own, sizeof(own), "%u", (unsigned)geteuid());
    const struct settings settings = {.worker_uid = geteuid() == 0 ? "nobody" : own};
    struct finding finding = enter(&options, &settings);
    assert_true(finding.ok);
    const struct passwd *nobody = getpwnam("nobody");
    uid_t expected = geteuid() == 0 && nobody ? nobody->pw_uid : geteuid();
    assert_int_equal(finding.user, expected);
}

static void test_wrong_names(void **state)
{
    (void)state;
    const struct options options = {.is_detached = false};
    const struct settings user = {.worker_uid = "no-such-user"};
    assert_non_null(strstr(enter(&options, &user).error.message, "user does not exist"));
    const struct settings group = {.worker_gid = "no-such-group"};
    assert_non_null(strstr(enter(&options, &group).error.message, "group does not exist"));
    const struct settings mask = {.worker_umask = "089"};
    assert_non_null(strstr(enter(&options, &mask).error.message, "an octal number"));
    const struct settings wide = {.worker_umask = "07777"};
    assert_false(enter(&options, &wide).ok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_asked_for),
        cmocka_unit_test(test_background),
        cmocka_unit_test(test_user),
        cmocka_unit_test(test_wrong_names),
    };
    return cmocka_run_group_tests_name("daemon", tests, NULL, NULL);
}
