#include "executor/local_expand.h"

#define FIRST_CAPACITY     8
#define MAX_EXPANDED_BYTES ((size_t)1024 * 1024)

void local_expand_set(struct local_pairs *pairs, const char *name, const char *value)
{
    for (size_t i = 0; i < pairs->count; i++) {
        if (strcmp(pairs->items[i].name, name) == 0) {
            pairs->items[i].value = value;
            return;
        }
    }
    if (pairs->count == pairs->capacity) {
        size_t capacity = pairs->capacity > 0 ? pairs->capacity * 2 : FIRST_CAPACITY;
        struct local_pair *items = arena_alloc(pairs->arena, capacity * sizeof(*items));
        if (pairs->count > 0) {
            memcpy(items, pairs->items, pairs->count * sizeof(*items));
        }
        pairs->items = items;
        pairs->capacity = capacity;
    }
    pairs->items[pairs->count++] = (struct local_pair){name, value};
}

const char *local_expand_get(const struct local_pairs *pairs, const char *name)
{
    for (size_t i = 0; i < pairs->count; i++) {
        if (strcmp(pairs->items[i].name, name) == 0) {
            return pairs->items[i].value;
        }
    }
    return NULL;
}

/* Appends what "$(NAME)", of `length` bytes, stands for. */
static void append_reference(struct buffer *buffer, const struct local_pairs *variables,
                             const char *reference, size_t length)
{
    const char *name =
        arena_text(variables->arena, bytes_of(reference + strlen("$("), length - strlen("$()")));
    const char *value = local_expand_get(variables, name);
    (void)buffer_append(buffer, value ? bytes_from_text(value) : bytes_of(reference, length));
}

const char *local_expand_variables(const struct local_pairs *variables, const char *text)
{
    struct buffer buffer CLEANUP(buffer_fini);
    buffer_init(&buffer, MAX_EXPANDED_BYTES);
    const char *position = text;
    while (*position != '\0') {
        size_t plain_length = strcspn(position, "$");
        (void)buffer_append(&buffer, bytes_of(position, plain_length));
        position += plain_length;
        if (position[0] == '\0') {
            break;
        }
        const char *end = position[1] == '(' ? strchr(position, ')') : NULL;
        if (end) {
            append_reference(&buffer, variables, position, (size_t)(end + 1 - position));
            position = end + 1;
        } else {
            (void)buffer_append_byte(&buffer, '$');
            position += position[1] == '$' ? 2 : 1;
        }
    }
    return buffer.overflowed ? NULL : arena_text(variables->arena, buffer_view(&buffer));
}

const char *local_expand_path(const struct local_pairs *mounts, const char *text)
{
    const struct local_pair *longest = NULL;
    size_t longest_length = 0;
    for (size_t i = 0; i < mounts->count; i++) {
        const char *path = mounts->items[i].name;
        size_t length = strlen(path);
        bool is_hit =
            strncmp(text, path, length) == 0 && (text[length] == '\0' || text[length] == '/');
        if (is_hit && length > longest_length) {
            longest = &mounts->items[i];
            longest_length = length;
        }
    }
    if (!longest) {
        return text;
    }
    return arena_format(mounts->arena, "%s%s", longest->value, text + longest_length);
}
