#include "executor/job_result.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "base/base64.h"
#include "executor/job_frame.h"
#include "executor/job_progress.h"

#define REPORT_VERSION 1
#define MAX_LINES      100000
#define MAX_SHOWN      40 /* bytes of a bad value */

/* Compares the digest and length that the report tells of `text`. */
static bool check_digest(struct json report, struct bytes text, struct error *reterr)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 3];
    unsigned int length = 0;
    int64_t bytes = -1;
    if (!json_int64(json_get(report, "bytes"), &bytes) || bytes != (int64_t)text.length) {
        return error_set(reterr, ERROR_INVALID,
                         "the report's length is %lld, the payload has %zu bytes", (long long)bytes,
                         text.length);
    }
    if (!EVP_Digest(text.data, text.length, digest, &length, EVP_sha256(), NULL)) {
        return error_set(reterr, ERROR_TEMPORARY, "no SHA-256");
    }
    hex[0] = '"';
    for (unsigned int index = 0; index < length; index++) {
        (void)snprintf(hex + 1 + 2 * (size_t)index, 3, "%02x", digest[index]);
    }
    (void)snprintf(hex + 1 + 2 * (size_t)length, 2, "\"");
    if (!bytes_equal_text(json_get(report, "sha256").text, hex)) {
        return error_set(reterr, ERROR_INVALID, "the payload's SHA-256 is not the report's");
    }
    return true;
}

/* The payload's first value: what the digest of a report with its payload in place is of. */
static struct json first_value(struct json report)
{
    struct json value = json_get(report, "result");
    return value.type != JSON_TYPE_ABSENT ? value : json_get(report, "exception");
}

bool job_result_read(struct bytes text, struct arena *arena, struct job_result *ret_result,
                     struct error *reterr)
{
    struct job_result result = {.is_moved = false};
    struct error inner = {0};
    int64_t version = 0;
    if (text.length == 0) {
        return error_set(reterr, ERROR_NOT_FOUND, "there is no report");
    }
    if (text.length > JOB_RESULT_MAX_MESSAGE_BYTES || !json_parse(text, &result.report, &inner)
        || result.report.type != JSON_TYPE_OBJECT) {
        return error_set(reterr, ERROR_NOT_FOUND, "what was left is no report of petiole.run");
    }
    if (!json_int64(json_get(result.report, "v"), &version) || version != REPORT_VERSION) {
        return error_set(reterr, ERROR_NOT_FOUND, "the report is not of version %d",
                         REPORT_VERSION);
    }
    if (!json_text(json_get(result.report, "state"), arena, &result.state)) {
        return error_set(reterr, ERROR_INVALID, "the report names no state");
    }
    struct json value = first_value(result.report);
    result.is_moved = value.type == JSON_TYPE_ABSENT;
    result.payload = result.report;
    if (!result.is_moved && !check_digest(result.report, value.text, reterr)) {
        return false;
    }
    *ret_result = result;
    return true;
}

/* Reads "<sequence>/<total> <base64>" behind the head of a line. */
static bool read_line(struct bytes line, long *ret_sequence, long *ret_total,
                      struct bytes *ret_text)
{
    char numbers[32];
    size_t length = bytes_find(line, ' ');
    if (length >= sizeof(numbers) || length == line.length) {
        return false;
    }
    memcpy(numbers, line.data, length);
    numbers[length] = '\0';
    char *end = NULL;
    *ret_sequence = strtol(numbers, &end, 10);
    if (*end != '/') {
        return false;
    }
    *ret_total = strtol(end + 1, &end, 10);
    *ret_text = bytes_skip(line, length + 1);
    return *end == '\0' && *ret_sequence >= 1 && *ret_total <= MAX_LINES
           && *ret_sequence <= *ret_total;
}

/* Puts one piece behind the others. A line out of order begins anew when it is the first of a run,
 * and spoils the run otherwise. `expected` is the sequence number that should come next; 0: no
 * run. */
static void take_line(struct bytes line, struct arena *arena, struct buffer *payload,
                      long *expected, long *total)
{
    long sequence = 0;
    long line_total = 0;
    struct bytes text;
    struct bytes plain;
    if (!read_line(line, &sequence, &line_total, &text)) {
        *expected = 0;
        return;
    }
    if (sequence == 1) {
        buffer_clear(payload);
        *total = line_total;
        *expected = 1;
    }
    if (sequence != *expected || line_total != *total || !base64_decode(text, arena, &plain)
        || !buffer_append(payload, plain)) {
        *expected = 0;
        return;
    }
    (*expected)++;
}

bool job_result_read_moved(struct bytes output, struct arena *arena, struct job_result *result,
                           struct error *reterr)
{
    struct buffer payload;
    long expected = 0;
    long total = 0;
    buffer_init(&payload, JOB_RESULT_MAX_PAYLOAD_BYTES);
    while (output.length > 0) {
        size_t length = bytes_find(output, '\n');
        struct bytes line = bytes_of(output.data, length);
        if (length > 0 && line.data[length - 1] == '\r') {
            line.length--;
        }
        if (bytes_starts_with(line, BYTES(JOB_RESULT_LINE_HEAD))) {
            take_line(bytes_skip(line, sizeof(JOB_RESULT_LINE_HEAD) - 1), arena, &payload,
                      &expected, &total);
        }
        output = bytes_skip(output, length + 1);
    }
    bool is_complete = expected > 0 && expected == total + 1;
    struct bytes text = arena_copy(arena, buffer_view(&payload));
    buffer_fini(&payload);
    if (!is_complete) {
        return error_set(reterr, ERROR_INVALID,
                         "the result's lines at the end of the output are not complete");
    }
    if (!check_digest(result->report, text, reterr)
        || !json_parse(text, &result->payload, reterr)) {
        return false;
    }
    if (result->payload.type != JSON_TYPE_OBJECT) {
        return error_set(reterr, ERROR_INVALID, "the moved payload is not an object");
    }
    return true;
}

