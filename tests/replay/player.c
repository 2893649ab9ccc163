/* player SCENARIO: plays it; 0 when all went as it tells, 1 with the line that did not. */
#include "replay/player.h"

#include <signal.h>
#include <stdlib.h>

#include "base/map.h"

#define MAX_LINE_BYTES 2048
#define MAX_NAMES      8

typedef void(play_fn)(struct world *world, char *const *words);

/* TYPE PATTERN option=value ... */

/* Names separated by commas, as a list that ends with NULL; NULL for none. */
static const char *const *names_of(struct world *world, const char *text)
{
    if (!text) {
        return NULL;
    }
    const char **names = arena_alloc(world->arena, sizeof(char *) * (MAX_NAMES + 1));
    char *copy = arena_text(world->arena, bytes_from_text(text));
    for (size_t count = 0; copy && count < MAX_NAMES; count++) {
        names[count] = copy;
        copy = strchr(copy, ',');
        if (copy) {
            *copy++ = '\0';
        }
    }
    return names;
}

static bool is_yes(char *const *words, const char *key, bool otherwise)
{
    const char *text = world_option(words, key);
    return text ? strcmp(text, "yes") == 0 : otherwise;
}

static double number_of(char *const *words, const char *key, double otherwise)
{
    const char *text = world_option(words, key);
    return text ? strtod(text, NULL) : otherwise;
}

/* Of a TYPE, which may name one that this world does not have. */
static enum task_executor executor_of(struct world *world, const char *name)
{
    if (!name || strcmp(name, "native") == 0) {
        return TASK_NATIVE;
    }
    if (strcmp(name, "kubernetes") != 0 && strcmp(name, "process") != 0) {
        world_fail(world, "no executor %s", name);
    }
    return strcmp(name, "process") == 0 ? TASK_PROCESS : TASK_KUBERNETES;
}

static void play_type(struct world *world, char *const *words)
{
    struct task_type type = registry_defaults;
    type.pattern = words[1];
    type.executor = executor_of(world, world_option(words, "executor"));
    type.acks_late = is_yes(words, "acks_late", false);
    type.acks_on_failure = is_yes(words, "acks_on_failure", true);
    type.acks_on_timeout = is_yes(words, "acks_on_timeout", true);
    type.reject_on_worker_lost = is_yes(words, "reject_on_worker_lost", false);
    type.retry_on_worker_lost = is_yes(words, "retry_on_worker_lost", false);
    type.track_started = is_yes(words, "track_started", false);
    type.store_errors_even_if_ignored = is_yes(words, "store_errors", false);
    type.ignore_result = is_yes(words, "ignore_result", false) ? MESSAGE_YES : MESSAGE_UNSET;
    type.autoretry_for = names_of(world, world_option(words, "autoretry_for"));
    type.max_retries = (int64_t)number_of(words, "max_retries", 3);
    type.default_retry_delay_s = number_of(words, "default_retry_delay", 180);
    type.retry_backoff = number_of(words, "retry_backoff", 0);
    type.retry_backoff_max_s = number_of(words, "retry_backoff_max", 600);
    type.retry_jitter = is_yes(words, "retry_jitter", false);
    (void)registry_add(world->registry, &type);
}

/* The others */

static void play_lookahead(struct world *world, char *const *words)
{
    world->options.lookahead = strtoul(words[1], NULL, 10);
}

static void play_eta_limit(struct world *world, char *const *words)
{
    world->options.max_scheduled = strtoul(words[1], NULL, 10);
}

static void play_queues(struct world *world, char *const *words)
{
    world->options.queues = names_of(world, words[1]);
}

static void play_waiting_timeout(struct world *world, char *const *words)
{
    world->options.waiting_timeout_ms = world_duration_ms(world, words[1]);
}

static void play_reports(struct world *world, char *const *words)
{
    world->options.max_reports = strtoul(words[1], NULL, 10);
}

static void play_results(struct world *world, char *const *words)
{
    world->has_backend = strcmp(words[1], "none") != 0;
}

static void play_ready(struct world *world, char *const *words)
{
    enum task_executor which = strcmp(words[1], "native") == 0 ? TASK_NATIVE : TASK_KUBERNETES;
    pipeline_executor_events.on_ready(world->pipeline, &world->executors[which].base);
}

static void play_advance(struct world *world, char *const *words)
{
    loop_advance(world->loop, world_duration_ms(world, words[1]));
}

static void play_places(struct world *world, char *const *words)
{
    if (world->places != strtoul(words[1], NULL, 10)) {
        world_fail(world, "the broker may hand up %zu", world->places);
    }
}

static void play_gather(struct world *world, char *const *words)
{
    if (world->is_gathering != (strcmp(words[1], "yes") == 0)) {
        world_fail(world, "results are %sgathered", world->is_gathering ? "" : "not ");
    }
}

static void play_count(struct world *world, char *const *words)
{
    size_t expected = words[2] ? strtoul(words[2], NULL, 10) : 0;
    for (int state = REQUEST_RECEIVED; state <= REQUEST_DONE; state++) {
        if (strcmp(words[1], request_state_name((enum request_state)state)) == 0) {
            size_t count = pipeline_count(world->pipeline, (enum request_state)state);
            if (count != expected) {
                world_fail(world, "%zu are %s", count, words[1]);
            }
            return;
        }
    }
    world_fail(world, "no state %s", words[1]);
}

