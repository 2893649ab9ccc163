#include "executor/kubernetes_job.h"

#include <stdio.h>

#include "codec/message_record.h"
#include "executor/executor.h"

#define LABEL(name)     "petiole.dev/" name
#define LONGEST_WAIT_S  86400 /* for quota and nodes, when there is a hard limit */
#define LIMIT_GRACE_S   30    /* for the runner's own timer to be first */
#define MAX_LABEL       63
#define MAX_TRACE_BYTES ((size_t)8192) /* of one header: a baggage may have so much (W3C Baggage) */
#define MESSAGE_VOLUME  "petiole-message"
#define MESSAGE_FOLDER  "/etc/petiole"
#define MESSAGE_FILE    "message"

/* Trees */

/* The object at `key`, made when it is missing or no object. Borrowed from `parent`. */
static json_t *object_at(json_t *parent, const char *key)
{
    json_t *child = json_object_get(parent, key);
    if (!json_is_object(child)) {
        (void)json_object_set_new(parent, key, json_object());
        child = json_object_get(parent, key);
    }
    return child;
}

static json_t *array_at(json_t *parent, const char *key)
{
    json_t *child = json_object_get(parent, key);
    if (!json_is_array(child)) {
        (void)json_object_set_new(parent, key, json_array());
        child = json_object_get(parent, key);
    }
    return child;
}

static void set_text(json_t *object, const char *key, struct bytes text)
{
    json_t *value = json_stringn(text.data ? text.data : "", text.length);
    /* Not UTF-8 can only be a record of ours gone wrong; a key without a value is refused by the
     * API. */
    (void)json_object_set_new(object, key, value ? value : json_null());
}

static void set_default(json_t *object, const char *key, json_t *value)
{
    if (json_object_get(object, key)) {
        json_decref(value);
    } else {
        (void)json_object_set_new(object, key, value);
    }
}

/* Marks */

static bool is_letter_or_digit(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
           || (byte >= '0' && byte <= '9');
}

/* `text` as a label's value: letters, digits, "-", "_" and ".", cut to 63, ends are letters or
 * digits. */
static struct bytes label_value(struct bytes text, char storage[MAX_LABEL])
{
    size_t length = 0;
    for (size_t index = 0; index < text.length && length < MAX_LABEL; index++) {
        char byte = text.data[index];
        bool is_plain = is_letter_or_digit(byte);
        if (!is_plain && length == 0) {
            continue;
        }
        storage[length++] = (char)(is_plain || byte == '.' || byte == '_' ? byte : '-');
    }
    while (length > 0 && !is_letter_or_digit(storage[length - 1])) {
        length--;
    }
    return bytes_of(storage, length);
}

static void set_label(json_t *labels, const char *key, struct bytes text)
{
    char storage[MAX_LABEL];
    set_text(labels, key, label_value(text, storage));
}

static void set_labels(json_t *metadata, const struct request *request,
                       const struct kubernetes_job_marks *marks)
{
    json_t *labels = object_at(metadata, "labels");
    const struct message *message = &request->message;
    set_text(labels, "app.kubernetes.io/managed-by", BYTES("petiole"));
    set_label(labels, "app.kubernetes.io/name", message->task);
    set_label(labels, "app.kubernetes.io/component", BYTES("task"));
    set_label(labels, LABEL("task-id"), message->id);
    set_label(labels, LABEL("task-name"), message->task);
    set_label(labels, LABEL("queue"), message->queue);
    set_label(labels, LABEL("tenant"), bytes_from_text(marks->tenant));
}

static void set_annotations(json_t *metadata, const struct request *request)
{
    const struct message *message = &request->message;
    json_t *annotations = object_at(metadata, "annotations");
    char digest[65];
    char retries[24];
    message_digest(message, digest);
    (void)snprintf(retries, sizeof(retries), "%lld", (long long)message->retries);
    set_text(annotations, LABEL("digest"), bytes_from_text(digest));
    set_text(annotations, LABEL("task-id"), message->id);
    set_text(annotations, LABEL("task-name"), message->task);
    set_text(annotations, LABEL("retries"), bytes_from_text(retries));
    if (request->delivery) {
        set_text(annotations, LABEL("delivery-tag"), request->delivery->tag);
    }
}

/* Container */

