#include "executor/local_plan.h"

#include "executor/local_expand.h"

#define DEFAULT_CONTAINER "kubectl.kubernetes.io/default-container"
#define RECORD_ANNOTATION "petiole.dev/message"
#define DEFAULT_GRACE_S   30.0

struct planner {
    const struct local_plan_site *site;
    struct arena *arena;
    struct error *reterr;
    const json_t *job;
    const json_t *pod; /* spec.template */
    const json_t *pod_spec;
    const json_t *container;
    struct local_pairs mounts;      /* mount path -> folder */
    struct local_pairs folders;     /* folder -> "": a set */
    struct local_pairs files;       /* path -> content */
    struct local_pairs variables;   /* of the template, as a container would see them */
    struct local_pairs environment; /* of the process */
};

/* Reading the tree */

static const json_t *member(const json_t *object, const char *first, const char *second)
{
    const json_t *value = json_object_get(object, first);
    return second ? json_object_get(value, second) : value;
}

static const char *text_member(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* For messages: the name of a list's element, or "?". */
static const char *name_of(const json_t *object)
{
    const char *name = text_member(object, "name");
    return name ? name : "?";
}

static double seconds_member(const json_t *object, const char *key, double otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static const json_t *find_named(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *element = json_array_get(list, i);
        const char *element_name = text_member(element, "name");
        if (element_name && strcmp(element_name, name) == 0) {
            return element;
        }
    }
    return NULL;
}

static bool find_container(struct planner *planner)
{
    const json_t *containers = json_object_get(planner->pod_spec, "containers");
    const char *name =
        text_member(member(planner->pod, "metadata", "annotations"), DEFAULT_CONTAINER);
    planner->container = name ? find_named(containers, name) : json_array_get(containers, 0);
    if (!planner->container) {
        return error_set(planner->reterr, ERROR_INVALID, "the Job has no container%s%s",
                         name ? " called " : "", name ? name : "");
    }
    return true;
}

/* Downward values */

/* What stands between the quotes of metadata.annotations['…'], or NULL: `path` is none of these. */
static const char *subscript(struct planner *planner, const char *path, const char *list)
{
    size_t list_length = strlen(list);
    size_t length = strlen(path);
    size_t frame_length = list_length + strlen("['']");
    if (length < frame_length || strncmp(path, list, list_length) != 0
        || strncmp(path + list_length, "['", 2) != 0 || strcmp(path + length - 2, "']") != 0) {
        return NULL;
    }
    return arena_text(planner->arena, bytes_of(path + list_length + 2, length - frame_length));
}

/* What fieldRef names (k8s.io/api/core/v1: ObjectFieldSelector), or NULL and an error. */
static const char *field_value(struct planner *planner, const json_t *field_ref, const char *where)
{
    const char *path = text_member(field_ref, "fieldPath");
    const json_t *metadata = json_object_get(planner->pod, "metadata");
    const char *key = NULL;
    const char *value = NULL;
    if (!path) {
        (void)error_set(planner->reterr, ERROR_INVALID,
                        "%s: only a fieldRef with a fieldPath works", where);
        return NULL;
    }
    if (strcmp(path, "metadata.name") == 0) {
        return planner->site->job_name;
    }
    if (strcmp(path, "metadata.namespace") == 0) {
        return planner->site->namespace_name;
    }
    if ((key = subscript(planner, path, "metadata.annotations")) != NULL) {
        bool is_record = strcmp(key, RECORD_ANNOTATION) == 0;
        value = is_record ? planner->site->record
                          : text_member(json_object_get(metadata, "annotations"), key);
        return value ? value : "";
    }
    if ((key = subscript(planner, path, "metadata.labels")) != NULL) {
        value = text_member(json_object_get(metadata, "labels"), key);
        return value ? value : "";
    }
    (void)error_set(planner->reterr, ERROR_UNSUPPORTED,
                    "%s: fieldPath %s is not known without a cluster", where, path);
    return NULL;
}

/* Volumes */

/* Whether `path` leads downwards and nowhere else. */
static bool is_relative_path(const char *path)
{
    if (path[0] == '/' || path[0] == '\0') {
        return false;
    }
    while (path[0] != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 2 && strncmp(path, "..", 2) == 0) {
            return false;
        }
        path += length + (path[length] == '/');
    }
    return true;
}

