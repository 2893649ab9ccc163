#include "base/redis_url.h"

#include <limits.h>

#include "base/stream_options.h"

#define DEFAULT_PORT               6379
#define DEFAULT_CONNECT_TIMEOUT_MS 10000
#define MAX_WRITE_BYTES            ((size_t)3 << 30) /* a value of 512 MiB may be said twice */

/* The parts of a URL as written, percent signs and all. */
struct url_parts {
    struct bytes scheme;
    struct bytes user;
    struct bytes password;
    struct bytes host;
    struct bytes port;
    struct bytes path; /* without its first slash */
    struct bytes query;
};

struct url_reader {
    struct arena *arena;
    bool for_backend;
    struct redis_url *url;
    bool has_tls_arguments;
    bool has_cert_reqs;
    struct error *reterr;
};

static struct bytes cut(struct bytes view, size_t length)
{
    return bytes_of(view.data, length);
}

/* What stands behind position `index` of `view`. */
static struct bytes behind(struct bytes view, size_t index)
{
    return bytes_skip(view, index + 1);
}

static size_t find_last(struct bytes view, char byte)
{
    for (size_t index = view.length; index > 0; index--) {
        if (view.data[index - 1] == byte) {
            return index - 1;
        }
    }
    return view.length;
}

/* The same cuts as Python's urllib.parse.urlsplit makes. */
static bool split_url(struct bytes text, struct url_parts *parts)
{
    size_t colon = bytes_find(text, ':');
    if (!bytes_starts_with(bytes_skip(text, colon), BYTES("://"))) {
        return false;
    }
    parts->scheme = cut(text, colon);
    struct bytes rest = bytes_skip(text, colon + 3);
    rest = cut(rest, bytes_find(rest, '#'));
    size_t question = bytes_find(rest, '?');
    parts->query = behind(rest, question);
    rest = cut(rest, question);
    size_t slash = bytes_find(rest, '/');
    parts->path = behind(rest, slash);
    struct bytes authority = cut(rest, slash);
    size_t at = find_last(authority, '@');
    struct bytes place = authority;
    if (at < authority.length) {
        struct bytes credentials = cut(authority, at);
        size_t divider = bytes_find(credentials, ':');
        parts->user = cut(credentials, divider);
        parts->password = behind(credentials, divider);
        place = behind(authority, at);
    }
    bool is_bracketed = place.length > 0 && place.data[0] == '[';
    size_t host_end = is_bracketed ? bytes_find(place, ']') : bytes_find(place, ':');
    parts->host = is_bracketed ? behind(cut(place, host_end), 0) : cut(place, host_end);
    struct bytes tail = is_bracketed ? behind(place, host_end) : bytes_skip(place, host_end);
    parts->port = behind(tail, 0);
    return true;
}

static int hex_digit(char byte)
{
    const char *digits = "0123456789abcdef";
    int lower = byte >= 'A' && byte <= 'F' ? byte + 'a' - 'A' : byte;
    const char *hit = lower ? strchr(digits, lower) : NULL;
    return hit ? (int)(hit - digits) : -1;
}

/* Percent-decodes into the arena; `plus` also turns + into a space, as in a query. NULL for the
 * empty view. */
static const char *decode(struct arena *arena, struct bytes view, bool plus)
{
    if (view.length == 0) {
        return NULL;
    }
    char *plain = arena_alloc(arena, view.length + 1);
    size_t length = 0;
    for (size_t index = 0; index < view.length; index++) {
        char byte = view.data[index];
        bool is_escape = byte == '%' && index + 2 < view.length
                         && hex_digit(view.data[index + 1]) >= 0
                         && hex_digit(view.data[index + 2]) >= 0;
        if (is_escape) {
            byte = (char)(hex_digit(view.data[index + 1]) * 16 + hex_digit(view.data[index + 2]));
            index += 2;
        } else if (plus && byte == '+') {
            byte = ' ';
        }
        plain[length++] = byte;
    }
    return plain;
}

static bool read_number(const char *text, long maximum, long *ret_number)
{
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    long number = strtol(text, &end, 10);
    if (*end != '\0' || number > maximum) {
        return false;
    }
    *ret_number = number;
    return true;
}

static bool read_database(struct url_reader *reader, const char *text)
{
    long number = 0;
    if (text && strcmp(text, "/") != 0
        && !read_number(text[0] == '/' ? text + 1 : text, INT_MAX, &number)) {
        return error_set(reader->reterr, ERROR_INVALID,
                         "the database of a Redis URL is a number, not \"%s\"", text);
    }
    reader->url->database = (int)number;
    return true;
}

