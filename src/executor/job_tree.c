#include "executor/job_tree.h"

#define MAX_NAME_BYTES  512
#define MAX_INDEX_BYTES 9
#define OCTAL           8

struct making {
    const char *path;
    job_tree_text_fn *on_text;
    void *context;
    struct buffer pointer; /* of the node being made */
    size_t node_count;
    struct error *reterr;
};

static json_t *make_node(struct making *making, const struct yaml *node);

static json_t *fail(const struct making *making, const struct yaml *node, const char *what)
{
    (void)error_set(making->reterr, ERROR_INVALID, "%s:%d: %.*s: %s", making->path, node->line,
                    BYTES_FORMAT(making->pointer), what);
    return NULL;
}

/* Steps of a pointer */

static void append_step(struct buffer *pointer, struct bytes name)
{
    (void)buffer_append_byte(pointer, '/');
    for (size_t i = 0; i < name.length; i++) {
        char byte = name.data[i];
        if (byte == '~' || byte == '/') {
            (void)buffer_append_text(pointer, byte == '~' ? "~0" : "~1");
        } else {
            (void)buffer_append_byte(pointer, byte);
        }
    }
}

/* Goes one step down; `*pointer` moves behind it. False at the end, or at too long a step. */
static bool next_step(const char **pointer, char ret_name[MAX_NAME_BYTES])
{
    const char *position = *pointer;
    size_t length = 0;
    if (*position != '/') {
        return false;
    }
    for (position++; *position && *position != '/' && length < MAX_NAME_BYTES - 1; position++) {
        char byte = *position;
        if (byte == '~' && (position[1] == '0' || position[1] == '1')) {
            byte = *++position == '0' ? '~' : '/';
        }
        ret_name[length++] = byte;
    }
    ret_name[length] = '\0';
    *pointer = position;
    return *position == '\0' || *position == '/';
}

static bool parse_index(const char *name, size_t *ret_index)
{
    size_t length = strlen(name);
    if (length == 0 || length > MAX_INDEX_BYTES || strspn(name, "0123456789") != length) {
        return false;
    }
    *ret_index = strtoul(name, NULL, 10);
    return true;
}

static json_t *child(const json_t *parent, const char *name)
{
    size_t index = 0;
    if (json_is_array(parent)) {
        return parse_index(name, &index) ? json_array_get(parent, index) : NULL;
    }
    return json_object_get(parent, name);
}

json_t *job_tree_get(const json_t *tree, const char *pointer)
{
    char name[MAX_NAME_BYTES];
    if (*pointer == '\0') {
        union {
            const json_t *constant;
            json_t *whole;
        } borrowed = {.constant = tree}; /* as in jansson, what is borrowed is not const */

        return borrowed.whole;
    }
    json_t *found = NULL;
    while (*pointer) {
        if (!next_step(&pointer, name)) {
            return NULL;
        }
        found = child(found ? found : tree, name);
        if (!found) {
            return NULL;
        }
    }
    return found;
}

bool job_tree_set(json_t *tree, const char *pointer, json_t *value)
{
    char name[MAX_NAME_BYTES] = "";
    json_t *parent = *pointer ? tree : NULL; /* the whole cannot be replaced in place */
    size_t index = 0;
    while (next_step(&pointer, name) && *pointer) {
        json_t *next = child(parent, name);
        if (!next && json_is_object(parent)) {
            next = json_object();
            (void)json_object_set_new(parent, name, next);
        }
        parent = next;
    }
    if (json_is_object(parent) && *pointer == '\0') {
        return json_object_set_new(parent, name, value) == 0;
    }
    if (json_is_array(parent) && *pointer == '\0' && parse_index(name, &index)) {
        return json_array_set_new(parent, index, value) == 0;
    }
    json_decref(value);
    return false;
}

/* Scalars */

static bool is_word(const struct yaml *node, const char *const *words)
{
    for (; *words; words++) {
        if (bytes_equal_text(node->text, *words)) {
            return true;
        }
    }
    return false;
}

