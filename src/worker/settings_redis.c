#include "worker/settings_redis.h"

#include "worker/settings_bindings.h"
#include "worker/settings_value.h"

#define MAX_PRIORITY_STEPS 10

/* Transport options while they are read into `options`. */
struct reader {
    struct settings *settings;
    struct broker_redis_options *options;
    struct error *reterr;
};

typedef bool(option_fn)(struct reader *reader, void *member, const char *name,
                        const struct yaml *value);

static bool refuse(const struct reader *reader, const struct yaml *value, const char *name,
                   const char *allowed)
{
    return settings_value_fail(reader->settings, SETTING_ID_broker_transport_options, value,
                               reader->reterr, "%s: %s is allowed, not %s", name, allowed,
                               value->type == YAML_SCALAR && value->text.length > 0
                                   ? value->text.data
                                   : yaml_type_name(value));
}

static bool read_text(struct reader *reader, void *member, const char *name,
                      const struct yaml *value)
{
    if (yaml_is_null(value)) {
        return true;
    }
    if (value->type != YAML_SCALAR) {
        return refuse(reader, value, name, "a text");
    }
    *(const char **)member = value->text.data;
    return true;
}

static bool read_ms(struct reader *reader, void *member, const char *name, const struct yaml *value)
{
    double seconds = 0;
    if (yaml_is_null(value)) {
        return true;
    }
    if (!yaml_double(value, &seconds) || !(seconds > 0) || seconds > 1e9) {
        return refuse(reader, value, name, "a number of seconds above 0");
    }
    *(int64_t *)member = (int64_t)(seconds * 1000);
    return true;
}

/* kombu/utils/scheduling.py: CYCLE_ALIASES */
static bool read_order(struct reader *reader, void *member, const char *name,
                       const struct yaml *value)
{
    static const struct {
        const char *name;
        enum broker_redis_order order;
    } orders[] = {
        {"round_robin", BROKER_REDIS_ROUND_ROBIN},
        {"priority", BROKER_REDIS_PRIORITY},
        {"sorted", BROKER_REDIS_SORTED},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(orders); index++) {
        if (value->type == YAML_SCALAR && bytes_equal_text(value->text, orders[index].name)) {
            *(enum broker_redis_order *)member = orders[index].order;
            return true;
        }
    }
    return refuse(reader, value, name, "round_robin, priority or sorted");
}

static bool read_steps(struct reader *reader, void *member, const char *name,
                       const struct yaml *value)
{
    static const char allowed[] = "a growing list of whole numbers from 0 to 9";
    if (value->type != YAML_SEQUENCE || value->count == 0 || value->count > MAX_PRIORITY_STEPS) {
        return refuse(reader, value, name, allowed);
    }
    int *steps = arena_alloc(reader->settings->arena, value->count * sizeof(*steps));
    int64_t previous = -1;
    for (size_t index = 0; index < value->count; index++) {
        int64_t step = 0;
        if (!yaml_integer(value->entries[index].value, &step) || step <= previous || step > 9) {
            return refuse(reader, value->entries[index].value, name, allowed);
        }
        steps[index] = (int)step;
        previous = step;
    }
    *(const int **)member = steps;
    reader->options->priority_step_count = value->count;
    return true;
}

/* true: Kombu's own prefix; false: none. */
static bool read_fanout_prefix(struct reader *reader, void *member, const char *name,
                               const struct yaml *value)
{
    bool flag = true;
    if (settings_value_bool(value, &flag)) {
        *(const char **)member = flag ? NULL : "";
        return true;
    }
    return read_text(reader, member, name, value);
}

static bool read_connect_timeout(struct reader *reader, void *member, const char *name,
                                 const struct yaml *value)
{
    int64_t timeout_ms = *(int *)member;
    if (!read_ms(reader, &timeout_ms, name, value)) {
        return false;
    }
    *(int *)member = timeout_ms > 3600000 ? 3600000 : (int)timeout_ms;
    return true;
}

/* An option of Kombu's that means nothing here. */
static bool accept(struct reader *reader, void *member, const char *name, const struct yaml *value)
{
    (void)member;
    (void)value;
    settings_value_note(reader->settings, LOG_DEBUG,
                        "broker_transport_options: %s has no effect in Petiole.", name);
    return true;
}

