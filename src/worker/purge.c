#include "worker/purge.h"

#include <hiredis/hiredis.h>

#include "base/memory.h"
#include "base/redis_link.h"

#define ANSWER_MS 5000

struct purge {
    const struct broker_redis_options *options;
    struct loop *loop;
    struct arena *arena;
    struct redis_link *link;
    struct timer deadline;
    size_t waiting_count;
    int64_t message_count;
    bool ok;
    struct error *reterr;
};

static void finish(struct purge *purge, bool ok)
{
    purge->ok = ok;
    loop_stop(purge->loop);
}

static void on_deadline(void *context)
{
    struct purge *purge = context;
    (void)error_set(purge->reterr, ERROR_TEMPORARY, "purge: %s does not answer in time",
                    purge->options->url.display);
    finish(purge, false);
}

/* The answer to EXEC: the length that the list had, and whether there was one. */
static void on_answer(void *context, const struct redisReply *reply)
{
    struct purge *purge = context;
    if (!reply) {
        return; /* on_down says why */
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2
        || reply->element[0]->type != REDIS_REPLY_INTEGER) {
        (void)error_set(purge->reterr, ERROR_REFUSED, "purge: %s: %.*s",
                        purge->options->url.display, BYTES_FORMAT(redis_link_text(reply)));
        finish(purge, false);
        return;
    }
    purge->message_count += reply->element[0]->integer;
    if (--purge->waiting_count == 0) {
        finish(purge, true);
    }
}

static void send(struct purge *purge, const char *name, struct bytes key, redis_reply_fn *on_reply)
{
    redis_link_begin(purge->link, key.data ? 2 : 1);
    redis_link_argument_text(purge->link, name);
    if (key.data) {
        redis_link_argument(purge->link, key);
    }
    redis_link_end(purge->link, on_reply, on_reply ? purge : NULL);
}

static void erase(struct purge *purge, struct bytes key)
{
    send(purge, "MULTI", bytes_of(NULL, 0), NULL);
    send(purge, "LLEN", key, NULL);
    send(purge, "DEL", key, NULL);
    send(purge, "EXEC", bytes_of(NULL, 0), on_answer);
    purge->waiting_count++;
}

/* The list of a priority step: the queue's name, and behind it separator and step unless it is 0.
 */
static struct bytes key_of(const struct purge *purge, const char *queue, int step)
{
    const struct broker_redis_options *options = purge->options;
    const char *prefix = options->global_keyprefix ? options->global_keyprefix : "";
    const char *separator = options->separator ? options->separator : "\x06\x16";
    return bytes_from_text(
        step == 0 ? arena_format(purge->arena, "%s%s", prefix, queue)
                  : arena_format(purge->arena, "%s%s%s%d", prefix, queue, separator, step));
}

static void on_up(void *context)
{
    static const int default_steps[] = {0, 3, 6, 9};
    struct purge *purge = context;
    const struct broker_redis_options *options = purge->options;
    const int *steps = options->priority_steps ? options->priority_steps : default_steps;
    size_t step_count =
        options->priority_steps ? options->priority_step_count : ARRAY_LENGTH(default_steps);
    for (size_t queue = 0; queue < options->queue_count; queue++) {
        for (size_t step = 0; step < step_count; step++) {
            erase(purge, key_of(purge, options->queues[queue], steps[step]));
        }
    }
}

static void on_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct purge *purge = context;
    (void)retry_ms;
    (void)error_set(purge->reterr, error->kind, "purge: %s: %s", purge->options->url.display,
                    error->message);
    finish(purge, false);
}

bool purge_run(struct loop *loop, const struct broker_redis_options *options, int64_t *ret_count,
               struct error *reterr)
{
    static const struct redis_link_events events = {.on_up = on_up, .on_down = on_down};
    struct purge purge = {
        .options = options, .loop = loop, .arena = arena_new(1024), .reterr = reterr};
    purge.deadline = (struct timer){.on_due = on_deadline, .context = &purge};
    purge.link = redis_link_open(loop, &options->url, "petiole-purge", &events, &purge);
    loop_start_timer(loop, &purge.deadline, options->url.stream.connect_timeout_ms + ANSWER_MS);
    loop_run(loop);
    loop_stop_timer(loop, &purge.deadline);
    redis_link_close(&purge.link);
    arena_free(&purge.arena);
    if (purge.ok) {
        *ret_count = purge.message_count;
    }
    return purge.ok;
}
