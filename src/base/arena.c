#include "base/memory.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ARENA_ALIGNMENT    _Alignof(max_align_t)
#define ARENA_LEAST_BLOCK  256
#define ARENA_GROWTH_LIMIT ((size_t)64 * 1024)

struct arena_block {
    struct arena_block *older;
    size_t capacity; /* of `storage` */
    size_t used;
    _Alignas(max_align_t) char storage[];
};

struct arena {
    struct arena_block *newest;
    size_t total_bytes;
};

static struct arena_block *arena_block_new(size_t capacity)
{
    size_t size = 0;
    if (__builtin_add_overflow(capacity, sizeof(struct arena_block), &size)) {
        size = SIZE_MAX; /* which there is not: aborts */
    }
    struct arena_block *block = memory_resize(NULL, size, 1);
    block->older = NULL;
    block->capacity = capacity;
    block->used = 0;
    return block;
}

struct arena *arena_new(size_t first_bytes)
{
    /* The arena itself is the first thing in its first block: one allocation for a whole
     * request. */
    size_t capacity = first_bytes < ARENA_LEAST_BLOCK ? ARENA_LEAST_BLOCK : first_bytes;
    struct arena_block *block = arena_block_new(capacity + sizeof(struct arena) + ARENA_ALIGNMENT);
    struct arena *arena = (struct arena *)(void *)block->storage;
    block->used = (sizeof(*arena) + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    arena->newest = block;
    arena->total_bytes = block->capacity;
    return arena;
}

void arena_free(struct arena **arena)
{
    if (!*arena) {
        return;
    }
    struct arena_block *block = (*arena)->newest;
    *arena = NULL;
    while (block) {
        struct arena_block *older = block->older;
        free(block);
        block = older;
    }
}

static void arena_grow(struct arena *arena, size_t size)
{
    size_t capacity = arena->newest->capacity * 2;
    if (capacity > ARENA_GROWTH_LIMIT) {
        capacity = ARENA_GROWTH_LIMIT;
    }
    struct arena_block *block = arena_block_new(capacity < size ? size : capacity);
    block->older = arena->newest;
    arena->newest = block;
    arena->total_bytes += block->capacity;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size_t rounded = SIZE_MAX;
    if (size <= SIZE_MAX - ARENA_ALIGNMENT) {
        rounded = (size + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    }
    if (arena->newest->capacity - arena->newest->used < rounded) {
        arena_grow(arena, rounded);
    }
    void *storage = arena->newest->storage + arena->newest->used;
    arena->newest->used += rounded;
    memset(storage, 0, rounded);
    return storage;
}

char *arena_text(struct arena *arena, struct bytes view)
{
    char *text = arena_alloc(arena, view.length + 1);
    if (view.length > 0) {
        memcpy(text, view.data, view.length);
    }
    return text;
}

char *arena_text_copy(struct arena *arena, const char *text)
{
    return text ? arena_text(arena, bytes_from_text(text)) : NULL;
}

struct bytes arena_copy(struct arena *arena, struct bytes view)
{
    return bytes_of(arena_text(arena, view), view.length);
}

char *arena_format(struct arena *arena, const char *format, ...)
{
    va_list arguments;
    va_list again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = arena_alloc(arena, length < 0 ? 1 : (size_t)length + 1);
    if (length > 0) {
        (void)vsnprintf(text, (size_t)length + 1, format, again);
    }
    va_end(again);
    return text;
}

size_t arena_bytes(const struct arena *arena)
{
    return arena->total_bytes;
}