static json_t *main_container(json_t *pod_spec, json_t *pod_metadata)
{
    json_t *containers = json_object_get(pod_spec, "containers");
    const char *name = json_string_value(json_object_get(
        json_object_get(pod_metadata, "annotations"), "kubectl.kubernetes.io/default-container"));
    for (size_t index = 0; name && index < json_array_size(containers); index++) {
        json_t *container = json_array_get(containers, index);
        const char *own = json_string_value(json_object_get(container, "name"));
        if (own && strcmp(own, name) == 0) {
            return container;
        }
    }
    return json_array_get(containers, 0);
}

static bool has_env(const json_t *env, const char *name)
{
    for (size_t index = 0; index < json_array_size(env); index++) {
        const char *own = json_string_value(json_object_get(json_array_get(env, index), "name"));
        if (own && strcmp(own, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Shows the message to the runner as a file, unless the template does so itself. */
static void show_message(json_t *pod_spec, json_t *container)
{
    json_t *env = array_at(container, "env");
    if (has_env(env, "PETIOLE_TASK_FILE")) {
        return;
    }
    json_t *item = json_pack("{s:s, s:{s:s}}", "path", MESSAGE_FILE, "fieldRef", "fieldPath",
                             "metadata.annotations['" LABEL("message") "']");
    json_t *volume =
        json_pack("{s:s, s:{s:[o]}}", "name", MESSAGE_VOLUME, "downwardAPI", "items", item);
    json_t *mount = json_pack("{s:s, s:s, s:b}", "name", MESSAGE_VOLUME, "mountPath",
                              MESSAGE_FOLDER, "readOnly", 1);
    (void)json_array_append_new(array_at(pod_spec, "volumes"), volume);
    (void)json_array_append_new(array_at(container, "volumeMounts"), mount);
    (void)json_array_append_new(env, json_pack("{s:s, s:s}", "name", "PETIOLE_TASK_FILE", "value",
                                               MESSAGE_FOLDER "/" MESSAGE_FILE));
}

static void tell_limit(json_t *container, const char *name, double seconds)
{
    json_t *env = array_at(container, "env");
    struct buffer text;
    if (!(seconds > 0) || has_env(env, name)) {
        return;
    }
    buffer_init(&text, 64);
    json_append_double(&text, seconds);
    (void)buffer_append_byte(&text, '\0');
    (void)json_array_append_new(env, json_pack("{s:s, s:s}", "name", name, "value", text.data));
    buffer_fini(&text);
}

/* Whether `text` can be a variable's value, which is one line of ASCII in all these headers. */
static bool is_trace_value(struct bytes text)
{
    for (size_t index = 0; index < text.length; index++) {
        if (text.data[index] < 0x20 || text.data[index] > 0x7e) {
            return false;
        }
    }
    return text.length > 0 && text.length <= MAX_TRACE_BYTES;
}

/* Kubernetes puts other variables into a value: a dollar sign of the message is only that. */
static json_t *literal_value(struct bytes text)
{
    struct buffer value;
    buffer_init(&value, 2 * MAX_TRACE_BYTES);
    for (size_t index = 0; index < text.length; index++) {
        (void)buffer_append_text(&value, text.data[index] == '$' ? "$" : "");
        (void)buffer_append_byte(&value, text.data[index]);
    }
    json_t *literal = json_stringn(value.data, value.length);
    buffer_fini(&value);
    return literal;
}

/* The trace that the task is part of, in the variables in which tracing libraries look for it
 * (OpenTelemetry: Environment Variables as Context Propagation Carriers; sentry_sdk/tracing_utils.py:
 * SENTRY_TRACE, SENTRY_BAGGAGE). */
static void tell_trace(json_t *container, const struct request *request)
{
    static const struct {
        const char *header;
        const char *variable;
    } names[] = {
        {"traceparent", "TRACEPARENT"},   {"tracestate", "TRACESTATE"},  {"baggage", "BAGGAGE"},
        {"sentry-trace", "SENTRY_TRACE"}, {"baggage", "SENTRY_BAGGAGE"},
    };

    json_t *env = array_at(container, "env");
    for (size_t index = 0; index < ARRAY_LENGTH(names); index++) {
        struct bytes text;
        if (json_text(json_get(request->message.headers, names[index].header), request->arena,
                      &text)
            && is_trace_value(text) && !has_env(env, names[index].variable)) {
            (void)json_array_append_new(env, json_pack("{s:s, s:o}", "name", names[index].variable,
                                                       "value", literal_value(text)));
        }
    }
}

void kubernetes_job_tell_runner(json_t *job, const struct request *request)
{
    json_t *pod_template = object_at(object_at(job, "spec"), "template");
    json_t *container =
        main_container(object_at(pod_template, "spec"), object_at(pod_template, "metadata"));
    if (json_is_object(container)) {
        tell_limit(container, "PETIOLE_TIME_LIMIT", executor_hard_limit_s(request));
        tell_limit(container, "PETIOLE_SOFT_TIME_LIMIT", executor_soft_limit_s(request));
        tell_trace(container, request);
    }
}

/* contracts, Limits: the pod's deadline is the hard limit and a grace; the Job's also has the
 * longest wait. */
static void set_deadlines(json_t *spec, json_t *pod_spec, const struct request *request)
{
    double hard_s = executor_hard_limit_s(request);
    if (hard_s > 0 && hard_s < (double)INT32_MAX) {
        json_int_t pod_s = (json_int_t)hard_s + LIMIT_GRACE_S;
        set_default(pod_spec, "activeDeadlineSeconds", json_integer(pod_s));
        set_default(spec, "activeDeadlineSeconds", json_integer(pod_s + LONGEST_WAIT_S));
    }
}

/* The message as the pod and the Job carry it. */
static bool set_message(json_t *pod_metadata, json_t *metadata, const struct message *message,
                        struct error *reterr)
{
    struct buffer record;
    buffer_init(&record, KUBERNETES_JOB_MAX_RECORD);
    message_record_append(&record, message);
    bool fits = !record.overflowed;
    if (fits) {
        set_text(object_at(pod_metadata, "annotations"), LABEL("message"), buffer_view(&record));
        set_text(object_at(metadata, "annotations"), LABEL("message"), buffer_view(&record));
    } else {
        (void)error_set(
            reterr, ERROR_TOO_LARGE,
            "task %.*s[%.*s]: its message has more than %zu KiB, which a Job cannot carry; "
            "store the data elsewhere and send where it is",
            BYTES_FORMAT(message->task), BYTES_FORMAT(message->id),
            KUBERNETES_JOB_MAX_RECORD / 1024);
    }
    buffer_fini(&record);
    return fits;
}

bool kubernetes_job_complete(json_t *job, const struct request *request,
                             const struct kubernetes_job_marks *marks, struct error *reterr)
{
    json_t *metadata = object_at(job, "metadata");
    json_t *spec = object_at(job, "spec");
    json_t *pod_template = object_at(spec, "template");
    json_t *pod_metadata = object_at(pod_template, "metadata");
    json_t *pod_spec = object_at(pod_template, "spec");
    json_t *container = main_container(pod_spec, pod_metadata);
    if (!json_is_object(container)) {
        return error_set(reterr, ERROR_INVALID, "the Job template has no container");
    }
    if (!set_message(pod_metadata, metadata, &request->message, reterr)) {
        return false;
    }
    (void)json_object_del(metadata, "generateName");
    set_text(metadata, "name", bytes_from_text(marks->name));
    set_text(metadata, "namespace", bytes_from_text(marks->namespace_name));
    set_labels(metadata, request, marks);
    set_labels(pod_metadata, request, marks);
    set_text(object_at(metadata, "labels"), LABEL("owner"), bytes_from_text(marks->instance_id));
    set_annotations(metadata, request);
    show_message(pod_spec, container);
    set_default(spec, "backoffLimit", json_integer(0));
    set_default(pod_spec, "restartPolicy", json_string("Never"));
    (void)json_object_set_new(spec, "ttlSecondsAfterFinished",
                              json_integer(KUBERNETES_JOB_CREATED_TTL_S));
    set_deadlines(spec, pod_spec, request);
    kubernetes_job_tell_runner(job, request);
    return true;
}

/* Reading */

static struct bytes text_of(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

/* An annotation's whole number between 0 and 1000000, else 0: others may write there, too. */
static int64_t number_of(struct bytes text)
{
    int64_t number = 0;
    for (size_t index = 0; index < text.length; index++) {
        if (text.data[index] < '0' || text.data[index] > '9' || number > 100000) {
            return 0;
        }
        number = number * 10 + (text.data[index] - '0');
    }
    return number;
}

static bool has_condition(struct json conditions, const char *type, struct arena *arena)
{
    struct json_walk walk = json_walk(conditions);
    struct json condition;
    while (json_next_element(&walk, &condition)) {
        if (bytes_equal_text(text_of(condition, "type", arena), type)) {
            return bytes_equal(text_of(condition, "status", arena), BYTES("True"));
        }
    }
    return false;
}

static struct bytes plain(struct json value, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(value, arena, &text);
    return text;
}

static void read_labels(struct json labels, struct arena *arena, struct kubernetes_job *job)
{
    enum {
        OWNER,
        MANAGED_BY,
        COUNT
    };

    static const char *const names[COUNT] = {LABEL("owner"), "app.kubernetes.io/managed-by"};
    struct json found[COUNT];
    json_pick(labels, names, COUNT, found);
    job->owner = plain(found[OWNER], arena);
    job->is_managed = bytes_equal(plain(found[MANAGED_BY], arena), BYTES("petiole"));
}

static void read_annotations(struct json annotations, struct arena *arena,
                             struct kubernetes_job *job)
{
    enum {
        TASK_ID,
        TASK_NAME,
        DIGEST,
        TAG,
        RECORD,
        REPORTED,
        ATTEMPT,
        FOLLOWS,
        COUNT
    };

    static const char *const names[COUNT] = {
        LABEL("task-id"), LABEL("task-name"), LABEL("digest"),  LABEL("delivery-tag"),
        LABEL("message"), LABEL("reported"),  LABEL("attempt"), LABEL("follows"),
    };
    struct json found[COUNT];
    json_pick(annotations, names, COUNT, found);
    job->task_id = plain(found[TASK_ID], arena);
    job->task_name = plain(found[TASK_NAME], arena);
    job->digest = plain(found[DIGEST], arena);
    job->tag = plain(found[TAG], arena);
    job->record = plain(found[RECORD], arena);
    job->is_reported = bytes_equal(plain(found[REPORTED], arena), BYTES("true"));
    job->attempt = number_of(plain(found[ATTEMPT], arena));
    job->follows = plain(found[FOLLOWS], arena);
}

static void read_metadata(struct json metadata, struct arena *arena, struct kubernetes_job *job)
{
    enum {
        NAME,
        VERSION,
        LABELS,
        ANNOTATIONS,
        DELETED,
        COUNT
    };

    static const char *const names[COUNT] = {"name", "resourceVersion", "labels", "annotations",
                                             "deletionTimestamp"};
    struct json found[COUNT];
    json_pick(metadata, names, COUNT, found);
    job->name = plain(found[NAME], arena);
    job->resource_version = plain(found[VERSION], arena);
    job->is_deleted = !json_is_unset(found[DELETED]);
    read_labels(found[LABELS], arena, job);
    read_annotations(found[ANNOTATIONS], arena, job);
    job->is_managed = job->is_managed && job->record.length > 0 && job->task_id.length > 0;
}

static void read_status(struct json status, struct arena *arena, struct kubernetes_job *job)
{
    struct json conditions = json_get(status, "conditions");
    int64_t active = 0;
    (void)!json_int64(json_get(status, "active"), &active);
    job->is_active = active > 0;
    job->is_complete = has_condition(conditions, "Complete", arena);
    job->is_failing = has_condition(conditions, "FailureTarget", arena);
    job->is_finished = job->is_complete || has_condition(conditions, "Failed", arena);
}

void kubernetes_job_read(struct json object, struct arena *arena, struct kubernetes_job *ret_job)
{
    enum {
        METADATA,
        STATUS,
        COUNT
    };

    static const char *const names[COUNT] = {"metadata", "status"};
    struct json found[COUNT];
    json_pick(object, names, COUNT, found);
    *ret_job = (struct kubernetes_job){.is_managed = false};
    read_metadata(found[METADATA], arena, ret_job);
    read_status(found[STATUS], arena, ret_job);
}

void kubernetes_job_append_reported(struct buffer *patch, int64_t ttl_s)
{
    (void)buffer_append_text(
        patch, "{\"metadata\":{\"annotations\":{\"" LABEL("reported") "\":\"true\"}}");
    if (ttl_s >= 0) {
        (void)buffer_format(patch, ",\"spec\":{\"ttlSecondsAfterFinished\":%lld}",
                            (long long)ttl_s);
    }
    (void)buffer_append_byte(patch, '}');
}

void kubernetes_job_append_changed(struct buffer *patch, unsigned number)
{
    /* Before the report it only matters that this is long. */
    (void)buffer_format(patch, "{\"spec\":{\"ttlSecondsAfterFinished\":%u}}",
                        KUBERNETES_JOB_CREATED_TTL_S + number);
}

void kubernetes_job_append_owner(struct buffer *patch, const char *instance_id,
                                 struct bytes resource_version)
{
    (void)buffer_append_text(patch, "{\"metadata\":{\"resourceVersion\":");
    json_append_string(patch, resource_version);
    (void)buffer_append_text(patch, ",\"labels\":{\"" LABEL("owner") "\":");
    json_append_string(patch, bytes_from_text(instance_id));
    (void)buffer_append_text(patch, "}}}");
}
