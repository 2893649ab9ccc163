/*
 * Hostile frames of a report, and hostile links of a message: what is sent for a task must be a
 * Redis envelope that is JSON and its tenant's, to a queue that has a name; and what the worker makes
 * of the links of a failed task must be frames that it can carry out itself.
 */
#include <stdint.h>
#include <stdlib.h>

#include "broker/broker_redis_envelope.h"
#include "codec/message_retry.h"
#include "executor/job_frame.h"
#include "result/canvas.h"
#include "worker/pipeline_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_publication(const struct job_frame *frame, struct arena *arena)
{
    struct buffer headers;
    struct buffer text;
    struct json envelope = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct bytes tenant = {NULL, 0};
    buffer_init(&headers, (size_t)1 << 24);
    buffer_init(&text, (size_t)1 << 24);
    message_retry_append_sent_headers(&headers, frame->headers, "petiole_tenant", "tenant-user");
    struct publication publication =
        pipeline_publication_of(frame, buffer_view(&headers), BYTES("tag"));
    broker_redis_envelope_append(&text, &publication);
    require(!text.overflowed && json_parse(buffer_view(&text), &envelope, NULL));
    require(json_text(json_get(json_get(envelope, "headers"), "petiole_tenant"), arena, &tenant));
    require(bytes_equal(tenant, BYTES("tenant-user")));
    require(frame->queue.length > 0 && frame->queue.length <= JOB_FRAME_MAX_NAME_BYTES);
    buffer_fini(&headers);
    buffer_fini(&text);
}

static void check_links(struct json links, struct arena *arena)
{
    static const struct timezone_table utc = {.changes = {{INT64_MIN, 0}}, .count = 1};
    const struct result_document_options options = {true, "celery@fuzz", &utc};
    const struct outcome outcome = {.kind = OUTCOME_FAILURE,
                                    .exc_type = BYTES("E"),
                                    .exc_module = BYTES("m"),
                                    .exc_message = BYTES("[]")};
    struct request request = {.arena = arena, .type = &registry_defaults};
    struct json list = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct buffer text;
    size_t left_out = 0;
    request.message.id = BYTES("id");
    request.message.taken_from = BYTES("queue");
    request.message.chain = json_at(links, 0);
    request.message.errbacks = json_at(links, 1);
    request.message.chord = json_at(links, 2);
    buffer_init(&text, (size_t)1 << 24);
    canvas_append_end(&text, &request, &outcome, &options, 1893553445.5, &left_out);
    require(text.overflowed || json_parse(buffer_view(&text), &list, NULL));
    require(text.overflowed || list.type == JSON_TYPE_ARRAY);
    buffer_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new(4096);
    struct bytes text = arena_copy(arena, bytes_of((const char *)data, size));
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct job_frame frame;
    struct error error = {0};
    if (json_parse(text, &value, NULL) && value.type == JSON_TYPE_ARRAY) {
        check_links(value, arena);
    } else if (value.type == JSON_TYPE_OBJECT) {
        bool is_read = job_frame_read(value, arena, &frame, &error);
        require(is_read == (error.message[0] == '\0'));
        if (is_read && frame.kind == JOB_FRAME_PUBLISH) {
            check_publication(&frame, arena);
        }
    }
    arena_free(&arena);
    return 0;
}
