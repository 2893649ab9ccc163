#include "executor/local_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#define DEFAULT_PATH      "/usr/bin:/bin"
#define EXIT_NOT_EXECUTED 127
#define FIRST_OTHER_FILE  3 /* behind stdin, stdout and stderr */
#define REASON_SIZE       128

struct local_process_table {
    uv_signal_t child_ended;
    struct list running;
    void (*on_closed)(void *context);
    void *closed_context;
};

/* Between fork and exec: only what is safe in a copy of a process with threads */

static void reset_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++) {
        (void)signal(number, SIG_DFL);
    }
    (void)sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* The descriptor that is opened may be the very one that it is for: then it must survive the
 * exec. */
static bool redirect(int input, int output)
{
    input = input > 0 ? input : open("/dev/null", O_RDONLY); /* NOLINT(android-cloexec-open) */
    return input >= 0 && dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0
           && dup2(output, STDERR_FILENO) >= 0;
}

static _Noreturn void become_program(const struct local_process_options *options, pid_t parent,
                                     int error_output)
{
    (void)setsid();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    bool is_orphan = getppid() != parent;
    if (!is_orphan && redirect(options->input, options->output)) {
        if (options->working_folder) {
            (void)!chdir(options->working_folder);
        }
        reset_signals();
        (void)close_range(FIRST_OTHER_FILE, ~0U, CLOSE_RANGE_CLOEXEC);
        (void)execve(options->program, options->arguments, options->environment);
    }
    int reason = errno;
    (void)!write(error_output, &reason, sizeof(reason));
    _exit(EXIT_NOT_EXECUTED);
}

/* In the worker */

/* Waits until the child has executed its program; 0, or why it could not. */
static int read_exec_error(int error_input)
{
    int reason = 0;
    ssize_t count = 0;
    do {
        count = read(error_input, &reason, sizeof(reason));
    } while (count < 0 && errno == EINTR);
    return count == (ssize_t)sizeof(reason) ? reason : 0;
}

static bool fail_start(const char *program, int reason, struct error *reterr)
{
    char text[REASON_SIZE];
    enum error_kind kind = reason == ENOENT || reason == ENOTDIR   ? ERROR_NOT_FOUND
                           : reason == EACCES || reason == ENOEXEC ? ERROR_REFUSED
                                                                   : ERROR_TEMPORARY;
    return error_set(reterr, kind, "cannot run %s: %s", program,
                     strerror_r(reason, text, sizeof(text)));
}

/* Forks with all signals blocked, so that no handler of the worker runs in the child. */
static pid_t fork_program(const struct local_process_options *options, const int error_pipe[2])
{
    sigset_t all;
    sigset_t before;
    pid_t parent = getpid();
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    if (child == 0) {
        become_program(options, parent, error_pipe[1]);
    }
    int reason = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = reason;
    return child;
}

bool local_process_start(struct local_process_table *table, struct local_process *process,
                         const struct local_process_options *options, struct error *reterr)
{
    int error_pipe[2];
    if (pipe2(error_pipe, O_CLOEXEC) != 0) {
        return fail_start(options->program, errno, reterr);
    }
    pid_t child = fork_program(options, error_pipe);
    int reason = child < 0 ? errno : 0;
    (void)close(error_pipe[1]);
    if (child > 0) {
        reason = read_exec_error(error_pipe[0]);
    }
    (void)close(error_pipe[0]);
    if (reason != 0) {
        if (child > 0) {
            (void)waitpid(child, NULL, 0); /* it is about to end */
        }
        return fail_start(options->program, reason, reterr);
    }
    process->id = child;
    list_append(&table->running, &process->node);
    return true;
}

void local_process_signal(const struct local_process *process, int signal_number)
{
    if (process->id > 0) {
        (void)kill(-process->id, signal_number);
    }
}

/* Whether the process has ended. Kills the rest of its group before its id can be used again. */
static bool reap(struct local_process *process, int *ret_status)
{
    siginfo_t info = {.si_pid = 0};
    int failed = waitid(P_PID, (id_t)process->id, &info, WEXITED | WNOHANG | WNOWAIT);
    if (failed != 0 || info.si_pid == 0) {
        return false;
    }
    (void)kill(-process->id, SIGKILL);
    return waitpid(process->id, ret_status, 0) == process->id;
}

static void on_child_ended(uv_signal_t *handle, int signal_number)
{
    struct local_process_table *table = handle->data;
    (void)signal_number;
    /* Signals merge: one may stand for several children. */
    list_for_each(node, following, &table->running) {
        struct local_process *process = list_entry(node, struct local_process, node);
        int status = 0;
        if (reap(process, &status)) {
            list_remove(node);
            process->id = 0;
            bool is_exit = WIFEXITED(status);
            process->on_exit(process->context, is_exit ? WEXITSTATUS(status) : -1,
                             is_exit ? 0 : WTERMSIG(status));
        }
    }
}

struct local_process_table *local_process_table_new(struct loop *loop, struct error *reterr)
{
    struct local_process_table *table = memory_new(sizeof(*table));
    list_init(&table->running);
    table->child_ended.data = table;
    int failed = uv_signal_init(loop_uv(loop), &table->child_ended);
    if (failed) {
        memory_free(&table);
        (void)error_set(reterr, ERROR_TEMPORARY, "cannot watch for ended processes: %s",
                        uv_strerror(failed));
        return NULL;
    }
    (void)uv_signal_start(&table->child_ended, on_child_ended, SIGCHLD);
    uv_unref((uv_handle_t *)&table->child_ended);
    return table;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct local_process_table *table = handle->data;
    void (*on_closed)(void *) = table->on_closed;
    void *context = table->closed_context;
    memory_free(&table);
    on_closed(context);
}

void local_process_table_close(struct local_process_table **table, void (*on_closed)(void *context),
                               void *context)
{
    (*table)->on_closed = on_closed;
    (*table)->closed_context = context;
    uv_close((uv_handle_t *)&(*table)->child_ended, on_handle_closed);
    *table = NULL;
}

static bool is_program(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

const char *local_process_find(const char *program, const char *path_list, struct arena *arena)
{
    if (strchr(program, '/')) {
        return program;
    }
    const char *position = path_list && path_list[0] != '\0' ? path_list : DEFAULT_PATH;
    while (position[0] != '\0') {
        size_t length = strcspn(position, ":");
        const char *path =
            arena_format(arena, "%.*s%s%s", (int)length, position, length > 0 ? "/" : "", program);
        if (is_program(path)) {
            return path;
        }
        position += length + (position[length] == ':');
    }
    return NULL;
}
