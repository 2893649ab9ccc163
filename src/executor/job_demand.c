#include "executor/job_demand.h"

#include <string.h>

#include "executor/job_quantity.h"

static const char *const container_lists[] = {"initContainers", "containers"};

static json_t *pod_spec_of(const json_t *job)
{
    const json_t *pod = json_object_get(json_object_get(job, "spec"), "template");
    return json_object_get(pod, "spec");
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* Defaults */

/* The object at `key`, made when it is missing. Borrowed from `parent`. */
static json_t *object_at(json_t *parent, const char *key)
{
    json_t *child = json_object_get(parent, key);
    if (!json_is_object(child)) {
        (void)json_object_set_new(parent, key, json_object());
        child = json_object_get(parent, key);
    }
    return child;
}

static void add_missing(json_t *resources, const char *kind, json_t *defaults)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_t *own = json_object_size(defaults) > 0 ? object_at(resources, kind) : NULL;
    json_object_foreach(defaults, name, value) {
        if (!json_object_get(own, name)) {
            (void)json_object_set(own, name, value);
        }
    }
}

static void fill_in_container(json_t *container, const json_t *limit_ranges)
{
    json_t *resources = object_at(container, "resources");
    add_missing(resources, "requests", json_object_get(resources, "limits"));
    size_t index = 0;
    const json_t *range = NULL;
    json_array_foreach(limit_ranges, index, range) {
        const json_t *limits = json_object_get(json_object_get(range, "spec"), "limits");
        size_t row = 0;
        const json_t *limit = NULL;
        json_array_foreach(limits, row, limit) {
            if (is_text(json_object_get(limit, "type"), "Container")) {
                add_missing(resources, "requests", json_object_get(limit, "defaultRequest"));
                add_missing(resources, "limits", json_object_get(limit, "default"));
            }
        }
    }
}

void job_demand_fill_in(json_t *job, const json_t *limit_ranges)
{
    const json_t *pod_spec = pod_spec_of(job);
    for (size_t list = 0; list < ARRAY_LENGTH(container_lists); list++) {
        size_t index = 0;
        json_t *container = NULL;
        json_array_foreach(json_object_get(pod_spec, container_lists[list]), index, container) {
            if (json_is_object(container)) {
                fill_in_container(container, limit_ranges);
            }
        }
    }
}

/* Scopes */

static bool is_terminating(const json_t *pod_spec)
{
    const json_t *deadline = json_object_get(pod_spec, "activeDeadlineSeconds");
    return json_is_integer(deadline) && json_integer_value(deadline) >= 0;
}

/* Whether no container asks for CPU or memory (the pod's QoS class). */
static bool is_best_effort(const json_t *job)
{
    static const char *const resources[] = {"requests.cpu", "requests.memory", "limits.cpu",
                                            "limits.memory"};
    for (size_t i = 0; i < ARRAY_LENGTH(resources); i++) {
        if (job_quantity_of_job(job, resources[i]) > 0) {
            return false;
        }
    }
    return true;
}

static bool names_other_namespaces(const json_t *affinity)
{
    static const char *const lists[] = {"requiredDuringSchedulingIgnoredDuringExecution",
                                        "preferredDuringSchedulingIgnoredDuringExecution"};
    for (size_t list = 0; list < ARRAY_LENGTH(lists); list++) {
        size_t index = 0;
        const json_t *term = NULL;
        json_array_foreach(json_object_get(affinity, lists[list]), index, term) {
            const json_t *weighted = json_object_get(term, "podAffinityTerm");
            const json_t *plain = weighted ? weighted : term;
            if (json_array_size(json_object_get(plain, "namespaces")) > 0
                || json_object_get(plain, "namespaceSelector")) {
                return true;
            }
        }
    }
    return false;
}

static bool has_cross_namespace_affinity(const json_t *pod_spec)
{
    const json_t *affinity = json_object_get(pod_spec, "affinity");
    return names_other_namespaces(json_object_get(affinity, "podAffinity"))
           || names_other_namespaces(json_object_get(affinity, "podAntiAffinity"));
}

static bool is_among(const char *text, const json_t *values)
{
    size_t index = 0;
    const json_t *value = NULL;
    json_array_foreach(values, index, value) {
        if (is_text(value, text)) {
            return true;
        }
    }
    return false;
}

