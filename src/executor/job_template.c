#include "executor/job_template.h"

#include "base/yaml.h"
#include "executor/job_command.h"
#include "executor/job_field.h"
#include "executor/job_placeholder.h"
#include "executor/job_tree.h"

#define MAX_FILE_BYTES    ((size_t)1024 * 1024)
#define FIRST_ARENA_BYTES 16384
#define MAX_WORDS         256 /* of one command line */
#define SCRATCH_BYTES     512
#define MAX_SHOWN_BYTES   200 /* of a pointer that a message brings */
#define OVERRIDE_HEADER   "petiole_override"

/* A field with placeholders in it. */
struct spot {
    const char *pointer;
    enum job_field_kind kind;
    struct job_placeholder_text text;
};

/* A field that a message may set by its header. */
struct override {
    const char *pointer;
    enum job_field_kind kind;
};

struct job_template {
    struct arena *arena; /* owned: everything but the trees */
    json_t *tree;        /* owned: texts with placeholders as written */
    struct spot *spots;  /* owned array */
    size_t spot_count;
    struct override *overrides; /* in the arena */
    size_t override_count;
};

/* A template being loaded. */
struct loading {
    struct job_template *template;
    const char *path;
    const struct yaml *root;
    struct error *reterr;
};

/* Messages */

/* The node at `pointer`, or the last one on the way there: for its line. */
static const struct yaml *nearest_node(const struct yaml *node, const char *pointer)
{
    while (*pointer == '/') {
        const char *step = pointer + 1;
        size_t length = strcspn(step, "/");
        const struct yaml *next = NULL;
        for (size_t i = 0; node->type != YAML_SCALAR && i < node->count && !next; i++) {
            char number[SCRATCH_BYTES];
            (void)snprintf(number, sizeof(number), "%zu", i);
            const struct yaml_entry *entry = &node->entries[i];
            struct bytes name = entry->key ? entry->key->text : bytes_from_text(number);
            next = bytes_equal(name, bytes_of(step, length)) ? entry->value : NULL;
        }
        if (!next) {
            break;
        }
        node = next;
        pointer = step + length;
    }
    return node;
}

static bool fail_at(const struct loading *loading, const char *pointer, const char *what)
{
    return error_set(loading->reterr, ERROR_INVALID, "%s:%d: %s: %s", loading->path,
                     nearest_node(loading->root, pointer)->line, pointer, what);
}

/* Placeholders */

static bool on_text(void *context, const char *pointer, const struct yaml *node,
                    struct error *reterr)
{
    struct loading *loading = context;
    struct job_template *template = loading->template;
    struct spot spot = {0};
    if (bytes_find(node->text, '$') == node->text.length) {
        return true;
    }
    if (!job_placeholder_parse(node->text, template->arena, &spot.text, reterr)) {
        return false;
    }
    spot.kind = JOB_FIELD_TEXT; /* without placeholders only dollars are unescaped */
    if (spot.text.placeholder_count > 0) {
        if (!job_field_find(pointer, &spot.kind)) {
            return error_set(reterr, ERROR_INVALID, "no message may reach this field");
        }
        if (!job_field_accepts(spot.kind, &spot.text, reterr)) {
            return false;
        }
    }
    spot.pointer = arena_text(template->arena, bytes_from_text(pointer));
    template->spots =
        memory_resize(template->spots, template->spot_count + 1, sizeof(*template->spots));
    template->spots[template->spot_count++] = spot;
    return true;
}

static bool render_spots(const struct job_template *template, json_t *tree,
                         const struct message *message, struct error *reterr)
{
    for (size_t i = 0; i < template->spot_count; i++) {
        const struct spot *spot = &template->spots[i];
        json_t *value = job_field_render(spot->kind, &spot->text, message, reterr);
        if (!value) {
            return error_wrap(reterr, "%s", spot->pointer);
        }
        if (!job_tree_set(tree, spot->pointer, value)) {
            return error_set(reterr, ERROR_INVALID, "%s: cannot be set", spot->pointer);
        }
    }
    return true;
}

/* Checks of the whole */

static bool check_head(const struct loading *loading)
{
    const json_t *tree = loading->template->tree;
    const char *version = json_string_value(json_object_get(tree, "apiVersion"));
    const char *kind = json_string_value(json_object_get(tree, "kind"));
    if (!version || strcmp(version, "batch/v1") != 0) {
        return fail_at(loading, "/apiVersion", "must be batch/v1");
    }
    if (!kind || strcmp(kind, "Job") != 0) {
        return fail_at(loading, "/kind", "must be Job");
    }
    return true;
}

