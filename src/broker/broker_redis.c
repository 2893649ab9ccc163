#include "broker/broker_redis_private.h"

#include <stdarg.h>
#include <stdio.h>

#define RETRY_FIRST_MS      500
#define RETRY_MAXIMUM_MS    10000
#define LEAST_RESTORE_MS    500
#define LEAST_VERSION_MAJOR 6
#define LEAST_VERSION_MINOR 2
#define MAX_BATCH           ((size_t)2000) /* Lua hands at most 8000 values to a command */
#define HIGHEST_PRIORITY    9
#define CHANGES_CHANNEL     "__redis__:invalidate"
#define MAX_NAME            128

static const int default_steps[] = {0, 3, 6, 9};

/* Shared by the parts */

void broker_redis_notice(struct broker_redis *broker, int level, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    broker->events.on_notice(broker->context, level, text);
}

static bool is_one_of(struct bytes text, const char *const *words)
{
    for (; *words; words++) {
        if (bytes_starts_with(text, bytes_from_text(*words))) {
            return true;
        }
    }
    return false;
}

/* The first error in `reply`, also inside an EXEC, or NULL. */
static const redisReply *find_error(const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        return reply;
    }
    for (size_t index = 0; reply->type == REDIS_REPLY_ARRAY && index < reply->elements; index++) {
        if (reply->element[index]->type == REDIS_REPLY_ERROR) {
            return reply->element[index];
        }
    }
    return NULL;
}

static void drop_connection(struct broker_redis *broker, const redisReply *reply)
{
    struct error error;
    (void)error_set(&error, ERROR_TEMPORARY, "%.*s", BYTES_FORMAT(redis_link_text(reply)));
    redis_link_drop(broker->commands, &error);
}

/* What was refused last works again. */
static void end_trouble(struct broker_redis *broker, const char *what)
{
    if (broker->trouble[0] != '\0' && strcmp(broker->trouble_purpose, what) == 0) {
        broker->trouble[0] = '\0';
        broker->retry_attempt = 0;
    }
}

enum broker_redis_verdict broker_redis_judge(struct broker_redis *broker, const redisReply *reply,
                                             const char *what)
{
    /* A server in another role or state than the one that greeted us; what it says passes; what
     * a look at its scripts mends. */
    static const char *const useless[] = {"LOADING", "READONLY", "MASTERDOWN", NULL};
    static const char *const passing[] = {"OOM",      "BUSY",      "MISCONF",   "NOREPLICAS",
                                          "TRYAGAIN", "EXECABORT", "UNBLOCKED", NULL};
    if (!reply) {
        return BROKER_REDIS_LOST;
    }
    const redisReply *error = find_error(reply);
    if (!error) {
        end_trouble(broker, what);
        return BROKER_REDIS_OK;
    }
    struct bytes text = redis_link_text(error);
    if (is_one_of(text, useless)) {
        drop_connection(broker, error);
        return BROKER_REDIS_AGAIN;
    }
    char trouble[sizeof(broker->trouble)];
    (void)snprintf(trouble, sizeof(trouble), "Redis refuses %s: %s", what, error->str);
    if (strcmp(trouble, broker->trouble) != 0) {
        memcpy(broker->trouble, trouble, sizeof(trouble));
        broker->trouble_purpose = what;
        broker_redis_notice(broker, LOG_ERROR, "%s", trouble);
    }
    if (!is_one_of(text, passing)) {
        return BROKER_REDIS_REFUSED;
    }
    broker_redis_retry_later(broker);
    return BROKER_REDIS_AGAIN;
}

bool broker_redis_may_send(const struct broker_redis *broker)
{
    return broker->is_usable && !broker->is_finishing && !timer_is_armed(&broker->retry);
}

void broker_redis_retry_later(struct broker_redis *broker)
{
    if (!timer_is_armed(&broker->retry) && !broker->is_finishing) {
        int64_t delay_ms = loop_backoff_ms(broker->loop, RETRY_FIRST_MS, broker->retry_attempt++,
                                           RETRY_MAXIMUM_MS);
        loop_start_timer(broker->loop, &broker->retry, delay_ms);
    }
}

static void on_retry(void *context)
{
    struct broker_redis *broker = context;
    broker_redis_settle_up(broker);
    broker_redis_send_up(broker);
    broker_redis_declare_retry(broker);
    broker_redis_consume_poke(broker);
}