static bool is_file_name(const char *name)
{
    return is_relative_path(name) && !strchr(name, '/') && strcmp(name, ".") != 0;
}

static bool plan_downward_files(struct planner *planner, const char *volume_name,
                                const json_t *items, const char *folder)
{
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        const char *path = text_member(item, "path");
        const char *where = arena_format(planner->arena, "volume %s, item %zu", volume_name, i);
        if (!path || !is_relative_path(path)) {
            return error_set(planner->reterr, ERROR_INVALID, "%s: its path must lead downwards",
                             where);
        }
        const char *value = field_value(planner, json_object_get(item, "fieldRef"), where);
        if (!value) {
            return false;
        }
        char *file = arena_format(planner->arena, "%s/%s", folder, path);
        local_expand_set(&planner->files, file, value);
        const char *parent =
            arena_text(planner->arena, bytes_of(file, (size_t)(strrchr(file, '/') - file)));
        local_expand_set(&planner->folders, parent, "");
    }
    return true;
}

/* The folder of `volume`, or NULL and an error. */
static const char *plan_volume(struct planner *planner, const json_t *volume)
{
    const char *name = name_of(volume);
    const json_t *claim = json_object_get(volume, "persistentVolumeClaim");
    const json_t *downward = json_object_get(volume, "downwardAPI");
    if (claim) {
        const char *claim_name = text_member(claim, "claimName");
        if (!claim_name || !is_file_name(claim_name)) {
            (void)error_set(planner->reterr, ERROR_INVALID, "volume %s: bad claimName", name);
            return NULL;
        }
        return arena_format(planner->arena, "%s/%s", planner->site->claims_folder, claim_name);
    }
    const char *folder = arena_format(planner->arena, "%s/volumes/%s", planner->site->folder, name);
    if (downward) {
        bool is_planned =
            plan_downward_files(planner, name, json_object_get(downward, "items"), folder);
        return is_planned ? folder : NULL;
    }
    if (!json_object_get(volume, "emptyDir")) {
        (void)error_set(planner->reterr, ERROR_UNSUPPORTED,
                        "volume %s is of a kind that only a cluster has (emptyDir, downwardAPI and "
                        "persistentVolumeClaim work without one)",
                        name);
        return NULL;
    }
    return folder;
}

static bool plan_mount(struct planner *planner, const json_t *mount)
{
    const char *volume_name = text_member(mount, "name");
    const char *mount_path = text_member(mount, "mountPath");
    const char *sub_path = text_member(mount, "subPath");
    const json_t *volumes = json_object_get(planner->pod_spec, "volumes");
    const json_t *volume = volume_name ? find_named(volumes, volume_name) : NULL;
    if (!volume || !is_file_name(volume_name) || !mount_path || mount_path[0] != '/') {
        return error_set(planner->reterr, ERROR_INVALID,
                         "volumeMount %s needs a volume and an absolute mountPath", name_of(mount));
    }
    if (json_object_get(mount, "subPathExpr") || (sub_path && !is_relative_path(sub_path))) {
        return error_set(planner->reterr, ERROR_INVALID,
                         "volumeMount %s needs a subPath that leads downwards, or none",
                         volume_name);
    }
    const char *folder = plan_volume(planner, volume);
    if (!folder) {
        return false;
    }
    if (sub_path) {
        folder = arena_format(planner->arena, "%s/%s", folder, sub_path);
    }
    size_t length = strlen(mount_path);
    while (length > 1 && mount_path[length - 1] == '/') {
        length--;
    }
    local_expand_set(&planner->mounts, arena_text(planner->arena, bytes_of(mount_path, length)),
                     folder);
    if (!local_expand_get(&planner->files, folder)) {
        local_expand_set(&planner->folders, folder, "");
    }
    return true;
}

static bool plan_mounts(struct planner *planner)
{
    const json_t *mounts = json_object_get(planner->container, "volumeMounts");
    for (size_t i = 0; i < json_array_size(mounts); i++) {
        if (!plan_mount(planner, json_array_get(mounts, i))) {
            return false;
        }
    }
    return true;
}

/* Variables */

static const char *expand(struct planner *planner, const char *text, const char *where)
{
    const char *expanded = local_expand_variables(&planner->variables, text);
    if (!expanded) {
        (void)error_set(planner->reterr, ERROR_INVALID, "%s is longer than 1 MiB", where);
    }
    return expanded;
}

