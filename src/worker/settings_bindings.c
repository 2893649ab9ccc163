#include "worker/settings_bindings.h"

#include "worker/settings_value.h"

#define DIRECT_TAIL ".dq2" /* celery/utils/nodenames.py: WORKER_DIRECT_QUEUE_FORMAT */

/* Elements of task_queues */

const char *settings_bindings_name(struct yaml_entry element)
{
    const struct yaml *name = yaml_get(element.value, "name");
    if (!name) {
        name = element.key ? element.key : element.value;
    }
    return name->type == YAML_SCALAR && name->text.length > 0 ? name->text.data : NULL;
}

/* The text of a member; NULL when it is missing, null or empty. */
static const char *text_of(const struct yaml *options, const char *key)
{
    const struct yaml *node = yaml_get(options, key);
    bool is_text = !yaml_is_null(node) && node->type == YAML_SCALAR && node->text.length > 0;
    return is_text ? node->text.data : NULL;
}

static bool is_called(struct yaml_entry element, const char *name)
{
    const char *own = settings_bindings_name(element);
    return own && strcmp(own, name) == 0;
}

/* The element of task_queues that is called `name`; NULL: there is none. */
static const struct yaml_entry *find(const struct settings *settings, const char *name)
{
    const struct yaml *queues = settings->task_queues;
    for (size_t index = 0; queues && index < queues->count; index++) {
        if (is_called(queues->entries[index], name)) {
            return &queues->entries[index];
        }
    }
    return NULL;
}

const char *settings_bindings_resolve(const struct settings *settings, const char *name)
{
    const struct yaml *queues = settings->task_queues;
    for (size_t index = 0; queues && index < queues->count; index++) {
        const char *alias = text_of(queues->entries[index].value, "alias");
        if (alias && strcmp(alias, name) == 0) {
            return settings_bindings_name(queues->entries[index]);
        }
    }
    return name;
}

/* Checking */

static bool check_texts(const struct settings *settings, const struct yaml *options,
                        struct error *reterr)
{
    static const char *const keys[] = {"exchange",    "exchange_type", "routing_key",
                                       "binding_key", "alias",         NULL};
    for (const char *const *key = keys; *key; key++) {
        const struct yaml *node = yaml_get(options, *key);
        if (node && node->type != YAML_SCALAR) {
            return settings_value_fail(settings, SETTING_ID_task_queues, node, reterr,
                                       "%s: a text is allowed, not %s", *key, yaml_type_name(node));
        }
    }
    return true;
}

static bool check_bindings(const struct settings *settings, const struct yaml *bindings,
                           struct error *reterr)
{
    if (yaml_is_null(bindings)) {
        return true;
    }
    if (bindings->type != YAML_SEQUENCE) {
        return settings_value_fail(settings, SETTING_ID_task_queues, bindings, reterr,
                                   "bindings: a list is allowed, not %s", yaml_type_name(bindings));
    }
    for (size_t index = 0; index < bindings->count; index++) {
        const struct yaml *binding = bindings->entries[index].value;
        if (binding->type != YAML_MAPPING) {
            return settings_value_fail(settings, SETTING_ID_task_queues, binding, reterr,
                                       "bindings: a mapping is allowed, not %s",
                                       yaml_type_name(binding));
        }
        if (!check_texts(settings, binding, reterr)) {
            return false;
        }
    }
    return true;
}

bool settings_bindings_check(const struct settings *settings, struct error *reterr)
{
    const struct yaml *queues = settings->task_queues;
    for (size_t index = 0; queues && index < queues->count; index++) {
        const struct yaml *options = queues->entries[index].value;
        if (!check_texts(settings, options, reterr)
            || !check_bindings(settings, yaml_get(options, "bindings"), reterr)) {
            return false;
        }
    }
    return true;
}

/* Declarations */

static const char *or_else(const char *text, const char *otherwise)
{
    return text && text[0] ? text : otherwise;
}

static const char *default_queue(const struct settings *settings)
{
    return or_else(settings->task_default_queue, "celery");
}

/* A queue without options: exchange and key are the default ones. */
static struct settings_bindings_queue declare_default(const struct settings *settings,
                                                      const char *name)
{
    return (struct settings_bindings_queue){
        .name = name,
        .exchange = or_else(settings->task_default_exchange, default_queue(settings)),
        .exchange_type = or_else(settings->task_default_exchange_type, "direct"),
        .routing_key = or_else(settings->task_default_routing_key, default_queue(settings)),
    };
}

/* One that nobody declares, and the queue of this worker alone. */
static struct settings_bindings_queue declare_missing(const struct settings *settings,
                                                      const char *name)
{
    const char *type = or_else(settings->task_create_missing_queue_exchange_type, "direct");
    size_t length = strlen(name);
    size_t tail = sizeof(DIRECT_TAIL) - 1;
    if (settings->worker_direct && length > tail
        && strcmp(name + length - tail, DIRECT_TAIL) == 0) {
        struct bytes node_name = bytes_of(name, length - tail);
        return (struct settings_bindings_queue){name, "C.dq2", "direct",
                                                arena_text(settings->arena, node_name)};
    }
    return (struct settings_bindings_queue){name, name, type, name};
}

