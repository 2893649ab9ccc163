/*
 * A view of bytes that somebody else owns: a pointer and a length, passed by value, not
 * NUL-terminated. A view is valid as long as the storage it looks at: the comment of whatever hands
 * one out says which that is.
 */
#ifndef PETIOLE_BASE_BYTES_H
#define PETIOLE_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/banned.h"

struct bytes {
    const char *data; /* may be NULL when length is 0 */
    size_t length;
};

/* A view of a string literal, usable in initialisers of constants. */
#define BYTES(literal) ((struct bytes){(literal), sizeof(literal) - 1})

/* The two arguments that "%.*s" takes for `view`. Views longer than INT_MAX are cut. */
#define BYTES_FORMAT(view)                                                                         \
    (int)((view).length > 0x7fffffff ? 0x7fffffff : (view).length), ((view).data ? (view).data : "")

static inline struct bytes bytes_of(const char *data, size_t length)
{
    return (struct bytes){data, length};
}

/* A view of the NUL-terminated `text`; NULL gives the empty view. */
static inline struct bytes bytes_from_text(const char *text)
{
    return (struct bytes){text, text ? strlen(text) : 0};
}

static inline bool bytes_equal(struct bytes left, struct bytes right)
{
    return left.length == right.length
           && (left.length == 0 || memcmp(left.data, right.data, left.length) == 0);
}

static inline bool bytes_equal_text(struct bytes view, const char *text)
{
    return bytes_equal(view, bytes_from_text(text));
}

static inline bool bytes_starts_with(struct bytes view, struct bytes prefix)
{
    return view.length >= prefix.length
           && (prefix.length == 0 || memcmp(view.data, prefix.data, prefix.length) == 0);
}

/* `view` without its first `count` bytes, or the empty view when it is shorter. */
static inline struct bytes bytes_skip(struct bytes view, size_t count)
{
    if (count >= view.length) {
        return (struct bytes){NULL, 0};
    }
    return (struct bytes){view.data + count, view.length - count};
}

/* The index of the first `byte` in `view`, or view.length when there is none. */
static inline size_t bytes_find(struct bytes view, char byte)
{
    const char *hit = view.length > 0 ? memchr(view.data, byte, view.length) : NULL;
    return hit ? (size_t)(hit - view.data) : view.length;
}

#endif