/* Fills in the exception members; false when `exception` is no serialized exception. */
static bool read_exception(struct json exception, struct arena *arena, struct outcome *outcome)
{
    struct json message = json_get(exception, "exc_message");
    outcome->exc_message = message.text;
    return message.type == JSON_TYPE_ARRAY
           && json_text(json_get(exception, "exc_type"), arena, &outcome->exc_type)
           && json_text(json_get(exception, "exc_module"), arena, &outcome->exc_module);
}

/* Fills in the FAILURE; false when its exception is none. */
static bool read_failure(struct json payload, struct arena *arena, struct outcome *outcome)
{
    outcome->kind = OUTCOME_FAILURE;
    if (!read_exception(json_get(payload, "exception"), arena, outcome)) {
        return false;
    }
    outcome->timed_out = bytes_equal_text(outcome->exc_module, "billiard.exceptions")
                         && bytes_equal_text(outcome->exc_type, "TimeLimitExceeded");
    return true;
}

/* The last state that an ignored task told; it may have told none. */
static bool read_told(struct json told, struct arena *arena, struct progress *ret_told)
{
    if (json_is_unset(told)) {
        return true;
    }
    ret_told->meta = json_get(told, "meta");
    return json_text(json_get(told, "state"), arena, &ret_told->state) && ret_told->state.length > 0
           && ret_told->state.length <= JOB_PROGRESS_MAX_STATE_BYTES;
}

/* Without one the type's own delay counts; a time that is past is now, as for Celery. */
static bool read_countdown(struct json payload, struct outcome *outcome, struct error *reterr)
{
    struct json value = json_get(payload, "countdown");
    double seconds = -1;
    if (!json_is_unset(value)) {
        if (!json_double(value, &seconds) || seconds > EXECUTOR_MAX_COUNTDOWN_S) {
            return error_set(reterr, ERROR_INVALID,
                             "the countdown of its retry is %.*s, which is no number of seconds up "
                             "to %.0f: let the task ask for an earlier retry",
                             (int)(value.text.length < MAX_SHOWN ? value.text.length : MAX_SHOWN),
                             value.text.data, EXECUTOR_MAX_COUNTDOWN_S);
        }
        seconds = fmax(0, seconds);
    }
    outcome->retry_countdown_s = seconds;
    return true;
}

static bool read_retry(struct json payload, struct arena *arena, struct outcome *outcome)
{
    struct json exception = json_get(payload, "exception");
    outcome->kind = OUTCOME_RETRY;
    return json_is_unset(exception) || read_exception(exception, arena, outcome);
}

/* What the worker is to do; false when there is anything in it that nobody can do. */
static bool read_frames(struct json payload, struct arena *arena, struct outcome *outcome,
                        struct error *reterr)
{
    struct json frames = json_get(payload, "frames");
    struct json_walk walk = json_walk(frames);
    struct json element;
    struct job_frame frame;
    size_t count = json_count(frames);
    if (count > JOB_FRAME_MAX_COUNT) {
        return error_set(reterr, ERROR_INVALID,
                         "its report has %zu frames, of messages that it sends and of tasks that "
                         "it ends, and %d are allowed: let the task send fewer messages",
                         count, JOB_FRAME_MAX_COUNT);
    }
    while (frames.type == JSON_TYPE_ARRAY && json_next_element(&walk, &element)) {
        if (!job_frame_read(element, arena, &frame, reterr)) {
            return false;
        }
    }
    struct json children = json_get(payload, "children");
    outcome->children = children.type == JSON_TYPE_ARRAY ? children : outcome->children;
    outcome->frames = frames.type == JSON_TYPE_ARRAY ? frames : outcome->frames;
    return true;
}

bool job_result_outcome(const struct job_result *result, struct arena *arena,
                        struct outcome *ret_outcome, struct error *reterr)
{
    struct outcome outcome = {.kind = OUTCOME_SUCCESS};
    struct json payload = result->payload;
    bool is_right = true;
    (void)!json_text(json_get(result->report, "traceback"), arena, &outcome.traceback);
    if (bytes_equal(result->state, BYTES("SUCCESS"))) {
        outcome.result = json_get(payload, "result").text;
        is_right = outcome.result.length > 0;
    } else if (bytes_equal(result->state, BYTES("FAILURE"))) {
        is_right = read_failure(payload, arena, &outcome);
    } else if (bytes_equal(result->state, BYTES("RETRY"))) {
        is_right = read_retry(payload, arena, &outcome);
    } else if (bytes_equal(result->state, BYTES("IGNORED"))) {
        outcome.kind = OUTCOME_IGNORE;
        is_right = read_told(json_get(payload, "told"), arena, &outcome.told);
    } else if (bytes_equal(result->state, BYTES("REJECTED"))) {
        struct json exception = json_get(payload, "exception");
        outcome.kind = OUTCOME_REJECT;
        outcome.requeue = json_get(payload, "requeue").type == JSON_TYPE_TRUE;
        is_right = json_is_unset(exception) || read_exception(exception, arena, &outcome);
    } else {
        is_right = false;
    }
    if (!is_right) {
        return error_set(reterr, ERROR_INVALID,
                         "the report of state %.*s has no payload of its kind",
                         BYTES_FORMAT(result->state));
    }
    if (!read_frames(payload, arena, &outcome, reterr)
        || (outcome.kind == OUTCOME_RETRY && !read_countdown(payload, &outcome, reterr))) {
        return false;
    }
    *ret_outcome = outcome;
    return true;
}
