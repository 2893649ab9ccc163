#include "executor/job_placeholder.h"

#include <inttypes.h>

#include "executor/job_quantity.h"

#define SCRATCH_BYTES 512
#define MAX_PARTS     64 /* of one text; and names of one path */
#define MAX_INDEX     9  /* digits of an element's number */

static const char *const root_names[] = {
    [JOB_PLACEHOLDER_ARGS] = "args",       [JOB_PLACEHOLDER_KWARGS] = "kwargs",
    [JOB_PLACEHOLDER_ID] = "id",           [JOB_PLACEHOLDER_RETRIES] = "retries",
    [JOB_PLACEHOLDER_HEADERS] = "headers",
};

static const struct {
    const char *name;
    const char *meaning;
} types[] = {
    [JOB_PLACEHOLDER_STR] = {"str", "text"},
    [JOB_PLACEHOLDER_INT] = {"int", "a whole number"},
    [JOB_PLACEHOLDER_FLOAT] = {"float", "a number"},
    [JOB_PLACEHOLDER_BOOL] = {"bool", "true or false"},
    [JOB_PLACEHOLDER_QUANTITY] = {"quantity", "a quantity such as 500m or 2Gi"},
    [JOB_PLACEHOLDER_JSON] = {"json", "JSON"},
};

/* Values */

static const char *type_name(struct json value)
{
    static const char *const names[] = {
        [JSON_TYPE_ABSENT] = "nothing",  [JSON_TYPE_NULL] = "null",
        [JSON_TYPE_FALSE] = "false",     [JSON_TYPE_TRUE] = "true",
        [JSON_TYPE_NUMBER] = "a number", [JSON_TYPE_STRING] = "text",
        [JSON_TYPE_ARRAY] = "an array",  [JSON_TYPE_OBJECT] = "an object",
    };
    return names[value.type];
}

static json_t *convert_text(struct json value, struct arena *arena)
{
    struct bytes text;
    if (!json_text(value, arena, &text) || bytes_find(text, '\0') < text.length) {
        return NULL; /* a process gets no NUL */
    }
    return json_stringn(text.data ? text.data : "", text.length);
}

static json_t *convert_quantity(struct json value, struct arena *arena)
{
    struct bytes text = value.text;
    int64_t milli = 0;
    bool has_text = value.type == JSON_TYPE_NUMBER || json_text(value, arena, &text);
    return has_text && job_quantity_parse(text, &milli) ? json_stringn(text.data, text.length)
                                                        : NULL;
}

static json_t *convert_number(enum job_placeholder_type type, struct json value)
{
    int64_t whole = 0;
    double real = 0.0;
    if (type == JOB_PLACEHOLDER_INT) {
        return json_int64(value, &whole) ? json_integer(whole) : NULL;
    }
    return json_double(value, &real) ? json_real(real) : NULL;
}

