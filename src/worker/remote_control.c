#include "worker/remote_control.h"

#include <signal.h>
#include <stdio.h>

#include "base/log.h"
#include "codec/control_message.h"
#include "codec/python_repr.h"

#define MAX_REPLY_BYTES ((size_t)16 * 1024 * 1024)
#define MAX_REPR_BYTES  ((size_t)1024)
#define LAST_SIGNAL     31

struct remote_control {
    struct remote_control_options options;
    struct broker *broker;
    int64_t clock; /* Lamport's, as Celery counts it (kombu/clocks.py) */
};

/* Carries a command out: `value` gets the answer's JSON text. */
typedef void(command_fn)(struct remote_control *control, const struct control_message *message,
                         struct arena *arena, struct buffer *value);

/* Answers */

/* {"ok": text} or {"error": text} */
static void append_answer(struct buffer *value, const char *key, struct bytes text)
{
    (void)buffer_format(value, "{\"%s\": ", key);
    json_append_string(value, text);
    (void)buffer_append_byte(value, '}');
}

static void send_answer(struct remote_control *control, const struct control_message *message,
                        struct bytes value)
{
    struct buffer body;
    struct buffer headers;
    char tag[37];
    uint64_t high = loop_random(control->options.loop);
    uint64_t low = loop_random(control->options.loop);
    buffer_init(&body, MAX_REPLY_BYTES);
    buffer_init(&headers, MAX_REPLY_BYTES);
    control_message_append_reply(&body, control->options.node_name, value);
    control_message_append_headers(&headers, message, control->clock);
    (void)snprintf(tag, sizeof(tag), "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)(high >> 32),
                   (unsigned)(high >> 16 & 0xffff), (unsigned)(high & 0xfff),
                   (unsigned)(low >> 48 & 0xfff), (unsigned long long)(low & 0xffffffffffff));
    struct publication publication = {
        .exchange = message->reply_to,
        .routing_key = message->reply_key,
        .headers = buffer_view(&headers),
        .content_type = BYTES("application/json"),
        .content_encoding = BYTES("utf-8"),
        .body = buffer_view(&body),
        .delivery_tag = bytes_from_text(tag),
    };
    /* A client that no longer listens has no queue: then nobody misses the answer. */
    control->broker->ops->publish(control->broker, &publication, NULL, NULL);
    buffer_fini(&body);
    buffer_fini(&headers);
}

/* ping */

static void answer_ping(struct remote_control *control, const struct control_message *message,
                        struct arena *arena, struct buffer *value)
{
    (void)control;
    (void)message;
    (void)arena;
    append_answer(value, "ok", BYTES("pong"));
}

/* revoke */

/* A signal by number or name, with or without SIG (celery/platforms.py: Signals.signum). */
static bool read_signal(struct json value, struct arena *arena, int *ret_number)
{
    int64_t number = SIGTERM;
    struct bytes name = {NULL, 0};
    if (json_is_unset(value) || json_int64(value, &number)) {
        *ret_number = (int)number;
        return number > 0 && number <= LAST_SIGNAL;
    }
    if (!json_text(value, arena, &name)) {
        return false;
    }
    name = bytes_starts_with(name, BYTES("SIG")) ? bytes_skip(name, 3) : name;
    for (int candidate = 1; candidate <= LAST_SIGNAL; candidate++) {
        const char *own = sigabbrev_np(candidate);
        if (own && bytes_equal_text(name, own)) {
            *ret_number = candidate;
            return true;
        }
    }
    return false;
}

static void append_name(struct buffer *list, const char *separator, struct bytes name)
{
    (void)buffer_append_text(list, list->length > 0 ? separator : "");
    (void)buffer_append(list, name);
}

/* What became of a revoke, over all of its ids. */
struct revoking {
    struct remote_control *control;
    bool terminate;
    int signal_number;   /* 0: they are not terminated */
    struct buffer ids;   /* "a, b" */
    struct buffer set;   /* "'a', 'b'", as Python shows a set */
    struct buffer found; /* those that were here, "a, b" */
};

static void remember(const struct revoking *revoking, struct bytes id, double now_wall_s)
{
    const struct remote_control_options *options = &revoking->control->options;
    struct broker *broker = revoking->control->broker;
    struct broker_revoked entry = {
        .namespace_name = bytes_from_text(options->namespace_name),
        .task_id = id,
        .terminate = revoking->terminate,
        .since_wall_s = now_wall_s,
    };
    broker->ops->revoked_add(broker, &entry, options->revoke_expires_s, options->revokes_max);
}

static void revoke_one(struct revoking *revoking, struct bytes id)
{
    const struct remote_control_options *options = &revoking->control->options;
    double now_wall_s = loop_wall_s(options->loop);
    struct buffer quoted;
    buffer_init(&quoted, MAX_REPR_BYTES);
    python_repr_append_text(&quoted, id);
    append_name(&revoking->ids, ", ", id);
    append_name(&revoking->set, ", ", buffer_view(&quoted));
    buffer_fini(&quoted);
    remember(revoking, id, now_wall_s);
    if (pipeline_revoke(options->pipeline, id, revoking->signal_number, now_wall_s)
        && revoking->terminate) {
        append_name(&revoking->found, ", ", id);
        log_write(LOG_INFO, "Terminating %.*s (%d)", BYTES_FORMAT(id), revoking->signal_number);
    }
}

static void revoke_all(struct revoking *revoking, struct json ids, struct arena *arena)
{
    struct bytes id = {NULL, 0};
    if (json_text(ids, arena, &id)) {
        revoke_one(revoking, id);
        return;
    }
    struct json_walk walk = json_walk(ids);
    struct json element;
    while (json_next_element(&walk, &element)) {
        if (json_text(element, arena, &id)) {
            revoke_one(revoking, id);
        }
    }
}

