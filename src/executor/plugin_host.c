#include "executor/plugin_host.h"

#include <inttypes.h>
#include <math.h>

#include "base/json.h"
#include "executor/plugin_bind.h"

#define SCRATCH_FIRST_BYTES 1024
#define MAX_NAME_BYTES      1024
#define MAX_LOG_BYTES       4096

/* The two forms of a view and of a JSON value */

static struct petiole_text text_out(struct bytes view)
{
    return (struct petiole_text){view.data, view.length};
}

static struct bytes text_in(struct petiole_text text)
{
    return bytes_of(text.data, text.length);
}

static struct petiole_json json_out(struct json value)
{
    static const enum petiole_json_type types[] = {
        [JSON_TYPE_ABSENT] = PETIOLE_JSON_ABSENT, [JSON_TYPE_NULL] = PETIOLE_JSON_NULL,
        [JSON_TYPE_FALSE] = PETIOLE_JSON_FALSE,   [JSON_TYPE_TRUE] = PETIOLE_JSON_TRUE,
        [JSON_TYPE_NUMBER] = PETIOLE_JSON_NUMBER, [JSON_TYPE_STRING] = PETIOLE_JSON_STRING,
        [JSON_TYPE_ARRAY] = PETIOLE_JSON_ARRAY,   [JSON_TYPE_OBJECT] = PETIOLE_JSON_OBJECT,
    };

    return (struct petiole_json){types[value.type], text_out(value.text)};
}

static struct json json_in(struct petiole_json value)
{
    static const enum json_type types[] = {
        [PETIOLE_JSON_ABSENT] = JSON_TYPE_ABSENT, [PETIOLE_JSON_NULL] = JSON_TYPE_NULL,
        [PETIOLE_JSON_FALSE] = JSON_TYPE_FALSE,   [PETIOLE_JSON_TRUE] = JSON_TYPE_TRUE,
        [PETIOLE_JSON_NUMBER] = JSON_TYPE_NUMBER, [PETIOLE_JSON_STRING] = JSON_TYPE_STRING,
        [PETIOLE_JSON_ARRAY] = JSON_TYPE_ARRAY,   [PETIOLE_JSON_OBJECT] = JSON_TYPE_OBJECT,
    };

