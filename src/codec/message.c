#include "codec/message.h"

#include <openssl/evp.h>
#include <stdio.h>

#include "codec/iso8601.h"
#include "codec/message_body.h"

#define MAX_ID_BYTES   512
#define MAX_NAME_BYTES 1024
#define MAX_COUNT      1000000000 /* of retries: room to add one */

struct bytes message_display_name(const struct message *message)
{
    return message->shadow.length > 0 ? message->shadow : message->task;
}

static enum message_fault refuse(enum message_fault fault, struct error *reterr,
                                 const char *sentence)
{
    (void)error_set(reterr, ERROR_INVALID, "%s", sentence);
    return fault;
}

/* The text of a string member, or the empty view for anything else. */
static struct bytes text_of(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

/* `[hard, soft]` of numbers or nulls (celery/app/amqp.py: as_task_v2). */
static bool read_time_limits(struct json limits, struct message *message)
{
    double *const targets[] = {&message->hard_limit_s, &message->soft_limit_s};
    if (json_is_unset(limits)) {
        return true;
    }
    if (limits.type != JSON_TYPE_ARRAY) {
        return false;
    }
    for (size_t index = 0; index < ARRAY_LENGTH(targets); index++) {
        struct json limit = json_at(limits, index);
        if (!json_is_unset(limit) && (!json_double(limit, targets[index]) || *targets[index] < 0)) {
            return false;
        }
    }
    return true;
}

/* A time member: absent and null are fine; a number is not accepted (reference: isoparse). */
static bool read_time(struct json value, struct arena *arena, struct bytes *text, double *wall_s)
{
    if (json_is_unset(value)) {
        return true;
    }
    return json_text(value, arena, text) && iso8601_parse(*text, wall_s);
}

static enum message_fault refuse_time(const char *which, struct json value, struct error *reterr)
{
    (void)error_set(reterr, ERROR_INVALID, "invalid %s value %.*s: not an ISO 8601 date and time",
                    which, BYTES_FORMAT(value.text));
    return MESSAGE_INVALID;
}

static bool read_count(struct json value, int64_t *ret_count)
{
    return json_is_unset(value)
           || (json_int64(value, ret_count) && *ret_count >= 0 && *ret_count <= MAX_COUNT);
}

static enum message_flag read_flag(struct json value)
{
    return value.type == JSON_TYPE_TRUE    ? MESSAGE_YES
           : value.type == JSON_TYPE_FALSE ? MESSAGE_NO
                                           : MESSAGE_UNSET;
}

/* The headers that are read, each once. The order is that of union headers. */
static const char *const header_names[] = {
    "task",
    "id",
    "shadow",
    "root_id",
    "parent_id",
    "group",
    "group_index",
    "argsrepr",
    "kwargsrepr",
    "origin",
    "ignore_result",
    "eta",
    "expires",
    "timelimit",
    "retries",
    "replaced_task_nesting",
    "stamped_headers",
    "stamps",
};

union headers {
    struct json in_order[ARRAY_LENGTH(header_names)];

    struct {
        struct json task, id, shadow, root_id, parent_id, group, group_index;
        struct json argsrepr, kwargsrepr, origin, ignore_result, eta, expires, timelimit;
        struct json retries, replaced_task_nesting, stamped_headers, stamps;
    };
};

_Static_assert(sizeof(union headers) == ARRAY_LENGTH(header_names) * sizeof(struct json),
               "a name for each header");

static struct bytes text_or_none(struct json value, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(value, arena, &text);
    return text;
}

/* Members that only name things: wrong types count as absent. */
static void read_names(const union headers *headers, struct arena *arena, struct message *message)
{
    message->shadow = text_or_none(headers->shadow, arena);
    message->root_id = text_or_none(headers->root_id, arena);
    message->parent_id = text_or_none(headers->parent_id, arena);
    message->group = text_or_none(headers->group, arena);
    message->group_index = headers->group_index;
    message->argsrepr = text_or_none(headers->argsrepr, arena);
    message->kwargsrepr = text_or_none(headers->kwargsrepr, arena);
    message->origin = text_or_none(headers->origin, arena);
    message->ignore_result = read_flag(headers->ignore_result);
    message->stamped_headers = headers->stamped_headers;
    message->stamps = headers->stamps;
}

/* Times, limits and counts. */
static enum message_fault read_numbers(const union headers *headers, struct arena *arena,
                                       struct message *message, struct error *reterr)
{
    if (!read_time(headers->eta, arena, &message->eta, &message->eta_wall_s)) {
        return refuse_time("ETA", headers->eta, reterr);
    }
    if (!read_time(headers->expires, arena, &message->expires, &message->expires_wall_s)) {
        return refuse_time("expires", headers->expires, reterr);
    }
    if (!read_time_limits(headers->timelimit, message)) {
        return refuse(MESSAGE_INVALID, reterr, "timelimit must be [hard, soft] in seconds or null");
    }
    if (!read_count(headers->retries, &message->retries)
        || !read_count(headers->replaced_task_nesting, &message->replaced_task_nesting)) {
        return refuse(MESSAGE_INVALID, reterr,
                      "retries and replaced_task_nesting must be whole numbers from 0 to 10^9");
    }
    return MESSAGE_FINE;
}

enum message_fault message_read_headers(struct arena *arena, struct message *message,
                                        struct error *reterr)
{
    union headers headers;
    json_pick(message->headers, header_names, ARRAY_LENGTH(header_names), headers.in_order);
    message->task = text_or_none(headers.task, arena);
    message->id = text_or_none(headers.id, arena);
    if (message->task.length == 0 || message->task.length > MAX_NAME_BYTES) {
        return refuse(MESSAGE_UNKNOWN, reterr, "the task header is not a task's name");
    }
    if (message->id.length == 0 || message->id.length > MAX_ID_BYTES) {
        return refuse(MESSAGE_INVALID, reterr, "the id header is missing or not a task id");
    }
    read_names(&headers, arena, message);
    return read_numbers(&headers, arena, message, reterr);
}

static void read_delivery(const struct delivery *delivery, struct message *message)
{
    message->headers = delivery->headers;
    message->properties = delivery->properties;
    message->queue = delivery->routing_key.length > 0 ? delivery->routing_key : delivery->queue;
    message->taken_from = delivery->queue;
    message->exchange = delivery->exchange;
    message->priority = delivery->priority;
    message->redelivered = delivery->redelivered;
    message->content_type = delivery->content_type;
    message->content_encoding = delivery->content_encoding;
    message->reply_to = text_of(delivery->properties, "reply_to", delivery->arena);
    message->correlation_id = text_of(delivery->properties, "correlation_id", delivery->arena);
}

enum message_fault message_read(const struct delivery *delivery, const struct message_rules *rules,
                                struct message *ret_message, struct error *reterr)
{
    struct message message = {.protocol = 2};
    read_delivery(delivery, &message);
    enum message_fault fault = MESSAGE_UNKNOWN;
    if (json_get(delivery->headers, "task").type != JSON_TYPE_ABSENT) {
        fault = message_read_headers(delivery->arena, &message, reterr);
    } else {
        message.protocol = 1;
        fault = message_body_read_protocol1(delivery, rules, &message, reterr);
    }
    *ret_message = message;
    return fault;
}

enum message_fault message_open_body(const struct delivery *delivery,
                                     const struct message_rules *rules, struct message *message,
                                     struct error *reterr)
{
    if (message->protocol == 1) {
        return MESSAGE_FINE; /* opened by message_read */
    }
    return message_body_open(delivery, rules, message, reterr);
}

bool message_asks_for(struct json member)
{
    return !json_is_unset(member) && (member.type != JSON_TYPE_ARRAY || json_count(member) > 0);
}

bool message_is_open(const struct message *message)
{
    return message->args.type != JSON_TYPE_ABSENT;
}

void message_digest(const struct message *message, char ret_text[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    char numbers[64];
    int count = snprintf(numbers, sizeof(numbers), "\n%lld\n%lld\n", (long long)message->retries,
                         (long long)message->replaced_task_nesting);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL)
              && EVP_DigestUpdate(context, message->task.data, message->task.length)
              && EVP_DigestUpdate(context, "\n", 1)
              && EVP_DigestUpdate(context, message->id.data, message->id.length)
              && EVP_DigestUpdate(context, numbers, (size_t)count)
              && EVP_DigestUpdate(context, message->body.data, message->body.length)
              && EVP_DigestFinal_ex(context, digest, &length);
    EVP_MD_CTX_free(context);
    if (!ok) {
        abort(); /* SHA-256 without memory for a context */
    }
    for (unsigned int index = 0; index < length; index++) {
        (void)snprintf(ret_text + 2 * (size_t)index, 3, "%02x", digest[index]);
    }
}
