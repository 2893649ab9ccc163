#include "dispatch/tenancy.h"

/* How much of a text from the message a sentence shows, so that there is room for what is wrong. */
#define MAX_SHOWN_BYTES 80

static struct bytes shown(struct bytes text)
{
    text.length = text.length > MAX_SHOWN_BYTES ? MAX_SHOWN_BYTES : text.length;
    return text;
}

/* The element that `name` counts to, when it is a number. */
static struct json element_at(struct json array, const char *name)
{
    char *end = NULL;
    unsigned long index = strtoul(name, &end, 10);
    bool is_number = name[0] >= '0' && name[0] <= '9' && *end == '\0';
    return is_number ? json_at(array, index) : (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
}

/* The value at a path such as "kwargs.config.metadata.namespace" or "args.0.tenant". */
static struct json value_at(const struct message *message, const char *path)
{
    struct bytes rest = bytes_from_text(path);
    struct json value = {JSON_TYPE_ABSENT, {NULL, 0}};
    for (bool is_root = true; rest.length > 0; is_root = false) {
        size_t length = bytes_find(rest, '.');
        char name[128];
        if (length >= sizeof(name)) {
            return (struct json){JSON_TYPE_ABSENT, {NULL, 0}};
        }
        memcpy(name, rest.data, length);
        name[length] = '\0';
        rest = bytes_skip(rest, length + 1);
        if (is_root) {
            value = strcmp(name, "kwargs") == 0 ? message->kwargs
                    : strcmp(name, "args") == 0 ? message->args
                                                : json_get(message->headers, name);
        } else if (value.type == JSON_TYPE_ARRAY) {
            value = element_at(value, name);
        } else {
            value = json_get(value, name);
        }
    }
    return value;
}

static bool refuse(const struct message *message, const char *field, struct json value,
                   const char *what, struct error *reterr)
{
    return error_set(reterr, ERROR_REFUSED, "task %.*s[%.*s]: %s is %.*s, %s",
                     BYTES_FORMAT(shown(message->task)), BYTES_FORMAT(shown(message->id)), field,
                     BYTES_FORMAT(shown(value.text)), what);
}

/* Compares a string without its quotes; one with escapes is no tenant's name, whatever it
 * spells. */
static bool is_tenant(struct json value, const char *tenant)
{
    return value.type == JSON_TYPE_STRING
           && bytes_equal_text(bytes_of(value.text.data + 1, value.text.length - 2), tenant);
}

/* An absent value says nothing; a present one must be exactly our tenant. */
static bool check_field(const struct strategy_rules *rules, const struct message *message,
                        const char *field, struct json value, struct error *reterr)
{
    if (json_is_unset(value) || is_tenant(value, rules->tenant)) {
        return true;
    }
    if (value.type != JSON_TYPE_STRING) {
        return refuse(message, field, value, "which is not a tenant's name in a string", reterr);
    }
    char what[256];
    (void)snprintf(what, sizeof(what), "and this worker serves %s", rules->tenant);
    return refuse(message, field, value, what, reterr);
}

bool tenancy_check(const struct strategy_rules *rules, const struct request *request,
                   struct error *reterr)
{
    const struct message *message = &request->message;
    struct json in_path = value_at(message, rules->tenant_path);
    struct json in_header = json_get(message->headers, rules->tenant_header);
    char header_field[160];
    (void)snprintf(header_field, sizeof(header_field), "header %s", rules->tenant_header);
    if (!check_field(rules, message, rules->tenant_path, in_path, reterr)
        || !check_field(rules, message, header_field, in_header, reterr)) {
        return false;
    }
    bool is_named = !json_is_unset(in_path) || !json_is_unset(in_header);
    bool stays_here = request->type && request->type->executor == TASK_PROCESS;
    if (is_named || !request->delivery || stays_here
        || bytes_equal_text(request->delivery->queue, rules->tenant)) {
        return true;
    }
    return error_set(
        reterr, ERROR_REFUSED,
        "task %.*s[%.*s] names no tenant (neither %s nor header %s) and came from queue %.*s, not "
        "from %s's own",
        BYTES_FORMAT(shown(message->task)), BYTES_FORMAT(shown(message->id)), rules->tenant_path,
        rules->tenant_header, BYTES_FORMAT(shown(request->delivery->queue)), rules->tenant);
}