    if ((size_t)value.type >= ARRAY_LENGTH(types)) {
        return (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
    }
    return (struct json){types[value.type], text_in(value.text)};
}

static struct plugin_host_call *host_call(const struct petiole_task_call *call)
{
    return call->host_data;
}

/* JSON values */

static size_t host_json_count(struct petiole_json container)
{
    return json_count(json_in(container));
}

static struct petiole_json host_json_item(struct petiole_json array, size_t index)
{
    return json_out(json_at(json_in(array), index));
}

static struct petiole_json host_json_member(struct petiole_json object, const char *key)
{
    return json_out(json_get(json_in(object), key));
}

static struct petiole_walk host_json_walk(struct petiole_json container)
{
    struct json_walk walk = json_walk(json_in(container));
    return (struct petiole_walk){walk.position, walk.end, container.type == PETIOLE_JSON_OBJECT};
}

static int host_json_next(struct petiole_walk *walk, struct petiole_text *ret_key,
                          struct petiole_json *ret_value)
{
    struct json_walk inner = {walk->position, walk->end};
    struct bytes key = {NULL, 0};
    struct json value;
    bool is_there = walk->is_object ? json_next_member(&inner, &key, &value)
                                    : json_next_element(&inner, &value);
    walk->position = inner.position;
    if (!is_there) {
        return 0;
    }
    if (ret_key) {
        *ret_key = text_out(key);
    }
    *ret_value = json_out(value);
    return 1;
}

static int host_json_integer(struct petiole_json value, int64_t *ret_number)
{
    return json_int64(json_in(value), ret_number);
}

static int host_json_number(struct petiole_json value, double *ret_number)
{
    struct json number = json_in(value);
    if (json_double(number, ret_number)) {
        return 1;
    }
    if (number.type != JSON_TYPE_NUMBER) {
        return 0;
    }
    bool is_negative = number.text.data[0] == '-';
    if (bytes_equal_text(number.text, "NaN")) {
        *ret_number = (double)NAN;
    } else {
        *ret_number = is_negative ? -(double)INFINITY : (double)INFINITY;
    }
    return 1;
}

static int host_json_string(const struct petiole_task_call *call, struct petiole_json value,
                            struct petiole_text *ret_text)
{
    struct plugin_host_call *inner = host_call(call);
    if (!inner->scratch) {
        inner->scratch = arena_new(SCRATCH_FIRST_BYTES);
    }
    struct bytes text;
    if (!json_text(json_in(value), inner->scratch, &text)) {
        return 0;
    }
    *ret_text = text_out(text);
    return 1;
}

/* Replies */

static struct buffer *begin_result(struct petiole_reply *reply)
{
    reply->kind = PLUGIN_REPLY_RESULT;
    buffer_clear(&reply->result);
    return &reply->result;
}

static void host_reply_json(struct petiole_reply *reply, const char *json, size_t length)
{
    (void)buffer_append(begin_result(reply), bytes_of(json, length));
}

static void host_reply_integer(struct petiole_reply *reply, int64_t number)
{
    (void)buffer_format(begin_result(reply), "%" PRId64, number);
}

static void host_reply_number(struct petiole_reply *reply, double number)
{
    json_append_double(begin_result(reply), number);
}

static void host_reply_string(struct petiole_reply *reply, const char *text, size_t length)
{
    json_append_string(begin_result(reply), bytes_of(text, length));
}

static void begin_exception(struct petiole_reply *reply, const char *type, const char *module)
{
    reply->kind = PLUGIN_REPLY_EXCEPTION;
    buffer_clear(&reply->exc_type);
    buffer_clear(&reply->exc_module);
    buffer_clear(&reply->exc_message);
    (void)buffer_append_text(&reply->exc_type, type);
    (void)buffer_append_text(&reply->exc_module, module);
}

static void host_reply_exception(struct petiole_reply *reply, const char *type, const char *module,
                                 const char *args, size_t args_length)
{
    begin_exception(reply, type, module);
    (void)buffer_append(&reply->exc_message, bytes_of(args, args_length));
}

static void reply_error_of(struct petiole_reply *reply, const char *type, const char *module,
                           struct bytes message)
{
    begin_exception(reply, type, module);
    (void)buffer_append_byte(&reply->exc_message, '[');
    json_append_string(&reply->exc_message, message);
    (void)buffer_append_byte(&reply->exc_message, ']');
}

static void host_reply_error(struct petiole_reply *reply, const char *type, const char *message)
{
    reply_error_of(reply, type, "builtins", bytes_from_text(message));
}

static void host_reply_retry(struct petiole_reply *reply, double countdown_s)
{
    if (reply->kind != PLUGIN_REPLY_EXCEPTION) {
        begin_exception(reply, "", "");
    }
    reply->kind = PLUGIN_REPLY_RETRY;
    reply->retry_countdown_s =
        isfinite(countdown_s) ? fmin(countdown_s, EXECUTOR_MAX_COUNTDOWN_S) : -1.0;
}

/* After a revoke nobody reads the reply, so the soft time limit is all there is to say. */
static void host_reply_cancelled(struct petiole_reply *reply)
{
    host_reply_exception(reply, "SoftTimeLimitExceeded", "billiard.exceptions", "[]", 2);
}

/* The function's name: what stands behind the last dot of the task's. */
static struct bytes last_part(struct bytes task_name)
{
    size_t start = task_name.length;
    while (start > 0 && task_name.data[start - 1] != '.') {
        start--;
    }
    return bytes_skip(task_name, start);
}

static int host_bind(const struct petiole_task_call *call, struct petiole_reply *reply,
                     const char *const *names, size_t required_count, size_t count,
                     struct petiole_json *ret_values)
{
    struct plugin_parameters parameters = {last_part(text_in(call->task_name)), names,
                                           required_count, count};
    struct json *values CLEANUP(memory_free_at) = memory_resize(NULL, count, sizeof(*values));
    struct buffer message CLEANUP(buffer_fini);
    buffer_init(&message, PLUGIN_HOST_MAX_RESULT_BYTES);
    if (!plugin_bind(&parameters, json_in(call->args), json_in(call->kwargs), values, &message)) {
        reply_error_of(reply, "TypeError", "builtins", buffer_view(&message));
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        ret_values[i] = json_out(values[i]);
    }
    return 1;
}

/* Running */

static enum petiole_cancel host_is_cancelled(const struct petiole_task_call *call)
{
    struct plugin_host_call *inner = host_call(call);
    return inner->runner->is_cancelled(inner->context);
}

static enum petiole_cancel host_wait(const struct petiole_task_call *call, double seconds)
{
    struct plugin_host_call *inner = host_call(call);
    return inner->runner->wait(inner->context, seconds);
}

static void host_log(const struct petiole_task_call *call, enum petiole_log_level level,
                     const char *text)
{
    struct plugin_host_call *inner = host_call(call);
    inner->runner->log(inner->context, level, bytes_of(text, strnlen(text, MAX_LOG_BYTES)));
}

static const struct petiole_host host_functions = {
    .size = sizeof(struct petiole_host),
    .bind = host_bind,
    .json_count = host_json_count,
    .json_item = host_json_item,
    .json_member = host_json_member,
    .json_walk = host_json_walk,
    .json_next = host_json_next,
    .json_integer = host_json_integer,
    .json_number = host_json_number,
    .json_string = host_json_string,
    .reply_json = host_reply_json,
    .reply_integer = host_reply_integer,
    .reply_number = host_reply_number,
    .reply_string = host_reply_string,
    .reply_exception = host_reply_exception,
    .reply_error = host_reply_error,
    .reply_retry = host_reply_retry,
    .reply_cancelled = host_reply_cancelled,
    .is_cancelled = host_is_cancelled,
    .wait = host_wait,
    .log = host_log,
};

/* Reading the reply */

static void refuse_reply(struct plugin_host_call *call, const char *what, const char *why)
{
    struct buffer message CLEANUP(buffer_fini);
    buffer_init(&message, MAX_NAME_BYTES + sizeof(((struct error *)0)->message));
    (void)buffer_format(&message, "native task %.*s replied %s: %s",
                        BYTES_FORMAT(text_in(call->call.task_name)), what, why);
    reply_error_of(&call->reply, "EncodeError", "kombu.exceptions", buffer_view(&message));
}

static void check_result(struct plugin_host_call *call)
{
    struct petiole_reply *reply = &call->reply;
    struct json value;
    struct error error;
    if (reply->result.overflowed) {
        refuse_reply(call, "a result", "it is over the limit of 64 MiB");
    } else if (!json_parse(buffer_view(&reply->result), &value, &error)) {
        refuse_reply(call, "a result that is no JSON", error.message);
    }
}

static void check_exception(struct plugin_host_call *call)
{
    struct petiole_reply *reply = &call->reply;
    if (reply->exc_type.length == 0 && reply->kind == PLUGIN_REPLY_RETRY) {
        return;
    }
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct error error = {ERROR_INVALID, "it is no array"};
    if (reply->exc_type.length == 0 || reply->exc_module.overflowed) {
        refuse_reply(call, "an exception", "its names must have 1 to 1024 bytes");
    } else if (reply->exc_message.overflowed) {
        refuse_reply(call, "an exception", "it is over the limit of 64 MiB");
    } else if (!json_parse(buffer_view(&reply->exc_message), &value, &error)
               || value.type != JSON_TYPE_ARRAY) {
        refuse_reply(call, "an exception whose arguments are no JSON array", error.message);
    }
}

static void check_reply(struct plugin_host_call *call)
{
    if (call->reply.kind == PLUGIN_REPLY_RESULT) {
        check_result(call);
    } else if (call->reply.kind != PLUGIN_REPLY_NONE) {
        check_exception(call);
    }
}

static enum outcome_kind outcome_kind_of(enum plugin_reply_kind kind)
{
    static const enum outcome_kind kinds[] = {
        [PLUGIN_REPLY_NONE] = OUTCOME_SUCCESS,
        [PLUGIN_REPLY_RESULT] = OUTCOME_SUCCESS,
        [PLUGIN_REPLY_EXCEPTION] = OUTCOME_FAILURE,
        [PLUGIN_REPLY_RETRY] = OUTCOME_RETRY,
    };