/* The value of an entry of env. `ret_is_absent`: it is optional and not there. NULL and an error
 * when it has none otherwise. */
static const char *variable_value(struct planner *planner, const json_t *entry, bool *ret_is_absent)
{
    const char *where = arena_format(planner->arena, "env %s", name_of(entry));
    const json_t *source = json_object_get(entry, "valueFrom");
    const json_t *value = json_object_get(entry, "value");
    *ret_is_absent = false;
    if (!source) {
        if (value && !json_is_string(value)) {
            (void)error_set(planner->reterr, ERROR_INVALID, "%s must be a string", where);
            return NULL;
        }
        return expand(planner, value ? json_string_value(value) : "", where);
    }
    const json_t *field_ref = json_object_get(source, "fieldRef");
    if (field_ref) {
        return field_value(planner, field_ref, where);
    }
    *ret_is_absent = json_is_true(member(source, "secretKeyRef", "optional"))
                     || json_is_true(member(source, "configMapKeyRef", "optional"));
    if (!*ret_is_absent) {
        (void)error_set(planner->reterr, ERROR_UNSUPPORTED,
                        "%s: its value is only known to a cluster", where);
    }
    return NULL;
}

static bool check_env_from(struct planner *planner)
{
    const json_t *sources = json_object_get(planner->container, "envFrom");
    for (size_t i = 0; i < json_array_size(sources); i++) {
        const json_t *source = json_array_get(sources, i);
        if (!json_is_true(member(source, "configMapRef", "optional"))
            && !json_is_true(member(source, "secretRef", "optional"))) {
            return error_set(planner->reterr, ERROR_UNSUPPORTED,
                             "envFrom, entry %zu: its values are only known to a cluster", i);
        }
    }
    return true;
}

static bool plan_variables(struct planner *planner)
{
    const json_t *entries = json_object_get(planner->container, "env");
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i);
        const char *name = text_member(entry, "name");
        if (!name || name[0] == '\0' || strchr(name, '=')) {
            return error_set(planner->reterr, ERROR_INVALID, "env, entry %zu has no good name", i);
        }
        bool is_absent = false;
        const char *value = variable_value(planner, entry, &is_absent);
        if (value) {
            local_expand_set(&planner->variables, name, value);
        } else if (!is_absent) {
            return false;
        }
    }
    return check_env_from(planner);
}

static void plan_environment(struct planner *planner, struct local_plan *plan)
{
    for (const char *const *name = planner->site->passed_names; *name; name++) {
        const char *value = local_plan_variable(planner->site->environment, *name);
        if (value) {
            local_expand_set(&planner->environment, *name, value);
        }
    }
    for (size_t i = 0; i < planner->variables.count; i++) {
        const struct local_pair *pair = &planner->variables.items[i];
        local_expand_set(&planner->environment, pair->name,
                         local_expand_path(&planner->mounts, pair->value));
    }
    const char *task_file = arena_format(planner->arena, "%s/task.json", planner->site->folder);
    plan->result_file = arena_format(planner->arena, "%s/result.json", planner->site->folder);
    local_expand_set(&planner->files, task_file, planner->site->record);
    local_expand_set(&planner->environment, "PETIOLE_TASK_FILE", task_file);
    local_expand_set(&planner->environment, "PETIOLE_RESULT_FILE", plan->result_file);
}

/* Arguments */

/* Appends `words`, with variables and paths in them, to the list of `count` arguments. */
static bool plan_words(struct planner *planner, const char *key, char **arguments, size_t *count)
{
    const json_t *words = json_object_get(planner->container, key);
    for (size_t i = 0; i < json_array_size(words); i++) {
        const char *word = json_string_value(json_array_get(words, i));
        if (!word) {
            return error_set(planner->reterr, ERROR_INVALID, "%s, word %zu must be a string", key,
                             i);
        }
        const char *expanded = expand(planner, word, key);
        if (!expanded) {
            return false;
        }
        const char *argument = local_expand_path(&planner->mounts, expanded);
        arguments[(*count)++] = arena_text(planner->arena, bytes_from_text(argument));
    }
    return true;
}