/* `expression` NULL: Exists. */
static bool matches_priority_class(const json_t *pod_spec, const json_t *expression)
{
    const char *name = json_string_value(json_object_get(pod_spec, "priorityClassName"));
    const json_t *operator= json_object_get(expression, "operator");
    const json_t *values = json_object_get(expression, "values");
    bool has_class = name && name[0] != '\0';
    if (is_text(operator, "In")) {
        return has_class && is_among(name, values);
    }
    if (is_text(operator, "NotIn")) {
        return !has_class || !is_among(name, values);
    }
    return is_text(operator, "DoesNotExist") ? !has_class : has_class;
}

static bool matches_scope(const json_t *job, const json_t *scope, const json_t *expression)
{
    const json_t *pod_spec = pod_spec_of(job);
    if (is_text(scope, "Terminating")) {
        return is_terminating(pod_spec);
    }
    if (is_text(scope, "NotTerminating")) {
        return !is_terminating(pod_spec);
    }
    if (is_text(scope, "BestEffort")) {
        return is_best_effort(job);
    }
    if (is_text(scope, "NotBestEffort")) {
        return !is_best_effort(job);
    }
    if (is_text(scope, "PriorityClass")) {
        return matches_priority_class(pod_spec, expression);
    }
    return is_text(scope, "CrossNamespacePodAffinity") && has_cross_namespace_affinity(pod_spec);
}

bool job_demand_is_in_scope(const json_t *job, const json_t *resource_quota)
{
    const json_t *spec = json_object_get(resource_quota, "spec");
    const json_t *selector = json_object_get(spec, "scopeSelector");
    size_t index = 0;
    const json_t *scope = NULL;
    json_array_foreach(json_object_get(spec, "scopes"), index, scope) {
        if (!matches_scope(job, scope, NULL)) {
            return false;
        }
    }
    json_array_foreach(json_object_get(selector, "matchExpressions"), index, scope) {
        if (!matches_scope(job, json_object_get(scope, "scopeName"), scope)) {
            return false;
        }
    }
    return true;
}

/* What must be said */

struct must_say {
    const char *limited; /* by the quota */
    const char *kind;
    const char *name;
};

static const struct must_say must_say[] = {
    {"cpu", "requests", "cpu"},          {"memory", "requests", "memory"},
    {"requests.cpu", "requests", "cpu"}, {"requests.memory", "requests", "memory"},
    {"limits.cpu", "limits", "cpu"},     {"limits.memory", "limits", "memory"},
};

static bool says(const json_t *owner, const struct must_say *what)
{
    const json_t *resources = json_object_get(owner, "resources");
    return json_object_get(json_object_get(resources, what->kind), what->name) != NULL;
}

/* Appends the names of the containers that do not say it. */
static bool append_silent(struct buffer *text, const json_t *pod_spec, const struct must_say *what,
                          const char *separator)
{
    bool is_silent = false;
    for (size_t list = 0; list < ARRAY_LENGTH(container_lists); list++) {
        size_t index = 0;
        const json_t *container = NULL;
        json_array_foreach(json_object_get(pod_spec, container_lists[list]), index, container) {
            const char *name = json_string_value(json_object_get(container, "name"));
            if (says(container, what)) {
                continue;
            }
            if (is_silent) {
                (void)buffer_append_byte(text, ',');
            } else {
                (void)buffer_format(text, "%s%s for: ", separator, what->limited);
            }
            (void)buffer_append_text(text, name ? name : "");
            is_silent = true;
        }
    }
    return is_silent;
}

bool job_demand_append_missing(struct buffer *text, const json_t *job, const json_t *resource_quota)
{
    const json_t *pod_spec = pod_spec_of(job);
    const json_t *hard = json_object_get(json_object_get(resource_quota, "spec"), "hard");
    bool is_missing = false;
    for (size_t i = 0; i < ARRAY_LENGTH(must_say); i++) {
        if (json_object_get(hard, must_say[i].limited) && !says(pod_spec, &must_say[i])) {
            is_missing =
                append_silent(text, pod_spec, &must_say[i], is_missing ? "; " : "") || is_missing;
        }
    }
    return is_missing;
}
