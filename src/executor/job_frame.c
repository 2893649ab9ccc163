#include "executor/job_frame.h"

#include "base/base64.h"

static bool wrong(struct error *reterr, const char *what)
{
    return error_set(reterr, ERROR_INVALID, "a frame of the report is wrong: %s", what);
}

static bool is_named(struct bytes name)
{
    for (size_t index = 0; index < name.length; index++) {
        if ((unsigned char)name.data[index] < 0x20) {
            return false;
        }
    }
    return name.length > 0 && name.length <= JOB_FRAME_MAX_NAME_BYTES;
}

/* A name or id, which must be there. */
static bool read_name(struct json object, const char *key, struct arena *arena,
                      struct bytes *ret_name)
{
    return json_text(json_get(object, key), arena, ret_name) && is_named(*ret_name);
}

/* A text that may be missing or null. */
static void read_text(struct json object, const char *key, struct arena *arena,
                      struct bytes *ret_text)
{
    if (!json_text(json_get(object, key), arena, ret_text)) {
        *ret_text = bytes_of(NULL, 0);
    }
}

static bool read_body(struct json message, struct arena *arena, struct bytes *ret_body)
{
    struct bytes encoding;
    struct bytes text;
    read_text(json_get(message, "properties"), "body_encoding", arena, &encoding);
    return bytes_equal_text(encoding, "base64")
           && json_text(json_get(message, "body"), arena, &text)
           && base64_decode(text, arena, ret_body);
}

static bool read_publish(struct json content, struct arena *arena, struct job_frame *frame,
                         struct error *reterr)
{
    struct json message = json_get(content, "message");
    frame->kind = JOB_FRAME_PUBLISH;
    frame->headers = json_get(message, "headers");
    frame->properties = json_get(message, "properties");
    if (!read_name(content, "queue", arena, &frame->queue)) {
        return wrong(reterr, "publish names no queue in 1 to 255 printable bytes");
    }
    if (frame->headers.type != JSON_TYPE_OBJECT || frame->properties.type != JSON_TYPE_OBJECT) {
        return wrong(reterr, "the message has no headers or no properties");
    }
    if (!read_body(message, arena, &frame->body)) {
        return wrong(reterr, "the message's body is not base64");
    }
    read_text(message, "content-type", arena, &frame->content_type);
    read_text(message, "content-encoding", arena, &frame->content_encoding);
    read_text(frame->headers, "id", arena, &frame->task_id);
    read_text(frame->headers, "task", arena, &frame->task);
    read_text(frame->properties, "correlation_id", arena, &frame->correlation_id);
    read_text(frame->properties, "reply_to", arena, &frame->reply_to);
    (void)!json_int64(json_get(frame->properties, "priority"), &frame->priority);
    return true;
}

static bool is_text(struct json object, const char *key, struct bytes expected, struct arena *arena)
{
    struct bytes text;
    return json_text(json_get(object, key), arena, &text) && bytes_equal(text, expected);
}

static bool read_store(struct json content, struct arena *arena, struct job_frame *frame,
                       struct error *reterr)
{
    struct json document = {.type = JSON_TYPE_ABSENT};
    frame->kind = JOB_FRAME_STORE;
    if (!read_name(content, "task_id", arena, &frame->task_id)
        || !read_name(content, "state", arena, &frame->state)) {
        return wrong(reterr, "store names no task or no state");
    }
    if (!json_text(json_get(content, "document"), arena, &frame->document)
        || !json_parse(frame->document, &document, NULL)
        || !is_text(document, "task_id", frame->task_id, arena)
        || !is_text(document, "status", frame->state, arena)) {
        return wrong(reterr, "the document to store is not of its task and state");
    }
    return true;
}

static bool read_join_chord(struct json content, struct arena *arena, struct job_frame *frame,
                            struct error *reterr)
{
    frame->kind = JOB_FRAME_JOIN_CHORD;
    read_text(content, "group", arena, &frame->group);
    if (frame->group.length > 0 && !is_named(frame->group)) {
        return wrong(reterr, "the group of join_chord is no id");
    }
    return (read_name(content, "task_id", arena, &frame->task_id)
            && read_name(content, "state", arena, &frame->state))
           || wrong(reterr, "join_chord names no task or no state");
}

bool job_frame_read(struct json frame, struct arena *arena, struct job_frame *ret_frame,
                    struct error *reterr)
{
    static const struct {
        const char *key;
        bool (*read)(struct json content, struct arena *arena, struct job_frame *frame,
                     struct error *reterr);
    } kinds[] = {{"publish", read_publish}, {"store", read_store}, {"join_chord", read_join_chord}};

    for (size_t index = 0; index < ARRAY_LENGTH(kinds); index++) {
        struct json content = json_get(frame, kinds[index].key);
        if (content.type == JSON_TYPE_OBJECT) {
            struct job_frame result = {0};
            result.is_after_failure = json_get(frame, "after_failure").type == JSON_TYPE_TRUE;
            if (!kinds[index].read(content, arena, &result, reterr)) {
                return false;
            }
            *ret_frame = result;
            return true;
        }
    }
    return wrong(reterr, "it is none of publish, store and join_chord");
}
