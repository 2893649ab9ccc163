#include "worker/settings_check.h"

#include <sched.h>
#include <time.h>

#include "base/timezone.h"
#include "telemetry/metrics.h"
#include "telemetry/status_server.h"
#include "worker/settings_value.h"

static bool fail_text(const struct settings *settings, enum setting_id id, const char *text,
                      const char *allowed, struct error *reterr)
{
    return settings_value_fail(settings, id, NULL, reterr, "%s is allowed, not \"%.64s\"", allowed,
                               text);
}

/* A namespace, and so a tenant's name: RFC 1123 label, as Kubernetes wants it. */
static bool is_label(const char *text)
{
    size_t length = strlen(text);
    return length > 0 && length <= 63
           && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == length && text[0] != '-'
           && text[length - 1] != '-';
}

static bool check_label(const struct settings *settings, enum setting_id id, const char *text,
                        struct error *reterr)
{
    if (!text && id == SETTING_ID_kubernetes_namespace) {
        return true;
    }
    if (!text || !is_label(text)) {
        return fail_text(settings, id, text ? text : "null",
                         "a name of lower-case letters, digits and dashes, at most 63,", reterr);
    }
    return true;
}

static bool check_tenancy(const struct settings *settings, struct error *reterr)
{
    const char *path = settings->tenant_path;
    if (path && path[0]
        && ((strncmp(path, "kwargs.", 7) != 0 && strncmp(path, "args.", 5) != 0)
            || strstr(path, "..") || path[strlen(path) - 1] == '.')) {
        return fail_text(settings, SETTING_ID_tenant_path, path,
                         "a path such as kwargs.config.metadata.namespace", reterr);
    }
    return check_label(settings, SETTING_ID_kubernetes_namespace, settings->kubernetes_namespace,
                       reterr)
           && check_label(settings, SETTING_ID_tenant_default, settings->tenant_default, reterr);
}

static bool check_address(const struct settings *settings, struct error *reterr)
{
    const char *address = settings->worker_http_address;
    if (!address || !address[0]) {
        return true;
    }
    struct error inner = {0};
    if (!status_server_is_address(address, &inner)) {
        return settings_value_fail(settings, SETTING_ID_worker_http_address, NULL, reterr, "%s",
                                   inner.message);
    }
    return true;
}

static bool check_timezone(const struct settings *settings, struct error *reterr)
{
    struct timezone_table table;
    struct error inner = {0};
    if (settings->timezone && !timezone_load(settings->timezone, time(NULL), &table, &inner)) {
        return settings_value_fail(settings, SETTING_ID_timezone, NULL, reterr, "%s",
                                   inner.message);
    }
    return true;
}

static bool is_json_name(const char *name)
{
    return strcmp(name, "json") == 0 || strcmp(name, "application/json") == 0;
}

static bool check_serializers(struct settings *settings, struct error *reterr)
{
    const char *serializer = settings->result_serializer;
    if (serializer && !is_json_name(serializer)) {
        return fail_text(settings, SETTING_ID_result_serializer, serializer, "json", reterr);
    }
    for (size_t index = 0; settings->accept_content[index]; index++) {
        if (!is_json_name(settings->accept_content[index])) {
            settings_value_note(settings, LOG_DEBUG,
                                "accept_content: messages in %.64s are opened by Python processes "
                                "alone; tasks of other executors that come in it fail.",
                                settings->accept_content[index]);
        }
    }
    return true;
}

static bool check_mapping(const struct settings *settings, enum setting_id id,
                          const struct yaml *node, struct error *reterr)
{
    if (node && node->type != YAML_MAPPING) {
        return settings_value_fail(settings, id, node, reterr, "a mapping is allowed, not %s",
                                   yaml_type_name(node));
    }
    return true;
}

