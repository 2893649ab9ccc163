#include "executor/job_field.h"

#define MAX_TEXT_BYTES ((size_t)1024 * 1024)
#define MAX_TAG_BYTES  128
#define MAX_NAME_BYTES 255

#define MAX_SECONDS    INT32_MAX
#define TAG_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
#define POD            "/spec/template/spec/"

struct rule {
    const char *pattern; /* "*" is any one name */
    enum job_field_kind kind;
};

static const struct rule rules[] = {
    {"/metadata/labels/*", JOB_FIELD_TEXT},
    {"/metadata/annotations/*", JOB_FIELD_TEXT},
    {"/spec/activeDeadlineSeconds", JOB_FIELD_SECONDS},
    {"/spec/template/metadata/labels/*", JOB_FIELD_TEXT},
    {"/spec/template/metadata/annotations/*", JOB_FIELD_TEXT},
    {POD "activeDeadlineSeconds", JOB_FIELD_SECONDS},
    {POD "terminationGracePeriodSeconds", JOB_FIELD_SECONDS},
    {POD "containers/*/image", JOB_FIELD_IMAGE},
    {POD "containers/*/command/*", JOB_FIELD_ARGUMENT},
    {POD "containers/*/args/*", JOB_FIELD_ARGUMENT},
    {POD "containers/*/env/*/value", JOB_FIELD_ARGUMENT},
    {POD "containers/*/resources/requests/*", JOB_FIELD_QUANTITY},
    {POD "containers/*/resources/limits/*", JOB_FIELD_QUANTITY},
    {POD "containers/*/volumeMounts/*/subPath", JOB_FIELD_FOLDER},
    {POD "initContainers/*/image", JOB_FIELD_IMAGE},
    {POD "initContainers/*/command/*", JOB_FIELD_ARGUMENT},
    {POD "initContainers/*/args/*", JOB_FIELD_ARGUMENT},
    {POD "initContainers/*/env/*/value", JOB_FIELD_ARGUMENT},
    {POD "initContainers/*/resources/requests/*", JOB_FIELD_QUANTITY},
    {POD "initContainers/*/resources/limits/*", JOB_FIELD_QUANTITY},
    {POD "initContainers/*/volumeMounts/*/subPath", JOB_FIELD_FOLDER},
};

/* Finding */

static bool matches(const char *pattern, const char *pointer)
{
    while (*pattern) {
        if (*pattern == '*') {
            size_t length = strcspn(pointer, "/");
            if (length == 0) {
                return false;
            }
            pointer += length;
            pattern++;
        } else if (*pattern++ != *pointer++) {
            return false;
        }
    }
    return *pointer == '\0';
}

/* Labels and annotations that mean something to Kubernetes or to us: <domain>/<name>. */
static bool is_reserved_key(const char *key)
{
    static const char *const domains[] = {"kubernetes.io", "k8s.io", "petiole.dev"};
    const char *slash = strstr(key, "~1");
    if (!slash) {
        return false;
    }
    struct bytes domain = bytes_of(key, (size_t)(slash - key));
    for (size_t i = 0; i < ARRAY_LENGTH(domains); i++) {
        size_t length = strlen(domains[i]);
        if (domain.length >= length
            && strncasecmp(domain.data + domain.length - length, domains[i], length) == 0
            && (domain.length == length || domain.data[domain.length - length - 1] == '.')) {
            return true;
        }
    }
    return false;
}

bool job_field_find(const char *pointer, enum job_field_kind *ret_kind)
{
    for (size_t i = 0; i < ARRAY_LENGTH(rules); i++) {
        if (!matches(rules[i].pattern, pointer)) {
            continue;
        }
        const char *key = strrchr(pointer, '/') + 1;
        if (rules[i].kind == JOB_FIELD_TEXT && is_reserved_key(key)) {
            return false;
        }
        *ret_kind = rules[i].kind;
        return true;
    }
    return false;
}

/* What may stand where */

static bool has_only_texts(const struct job_placeholder_text *text, struct error *reterr)
{
    for (size_t i = 0; i < text->count; i++) {
        const struct job_placeholder *placeholder = text->parts[i].placeholder;
        bool is_text = !placeholder || placeholder->type == JOB_PLACEHOLDER_STR
                       || placeholder->type == JOB_PLACEHOLDER_INT
                       || placeholder->type == JOB_PLACEHOLDER_FLOAT;
        if (!is_text) {
            return error_set(reterr, ERROR_INVALID,
                             "%s: inside a longer text only str, int and float may stand",
                             placeholder->source);
        }
    }
    return true;
}

