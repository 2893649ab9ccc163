/*
 * Hostile task messages: headers, properties and content type, a line of the input each, then the
 * body. Whatever is read must survive the way to a Job and back, be decided on, be retried and be
 * reported as JSON.
 */
#include <stdint.h>
#include <stdlib.h>

#include "codec/message_record.h"
#include "codec/message_retry.h"
#include "codec/python_repr.h"
#include "dispatch/strategy.h"
#include "result/result_document.h"

#define MAX_BODY_BYTES ((size_t)1 << 16)
#define MAX_RETRIES    1000000000 /* one more is no message */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const accept_json[] = {"json", NULL};
static const struct message_rules rules = {accept_json, MAX_BODY_BYTES};
static const struct strategy_rules strategy_rules = {
    "tenant-user", "kwargs.config.metadata.namespace", "petiole_tenant", NULL};

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Takes a line off the input. */
static struct bytes take_line(struct bytes *input)
{
    size_t length = bytes_find(*input, '\n');
    struct bytes line = bytes_of(input->data, length);
    *input = bytes_skip(*input, length + 1);
    return line;
}

static struct json object_of(struct bytes text)
{
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    if (!json_parse(text, &value, NULL) || value.type != JSON_TYPE_OBJECT) {
        return (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
    }
    return value;
}

static void require_json(const struct buffer *buffer)
{
    struct json value;
    require(!buffer->overflowed);
    require(json_parse(buffer_view(buffer), &value, NULL));
}

static void round_trip(const struct message *message, struct arena *arena)
{
    struct message back;
    struct buffer buffer;
    char before[65];
    char after[65];
    buffer_init(&buffer, (size_t)1 << 22);
    message_record_append(&buffer, message);
    require_json(&buffer);
    require(message_record_read(buffer_view(&buffer), arena, &back, NULL));
    message_digest(message, before);
    message_digest(&back, after);
    require(strcmp(before, after) == 0);
    require(bytes_equal(back.id, message->id) && bytes_equal(back.task, message->task));
    require(bytes_equal(back.args.text, message->args.text));
    buffer_fini(&buffer);
}

static void retry(const struct message *message, struct arena *arena)
{
    struct message next = {.protocol = 2};
    struct buffer buffer;
    buffer_init(&buffer, (size_t)1 << 22);
    message_retry_append_headers(&buffer, message, 1893553445.5, strategy_rules.tenant_header,
                                 strategy_rules.tenant);
    require_json(&buffer);
    next.headers = object_of(arena_copy(arena, buffer_view(&buffer)));
    if (message->retries == MAX_RETRIES) {
        buffer_fini(&buffer);
        return;
    }
    require(message_read_headers(arena, &next, NULL) == MESSAGE_FINE);
    require(next.retries == message->retries + 1);
    require(bytes_equal(next.id, message->id));
    struct bytes tenant = {0};
    require(json_text(json_get(next.headers, strategy_rules.tenant_header), arena, &tenant));
    require(bytes_equal_text(tenant, strategy_rules.tenant));
    buffer_fini(&buffer);
}

static void report(const struct request *request)
{
    struct timezone_table utc = {.changes = {{INT64_MIN, 0}}, .count = 1};
    struct result_document_options options = {true, "celery@fuzz", &utc};
    struct outcome outcomes[] = {
        {.kind = OUTCOME_SUCCESS, .result = request->message.args.text},
        {.kind = OUTCOME_FAILURE,
         .exc_type = request->message.task,
         .exc_module = request->message.shadow,
         .exc_message = request->message.kwargs.text,
         .traceback = request->message.body},
        {.kind = OUTCOME_RETRY},
    };
    for (size_t index = 0; index < ARRAY_LENGTH(outcomes); index++) {
        struct buffer buffer;
        buffer_init(&buffer, (size_t)1 << 22);
        result_document_append(&buffer, request, &outcomes[index], &options, 1893553445.5);
        require_json(&buffer);
        buffer_fini(&buffer);
    }
}

static void show(const struct message *message)
{
    struct buffer buffer;
    buffer_init(&buffer, 4096);
    python_repr_append(&buffer, message->kwargs, 1024);
    require(buffer.length <= 1024 + 3);
    buffer_fini(&buffer);
}

static void read_message(struct delivery *delivery)
{
    struct request request = {
        .arena = delivery->arena, .delivery = delivery, .type = &registry_defaults};
    struct error error = {0};
    struct verdict verdict;
    enum message_fault fault = message_read(delivery, &rules, &request.message, &error);
    if (fault == MESSAGE_FINE) {
        fault = message_open_body(delivery, &rules, &request.message, &error);
    }
    require(fault == MESSAGE_FINE || error.message[0] != '\0');
    if (fault != MESSAGE_FINE || !message_is_open(&request.message)) {
        return; /* what is left unread is never written into a Job */
    }
    round_trip(&request.message, delivery->arena);
    retry(&request.message, delivery->arena);
    strategy_decide(&strategy_rules, &request, 1893553445.5, &verdict);
    report(&request);
    show(&request.message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new(4096);
    struct bytes input = arena_copy(arena, bytes_of((const char *)data, size));
    struct delivery *delivery = arena_alloc(arena, sizeof(*delivery));
    delivery->arena = arena;
    delivery->headers = object_of(take_line(&input));
    delivery->properties = object_of(take_line(&input));
    delivery->content_type = take_line(&input);
    delivery->content_encoding = BYTES("utf-8");
    delivery->queue = BYTES("tenant-user");
    delivery->body = input;
    read_message(delivery);
    delivery->is_settled = true;
    delivery_free(&delivery);
    return 0;
}
