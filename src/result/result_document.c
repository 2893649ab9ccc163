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

/* JSON text that a runner made, or `otherwise` when it is none. */
static void append_checked(struct buffer *buffer, struct bytes text, enum json_type wanted,
                           const char *otherwise)
{
    struct json value;
    if (json_parse(text, &value, NULL) && (wanted == JSON_TYPE_ABSENT || value.type == wanted)) {
        json_append_dumps(buffer, value);
    } else {
        (void)buffer_append_text(buffer, otherwise);
    }
}

static void append_result(struct buffer *buffer, const struct outcome *outcome)
{
    if (outcome->kind == OUTCOME_SUCCESS) {
        append_checked(buffer, outcome->result, JSON_TYPE_ABSENT, "null");
    } else if (outcome->exc_type.length > 0) {
        json_append_text_after(buffer, "{\"exc_type\": ", outcome->exc_type);
        (void)buffer_append_text(buffer, ", \"exc_message\": ");
        append_checked(buffer, outcome->exc_message, JSON_TYPE_ARRAY, "[]");
        json_append_text_after(buffer, ", \"exc_module\": ", outcome->exc_module);
        (void)buffer_append_byte(buffer, '}');
    } else {
        (void)buffer_append_text(buffer, "null");
    }
}

static bool is_stamped(struct json stamped_headers, struct json name, struct arena *arena)
{
    struct json_walk walk = json_walk(stamped_headers);
    struct json stamped;
    struct bytes wanted = {NULL, 0};
    struct bytes text;
    (void)!json_text(name, arena, &wanted);
    while (json_next_element(&walk, &stamped)) {
        if (json_text(stamped, arena, &text) && bytes_equal(text, wanted)) {
            return true;
        }
    }
    return false;
}

/* The names of the stamps, and each stamp as a member of its own. */
static void append_stamps(struct buffer *buffer, const struct request *request)
{
    const struct message *message = &request->message;
    struct json_walk walk = json_walk(message->stamps);
    struct bytes key;
    struct json value;
    if (message->stamps.type != JSON_TYPE_OBJECT || json_count(message->stamps) == 0) {
        return;
    }
    json_append_value_after(buffer, ", \"stamped_headers\": ", message->stamped_headers);
    while (json_next_member(&walk, &key, &value)) {
        struct json name = {JSON_TYPE_STRING, bytes_of(key.data - 1, key.length + 2)};
        if (is_stamped(message->stamped_headers, name, request->arena)) {
            json_append_value_after(buffer, ", ", name);
            json_append_value_after(buffer, ": ", value);
        }
    }
}

/* A text, null when there is none: a task that has reached no worker has no queue. */
static void append_text_or_null(struct buffer *buffer, const char *before, struct bytes text)
{
    if (text.length > 0) {
        json_append_text_after(buffer, before, text);
    } else {
        (void)buffer_format(buffer, "%snull", before);
    }
}

static void append_extended(struct buffer *buffer, const struct request *request,
                            const struct result_document_options *options)
{
    const struct message *message = &request->message;
    if (!request->type) {
        (void)buffer_append_text(
            buffer, ", \"name\": null, \"args\": null, \"kwargs\": null, \"worker\": null, "
                    "\"retries\": null, \"queue\": null");
        return;
    }
    json_append_text_after(buffer, ", \"name\": ", message->task);
    json_append_value_after(buffer, ", \"args\": ", message->args);
    json_append_value_after(buffer, ", \"kwargs\": ", message->kwargs);
    bool is_here = message->queue.length > 0;
    append_text_or_null(buffer,
                        ", \"worker\": ", bytes_from_text(is_here ? options->node_name : ""));
    (void)buffer_format(buffer, ", \"retries\": %lld", (long long)message->retries);
    append_text_or_null(buffer, ", \"queue\": ", message->queue);
    append_stamps(buffer, request);
}

/* What follows date_done. */
static void append_tail(struct buffer *buffer, const struct request *request,
                        const struct result_document_options *options)
{
    const struct message *message = &request->message;
    /* An unknown task has no request to read (celery/worker/consumer/consumer.py:
     * Consumer.on_unknown_task). */
    if (request->type && message->group.length > 0) {
        json_append_text_after(buffer, ", \"group_id\": ", message->group);
    }
    if (request->type && message->parent_id.length > 0) {
        json_append_text_after(buffer, ", \"parent_id\": ", message->parent_id);
    }
    if (options->is_extended) {
        append_extended(buffer, request, options);
    }
    json_append_text_after(buffer, ", \"task_id\": ", message->id);
    (void)buffer_append_byte(buffer, '}');
}

