#include "worker/settings_queues.h"

#include "worker/settings_bindings.h"
#include "worker/settings_value.h"

#define MAX_QUEUES 1000

/* Names in order, without doubles. */
struct names {
    const char **items; /* MAX_QUEUES + 1, in the settings' arena */
    size_t count;
};

static bool has(const struct names *names, const char *name)
{
    for (size_t index = 0; index < names->count; index++) {
        if (strcmp(names->items[index], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool add(struct names *names, const char *name)
{
    if (has(names, name)) {
        return true;
    }
    if (names->count == MAX_QUEUES) {
        return false;
    }
    names->items[names->count++] = name;
    return true;
}

static void drop(struct names *names, const char *name)
{
    size_t kept = 0;
    for (size_t index = 0; index < names->count; index++) {
        if (strcmp(names->items[index], name) != 0) {
            names->items[kept++] = names->items[index];
        }
    }
    names->count = kept;
}

static struct names new_names(struct settings *settings)
{
    return (struct names){arena_alloc(settings->arena, (MAX_QUEUES + 1) * sizeof(char *)), 0};
}

static bool add_configured(struct settings *settings, struct names *names, struct error *reterr)
{
    const struct yaml *queues = settings->task_queues;
    if (queues && queues->type == YAML_SCALAR) {
        return settings_value_fail(settings, SETTING_ID_task_queues, queues, reterr,
                                   "a list of names or a mapping is allowed, not %s",
                                   yaml_type_name(queues));
    }
    for (size_t index = 0; queues && index < queues->count; index++) {
        const char *name = settings_bindings_name(queues->entries[index]);
        if (!name || !add(names, name)) {
            return settings_value_fail(
                settings, SETTING_ID_task_queues, queues->entries[index].value, reterr,
                name ? "at most 1000 queues are allowed" : "each queue needs a name");
        }
    }
    return settings_bindings_check(settings, reterr);
}

static bool select_queues(struct settings *settings, const char *const *wanted, struct names *names,
                          struct error *reterr)
{
    struct names selected = new_names(settings);
    for (size_t index = 0; wanted[index]; index++) {
        const char *name = settings_bindings_resolve(settings, wanted[index]);
        if (!settings->task_create_missing_queues && !has(names, name)) {
            return error_set(
                reterr, ERROR_INVALID,
                "option -Q: queue %.128s isn't defined in the task_queues setting, and "
                "task_create_missing_queues is false",
                wanted[index]);
        }
        if (!add(&selected, name)) {
            return error_set(reterr, ERROR_INVALID, "option -Q: at most 1000 queues are allowed");
        }
    }
    *names = selected;
    return true;
}

static const char *const *split(struct settings *settings, const char *text)
{
    struct yaml scalar = {.type = YAML_SCALAR, .text = bytes_from_text(text)};
    return settings_value_list(&scalar, ',', settings->arena);
}

static const char *tenant_of(const struct settings *settings)
{
    return settings->kubernetes_namespace ? settings->kubernetes_namespace
                                          : settings->tenant_default;
}

static void keep(struct settings *settings, const struct names *names)
{
    settings->queues = names->items;
    settings->queue_count = names->count;
}

bool settings_queues_choose(struct settings *settings, const struct settings_sources *sources,
                            struct error *reterr)
{
    struct names names = new_names(settings);
    if (!add_configured(settings, &names, reterr)) {
        return false;
    }
    settings->tenant = tenant_of(settings);
    settings->has_explicit_queues = names.count > 0 || sources->queues;
    if (names.count == 0) {
        (void)add(&names, settings->tenant);
    }
    if (sources->queues
        && !select_queues(settings, split(settings, sources->queues), &names, reterr)) {
        return false;
    }
    const char *const *excluded =
        split(settings, sources->exclude_queues ? sources->exclude_queues : "");
    for (size_t index = 0; excluded[index]; index++) {
        drop(&names, settings_bindings_resolve(settings, excluded[index]));
    }
    if (names.count == 0) {
        return error_set(reterr, ERROR_INVALID, "option %s: no queue is left to consume",
                         sources->exclude_queues ? "-X" : "-Q");
    }
    if (settings->worker_direct && sources->node_name) {
        (void)add(&names, arena_format(settings->arena, "%s.dq2", sources->node_name));
    }
    keep(settings, &names);
    return true;
}

void settings_queues_rename(struct settings *settings)
{
    const char *old = settings->tenant;
    settings->tenant = tenant_of(settings);
    struct names names = new_names(settings);
    for (size_t index = 0; index < settings->queue_count; index++) {
        bool is_tenant_queue =
            !settings->has_explicit_queues && strcmp(settings->queues[index], old) == 0;
        (void)add(&names, is_tenant_queue ? settings->tenant : settings->queues[index]);
    }
    keep(settings, &names);
}
