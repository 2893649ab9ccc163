#include "result/result_document.h"

#include <stdio.h>

#include "codec/iso8601.h"

const char *result_document_state(enum outcome_kind kind)
{
    switch (kind) {
    case OUTCOME_SUCCESS:
        return RESULT_SUCCESS;
    case OUTCOME_FAILURE:
        return RESULT_FAILURE;
    case OUTCOME_RETRY:
        return RESULT_RETRY;
    case OUTCOME_REVOKED:
        return RESULT_REVOKED;
    case OUTCOME_IGNORE:
    case OUTCOME_REJECT:
    case OUTCOME_LOST:
    default:
        return NULL;
    }
}

static void append_raw(struct buffer *buffer, const char *before, struct bytes json_text)
{
    (void)buffer_append_text(buffer, before);
    (void)buffer_append(buffer, json_text.length > 0 ? json_text : BYTES("null"));
}

static void append_string(struct buffer *buffer, const char *before, struct bytes text)
{
    (void)buffer_append_text(buffer, before);
    json_append_string(buffer, text);
}

/* JSON that somebody else wrote, in the form of json.dumps. */
static void append_dumps(struct buffer *buffer, const char *before, struct json value)
{
    (void)buffer_append_text(buffer, before);
    if (json_is_unset(value)) {
        (void)buffer_append_text(buffer, "null");
    } else {
        json_append_dumps(buffer, value);
    }
}

static void append_result(struct buffer *buffer, const struct outcome *outcome)
{
    if (outcome->kind == OUTCOME_SUCCESS) {
        struct json value;
        if (json_parse(outcome->result, &value, NULL)) {
            append_dumps(buffer, "", value);
        } else {
            (void)buffer_append_text(buffer, "null");
        }
    } else if (outcome->exc_type.length > 0) {
        append_string(buffer, "{\"exc_type\": ", outcome->exc_type);
        append_raw(buffer, ", \"exc_message\": ",
                   outcome->exc_message.length > 0 ? outcome->exc_message : BYTES("[]"));
        append_string(buffer, ", \"exc_module\": ", outcome->exc_module);
        (void)buffer_append_byte(buffer, '}');
    } else {
        (void)buffer_append_text(buffer, "null");
    }
}

static void append_extended(struct buffer *buffer, const struct request *request,
                            const struct result_document_options *options)
{
    const struct message *message = &request->message;
    if (!request->type) {
        /* Written for an unknown task: there is no request to read
         * (celery/worker/consumer/consumer.py: on_unknown_task). */
        (void)buffer_append_text(
            buffer, ", \"name\": null, \"args\": null, \"kwargs\": null, \"worker\": null, "
                    "\"retries\": null, \"queue\": null");
        return;
    }
    append_string(buffer, ", \"name\": ", message->task);
    append_dumps(buffer, ", \"args\": ", message->args);
    append_dumps(buffer, ", \"kwargs\": ", message->kwargs);
    append_string(buffer, ", \"worker\": ", bytes_from_text(options->node_name));
    (void)buffer_format(buffer, ", \"retries\": %lld", (long long)message->retries);
    append_string(buffer, ", \"queue\": ", message->queue);
}

/* What follows date_done. */
static void append_tail(struct buffer *buffer, const struct request *request,
                        const struct result_document_options *options)
{
    const struct message *message = &request->message;
    if (message->group.length > 0) {
        append_string(buffer, ", \"group_id\": ", message->group);
    }
    if (message->parent_id.length > 0) {
        append_string(buffer, ", \"parent_id\": ", message->parent_id);
    }
    if (options->is_extended) {
        append_extended(buffer, request, options);
    }
    append_string(buffer, ", \"task_id\": ", message->id);
    (void)buffer_append_byte(buffer, '}');
}

void result_document_append(struct buffer *buffer, const struct request *request,
                            const struct outcome *outcome,
                            const struct result_document_options *options, double now_wall_s)
{
    const char *state = result_document_state(outcome->kind);
    (void)buffer_format(buffer, "{\"status\": \"%s\", \"result\": ", state ? state : "");
    append_result(buffer, outcome);
    (void)buffer_append_text(buffer, ", \"traceback\": ");
    if (outcome->traceback.length > 0) {
        json_append_string(buffer, outcome->traceback);
    } else {
        (void)buffer_append_text(buffer, "null");
    }
    (void)buffer_append_text(buffer, ", \"children\": [], \"date_done\": ");
    if (outcome->kind == OUTCOME_RETRY) {
        (void)buffer_append_text(buffer, "null"); /* only ready states have a date */
    } else {
        (void)buffer_append_byte(buffer, '"');
        iso8601_append(buffer, now_wall_s, timezone_offset_s(options->timezone, now_wall_s));
        (void)buffer_append_byte(buffer, '"');
    }
    append_tail(buffer, request, options);
}

void result_document_append_started(struct buffer *buffer, const struct request *request, int pid,
                                    const struct result_document_options *options)
{
    (void)buffer_format(buffer,
                        "{\"status\": \"STARTED\", \"result\": {\"pid\": %d, \"hostname\": ", pid);
    json_append_string(buffer, bytes_from_text(options->node_name));
    (void)buffer_append_text(buffer,
                             "}, \"traceback\": null, \"children\": [], \"date_done\": null");
    append_tail(buffer, request, options);
}
