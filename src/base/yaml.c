#include "base/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <yaml.h>

#include "base/map.h"

/* One document while it is read. */
struct reader {
    yaml_parser_t parser;
    struct arena *arena;
    struct map *anchors; /* name -> complete node */
    const char *origin;
    struct error *reterr;
};

static bool read_node(struct reader *reader, const yaml_event_t *event, int depth,
                      const struct yaml **ret_node);

static bool fail_at(struct reader *reader, yaml_mark_t mark, const char *problem)
{
    return error_set(reader->reterr, ERROR_INVALID, "%s:%zu: %s", reader->origin, mark.line + 1,
                     problem);
}

static bool next_event(struct reader *reader, yaml_event_t *ret_event)
{
    if (yaml_parser_parse(&reader->parser, ret_event)) {
        return true;
    }
    memset(ret_event, 0, sizeof(*ret_event));
    const char *problem = reader->parser.problem ? reader->parser.problem : "cannot be read";
    return fail_at(reader, reader->parser.problem_mark, problem);
}

static struct yaml *add_node(struct reader *reader, enum yaml_type type, yaml_mark_t mark)
{
    struct yaml *node = arena_alloc(reader->arena, sizeof(*node));
    node->type = type;
    node->line = (int)mark.line + 1;
    node->column = (int)mark.column + 1;
    return node;
}

/* Appends to `container`, whose room doubles: it is full whenever its count is a power of two. */
static void add_entry(struct reader *reader, struct yaml *container, const struct yaml *key,
                      const struct yaml *value)
{
    size_t count = container->count;
    if ((count & (count - 1)) == 0) {
        size_t capacity = count == 0 ? 1 : 2 * count;
        struct yaml_entry *entries =
            arena_alloc(reader->arena, capacity * sizeof(struct yaml_entry));
        if (count > 0) {
            memcpy(entries, container->entries, count * sizeof(struct yaml_entry));
        }
        container->entries = entries;
    }
    container->entries[count] = (struct yaml_entry){key, value};
    container->count = count + 1;
}

static void keep_anchor(struct reader *reader, const yaml_char_t *anchor, struct yaml *node)
{
    if (anchor) {
        (void)map_set(reader->anchors, bytes_from_text((const char *)anchor), node);
    }
}

/* NULL after an error. */
static const struct yaml *read_scalar(struct reader *reader, const yaml_event_t *event)
{
    struct bytes text = bytes_of((const char *)event->data.scalar.value, event->data.scalar.length);
    if (bytes_find(text, '\0') < text.length) {
        (void)fail_at(reader, event->start_mark, "a text with a NUL character is not taken");
        return NULL;
    }
    struct yaml *node = add_node(reader, YAML_SCALAR, event->start_mark);
    node->is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    node->text = arena_copy(reader->arena, text);
    keep_anchor(reader, event->data.scalar.anchor, node);
    return node;
}

static bool read_alias(struct reader *reader, const yaml_event_t *event,
                       const struct yaml **ret_node)
{
    const char *name = (const char *)event->data.alias.anchor;
    const struct yaml *node = map_get(reader->anchors, bytes_from_text(name));
    if (!node) {
        return fail_at(reader, event->start_mark, "the alias names no anchor before it");
    }
    *ret_node = node;
    return true;
}

static bool read_value(struct reader *reader, int depth, const struct yaml **ret_node)
{
    yaml_event_t event;
    bool ok = next_event(reader, &event) && read_node(reader, &event, depth, ret_node);
    yaml_event_delete(&event);
    return ok;
}

/* Reads the elements of `sequence` up to its end. */
static bool read_sequence(struct reader *reader, struct yaml *sequence, int depth)
{
    bool ok = true;
    bool at_end = false;
    while (ok && !at_end) {
        yaml_event_t event;
        const struct yaml *value = NULL;
        ok = next_event(reader, &event);
        at_end = ok && event.type == YAML_SEQUENCE_END_EVENT;
        if (ok && !at_end) {
            ok = read_node(reader, &event, depth, &value);
        }
        yaml_event_delete(&event);
        if (ok && !at_end) {
            add_entry(reader, sequence, NULL, value);
        }
    }
    return ok;
}

