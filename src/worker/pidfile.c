#include "worker/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/banned.h"

/* Who the file says it belongs to. */
enum holder {
    HOLDER_NONE,
    HOLDER_BROKEN,
    HOLDER_DEAD,
    HOLDER_SELF,
    HOLDER_ALIVE
};

/* The process id in the file, which must be one line that ends; -1 when it is not. */
static long read_pid(FILE *file)
{
    char line[32] = "";
    char *end = NULL;
    if (!fgets(line, sizeof(line), file)) {
        return -1;
    }
    long pid = strtol(line, &end, 10);
    bool is_number = end != line && strspn(line, "0123456789") == (size_t)(end - line);
    return is_number && strcmp(end, "\n") == 0 && pid > 0 ? pid : -1;
}

static enum holder find_holder(const char *path, long *ret_pid)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        return errno == ENOENT ? HOLDER_NONE : HOLDER_BROKEN;
    }
    long pid = read_pid(file);
    (void)fclose(file);
    if (pid < 0) {
        return HOLDER_BROKEN;
    }
    *ret_pid = pid;
    if (pid == (long)getpid()) {
        return HOLDER_SELF;
    }
    bool is_dead = kill((pid_t)pid, 0) != 0 && (errno == ESRCH || errno == EPERM);
    return is_dead ? HOLDER_DEAD : HOLDER_ALIVE;
}

/* Removes a file that holds nobody back; false when a live process holds it. */
static bool clear(const char *path, FILE *notices, struct error *reterr)
{
    long pid = 0;
    enum holder holder = find_holder(path, &pid);
    if (holder == HOLDER_ALIVE) {
        return error_set(reterr, ERROR_CONFLICT,
                         "ERROR: Pidfile (%s) already exists.\n"
                         "Seems we're already running? (pid: %ld)",
                         path, pid);
    }
    if (holder == HOLDER_BROKEN) {
        (void)fprintf(notices, "Broken pidfile found - Removing it.\n");
    }
    if (holder == HOLDER_DEAD) {
        (void)fprintf(notices, "Stale pidfile exists - Removing it.\n");
    }
    if (holder != HOLDER_NONE) {
        (void)unlink(path);
    }
    return true;
}

static bool fail(const char *path, struct error *reterr)
{
    return error_set(reterr, ERROR_INVALID, "cannot write pidfile %s: %s", path,
                     strerrordesc_np(errno));
}

bool pidfile_create(const char *path, FILE *notices, struct error *reterr)
{
    if (!clear(path, notices, reterr)) {
        return false;
    }
    int descriptor = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (descriptor < 0) {
        return fail(path, reterr);
    }
    bool ok = dprintf(descriptor, "%ld\n", (long)getpid()) > 0;
    ok = fsync(descriptor) == 0 && ok;
    if (close(descriptor) != 0 || !ok) {
        (void)fail(path, reterr);
        (void)unlink(path);
        return false;
    }
    return true;
}

void pidfile_remove(const char *path)
{
    long pid = 0;
    if (find_holder(path, &pid) == HOLDER_SELF) {
        (void)unlink(path);
    }
}
