#include "base/memory.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define BUFFER_FIRST_CAPACITY 256

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
    buffer_cut(buffer, 0);
}

void buffer_cut(struct buffer *buffer, size_t length)
{
    buffer->length = length;
    buffer->overflowed = false;
}

struct bytes buffer_view(const struct buffer *buffer)
{
    return bytes_of(buffer->data, buffer->length);
}
