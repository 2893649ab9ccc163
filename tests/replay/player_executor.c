#include <stdlib.h>

#include "codec/message_record.h"
#include "replay/player.h"

static struct player_executor *player_of(const struct executor *executor)
{
    return CONTAINER_OF((void *)(uintptr_t)executor, struct player_executor, base);
}

static size_t count_of(const struct list *list)
{
    size_t count = 0;
    list_for_each(node, following, list) {
        count++;
    }
    return count;
}

static size_t count_unfinished_jobs(const struct player_executor *player)
{
    size_t count = 0;
    list_for_each(node, following, &player->jobs) {
        count += list_entry(node, struct player_job, node)->is_completed ? 0 : 1;
    }
    return count;
}

static size_t free_slots(const struct executor *executor)
{
    const struct player_executor *player = player_of(executor);
    size_t taken = count_of(&player->submitted) + count_unfinished_jobs(player);
    return taken < player->places ? player->places - taken : 0;
}

static struct player_admission *find_admission(struct player_executor *player, struct bytes id)
{
    list_for_each(node, following, &player->admissions) {
        struct player_admission *found = list_entry(node, struct player_admission, node);
        if (bytes_equal(found->id, id)) {
            return found;
        }
    }
    return NULL;
}

static enum executor_admission admit(struct executor *executor, struct request *request)
{
    const struct player_admission *found = find_admission(player_of(executor), request->message.id);
    return found ? found->admission : EXECUTOR_ADMITS;
}

static void explain(struct executor *executor, struct request *request, const char **ret_category,
                    const char **ret_sentence)
{
    (void)executor;
    (void)request;
    *ret_category = "QuotaExceeded";
    *ret_sentence = "the quota has no room";
}

static void submit(struct executor *executor, struct request *request)
{
    struct player_executor *player = player_of(executor);
    struct player_submission *submission = arena_alloc(player->world->arena, sizeof(*submission));
    if (free_slots(executor) == 0 && !request->is_over) {
        world_fail(player->world, "%.*s is submitted without a place",
                   BYTES_FORMAT(request->message.id));
    }
    submission->request = request;
    list_append(&player->submitted, &submission->node);
    world_trace(player->world, "submit %.*s", BYTES_FORMAT(request->message.id));
}

static void cancel(struct executor *executor, struct request *request, int signal_number)
{
    (void)signal_number;
    world_trace(player_of(executor)->world, "cancel %.*s", BYTES_FORMAT(request->message.id));
}

static bool terminate(struct executor *executor, struct bytes task_id)
{
    world_trace(player_of(executor)->world, "terminate %.*s", BYTES_FORMAT(task_id));
    return true;
}

static void note_settled(struct executor *executor, struct bytes receipt)
{
    struct player_executor *player = player_of(executor);
    world_trace(player->world, "note-settled %.*s", BYTES_FORMAT(receipt));
    list_for_each(node, following, &player->jobs) {
        struct player_job *job = list_entry(node, struct player_job, node);
        job->is_settled = job->is_settled || bytes_equal(job->name, receipt);
    }
}

static void forget(struct executor *executor, struct bytes receipt, bool is_awaited)
{
    struct player_executor *player = player_of(executor);
    world_trace(player->world, "forget %.*s%s", BYTES_FORMAT(receipt),
                is_awaited ? " awaited" : "");
    list_for_each(node, following, &player->jobs) {
        if (bytes_equal(list_entry(node, struct player_job, node)->name, receipt)) {
            list_remove(node);
        }
    }
}

/* EXECUTOR native|kubernetes places=N */

static enum task_executor executor_named(struct world *world, const char *name)
{
    if (strcmp(name, "native") != 0 && strcmp(name, "kubernetes") != 0) {
        world_fail(world, "no executor %s", name);
    }
    return strcmp(name, "native") == 0 ? TASK_NATIVE : TASK_KUBERNETES;
}

