#include "result/canvas.h"

#include <math.h>

#include "base/base64.h"
#include "codec/iso8601.h"
#include "codec/message_retry.h"
#include "codec/python_repr.h"

#define MAX_REPR_BYTES 1024 /* celery/app/amqp.py: argsrepr_maxsize */

/* A task to send or to end, read from its signature (celery/canvas.py: Signature). */
struct signature {
    struct bytes task;
    struct json args;
    struct json kwargs;
    struct json options;
    bool is_immutable;
    bool is_canvas; /* a group, chain or chord itself */
};

/* What all frames are made of. */
struct failure {
    const struct request *request;
    const struct outcome *outcome;
    const struct result_document_options *options;
    double now_wall_s;
    size_t left_out;
};

bool canvas_follows_end(const struct request *request, enum outcome_kind kind)
{
    const struct message *message = &request->message;
    return message_asks_for(message->chord)
           || (kind == OUTCOME_FAILURE
               && (message_asks_for(message->errbacks) || message_asks_for(message->chain)));
}

bool canvas_follows_success(const struct request *request)
{
    return message_asks_for(request->message.callbacks) || message_asks_for(request->message.chain);
}

static const struct json no_value = {.type = JSON_TYPE_ABSENT};

static bool read_signature(struct json value, struct arena *arena, struct signature *ret_signature)
{
    *ret_signature = (struct signature){
        .args = json_get(value, "args"),
        .kwargs = json_get(value, "kwargs"),
        .options = json_get(value, "options"),
        .is_immutable = json_get(value, "immutable").type == JSON_TYPE_TRUE,
        .is_canvas = !json_is_unset(json_get(value, "subtask_type")),
    };
    return json_text(json_get(value, "task"), arena, &ret_signature->task);
}

/* A text of the options, or the empty view. */
static struct bytes option(const struct signature *signature, const char *name, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    return json_text(json_get(signature->options, name), arena, &text) ? text : bytes_of(NULL, 0);
}

/* Between frames. */
static void append_separator(struct buffer *buffer)
{
    (void)buffer_append_text(buffer, buffer->length > 1 ? ", " : "");
}

/* Takes the last frame back, which began at byte `start`, unless there is room for all of it and
 * what closes the list; false then. */
static bool keep_if_whole(struct buffer *buffer, size_t start, bool is_whole)
{
    if (is_whole && !buffer->overflowed && buffer->length < buffer->max_bytes) {
        return true;
    }
    buffer_cut(buffer, start);
    return false;
}

/* The end of the chain */

static bool append_end(struct buffer *buffer, const struct failure *failure,
                       const struct signature *link, const struct outcome *outcome)
{
    const struct request *request = failure->request;
    size_t start = buffer->length;
    struct buffer document;
    struct request ended = {.arena = request->arena, .type = &registry_defaults};
    ended.message.id = option(link, "task_id", request->arena);
    ended.message.group = option(link, "group_id", request->arena);
    ended.message.task = link->task;
    ended.message.args = link->args;
    ended.message.kwargs = link->kwargs;
    buffer_init(&document, buffer->max_bytes);
    result_document_append(&document, &ended, outcome, failure->options, failure->now_wall_s);
    bool is_whole = !document.overflowed;
    append_separator(buffer);
    json_append_text_after(buffer, "{\"store\": {\"task_id\": ", ended.message.id);
    json_append_text_after(buffer,
                           ", \"state\": \"FAILURE\", \"document\": ", buffer_view(&document));
    (void)buffer_append_text(buffer, "}, \"after_failure\": true}");
    buffer_fini(&document);
    return keep_if_whole(buffer, start, is_whole);
}

/* A link that is a member of a chord counts for it. */
static bool append_member(struct buffer *buffer, const struct request *request,
                          const struct signature *link)
{
    size_t start = buffer->length;
    if (json_get(link->options, "chord").type != JSON_TYPE_OBJECT) {
        return true;
    }
    append_separator(buffer);
    json_append_text_after(
        buffer, "{\"join_chord\": {\"task_id\": ", option(link, "task_id", request->arena));
    json_append_text_after(buffer, ", \"group\": ", option(link, "group_id", request->arena));
    (void)buffer_append_text(buffer, ", \"state\": \"FAILURE\"}, \"after_failure\": true}");
    return keep_if_whole(buffer, start, true);
}

