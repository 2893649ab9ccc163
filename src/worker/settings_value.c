#include "worker/settings_value.h"

#include <stdarg.h>

#define MAX_COUNT 1000000000

static void *member_of(struct settings *settings, const struct setting_row *row)
{
    return (char *)settings + row->offset;
}

bool settings_value_fail(const struct settings *settings, enum setting_id id,
                         const struct yaml *node, struct error *reterr, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    const char *origin = settings->origins[id] ? settings->origins[id] : "default";
    const char *name = settings_rows[id].name;
    node = node ? node : settings->nodes[id];
    if (node && origin == settings->config_path) {
        return error_set(reterr, ERROR_INVALID, "%s:%d: %s: %s", origin, node->line, name, text);
    }
    return error_set(reterr, ERROR_INVALID, "%s: %s: %s", origin, name, text);
}

static bool refuse(const struct settings *settings, const struct setting_row *row,
                   const struct yaml *node, const char *allowed, struct error *reterr)
{
    enum setting_id id = (enum setting_id)(row - settings_rows);
    if (node && node->type == YAML_SCALAR) {
        return settings_value_fail(settings, id, node, reterr, "%s is allowed, not \"%.64s\"",
                                   allowed, node->text.data);
    }
    return settings_value_fail(settings, id, node, reterr, "%s is allowed, not %s", allowed,
                               yaml_type_name(node));
}

bool settings_value_bool(const struct yaml *node, bool *ret_value)
{
    if (!node || node->type != YAML_SCALAR) {
        return false;
    }
    struct yaml plain = *node;
    plain.is_plain = true;
    if (yaml_bool(&plain, ret_value)) {
        return true;
    }
    bool is_one = bytes_equal_text(node->text, "1");
    if (!is_one && !bytes_equal_text(node->text, "0")) {
        return false;
    }
    *ret_value = is_one;
    return true;
}

/* `view` without the blanks around it. */
static struct bytes trimmed(struct bytes view)
{
    while (view.length > 0 && (view.data[0] == ' ' || view.data[0] == '\t')) {
        view = bytes_skip(view, 1);
    }
    while (view.length > 0
           && (view.data[view.length - 1] == ' ' || view.data[view.length - 1] == '\t')) {
        view.length--;
    }
    return view;
}

static const char *const *split(struct bytes text, char separator, struct arena *arena)
{
    size_t most = 2;
    for (size_t index = 0; index < text.length; index++) {
        most += text.data[index] == separator ? 1 : 0;
    }
    const char **list = arena_alloc(arena, most * sizeof(*list));
    size_t count = 0;
    while (text.length > 0) {
        size_t end = bytes_find(text, separator);
        struct bytes piece = trimmed(bytes_of(text.data, end));
        if (piece.length > 0) {
            list[count++] = arena_text(arena, piece);
        }
        text = bytes_skip(text, end + 1);
    }
    return list;
}

const char *const *settings_value_list(const struct yaml *node, char separator, struct arena *arena)
{
    if (yaml_is_null(node)) {
        return arena_alloc(arena, sizeof(const char *));
    }
    if (node->type == YAML_SCALAR) {
        return split(node->text, separator, arena);
    }
    if (node->type != YAML_SEQUENCE) {
        return NULL;
    }
    const char **list = arena_alloc(arena, (node->count + 1) * sizeof(*list));
    for (size_t index = 0; index < node->count; index++) {
        const struct yaml *item = node->entries[index].value;
        if (item->type != YAML_SCALAR) {
            return NULL;
        }
        list[index] = item->text.data;
    }
    return list;
}

size_t settings_value_count(const char *const *list)
{
    size_t count = 0;
    while (list[count]) {
        count++;
    }
    return count;
}

static bool read_bool(struct settings *settings, const struct setting_row *row,
                      const struct yaml *node, struct error *reterr)
{
    bool flag = false;
    if (!settings_value_bool(node, &flag)) {
        return refuse(settings, row, node, "true or false", reterr);
    }
    *(bool *)member_of(settings, row) = flag;
    return true;
}

