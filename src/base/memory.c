#include "base/memory.h"

#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

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

void memory_trim(void)
{
    (void)malloc_trim(0);
}