void player_executor_init(struct world *world, char *const *words)
{
    enum task_executor which = executor_named(world, words[1]);
    struct player_executor *player = &world->executors[which];
    const char *places = world_option(words, "places");
    player->ops = (struct executor_ops){
        .name = which == TASK_NATIVE ? "native" : "kubernetes",
        .is_durable = which == TASK_KUBERNETES,
        .free_slots = free_slots,
        .admit = which == TASK_KUBERNETES ? admit : NULL,
        .explain = which == TASK_KUBERNETES ? explain : NULL,
        .submit = submit,
        .cancel = cancel,
        .terminate = terminate,
        .note_settled = note_settled,
        .forget = forget,
    };
    player->world = world;
    if (!player->base.ops) {
        player->base.ops = &player->ops;
        list_init(&player->submitted);
        list_init(&player->jobs);
        list_init(&player->admissions);
    }
    player->places = places ? strtoul(places, NULL, 10) : 4;
    if (world->pipeline) {
        pipeline_executor_events.on_free_slots(world->pipeline, &player->base);
    }
}

/* What is running */

/* The submission of task `id`, which must be there; `ret_player` is whose it is. */
static struct player_submission *find_submission(struct world *world, const char *id,
                                                 struct player_executor **ret_player)
{
    for (int which = 0; which < TASK_EXECUTOR_COUNT; which++) {
        struct player_executor *player = &world->executors[which];
        if (!player->base.ops) {
            continue;
        }
        list_for_each(node, following, &player->submitted) {
            struct player_submission *found = list_entry(node, struct player_submission, node);
            if (bytes_equal_text(found->request->message.id, id)) {
                *ret_player = player;
                return found;
            }
        }
    }
    world_fail(world, "%s is not submitted", id);
}

static struct player_job *find_job(struct world *world, const char *name)
{
    if (!world->executors[TASK_KUBERNETES].base.ops) {
        world_fail(world, "there is no executor for Jobs");
    }
    list_for_each(node, following, &world->executors[TASK_KUBERNETES].jobs) {
        struct player_job *job = list_entry(node, struct player_job, node);
        if (bytes_equal_text(job->name, name)) {
            return job;
        }
    }
    world_fail(world, "there is no Job %s", name);
}

/* success [JSON] | failure CLASS [MODULE] | retry [SECONDS] | ignore [STATE] | reject [requeue] | lost |
 * timeout | revoked | absent: of a request that is over and has no Job */
/* One frame: send:QUEUE:ID, end:ID:STATE; behind a minus sign one that follows from a failure. */
static void append_frame(struct world *world, struct buffer *frames, char *text)
{
    bool is_after_failure = text[0] == '-';
    char *rest = NULL;
    const char *kind = strtok_r(text + (is_after_failure ? 1 : 0), ":", &rest);
    const char *first = strtok_r(NULL, ":", &rest);
    const char *second = strtok_r(NULL, ":", &rest);
    if (!kind || !first || !second) {
        world_fail(world, "no frame");
    }
    (void)buffer_append_text(frames, frames->length > 1 ? ", " : "");
    if (strcmp(kind, "send") == 0) {
        (void)buffer_format(frames,
                            "{\"publish\": {\"queue\": \"%s\", \"message\": {\"body\": \"W10=\", "
                            "\"headers\": {\"task\": \"app.x\", \"id\": \"%s\", \"retries\": 0}, "
                            "\"properties\": {\"body_encoding\": \"base64\"}}}",
                            first, second);
    } else {
        (void)buffer_format(frames,
                            "{\"store\": {\"task_id\": \"%s\", \"state\": \"%s\", "
                            "\"document\": \"{\\\"status\\\": \\\"%s\\\", \\\"result\\\": null, "
                            "\\\"task_id\\\": \\\"%s\\\"}\"}",
                            first, second, second, first);
    }
    (void)buffer_append_text(frames, is_after_failure ? ", \"after_failure\": true}" : "}");
}

