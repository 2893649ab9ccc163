/*
 * Where bytes come from. Three shapes, and no bare malloc elsewhere:
 *   memory_new    one long-lived object with one parent that frees it;
 *   struct arena  everything that lives as long as one request, freed at once;
 *   struct buffer a growing run of bytes with a maximum that its creator chose.
 * A failing allocation of a size that we chose aborts: nothing sensible can follow. A size that a
 * peer chose is checked against a maximum first, and then reported as an error.
 */
#ifndef PETIOLE_BASE_MEMORY_H
#define PETIOLE_BASE_MEMORY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"
#include "base/bytes.h"

/* Objects */

/* Returns new zeroed storage of `size` bytes; free it with memory_free. Aborts when there is
 * none. */
void *memory_new(size_t size);

/* Returns new storage holding a NUL-terminated copy of `view`; free it with memory_free. */
char *memory_text(struct bytes view);

/* Grows or shrinks `storage` (or NULL) to `count` elements of `size` bytes; takes it, returns new.
 * Aborts on overflow. */
void *memory_resize(void *storage, size_t count, size_t size);

/* Frees what `*pointer_to_storage` points at and leaves NULL there. A NULL there is fine. */
void memory_free_at(void *pointer_to_storage);
#define memory_free(pointer_to_storage) memory_free_at(pointer_to_storage)

/* Gives what is free back to the system, for a process that rests after work. */
void memory_trim(void);

/* Unmaps all pages of code and constants, of the program and its libraries: those that only the start
 * needed do not come back, the others do when they are used, from the page cache. Breakpoints of a
 * debugger go with them. */
void memory_forget_start(void);

/* For locals: `char *text CLEANUP(memory_free_at) = ...`. */

/* Arena */

struct arena; /* a region that grows in blocks; zeroed memory, aligned for any type */

/* Returns new: an arena whose first block has room for `first_bytes`. */
struct arena *arena_new(size_t first_bytes);

/* Frees the arena and all that was allocated from it; leaves NULL. Accepts NULL. */
void arena_free(struct arena **arena);

/* Zeroed storage that lives as long as the arena. `size` must have been checked when a peer chose
 * it. */
void *arena_alloc(struct arena *arena, size_t size);

/* A NUL-terminated copy of `view` in the arena. */
char *arena_text(struct arena *arena, struct bytes view);

/* A copy of `text` in the arena; NULL of NULL. */
char *arena_text_copy(struct arena *arena, const char *text);

/* A copy of `view` in the arena, as a view; a NUL follows it. */
struct bytes arena_copy(struct arena *arena, struct bytes view);

/* Formats into the arena. The result has no maximum of its own: bound what goes in. */
char *arena_format(struct arena *arena, const char *format, ...) PRINTF_FORMAT(2, 3);

/* How many bytes the arena has taken from the system. */
size_t arena_bytes(const struct arena *arena);

/* Buffer */

struct buffer {
    char *data; /* owned; NULL until something is appended */
    size_t length;
    size_t capacity;
    size_t max_bytes;
    bool overflowed; /* an append did not fit; until buffer_clear or buffer_cut */
};

/* Makes an empty buffer that refuses to grow beyond `max_bytes`. */
void buffer_init(struct buffer *buffer, size_t max_bytes);

/* Frees the storage; the buffer is empty and usable again. */
void buffer_fini(struct buffer *buffer);

/* Appends; false, with nothing appended and `overflowed` set, when it would pass the maximum.
 * Callers that append a lot may ignore the results and look at `overflowed` once. */
bool buffer_append(struct buffer *buffer, struct bytes view);
bool buffer_append_text(struct buffer *buffer, const char *text);
bool buffer_append_byte(struct buffer *buffer, char byte);
bool buffer_format(struct buffer *buffer, const char *format, ...) PRINTF_FORMAT(2, 3);

/* Makes room for `count` more bytes and returns where they go, or NULL past the maximum;
 * buffer_grew tells how many were written. */
char *buffer_reserve(struct buffer *buffer, size_t count);
void buffer_grew(struct buffer *buffer, size_t count);

/* Drops the first `count` bytes. */
void buffer_consume(struct buffer *buffer, size_t count);

/* Empties it, keeps the storage. */
void buffer_clear(struct buffer *buffer);

/* Drops what is behind the first `length` bytes, and forgets that more did not fit. */
void buffer_cut(struct buffer *buffer, size_t length);

/* What is in it, valid until the next change. */
struct bytes buffer_view(const struct buffer *buffer);

#endif
