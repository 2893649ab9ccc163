#include "codec/message_body.h"

#include <zlib.h>

static enum message_fault refuse(enum message_fault fault, struct error *reterr,
                                 const char *sentence)
{
    (void)error_set(reterr, ERROR_INVALID, "%s", sentence);
    return fault;
}

/* Content types */

static bool is_json_type(struct bytes content_type)
{
    return bytes_equal(content_type, BYTES("application/json"));
}

/* Kombu's short name of a content type, or NULL (kombu/serialization.py: registry). */
static const char *short_name_of(struct bytes content_type)
{
    static const char *const names[][2] = {
        {"json", "application/json"},
        {"pickle", "application/x-python-serialize"},
        {"yaml", "application/x-yaml"},
        {"msgpack", "application/x-msgpack"},
    };
    for (size_t index = 0; index < ARRAY_LENGTH(names); index++) {
        if (bytes_equal_text(content_type, names[index][1])) {
            return names[index][0];
        }
    }
    return NULL;
}

/* Whether `accept` has this MIME type, by itself or by Kombu's short name. */
static bool is_accepted(struct bytes content_type, const char *const *accept)
{
    const char *name = short_name_of(content_type);
    for (; *accept; accept++) {
        bool is_type = strchr(*accept, '/') != NULL; /* a short name is no content type itself */
        if ((is_type && bytes_equal_text(content_type, *accept))
            || (name && strcmp(*accept, name) == 0)) {
            return true;
        }
    }
    return false;
}

/* kombu/serialization.py: SerializerRegistry._for_untrusted_content */
static enum message_fault check_content_type(const struct delivery *delivery,
                                             const struct message_rules *rules,
                                             struct error *reterr)
{
    struct bytes content_type = delivery->content_type;
    struct bytes shown = content_type.length > 0 ? content_type : BYTES("null");
    const char *name = short_name_of(content_type);
    if (is_accepted(content_type, rules->accept)) {
        return MESSAGE_FINE;
    }
    (void)error_set(reterr, ERROR_REFUSED,
                    "Refusing to deserialize untrusted content of type %s%s%.*s%s",
                    name ? name : "", name ? " (" : "", BYTES_FORMAT(shown), name ? ")" : "");
    return MESSAGE_INVALID;
}

/* Compression */

/* Inflates a zlib stream (what Kombu calls gzip) or a gzip file into the arena. */
static bool inflate_body(struct bytes packed, size_t max_bytes, struct arena *arena,
                         struct bytes *ret_plain, struct error *reterr)
{
    struct buffer plain;
    buffer_init(&plain, max_bytes);
    z_stream stream = {0};
    if (inflateInit2(&stream, 15 + 32) != Z_OK) {
        return error_set(reterr, ERROR_TEMPORARY, "no memory to decompress the body");
    }

    union {
        const char *constant;
        Bytef *mutable; /* zlib's next_in is not const, and zlib does not write there */
    } input = {.constant = packed.data};

    stream.next_in = input.mutable;
    stream.avail_in = (uInt)packed.length;
    int status = Z_OK;
    while (status == Z_OK) {
        char *place = buffer_reserve(&plain, 4096);
        size_t room = place ? 4096 : plain.max_bytes - plain.length;
        place = place ? place : buffer_reserve(&plain, room);
        stream.next_out = (Bytef *)place;
        stream.avail_out = (uInt)room;
        status = room > 0 ? inflate(&stream, Z_NO_FLUSH) : Z_MEM_ERROR;
        buffer_grew(&plain, room - stream.avail_out);
    }
    (void)inflateEnd(&stream);
    bool ok = status == Z_STREAM_END;
    if (ok) {
        *ret_plain = arena_copy(arena, buffer_view(&plain));
    } else if (status == Z_MEM_ERROR) {
        (void)error_set(reterr, ERROR_TOO_LARGE, "the decompressed body has more than %zu bytes",
                        max_bytes);
    } else {
        (void)error_set(reterr, ERROR_INVALID, "the compressed body is corrupt");
    }
    buffer_fini(&plain);
    return ok;
}

/* Whether Kombu may know this compression where it runs (kombu/compression.py). */
static bool is_kombus_compression(struct bytes method)
{
    static const char *const names[] = {
        "application/x-bz2",
        "bzip2",
        "bzip",
        "application/x-lzma",
        "lzma",
        "xz",
        "application/x-brotli",
        "brotli",
        "application/zstd",
        "zstd",
        "zstandard",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(names); index++) {
        if (bytes_equal_text(method, names[index])) {
            return true;
        }
    }
    return false;
}

