#include "dispatch/registry.h"

#include <fnmatch.h>

#include "base/map.h"

const struct task_type registry_defaults = {
    .executor = TASK_KUBERNETES,
    .acks_on_failure = true,
    .acks_on_timeout = true,
    .ignore_result = MESSAGE_UNSET,
    .send_events = true,
    .max_retries = 3,
    .default_retry_delay_s = 180,
    .retry_backoff_max_s = 600,
    .retry_jitter = true,
    .max_delivery_attempts = 3,
};

#define REGISTRY_MAX_CACHED_NAMES 10000

struct registry {
    struct arena *arena;
    struct task_type **rows; /* owned array; rows live in the arena */
    size_t count;
    struct map *exact; /* name -> row with is_exact, the first of each name */
    /* name -> row, so that globs are matched once a name; names come from peers, so it is
     * bounded */
    struct map *found;
};

struct registry *registry_new(void)
{
    struct registry *registry = memory_new(sizeof(*registry));
    registry->arena = arena_new(1024);
    registry->exact = map_new();
    registry->found = map_new();
    return registry;
}

void registry_free(struct registry **registry)
{
    if (!*registry) {
        return;
    }
    map_free(&(*registry)->exact);
    map_free(&(*registry)->found);
    memory_free(&(*registry)->rows);
    arena_free(&(*registry)->arena);
    memory_free(registry);
}

static const char *const *copy_list(struct arena *arena, const char *const *list)
{
    if (!list) {
        return NULL;
    }
    size_t count = 0;
    while (list[count]) {
        count++;
    }
    const char **copy = arena_alloc(arena, (count + 1) * sizeof(*copy));
    for (size_t index = 0; index < count; index++) {
        copy[index] = arena_text_copy(arena, list[index]);
    }
    return copy;
}

struct task_type *registry_add(struct registry *registry, const struct task_type *type)
{
    struct task_type *row = arena_alloc(registry->arena, sizeof(*row));
    *row = *type;
    row->pattern = arena_text_copy(registry->arena, type->pattern);
    row->job_template = arena_text_copy(registry->arena, type->job_template);
    row->overrides = copy_list(registry->arena, type->overrides);
    row->autoretry_for = copy_list(registry->arena, type->autoretry_for);
    row->dont_autoretry_for = copy_list(registry->arena, type->dont_autoretry_for);
    row->throws = copy_list(registry->arena, type->throws);
    row->rate_limit = arena_text_copy(registry->arena, type->rate_limit);
    registry->rows = memory_resize(registry->rows, registry->count + 1, sizeof(struct task_type *));
    registry->rows[registry->count++] = row;
    struct bytes name = bytes_from_text(row->pattern);
    if (row->is_exact && !map_get(registry->exact, name)) {
        (void)map_set(registry->exact, name, row);
    }
    return row;
}

const struct task_type *registry_find(const struct registry *registry, struct bytes task)
{
    const struct task_type *known = map_get(registry->exact, task);
    if (!known) {
        known = map_get(registry->found, task);
    }
    if (known) {
        return known;
    }
    char *name CLEANUP(memory_free_at) = memory_text(task);
    if (strlen(name) != task.length) {
        return NULL; /* a NUL inside: no task is called that */
    }
    for (size_t index = 0; index < registry->count; index++) {
        struct task_type *row = registry->rows[index];
        if (!row->is_exact && fnmatch(row->pattern, name, 0) == 0) {
            if (map_count(registry->found) < REGISTRY_MAX_CACHED_NAMES) {
                (void)map_set(registry->found, task, row);
            }
            return row;
        }
    }
    return NULL;
}

struct task_type *registry_row(struct registry *registry, size_t index)
{
    return index < registry->count ? registry->rows[index] : NULL;
}