static bool is_whole_of(const struct job_placeholder_text *text, enum job_placeholder_type first,
                        enum job_placeholder_type second)
{
    if (!text->is_whole) {
        return false;
    }
    enum job_placeholder_type type = text->parts[0].placeholder->type;
    return type == first || type == second;
}

/* The operator's text must name the image; a message names no more than its version. */
static bool is_tag(const struct job_placeholder_text *text)
{
    struct bytes before = text->parts[0].literal;
    while (before.length > 0) {
        char byte = before.data[before.length - 1];
        if (byte == ':') {
            return before.length > 1;
        }
        if (byte == '/' || byte == '@') {
            return false;
        }
        before.length--;
    }
    return false;
}

bool job_field_accepts(enum job_field_kind kind, const struct job_placeholder_text *text,
                       struct error *reterr)
{
    switch (kind) {
    case JOB_FIELD_QUANTITY:
        return is_whole_of(text, JOB_PLACEHOLDER_QUANTITY, JOB_PLACEHOLDER_INT)
               || error_set(reterr, ERROR_INVALID,
                            "only one placeholder of type quantity or int may stand here");
    case JOB_FIELD_SECONDS:
        return is_whole_of(text, JOB_PLACEHOLDER_INT, JOB_PLACEHOLDER_INT)
               || error_set(reterr, ERROR_INVALID,
                            "only one placeholder of type int may stand here");
    case JOB_FIELD_IMAGE:
        if (!is_tag(text)) {
            return error_set(reterr, ERROR_INVALID,
                             "a placeholder may stand only behind the image's name and a colon");
        }
        return has_only_texts(text, reterr);
    case JOB_FIELD_FOLDER:
        return has_only_texts(text, reterr);
    case JOB_FIELD_TEXT:
    case JOB_FIELD_ARGUMENT:
        break;
    }
    return text->is_whole || has_only_texts(text, reterr);
}

/* Values */

static bool has_only(struct bytes text, const char *characters)
{
    for (size_t i = 0; i < text.length; i++) {
        if (!text.data[i] || !strchr(characters, text.data[i])) {
            return false;
        }
    }
    return true;
}

static bool check_name(enum job_field_kind kind, struct bytes text, struct error *reterr)
{
    size_t limit = kind == JOB_FIELD_IMAGE ? MAX_TAG_BYTES : MAX_NAME_BYTES;
    if (text.length == 0 || text.length > limit || !has_only(text, TAG_CHARACTERS)) {
        return error_set(reterr, ERROR_INVALID,
                         "must be 1 to %zu letters, digits, dots, dashes or underscores", limit);
    }
    return true;
}

/* No part of the path that comes out may lead elsewhere. */
static bool check_folder(struct bytes path, struct error *reterr)
{
    while (path.length > 0) {
        size_t length = bytes_find(path, '/');
        struct bytes name = bytes_of(path.data, length);
        if (bytes_equal_text(name, ".") || bytes_equal_text(name, "..")) {
            return error_set(reterr, ERROR_INVALID, "must not be . or ..");
        }
        path = bytes_skip(path, length + 1);
    }
    return true;
}

static void append_doubled(struct buffer *buffer, struct bytes text)
{
    for (size_t i = 0; i < text.length; i++) {
        (void)buffer_append_byte(buffer, text.data[i]);
        if (text.data[i] == '$') {
            (void)buffer_append_byte(buffer, '$');
        }
    }
}

/* Appends what a message brought to the text of a field. */
static bool append_value(enum job_field_kind kind, const json_t *value, struct buffer *text,
                         struct error *reterr)
{
    struct buffer piece;
    buffer_init(&piece, MAX_TEXT_BYTES);
    bool is_fine = job_placeholder_append_text(&piece, value);
    if (!is_fine) {
        (void)error_set(reterr, ERROR_TOO_LARGE, "is longer than %zu bytes", MAX_TEXT_BYTES);
    } else if (kind == JOB_FIELD_IMAGE || kind == JOB_FIELD_FOLDER) {
        is_fine = check_name(kind, buffer_view(&piece), reterr);
    }
    if (is_fine && kind == JOB_FIELD_ARGUMENT) {
        append_doubled(text, buffer_view(&piece));
    } else if (is_fine) {
        (void)buffer_append(text, buffer_view(&piece));
    }
    buffer_fini(&piece);
    return is_fine;
}

