#include "worker/run_dir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/banned.h"

size_t run_dir_candidates(const struct settings *settings, struct arena *arena,
                          const char *ret_paths[RUN_DIR_MAX_CANDIDATES])
{
    size_t count = 0;
    if (settings->run_dir && settings->run_dir[0]) {
        ret_paths[count++] = settings->run_dir;
        return count;
    }
    ret_paths[count++] = "/run/petiole";
    const char *session = secure_getenv("XDG_RUNTIME_DIR");
    if (session && session[0] == '/') {
        ret_paths[count++] = arena_format(arena, "%s/petiole", session);
    }
    ret_paths[count++] = arena_format(arena, "/tmp/petiole-%u", (unsigned)geteuid());
    return count;
}

bool run_dir_is_ours(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid()
           && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool is_usable(const char *path)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return false;
    }
    errno = EACCES;
    return run_dir_is_ours(path) && access(path, W_OK | X_OK) == 0;
}

bool run_dir_open(const struct settings *settings, struct arena *arena, const char **ret_path,
                  struct error *reterr)
{
    const char *paths[RUN_DIR_MAX_CANDIDATES];
    size_t count = run_dir_candidates(settings, arena, paths);
    for (size_t index = 0; index < count; index++) {
        if (is_usable(paths[index])) {
            *ret_path = paths[index];
            return true;
        }
    }
    return error_set(reterr, ERROR_REFUSED,
                     "no run directory: %s cannot be made or is not ours alone: %s",
                     paths[count - 1], strerrordesc_np(errno));
}

const char *run_dir_socket_address(const char *path, const char *node_name, struct arena *arena)
{
    static const size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
    size_t used = strlen(path) + strlen("/.sock");
    size_t room = used < most ? most - used : 0;
    char *address = arena_format(arena, "unix:%s/%.*s.sock", path, (int)room, node_name);
    for (char *letter = address + strlen("unix:") + strlen(path) + 1; *letter; letter++) {
        if (*letter == '/') {
            *letter = '_';
        }
    }
    return address;
}