static bool read_entry(struct reader *reader, const yaml_event_t *event, struct yaml *mapping,
                       struct map *keys, int depth)
{
    const struct yaml *value = NULL;
    if (event->type != YAML_SCALAR_EVENT) {
        return fail_at(reader, event->start_mark, "a key must be a plain or quoted text");
    }
    const struct yaml *key = read_scalar(reader, event);
    if (!key) {
        return false;
    }
    if (map_set(keys, key->text, mapping)) {
        return error_set(reader->reterr, ERROR_INVALID, "%s:%d: the key \"%.64s\" is there twice",
                         reader->origin, key->line, key->text.data);
    }
    if (!read_value(reader, depth, &value)) {
        return false;
    }
    add_entry(reader, mapping, key, value);
    return true;
}

/* Reads the entries of `mapping` up to its end. */
static bool read_mapping(struct reader *reader, struct yaml *mapping, int depth)
{
    struct map *keys = map_new();
    bool ok = true;
    bool at_end = false;
    while (ok && !at_end) {
        yaml_event_t event;
        ok = next_event(reader, &event);
        at_end = ok && event.type == YAML_MAPPING_END_EVENT;
        if (ok && !at_end) {
            ok = read_entry(reader, &event, mapping, keys, depth);
        }
        yaml_event_delete(&event);
    }
    map_free(&keys);
    return ok;
}

static bool read_container(struct reader *reader, const yaml_event_t *event, int depth,
                           const struct yaml **ret_node)
{
    if (depth >= YAML_MAX_DEPTH) {
        return fail_at(reader, event->start_mark, "nested too deeply");
    }
    bool is_mapping = event->type == YAML_MAPPING_START_EVENT;
    struct yaml *node =
        add_node(reader, is_mapping ? YAML_MAPPING : YAML_SEQUENCE, event->start_mark);
    if (is_mapping ? !read_mapping(reader, node, depth + 1)
                   : !read_sequence(reader, node, depth + 1)) {
        return false;
    }
    keep_anchor(reader,
                is_mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor,
                node);
    *ret_node = node;
    return true;
}

static bool read_node(struct reader *reader, const yaml_event_t *event, int depth,
                      const struct yaml **ret_node)
{
    switch ((int)event->type) {
    case YAML_SCALAR_EVENT:
        *ret_node = read_scalar(reader, event);
        return *ret_node != NULL;
    case YAML_ALIAS_EVENT:
        return read_alias(reader, event, ret_node);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT:
        return read_container(reader, event, depth, ret_node);
    default:
        return fail_at(reader, event->start_mark, "a value is missing");
    }
}

static bool expect_event(struct reader *reader, yaml_event_type_t type, const char *problem)
{
    yaml_event_t event;
    bool ok = next_event(reader, &event);
    if (ok && event.type != type) {
        ok = fail_at(reader, event.start_mark, problem);
    }
    yaml_event_delete(&event);
    return ok;
}

static bool read_stream(struct reader *reader, const struct yaml **ret_root)
{
    yaml_event_t event;
    if (!expect_event(reader, YAML_STREAM_START_EVENT, "is no YAML")
        || !next_event(reader, &event)) {
        return false;
    }
    bool is_empty = event.type == YAML_STREAM_END_EVENT;
    yaml_mark_t start = event.start_mark;
    yaml_event_delete(&event);
    if (is_empty) {
        *ret_root = add_node(reader, YAML_MAPPING, start);
        return true;
    }
    return read_value(reader, 0, ret_root)
           && expect_event(reader, YAML_DOCUMENT_END_EVENT, "text behind the document")
           && expect_event(reader, YAML_STREAM_END_EVENT, "a second document is not taken");
}

const struct yaml *yaml_parse(struct bytes text, const char *origin, struct arena *arena,
                              struct error *reterr)
{
    struct reader reader = {.arena = arena, .origin = origin, .reterr = reterr};
    if (!yaml_parser_initialize(&reader.parser)) {
        (void)error_set(reterr, ERROR_TEMPORARY, "%s: no memory to read it", origin);
        return NULL;
    }
    const struct yaml *root = NULL;
    reader.anchors = map_new();
    yaml_parser_set_input_string(&reader.parser,
                                 (const unsigned char *)(text.data ? text.data : ""), text.length);
    bool ok = read_stream(&reader, &root);
    map_free(&reader.anchors);
    yaml_parser_delete(&reader.parser);
    return ok ? root : NULL;
}