/* Fields that are ours: absent, or of the one value that we would give them. */
static bool check_fixed(const struct loading *loading)
{
    static const struct {
        const char *pointer;
        const char *allowed; /* JSON; NULL: must be absent */
        const char *sentence;
    } fixed[] = {
        {"/metadata/namespace", NULL, "must be left out: Jobs are made in the worker's namespace"},
        {"/metadata/finalizers", NULL,
         "must be left out: they would hang the namespace's deletion"},
        {"/spec/backoffLimit", "0", "must be 0: Celery counts the retries"},
        {"/spec/completions", "1", "must be 1: a task has one result"},
        {"/spec/parallelism", "1", "must be 1: a task has one result"},
        {"/spec/suspend", "false", "must be false: nobody would resume it"},
        {"/spec/manualSelector", "false", "must be false"},
        {"/spec/selector", NULL, "must be left out: Kubernetes sets it"},
        {"/spec/template/spec/restartPolicy", "\"Never\"",
         "must be Never: a container's result would be overwritten"},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(fixed); i++) {
        const json_t *found = job_tree_get(loading->template->tree, fixed[i].pointer);
        json_t *allowed =
            fixed[i].allowed ? json_loads(fixed[i].allowed, JSON_DECODE_ANY, NULL) : NULL;
        bool is_fine = !found || json_is_null(found) || (allowed && json_equal(found, allowed));
        json_decref(allowed);
        if (!is_fine) {
            return fail_at(loading, fixed[i].pointer, fixed[i].sentence);
        }
    }
    return true;
}

static bool is_variable(const struct job_template *template, const char *pointer)
{
    for (size_t i = 0; i < template->spot_count; i++) {
        if (template->spots[i].text.placeholder_count > 0
            && strcmp(template->spots[i].pointer, pointer) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < template->override_count; i++) {
        if (strcmp(template->overrides[i].pointer, pointer) == 0) {
            return true;
        }
    }
    return false;
}

static size_t add_words(const struct loading *loading, const char *pointer, const json_t *list,
                        struct job_command_word *words, size_t count)
{
    for (size_t i = 0; i < json_array_size(list) && count < MAX_WORDS; i++) {
        char element[JOB_TREE_MAX_POINTER_BYTES];
        (void)snprintf(element, sizeof(element), "%s/%zu", pointer, i);
        const char *text = json_string_value(json_array_get(list, i));
        words[count++] = (struct job_command_word){
            .text = text ? text : "",
            .is_variable = is_variable(loading->template, element),
        };
    }
    return count;
}

static bool check_command(const struct loading *loading, const char *pointer,
                          const json_t *container)
{
    struct job_command_word words[MAX_WORDS];
    char command[SCRATCH_BYTES];
    char args[SCRATCH_BYTES];
    char word[JOB_TREE_MAX_POINTER_BYTES];
    (void)snprintf(command, sizeof(command), "%s/command", pointer);
    (void)snprintf(args, sizeof(args), "%s/args", pointer);
    const json_t *command_list = json_object_get(container, "command");
    const json_t *args_list = json_object_get(container, "args");
    if (json_array_size(command_list) + json_array_size(args_list) > MAX_WORDS) {
        return fail_at(loading, command, "has too many words");
    }
    size_t command_count = add_words(loading, command, command_list, words, 0);
    size_t count = add_words(loading, args, args_list, words, command_count);
    size_t index = 0;
    const char *fault = job_command_find_fault(words, count, command_count > 0, &index);
    if (!fault) {
        return true;
    }
    bool is_arg = index >= command_count;
    (void)snprintf(word, sizeof(word), "%s/%zu", is_arg ? args : command,
                   is_arg ? index - command_count : index);
    return fail_at(loading, word, fault);
}

static bool check_containers(const struct loading *loading, const char *list_pointer)
{
    const json_t *list = job_tree_get(loading->template->tree, list_pointer);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char pointer[SCRATCH_BYTES];
        (void)snprintf(pointer, sizeof(pointer), "%s/%zu", list_pointer, i);
        const json_t *container = json_array_get(list, i);
        if (!json_is_string(json_object_get(container, "name"))
            || !json_is_string(json_object_get(container, "image"))) {
            return fail_at(loading, pointer, "needs a name and an image");
        }
        if (!check_command(loading, pointer, container)) {
            return false;
        }
    }
    return true;
}

static bool check_tree(const struct loading *loading)
{
    static const char containers[] = "/spec/template/spec/containers";
    if (!check_head(loading) || !check_fixed(loading)) {
        return false;
    }
    if (json_array_size(job_tree_get(loading->template->tree, containers)) == 0) {
        return fail_at(loading, containers, "needs at least one container");
    }
    return check_containers(loading, containers)
           && check_containers(loading, "/spec/template/spec/initContainers");
}

/* Overrides */

static bool add_override(const struct loading *loading, const char *pointer)
{
    struct job_template *template = loading->template;
    struct override *override = &template->overrides[template->override_count];
    if (!job_field_find(pointer, &override->kind) || override->kind == JOB_FIELD_IMAGE) {
        return error_set(loading->reterr, ERROR_INVALID,
                         "%s: override %s: no message may reach this field", loading->path,
                         pointer);
    }
    bool is_of_list = override->kind == JOB_FIELD_ARGUMENT || override->kind == JOB_FIELD_FOLDER;
    json_t *copy = json_deep_copy(template->tree);
    bool can_be_set =
        (!is_of_list || job_tree_get(copy, pointer)) && job_tree_set(copy, pointer, json_null());
    json_decref(copy);
    if (!can_be_set) {
        return error_set(loading->reterr, ERROR_INVALID,
                         "%s: override %s: the template has no such field", loading->path, pointer);
    }
    override->pointer = arena_text(template->arena, bytes_from_text(pointer));
    template->override_count++;
    return true;
}