/* The frames of `does=FRAME,FRAME…`; without it the runner does not say. */
static struct json frames_of(struct world *world, char *const *words)
{
    const char *option = world_option(words, "does");
    struct json frames = {.type = JSON_TYPE_ABSENT};
    struct buffer text;
    char *rest = NULL;
    if (!option) {
        return frames;
    }
    char *list = arena_text(world->arena, bytes_from_text(option));
    buffer_init(&text, 65536);
    (void)buffer_append_byte(&text, '[');
    for (char *one = strtok_r(list, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        append_frame(world, &text, arena_text(world->arena, bytes_from_text(one)));
    }
    (void)buffer_append_byte(&text, ']');
    frames = json_checked(arena_copy(world->arena, buffer_view(&text)));
    buffer_fini(&text);
    return frames;
}

static struct outcome outcome_of(struct world *world, char *const *words)
{
    const char *kind = words[0] ? words[0] : "";
    bool has_detail = words[0] && words[1] && strncmp(words[1], "does=", 5) != 0;
    const char *detail = has_detail ? words[1] : NULL;
    struct outcome outcome = {.runtime_s = 0.25, .exc_module = BYTES("builtins")};
    outcome.frames = frames_of(world, words);
    if (strcmp(kind, "success") == 0) {
        outcome.kind = OUTCOME_SUCCESS;
        outcome.result = detail ? bytes_from_text(detail) : BYTES("null");
    } else if (strcmp(kind, "failure") == 0 || strcmp(kind, "timeout") == 0) {
        outcome.kind = OUTCOME_FAILURE;
        outcome.timed_out = kind[0] == 't';
        outcome.exc_type = bytes_from_text(detail ? detail : "TimeLimitExceeded");
        outcome.exc_message = BYTES("[]");
    } else if (strcmp(kind, "retry") == 0) {
        outcome.kind = OUTCOME_RETRY;
        outcome.exc_type = BYTES("ValueError");
        outcome.retry_countdown_s = detail ? strtod(detail, NULL) : -1;
    } else if (strcmp(kind, "reject") == 0) {
        outcome.kind = OUTCOME_REJECT;
        outcome.requeue = detail != NULL;
    } else if (strcmp(kind, "absent") == 0) {
        executor_given_back(&outcome);
    } else if (strcmp(kind, "ignore") == 0) {
        outcome.kind = OUTCOME_IGNORE;
        outcome.told.state = bytes_from_text(detail);
    } else if (strcmp(kind, "lost") == 0) {
        outcome.kind = OUTCOME_LOST;
    } else if (strcmp(kind, "revoked") == 0) {
        executor_revoked(world->arena, "terminated", &outcome);
    } else {
        world_fail(world, "no outcome %s", kind);
    }
    return outcome;
}

static void play_started(struct world *world, char *const *words)
{
    struct player_executor *player = NULL;
    struct player_submission *submission = find_submission(world, words[1], &player);
    submission->is_started = true;
    pipeline_executor_events.on_started(world->pipeline, submission->request,
                                        (struct bytes){NULL, 0});
}

static void play_finish(struct world *world, char *const *words)
{
    struct player_executor *player = NULL;
    struct player_submission *submission = find_submission(world, words[1], &player);
    struct outcome outcome = outcome_of(world, words + 2);
    bool is_absent = words[2] && strcmp(words[2], "absent") == 0;
    submission->request->may_have_job = submission->request->may_have_job && !is_absent;
    list_remove(&submission->node);
    pipeline_executor_events.on_finished(world->pipeline, submission->request, &outcome);
    pipeline_executor_events.on_free_slots(world->pipeline, &player->base);
}

/* Makes the Job of a message. */
static struct player_job *add_job(struct world *world, const struct message *message,
                                  struct bytes tag)
{
    struct player_job *job = arena_alloc(world->arena, sizeof(*job));
    struct buffer record;
    buffer_init(&record, 65536);
    message_record_append(&record, message);
    job->record = arena_copy(world->arena, buffer_view(&record));
    buffer_fini(&record);
    job->name = bytes_from_text(arena_format(
        world->arena, "job-%.*s-%lld", BYTES_FORMAT(message->id), (long long)message->retries));
    job->tag = arena_copy(world->arena, tag);
    list_append(&world->executors[TASK_KUBERNETES].jobs, &job->node);
    return job;
}

/* The Job exists now: it carries the message, and the request is the pipeline's again. */
static void play_created(struct world *world, char *const *words)
{
    struct player_executor *player = NULL;
    struct player_submission *submission = find_submission(world, words[1], &player);
    struct request *request = submission->request;
    struct player_job *job = add_job(world, &request->message, request->delivery->tag);
    list_remove(&submission->node);
    pipeline_executor_events.on_started(world->pipeline, request, job->name);
}

/* A Job that another worker created. */
static void play_job(struct world *world, char *const *words)
{
    struct delivery *delivery = player_broker_delivery(world, words);
    const struct message_rules *rules = &world->options.message_rules;
    struct message message;
    struct error error = {0};
    if (message_read(delivery, rules, &message, &error) != MESSAGE_FINE
        || message_open_body(delivery, rules, &message, &error) != MESSAGE_FINE) {
        world_fail(world, "%s", error.message);
    }
    add_job(world, &message, delivery->tag)->is_taken_over = true;
    delivery_free(&delivery);
}

static struct completion completion_of(const struct player_job *job, const struct outcome *outcome)
{
    return (struct completion){
        .receipt = job->name,
        .record = job->record,
        .tag = job->tag,
        .is_settled = job->is_settled,
        .is_taken_over = job->is_taken_over,
        .outcome = outcome,
    };
}

static void play_running(struct world *world, char *const *words)
{
    struct completion running = completion_of(find_job(world, words[1]), NULL);
    pipeline_executor_events.on_running(world->pipeline, &running);
}

/* PROGRESS ID|JOB STATE META: what a direct executor's task, or a Job's pod, tells of itself */
static void play_progress(struct world *world, char *const *words)
{
    struct player_executor *player = NULL;
    struct progress progress = {.state = bytes_from_text(words[2])};
    if (!words[2] || !words[3] || !json_parse(bytes_from_text(words[3]), &progress.meta, NULL)) {
        world_fail(world, "PROGRESS of what, which, and with what?");
    }
    if (strncmp(words[1], "job-", 4) == 0) {
        struct completion running = completion_of(find_job(world, words[1]), NULL);
        pipeline_executor_events.on_progress(world->pipeline, NULL, &running, &progress);
    } else {
        struct request *request = find_submission(world, words[1], &player)->request;
        pipeline_executor_events.on_progress(world->pipeline, request, NULL, &progress);
    }
}

/* Another Job was made for the delivery of this one. */
static void play_rerun(struct world *world, char *const *words)
{
    struct completion ended = completion_of(find_job(world, words[1]), NULL);
    pipeline_executor_events.on_rerun(world->pipeline, &ended, bytes_from_text(words[2]));
}

/* May be played again: what has completed is reported until it is forgotten. */
static void play_complete(struct world *world, char *const *words)
{
    struct player_job *job = find_job(world, words[1]);
    struct outcome outcome = outcome_of(world, words + 2);
    job->is_completed = true;
    struct completion completion = completion_of(job, &outcome);
    pipeline_executor_events.on_completed(world->pipeline, &completion);
    pipeline_executor_events.on_free_slots(world->pipeline,
                                           &world->executors[TASK_KUBERNETES].base);
}

/* The executor is closed and gone, as at the end of a shutdown. */
static void play_executor_gone(struct world *world, char *const *words)
{
    enum task_executor which = executor_named(world, words[1]);
    pipeline_set_executor(world->pipeline, which, NULL);
    memset(&world->executors[which], 0, sizeof(world->executors[which]));
}

/* ADMIT ID now|later|next|never */
static void play_admit(struct world *world, char *const *words)
{
    static const char *const names[] = {[EXECUTOR_ADMITS] = "now",
                                        [EXECUTOR_LATER] = "later",
                                        [EXECUTOR_NEXT] = "next",
                                        [EXECUTOR_REFUSES] = "never"};
    struct player_executor *player = &world->executors[TASK_KUBERNETES];
    struct bytes id = arena_copy(world->arena, bytes_from_text(words[1]));
    struct player_admission *admission = find_admission(player, id);
    if (!admission) {
        admission = arena_alloc(world->arena, sizeof(*admission));
        admission->id = id;
        list_append(&player->admissions, &admission->node);
    }
    size_t index = 0;
    while (index < ARRAY_LENGTH(names) && (!words[2] || strcmp(names[index], words[2]) != 0)) {
        index++;
    }
    if (index == ARRAY_LENGTH(names)) {
        world_fail(world, "ADMIT when? now, later, next or never");
    }
    admission->admission = (enum executor_admission)index;
    pipeline_executor_events.on_free_slots(world->pipeline, &player->base);
}

bool player_executor_command(struct world *world, char *const *words)
{
    static const struct {
        const char *word;
        void (*play)(struct world *world, char *const *words);
    } commands[] = {
        {"STARTED", play_started},   {"FINISH", play_finish},
        {"CREATED", play_created},   {"JOB", play_job},
        {"RUNNING", play_running},   {"COMPLETE", play_complete},
        {"PROGRESS", play_progress}, {"EXECUTOR-GONE", play_executor_gone},
        {"RERUN", play_rerun},       {"ADMIT", play_admit},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(commands); index++) {
        if (strcmp(words[0], commands[index].word) == 0) {
            if (!words[1]) {
                world_fail(world, "%s of what?", words[0]);
            }
            commands[index].play(world, words);
            return true;
        }
    }
    return false;
}
