#include "worker/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define LOOKUP_BYTES 16384

/* Who to become; -1: stay. */
struct identity {
    uid_t user;
    gid_t group;
    char name[256]; /* of the user, for its further groups; empty: unknown */
};

static bool parse_number(const char *text, unsigned base, unsigned long *ret_number)
{
    char *end = NULL;
    errno = 0;
    unsigned long number = strtoul(text, &end, (int)base);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number >= UINT32_MAX) {
        return false;
    }
    *ret_number = number;
    return true;
}

/* A user by name or number; its main group is the group, unless one is named. */
static bool find_user(const char *text, struct identity *identity, struct error *reterr)
{
    struct passwd entry;
    struct passwd *found = NULL;
    char storage[LOOKUP_BYTES];
    unsigned long number = 0;
    bool is_number = parse_number(text, 10, &number);
    if (is_number) {
        (void)getpwuid_r((uid_t)number, &entry, storage, sizeof(storage), &found);
    } else {
        (void)getpwnam_r(text, &entry, storage, sizeof(storage), &found);
    }
    if (!found && !is_number) {
        return error_set(reterr, ERROR_INVALID, "worker_uid: user does not exist: %.64s", text);
    }
    identity->user = found ? found->pw_uid : (uid_t)number;
    if (found) {
        identity->group = found->pw_gid;
        (void)snprintf(identity->name, sizeof(identity->name), "%s", found->pw_name);
    }
    return true;
}

static bool find_group(const char *text, struct identity *identity, struct error *reterr)
{
    struct group entry;
    struct group *found = NULL;
    char storage[LOOKUP_BYTES];
    unsigned long number = 0;
    if (parse_number(text, 10, &number)) {
        identity->group = (gid_t)number;
        return true;
    }
    (void)getgrnam_r(text, &entry, storage, sizeof(storage), &found);
    if (!found) {
        return error_set(reterr, ERROR_INVALID, "worker_gid: group does not exist: %.64s", text);
    }
    identity->group = found->gr_gid;
    return true;
}

static bool fail(struct error *reterr, const char *what)
{
    return error_set(reterr, ERROR_REFUSED, "%s: %s", what, strerrordesc_np(errno));
}

/* Group first, while we still may. */
static bool become(const struct identity *identity, struct error *reterr)
{
    bool has_user = identity->user != (uid_t)-1;
    if (identity->group != (gid_t)-1 && setgid(identity->group) != 0) {
        return fail(reterr, "worker_gid");
    }
    if (has_user && identity->name[0] && geteuid() == 0
        && initgroups(identity->name, identity->group) != 0) {
        return fail(reterr, "worker_gid");
    }
    if (has_user && setuid(identity->user) != 0) {
        return fail(reterr, "worker_uid");
    }
    if (has_user && identity->user != 0 && setuid(0) == 0) {
        return error_set(reterr, ERROR_REFUSED,
                         "worker_uid: the rights of root could not be dropped");
    }
    return true;
}

/* celery/platforms.py: a text that begins with 0 is octal, else decimal. */
static bool set_umask(const char *text, struct error *reterr)
{
    unsigned long mask = 0;
    const char *digits = strncmp(text, "0o", 2) == 0 ? text + 2 : text;
    if (!parse_number(digits, text[0] == '0' ? 8 : 10, &mask) || mask > 0777) {
        return error_set(reterr, ERROR_INVALID,
                         "worker_umask: an octal number such as 022 is allowed, not \"%.64s\"",
                         text);
    }
    (void)umask((mode_t)mask);
    return true;
}

static bool detach(struct error *reterr)
{
    for (int generation = 0; generation < 2; generation++) {
        pid_t child = fork();
        if (child < 0) {
            return fail(reterr, "--detach");
        }
        if (child > 0) {
            _exit(0);
        }
        if (generation == 0) {
            (void)setsid();
        }
    }
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0) {
        return fail(reterr, "/dev/null");
    }
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++) {
        (void)dup2(nothing, stream);
    }
    if (nothing > STDERR_FILENO) {
        (void)close(nothing);
    }
    return true;
}

bool daemon_enter(const struct options *options, const struct settings *settings,
                  struct error *reterr)
{
    struct identity identity = {.user = (uid_t)-1, .group = (gid_t)-1};
    if (settings->worker_uid && !find_user(settings->worker_uid, &identity, reterr)) {
        return false;
    }
    if (settings->worker_gid && !find_group(settings->worker_gid, &identity, reterr)) {
        return false;
    }
    if (settings->worker_umask && !set_umask(settings->worker_umask, reterr)) {
        return false;
    }
    return (!options->is_detached || detach(reterr)) && become(&identity, reterr);
}