json_t *job_placeholder_convert(enum job_placeholder_type type, struct json value,
                                struct error *reterr)
{
    struct arena *arena = arena_new(SCRATCH_BYTES);
    json_t *made = NULL;
    switch (type) {
    case JOB_PLACEHOLDER_STR:
        made = convert_text(value, arena);
        break;
    case JOB_PLACEHOLDER_INT:
    case JOB_PLACEHOLDER_FLOAT:
        made = convert_number(type, value);
        break;
    case JOB_PLACEHOLDER_BOOL:
        made = value.type == JSON_TYPE_TRUE    ? json_true()
               : value.type == JSON_TYPE_FALSE ? json_false()
                                               : NULL;
        break;
    case JOB_PLACEHOLDER_QUANTITY:
        made = convert_quantity(value, arena);
        break;
    case JOB_PLACEHOLDER_JSON:
        made =
            json_loadb(value.text.data, value.text.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        break;
    }
    arena_free(&arena);
    if (!made) {
        (void)error_set(reterr, ERROR_INVALID, "must be %s, not %s", types[type].meaning,
                        type_name(value));
    }
    return made;
}

bool job_placeholder_append_text(struct buffer *buffer, const json_t *value)
{
    if (json_is_string(value)) {
        return buffer_append(buffer, bytes_of(json_string_value(value), json_string_length(value)));
    }
    if (json_is_real(value)) {
        json_append_double(buffer, json_real_value(value));
        return !buffer->overflowed;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    bool is_appended = text && buffer_append_text(buffer, text);
    free(text);
    return is_appended;
}

/* Taking from a message */

static bool parse_index(const char *name, size_t *ret_index)
{
    size_t length = strlen(name);
    if (length == 0 || length > MAX_INDEX || strspn(name, "0123456789") != length) {
        return false;
    }
    *ret_index = strtoul(name, NULL, 10);
    return true;
}

static struct json follow(struct json value, const char *const *path)
{
    size_t index = 0;
    for (; *path; path++) {
        if (value.type == JSON_TYPE_ARRAY && parse_index(*path, &index)) {
            value = json_at(value, index);
        } else {
            value = json_get(value, *path);
        }
    }
    return value;
}

/* The value's JSON; that of an id or count is written to `scratch`. */
static struct json find(const struct job_placeholder *placeholder, const struct message *message,
                        struct buffer *scratch)
{
    struct json value = {0};
    switch (placeholder->root) {
    case JOB_PLACEHOLDER_ARGS:
        return follow(message->args, placeholder->path);
    case JOB_PLACEHOLDER_KWARGS:
        return follow(message->kwargs, placeholder->path);
    case JOB_PLACEHOLDER_HEADERS:
        return follow(message->headers, placeholder->path);
    case JOB_PLACEHOLDER_ID:
        json_append_string(scratch, message->id);
        value.type = JSON_TYPE_STRING;
        break;
    case JOB_PLACEHOLDER_RETRIES:
        (void)buffer_format(scratch, "%" PRId64, message->retries);
        value.type = JSON_TYPE_NUMBER;
        break;
    }
    value.text = buffer_view(scratch);
    return value;
}

/* A default is written as it would stand in a text: only str needs no JSON around it. */
static json_t *default_value(const struct job_placeholder *placeholder, struct error *reterr)
{
    const char *text = placeholder->default_text;
    struct json value = {.type = JSON_TYPE_STRING};
    struct buffer quoted;
    buffer_init(&quoted, SIZE_MAX);
    bool is_text =
        placeholder->type == JOB_PLACEHOLDER_STR || placeholder->type == JOB_PLACEHOLDER_QUANTITY;
    json_t *made = NULL;
    if (is_text) {
        json_append_string(&quoted, bytes_from_text(text));
        value.text = buffer_view(&quoted);
        made = job_placeholder_convert(placeholder->type, value, reterr);
    } else if (json_parse(bytes_from_text(text), &value, NULL)) {
        made = job_placeholder_convert(placeholder->type, value, reterr);
    } else {
        (void)error_set(reterr, ERROR_INVALID, "must be %s", types[placeholder->type].meaning);
    }
    buffer_fini(&quoted);
    if (!made) {
        (void)error_wrap(reterr, "%s: the default", placeholder->source);
    }
    return made;
}

json_t *job_placeholder_value(const struct job_placeholder *placeholder,
                              const struct message *message, struct error *reterr)
{
    struct buffer scratch;
    buffer_init(&scratch, SIZE_MAX);
    struct json value = {0};
    if (message) {
        value = find(placeholder, message, &scratch);
    }
    json_t *made = NULL;
    if (!json_is_unset(value)
        || (value.type == JSON_TYPE_NULL && placeholder->type == JOB_PLACEHOLDER_JSON
            && !placeholder->default_text)) {
        made = job_placeholder_convert(placeholder->type, value, reterr);
        if (!made) {
            (void)error_wrap(reterr, "%s", placeholder->source);
        }
    } else if (placeholder->default_text) {
        made = default_value(placeholder, reterr);
    } else {
        (void)error_set(reterr, ERROR_INVALID,
                        "%s: the message has %s there, and no default is set", placeholder->source,
                        type_name(value));
    }
    buffer_fini(&scratch);
    return made;
}

/* Parsing */

static bool find_root(struct bytes name, enum job_placeholder_root *ret_root)
{
    for (size_t i = 0; i < ARRAY_LENGTH(root_names); i++) {
        if (bytes_equal_text(name, root_names[i])) {
            *ret_root = (enum job_placeholder_root)i;
            return true;
        }
    }
    return false;
}

static bool find_type(struct bytes name, enum job_placeholder_type *ret_type)
{
    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        if (bytes_equal_text(name, types[i].name)) {
            *ret_type = (enum job_placeholder_type)i;
            return true;
        }
    }
    return false;
}

/* "kwargs.config.epochs" into a root and names. */
static bool parse_path(struct bytes text, struct arena *arena, struct job_placeholder *placeholder,
                       struct error *reterr)
{
    size_t length = bytes_find(text, '.');
    if (!find_root(bytes_of(text.data, length), &placeholder->root)) {
        return error_set(reterr, ERROR_INVALID,
                         "%s: does not begin with args, kwargs, id, retries or headers (write $$ "
                         "for a dollar sign)",
                         placeholder->source);
    }
    const char **path = arena_alloc(arena, sizeof(*path) * MAX_PARTS);
    size_t count = 0;
    placeholder->path = path;
    while (length < text.length) {
        text = bytes_skip(text, length + 1);
        length = bytes_find(text, '.');
        if (length == 0 || count == MAX_PARTS - 1) {
            return error_set(reterr, ERROR_INVALID, "%s: a name between the dots is missing",
                             placeholder->source);
        }
        path[count++] = arena_text(arena, bytes_of(text.data, length));
    }
    bool is_single =
        placeholder->root == JOB_PLACEHOLDER_ID || placeholder->root == JOB_PLACEHOLDER_RETRIES;
    if (is_single && count > 0) {
        return error_set(reterr, ERROR_INVALID, "%s: %s has no members", placeholder->source,
                         root_names[placeholder->root]);
    }
    return true;
}

static bool check_default(const struct job_placeholder *placeholder, struct error *reterr)
{
    if (!placeholder->default_text) {
        return true;
    }
    json_t *value = default_value(placeholder, reterr);
    json_decref(value);
    return value != NULL;
}

/* What stands between "${" and "}". */
static const struct job_placeholder *parse_one(struct bytes inside, struct arena *arena,
                                               struct error *reterr)
{
    struct job_placeholder *placeholder = arena_alloc(arena, sizeof(*placeholder));
    placeholder->source = arena_format(arena, "${%.*s}", BYTES_FORMAT(inside));
    size_t equals = bytes_find(inside, '=');
    if (equals < inside.length) {
        placeholder->default_text = arena_text(arena, bytes_skip(inside, equals + 1));
    }
    struct bytes head = bytes_of(inside.data, equals);
    size_t colon = bytes_find(head, ':');
    if (!parse_path(bytes_of(head.data, colon), arena, placeholder, reterr)) {
        return NULL;
    }
    placeholder->type =
        placeholder->root == JOB_PLACEHOLDER_RETRIES ? JOB_PLACEHOLDER_INT : JOB_PLACEHOLDER_STR;
    if (colon < head.length && !find_type(bytes_skip(head, colon + 1), &placeholder->type)) {
        (void)error_set(reterr, ERROR_INVALID,
                        "%s: the type must be str, int, float, bool, quantity or json",
                        placeholder->source);
        return NULL;
    }
    return check_default(placeholder, reterr) ? placeholder : NULL;
}

/* Copies up to the next placeholder into `*ret_literal`; gives how many bytes that were. */
static size_t read_literal(struct bytes text, struct arena *arena, struct bytes *ret_literal)
{
    char *literal = arena_alloc(arena, text.length + 1);
    size_t length = 0;
    size_t position = 0;
    while (position < text.length) {
        bool has_next = position + 1 < text.length;
        bool is_dollar = text.data[position] == '$';
        if (is_dollar && has_next && text.data[position + 1] == '{') {
            break;
        }
        literal[length++] = text.data[position];
        position += is_dollar && has_next && text.data[position + 1] == '$' ? 2 : 1;
    }
    *ret_literal = bytes_of(literal, length);
    return position;
}

bool job_placeholder_parse(struct bytes text, struct arena *arena,
                           struct job_placeholder_text *ret_text, struct error *reterr)
{
    struct job_placeholder_text made = {0};
    made.parts = arena_alloc(arena, sizeof(*made.parts) * MAX_PARTS);
    for (;;) {
        struct job_placeholder_part *part = &made.parts[made.count++];
        text = bytes_skip(text, read_literal(text, arena, &part->literal));
        if (text.length == 0) {
            break;
        }
        size_t end = bytes_find(text, '}');
        if (end == text.length || made.count == MAX_PARTS) {
            return error_set(reterr, ERROR_INVALID, "%s",
                             end == text.length ? "${ without a closing brace (write $${ for the "
                                                  "characters themselves)"
                                                : "too many placeholders");
        }
        part->placeholder = parse_one(bytes_of(text.data + 2, end - 2), arena, reterr);
        if (!part->placeholder) {
            return false;
        }
        made.placeholder_count++;
        text = bytes_skip(text, end + 1);
    }
    made.is_whole = made.placeholder_count == 1 && made.parts[0].literal.length == 0
                    && made.parts[made.count - 1].literal.length == 0;
    *ret_text = made;
    return true;
}