/* The body as it was serialized (kombu/message.py: Message.__init__ decompresses by the header). */
static bool decompress(const struct delivery *delivery, size_t max_bytes, struct bytes *ret_plain,
                       struct error *reterr)
{
    struct json header = json_get(delivery->headers, "compression");
    struct bytes method = {NULL, 0};
    if (json_is_unset(header)) {
        if (delivery->body.length > max_bytes) {
            return error_set(reterr, ERROR_TOO_LARGE, "the body has more than %zu bytes",
                             max_bytes);
        }
        *ret_plain = delivery->body;
        return true;
    }
    if (!json_text(header, delivery->arena, &method)) {
        return error_set(reterr, ERROR_INVALID, "the compression header is not a string");
    }
    if (bytes_equal(method, BYTES("application/x-gzip")) || bytes_equal(method, BYTES("gzip"))
        || bytes_equal(method, BYTES("zlib"))) {
        return inflate_body(delivery->body, max_bytes, delivery->arena, ret_plain, reterr);
    }
    if (!is_kombus_compression(method)) {
        return error_set(reterr, ERROR_INVALID, "unknown compression %.*s", BYTES_FORMAT(method));
    }
    return error_set(reterr, ERROR_UNSUPPORTED,
                     "compression %.*s cannot be read here; let the client use gzip",
                     BYTES_FORMAT(method));
}

/* Shapes */

static void read_embed(struct json embed, struct message *message)
{
    message->callbacks = json_get(embed, "callbacks");
    message->errbacks = json_get(embed, "errbacks");
    message->chain = json_get(embed, "chain");
    message->chord = json_get(embed, "chord");
}

static enum message_fault check_arguments(const struct message *message, struct error *reterr)
{
    if (message->args.type != JSON_TYPE_ARRAY) {
        return refuse(MESSAGE_INVALID, reterr, "Task arguments must be a list");
    }
    if (message->kwargs.type != JSON_TYPE_OBJECT) {
        return refuse(MESSAGE_INVALID, reterr, "Task keyword arguments must be a mapping");
    }
    return MESSAGE_FINE;
}

/* `value`, or `otherwise` when it is absent or null. */
static struct json or_default(struct json value, struct json otherwise)
{
    return json_is_unset(value) ? otherwise : value;
}

static const struct json empty_list = {JSON_TYPE_ARRAY, {"[]", 2}};
static const struct json empty_object = {JSON_TYPE_OBJECT, {"{}", 2}};

enum message_fault message_body_parse(struct bytes body, struct message *message,
                                      struct error *reterr)
{
    struct json value;
    if (!json_parse(body, &value, reterr)) {
        return MESSAGE_UNDECODABLE;
    }
    if (value.type != JSON_TYPE_ARRAY || json_count(value) != 3) {
        return refuse(MESSAGE_INVALID, reterr,
                      "the body is not a list of arguments, keyword arguments and options");
    }
    struct json embed = json_at(value, 2);
    if (!json_is_unset(embed) && embed.type != JSON_TYPE_OBJECT) {
        return refuse(MESSAGE_INVALID, reterr, "the third item of the body is not a mapping");
    }
    message->body = body;
    message->args = json_at(value, 0);
    message->kwargs = json_at(value, 1);
    read_embed(embed, message);
    return check_arguments(message, reterr);
}

/* Protocol 1, and headers of protocol 2 over a body of protocol 1 (hybrid_to_proto2) */

static void append_member(struct buffer *out, const char *separator, const char *key,
                          struct json value)
{
    (void)buffer_format(out, "%s\"%s\": ", separator, key);
    (void)buffer_append(out, json_is_unset(value) ? BYTES("null") : value.text);
}

/* The members of the body that are headers in protocol 2, then those of the message's own headers,
 * which win: of members with one name the last one counts. */
static void append_headers(struct buffer *out, struct json old, struct json headers)
{
    static const char *const moved[] = {
        "lang", "task",    "id",      "root_id",   "parent_id", "group",      "meth",   "shadow",
        "eta",  "expires", "retries", "timelimit", "argsrepr",  "kwargsrepr", "origin",
    };
    static const struct json no_retries = {JSON_TYPE_NUMBER, {"0", 1}};
    static const struct json no_limits = {JSON_TYPE_ARRAY, {"[null, null]", 12}};
    for (size_t index = 0; index < ARRAY_LENGTH(moved); index++) {
        const char *name = moved[index];
        struct json value = json_get(old, name);
        if (strcmp(name, "group") == 0) {
            value = or_default(json_get(old, "taskset"), value);
        } else if (strcmp(name, "retries") == 0) {
            value = or_default(value, no_retries);
        } else if (strcmp(name, "timelimit") == 0) {
            value = or_default(value, no_limits);
        }
        append_member(out, index == 0 ? "{" : ", ", name, value);
    }
    if (!json_is_unset(json_get(old, "group_index"))) {
        append_member(out, ", ", "group_index", json_get(old, "group_index"));
    }
    struct json_walk walk = json_walk(headers);
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        (void)buffer_format(out, ", \"%.*s\": ", BYTES_FORMAT(key));
        (void)buffer_append(out, value.text);
    }
    (void)buffer_append_byte(out, '}');
}