static bool add_overrides(const struct loading *loading, const char *const *pointers)
{
    size_t count = 0;
    while (pointers && pointers[count]) {
        count++;
    }
    struct job_template *template = loading->template;
    template->overrides = arena_alloc(template->arena, (count + 1) * sizeof(*template->overrides));
    for (size_t i = 0; i < count; i++) {
        if (!add_override(loading, pointers[i])) {
            return false;
        }
    }
    return true;
}

static const struct override *find_override(const struct job_template *template,
                                            struct bytes pointer)
{
    for (size_t i = 0; i < template->override_count; i++) {
        if (bytes_equal_text(pointer, template->overrides[i].pointer)) {
            return &template->overrides[i];
        }
    }
    return NULL;
}

/* The key of a member between its quotes, with its escapes undone. */
static struct bytes plain_key(struct bytes key, struct arena *arena)
{
    struct bytes text = {0};
    struct json quoted = {.type = JSON_TYPE_STRING, .text = bytes_of(key.data - 1, key.length + 2)};
    if (!json_text(quoted, arena, &text)) {
        return text;
    }
    return arena_copy(arena, text);
}

/* `key` is the pointer as it was written; so it is shown. */
static bool apply_override(const struct job_template *template, json_t *tree, struct bytes key,
                           struct json value, struct error *reterr)
{
    struct arena *arena = arena_new(SCRATCH_BYTES);
    const struct override *override = find_override(template, plain_key(key, arena));
    arena_free(&arena);
    if (!override) {
        key.length = key.length > MAX_SHOWN_BYTES ? MAX_SHOWN_BYTES : key.length;
        return error_set(reterr, ERROR_INVALID, "%.*s: a message may not set this field",
                         BYTES_FORMAT(key));
    }
    json_t *made = job_field_override(override->kind, value, reterr);
    if (!made) {
        return error_wrap(reterr, "%s", override->pointer);
    }
    return job_tree_set(tree, override->pointer, made)
           || error_set(reterr, ERROR_INVALID, "%s: cannot be set", override->pointer);
}

static bool apply_overrides(const struct job_template *template, json_t *tree,
                            const struct message *message, struct error *reterr)
{
    struct json wanted = json_get(message->headers, OVERRIDE_HEADER);
    if (json_is_unset(wanted)) {
        return true;
    }
    if (wanted.type != JSON_TYPE_OBJECT) {
        return error_set(reterr, ERROR_INVALID, "the header " OVERRIDE_HEADER " must be an object");
    }
    struct json_walk walk = json_walk(wanted);
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        if (!apply_override(template, tree, key, value, reterr)) {
            return error_wrap(reterr, "the header " OVERRIDE_HEADER);
        }
    }
    return true;
}

/* Public */

static bool load(struct loading *loading, const char *const *overrides)
{
    struct job_template *template = loading->template;
    template->tree = job_tree_make(loading->root, loading->path, on_text, loading, loading->reterr);
    if (!template->tree || !add_overrides(loading, overrides) || !check_tree(loading)) {
        return false;
    }
    return true;
}

struct job_template *job_template_load(const char *path, const char *const *overrides,
                                       struct error *reterr)
{
    struct job_template *template = memory_new(sizeof(*template));
    struct arena *scratch = arena_new(FIRST_ARENA_BYTES);
    template->arena = arena_new(FIRST_ARENA_BYTES);
    struct loading loading = {.template = template, .path = path, .reterr = reterr};
    loading.root = yaml_read(path, MAX_FILE_BYTES, scratch, reterr);
    if (!loading.root || !load(&loading, overrides)) {
        job_template_free(&template);
    }
    arena_free(&scratch);
    return template;
}

void job_template_free(struct job_template **job_template)
{
    struct job_template *template = *job_template;
    if (!template) {
        return;
    }
    json_decref(template->tree);
    memory_free(&template->spots);
    arena_free(&template->arena);
    memory_free(job_template);
}

json_t *job_template_render(const struct job_template *job_template, const struct message *message,
                            struct error *reterr)
{
    json_t *tree = json_deep_copy(job_template->tree);
    if (!render_spots(job_template, tree, message, reterr)
        || !apply_overrides(job_template, tree, message, reterr)) {
        json_decref(tree);
        return NULL;
    }
    return tree;
}

json_t *job_template_typical(const struct job_template *job_template)
{
    json_t *tree = json_deep_copy(job_template->tree);
    for (size_t i = 0; i < job_template->spot_count; i++) {
        const struct spot *spot = &job_template->spots[i];
        json_t *value = job_field_render(spot->kind, &spot->text, NULL, NULL);
        if (value) {
            (void)!job_tree_set(tree, spot->pointer, value);
        }
    }
    return tree;
}