static bool read_verify(struct url_reader *reader, const char *value)
{
    static const struct {
        const char *name;
        enum stream_verify verify;
    } words[] = {
        {"required", STREAM_VERIFY_REQUIRED}, {"CERT_REQUIRED", STREAM_VERIFY_REQUIRED},
        {"optional", STREAM_VERIFY_OPTIONAL}, {"CERT_OPTIONAL", STREAM_VERIFY_OPTIONAL},
        {"none", STREAM_VERIFY_NONE},         {"CERT_NONE", STREAM_VERIFY_NONE},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(words); index++) {
        if (strcmp(value, words[index].name) == 0) {
            reader->url->stream.tls.verify = words[index].verify;
            reader->has_cert_reqs = true;
            return true;
        }
    }
    return error_set(reader->reterr, ERROR_INVALID,
                     "ssl_cert_reqs is required, optional or none, not \"%s\"", value);
}

static bool read_tls_argument(struct url_reader *reader, const char *name, const char *value)
{
    struct stream_tls *tls = &reader->url->stream.tls;
    reader->has_tls_arguments = true;
    if (strcmp(name, "ssl_cert_reqs") == 0) {
        return read_verify(reader, value);
    }
    if (strcmp(name, "ssl_check_hostname") == 0) {
        tls->check_hostname = strcasecmp(value, "false") != 0;
    } else if (strcmp(name, "ssl_ca_certs") == 0) {
        tls->ca_file = value;
    } else if (strcmp(name, "ssl_certfile") == 0) {
        tls->certificate_file = value;
    } else if (strcmp(name, "ssl_keyfile") == 0) {
        tls->key_file = value;
    } else {
        return error_set(reader->reterr, ERROR_UNSUPPORTED,
                         "\"%s\" in a Redis URL is not supported", name);
    }
    return true;
}

static bool read_timeout(struct url_reader *reader, const char *value)
{
    char *end = NULL;
    double seconds = strtod(value, &end);
    if (end == value || *end != '\0' || !(seconds > 0) || seconds > 3600) {
        return error_set(reader->reterr, ERROR_INVALID,
                         "socket_connect_timeout is a number of seconds, not \"%s\"", value);
    }
    int timeout_ms = (int)(seconds * 1000);
    reader->url->stream.connect_timeout_ms = timeout_ms > 0 ? timeout_ms : 1;
    return true;
}

/* Arguments that only steer redis-py are passed over. */
static bool read_argument(struct url_reader *reader, const char *name, const char *value)
{
    if (strcmp(name, "virtual_host") == 0 || strcmp(name, "db") == 0) {
        return read_database(reader, value);
    }
    if (strcmp(name, "socket_connect_timeout") == 0) {
        return read_timeout(reader, value);
    }
    if (strcmp(name, "username") == 0) {
        reader->url->user = value;
    } else if (strcmp(name, "password") == 0) {
        reader->url->password = value;
    } else if (strcmp(name, "credential_provider") == 0) {
        return error_set(reader->reterr, ERROR_UNSUPPORTED,
                         "\"credential_provider\" in a Redis URL needs Python");
    } else if (strncmp(name, "ssl_", 4) == 0) {
        return read_tls_argument(reader, name, value);
    }
    return true;
}

static bool read_query(struct url_reader *reader, struct bytes query)
{
    while (query.length > 0) {
        size_t end = bytes_find(query, '&');
        struct bytes pair = cut(query, end);
        size_t equals = bytes_find(pair, '=');
        const char *name = decode(reader->arena, cut(pair, equals), true);
        const char *value = decode(reader->arena, behind(pair, equals), true);
        if (name && value && !read_argument(reader, name, value)) {
            return false;
        }
        query = behind(query, end);
    }
    return true;
}

/* Kombu verifies nothing when a broker URL has no ssl argument at all; else redis-py's default
 * holds, which is to verify. The backend wants to be told (celery/backends/redis.py:
 * E_REDIS_SSL_CERT_REQS_MISSING_INVALID). */