static bool read_tristate(struct settings *settings, const struct setting_row *row,
                          const struct yaml *node, struct error *reterr)
{
    enum setting_tristate value = SETTING_NONE;
    bool flag = false;
    if (!yaml_is_null(node)) {
        if (!settings_value_bool(node, &flag)) {
            return refuse(settings, row, node, "true, false or null", reterr);
        }
        value = flag ? SETTING_TRUE : SETTING_FALSE;
    }
    *(enum setting_tristate *)member_of(settings, row) = value;
    return true;
}

static bool read_int(struct settings *settings, const struct setting_row *row,
                     const struct yaml *node, struct error *reterr)
{
    int64_t value = -1;
    if (!yaml_is_null(node)
        && (!yaml_integer(node, &value) || value < -MAX_COUNT || value > MAX_COUNT)) {
        return refuse(settings, row, node, "a whole number or null", reterr);
    }
    *(int64_t *)member_of(settings, row) = value;
    return true;
}

static bool read_count(struct settings *settings, const struct setting_row *row,
                       const struct yaml *node, struct error *reterr)
{
    int64_t value = 0;
    bool is_auto = node && node->type == YAML_SCALAR && strcasecmp(node->text.data, "auto") == 0;
    if (!is_auto && !yaml_is_null(node)
        && (!yaml_integer(node, &value) || value < 0 || value > MAX_COUNT)) {
        return refuse(settings, row, node, "a whole number from 0 to 1000000000", reterr);
    }
    *(int64_t *)member_of(settings, row) = value;
    return true;
}

static bool read_seconds(struct settings *settings, const struct setting_row *row,
                         const struct yaml *node, struct error *reterr)
{
    double value = 0;
    if (!yaml_is_null(node) && (!yaml_double(node, &value) || value < 0 || value > MAX_COUNT)) {
        return refuse(settings, row, node, "a number of seconds from 0 to 1000000000, or null",
                      reterr);
    }
    *(double *)member_of(settings, row) = value;
    return true;
}

static bool read_text(struct settings *settings, const struct setting_row *row,
                      const struct yaml *node, struct error *reterr)
{
    const char *text = NULL;
    if (!yaml_is_null(node)) {
        if (node->type != YAML_SCALAR) {
            return refuse(settings, row, node, "a text", reterr);
        }
        text = node->text.data;
    }
    *(const char **)member_of(settings, row) = text;
    return true;
}

/* Whether some Celery speaks to brokers of that kind (kombu/transport/__init__.py:
 * TRANSPORT_ALIASES): then it is no mistake in the file, even where we cannot. */
static bool is_broker_url(const char *url)
{
    static const char *const transports[] = {
        "redis",
        "rediss",
        "socket",
        "sentinel",
        "amqp",
        "amqps",
        "pyamqp",
        "kafka",
        "librabbitmq",
        "confluentkafka",
        "memory",
        "mongodb",
        "sqs",
        "sqla",
        "sqlalchemy",
        "consul",
        "etcd",
        "zookeeper",
        "azurestoragequeues",
        "azureservicebus",
        "qpid",
        "pyro",
        "gcpubsub",
        "slmq",
        "filesystem",
    };
    const char *end = strstr(url, "://");
    size_t length = end ? strcspn(url, "+:") : 0;
    for (size_t index = 0; index < ARRAY_LENGTH(transports); index++) {
        if (length == strlen(transports[index])
            && strncasecmp(url, transports[index], length) == 0) {
            return true;
        }
    }
    return false;
}

static bool check_urls(const struct settings *settings, const struct setting_row *row,
                       const struct yaml *node, const char *const *urls, struct error *reterr)
{
    enum setting_id id = (enum setting_id)(row - settings_rows);
    for (size_t index = 0; urls[index]; index++) {
        if (!is_broker_url(urls[index])) {
            return settings_value_fail(settings, id, node, reterr,
                                       "a URL that begins with redis://, rediss:// or "
                                       "redis+socket:// is allowed");
        }
    }
    return true;
}

