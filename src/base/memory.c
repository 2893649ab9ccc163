#include "base/memory.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ARENA_ALIGNMENT       _Alignof(max_align_t)
#define ARENA_LEAST_BLOCK     256
#define ARENA_GROWTH_LIMIT    (64 * 1024)
#define BUFFER_FIRST_CAPACITY 256

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

static _Noreturn void abort_without_memory(size_t size)
{
    (void)fprintf(stderr, "petiole: out of memory (%zu bytes)\n", size);
    abort();
}

void *memory_new(size_t size)
{
    void *storage = calloc(1, size > 0 ? size : 1);
    if (!storage) {
        abort_without_memory(size);
    }
    return storage;
}

char *memory_text(struct bytes view)
{
    char *text = memory_new(view.length + 1);
    if (view.length > 0) {
        memcpy(text, view.data, view.length);
    }
    return text;
}

void *memory_resize(void *storage, size_t count, size_t size)
{
    size_t total = 0;
    if (__builtin_mul_overflow(count, size, &total)) {
        abort_without_memory(SIZE_MAX);
    }
    void *resized = realloc(storage, total > 0 ? total : 1);
    if (!resized) {
        abort_without_memory(total);
    }
    return resized;
}

void memory_free_at(void *pointer_to_storage)
{
    void *storage = NULL;
    memcpy(&storage, pointer_to_storage, sizeof(storage));
    free(storage);
    storage = NULL;
    memcpy(pointer_to_storage, &storage, sizeof(storage));
}

/* Arena */

static struct arena_block *arena_block_new(size_t capacity)
{
    if (capacity > SIZE_MAX - sizeof(struct arena_block)) {
        abort_without_memory(capacity);
    }
    struct arena_block *block = malloc(sizeof(*block) + capacity);
    if (!block) {
        abort_without_memory(capacity);
    }
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
    if (size > SIZE_MAX - ARENA_ALIGNMENT) {
        abort_without_memory(size);
    }
    size_t rounded = (size + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
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

/* Buffer */

void buffer_init(struct buffer *buffer, size_t max_bytes)
{
    *buffer = (struct buffer){.max_bytes = max_bytes};
}

void buffer_fini(struct buffer *buffer)
{
    free(buffer->data);
    buffer_init(buffer, buffer->max_bytes);
}

char *buffer_reserve(struct buffer *buffer, size_t count)
{
    if (count > buffer->max_bytes || buffer->length > buffer->max_bytes - count) {
        buffer->overflowed = true;
        return NULL;
    }
    size_t needed = buffer->length + count;
    if (needed > buffer->capacity || !buffer->data) {
        size_t capacity = buffer->capacity > 0 ? buffer->capacity : BUFFER_FIRST_CAPACITY;
        while (capacity < needed) {
            capacity *= 2;
        }
        buffer->data = memory_resize(buffer->data, capacity, 1);
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->length;
}

void buffer_grew(struct buffer *buffer, size_t count)
{
    buffer->length += count;
}

bool buffer_append(struct buffer *buffer, struct bytes view)
{
    if (view.length == 0) {
        return true;
    }
    char *place = buffer_reserve(buffer, view.length);
    if (!place) {
        return false;
    }
    memcpy(place, view.data, view.length);
    buffer->length += view.length;
    return true;
}

bool buffer_append_text(struct buffer *buffer, const char *text)
{
    return buffer_append(buffer, bytes_from_text(text));
}

bool buffer_append_byte(struct buffer *buffer, char byte)
{
    char *place = buffer_reserve(buffer, 1);
    if (!place) {
        return false;
    }
    *place = byte;
    buffer->length++;
    return true;
}

bool buffer_format(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_list again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *place = length < 0 ? NULL : buffer_reserve(buffer, (size_t)length + 1);
    if (place) {
        (void)vsnprintf(place, (size_t)length + 1, format, again);
        buffer->length += (size_t)length;
    }
    va_end(again);
    return place != NULL;
}

void buffer_consume(struct buffer *buffer, size_t count)
{
    if (count >= buffer->length) {
        buffer->length = 0;
        return;
    }
    memmove(buffer->data, buffer->data + count, buffer->length - count);
    buffer->length -= count;
}

void buffer_clear(struct buffer *buffer)
{
    buffer->length = 0;
    buffer->overflowed = false;
}

struct bytes buffer_view(const struct buffer *buffer)
{
    return bytes_of(buffer->data, buffer->length);
}
