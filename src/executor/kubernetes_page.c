#include "executor/kubernetes_page.h"

#include <string.h>

#include "base/memory.h"

#define SCRATCH_BYTES 256

void kubernetes_page_append_parameter(struct buffer *query, const char *name, struct bytes value)
{
    (void)buffer_format(query, "&%s=", name);
    for (size_t i = 0; i < value.length; i++) {
        char byte = value.data[i];
        bool is_plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
                        || (byte >= '0' && byte <= '9') || (byte && strchr("-._~", byte));
        if (is_plain) {
            (void)buffer_append_byte(query, byte);
        } else {
            (void)buffer_format(query, "%%%02X", (unsigned)(unsigned char)byte);
        }
    }
}

void kubernetes_page_append_query(struct buffer *query, unsigned limit, const char *selector,
                                  struct bytes token)
{
    (void)buffer_format(query, "limit=%u", limit);
    if (selector) {
        kubernetes_page_append_parameter(query, "labelSelector", bytes_from_text(selector));
    }
    if (token.length > 0) {
        kubernetes_page_append_parameter(query, "continue", token);
    }
}

bool kubernetes_page_keep_next(struct json list, struct buffer *token)
{
    struct arena *arena = arena_new(SCRATCH_BYTES);
    struct bytes text = {0};
    buffer_clear(token);
    bool is_kept = json_text(json_get(json_get(list, "metadata"), "continue"), arena, &text)
                   && text.length > 0 && buffer_append(token, text);
    arena_free(&arena);
    return is_kept;
}