static bool read_file(FILE *file, const char *path, struct buffer *buffer, struct error *reterr)
{
    char piece[4096];
    size_t count = 0;
    while ((count = fread(piece, 1, sizeof(piece), file)) > 0) {
        if (!buffer_append(buffer, bytes_of(piece, count))) {
            return error_set(reterr, ERROR_INVALID, "%s: larger than %zu bytes", path,
                             buffer->max_bytes);
        }
    }
    if (ferror(file)) {
        return error_set(reterr, ERROR_INVALID, "%s: cannot be read: %s", path,
                         strerrordesc_np(errno));
    }
    return true;
}

const struct yaml *yaml_read(const char *path, size_t max_bytes, struct arena *arena,
                             struct error *reterr)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        enum error_kind kind = errno == ENOENT ? ERROR_NOT_FOUND : ERROR_INVALID;
        (void)error_set(reterr, kind, "%s: cannot be opened: %s", path, strerrordesc_np(errno));
        return NULL;
    }
    struct buffer buffer;
    buffer_init(&buffer, max_bytes);
    const struct yaml *root = NULL;
    if (read_file(file, path, &buffer, reterr)) {
        root = yaml_parse(buffer_view(&buffer), path, arena, reterr);
    }
    buffer_fini(&buffer);
    (void)fclose(file);
    return root;
}

const struct yaml *yaml_get(const struct yaml *node, const char *key)
{
    if (!node || node->type != YAML_MAPPING) {
        return NULL;
    }
    for (size_t index = 0; index < node->count; index++) {
        if (bytes_equal_text(node->entries[index].key->text, key)) {
            return node->entries[index].value;
        }
    }
    return NULL;
}

static bool is_one_of(const struct yaml *node, const char *const *words)
{
    for (size_t index = 0; words[index]; index++) {
        if (strcasecmp(node->text.data, words[index]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_plain_scalar(const struct yaml *node)
{
    return node && node->type == YAML_SCALAR && node->is_plain;
}

bool yaml_is_null(const struct yaml *node)
{
    static const char *const words[] = {"", "~", "null", "none", NULL};
    return !node || (is_plain_scalar(node) && is_one_of(node, words));
}

const char *yaml_type_name(const struct yaml *node)
{
    bool flag = false;
    double number = 0;
    if (yaml_is_null(node)) {
        return "nothing";
    }
    if (node->type == YAML_MAPPING) {
        return "a mapping";
    }
    if (node->type == YAML_SEQUENCE) {
        return "a sequence";
    }
    if (yaml_bool(node, &flag)) {
        return "true or false";
    }
    return yaml_double(node, &number) ? "a number" : "text";
}

bool yaml_bool(const struct yaml *node, bool *ret_value)
{
    static const char *const yes[] = {"true", "yes", "on", NULL};
    static const char *const no[] = {"false", "no", "off", NULL};
    if (!is_plain_scalar(node)) {
        return false;
    }
    bool is_yes = is_one_of(node, yes);
    if (!is_yes && !is_one_of(node, no)) {
        return false;
    }
    *ret_value = is_yes;
    return true;
}

/* Whether `text` holds nothing but what a decimal number is made of: no hex, no "inf", no
 * blanks. */
static bool has_number_letters(const char *text, const char *letters)
{
    return text[0] != '\0' && strspn(text, letters) == strlen(text);
}

bool yaml_integer(const struct yaml *node, int64_t *ret_value)
{
    if (!is_plain_scalar(node) || !has_number_letters(node->text.data, "+-0123456789")) {
        return false;
    }
    char *end = NULL;
    errno = 0;
    long long value = strtoll(node->text.data, &end, 10);
    if (errno != 0 || *end != '\0') {
        return false;
    }
    *ret_value = value;
    return true;
}

bool yaml_double(const struct yaml *node, double *ret_value)
{
    if (!is_plain_scalar(node) || !has_number_letters(node->text.data, "+-.0123456789eE")) {
        return false;
    }
    char *end = NULL;
    double value = strtod(node->text.data, &end);
    if (end == node->text.data || *end != '\0' || !isfinite(value)) {
        return false;
    }
    *ret_value = value;
    return true;
}
