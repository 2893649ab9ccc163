#include "result/result_stored.h"

#include <zlib.h>

#include "base/json.h"

#define MAX_PLAIN_BYTES ((uLong)64 * 1024 * 1024) /* unpacked */

/* What a document of 5.7's result_compression holds: NUL "celery-compressed" NUL type NUL data
 * (celery/backends/base.py: _decompress_payload). Only zlib, its "gzip", is undone; the arena is
 * the result's. False when it is no such document, or another type. */
static bool decompress(struct bytes document, struct arena *arena, struct bytes *ret_plain)
{
    static const char head[] = "\0celery-compressed\0application/x-gzip";
    struct bytes mark = {head, sizeof(head)}; /* with the NUL at its end */
    if (!bytes_starts_with(document, mark)) {
        return false;
    }
    struct bytes data = bytes_skip(document, mark.length);
    for (uLong room = (uLong)data.length * 4; room <= MAX_PLAIN_BYTES; room *= 4) {
        uLongf length = room;
        char *plain = arena_alloc(arena, room);
        int outcome = uncompress((Bytef *)plain, &length, (const Bytef *)data.data, data.length);
        if (outcome == Z_OK) {
            *ret_plain = bytes_of(plain, length);
            return true;
        }
        if (outcome != Z_BUF_ERROR) {
            return false;
        }
    }
    return false;
}

struct bytes result_stored_status(struct bytes document, struct arena *arena)
{
    struct json value;
    struct json status = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct bytes plain = document;
    if (document.length > 0 && document.data[0] == '\0' && !decompress(document, arena, &plain)) {
        return bytes_of(NULL, 0);
    }
    if (json_parse(plain, &value, NULL)) {
        status = json_get(value, "status");
    }
    return status.type == JSON_TYPE_STRING ? status.text : bytes_of(NULL, 0);
}
