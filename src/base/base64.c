#include "base/base64.h"

#include <limits.h>
#include <openssl/evp.h>

void base64_append(struct buffer *buffer, struct bytes plain)
{
    /* EVP_EncodeBlock counts in int and ends with a NUL. */
    size_t encoded = (plain.length + 2) / 3 * 4;
    char *place = plain.length < INT_MAX / 2 ? buffer_reserve(buffer, encoded + 1) : NULL;
    if (!place) {
        buffer->overflowed = true;
        return;
    }
    if (plain.length > 0) {
        (void)EVP_EncodeBlock((unsigned char *)place, (const unsigned char *)plain.data,
                              (int)plain.length);
        buffer_grew(buffer, encoded);
    }
}

bool base64_decode(struct bytes text, struct arena *arena, struct bytes *ret_plain)
{
    if (text.length == 0) {
        *ret_plain = bytes_of("", 0);
        return true;
    }
    if (text.length % 4 != 0 || text.length > INT_MAX / 2) {
        return false;
    }
    size_t padding = text.data[text.length - 1] != '='   ? 0
                     : text.data[text.length - 2] != '=' ? 1
                                                         : 2;
    /* EVP_DecodeBlock trims white space and takes '=' anywhere at a block's end: only clean text
     * gets there. */
    for (size_t index = 0; index < text.length - padding; index++) {
        char byte = text.data[index];
        bool is_in_alphabet = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z')
                              || (byte >= '0' && byte <= '9') || byte == '+' || byte == '/';
        if (!is_in_alphabet) {
            return false;
        }
    }
    size_t decoded = text.length / 4 * 3;
    unsigned char *plain = arena_alloc(arena, decoded + 1);
    if (EVP_DecodeBlock(plain, (const unsigned char *)text.data, (int)text.length) < 0) {
        return false;
    }
    plain[decoded - padding] = '\0';
    *ret_plain = bytes_of((const char *)plain, decoded - padding);
    return true;
}