struct bytes broker_redis_key(const struct broker_redis *broker, struct arena *arena,
                              const char *middle, struct bytes name)
{
    const char *text = arena_format(arena, "%s%s%.*s", broker->options.global_keyprefix, middle,
                                    BYTES_FORMAT(name));
    return bytes_from_text(text);
}

int broker_redis_step(const int *steps, size_t count, int64_t priority)
{
    int64_t clamped = priority < 0 ? 0 : priority > HIGHEST_PRIORITY ? HIGHEST_PRIORITY : priority;
    size_t above = 0;
    while (above < count && steps[above] <= clamped) {
        above++;
    }
    /* Python's steps[-1] is the last one. */
    return steps[above > 0 ? above - 1 : count - 1];
}

static struct bytes step_key(const struct broker_redis *broker, struct arena *arena,
                             struct bytes queue, int step)
{
    const char *prefix = broker->options.global_keyprefix;
    const char *key = step == 0 ? arena_format(arena, "%s%.*s", prefix, BYTES_FORMAT(queue))
                                : arena_format(arena, "%s%.*s%.*s%d", prefix, BYTES_FORMAT(queue),
                                               BYTES_FORMAT(broker->separator), step);
    return bytes_from_text(key);
}

struct bytes broker_redis_list(const struct broker_redis *broker, struct arena *arena,
                               struct bytes queue, int64_t priority)
{
    int step = broker_redis_step(broker->options.priority_steps,
                                 broker->options.priority_step_count, priority);
    return step_key(broker, arena, queue, step);
}

void broker_redis_tag_argument(struct broker_redis *broker, uint64_t number)
{
    char tag[BROKER_REDIS_MAX_TAG];
    int length = snprintf(tag, sizeof(tag), "%.*s%llu", BYTES_FORMAT(broker->tag_head),
                          (unsigned long long)number);
    redis_link_argument(broker->commands, bytes_of(tag, (size_t)length));
}

void broker_redis_score_argument(struct broker_redis *broker, double wall_s)
{
    char score[40];
    int length = snprintf(score, sizeof(score), "%.6f", wall_s);
    redis_link_argument(broker->commands, bytes_of(score, (size_t)length));
}

void broker_redis_forget(struct broker_redis *broker, struct broker_redis_delivery *delivery)
{
    list_remove(&delivery->base.node);
    delivery->base.is_settled = true;
    broker->unsettled_count--;
}

/* Connections */

static void become_usable(struct broker_redis *broker)
{
    broker->is_usable = true;
    broker_redis_script_forget(broker->scripts);
    broker_redis_settle_up(broker);
    broker_redis_send_up(broker);
    broker_redis_lease_up(broker);
    if (!broker->is_closing) {
        broker_redis_declare_up(broker);
        broker_redis_restore_up(broker);
    }
    broker_redis_consume_up(broker);
    broker->events.on_up(broker->context, broker->options.url.display);
}

/* The value of `name` in the reply of HELLO, which is a map as a flat list. */
static struct bytes hello_value(const redisReply *reply, const char *name)
{
    for (size_t index = 0; reply->type == REDIS_REPLY_ARRAY && index + 1 < reply->elements;
         index += 2) {
        if (bytes_equal_text(redis_link_text(reply->element[index]), name)) {
            return redis_link_text(reply->element[index + 1]);
        }
    }
    return (struct bytes){NULL, 0};
}

static bool is_new_enough(struct bytes version)
{
    char text[16];
    (void)snprintf(text, sizeof(text), "%.*s", BYTES_FORMAT(version));
    char *end = NULL;
    long major = strtol(text, &end, 10);
    long minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return major > LEAST_VERSION_MAJOR
           || (major == LEAST_VERSION_MAJOR && minor >= LEAST_VERSION_MINOR);
}

/* HELLO without arguments exists since 6.2. A user who may not say it is let through: the
 * commands will tell. */
static void on_hello(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    struct error error;
    if (!reply) {
        return;
    }
    struct bytes version = hello_value(reply, "version");
    bool is_forbidden = reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "NOPERM", 6) == 0;
    if (!is_forbidden && !is_new_enough(version)) {
        bool is_known = version.length > 0;
        (void)error_set(&error, ERROR_UNSUPPORTED,
                        "%s: Redis 6.2 or newer, or Valkey, is needed, this is %s%.*s",
                        broker->options.url.display, is_known ? "" : "an older one",
                        BYTES_FORMAT(version));
        redis_link_drop(broker->commands, &error);
        return;
    }
    if (!bytes_equal_text(hello_value(reply, "role"), "replica")) {
        become_usable(broker);
        return;
    }
    (void)error_set(&error, ERROR_TEMPORARY, "%s: this is a replica, which takes no commands",
                    broker->options.url.display);
    redis_link_drop(broker->commands, &error);
}

