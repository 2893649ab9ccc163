#include "support/sample_plugin.h"

#include <limits.h>
#include <unistd.h>

#include "base/memory.h"

#define FILE_NAME "petiole_sample.so"

static void cut_last_part(char *path)
{
    char *slash = strrchr(path, '/');
    *(slash ? slash : path) = '\0';
}

const char *sample_plugin_path(struct arena *arena)
{
    char folder[PATH_MAX] = "";
    const char *binary = getenv("PETIOLE_BINARY"); /* NOLINT(concurrency-mt-unsafe): one thread */
    if (binary) {
        (void)snprintf(folder, sizeof(folder), "%s", binary);
        cut_last_part(folder);
        return arena_format(arena, "%s/" FILE_NAME, folder);
    }
    ssize_t length = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    folder[length > 0 ? length : 0] = '\0';
    for (size_t above = 0; above < 3; above++) {
        cut_last_part(folder);
        const char *path = arena_format(arena, "%s/" FILE_NAME, folder);
        if (access(path, R_OK) == 0) {
            return path;
        }
    }
    return FILE_NAME;
}
