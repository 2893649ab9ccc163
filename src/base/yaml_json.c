#include "base/yaml_json.h"

#include "base/map.h"

static struct yaml *read_value(struct json value, struct arena *arena, int depth,
                               struct error *reterr);

static struct yaml *add_node(struct arena *arena, enum yaml_type type)
{
    struct yaml *node = arena_alloc(arena, sizeof(*node));
    node->type = type;
    node->line = 1;
    node->column = 1;
    return node;
}

static struct yaml *read_string(struct json value, struct arena *arena, struct error *reterr)
{
    struct bytes text;
    if (!json_text(value, arena, &text) || bytes_find(text, '\0') < text.length) {
        (void)error_set(reterr, ERROR_INVALID, "a text with a NUL character is not taken");
        return NULL;
    }
    struct yaml *node = add_node(arena, YAML_SCALAR);
    node->text = arena_copy(arena, text);
    return node;
}

static struct yaml *read_array(struct json value, struct arena *arena, int depth,
                               struct error *reterr)
{
    struct yaml *node = add_node(arena, YAML_SEQUENCE);
    node->entries = arena_alloc(arena, (json_count(value) + 1) * sizeof(struct yaml_entry));
    struct json_walk walk = json_walk(value);
    struct json element;
    while (json_next_element(&walk, &element)) {
        const struct yaml *item = read_value(element, arena, depth + 1, reterr);
        if (!item) {
            return NULL;
        }
        node->entries[node->count++] = (struct yaml_entry){NULL, item};
    }
    return node;
}

static bool has_unique_keys(struct json object, struct error *reterr)
{
    struct map *seen = map_new();
    struct json_walk walk = json_walk(object);
    struct bytes raw;
    struct json member;
    bool ok = true;
    while (ok && json_next_member(&walk, &raw, &member)) {
        /* "a" and "\u0061" are one key, and nobody writes the second one. */
        ok = !map_set(seen, raw, seen)
             || error_set(reterr, ERROR_INVALID, "the key \"%.*s\" is there twice",
                          (int)(raw.length < 64 ? raw.length : 64), raw.data);
    }
    map_free(&seen);
    return ok;
}

static struct yaml *read_object(struct json value, struct arena *arena, int depth,
                                struct error *reterr)
{
    if (!has_unique_keys(value, reterr)) {
        return NULL;
    }
    struct yaml *node = add_node(arena, YAML_MAPPING);
    node->entries = arena_alloc(arena, (json_count(value) + 1) * sizeof(struct yaml_entry));
    struct json_walk walk = json_walk(value);
    struct bytes raw;
    struct json member;
    while (json_next_member(&walk, &raw, &member)) {
        struct json quoted = {JSON_TYPE_STRING, bytes_of(raw.data - 1, raw.length + 2)};
        const struct yaml *key = read_string(quoted, arena, reterr);
        const struct yaml *item = key ? read_value(member, arena, depth + 1, reterr) : NULL;
        if (!item) {
            return NULL;
        }
        node->entries[node->count++] = (struct yaml_entry){key, item};
    }
    return node;
}

static struct yaml *read_value(struct json value, struct arena *arena, int depth,
                               struct error *reterr)
{
    if (depth >= YAML_MAX_DEPTH) {
        (void)error_set(reterr, ERROR_INVALID, "nested too deeply");
        return NULL;
    }
    switch (value.type) {
    case JSON_TYPE_STRING:
        return read_string(value, arena, reterr);
    case JSON_TYPE_ARRAY:
        return read_array(value, arena, depth, reterr);
    case JSON_TYPE_OBJECT:
        return read_object(value, arena, depth, reterr);
    case JSON_TYPE_ABSENT:
    case JSON_TYPE_NULL:
    case JSON_TYPE_FALSE:
    case JSON_TYPE_TRUE:
    case JSON_TYPE_NUMBER:
        break;
    }
    struct yaml *node = add_node(arena, YAML_SCALAR);
    node->is_plain = true;
    node->text = arena_copy(arena, value.text);
    return node;
}

const struct yaml *yaml_json_tree(struct json value, struct arena *arena, struct error *reterr)
{
    return read_value(value, arena, 0, reterr);
}

bool yaml_json_check_keys(struct json object, struct error *reterr)
{
    return object.type != JSON_TYPE_OBJECT || has_unique_keys(object, reterr);
}
