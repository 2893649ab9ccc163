#include "worker/manifest_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/banned.h"

#define PIECE_BYTES        65536
#define END_LOOK_MS        5
#define EXIT_BY_SIGNAL     128
#define MILLISECONDS_PER_S 1000
#define NANOSECONDS_PER_MS 1000000L

/* A program that runs. */
struct process {
    pid_t id;
    int output;      /* what it writes; non-blocking */
    int signals;     /* those that end us, which are blocked as long as it runs */
    int64_t ends_ms; /* on the clock of now_ms */
};

static int64_t now_ms(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * MILLISECONDS_PER_S + now.tv_nsec / NANOSECONDS_PER_MS;
}

/* Signals that we ignore, such as SIGPIPE, are not to be ignored by the program. */
static int spawn(const struct manifest_process_options *options, int output, pid_t *ret_id)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all;
    sigset_t none;
    (void)sigfillset(&all);
    (void)sigemptyset(&none);
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return ENOMEM;
    }
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return ENOMEM;
    }
    int failed = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    failed = failed ? failed : posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (!failed && options->is_silent) {
        failed =
            posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    }
    failed = failed ? failed : posix_spawnattr_setsigdefault(&attributes, &all);
    failed = failed ? failed : posix_spawnattr_setsigmask(&attributes, &none);
    failed = failed ? failed
                    : posix_spawnattr_setflags(&attributes,
                                               POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    failed = failed ? failed
                    : posix_spawn(ret_id, options->program, &actions, &attributes,
                                  options->arguments, options->environment);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static bool start(const struct manifest_process_options *options, struct process *process,
                  struct error *reterr)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return error_set(reterr, ERROR_TEMPORARY, "cannot make a pipe: %s", strerrordesc_np(errno));
    }
    int failed = spawn(options, ends[1], &process->id);
    (void)close(ends[1]);
    if (failed) {
        (void)close(ends[0]);
        bool is_absent =
            failed == ENOENT || failed == ENOTDIR || failed == EACCES || failed == ENOEXEC;
        return error_set(reterr, is_absent ? ERROR_NOT_FOUND : ERROR_TEMPORARY, "cannot run %s: %s",
                         options->program, strerrordesc_np(failed));
    }
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
    process->output = ends[0];
    process->ends_ms = now_ms() + options->deadline_ms;
    return true;
}

static bool fail_late(const struct manifest_process_options *options, struct error *reterr)
{
    return error_set(reterr, ERROR_TIMEOUT, "%s did not end within %lld s", options->program,
                     (long long)(options->deadline_ms / MILLISECONDS_PER_S));
}

/* Takes what is there. False when nothing more will come: `*ret_ok` tells whether that is the end
 * of the output. */
static bool take(const struct process *process, struct buffer *output, bool *ret_ok)
{
    char piece[PIECE_BYTES];
    ssize_t count = read(process->output, piece, sizeof(piece));
    if (count > 0) {
        *ret_ok = buffer_append(output, bytes_of(piece, (size_t)count));
        return *ret_ok;
    }
    *ret_ok = true;
    return count < 0 && (errno == EAGAIN || errno == EINTR);
}

static bool fail_stopped(const struct manifest_process_options *options,
                         const struct process *process, struct error *reterr)
{
    struct signalfd_siginfo heard;
    (void)!read(process->signals, &heard, sizeof(heard));
    return error_set(reterr, ERROR_REFUSED, "%s was given up because of a signal",
                     options->program);
}

static bool read_output(const struct manifest_process_options *options,
                        const struct process *process, struct buffer *output, struct error *reterr)
{
    bool ok = true;
    bool is_open = true;
    while (is_open) {
        int64_t left_ms = process->ends_ms - now_ms();
        struct pollfd waited[] = {{.fd = process->output, .events = POLLIN},
                                  {.fd = process->signals, .events = POLLIN}};
        int count = left_ms > 0 ? poll(waited, ARRAY_LENGTH(waited), (int)left_ms) : 0;
        if (count == 0) {
            return fail_late(options, reterr);
        }
        if (count > 0 && waited[1].revents != 0) {
            return fail_stopped(options, process, reterr);
        }
        is_open = count < 0 || take(process, output, &ok);
    }
    return ok
           || error_set(reterr, ERROR_TOO_LARGE, "%s wrote more than %zu bytes", options->program,
                        output->max_bytes);
}

/* Waits for the end, which follows that of the output at once, unless the program closed it. */
static bool await_end(const struct manifest_process_options *options, const struct process *process,
                      int *ret_exit_code, struct error *reterr)
{
    struct pollfd waited = {.fd = process->signals, .events = POLLIN};
    int status = 0;
    pid_t ended = 0;
    while ((ended = waitpid(process->id, &status, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
        if (now_ms() >= process->ends_ms) {
            return fail_late(options, reterr);
        }
        if (poll(&waited, 1, END_LOOK_MS) > 0) {
            return fail_stopped(options, process, reterr);
        }
    }
    if (ended < 0) {
        return error_set(reterr, ERROR_TEMPORARY, "cannot wait for %s: %s", options->program,
                         strerrordesc_np(errno));
    }
    *ret_exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_BY_SIGNAL + WTERMSIG(status);
    return true;
}

/* Until restore_signals, what would end us is heard by the descriptor that this returns: the program is
 * not to outlive us. As a container's first process we would not even be ended. */
static int take_signals(sigset_t *ret_former)
{
    sigset_t ending;
    (void)sigemptyset(&ending);
    (void)sigaddset(&ending, SIGTERM);
    (void)sigaddset(&ending, SIGINT);
    (void)sigaddset(&ending, SIGQUIT);
    (void)pthread_sigmask(SIG_BLOCK, &ending, ret_former);
    return signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void restore_signals(int signals, const sigset_t *former)
{
    (void)close(signals);
    (void)pthread_sigmask(SIG_SETMASK, former, NULL);
}

bool manifest_process_run(const struct manifest_process_options *options, struct buffer *output,
                          int *ret_exit_code, struct error *reterr)
{
    sigset_t former;
    struct process process = {.signals = take_signals(&former)};
    if (!start(options, &process, reterr)) {
        restore_signals(process.signals, &former);
        return false;
    }
    bool ok = read_output(options, &process, output, reterr)
              && await_end(options, &process, ret_exit_code, reterr);
    (void)close(process.output);
    if (!ok) {
        (void)kill(process.id, SIGKILL);
        (void)waitpid(process.id, NULL, 0);
    }
    restore_signals(process.signals, &former);
    return ok;
}