static bool settle_tls(struct url_reader *reader, bool is_rediss)
{
    struct stream_tls *tls = &reader->url->stream.tls;
    if (reader->for_backend && is_rediss && !reader->has_cert_reqs) {
        return error_set(reader->reterr, ERROR_INVALID,
                         "a rediss:// URL of a result backend needs ssl_cert_reqs: required, "
                         "optional or none");
    }
    if (reader->for_backend && !is_rediss && reader->has_tls_arguments) {
        return error_set(reader->reterr, ERROR_INVALID,
                         "ssl arguments need a rediss:// URL, not redis://");
    }
    tls->enabled = is_rediss || reader->has_tls_arguments;
    if (reader->has_tls_arguments && !reader->has_cert_reqs) {
        tls->verify = STREAM_VERIFY_REQUIRED;
    }
    return true;
}

static bool read_place(struct url_reader *reader, const struct url_parts *parts, bool is_socket)
{
    struct stream_options *stream = &reader->url->stream;
    const char *path = decode(reader->arena, parts->path, false);
    if (is_socket) {
        stream->unix_path = arena_format(reader->arena, "/%s", path ? path : "");
        return path ? true
                    : error_set(reader->reterr, ERROR_INVALID,
                                "a Redis socket URL needs a path: redis+socket:///run/redis.sock");
    }
    long port = DEFAULT_PORT;
    const char *port_text = decode(reader->arena, parts->port, false);
    if (port_text && !read_number(port_text, USHRT_MAX, &port)) {
        return error_set(reader->reterr, ERROR_INVALID, "the port of a Redis URL is 0 to 65535");
    }
    stream->port = (unsigned short)port;
    stream->host = decode(reader->arena, parts->host, false);
    if (!stream->host) {
        stream->host = "127.0.0.1";
    }
    return read_database(reader, path);
}

static const char *display(const struct redis_url *url, const char *scheme, struct arena *arena)
{
    const char *user = url->user ? url->user : "";
    const char *mask = url->password ? ":**" : "";
    const char *at = url->user || url->password ? "@" : "";
    if (url->stream.unix_path) {
        return arena_format(arena, "%s://%s%s%s%s?virtual_host=%d", scheme, user, mask, at,
                            url->stream.unix_path, url->database);
    }
    bool is_v6 = strchr(url->stream.host, ':') != NULL;
    return arena_format(arena, "%s://%s%s%s%s%s%s:%u/%d", scheme, user, mask, at, is_v6 ? "[" : "",
                        url->stream.host, is_v6 ? "]" : "", (unsigned)url->stream.port,
                        url->database);
}

bool redis_url_parse(const char *text, bool for_backend, struct arena *arena,
                     struct redis_url *ret_url, struct error *reterr)
{
    struct url_parts parts = {{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0},
                              {NULL, 0}, {NULL, 0}, {NULL, 0}};
    if (!split_url(bytes_from_text(text), &parts)) {
        return error_set(reterr, ERROR_INVALID,
                         "this is no URL: a Redis URL looks like "
                         "redis://host:6379/0");
    }
    bool is_rediss = bytes_equal_text(parts.scheme, "rediss");
    bool is_socket =
        bytes_equal_text(parts.scheme, "redis+socket") || bytes_equal_text(parts.scheme, "socket");
    if (!is_rediss && !is_socket && !bytes_equal_text(parts.scheme, "redis")) {
        return error_set(reterr, ERROR_UNSUPPORTED,
                         "%.*s:// is not supported: use redis://, rediss:// or redis+socket://",
                         BYTES_FORMAT(parts.scheme));
    }
    struct redis_url url = {
        .user = decode(arena, parts.user, false),
        .password = decode(arena, parts.password, false),
        .stream = {.connect_timeout_ms = DEFAULT_CONNECT_TIMEOUT_MS,
                   .max_write_bytes = MAX_WRITE_BYTES,
                   .tls = {.verify = STREAM_VERIFY_NONE, .check_hostname = true}},
    };
    struct url_reader reader = {arena, for_backend, &url, false, false, reterr};
    if (!read_place(&reader, &parts, is_socket) || !read_query(&reader, parts.query)
        || (!is_socket && !settle_tls(&reader, is_rediss))) {
        return false;
    }
    const char *scheme = is_rediss ? "rediss" : is_socket ? "redis+socket" : "redis";
    url.display = display(&url, scheme, arena);
    *ret_url = url;
    return true;
}

struct redis_url redis_url_copy(const struct redis_url *url, struct arena *arena)
{
    struct redis_url copy = *url;
    copy.user = arena_text_copy(arena, url->user);
    copy.password = arena_text_copy(arena, url->password);
    copy.display = arena_text_copy(arena, url->display);
    copy.stream = stream_options_copy(&url->stream, arena);
    return copy;
}