/* The body of a link that is a chord, else ABSENT: the result of a chord that is waited for is its
 * body's. */
static struct json chord_body(struct json link, struct arena *arena)
{
    struct bytes type = {NULL, 0};
    bool is_chord =
        json_text(json_get(link, "subtask_type"), arena, &type) && bytes_equal_text(type, "chord");
    return is_chord ? json_get(json_get(link, "kwargs"), "body") : no_value;
}

/* Errbacks */

static void append_repr(struct buffer *buffer, const char *before, struct bytes json_value)
{
    struct buffer repr;
    buffer_init(&repr, MAX_REPR_BYTES + 16);
    python_repr_append(&repr, json_checked(json_value), MAX_REPR_BYTES);
    json_append_text_after(buffer, before, buffer_view(&repr));
    buffer_fini(&repr);
}

/* The positional arguments: the failed task's id before the signature's own. */
static struct bytes arguments_of(const struct signature *errback, const struct request *request)
{
    struct buffer buffer;
    buffer_init(&buffer, errback->args.text.length * 6 + request->message.id.length * 6 + 16);
    (void)buffer_append_byte(&buffer, '[');
    if (!errback->is_immutable) {
        json_append_string(&buffer, request->message.id);
    }
    struct json_walk walk = json_walk(errback->args);
    struct json argument;
    while (json_next_element(&walk, &argument)) {
        (void)buffer_append_text(&buffer, buffer.length > 1 ? ", " : "");
        json_append_dumps(&buffer, argument);
    }
    (void)buffer_append_byte(&buffer, ']');
    struct bytes text = arena_copy(request->arena, buffer_view(&buffer));
    buffer_fini(&buffer);
    return text;
}

/* The text of a time in a signature: a datetime as Kombu writes it (kombu/utils/json.py: JSONEncoder),
 * or as it did before Celery 5.3; else ABSENT. */
static struct json text_of_time(struct json value)
{
    struct json text = value.type == JSON_TYPE_OBJECT ? json_get(value, "__value__") : value;
    return text.type == JSON_TYPE_STRING ? text : no_value;
}

/* So many seconds from now, or a time that is there as text (celery/app/amqp.py: as_task_v2). */
static void append_time(struct buffer *buffer, const char *before, struct json value,
                        double now_wall_s)
{
    double seconds = 0;
    if (json_double(value, &seconds)) {
        (void)buffer_append_text(buffer, before);
        (void)buffer_append_byte(buffer, '"');
        iso8601_append(buffer, now_wall_s + fmin(fmax(0, seconds), EXECUTOR_MAX_COUNTDOWN_S), 0);
        (void)buffer_append_byte(buffer, '"');
    } else {
        json_append_value_after(buffer, before, text_of_time(value));
    }
}

/* The headers that come from options with values of their own. */
static void append_times(struct buffer *buffer, struct json options, double now_wall_s)
{
    struct json countdown = json_get(options, "countdown");
    append_time(buffer,
                ", \"eta\": ", json_is_unset(countdown) ? json_get(options, "eta") : countdown,
                now_wall_s);
    append_time(buffer, ", \"expires\": ", json_get(options, "expires"), now_wall_s);
    json_append_value_after(buffer, ", \"timelimit\": [", json_get(options, "time_limit"));
    json_append_value_after(buffer, ", ", json_get(options, "soft_time_limit"));
    (void)buffer_append_byte(buffer, ']');
}

/* Headers of the user's own, which win over those of one name as they do in Celery. */
static void append_own_headers(struct buffer *buffer, struct json headers)
{
    struct json_walk walk = json_walk(headers);
    struct bytes key;
    struct json value;
    while (headers.type == JSON_TYPE_OBJECT && json_next_member(&walk, &key, &value)) {
        (void)buffer_append_text(buffer, ", \"");
        (void)buffer_append(buffer, key);
        (void)buffer_append_text(buffer, "\": ");
        json_append_dumps(buffer, value);
    }
}