static bool check_reserve(const struct settings *settings, struct error *reterr)
{
    const struct yaml *reserve = settings->kubernetes_quota_reserve;
    int64_t count = 0;
    if (!check_mapping(settings, SETTING_ID_kubernetes_quota_reserve, reserve, reterr)) {
        return false;
    }
    for (size_t index = 0; reserve && index < reserve->count; index++) {
        struct yaml_entry entry = reserve->entries[index];
        if (!bytes_equal_text(entry.key->text, "pods") || !yaml_integer(entry.value, &count)
            || count < 0) {
            return settings_value_fail(settings, SETTING_ID_kubernetes_quota_reserve, entry.key,
                                       reterr, "pods and a whole number from 0 is allowed");
        }
    }
    return true;
}

static bool check_trees(const struct settings *settings, struct error *reterr)
{
    return check_reserve(settings, reterr)
           && check_mapping(settings, SETTING_ID_broker_transport_options,
                            settings->broker_transport_options, reterr)
           && check_mapping(settings, SETTING_ID_result_backend_transport_options,
                            settings->result_backend_transport_options, reterr);
}

static bool read_buckets(struct settings *settings, struct error *reterr)
{
    const char *const *texts = settings->worker_runtime_buckets;
    size_t count = settings_value_count(texts);
    if (count > METRICS_MAX_BUCKETS) {
        return settings_value_fail(settings, SETTING_ID_worker_runtime_buckets, NULL, reterr,
                                   "at most %d bounds are allowed", METRICS_MAX_BUCKETS);
    }
    double *buckets = arena_alloc(settings->arena, (count + 1) * sizeof(*buckets));
    for (size_t index = 0; index < count; index++) {
        struct yaml scalar = {
            .type = YAML_SCALAR, .is_plain = true, .text = bytes_from_text(texts[index])};
        double floor = index > 0 ? buckets[index - 1] : 0;
        if (!yaml_double(&scalar, &buckets[index]) || buckets[index] <= floor) {
            return fail_text(settings, SETTING_ID_worker_runtime_buckets, texts[index],
                             "a growing list of seconds", reterr);
        }
    }
    settings->runtime_buckets = buckets;
    settings->runtime_bucket_count = count;
    return true;
}

static void count_cpus(struct settings *settings)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (settings->worker_concurrency == 0) {
        bool ok = sched_getaffinity(0, sizeof(set), &set) == 0;
        settings->worker_concurrency = ok && CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
    }
}

/* "gevent" of gevent, celery.concurrency.gevent:TaskPool or …gevent.TaskPool
 * (celery/concurrency/__init__.py: ALIASES); all else stays as it is. */
static const char *pool_name(const struct settings *settings)
{
    static const char package[] = "celery.concurrency.";
    struct bytes name = bytes_from_text(settings->worker_pool ? settings->worker_pool : "prefork");
    if (!bytes_starts_with(name, BYTES("celery.concurrency."))) {
        return arena_text(settings->arena, name);
    }
    name = bytes_skip(name, sizeof(package) - 1);
    size_t dot = bytes_find(name, '.');
    size_t colon = bytes_find(name, ':');
    name = bytes_of(name.data, dot < colon ? dot : colon);
    return bytes_equal_text(name, "thread") ? "threads" : arena_text(settings->arena, name);
}

/* What becomes of a pool that is not made of processes. */
static void choose_pool(struct settings *settings)
{
    const char *name = pool_name(settings);
    bool is_prefork = strcmp(name, "prefork") == 0 || strcmp(name, "processes") == 0;
    bool is_concurrent = strcmp(name, "threads") == 0 || strcmp(name, "gevent") == 0
                         || strcmp(name, "eventlet") == 0;
    settings->worker_pool = is_prefork ? "prefork" : name;
    if (strcmp(name, "solo") == 0) {
        settings_value_note(settings, LOG_WARNING,
                            "-P solo: tasks of the app run one at a time in one Python process "
                            "beside the worker, as by -P prefork -c 1.");
    } else if (is_concurrent) {
        settings_value_note(settings, LOG_WARNING,
                            "-P %s: tasks of the app run in Python processes, one task each, of "
                            "which up to %lld are started as work comes, as by -P prefork; -c "
                            "sets how many, and each needs memory of its own.",
                            name, (long long)settings->worker_concurrency);
    } else if (!is_prefork) {
        settings_value_note(settings, LOG_WARNING,
                            "-P %.128s: a pool class of Python's is not used; tasks of the app run "
                            "in up to %lld Python processes (-c), as by -P prefork.",
                            name, (long long)settings->worker_concurrency);
    }
}