static void on_commands_up(void *context)
{
    struct broker_redis *broker = context;
    struct bytes hello = BYTES("HELLO");
    redis_link_command(broker->commands, &hello, 1, on_hello, broker);
}

static void on_commands_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct broker_redis *broker = context;
    broker->is_usable = false;
    loop_stop_timer(broker->loop, &broker->retry);
    broker_redis_consume_down(broker);
    if (!broker->is_finishing) {
        broker->events.on_down(broker->context, error, retry_ms);
    }
}

static void on_subscribed(void *context, const redisReply *reply)
{
    struct broker_redis *broker = context;
    broker->is_subscribed = reply && reply->type == REDIS_REPLY_ARRAY;
    if (reply) {
        broker_redis_consume_track(broker);
    }
}

static void on_changes_up(void *context)
{
    struct broker_redis *broker = context;
    struct bytes subscribe[] = {BYTES("SUBSCRIBE"), BYTES(CHANGES_CHANNEL)};
    redis_link_command(broker->changes, subscribe, ARRAY_LENGTH(subscribe), on_subscribed, broker);
    broker_redis_pidbox_up(broker);
}

/* The other connection fails for the same reasons, and tells. */
static void on_changes_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct broker_redis *broker = context;
    (void)error;
    (void)retry_ms;
    broker->is_subscribed = false;
    broker_redis_consume_untrack(broker);
}

static void on_changes_push(void *context, const redisReply *message)
{
    if (!broker_redis_pidbox_take(context, message)) {
        broker_redis_consume_on_change(context, message);
    }
}

static void start(struct broker *base)
{
    static const struct redis_link_events commands_events = {on_commands_up, on_commands_down,
                                                             NULL};
    static const struct redis_link_events changes_events = {on_changes_up, on_changes_down,
                                                            on_changes_push};
    struct broker_redis *broker = broker_redis_of(base);
    char name[MAX_NAME];
    (void)snprintf(name, sizeof(name), "petiole-%s", broker->options.instance_id);
    broker->commands =
        redis_link_open(broker->loop, &broker->options.url, name, &commands_events, broker);
    (void)snprintf(name, sizeof(name), "petiole-%s-changes", broker->options.instance_id);
    broker->changes =
        redis_link_open(broker->loop, &broker->options.url, name, &changes_events, broker);
}

/* The interface */

static void set_free_places(struct broker *base, size_t count)
{
    broker_redis_consume_set_places(broker_redis_of(base), count);
}

static void settle(struct broker *base, struct delivery *delivery, enum settlement settlement,
                   const struct broker_outbox_entry *entry, broker_done_fn *on_done, void *context)
{
    struct broker_redis *broker = broker_redis_of(base);
    struct broker_redis_delivery *own = (struct broker_redis_delivery *)(void *)delivery;
    if (delivery->is_settled) {
        return; /* given back when the broker began to close */
    }
    broker_redis_forget(broker, own);
    if (settlement == SETTLEMENT_REQUEUE) {
        broker_redis_send_back(broker, own, on_done, context);
    } else {
        broker_redis_settle_own(broker, own->number, entry, on_done, context);
    }
}

static int64_t queue_length(const struct broker *base, struct bytes name)
{
    const struct broker_redis *broker = (const struct broker_redis *)(const void *)base;
    for (size_t index = 0; index < broker->options.queue_count; index++) {
        if (bytes_equal(broker->queues[index].name, name)) {
            return broker->queues[index].length;
        }
    }
    return -1;
}

static bool is_up(const struct broker *base)
{
    const struct broker_redis *broker = (const struct broker_redis *)(const void *)base;
    return broker->is_usable;
}

/* Closing */

static void on_freed(void *context)
{
    struct broker_redis *broker = context;
    void (*on_closed)(void *) = broker->on_closed;
    void *closed_context = broker->closed_context;
    arena_free(&broker->texts);
    memory_free(&broker);
    on_closed(closed_context);
}

