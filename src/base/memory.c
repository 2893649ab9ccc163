#include "base/memory.h"

#include <link.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

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

static void *address_in(const struct dl_phdr_info *object, ElfW(Addr) offset)
{
    return (void *)(object->dlpi_addr + offset); // NOLINT(performance-no-int-to-ptr)
}

/* Whether the loader has written into code: such pages are not those of the file. */
static bool has_text_relocations(const struct dl_phdr_info *object)
{
    for (size_t index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[index];
        if (segment->p_type != PT_DYNAMIC) {
            continue;
        }
        const ElfW(Dyn) *entry = address_in(object, segment->p_vaddr);
        for (; entry->d_tag != DT_NULL; entry++) {
            if (entry->d_tag == DT_TEXTREL
                || (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL))) {
                return true;
            }
        }
    }
    return false;
}

/* Unmaps code and constants of the program, or of one of its libraries: they are never written, so
 * that what is used again comes back from the page cache. */
static int unmap_constants(struct dl_phdr_info *object, size_t size, void *context)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    (void)size;
    (void)context;
    if (has_text_relocations(object)) {
        return 0;
    }
    for (size_t index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[index];
        if (segment->p_type == PT_LOAD && !(segment->p_flags & PF_W)) {
            size_t beyond = segment->p_vaddr % page_bytes;
            (void)madvise(address_in(object, segment->p_vaddr - beyond), segment->p_memsz + beyond,
                          MADV_DONTNEED);
        }
    }
    return 0;
}

void memory_forget_start(void)
{
    (void)dl_iterate_phdr(unmap_constants, NULL);
}