static void append_body(struct buffer *out, struct json old)
{
    (void)buffer_append_byte(out, '[');
    (void)buffer_append(out, or_default(json_get(old, "args"), empty_list).text);
    (void)buffer_append_text(out, ", ");
    (void)buffer_append(out, or_default(json_get(old, "kwargs"), empty_object).text);
    append_member(out, ", {", "callbacks", json_get(old, "callbacks"));
    append_member(out, ", ", "errbacks", json_get(old, "errbacks"));
    append_member(out, ", ", "chord", json_get(old, "chord"));
    (void)buffer_append_text(out, ", \"chain\": null}]");
}

/* Rewrites a message whose body is the object `old` as protocol 2, and reads it. */
static enum message_fault convert(const struct delivery *delivery, struct json old,
                                  struct message *message, struct error *reterr)
{
    struct buffer out;
    buffer_init(&out, old.text.length * 2 + delivery->headers.text.length * 2 + 1024);
    append_headers(&out, old, delivery->headers);
    struct bytes headers = arena_copy(delivery->arena, buffer_view(&out));
    buffer_clear(&out);
    append_body(&out, old);
    struct bytes body = arena_copy(delivery->arena, buffer_view(&out));
    buffer_fini(&out);
    if (!json_parse(headers, &message->headers, reterr)) {
        return MESSAGE_INVALID;
    }
    enum message_fault fault = message_read_headers(delivery->arena, message, reterr);
    return fault == MESSAGE_FINE ? message_body_parse(body, message, reterr) : fault;
}

enum message_fault message_body_open(const struct delivery *delivery,
                                     const struct message_rules *rules, struct message *message,
                                     struct error *reterr)
{
    struct bytes plain;
    struct json value;
    struct error inner = {0};
    if (!decompress(delivery, rules->max_body_bytes, &plain, &inner)) {
        bool is_left = inner.kind == ERROR_UNSUPPORTED
                       && delivery->body.length <= rules->max_body_bytes
                       && json_text(json_get(delivery->headers, "compression"), delivery->arena,
                                    &message->compression);
        if (!is_left) {
            (void)error_set(reterr, inner.kind, "%s", inner.message);
            return MESSAGE_UNDECODABLE;
        }
        plain = delivery->body;
    }
    enum message_fault fault = check_content_type(delivery, rules, reterr);
    if (fault != MESSAGE_FINE) {
        return fault;
    }
    if (message->compression.length > 0 || !is_json_type(delivery->content_type)) {
        message->body = plain;
        return MESSAGE_FINE;
    }
    if (!json_parse(plain, &value, reterr)) {
        return MESSAGE_UNDECODABLE;
    }
    if (json_get(value, "args").type != JSON_TYPE_ABSENT) {
        return convert(delivery, value, message, reterr);
    }
    return message_body_parse(plain, message, reterr);
}

enum message_fault message_body_read_protocol1(const struct delivery *delivery,
                                               const struct message_rules *rules,
                                               struct message *message, struct error *reterr)
{
    struct bytes plain;
    struct json old;
    if (!decompress(delivery, rules->max_body_bytes, &plain, reterr)) {
        return MESSAGE_UNDECODABLE;
    }
    enum message_fault fault = check_content_type(delivery, rules, reterr);
    if (fault == MESSAGE_FINE && !is_json_type(delivery->content_type)) {
        (void)error_set(reterr, ERROR_UNSUPPORTED,
                        "content of type %.*s cannot be read here; let the client send json, or "
                        "protocol 2",
                        BYTES_FORMAT(delivery->content_type));
        return MESSAGE_UNDECODABLE;
    }
    if (fault != MESSAGE_FINE) {
        /* Celery opens the body to learn the task's name, and cannot: on_decode_error. */
        return delivery->content_type.length > 0 ? MESSAGE_UNDECODABLE : fault;
    }
    if (!json_parse(plain, &old, reterr)) {
        return MESSAGE_UNDECODABLE;
    }
    if (json_get(old, "task").type != JSON_TYPE_STRING) {
        return refuse(MESSAGE_UNKNOWN, reterr, "neither headers nor body name a task");
    }
    return convert(delivery, old, message, reterr);
}