/* Everything that still waits is told that it will not be done. */
static void finish(void *context)
{
    struct broker_redis *broker = context;
    broker->is_finishing = true;
    broker->is_usable = false;
    loop_stop_timer(broker->loop, &broker->close_deadline);
    loop_stop_timer(broker->loop, &broker->retry);
    loop_cancel(broker->loop, &broker->close_check);
    broker_redis_lease_stop(broker);
    redis_link_close(&broker->commands);
    redis_link_close(&broker->changes);
    broker_redis_settle_finish(broker);
    broker_redis_send_finish(broker);
    broker_redis_lease_finish(broker);
    loop_defer(broker->loop, &broker->closed);
}

static void close_if_done(void *context)
{
    struct broker_redis *broker = context;
    bool is_busy = broker_redis_settle_is_busy(broker) || broker_redis_send_is_busy(broker)
                   || broker_redis_consume_is_busy(broker);
    if (!is_busy) {
        finish(broker);
    }
}

void broker_redis_check_closed(struct broker_redis *broker)
{
    if (broker->is_closing && !broker->is_finishing) {
        loop_defer(broker->loop, &broker->close_check);
    }
}

static void close_broker(struct broker *base, int64_t deadline_ms, void (*on_closed)(void *context),
                         void *context)
{
    struct broker_redis *broker = broker_redis_of(base);
    broker->is_closing = true;
    broker->on_closed = on_closed;
    broker->closed_context = context;
    broker_redis_consume_stop(broker);
    broker_redis_restore_stop(broker);
    /* Each goes to the front of its queue: the oldest last, so that it is the first to be popped
     * again. */
    while (!list_is_empty(&broker->unsettled)) {
        struct delivery *last = list_entry(broker->unsettled.head.previous, struct delivery, node);
        struct broker_redis_delivery *own = (struct broker_redis_delivery *)(void *)last;
        broker_redis_forget(broker, own);
        broker_redis_send_back(broker, own, NULL, NULL);
    }
    loop_start_timer(broker->loop, &broker->close_deadline, deadline_ms);
    broker_redis_check_closed(broker);
}

/* Making one */

static const char *text_or(struct arena *arena, const char *text, const char *otherwise)
{
    return arena_text(arena, bytes_from_text(text ? text : otherwise));
}

static int64_t number_or(int64_t number, int64_t otherwise)
{
    return number > 0 ? number : otherwise;
}

static void fill_in_options(struct broker_redis_options *options, struct arena *texts)
{
    options->url = redis_url_copy(&options->url, texts);
    options->instance_id = text_or(texts, options->instance_id, "petiole");
    if (!options->priority_steps || options->priority_step_count == 0) {
        options->priority_steps = default_steps;
        options->priority_step_count = ARRAY_LENGTH(default_steps);
    }
    int *steps = arena_alloc(texts, options->priority_step_count * sizeof(*steps));
    memcpy(steps, options->priority_steps, options->priority_step_count * sizeof(*steps));
    options->priority_steps = steps;
    options->separator = text_or(texts, options->separator, "\x06\x16");
    options->global_keyprefix = text_or(texts, options->global_keyprefix, "");
    options->unacked_key = text_or(texts, options->unacked_key, "unacked");
    options->unacked_index_key = text_or(texts, options->unacked_index_key, "unacked_index");
    options->unacked_mutex_key = text_or(texts, options->unacked_mutex_key, "unacked_mutex");
    options->unacked_mutex_expire_ms = number_or(options->unacked_mutex_expire_ms, 300000);
    options->visibility_timeout_ms = number_or(options->visibility_timeout_ms, 3600000);
    int64_t third_ms = options->visibility_timeout_ms / 3;
    int64_t interval_ms =
        number_or(options->restore_interval_ms, third_ms < 100000 ? third_ms : 100000);
    options->restore_interval_ms = interval_ms < LEAST_RESTORE_MS ? LEAST_RESTORE_MS : interval_ms;
    options->max_batch = options->max_batch > 0 ? options->max_batch : 512;
    options->max_batch = options->max_batch < MAX_BATCH ? options->max_batch : MAX_BATCH;
    options->max_rejected = options->max_rejected > 0 ? options->max_rejected : 1000;
}

static int compare_names(const void *left, const void *right)
{
    const char *const *left_name = left;
    const char *const *right_name = right;
    return strcmp(*left_name, *right_name);
}