static const struct option {
    const char *name;
    option_fn *read;
    size_t offset; /* in struct broker_redis_options */
} options[] = {
    {"visibility_timeout", read_ms, offsetof(struct broker_redis_options, visibility_timeout_ms)},
    {"queue_order_strategy", read_order, offsetof(struct broker_redis_options, order)},
    {"priority_steps", read_steps, offsetof(struct broker_redis_options, priority_steps)},
    {"sep", read_text, offsetof(struct broker_redis_options, separator)},
    {"global_keyprefix", read_text, offsetof(struct broker_redis_options, global_keyprefix)},
    {"fanout_prefix", read_fanout_prefix, offsetof(struct broker_redis_options, fanout_prefix)},
    {"unacked_key", read_text, offsetof(struct broker_redis_options, unacked_key)},
    {"unacked_index_key", read_text, offsetof(struct broker_redis_options, unacked_index_key)},
    {"unacked_mutex_key", read_text, offsetof(struct broker_redis_options, unacked_mutex_key)},
    {"unacked_mutex_expire", read_ms,
     offsetof(struct broker_redis_options, unacked_mutex_expire_ms)},
    {"socket_connect_timeout", read_connect_timeout,
     offsetof(struct broker_redis_options, url.stream.connect_timeout_ms)},
    {"ack_emulation", accept, 0},
    {"client_name", accept, 0},
    {"credential_provider", accept, 0},
    {"fanout_patterns", accept, 0},
    {"health_check_interval", accept, 0},
    {"interval_max", accept, 0},
    {"interval_start", accept, 0},
    {"interval_step", accept, 0},
    {"keyprefix_fanout", accept, 0},
    {"keyprefix_queue", accept, 0},
    {"max_connections", accept, 0},
    {"max_retries", accept, 0},
    {"polling_interval", accept, 0},
    {"reauth_check_interval", accept, 0},
    {"retry_on_timeout", accept, 0},
    {"socket_keepalive", accept, 0},
    {"socket_keepalive_options", accept, 0},
    {"socket_timeout", accept, 0},
    {"unacked_restore_limit", accept, 0},
};

static bool read_option(struct reader *reader, struct yaml_entry entry)
{
    for (size_t index = 0; index < ARRAY_LENGTH(options); index++) {
        if (bytes_equal_text(entry.key->text, options[index].name)) {
            return options[index].read(reader, (char *)reader->options + options[index].offset,
                                       options[index].name, entry.value);
        }
    }
    settings_value_note(reader->settings, LOG_WARNING,
                        "broker_transport_options: %.64s is not understood and was ignored.",
                        entry.key->text.data);
    return true;
}

/* TLS */

static bool read_verify(const struct yaml *value, enum stream_verify *ret_verify)
{
    /* The names of redis-py, those of Python's ssl module, and its numbers. */
    static const char *const words[][3] = {
        [STREAM_VERIFY_NONE] = {"none", "CERT_NONE", "0"},
        [STREAM_VERIFY_OPTIONAL] = {"optional", "CERT_OPTIONAL", "1"},
        [STREAM_VERIFY_REQUIRED] = {"required", "CERT_REQUIRED", "2"},
    };
    for (size_t verify = 0; verify < ARRAY_LENGTH(words); verify++) {
        for (size_t index = 0; index < 3; index++) {
            if (value->type == YAML_SCALAR && bytes_equal_text(value->text, words[verify][index])) {
                *ret_verify = (enum stream_verify)verify;
                return true;
            }
        }
    }
    return false;
}

static bool read_tls_option(const struct settings *settings, enum setting_id id,
                            struct yaml_entry entry, struct stream_tls *tls, struct error *reterr)
{
    const struct yaml *value = entry.value;
    const char *name = entry.key->text.data;
    const char *text = value->type == YAML_SCALAR && !yaml_is_null(value) ? value->text.data : NULL;
    bool ok = true;
    if (strcmp(name, "ssl_cert_reqs") == 0) {
        ok = read_verify(value, &tls->verify);
    } else if (strcmp(name, "ssl_check_hostname") == 0) {
        ok = settings_value_bool(value, &tls->check_hostname);
    } else if (strcmp(name, "ssl_ca_certs") == 0) {
        tls->ca_file = text;
    } else if (strcmp(name, "ssl_certfile") == 0) {
        tls->certificate_file = text;
    } else if (strcmp(name, "ssl_keyfile") == 0) {
        tls->key_file = text;
    } else {
        return settings_value_fail(settings, id, entry.key, reterr,
                                   "ssl_cert_reqs, ssl_check_hostname, ssl_ca_certs, ssl_certfile "
                                   "and ssl_keyfile are allowed, not \"%.64s\"",
                                   name);
    }
    if (!ok) {
        return settings_value_fail(settings, id, value, reterr, "%s: %s is allowed", name,
                                   strcmp(name, "ssl_cert_reqs") == 0 ? "required, optional or none"
                                                                      : "true or false");
    }
    return true;
}

/* Whether `node`, broker_use_ssl or redis_backend_use_ssl, asks for TLS at all. */
static bool wants_tls(const struct yaml *node)
{
    bool flag = true;
    return node && (!settings_value_bool(node, &flag) || flag);
}

