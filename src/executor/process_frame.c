#include "executor/process_frame.h"

#include <endian.h>
#include <math.h>

#include "base/log.h"

#define HEAD_BYTES   5
#define LENGTH_BYTES 4

/* What the worker sends. */
enum sent_kind {
    SENT_TASK = 1,
    SENT_ENDING,
};

/* Numbers; memory is not aligned */

static uint32_t number_at(const char *data)
{
    uint32_t number = 0;
    memcpy(&number, data, sizeof(number));
    return le32toh(number);
}

static void append_number(struct buffer *buffer, uint32_t number)
{
    uint32_t little = htole32(number);
    char raw[sizeof(little)];
    memcpy(raw, &little, sizeof(little));
    (void)buffer_append(buffer, bytes_of(raw, sizeof(raw)));
}

static bool take_byte(struct bytes *payload, unsigned most, unsigned *ret_byte)
{
    if (payload->length == 0 || (unsigned char)payload->data[0] > most) {
        return false;
    }
    *ret_byte = (unsigned char)payload->data[0];
    *payload = bytes_skip(*payload, 1);
    return true;
}

static bool take_number(struct bytes *payload, uint32_t *ret_number)
{
    if (payload->length < LENGTH_BYTES) {
        return false;
    }
    *ret_number = number_at(payload->data);
    *payload = bytes_skip(*payload, LENGTH_BYTES);
    return true;
}

static bool take_seconds(struct bytes *payload, double *ret_seconds)
{
    uint64_t raw = 0;
    if (payload->length < sizeof(raw)) {
        return false;
    }
    memcpy(&raw, payload->data, sizeof(raw));
    raw = le64toh(raw);
    memcpy(ret_seconds, &raw, sizeof(raw));
    *payload = bytes_skip(*payload, sizeof(raw));
    return isfinite(*ret_seconds) && *ret_seconds >= 0;
}

static bool take_text(struct bytes *payload, struct bytes *ret_text)
{
    uint32_t length = 0;
    if (!take_number(payload, &length) || length > payload->length) {
        return false;
    }
    *ret_text = bytes_of(payload->data, length);
    *payload = bytes_skip(*payload, length);
    return true;
}

/* Frames */

enum process_frame_status process_frame_take(struct bytes *input, struct process_frame *ret_frame)
{
    if (input->length < HEAD_BYTES) {
        return PROCESS_FRAME_INCOMPLETE;
    }
    size_t length = number_at(input->data);
    if (length > PROCESS_FRAME_MAX_BYTES) {
        return PROCESS_FRAME_BROKEN;
    }
    if (input->length - HEAD_BYTES < length) {
        return PROCESS_FRAME_INCOMPLETE;
    }
    ret_frame->kind = (unsigned char)input->data[LENGTH_BYTES];
    ret_frame->payload = bytes_of(input->data + HEAD_BYTES, length);
    *input = bytes_skip(*input, HEAD_BYTES + length);
    return PROCESS_FRAME_COMPLETE;
}

bool process_frame_read_ready(struct bytes payload, int *ret_pid)
{
    uint32_t pid = 0;
    bool ok = take_number(&payload, &pid) && payload.length == 0 && pid > 1 && pid < INT32_MAX;
    *ret_pid = (int)pid;
    return ok;
}

bool process_frame_read_state(struct bytes payload, struct process_frame_state *ret)
{
    return take_text(&payload, &ret->task_id) && take_text(&payload, &ret->state)
           && take_text(&payload, &ret->document) && payload.length == 0;
}

bool process_frame_read_done(struct bytes payload, struct process_frame_done *ret)
{
    unsigned outcome = 0;
    unsigned requeue = 0;
    unsigned is_told = 0;
    struct bytes state; /* the outcome says as much */
    if (!take_byte(&payload, PROCESS_FRAME_LOST, &outcome) || !take_byte(&payload, 1, &requeue)
        || !take_byte(&payload, 1, &is_told) || !take_seconds(&payload, &ret->runtime_s)
        || !take_number(&payload, &ret->rss_kib)) {
        return false;
    }
    ret->outcome = (enum process_frame_outcome)outcome;
    ret->requeue = requeue != 0;
    ret->is_told = is_told != 0;
    return take_text(&payload, &state) && take_text(&payload, &ret->document)
           && take_text(&payload, &ret->exc_type) && take_text(&payload, &ret->exc_module)
           && take_text(&payload, &ret->exc_message) && take_text(&payload, &ret->traceback)
           && payload.length == 0;
}

bool process_frame_read_ended(struct bytes payload, struct bytes *ret_document)
{
    return take_text(&payload, ret_document) && payload.length == 0;
}

bool process_frame_read_log(struct bytes payload, int *ret_level, struct bytes *ret_text)
{
    unsigned level = 0;
    bool ok = take_byte(&payload, LOG_CRITICAL, &level) && take_text(&payload, ret_text)
              && payload.length == 0;
    *ret_level = (int)level;
    return ok;
}

static void append_texts(struct buffer *buffer, enum sent_kind kind, const struct bytes *texts,
                         size_t count)
{
    size_t length = 0;
    for (size_t index = 0; index < count; index++) {
        length += LENGTH_BYTES + texts[index].length;
    }
    append_number(buffer, (uint32_t)length);
    (void)buffer_append_byte(buffer, (char)kind);
    for (size_t index = 0; index < count; index++) {
        append_number(buffer, (uint32_t)texts[index].length);
        (void)buffer_append(buffer, texts[index]);
    }
}

void process_frame_append_task(struct buffer *buffer, const struct process_frame_task *task)
{
    const struct bytes texts[] = {
        task->id,  task->name, task->request, task->content_type, task->content_encoding,
        task->body};
    append_texts(buffer, SENT_TASK, texts, ARRAY_LENGTH(texts));
}

void process_frame_append_ending(struct buffer *buffer, const struct process_frame_task *task,
                                 struct bytes ending)
{
    const struct bytes texts[] = {
        task->id,   task->name, task->request, task->content_type, task->content_encoding,
        task->body, ending};
    append_texts(buffer, SENT_ENDING, texts, ARRAY_LENGTH(texts));
}