static bool read_list(struct settings *settings, const struct setting_row *row,
                      const struct yaml *node, struct error *reterr)
{
    char separator = row->kind == SETTING_URLS ? ';' : ',';
    const char *const *list = settings_value_list(node, separator, settings->arena);
    if (!list) {
        return refuse(settings, row, node, "a list of texts", reterr);
    }
    if (row->kind == SETTING_URLS && !check_urls(settings, row, node, list, reterr)) {
        return false;
    }
    *(const char *const **)member_of(settings, row) = list;
    return true;
}

static bool read_tree(struct settings *settings, const struct setting_row *row,
                      const struct yaml *node)
{
    *(const struct yaml **)member_of(settings, row) = yaml_is_null(node) ? NULL : node;
    return true;
}

static bool read_by_kind(struct settings *settings, const struct setting_row *row,
                         const struct yaml *node, struct error *reterr)
{
    switch (row->kind) {
    case SETTING_BOOL:
        return read_bool(settings, row, node, reterr);
    case SETTING_TRISTATE:
        return read_tristate(settings, row, node, reterr);
    case SETTING_INT:
        return read_int(settings, row, node, reterr);
    case SETTING_COUNT:
        return read_count(settings, row, node, reterr);
    case SETTING_SECONDS:
        return read_seconds(settings, row, node, reterr);
    case SETTING_TEXT:
    case SETTING_URL:
        return read_text(settings, row, node, reterr);
    case SETTING_LIST:
    case SETTING_URLS:
        return read_list(settings, row, node, reterr);
    case SETTING_TREE:
    case SETTING_ACCEPTED:
        break;
    }
    return read_tree(settings, row, node);
}

bool settings_value_read(struct settings *settings, const struct setting_row *row,
                         const struct yaml *node, const char *origin, struct error *reterr)
{
    size_t id = (size_t)(row - settings_rows);
    settings->origins[id] = origin;
    settings->nodes[id] = origin ? node : NULL;
    settings->is_set[id] = origin != NULL;
    return read_by_kind(settings, row, node, reterr);
}

static bool is_yaml(const struct setting_row *row, const char *text)
{
    switch (row->kind) {
    case SETTING_TREE:
        return true;
    case SETTING_LIST:
    case SETTING_URLS:
        return text[0] == '[';
    case SETTING_BOOL:
    case SETTING_TRISTATE:
    case SETTING_INT:
    case SETTING_COUNT:
    case SETTING_SECONDS:
    case SETTING_TEXT:
    case SETTING_URL:
    case SETTING_ACCEPTED:
        break;
    }
    return false;
}

bool settings_value_read_text(struct settings *settings, const struct setting_row *row,
                              const char *text, const char *origin, struct error *reterr)
{
    if (is_yaml(row, text)) {
        const struct yaml *tree =
            yaml_parse(bytes_from_text(text), origin ? origin : row->name, settings->arena, reterr);
        return tree && settings_value_read(settings, row, tree, origin, reterr);
    }
    struct yaml *scalar = arena_alloc(settings->arena, sizeof(*scalar));
    scalar->type = YAML_SCALAR;
    scalar->line = 1;
    scalar->text = arena_copy(settings->arena, bytes_from_text(text));
    scalar->is_plain = scalar->text.length > 0 || row->kind != SETTING_TEXT;
    return settings_value_read(settings, row, scalar, origin, reterr);
}

void settings_value_note(struct settings *settings, enum log_level level, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    size_t count = settings->note_count;
    struct settings_note *notes = arena_alloc(settings->arena, (count + 1) * sizeof(*notes));
    if (count > 0) {
        memcpy(notes, settings->notes, count * sizeof(*notes));
    }
    notes[count] =
        (struct settings_note){level, arena_text(settings->arena, bytes_from_text(text))};
    settings->notes = notes;
    settings->note_count = count + 1;
}
