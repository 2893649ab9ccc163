#include "base/map.h"
#include "replay/player.h"

static struct world *world_of(const struct result_backend *backend)
{
    return CONTAINER_OF((void *)(uintptr_t)backend, struct world, backend);
}

static void give_stored(struct player_answer *answer, const struct error *error)
{
    answer->on_stored(answer->context, !error, error);
}

static void store(struct result_backend *backend, struct bytes task_id, struct bytes document,
                  int64_t expires_s, result_stored_fn *on_stored, void *context)
{
    struct world *world = world_of(backend);
    struct json value;
    struct bytes status = {NULL, 0};
    struct bytes exception = {NULL, 0};
    struct bytes copy = arena_copy(world->arena, document);
    if (expires_s != world->options.result_expires_s) {
        world_fail(world, "a result expires after %lld s", (long long)expires_s);
    }
    if (!json_parse(copy, &value, NULL)
        || !json_text(json_get(value, "status"), world->arena, &status)) {
        world_fail(world, "no document: %.*s", BYTES_FORMAT(document));
    }
    bool has_exception =
        json_text(json_get(json_get(value, "result"), "exc_type"), world->arena, &exception);
    world_trace(world, "store %.*s %.*s%s%.*s", BYTES_FORMAT(task_id), BYTES_FORMAT(status),
                has_exception ? " " : "", BYTES_FORMAT(exception));
    (void)map_set(world->states, task_id, arena_text(world->arena, status));
    struct player_answer *answer = world_owe(world, &world->backend_end);
    answer->give = give_stored;
    answer->on_stored = on_stored;
    answer->context = context;
}

/* Best effort: nobody is told what came of it, and with the backend away nothing does. */
static void store_progress(struct result_backend *backend, struct bytes task_id,
                           struct bytes document, int64_t expires_s)
{
    struct world *world = world_of(backend);
    struct json value;
    struct bytes status = {NULL, 0};
    struct bytes copy = arena_copy(world->arena, document);
    if (expires_s != world->options.result_expires_s || !json_parse(copy, &value, NULL)
        || !json_text(json_get(value, "status"), world->arena, &status)) {
        world_fail(world, "no document: %.*s", BYTES_FORMAT(document));
    }
    world_trace(world, "progress %.*s %.*s %.*s", BYTES_FORMAT(task_id), BYTES_FORMAT(status),
                BYTES_FORMAT(json_get(value, "result").text));
}

static void give_state(struct player_answer *answer, const struct error *error)
{
    answer->on_state(answer->context, error ? (struct bytes){NULL, 0} : answer->text, error);
}

static void fetch_state(struct result_backend *backend, struct bytes task_id,
                        result_state_fn *on_state, void *context)
{
    struct world *world = world_of(backend);
    world_trace(world, "fetch %.*s", BYTES_FORMAT(task_id));
    struct player_answer *answer = world_owe(world, &world->backend_end);
    answer->give = give_state;
    answer->on_state = on_state;
    answer->context = context;
    answer->text = bytes_from_text(map_get(world->states, task_id));
}

static void gather(struct result_backend *backend, bool is_gathering)
{
    world_of(backend)->is_gathering = is_gathering;
}

static const struct result_ops fake_ops = {
    .store = store,
    .store_progress = store_progress,
    .store_once = store,
    .fetch_state = fetch_state,
    .gather = gather,
};

void player_result_init(struct world *world)
{
    world->backend.ops = &fake_ops;
}