static void append_headers(struct buffer *buffer, const struct signature *errback,
                           const struct failure *failure, struct bytes id, struct bytes args)
{
    const struct message *message = &failure->request->message;
    bool has_kwargs = errback->kwargs.type == JSON_TYPE_OBJECT;
    json_append_text_after(buffer, "{\"lang\": \"py\", \"task\": ", errback->task);
    json_append_text_after(buffer, ", \"id\": ", id);
    json_append_value_after(buffer, ", \"shadow\": ", json_get(errback->options, "shadow"));
    (void)buffer_append_text(buffer, ", \"group\": null, \"group_index\": null, \"retries\": 0");
    append_times(buffer, errback->options, failure->now_wall_s);
    json_append_text_after(
        buffer, ", \"root_id\": ", message->root_id.length > 0 ? message->root_id : message->id);
    json_append_text_after(buffer, ", \"parent_id\": ", message->id);
    append_repr(buffer, ", \"argsrepr\": ", args);
    append_repr(buffer, ", \"kwargsrepr\": ", has_kwargs ? errback->kwargs.text : BYTES("{}"));
    json_append_text_after(buffer, ", \"origin\": ", bytes_from_text(failure->options->node_name));
    json_append_value_after(buffer,
                            ", \"ignore_result\": ", json_get(errback->options, "ignore_result"));
    (void)buffer_append_text(buffer, ", \"replaced_task_nesting\": 0, \"stamped_headers\": null, "
                                     "\"stamps\": {}");
    append_own_headers(buffer, json_get(errback->options, "headers"));
    (void)buffer_append_byte(buffer, '}');
}

/* The body in base64; false when not all of it fits. */
static bool append_body(struct buffer *buffer, const struct signature *errback, struct bytes args)
{
    struct buffer body;
    buffer_init(&body, buffer->max_bytes);
    (void)buffer_append_byte(&body, '[');
    (void)buffer_append(&body, args);
    json_append_value_after(&body, ", ",
                            errback->kwargs.type == JSON_TYPE_OBJECT ? errback->kwargs
                                                                     : json_checked(BYTES("{}")));
    json_append_value_after(&body, ", {\"callbacks\": ", json_get(errback->options, "link"));
    json_append_value_after(&body, ", \"errbacks\": ", json_get(errback->options, "link_error"));
    (void)buffer_append_text(&body, ", \"chain\": null, \"chord\": null}]");
    bool is_whole = !body.overflowed;
    base64_append(buffer, buffer_view(&body));
    buffer_fini(&body);
    return is_whole;
}

static bool append_errback(struct buffer *buffer, const struct signature *errback,
                           const struct failure *failure, int position)
{
    const struct request *request = failure->request;
    char derived[37];
    int64_t priority = 0;
    size_t start = buffer->length;
    struct bytes id = option(errback, "task_id", request->arena);
    struct bytes queue = option(errback, "queue", request->arena);
    struct bytes args = arguments_of(errback, request);
    message_retry_follow_up_id(&request->message, position, derived);
    id = id.length > 0 ? id : bytes_from_text(derived);
    (void)!json_int64(json_get(errback->options, "priority"), &priority);
    append_separator(buffer);
    json_append_text_after(buffer, "{\"publish\": {\"queue\": ",
                           queue.length > 0 ? queue : request->message.taken_from);
    (void)buffer_append_text(buffer, ", \"message\": {\"body\": \"");
    bool is_whole = append_body(buffer, errback, args);
    (void)buffer_append_text(buffer, "\", \"content-encoding\": \"utf-8\", \"content-type\": "
                                     "\"application/json\", \"headers\": ");
    append_headers(buffer, errback, failure, id, args);
    json_append_text_after(buffer, ", \"properties\": {\"correlation_id\": ", id);
    json_append_text_after(buffer, ", \"reply_to\": ", request->message.reply_to);
    (void)buffer_format(buffer,
                        ", \"priority\": %lld, \"body_encoding\": \"base64\"}}}, "
                        "\"after_failure\": true}",
                        (long long)priority);
    return keep_if_whole(buffer, start, is_whole);
}

/* All of them */