static bool plan_arguments(struct planner *planner, struct local_plan *plan)
{
    size_t command_count = json_array_size(json_object_get(planner->container, "command"));
    size_t args_count = json_array_size(json_object_get(planner->container, "args"));
    if (command_count == 0) {
        return error_set(planner->reterr, ERROR_UNSUPPORTED,
                         "container %s has no command, and its image's own is not known without a "
                         "cluster",
                         plan->container);
    }
    char **arguments =
        arena_alloc(planner->arena, (command_count + args_count + 1) * sizeof(*arguments));
    size_t count = 0;
    if (!plan_words(planner, "command", arguments, &count)
        || !plan_words(planner, "args", arguments, &count)) {
        return false;
    }
    bool is_python = strcmp(arguments[0], "python") == 0 || strcmp(arguments[0], "python3") == 0;
    const char *python = local_plan_variable(planner->site->environment, "PETIOLE_PYTHON");
    if (is_python && python && python[0] != '\0') {
        arguments[0] = arena_text(planner->arena, bytes_from_text(python));
    }
    plan->arguments = arguments;
    return true;
}

/* Putting it together */

static void plan_limits(const struct planner *planner, struct local_plan *plan)
{
    double pod_s = seconds_member(planner->pod_spec, "activeDeadlineSeconds", 0.0);
    double job_s =
        seconds_member(json_object_get(planner->job, "spec"), "activeDeadlineSeconds", 0.0);
    plan->deadline_s = pod_s <= 0.0 || (job_s > 0.0 && job_s < pod_s) ? job_s : pod_s;
    plan->grace_s =
        seconds_member(planner->pod_spec, "terminationGracePeriodSeconds", DEFAULT_GRACE_S);
}

static const char *const *list_names(struct planner *planner, const struct local_pairs *pairs)
{
    const char **names = arena_alloc(planner->arena, (pairs->count + 1) * sizeof(*names));
    for (size_t i = 0; i < pairs->count; i++) {
        names[i] = pairs->items[i].name;
    }
    return names;
}

static void list_environment(struct planner *planner, struct local_plan *plan)
{
    const struct local_pairs *pairs = &planner->environment;
    char **entries = arena_alloc(planner->arena, (pairs->count + 1) * sizeof(*entries));
    for (size_t i = 0; i < pairs->count; i++) {
        entries[i] =
            arena_format(planner->arena, "%s=%s", pairs->items[i].name, pairs->items[i].value);
    }
    plan->environment = entries;
}

static void list_files(struct planner *planner, struct local_plan *plan)
{
    const struct local_pairs *pairs = &planner->files;
    struct local_plan_file *files = arena_alloc(planner->arena, pairs->count * sizeof(*files));
    for (size_t i = 0; i < pairs->count; i++) {
        files[i].path = pairs->items[i].name;
        files[i].content = bytes_from_text(pairs->items[i].value);
    }
    plan->files = files;
    plan->file_count = pairs->count;
}

bool local_plan_make(const json_t *job, const struct local_plan_site *site, struct arena *arena,
                     struct local_plan *ret_plan, struct error *reterr)
{
    struct planner planner = {
        .site = site,
        .arena = arena,
        .reterr = reterr,
        .job = job,
        .pod = member(job, "spec", "template"),
        .mounts = {.arena = arena},
        .folders = {.arena = arena},
        .files = {.arena = arena},
        .variables = {.arena = arena},
        .environment = {.arena = arena},
    };
    struct local_plan plan = {.container = NULL};
    planner.pod_spec = json_object_get(planner.pod, "spec");
    if (!find_container(&planner)) {
        return false;
    }
    plan.container = arena_text(arena, bytes_from_text(name_of(planner.container)));
    if (!plan_mounts(&planner) || !plan_variables(&planner) || !plan_arguments(&planner, &plan)) {
        return false;
    }
    plan_environment(&planner, &plan);
    const char *working_folder = text_member(planner.container, "workingDir");
    if (working_folder) {
        working_folder = arena_text(arena, bytes_from_text(working_folder));
        plan.working_folder = local_expand_path(&planner.mounts, working_folder);
    }
    plan_limits(&planner, &plan);
    plan.folders = list_names(&planner, &planner.folders);
    list_environment(&planner, &plan);
    list_files(&planner, &plan);
    *ret_plan = plan;
    return true;
}

const char *local_plan_variable(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (char *const *entry = environment; *entry; entry++) {
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') {
            return *entry + length + 1;
        }
    }
    return NULL;
}
