#include "replay/player.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/map.h"

#define MAX_TRACE_BYTES 1024

struct trace_line {
    struct list_node node;
    char *text;
};

void world_fail(const struct world *world, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "%s:%zu: ", world->scenario, world->line_number);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    list_for_each(node, following, &world->trace) {
        (void)fprintf(stderr, "    not told: %s\n",
                      list_entry(node, struct trace_line, node)->text);
    }
    exit(1);
}

void world_trace(struct world *world, const char *format, ...)
{
    char text[MAX_TRACE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    struct trace_line *line = arena_alloc(world->arena, sizeof(*line));
    line->text = arena_text(world->arena, bytes_from_text(text));
    list_append(&world->trace, &line->node);
}

void world_expect(struct world *world, const char *expected)
{
    struct list_node *node = list_first(&world->trace);
    if (strcmp(expected, "nothing") == 0) {
        if (node) {
            world_fail(world, "something happened");
        }
        return;
    }
    if (!node) {
        world_fail(world, "nothing happened, but \"%s\" was expected", expected);
    }
    if (strcmp(list_entry(node, struct trace_line, node)->text, expected) != 0) {
        world_fail(world, "\"%s\" was expected", expected);
    }
    list_remove(node);
}

void world_settle_down(struct world *world)
{
    loop_advance(world->loop, 0);
}

int64_t world_duration_ms(struct world *world, const char *text)
{
    char *unit = NULL;
    double number = strtod(text, &unit);
    double scale = strcmp(unit, "ms") == 0  ? 1
                   : strcmp(unit, "s") == 0 ? 1000
                   : strcmp(unit, "m") == 0 ? 60000
                   : strcmp(unit, "h") == 0 ? 3600000
                                            : 0;
    if (scale <= 0) {
        world_fail(world, "\"%s\" is no duration such as 5s or 200ms", text);
    }
    return (int64_t)(number * scale);
}

const char *world_option(char *const *words, const char *key)
{
    size_t length = strlen(key);
    for (; *words; words++) {
        if (strncmp(*words, key, length) == 0 && (*words)[length] == '=') {
            return *words + length + 1;
        }
    }
    return NULL;
}

/* Answers */

static void give_answer(void *context)
{
    struct player_answer *answer = context;
    struct player_end *end = answer->on_stored || answer->on_state ? &answer->world->backend_end
                                                                   : &answer->world->broker_end;
    struct error error = end->failure;
    answer->give(answer, error.kind == ERROR_NONE ? NULL : &error);
}

struct player_answer *world_owe(struct world *world, struct player_end *end)
{
    struct player_answer *answer = arena_alloc(world->arena, sizeof(*answer));
    answer->world = world;
    answer->call.function = give_answer;
    answer->call.context = answer;
    list_append(&end->owed, &answer->node);
    if (end->answers == PLAYER_ANSWERS_AT_ONCE) {
        world_release(world, end);
    }
    return answer;
}

void world_release(struct world *world, struct player_end *end)
{
    struct list_node *node = NULL;
    while ((node = list_pop(&end->owed)) != NULL) {
        loop_defer(world->loop, &list_entry(node, struct player_answer, node)->call);
    }
}

/* The world */

static void on_idle(void *context)
{
    struct world *world = context;
    struct list_node *last = world->trace.head.previous;
    bool is_told = last != &world->trace.head
                   && strcmp(list_entry(last, struct trace_line, node)->text, "idle") == 0;
    if (!is_told) {
        world_trace(world, "idle");
    }
}

static void on_executor_ready(void *context, struct executor *executor)
{
    world_trace(context, "ready %s", executor->ops->name);
}

static const char *const accept_json[] = {"json", NULL};

void world_init(struct world *world, const char *scenario)
{
    struct metrics_options metrics = {.hostname = "replay", .tenant = "tenant-user"};
    struct error error = {0};
    *world = (struct world){.scenario = scenario, .lease_is_held = true, .has_backend = true};
    world->arena = arena_new(65536);
    world->loop = loop_new(LOOP_CLOCK_VIRTUAL);
    world->registry = registry_new();
    world->metrics = metrics_new(&metrics);
    world->states = map_new();
    world->sent = map_new();
    world->revoked = revoked_new(0, 0);
    list_init(&world->trace);
    list_init(&world->unsettled);
    list_init(&world->broker_end.owed);
    list_init(&world->backend_end.owed);
    if (!log_open(NULL, LOG_CRITICAL, LOG_FORM_TEXT, false, &error)
        || !timezone_load("UTC", 0, &world->utc, &error)) {
        world_fail(world, "%s", error.message);
    }
    static const char *const queues[] = {"tenant-user", NULL};
    static const char *const others[] = {"allowed-*", NULL};
    world->options = (struct pipeline_options){
        .loop = world->loop,
        .registry = world->registry,
        .metrics = world->metrics,
        .rules = {"tenant-user", "kwargs.tenant", "petiole_tenant", NULL},
        .revoked = world->revoked,
        .message_rules = {accept_json, (size_t)1 << 20},
        .document = {.node_name = "celery@replay", .timezone = &world->utc},
        .result_expires_s = 86400,
        .lookahead = 2,
        .max_reports = 100,
        .namespace_name = "tenant-user",
        .queues = queues,
        .publish_queues = others,
        .on_idle = on_idle,
        .on_executor_ready = on_executor_ready,
        .context = world,
    };
}

void world_start(struct world *world, bool waits)
{
    world->pipeline = pipeline_new(&world->options);
    player_broker_init(world);
    player_result_init(world);
    pipeline_set_broker(world->pipeline, &world->broker);
    pipeline_set_backend(world->pipeline, world->has_backend ? &world->backend : NULL);
    for (int which = 0; which < TASK_EXECUTOR_COUNT; which++) {
        if (world->executors[which].base.ops) {
            pipeline_set_executor(world->pipeline, (enum task_executor)which,
                                  &world->executors[which].base);
        }
    }
    if (!waits) {
        pipeline_accept(world->pipeline);
    }
    world_settle_down(world);
}

void world_fini(struct world *world)
{
    world_expect(world, "nothing");
    if (!pipeline_is_idle(world->pipeline)) {
        world_fail(world, "the scenario ends with something under way");
    }
    struct list_node *node = list_first(&world->unsettled);
    if (node) {
        const struct delivery *delivery = list_entry(node, struct delivery, node);
        world_fail(world, "%.*s was never settled", BYTES_FORMAT(delivery->tag));
    }
    if (!list_is_empty(&world->broker_end.owed) || !list_is_empty(&world->backend_end.owed)) {
        world_fail(world, "the scenario ends with answers held back");
    }
    pipeline_free(&world->pipeline);
    revoked_free(&world->revoked);
    map_free(&world->states);
    map_free(&world->sent);
    metrics_free(&world->metrics);
    registry_free(&world->registry);
    loop_free(&world->loop);
    arena_free(&world->arena);
}