static const char *tell_flagged(const struct revoking *revoking, struct arena *arena)
{
    struct bytes set = buffer_view(&revoking->set);
    log_write(LOG_INFO, "Tasks flagged as revoked: %.*s",
              BYTES_FORMAT(buffer_view(&revoking->ids)));
    return set.length > 0
               ? arena_format(arena, "tasks {%.*s} flagged as revoked", BYTES_FORMAT(set))
               : "tasks set() flagged as revoked";
}

static const char *tell_terminated(const struct revoking *revoking, struct arena *arena)
{
    struct bytes found = buffer_view(&revoking->found);
    return found.length > 0 ? arena_format(arena, "terminate: %.*s", BYTES_FORMAT(found))
                            : "terminate: tasks unknown";
}

static void answer_revoke(const struct revoking *revoking, struct arena *arena,
                          struct buffer *value)
{
    const char *text =
        revoking->terminate ? tell_terminated(revoking, arena) : tell_flagged(revoking, arena);
    append_answer(value, "ok", bytes_from_text(text));
}

/* celery/worker/control.py: revoke, _revoke */
static void revoke_tasks(struct remote_control *control, const struct control_message *message,
                         struct arena *arena, struct buffer *value)
{
    struct json ids = json_get(message->arguments, "task_id");
    struct revoking revoking = {
        .control = control,
        .terminate = json_get(message->arguments, "terminate").type == JSON_TYPE_TRUE,
    };
    struct json signal_name = json_get(message->arguments, "signal");
    if (ids.type != JSON_TYPE_STRING && ids.type != JSON_TYPE_ARRAY) {
        append_answer(value, "error",
                      BYTES("TypeError(\"revoke() missing 1 required positional argument: "
                            "'task_id'\")"));
        return;
    }
    if (revoking.terminate && !read_signal(signal_name, arena, &revoking.signal_number)) {
        append_answer(value, "error", BYTES("ValueError('signal is not the name of a signal')"));
        return;
    }
    buffer_init(&revoking.ids, MAX_REPLY_BYTES);
    buffer_init(&revoking.set, MAX_REPLY_BYTES);
    buffer_init(&revoking.found, MAX_REPLY_BYTES);
    revoke_all(&revoking, ids, arena);
    answer_revoke(&revoking, arena, value);
    buffer_fini(&revoking.ids);
    buffer_fini(&revoking.set);
    buffer_fini(&revoking.found);
}

/* What a worker says to a command that it does not have (kombu/pidbox.py: Node.dispatch). */
static void answer_unknown(struct remote_control *control, const struct control_message *message,
                           struct arena *arena, struct buffer *value)
{
    struct buffer text;
    (void)control;
    (void)arena;
    buffer_init(&text, MAX_REPR_BYTES);
    (void)buffer_append_text(&text, "KeyError(");
    python_repr_append_text(&text, message->method);
    (void)buffer_append_byte(&text, ')');
    append_answer(value, "error", buffer_view(&text));
    buffer_fini(&text);
}

static const struct command {
    const char *name;
    command_fn *run;
} commands[] = {
    {"ping", answer_ping},
    {"revoke", revoke_tasks},
};

static command_fn *find_command(struct bytes name)
{
    for (size_t index = 0; index < ARRAY_LENGTH(commands); index++) {
        if (bytes_equal_text(name, commands[index].name)) {
            return commands[index].run;
        }
    }
    return answer_unknown;
}

void remote_control_receive(struct remote_control *control, const struct delivery *delivery)
{
    struct control_message message;
    struct error error = {0};
    if (!control->broker) {
        return;
    }
    if (!control_message_read(delivery, &message, &error)) {
        log_write(LOG_WARNING, "a message of remote control cannot be read: %s", error.message);
        return;
    }
    control->clock = (message.clock > control->clock ? message.clock : control->clock) + 1;
    if (!control_message_is_for(&message, control->options.node_name)) {
        return;
    }
    struct buffer value;
    buffer_init(&value, MAX_REPLY_BYTES);
    find_command(message.method)(control, &message, delivery->arena, &value);
    if (message.reply_to.length > 0 && message.reply_key.length > 0) {
        send_answer(control, &message, buffer_view(&value));
    }
    buffer_fini(&value);
}

/* What was revoked before */

static void on_revoked(void *context, const struct broker_revoked *revoked,
                       const struct error *error)
{
    struct remote_control *control = context;
    if (error && error->kind == ERROR_TEMPORARY) {
        return; /* the connection was lost: asked again when it is back */
    }
    if (error) {
        log_write(LOG_WARNING, "what was revoked before cannot be read: %s", error->message);
    }
    if (revoked->task_id.length > 0) {
        (void)pipeline_revoke(control->options.pipeline, revoked->task_id,
                              revoked->terminate ? SIGTERM : 0, revoked->since_wall_s);
    } else {
        control->options.on_loaded(control->options.context);
    }
}

void remote_control_load(struct remote_control *control)
{
    double since_wall_s = loop_wall_s(control->options.loop) - control->options.revoke_expires_s;
    control->broker->ops->revoked_list(control->broker,
                                       bytes_from_text(control->options.namespace_name),
                                       since_wall_s, on_revoked, control);
}

/* Life cycle */

struct remote_control *remote_control_new(const struct remote_control_options *options)
{
    struct remote_control *control = memory_new(sizeof(*control));
    control->options = *options;
    return control;
}

void remote_control_free(struct remote_control **control)
{
    memory_free(control);
}

void remote_control_set_broker(struct remote_control *control, struct broker *broker)
{
    control->broker = broker;
}