static bool read_tls(const struct settings *settings, enum setting_id id, const struct yaml *node,
                     struct stream_tls *tls, struct error *reterr)
{
    if (!wants_tls(node)) {
        return true;
    }
    bool flag = false;
    if (node->type != YAML_MAPPING && !settings_value_bool(node, &flag)) {
        return settings_value_fail(settings, id, node, reterr,
                                   "true, false or a mapping is allowed, not %s",
                                   yaml_type_name(node));
    }
    tls->enabled = true;
    tls->verify = STREAM_VERIFY_REQUIRED;
    for (size_t index = 0; node->type == YAML_MAPPING && index < node->count; index++) {
        if (!read_tls_option(settings, id, node->entries[index], tls, reterr)) {
            return false;
        }
    }
    return true;
}

/* The setting's seconds, unless the URL says how long itself. */
static void set_connect_timeout(struct redis_url *url, const char *text, double seconds)
{
    if (seconds > 0 && !strstr(text, "socket_connect_timeout=")) {
        url->stream.connect_timeout_ms = seconds > 3600 ? 3600000 : (int)(seconds * 1000);
    }
}

static enum setting_id broker_id(const struct settings *settings)
{
    return settings->broker_read_url[0] ? SETTING_ID_broker_read_url : SETTING_ID_broker_url;
}

bool settings_redis_broker(struct settings *settings, struct broker_redis_options *ret_options,
                           struct error *reterr)
{
    struct broker_redis_options result = {.queues = settings->queues,
                                          .queue_count = settings->queue_count};
    struct error inner = {0};
    if (!settings->broker) {
        return error_set(reterr, ERROR_INVALID,
                         "broker_url is not set: use -b, CELERY_BROKER_URL or the settings file");
    }
    if (!redis_url_parse(settings->broker, false, settings->arena, &result.url, &inner)) {
        return settings_value_fail(settings, broker_id(settings), NULL, reterr, "%s",
                                   inner.message);
    }
    set_connect_timeout(&result.url, settings->broker, settings->broker_connection_timeout);
    if (!read_tls(settings, SETTING_ID_broker_use_ssl, settings->broker_use_ssl,
                  &result.url.stream.tls, reterr)) {
        return false;
    }
    struct reader reader = {settings, &result, reterr};
    const struct yaml *tree = settings->broker_transport_options;
    for (size_t index = 0; tree && index < tree->count; index++) {
        if (!read_option(&reader, tree->entries[index])) {
            return false;
        }
    }
    result.bindings = settings_bindings_all(settings, &result.binding_count);
    *ret_options = result;
    return true;
}

static bool read_backend_options(struct settings *settings, struct result_redis_options *result,
                                 struct error *reterr)
{
    const struct yaml *prefix =
        yaml_get(settings->result_backend_transport_options, "global_keyprefix");
    if (!yaml_is_null(prefix)) {
        if (prefix->type != YAML_SCALAR) {
            return settings_value_fail(
                settings, SETTING_ID_result_backend_transport_options, prefix, reterr,
                "global_keyprefix: a text is allowed, not %s", yaml_type_name(prefix));
        }
        result->global_keyprefix = prefix->text.data;
    }
    return true;
}

/* redis_backend_use_ssl must say what is verified, as the URL must (celery/backends/redis.py:
 * E_REDIS_SSL_CERT_REQS_MISSING_INVALID). */
static bool check_backend_tls(const struct settings *settings, struct error *reterr)
{
    const struct yaml *tls = settings->redis_backend_use_ssl;
    if (wants_tls(tls) && !yaml_get(tls, "ssl_cert_reqs")
        && !strstr(settings->result_backend, "ssl_cert_reqs=")) {
        return settings_value_fail(settings, SETTING_ID_redis_backend_use_ssl, tls, reterr,
                                   "ssl_cert_reqs is needed: required, optional or none");
    }
    return true;
}

bool settings_redis_backend(struct settings *settings, struct result_redis_options *ret_options,
                            struct error *reterr)
{
    const char *text = settings->result_backend;
    struct result_redis_options result = {.client_name = settings->redis_client_name};
    struct error inner = {0};
    if (!text || !text[0] || strcmp(text, "disabled") == 0) {
        return error_set(reterr, ERROR_NOT_FOUND, "result_backend is not set");
    }
    bool has_own_tls = wants_tls(settings->redis_backend_use_ssl);
    if (!redis_url_parse(text, !has_own_tls, settings->arena, &result.url, &inner)) {
        return settings_value_fail(settings, SETTING_ID_result_backend, NULL, reterr, "%s",
                                   inner.message);
    }
    double seconds = settings->redis_socket_connect_timeout;
    set_connect_timeout(&result.url, text, seconds > 0 ? seconds : 4);
    if (!check_backend_tls(settings, reterr)
        || !read_tls(settings, SETTING_ID_redis_backend_use_ssl, settings->redis_backend_use_ssl,
                     &result.url.stream.tls, reterr)
        || !read_backend_options(settings, &result, reterr)) {
        return false;
    }
    if (!result.url.password && settings->redis_password) {
        result.url.user = settings->redis_username;
        result.url.password = settings->redis_password;
    }
    *ret_options = result;
    return true;
}
