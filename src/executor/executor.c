#include "executor/executor.h"

#include <inttypes.h>
#include <sched.h>

#include "base/json.h"

#define MAX_ESCAPED_BYTES 6                  /* of one byte in a JSON string */
#define MAX_FRAME_BYTES   1024               /* what stands around the texts of a message */
#define MAX_EXACT_INTEGER 9007199254740992.0 /* 2 to the 53rd */

/* Copies `buffer` into the arena and frees it. */
static struct bytes keep(struct arena *arena, struct buffer *buffer)
{
    struct bytes kept = arena_copy(arena, buffer_view(buffer));
    buffer_fini(buffer);
    return kept;
}

static struct bytes one_text(struct arena *arena, struct bytes text)
{
    struct buffer message;
    buffer_init(&message, text.length * MAX_ESCAPED_BYTES + MAX_FRAME_BYTES);
    (void)buffer_append_byte(&message, '[');
    json_append_string(&message, text);
    (void)buffer_append_byte(&message, ']');
    return keep(arena, &message);
}

void executor_failure(struct arena *arena, const char *category, const char *sentence,
                      const char *details, struct outcome *ret_outcome)
{
    struct buffer message;
    buffer_init(&message, strlen(sentence) * MAX_ESCAPED_BYTES + (details ? strlen(details) : 0)
                              + MAX_FRAME_BYTES);
    (void)buffer_append_byte(&message, '[');
    json_append_string(&message, bytes_from_text(sentence));
    (void)buffer_append_text(&message, ", ");
    if (details) {
        (void)buffer_append_text(&message, details);
    } else {
        (void)buffer_append_text(&message, "{\"category\": ");
        json_append_string(&message, bytes_from_text(category));
        (void)buffer_append_byte(&message, '}');
    }
    (void)buffer_append_byte(&message, ']');
    *ret_outcome = (struct outcome){
        .kind = OUTCOME_FAILURE,
        .exc_type = arena_copy(arena, bytes_from_text(category)),
        .exc_module = BYTES("petiole.exceptions"),
        .exc_message = keep(arena, &message),
    };
}

void executor_timed_out(struct arena *arena, double limit_s, struct outcome *ret_outcome)
{
    struct buffer message;
    buffer_init(&message, MAX_FRAME_BYTES);
    (void)buffer_append_byte(&message, '[');
    int64_t whole_s = limit_s < MAX_EXACT_INTEGER ? (int64_t)limit_s : 0;
    if ((double)whole_s >= limit_s) {
        (void)buffer_format(&message, "%" PRId64, whole_s);
    } else {
        json_append_double(&message, limit_s);
    }
    (void)buffer_append_byte(&message, ']');
    *ret_outcome = (struct outcome){
        .kind = OUTCOME_FAILURE,
        .exc_type = BYTES("TimeLimitExceeded"),
        .exc_module = BYTES("billiard.exceptions"),
        .exc_message = keep(arena, &message),
        .timed_out = true,
    };
}

void executor_revoked(struct arena *arena, const char *reason, struct outcome *ret_outcome)
{
    *ret_outcome = (struct outcome){
        .kind = OUTCOME_REVOKED,
        .exc_type = BYTES("TaskRevokedError"),
        .exc_module = BYTES("celery.exceptions"),
        .exc_message = one_text(arena, bytes_from_text(reason)),
    };
}

void executor_lost(struct arena *arena, const char *sentence, struct outcome *ret_outcome)
{
    *ret_outcome = (struct outcome){
        .kind = OUTCOME_LOST,
        .exc_type = BYTES("WorkerLostError"),
        .exc_module = BYTES("billiard.exceptions"),
        .exc_message = one_text(arena, bytes_from_text(sentence)),
    };
}

void executor_given_back(struct outcome *ret_outcome)
{
    *ret_outcome = (struct outcome){.kind = OUTCOME_REJECT, .requeue = true};
}

void executor_not_registered(struct arena *arena, struct bytes task, struct outcome *ret_outcome)
{
    *ret_outcome = (struct outcome){
        .kind = OUTCOME_FAILURE,
        .exc_type = BYTES("NotRegistered"),
        .exc_module = BYTES("celery.exceptions"),
        .exc_message = one_text(arena, task),
    };
}

double executor_hard_limit_s(const struct request *request)
{
    if (request->message.hard_limit_s > 0.0 || !request->type) {
        return request->message.hard_limit_s;
    }
    return request->type->time_limit_s;
}

double executor_soft_limit_s(const struct request *request)
{
    if (request->message.soft_limit_s > 0.0 || !request->type) {
        return request->message.soft_limit_s;
    }
    return request->type->soft_time_limit_s;
}

size_t executor_cpu_count(void)
{
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (size_t)CPU_COUNT(&cpus) : 1;
}
