#include "worker/check_redis.h"

#include <hiredis/hiredis.h>

#include "base/memory.h"
#include "base/redis_link.h"

#define ANSWER_MS    5000
#define MAX_WORDS    5
#define MAX_COMMANDS 8

/* A command to try; unused words are empty views at its end. */
struct trial {
    struct bytes words[MAX_WORDS];
    struct check *check;
};

/* One server while it is tried. */
struct check {
    struct loop *loop;
    struct redis_link *link;
    struct timer deadline;
    struct trial trials[MAX_COMMANDS];
    size_t trial_count;
    size_t answer_count;
    bool ok;
    char *text;
    size_t size;
};

static void finish(struct check *check, bool ok)
{
    check->ok = ok;
    loop_stop(check->loop);
}

static void on_deadline(void *context)
{
    struct check *check = context;
    (void)snprintf(check->text, check->size, "no answer in time");
    finish(check, false);
}

/* The number behind `name` in the answer to INFO, as "7.0.15"; empty when it is not there. */
static struct bytes find_version(struct bytes info, const char *name)
{
    const char *hit = memmem(info.data, info.length, name, strlen(name));
    if (!hit) {
        return bytes_of(NULL, 0);
    }
    struct bytes rest = bytes_skip(info, (size_t)(hit - info.data) + strlen(name));
    return bytes_of(rest.data, bytes_find(rest, '\r'));
}

static bool is_old(struct bytes version)
{
    char text[32];
    char *end = NULL;
    (void)snprintf(text, sizeof(text), "%.*s", BYTES_FORMAT(version));
    long major = strtol(text, &end, 10);
    long minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return major < 6 || (major == 6 && minor < 2);
}

/* Reads the answer to INFO; a user without the right to ask is no failure. False when the server is
 * too old. */
static bool read_version(struct check *check, struct bytes info)
{
    struct bytes valkey = info.length > 0 ? find_version(info, "valkey_version:") : info;
    struct bytes redis = info.length > 0 ? find_version(info, "redis_version:") : info;
    if (valkey.length > 0) {
        (void)snprintf(check->text, check->size, "Valkey %.*s", BYTES_FORMAT(valkey));
        return true;
    }
    if (redis.length == 0) {
        (void)snprintf(check->text, check->size, "connected; its version is not told");
        return true;
    }
    bool is_too_old = is_old(redis);
    (void)snprintf(check->text, check->size, "Redis %.*s%s", BYTES_FORMAT(redis),
                   is_too_old ? " is too old: 6.2 or newer is needed" : "");
    return !is_too_old;
}

static void on_answer(void *context, const struct redisReply *reply)
{
    struct trial *trial = context;
    struct check *check = trial->check;
    if (!reply) {
        return; /* on_down says why */
    }
    bool is_info = trial == &check->trials[0];
    if (is_info) {
        if (!read_version(check, redis_link_text(reply))) {
            finish(check, false);
            return;
        }
    } else if (reply->type == REDIS_REPLY_ERROR) {
        (void)snprintf(check->text, check->size, "%.*s %.*s: %s", BYTES_FORMAT(trial->words[0]),
                       BYTES_FORMAT(trial->words[1]), reply->str);
        finish(check, false);
        return;
    }
    if (++check->answer_count == check->trial_count) {
        finish(check, true);
    }
}

static void on_up(void *context)
{
    struct check *check = context;
    for (size_t index = 0; index < check->trial_count; index++) {
        struct trial *trial = &check->trials[index];
        size_t count = 0;
        while (count < MAX_WORDS && trial->words[count].data) {
            count++;
        }
        redis_link_command(check->link, trial->words, count, on_answer, trial);
    }
}

static void on_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct check *check = context;
    (void)retry_ms;
    (void)snprintf(check->text, check->size, "%s", error->message);
    finish(check, false);
}

static void add_trial(struct check *check, struct bytes first, struct bytes second,
                      struct bytes third, struct bytes fourth)
{
    struct trial trial = {.words = {first, second, third, fourth}, .check = check};
    check->trials[check->trial_count++] = trial;
}

static bool run(struct check *check, const struct redis_url *url)
{
    static const struct redis_link_events events = {.on_up = on_up, .on_down = on_down};
    check->deadline.on_due = on_deadline;
    check->deadline.context = check;
    check->link = redis_link_open(check->loop, url, "petiole-check", &events, check);
    loop_start_timer(check->loop, &check->deadline, url->stream.connect_timeout_ms + ANSWER_MS);
    loop_run(check->loop);
    loop_stop_timer(check->loop, &check->deadline);
    redis_link_close(&check->link);
    return check->ok;
}

/* `name` or its default, behind the key prefix. */
static struct bytes key_of(struct arena *arena, const char *prefix, const char *name,
                           const char *default_name)
{
    return bytes_from_text(
        arena_format(arena, "%s%s", prefix ? prefix : "", name ? name : default_name));
}

bool check_redis_broker(struct loop *loop, const struct broker_redis_options *options, char *text,
                        size_t size)
{
    struct bytes none = bytes_of(NULL, 0);
    struct arena *arena = arena_new(1024);
    struct check check = {.loop = loop, .text = text, .size = size};
    const char *prefix = options->global_keyprefix;
    add_trial(&check, BYTES("INFO"), BYTES("server"), none, none);
    for (size_t index = 0; index < options->queue_count && index < 3; index++) {
        add_trial(&check, BYTES("LLEN"), key_of(arena, prefix, options->queues[index], ""), none,
                  none);
    }
    struct bytes unacked = key_of(arena, prefix, options->unacked_key, "unacked");
    struct bytes index_key = key_of(arena, prefix, options->unacked_index_key, "unacked_index");
    add_trial(&check, BYTES("HDEL"), unacked, BYTES("petiole-check"), none);
    add_trial(&check, BYTES("ZREM"), index_key, BYTES("petiole-check"), none);
    add_trial(&check, BYTES("EVAL"), BYTES("return 1"), BYTES("0"), none);
    bool ok = run(&check, &options->url);
    arena_free(&arena);
    return ok;
}

bool check_redis_backend(struct loop *loop, const struct result_redis_options *options, char *text,
                         size_t size)
{
    struct bytes none = bytes_of(NULL, 0);
    struct arena *arena = arena_new(1024);
    struct check check = {.loop = loop, .text = text, .size = size};
    const char *prefix = options->global_keyprefix ? options->global_keyprefix : "";
    /* celery/backends/redis.py: an underscore follows a prefix that does not end in a separator. */
    size_t length = strlen(prefix);
    const char *joint = length > 0 && !strchr(":_-.", prefix[length - 1]) ? "_" : "";
    struct bytes key =
        bytes_from_text(arena_format(arena, "%s%scelery-task-meta-petiole-check", prefix, joint));
    add_trial(&check, BYTES("INFO"), BYTES("server"), none, none);
    add_trial(&check, BYTES("GET"), key, none, none);
    add_trial(&check, BYTES("SETEX"), key, BYTES("1"), BYTES("{}"));
    add_trial(&check, BYTES("PUBLISH"), key, BYTES("{}"), none);
    bool ok = run(&check, &options->url);
    arena_free(&arena);
    return ok;
}