static bool is_supported_url(const char *url)
{
    static const char *const schemes[] = {"redis://", "rediss://", "redis+socket://", "socket://"};
    for (size_t index = 0; index < ARRAY_LENGTH(schemes); index++) {
        if (strncasecmp(url, schemes[index], strlen(schemes[index])) == 0) {
            return true;
        }
    }
    return false;
}

/* The first URL that we can speak, else the first, so that its scheme is named when it is opened.
 */
static void choose_broker(struct settings *settings)
{
    bool has_read_url = settings->broker_read_url[0] != NULL;
    const char *const *urls = has_read_url ? settings->broker_read_url : settings->broker_url;
    const char *name = has_read_url ? "broker_read_url" : "broker_url";
    settings->broker = NULL;
    for (size_t index = 0; urls[index] && !settings->broker; index++) {
        if (is_supported_url(urls[index])) {
            settings->broker = urls[index];
        } else if (urls[1]) {
            settings_value_note(settings, LOG_WARNING,
                                "%s: URL number %zu has a scheme that is not supported.", name,
                                index + 1);
        }
    }
    if (!settings->broker) {
        settings->broker = urls[0];
    } else if (urls[1]) {
        settings_value_note(settings, LOG_WARNING,
                            "%s: only one URL is used; there is no failover to the others.", name);
    }
    const char *write_url = settings->broker_write_url[0];
    if (write_url && settings->broker && strcmp(write_url, settings->broker) != 0) {
        settings_value_note(settings, LOG_WARNING,
                            "broker_write_url is not used: messages are published where they are "
                            "consumed.");
    }
}

static void note_accepted(struct settings *settings)
{
    for (size_t id = 0; id < SETTING_COUNT_OF_ALL; id++) {
        if (settings_rows[id].kind == SETTING_ACCEPTED && settings->is_set[id]) {
            settings_value_note(settings, LOG_DEBUG, "%s: %s has no effect in Petiole.",
                                settings->origins[id], settings_rows[id].name);
        }
    }
}

/* What is understood and not done yet is said, not kept silent. */
static void note_missing(struct settings *settings)
{
    if (settings->worker_send_task_events) {
        settings_value_note(settings, LOG_WARNING,
                            "worker_send_task_events: this version sends no task events.");
        settings->worker_send_task_events = false;
    }
}

bool settings_check_all(struct settings *settings, struct error *reterr)
{
    if (!check_tenancy(settings, reterr) || !check_address(settings, reterr)
        || !check_timezone(settings, reterr) || !check_serializers(settings, reterr)
        || !check_trees(settings, reterr) || !read_buckets(settings, reterr)) {
        return false;
    }
    count_cpus(settings);
    choose_pool(settings);
    choose_broker(settings);
    note_accepted(settings);
    note_missing(settings);
    return true;
}

/* A limit that is not kept may be there to protect somebody. */
void settings_check_tasks(struct settings *settings)
{
    const struct task_type *row = NULL;
    const char *first = NULL;
    size_t count = 0;
    for (size_t index = 0; (row = registry_row(settings->registry, index)) != NULL; index++) {
        if (row->rate_limit) {
            first = first ? first : row->pattern;
            count++;
        }
    }
    if (count > 0) {
        settings_value_note(settings, LOG_WARNING,
                            "rate_limit of %.128s%s has no effect in this version of Petiole.",
                            first, count > 1 ? " and other tasks" : "");
    }
}