static json_t *finish_text(enum job_field_kind kind, struct buffer *text, struct error *reterr)
{
    json_t *made = NULL;
    if (text->overflowed) {
        (void)error_set(reterr, ERROR_TOO_LARGE, "is longer than %zu bytes", MAX_TEXT_BYTES);
    } else if (kind != JOB_FIELD_FOLDER || check_folder(buffer_view(text), reterr)) {
        made = json_stringn(text->data ? text->data : "", text->length);
    }
    buffer_fini(text);
    return made;
}

static json_t *check_seconds(json_t *value, struct error *reterr)
{
    json_int_t seconds = json_integer_value(value);
    if (value && (seconds < 1 || seconds > MAX_SECONDS)) {
        (void)error_set(reterr, ERROR_INVALID, "must be 1 to %d seconds", MAX_SECONDS);
        json_decref(value);
        return NULL;
    }
    return value;
}

static json_t *check_amount(json_t *value, struct error *reterr)
{
    if (json_is_integer(value) && json_integer_value(value) < 0) {
        (void)error_set(reterr, ERROR_INVALID, "must not be less than 0");
        json_decref(value);
        return NULL;
    }
    return value;
}

/* A value that is of its placeholder's type, and yet not one for its field. Returns NULL. */
static json_t *blame(const struct job_placeholder_text *text, struct error *reterr)
{
    for (size_t i = 0; i < text->count; i++) {
        if (text->parts[i].placeholder) {
            (void)error_wrap(reterr, "%s", text->parts[i].placeholder->source);
            break;
        }
    }
    return NULL;
}

static json_t *render_number(enum job_field_kind kind, const struct job_placeholder_text *text,
                             const struct message *message, struct error *reterr)
{
    json_t *value = job_placeholder_value(text->parts[0].placeholder, message, reterr);
    if (!value) {
        return NULL;
    }
    value = kind == JOB_FIELD_SECONDS ? check_seconds(value, reterr) : check_amount(value, reterr);
    return value ? value : blame(text, reterr);
}

json_t *job_field_render(enum job_field_kind kind, const struct job_placeholder_text *text,
                         const struct message *message, struct error *reterr)
{
    if (kind == JOB_FIELD_SECONDS || kind == JOB_FIELD_QUANTITY) {
        return render_number(kind, text, message, reterr);
    }
    struct buffer made;
    buffer_init(&made, MAX_TEXT_BYTES);
    for (size_t i = 0; i < text->count; i++) {
        const struct job_placeholder_part *part = &text->parts[i];
        (void)buffer_append(&made, part->literal);
        if (!part->placeholder) {
            continue;
        }
        json_t *value = job_placeholder_value(part->placeholder, message, reterr);
        bool is_fine = value != NULL;
        if (value && !append_value(kind, value, &made, reterr)) {
            is_fine = error_wrap(reterr, "%s", part->placeholder->source);
        }
        json_decref(value);
        if (!is_fine) {
            buffer_fini(&made);
            return NULL;
        }
    }
    json_t *whole = finish_text(kind, &made, reterr);
    return whole ? whole : blame(text, reterr);
}

json_t *job_field_override(enum job_field_kind kind, struct json value, struct error *reterr)
{
    if (kind == JOB_FIELD_SECONDS) {
        return check_seconds(job_placeholder_convert(JOB_PLACEHOLDER_INT, value, reterr), reterr);
    }
    if (kind == JOB_FIELD_QUANTITY) {
        return job_placeholder_convert(JOB_PLACEHOLDER_QUANTITY, value, reterr);
    }
    json_t *text = job_placeholder_convert(JOB_PLACEHOLDER_STR, value, reterr);
    struct buffer made;
    buffer_init(&made, MAX_TEXT_BYTES);
    bool is_fine = text && append_value(kind, text, &made, reterr);
    json_decref(text);
    if (!is_fine) {
        buffer_fini(&made);
        return NULL;
    }
    return finish_text(kind, &made, reterr);
}