static void make_queue(struct broker_redis *broker, struct broker_redis_queue *queue,
                       const char *name)
{
    const struct broker_redis_options *options = &broker->options;
    struct buffer tail;
    buffer_init(&tail, SIZE_MAX);
    queue->name = arena_copy(broker->texts, bytes_from_text(name));
    broker_redis_envelope_append_tail(&tail, queue->name);
    queue->tail = arena_copy(broker->texts, buffer_view(&tail));
    buffer_fini(&tail);
    queue->rejected_key = broker_redis_key(broker, broker->texts, "petiole:rejected:", queue->name);
    queue->length = -1;
    queue->step_keys =
        arena_alloc(broker->texts, options->priority_step_count * sizeof(*queue->step_keys));
    for (size_t step = 0; step < options->priority_step_count; step++) {
        queue->step_keys[step] =
            step_key(broker, broker->texts, queue->name, options->priority_steps[step]);
    }
}

static void make_queues(struct broker_redis *broker, const char *const *queues)
{
    size_t count = broker->options.queue_count;
    const char **names = arena_alloc(broker->texts, (count + 1) * sizeof(*names));
    for (size_t index = 0; index < count; index++) {
        names[index] = queues[index];
    }
    if (broker->options.order == BROKER_REDIS_SORTED && count > 0) {
        qsort(names, count, sizeof(*names), compare_names);
    }
    broker->queues = arena_alloc(broker->texts, (count + 1) * sizeof(*broker->queues));
    for (size_t index = 0; index < count; index++) {
        make_queue(broker, &broker->queues[index], names[index]);
    }
    broker->options.queues = NULL; /* the caller's */
}

static void make_keys(struct broker_redis *broker)
{
    const struct broker_redis_options *options = &broker->options;
    struct bytes nothing = {NULL, 0};
    broker->separator = bytes_from_text(options->separator);
    broker->unacked = broker_redis_key(broker, broker->texts, options->unacked_key, nothing);
    broker->unacked_index =
        broker_redis_key(broker, broker->texts, options->unacked_index_key, nothing);
    broker->unacked_mutex =
        broker_redis_key(broker, broker->texts, options->unacked_mutex_key, nothing);
    broker->rejected_unacked =
        broker_redis_key(broker, broker->texts, "petiole:rejected:unacked", nothing);
    broker->tag_head = bytes_from_text(arena_format(broker->texts, "%.64s:", options->instance_id));
}

static const struct broker_ops redis_ops = {
    .start = start,
    .set_free_places = set_free_places,
    .settle = settle,
    .settle_tag = broker_redis_settle_tag,
    .confirm_lease = broker_redis_lease_confirm,
    .publish = broker_redis_send_publish,
    .outbox_add = broker_redis_settle_outbox_add,
    .outbox_remove = broker_redis_settle_outbox_remove,
    .outbox_list = broker_redis_settle_outbox_list,
    .revoked_add = broker_redis_pidbox_revoked_add,
    .revoked_list = broker_redis_pidbox_revoked_list,
    .queue_length = queue_length,
    .is_up = is_up,
    .close = close_broker,
};

struct broker *broker_redis_new(struct loop *loop, const struct broker_redis_options *options,
                                const struct broker_events *events, void *context)
{
    struct broker_redis *broker = memory_new(sizeof(*broker));
    broker->base.ops = &redis_ops;
    broker->loop = loop;
    broker->events = *events;
    broker->context = context;
    broker->texts = arena_new(1024);
    broker->options = *options;
    fill_in_options(&broker->options, broker->texts);
    make_keys(broker);
    make_queues(broker, options->queues);
    broker_redis_script_init(broker->scripts);
    list_init(&broker->unsettled);
    broker->retry = (struct timer){.on_due = on_retry, .context = broker};
    broker->close_deadline = (struct timer){.on_due = finish, .context = broker};
    broker->close_check = (struct loop_call){.function = close_if_done, .context = broker};
    broker->closed = (struct loop_call){.function = on_freed, .context = broker};
    broker_redis_consume_init(broker);
    broker_redis_settle_init(broker);
    broker_redis_lease_init(broker);
    broker_redis_restore_init(broker);
    broker_redis_send_init(broker);
    broker_redis_declare_init(broker);
    broker_redis_pidbox_init(broker);
    return &broker->base;
}