    return kinds[kind];
}

/* Public functions */

void plugin_host_init(struct plugin_host_call *call, const struct plugin_host_runner *runner,
                      void *context)
{
    call->call.size = sizeof(call->call);
    call->call.host = &host_functions;
    call->call.host_data = call;
    call->runner = runner;
    call->context = context;
    call->scratch = NULL;
    call->reply.kind = PLUGIN_REPLY_NONE;
    call->reply.retry_countdown_s = -1.0;
    buffer_init(&call->reply.result, PLUGIN_HOST_MAX_RESULT_BYTES);
    buffer_init(&call->reply.exc_type, MAX_NAME_BYTES);
    buffer_init(&call->reply.exc_module, MAX_NAME_BYTES);
    buffer_init(&call->reply.exc_message, PLUGIN_HOST_MAX_RESULT_BYTES);
}

void plugin_host_fini(struct plugin_host_call *call)
{
    buffer_fini(&call->reply.result);
    buffer_fini(&call->reply.exc_type);
    buffer_fini(&call->reply.exc_module);
    buffer_fini(&call->reply.exc_message);
    arena_free(&call->scratch);
}

void plugin_host_run(struct plugin_host_call *call, petiole_task_function *function,
                     struct outcome *ret_outcome)
{
    function(&call->call, &call->reply);
    check_reply(call);
    const struct petiole_reply *reply = &call->reply;
    *ret_outcome = (struct outcome){.kind = outcome_kind_of(reply->kind)};
    switch (reply->kind) {
    case PLUGIN_REPLY_NONE:
        ret_outcome->result = BYTES("null");
        break;
    case PLUGIN_REPLY_RESULT:
        ret_outcome->result = buffer_view(&reply->result);
        break;
    case PLUGIN_REPLY_RETRY:
    case PLUGIN_REPLY_EXCEPTION:
        ret_outcome->retry_countdown_s = reply->retry_countdown_s;
        ret_outcome->exc_type = buffer_view(&reply->exc_type);
        ret_outcome->exc_module = buffer_view(&reply->exc_module);
        ret_outcome->exc_message = buffer_view(&reply->exc_message);
        break;
    }
}