/* BROKER and BACKEND: hold | release | fail temporary | fail refused | good */
static void play_end(struct world *world, struct player_end *end, char *const *words)
{
    const char *detail = words[2] ? words[2] : "temporary";
    if (strcmp(words[1], "hold") == 0) {
        end->answers = PLAYER_ANSWERS_HELD;
    } else if (strcmp(words[1], "release") == 0) {
        end->answers = PLAYER_ANSWERS_AT_ONCE;
        world_release(world, end);
    } else if (strcmp(words[1], "fail") == 0) {
        end->failure.kind = strcmp(detail, "refused") == 0 ? ERROR_REFUSED : ERROR_TEMPORARY;
        (void)snprintf(end->failure.message, sizeof(end->failure.message), "as the scenario says");
    } else if (strcmp(words[1], "good") == 0) {
        end->failure.kind = ERROR_NONE;
    } else {
        world_fail(world, "%s cannot %s", words[0], words[1]);
    }
}

static void play_broker(struct world *world, char *const *words)
{
    play_end(world, &world->broker_end, words);
}

static void play_backend(struct world *world, char *const *words)
{
    play_end(world, &world->backend_end, words);
}

static void play_lease(struct world *world, char *const *words)
{
    world->lease_is_held = strcmp(words[1], "held") == 0;
}

static void play_state(struct world *world, char *const *words)
{
    char *state = arena_text(world->arena, bytes_from_text(words[2]));
    (void)map_set(world->states, bytes_from_text(words[1]), state);
}

static void play_stop(struct world *world, char *const *words)
{
    pipeline_stop(world->pipeline, strcmp(words[1], "cold") == 0);
}

static void play_revoke(struct world *world, char *const *words)
{
    bool terminate = words[2] && strcmp(words[2], "terminate") == 0;
    (void)pipeline_revoke(world->pipeline, bytes_from_text(words[1]), terminate ? SIGTERM : 0,
                          loop_wall_s(world->loop));
}

static void play_lost_job(struct world *world, char *const *words)
{
    pipeline_report_lost_job(world->pipeline, bytes_from_text(words[1]), bytes_from_text(words[2]));
}

/* Lines */

static void play_words(struct world *world, char *const *words)
{
    static const struct {
        const char *word;
        play_fn *play;
    } commands[] = {
        {"EXECUTOR", player_executor_init},
        {"TYPE", play_type},
        {"LOOKAHEAD", play_lookahead},
        {"ETA-LIMIT", play_eta_limit},
        {"WAITING-TIMEOUT", play_waiting_timeout},
        {"REPORTS", play_reports},
        {"QUEUES", play_queues},
        {"RESULTS", play_results},
        {"READY", play_ready},
        {"DELIVER", player_broker_deliver},
        {"ADVANCE", play_advance},
        {"PLACES", play_places},
        {"GATHER", play_gather},
        {"COUNT", play_count},
        {"BROKER", play_broker},
        {"BACKEND", play_backend},
        {"LEASE", play_lease},
        {"STATE", play_state},
        {"STOP", play_stop},
        {"REVOKE", play_revoke},
        {"LOST-JOB", play_lost_job},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(commands); index++) {
        if (strcmp(words[0], commands[index].word) == 0) {
            if (!words[1]) {
                world_fail(world, "%s needs a word behind it", words[0]);
            }
            commands[index].play(world, words);
            return;
        }
    }
    if (!player_executor_command(world, words)) {
        world_fail(world, "no command %s", words[0]);
    }
}

/* Plays one line, whose line break and blanks at its end are gone. */
static void play_line(struct world *world, char *line)
{
    char *words[PLAYER_MAX_WORDS + 1] = {NULL};
    char *rest = NULL;
    size_t count = 0;
    if (strncmp(line, "EXPECT ", 7) == 0) {
        world_expect(world, line + 7);
        return;
    }
    for (char *word = strtok_r(line, " ", &rest); word && count < PLAYER_MAX_WORDS;
         word = strtok_r(NULL, " ", &rest)) {
        words[count++] = word;
    }
    if (count == 0 || words[0][0] == '#') {
        return;
    }
    if (strcmp(words[0], "START") == 0) {
        world_start(world, words[1] && strcmp(words[1], "waiting") == 0);
        return;
    }
    if (strcmp(words[0], "ACCEPT") == 0) {
        pipeline_accept(world->pipeline);
        world_settle_down(world);
        return;
    }
    play_words(world, words);
    if (world->pipeline) {
        world_settle_down(world);
    }
}

int main(int count, char **arguments)
{
    FILE *file = count == 2 ? fopen(arguments[1], "re") : NULL;
    char line[MAX_LINE_BYTES];
    struct world world;
    if (!file) {
        (void)fprintf(stderr, "usage: player SCENARIO\n");
        return 2;
    }
    world_init(&world, arguments[1]);
    while (fgets(line, sizeof(line), file)) {
        world.line_number++;
        size_t length = strcspn(line, "\n");
        while (length > 0 && line[length - 1] == ' ') {
            length--;
        }
        line[length] = '\0';
        play_line(&world, arena_text(world.arena, bytes_from_text(line)));
    }
    (void)fclose(file);
    world_fini(&world);
    return 0;
}
