#include "worker/nodename.h"

#include <stdio.h>
#include <unistd.h>

#define MAX_NAME_BYTES 4096

/* What the letters behind a percent sign stand for. */
struct letters {
    struct bytes host;   /* %h */
    struct bytes name;   /* %n */
    struct bytes domain; /* %d */
    struct bytes node;   /* %p; without data: not known here, and neither are %i and %I */
};

static bool append_letter(struct buffer *buffer, char letter, const struct letters *letters)
{
    bool is_file = letters->node.data != NULL;
    switch (letter) {
    case '%':
        return buffer_append_byte(buffer, '%');
    case 'h':
        return buffer_append(buffer, letters->host);
    case 'n':
        return buffer_append(buffer, letters->name);
    case 'd':
        return buffer_append(buffer, letters->domain);
    case 'p':
        return is_file && buffer_append(buffer, letters->node);
    case 'i':
        return is_file && buffer_append_byte(buffer, '0');
    case 'I':
        return is_file;
    default:
        return false;
    }
}

static bool expand(const char *text, const struct letters *letters, struct buffer *buffer,
                   struct error *reterr)
{
    for (const char *place = text; *place; place++) {
        bool ok = *place == '%' ? append_letter(buffer, *++place, letters)
                                : buffer_append_byte(buffer, *place);
        if (buffer->overflowed) {
            return error_set(reterr, ERROR_INVALID, "the name is longer than %d letters",
                             MAX_NAME_BYTES);
        }
        if (!ok) {
            return error_set(reterr, ERROR_INVALID,
                             "unknown format %%%.1s in \"%.128s\": %s are allowed", place, text,
                             letters->node.data ? "%h %n %d %p %i %I %%" : "%h %n %d %%");
        }
    }
    return true;
}

static bool expand_into(const char *text, const struct letters *letters, struct arena *arena,
                        const char **ret_text, struct error *reterr)
{
    struct buffer buffer;
    buffer_init(&buffer, MAX_NAME_BYTES);
    bool ok = expand(text, letters, &buffer, reterr);
    if (ok) {
        *ret_text = arena_text(arena, buffer_view(&buffer));
    }
    buffer_fini(&buffer);
    return ok;
}

/* Cuts `host` at its first dot. */
static void cut_host(struct bytes host, struct letters *letters)
{
    size_t dot = bytes_find(host, '.');
    letters->host = host;
    letters->name = bytes_of(host.data, dot);
    letters->domain = bytes_skip(host, dot + 1);
}

bool nodename_make(const char *text, const char *hostname, struct arena *arena,
                   const char **ret_name, struct error *reterr)
{
    struct letters letters = {.node = {NULL, 0}};
    struct bytes rest = bytes_from_text(text);
    size_t at = bytes_find(rest, '@');
    bool has_at = at < rest.length;
    struct bytes name = bytes_of(rest.data, has_at ? at : 0);
    struct bytes host = has_at ? bytes_skip(rest, at + 1) : rest;
    name = name.length > 0 ? name : BYTES("celery");
    host = host.length > 0 ? host : bytes_from_text(hostname);
    cut_host(bytes_from_text(hostname), &letters);
    const char *joined = arena_format(arena, "%.*s@%.*s", BYTES_FORMAT(name), BYTES_FORMAT(host));
    return expand_into(joined, &letters, arena, ret_name, reterr);
}

bool nodename_expand(const char *text, const char *node_name, struct arena *arena,
                     const char **ret_path, struct error *reterr)
{
    struct letters letters;
    struct bytes node = bytes_from_text(node_name);
    size_t at = bytes_find(node, '@');
    cut_host(at < node.length ? bytes_skip(node, at + 1) : node, &letters);
    letters.name = at < node.length && at > 0 ? bytes_of(node.data, at) : BYTES("celery");
    letters.node = node;
    return expand_into(text, &letters, arena, ret_path, reterr);
}

const char *nodename_host(const char *node_name)
{
    const char *at = strchr(node_name, '@');
    return at ? at + 1 : node_name;
}

const char *nodename_hostname(struct arena *arena)
{
    char name[256] = "";
    if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == '\0') {
        return "localhost";
    }
    return arena_text(arena, bytes_from_text(name));
}