/* `element` of task_queues; NULL: it has none. */
static struct settings_bindings_queue declare(const struct settings *settings,
                                              const struct yaml_entry *element, const char *name)
{
    bool has_queues = settings->task_queues && settings->task_queues->count > 0;
    bool is_bare = element && !element->key && element->value->type != YAML_MAPPING;
    if (is_bare || (!element && (has_queues || strcmp(name, default_queue(settings)) != 0))) {
        return declare_missing(settings, name);
    }
    struct settings_bindings_queue queue = declare_default(settings, name);
    if (!element) {
        return queue;
    }
    const struct yaml *options = element->value;
    const char *exchange = text_of(options, "exchange");
    const char *key = text_of(options, "routing_key");
    if (element->key && !yaml_get(options, "name")) {
        queue.routing_key = or_else(text_of(options, "binding_key"), name);
    }
    queue.routing_key = or_else(key, queue.routing_key);
    if (exchange) {
        queue.exchange = exchange;
        queue.exchange_type = or_else(text_of(options, "exchange_type"), "direct");
    }
    return queue;
}

struct settings_bindings_queue settings_bindings_of(const struct settings *settings,
                                                    const char *name)
{
    return declare(settings, find(settings, name), name);
}

/* Bindings */

static bool is_type(const char *type, const char *wanted)
{
    return strcmp(type, wanted) == 0;
}

/* What Kombu's virtual transports have (kombu/transport/virtual/exchange.py). */
static bool is_known_type(const char *type)
{
    return is_type(type, "direct") || is_type(type, "topic") || is_type(type, "fanout");
}

static void note_queue(struct settings *settings, const struct settings_bindings_queue *queue)
{
    if (is_type(queue->exchange_type, "fanout")) {
        settings_value_note(settings, LOG_WARNING,
                            "Queue %.128s has the fanout exchange %.128s: broadcasts to it do not "
                            "reach this worker, only messages that name the queue itself do.",
                            queue->name, queue->exchange);
    } else if (!is_known_type(queue->exchange_type)) {
        settings_value_note(settings, LOG_WARNING,
                            "Queue %.128s is not bound to exchange %.128s: its type %.64s is none "
                            "of direct, topic and fanout. Messages must name the queue itself.",
                            queue->name, queue->exchange, queue->exchange_type);
    }
}

static bool is_true(const struct yaml *options, const char *key)
{
    const struct yaml *node = yaml_get(options, key);
    bool value = false;
    return node && settings_value_bool(node, &value) && value;
}

/* A queue and what it is bound to. */
struct bound_queue {
    struct settings_bindings_queue own;
    const struct yaml *options;  /* NULL: task_queues does not have it */
    const struct yaml *bindings; /* its list; NULL: its own exchange is the only one */
    size_t count;                /* of what it is bound to */
};

static struct bound_queue read_queue(const struct settings *settings, const char *name)
{
    const struct yaml_entry *element = find(settings, name);
    struct bound_queue queue = {.own = declare(settings, element, name), .count = 1};
    queue.options = element ? element->value : NULL;
    const struct yaml *bindings = yaml_get(queue.options, "bindings");
    if (bindings && bindings->type == YAML_SEQUENCE && bindings->count > 0) {
        queue.bindings = bindings;
        queue.count = bindings->count;
    }
    return queue;
}

/* The queue as number `index` of what it is bound to declares it. */
static struct settings_bindings_queue at(const struct bound_queue *queue, size_t index)
{
    if (!queue->bindings) {
        return queue->own;
    }
    const struct yaml *binding = queue->bindings->entries[index].value;
    return (struct settings_bindings_queue){queue->own.name,
                                            or_else(text_of(binding, "exchange"), ""),
                                            or_else(text_of(binding, "exchange_type"), "direct"),
                                            or_else(text_of(binding, "routing_key"), "")};
}

/* Whether it stays unbound: by its own wish, or as a queue of kombu.common.Broadcast. That one has a
 * new name at each start, which nobody would take out of the table again. */
static bool is_unbound(const struct bound_queue *queue)
{
    return is_true(queue->options, "no_declare")
           || (is_true(queue->options, "auto_delete")
               && is_type(queue->own.exchange_type, "fanout"));
}

void settings_bindings_note(struct settings *settings)
{
    for (size_t index = 0; index < settings->queue_count; index++) {
        const struct bound_queue bound = read_queue(settings, settings->queues[index]);
        for (size_t each = 0; each < bound.count; each++) {
            const struct settings_bindings_queue queue = at(&bound, each);
            note_queue(settings, &queue);
        }
    }
}

static size_t count_most(const struct settings *settings)
{
    size_t count = 0;
    for (size_t index = 0; index < settings->queue_count; index++) {
        count += read_queue(settings, settings->queues[index]).count;
    }
    return count;
}

const struct broker_redis_binding *settings_bindings_all(const struct settings *settings,
                                                         size_t *ret_count)
{
    struct broker_redis_binding *items =
        arena_alloc(settings->arena, (count_most(settings) + 1) * sizeof(*items));
    *ret_count = 0;
    for (size_t index = 0; index < settings->queue_count; index++) {
        const struct bound_queue bound = read_queue(settings, settings->queues[index]);
        for (size_t each = 0; each < bound.count && !is_unbound(&bound); each++) {
            const struct settings_bindings_queue queue = at(&bound, each);
            if (queue.exchange[0] && is_known_type(queue.exchange_type)) {
                items[(*ret_count)++] =
                    (struct broker_redis_binding){queue.name, queue.exchange, queue.routing_key,
                                                  is_type(queue.exchange_type, "topic")};
            }
        }
    }
    return items;
}
