#include "codec/message_retry.h"

#include <stdio.h>
#include <uuid/uuid.h>

#include "codec/iso8601.h"

/* UUIDv5 namespace of Petiole's follow-up ids: a random UUID, fixed for ever. */
static const unsigned char follow_up_namespace[16] = {
    0x6d, 0x0c, 0x5b, 0x52, 0x5e, 0x0a, 0x4b, 0x8f, 0x9a, 0x5e, 0x1f, 0x0b, 0x7c, 0x4e, 0x2d, 0x91};

/* Whether the member is not copied: it is written anew, or belongs to this delivery only
 * (celery/app/task.py: x-death headers are stripped when a task is sent again). */
static bool is_left_out(struct bytes key)
{
    static const char *const names[] = {
        "retries",
        "eta",
        "parent_id",
        "root_id",
        "compression",
        "redelivered",
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(names); index++) {
        if (bytes_equal_text(key, names[index])) {
            return true;
        }
    }
    return false;
}

static void append_eta(struct buffer *buffer, double eta_wall_s)
{
    (void)buffer_append_text(buffer, ", \"eta\": ");
    if (eta_wall_s > 0) {
        (void)buffer_append_byte(buffer, '"');
        iso8601_append(buffer, eta_wall_s, 0);
        (void)buffer_append_byte(buffer, '"');
    } else {
        (void)buffer_append_text(buffer, "null");
    }
}

/* Of a body that is sent as it came. What was inflated here is sent so. */
static void append_compression(struct buffer *buffer, const struct message *message)
{
    if (message->compression.length > 0) {
        (void)buffer_append_text(buffer, ", \"compression\": ");
        json_append_string(buffer, message->compression);
    }
}

/* The task that a retry hangs under in the tree of tasks: itself, unless it had a parent already
 * (celery/app/base.py: Celery.send_task). */
static struct bytes or_own_id(struct bytes id, const struct message *message)
{
    return id.length > 0 ? id : message->id;
}

/* Appends the members of `headers`, each followed by a comma, but for the tenant's. */
static void append_members(struct buffer *buffer, struct json headers, const char *tenant_header,
                           bool (*is_skipped)(struct bytes key))
{
    struct json_walk walk = json_walk(headers);
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        if (!is_skipped(key) && !bytes_equal_text(key, tenant_header)) {
            (void)buffer_append_byte(buffer, '"');
            (void)buffer_append(buffer, key);
            (void)buffer_append_text(buffer, "\": ");
            (void)buffer_append(buffer, value.text);
            (void)buffer_append_text(buffer, ", ");
        }
    }
}

/* Last, so that it counts also when a peer wrote the same key with escapes. */
static void append_tenant(struct buffer *buffer, const char *tenant_header, const char *tenant)
{
    json_append_string(buffer, bytes_from_text(tenant_header));
    (void)buffer_append_text(buffer, ": ");
    json_append_string(buffer, bytes_from_text(tenant));
    (void)buffer_append_byte(buffer, '}');
}

static bool is_of_delivery(struct bytes key)
{
    return bytes_equal_text(key, "redelivered");
}

void message_retry_append_sent_headers(struct buffer *buffer, struct json headers,
                                       const char *tenant_header, const char *tenant)
{
    (void)buffer_append_byte(buffer, '{');
    append_members(buffer, headers, tenant_header, is_of_delivery);
    append_tenant(buffer, tenant_header, tenant);
}

void message_retry_append_headers(struct buffer *buffer, const struct message *message,
                                  double eta_wall_s, const char *tenant_header, const char *tenant)
{
    (void)buffer_append_byte(buffer, '{');
    append_members(buffer, message->headers, tenant_header, is_left_out);
    /* Last, so that they count also when a peer wrote the same keys with escapes. */
    (void)buffer_format(buffer, "\"retries\": %lld", (long long)message->retries + 1);
    append_eta(buffer, eta_wall_s);
    append_compression(buffer, message);
    (void)buffer_append_text(buffer, ", \"root_id\": ");
    json_append_string(buffer, or_own_id(message->root_id, message));
    (void)buffer_append_text(buffer, ", \"parent_id\": ");
    json_append_string(buffer, or_own_id(message->parent_id, message));
    (void)buffer_append_text(buffer, ", ");
    append_tenant(buffer, tenant_header, tenant);
}

void message_retry_follow_up_id(const struct message *message, int position, char ret_text[37])
{
    struct buffer name;
    uuid_t id;
    buffer_init(&name, message->id.length + 128);
    (void)buffer_append(&name, message->id);
    (void)buffer_format(&name, "\n%lld\n%lld\n%d", (long long)message->retries,
                        (long long)message->replaced_task_nesting, position);
    uuid_generate_sha1(id, follow_up_namespace, name.data, name.length);
    uuid_unparse_lower(id, ret_text);
    buffer_fini(&name);
}
