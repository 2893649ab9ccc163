#include "executor/plugin_bind.h"

#define KEY_ARENA_BYTES 256

static void append_function(struct buffer *message, const struct plugin_parameters *parameters)
{
    buffer_clear(message);
    (void)buffer_append(message, parameters->function);
    (void)buffer_append_text(message, "()");
}

/* The index of the parameter called `key`, or parameters->count. */
static size_t find_parameter(const struct plugin_parameters *parameters, struct bytes key)
{
    size_t index = 0;
    while (index < parameters->count && !bytes_equal_text(key, parameters->names[index])) {
        index++;
    }
    return index;
}

/* Puts the value of the keyword `key` where it belongs; the first `taken_count` are taken. */
static bool bind_keyword(const struct plugin_parameters *parameters, struct bytes key,
                         struct json value, size_t taken_count, struct json *values,
                         struct buffer *ret_message)
{
    size_t index = find_parameter(parameters, key);
    if (index < parameters->count && index >= taken_count) {
        values[index] = value;
        return true;
    }
    append_function(ret_message, parameters);
    (void)buffer_append_text(ret_message, index < parameters->count
                                              ? " got multiple values for argument '"
                                              : " got an unexpected keyword argument '");
    (void)buffer_append(ret_message, key);
    (void)buffer_append_byte(ret_message, '\'');
    return false;
}

static bool bind_keywords(const struct plugin_parameters *parameters, struct json kwargs,
                          size_t taken_count, struct json *values, struct buffer *ret_message)
{
    struct json_walk walk = json_walk(kwargs);
    struct bytes raw_key;
    struct json value;
    while (json_next_member(&walk, &raw_key, &value)) {
        struct arena *arena CLEANUP(arena_free) = arena_new(KEY_ARENA_BYTES);
        struct json quoted = {JSON_TYPE_STRING, bytes_of(raw_key.data - 1, raw_key.length + 2)};
        struct bytes key = raw_key;
        (void)!json_text(quoted, arena, &key);
        if (!bind_keyword(parameters, key, value, taken_count, values, ret_message)) {
            return false;
        }
    }
    return true;
}

static bool refuse_too_many(const struct plugin_parameters *parameters, size_t given_count,
                            struct buffer *ret_message)
{
    append_function(ret_message, parameters);
    if (parameters->required_count < parameters->count) {
        (void)buffer_format(ret_message, " takes from %zu to %zu positional arguments",
                            parameters->required_count, parameters->count);
    } else {
        (void)buffer_format(ret_message, " takes %zu positional argument%s", parameters->count,
                            parameters->count == 1 ? "" : "s");
    }
    (void)buffer_format(ret_message, " but %zu %s given", given_count,
                        given_count == 1 ? "was" : "were");
    return false;
}

/* Lists the missing parameters as Python does: 'a'; 'a' and 'b'; 'a', 'b', and 'c'. */
static void append_missing(const struct plugin_parameters *parameters, const struct json *values,
                           size_t missing_count, struct buffer *message)
{
    size_t listed = 0;
    for (size_t i = 0; i < parameters->required_count; i++) {
        if (values[i].type != JSON_TYPE_ABSENT) {
            continue;
        }
        const char *separator = "";
        if (listed > 0) {
            bool is_last = listed + 1 == missing_count;
            separator = !is_last ? ", " : missing_count == 2 ? " and " : ", and ";
        }
        (void)buffer_format(message, "%s'%s'", separator, parameters->names[i]);
        listed++;
    }
}

static bool check_missing(const struct plugin_parameters *parameters, const struct json *values,
                          struct buffer *ret_message)
{
    size_t missing_count = 0;
    for (size_t i = 0; i < parameters->required_count; i++) {
        missing_count += values[i].type == JSON_TYPE_ABSENT;
    }
    if (missing_count == 0) {
        return true;
    }
    append_function(ret_message, parameters);
    (void)buffer_format(ret_message, " missing %zu required positional argument%s: ", missing_count,
                        missing_count == 1 ? "" : "s");
    append_missing(parameters, values, missing_count, ret_message);
    return false;
}

bool plugin_bind(const struct plugin_parameters *parameters, struct json args, struct json kwargs,
                 struct json *ret_values, struct buffer *ret_message)
{
    for (size_t i = 0; i < parameters->count; i++) {
        ret_values[i] = (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
    }
    size_t given_count = 0;
    struct json_walk walk = json_walk(args);
    struct json value;
    while (json_next_element(&walk, &value)) {
        if (given_count < parameters->count) {
            ret_values[given_count] = value;
        }
        given_count++;
    }
    size_t taken_count = given_count < parameters->count ? given_count : parameters->count;
    if (!bind_keywords(parameters, kwargs, taken_count, ret_values, ret_message)) {
        return false;
    }
    if (given_count > parameters->count) {
        return refuse_too_many(parameters, given_count, ret_message);
    }
    return check_missing(parameters, ret_values, ret_message);
}
