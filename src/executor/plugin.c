#include "executor/plugin.h"

#include <dlfcn.h>
#include <petiole.h>

#include "base/map.h"
#include "base/memory.h"

#define ENTRY_SYMBOL "petiole_plugin_entry"

typedef const struct petiole_plugin *(entry_fn)(void);

struct plugin_set {
    struct map *tasks; /* name -> struct petiole_task, borrowed from the libraries */
};

struct plugin_set *plugin_set_new(void)
{
    struct plugin_set *set = memory_new(sizeof(*set));
    set->tasks = map_new();
    return set;
}

void plugin_set_free(struct plugin_set **set)
{
    if (!*set) {
        return;
    }
    map_free(&(*set)->tasks);
    memory_free(set);
}

/* The size comes first, because nothing behind a shorter struct may be read. */
static bool check_version(const struct petiole_plugin *plugin, const char *path,
                          struct error *reterr)
{
    if (!plugin) {
        return error_set(reterr, ERROR_INVALID, "plugin %s: " ENTRY_SYMBOL "() returned no table",
                         path);
    }
    if (plugin->size < offsetof(struct petiole_plugin, name)) {
        return error_set(reterr, ERROR_INVALID,
                         "plugin %s: its table has %zu bytes, this worker needs %zu", path,
                         plugin->size, sizeof(*plugin));
    }
    if (plugin->abi_version != PETIOLE_PLUGIN_ABI) {
        return error_set(reterr, ERROR_INVALID,
                         "plugin %s was built for version %u of the plugin ABI, this worker has "
                         "version %u: build it again with this worker's petiole.h",
                         path, plugin->abi_version, (unsigned)PETIOLE_PLUGIN_ABI);
    }
    if (plugin->size < sizeof(*plugin)) {
        return error_set(reterr, ERROR_INVALID,
                         "plugin %s: its table has %zu bytes, this worker needs %zu", path,
                         plugin->size, sizeof(*plugin));
    }
    return true;
}

static bool check_task(const struct plugin_set *set, const struct petiole_plugin *plugin,
                       size_t index, const char *path, struct error *reterr)
{
    const struct petiole_task *task = &plugin->tasks[index];
    if (!task->name || task->name[0] == '\0' || !task->function) {
        return error_set(reterr, ERROR_INVALID, "plugin %s: task number %zu has no %s", path,
                         index + 1, task->function ? "name" : "function");
    }
    for (size_t i = 0; i < index; i++) {
        if (strcmp(plugin->tasks[i].name, task->name) == 0) {
            return error_set(reterr, ERROR_INVALID, "plugin %s: two tasks are called %s", path,
                             task->name);
        }
    }
    if (map_get(set->tasks, bytes_from_text(task->name))) {
        return error_set(reterr, ERROR_INVALID,
                         "plugin %s: another plugin has a task called %s too", path, task->name);
    }
    return true;
}

bool plugin_set_add(struct plugin_set *set, const struct petiole_plugin *plugin, const char *path,
                    struct error *reterr)
{
    if (!check_version(plugin, path, reterr)) {
        return false;
    }
    if (!plugin->name || !plugin->version || (!plugin->tasks && plugin->task_count > 0)) {
        return error_set(reterr, ERROR_INVALID, "plugin %s: its table lacks %s", path,
                         !plugin->name      ? "a name"
                         : !plugin->version ? "a version"
                                            : "tasks");
    }
    for (size_t i = 0; i < plugin->task_count; i++) {
        if (!check_task(set, plugin, i, path, reterr)) {
            return false;
        }
    }
    for (size_t i = 0; i < plugin->task_count; i++) {
        struct bytes name = bytes_from_text(plugin->tasks[i].name);

        /* The map keeps plain pointers; nobody writes through this one. */
        union {
            const struct petiole_task *task;
            void *value;
        } entry = {.task = &plugin->tasks[i]};

        (void)map_set(set->tasks, name, entry.value);
    }
    return true;
}

bool plugin_set_load(struct plugin_set *set, const char *path, struct error *reterr)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        return error_set(reterr, ERROR_INVALID, "plugin %s cannot be loaded: %s", path,
                         dlerror()); /* NOLINT(concurrency-mt-unsafe): glibc keeps it per thread */
    }
    void *symbol = dlsym(library, ENTRY_SYMBOL);
    if (!symbol) {
        (void)dlclose(library);
        return error_set(reterr, ERROR_INVALID,
                         "plugin %s is no Petiole plugin: it has no function " ENTRY_SYMBOL, path);
    }
    /* ISO C has no conversion between the two kinds of pointer; POSIX says that the bytes are the
     * same. */
    entry_fn *entry = NULL;
    memcpy(&entry, &symbol, sizeof(entry));
    return plugin_set_add(set, entry(), path, reterr);
}

const struct petiole_task *plugin_set_find(const struct plugin_set *set, struct bytes name)
{
    return map_get(set->tasks, name);
}

size_t plugin_set_count(const struct plugin_set *set)
{
    return map_count(set->tasks);
}

const struct petiole_task *plugin_set_next(const struct plugin_set *set, size_t *position)
{
    struct bytes name;
    void *value = NULL;
    return map_next(set->tasks, position, &name, &value) ? value : NULL;
}