/* 0644, as modes of files are written. */
static bool parse_octal(struct bytes text, json_int_t *ret_number)
{
    json_int_t number = 0;
    if (text.length < 2 || text.length > MAX_INDEX_BYTES || text.data[0] != '0') {
        return false;
    }
    for (size_t i = 1; i < text.length; i++) {
        if (text.data[i] < '0' || text.data[i] >= '0' + OCTAL) {
            return false;
        }
        number = number * OCTAL + (text.data[i] - '0');
    }
    *ret_number = number;
    return true;
}

static json_t *make_plain(const struct yaml *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    bool is_true = false;
    int64_t whole = 0;
    json_int_t octal = 0;
    double real = 0.0;
    if (is_word(node, nulls)) {
        return json_null();
    }
    if (yaml_bool(node, &is_true)) {
        return json_boolean(is_true);
    }
    if (parse_octal(node->text, &octal)) {
        return json_integer(octal);
    }
    if (yaml_integer(node, &whole)) {
        return json_integer(whole);
    }
    if (yaml_double(node, &real)) {
        return json_real(real);
    }
    return json_stringn(node->text.data, node->text.length);
}

static json_t *make_scalar(struct making *making, const struct yaml *node)
{
    json_t *value = node->is_plain
                        ? make_plain(node)
                        : json_stringn(node->text.data ? node->text.data : "", node->text.length);
    if (!value) {
        return fail(making, node, "is no UTF-8 text");
    }
    (void)buffer_append_byte(&making->pointer, '\0');
    bool is_fine = !json_is_string(value)
                   || making->on_text(making->context, making->pointer.data, node, making->reterr);
    making->pointer.length--;
    if (!is_fine) {
        (void)error_wrap(making->reterr, "%s:%d: %.*s", making->path, node->line,
                         BYTES_FORMAT(making->pointer));
        json_decref(value);
        return NULL;
    }
    return value;
}

/* Containers */

/* The value of entry `index`, with the pointer moved to it while it is made. */
static json_t *make_entry(struct making *making, const struct yaml *container, size_t index)
{
    const struct yaml_entry *entry = &container->entries[index];
    size_t length = making->pointer.length;
    if (entry->key) {
        append_step(&making->pointer, entry->key->text);
    } else {
        (void)buffer_format(&making->pointer, "/%zu", index);
    }
    json_t *value =
        making->pointer.overflowed || making->pointer.length + 1 > JOB_TREE_MAX_POINTER_BYTES
            ? fail(making, entry->value, "is nested too deep")
            : make_node(making, entry->value);
    making->pointer.length = length;
    return value;
}

/* Puts entry `index` of `node` into `made`. */
static bool add_entry(struct making *making, const struct yaml *node, size_t index, json_t *made)
{
    const struct yaml *key = node->entries[index].key;
    json_t *value = make_entry(making, node, index);
    if (!value) {
        return false;
    }
    int failed = key ? json_object_setn_new(made, key->text.data ? key->text.data : "",
                                            key->text.length, value)
                     : json_array_append_new(made, value);
    return !failed || fail(making, node, "a key is no UTF-8 text");
}

static json_t *make_node(struct making *making, const struct yaml *node)
{
    if (++making->node_count > JOB_TREE_MAX_NODES) {
        return fail(making, node, "the file has too many values, aliases counted each time");
    }
    if (node->type == YAML_SCALAR) {
        return make_scalar(making, node);
    }
    json_t *made = node->type == YAML_MAPPING ? json_object() : json_array();
    for (size_t i = 0; i < node->count; i++) {
        if (!add_entry(making, node, i, made)) {
            json_decref(made);
            return NULL;
        }
    }
    return made;
}

json_t *job_tree_make(const struct yaml *root, const char *path, job_tree_text_fn *on_text,
                      void *context, struct error *reterr)
{
    struct making making = {.path = path, .on_text = on_text, .context = context, .reterr = reterr};
    buffer_init(&making.pointer, JOB_TREE_MAX_POINTER_BYTES);
    json_t *tree = make_node(&making, root);
    buffer_fini(&making.pointer);
    return tree;
}