/* The tasks that this one sent, as its runner tells. Its next try is one of them, under the same id
 * (celery/app/task.py: Task.retry, Task.apply_async). */
static void append_children(struct buffer *buffer, const struct request *request,
                            const struct outcome *outcome)
{
    if (outcome->children.type == JSON_TYPE_ARRAY) {
        json_append_value_after(buffer, ", \"children\": ", outcome->children);
    } else if (outcome->kind == OUTCOME_RETRY && outcome->retry_countdown_s >= 0
               && outcome->frames.type == JSON_TYPE_ABSENT) {
        json_append_text_after(buffer, ", \"children\": [[[", request->message.id);
        (void)buffer_append_text(buffer, ", null], null]]");
    } else {
        (void)buffer_append_text(buffer, ", \"children\": []");
    }
}

static void append_date(struct buffer *buffer, const struct result_document_options *options,
                        double now_wall_s)
{
    (void)buffer_append_byte(buffer, '"');
    iso8601_append(buffer, now_wall_s, timezone_offset_s(options->timezone, now_wall_s));
    (void)buffer_append_byte(buffer, '"');
}

static bool is_ready(struct bytes state)
{
    return bytes_equal_text(state, RESULT_SUCCESS) || bytes_equal_text(state, RESULT_FAILURE)
           || bytes_equal_text(state, RESULT_REVOKED);
}

void result_document_append_progress(struct buffer *buffer, const struct request *request,
                                     const struct progress *progress,
                                     const struct result_document_options *options,
                                     double now_wall_s)
{
    json_append_text_after(buffer, "{\"status\": ", progress->state);
    json_append_value_after(buffer, ", \"result\": ", progress->meta);
    (void)buffer_append_text(buffer, ", \"traceback\": null, \"children\": [], \"date_done\": ");
    if (is_ready(progress->state)) {
        append_date(buffer, options, now_wall_s);
    } else {
        (void)buffer_append_text(buffer, "null");
    }
    append_tail(buffer, request, options);
}

void result_document_append(struct buffer *buffer, const struct request *request,
                            const struct outcome *outcome,
                            const struct result_document_options *options, double now_wall_s)
{
    if (outcome->kind == OUTCOME_IGNORE) {
        result_document_append_progress(buffer, request, &outcome->told, options, now_wall_s);
        return;
    }
    const char *state = result_document_state(outcome->kind);
    (void)buffer_format(buffer, "{\"status\": \"%s\", \"result\": ", state ? state : "");
    append_result(buffer, outcome);
    (void)buffer_append_text(buffer, ", \"traceback\": ");
    if (outcome->traceback.length > 0) {
        json_append_string(buffer, outcome->traceback);
    } else {
        (void)buffer_append_text(buffer, "null");
    }
    append_children(buffer, request, outcome);
    (void)buffer_append_text(buffer, ", \"date_done\": ");
    if (outcome->kind == OUTCOME_RETRY) {
        (void)buffer_append_text(buffer, "null"); /* only ready states have a date */
    } else {
        append_date(buffer, options, now_wall_s);
    }
    append_tail(buffer, request, options);
}

/* What follows the result of a state before the end. */
static void append_unfinished_tail(struct buffer *buffer, const struct request *request,
                                   const struct result_document_options *options)
{
    (void)buffer_append_text(buffer,
                             ", \"traceback\": null, \"children\": [], \"date_done\": null");
    append_tail(buffer, request, options);
}

void result_document_append_started(struct buffer *buffer, const struct request *request, int pid,
                                    const struct result_document_options *options)
{
    (void)buffer_format(buffer,
                        "{\"status\": \"STARTED\", \"result\": {\"pid\": %d, \"hostname\": ", pid);
    json_append_string(buffer, bytes_from_text(options->node_name));
    (void)buffer_append_byte(buffer, '}');
    append_unfinished_tail(buffer, request, options);
}

void result_document_append_waiting(struct buffer *buffer, const struct request *request,
                                    const char *sentence,
                                    const struct result_document_options *options)
{
    json_append_text_after(buffer, "{\"status\": \"" RESULT_WAITING "\", \"result\": {\"reason\": ",
                           bytes_from_text(sentence));
    json_append_text_after(buffer, ", \"hostname\": ", bytes_from_text(options->node_name));
    (void)buffer_append_byte(buffer, '}');
    append_unfinished_tail(buffer, request, options);
}