/* A link, and within it the bodies of chords (celery/backends/base.py: Backend._fail_chain). */
static void append_link(struct buffer *buffer, struct failure *failure, struct json value)
{
    struct arena *arena = failure->request->arena;
    bool stores = request_stores_errors(failure->request);
    struct signature link;
    for (; value.type == JSON_TYPE_OBJECT; value = chord_body(value, arena)) {
        if (read_signature(value, arena, &link) && option(&link, "task_id", arena).length > 0) {
            bool is_told = !stores || append_end(buffer, failure, &link, failure->outcome);
            bool is_counted = append_member(buffer, failure->request, &link);
            failure->left_out += is_told && is_counted ? 0 : 1;
        }
    }
}

/* "Dependency <id> raised <repr>" (celery/backends/redis.py: on_chord_part_return). */
static struct outcome chord_error(const struct failure *failure)
{
    const struct request *request = failure->request;
    const struct outcome *cause = failure->outcome;
    struct buffer repr;
    struct buffer text;
    struct json values = {.type = JSON_TYPE_ABSENT}; /* as result_document: else none */
    buffer_init(&repr, MAX_REPR_BYTES + 16);
    if (json_parse(cause->exc_message, &values, NULL) && values.type == JSON_TYPE_ARRAY) {
        python_repr_append(&repr, values, MAX_REPR_BYTES);
    }
    struct bytes arguments = buffer_view(&repr); /* in brackets */
    arguments = arguments.length < 2 ? bytes_of(NULL, 0)
                                     : bytes_of(arguments.data + 1, arguments.length - 2);
    const char *sentence = arena_format(request->arena, "Dependency %.*s raised %.*s(%.*s)",
                                        BYTES_FORMAT(request->message.id),
                                        BYTES_FORMAT(cause->exc_type), BYTES_FORMAT(arguments));
    buffer_fini(&repr);
    buffer_init(&text, strlen(sentence) * 6 + 8);
    json_append_text_after(&text, "[", bytes_from_text(sentence));
    (void)buffer_append_byte(&text, ']');
    struct outcome error = {
        .kind = OUTCOME_FAILURE,
        .exc_type = BYTES("ChordError"),
        .exc_module = BYTES("celery.exceptions"),
        .exc_message = arena_copy(request->arena, buffer_view(&text)),
    };
    buffer_fini(&text);
    return error;
}

/* A chord that nobody counts never gets to its body: who waits for that hears of it. */
static void append_chord(struct buffer *buffer, struct failure *failure)
{
    struct arena *arena = failure->request->arena;
    struct signature body;
    if (!read_signature(failure->request->message.chord, arena, &body)
        || option(&body, "task_id", arena).length == 0) {
        return;
    }
    struct outcome error = chord_error(failure);
    failure->left_out += append_end(buffer, failure, &body, &error) ? 0 : 1;
}

static void append_chain(struct buffer *buffer, struct failure *failure)
{
    struct json_walk walk = json_walk(failure->request->message.chain);
    struct json value;
    while (json_next_element(&walk, &value)) {
        append_link(buffer, failure, value);
    }
}

static void append_errbacks(struct buffer *buffer, struct failure *failure)
{
    const struct request *request = failure->request;
    struct json_walk walk = json_walk(request->message.errbacks);
    struct json value;
    struct signature errback;
    int position = MESSAGE_FOLLOW_UP_ERRBACKS;
    for (; json_next_element(&walk, &value); position++) {
        bool is_told = read_signature(value, request->arena, &errback) && !errback.is_canvas
                       && append_errback(buffer, &errback, failure, position);
        failure->left_out += is_told ? 0 : 1;
    }
}

void canvas_append_end(struct buffer *buffer, const struct request *request,
                       const struct outcome *outcome, const struct result_document_options *options,
                       double now_wall_s, size_t *ret_left_out)
{
    struct failure failure = {request, outcome, options, now_wall_s, 0};
    bool has_failed = outcome->kind == OUTCOME_FAILURE;
    (void)buffer_append_byte(buffer, '[');
    if (has_failed) {
        append_chain(buffer, &failure);
    }
    append_chord(buffer, &failure);
    if (has_failed) {
        append_errbacks(buffer, &failure);
    }
    (void)buffer_append_byte(buffer, ']');
    *ret_left_out = failure.left_out;
}
