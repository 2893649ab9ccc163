#include "result/result_redis_progress.h"

#include <hiredis/hiredis.h>

#include "base/log.h"
#include "base/memory.h"

#define MAX_KEYS ((size_t)4096)

/* celery/backends/redis.py: _set, unless a ready state is there, or something that cannot be read
 * and so may be one (result_compression, another serializer). */
static const char script[] =
    "local stored = redis.call('GET', KEYS[1])\n"
    "if stored then\n"
    "  local is_read, document = pcall(cjson.decode, stored)\n"
    "  if not is_read or type(document) ~= 'table' then return 0 end\n"
    "  local status = document['status']\n"
    "  if status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' then return 0 end\n"
    "end\n"
    "if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1])\n"
    "else redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1]) end\n"
    "redis.call('PUBLISH', KEYS[1], ARGV[1])\n"
    "return 1\n";

/* The newest state of one task; it goes when that is stored. */
struct waiting {
    struct result_redis_progress *progress;
    char *key;      /* owned */
    char *document; /* owned; NULL: dropped while it was on the way */
    size_t key_bytes;
    size_t document_bytes;
    int64_t expires_s;
    bool is_sent;
    bool is_newer; /* than what was sent */
};

struct result_redis_progress {
    struct map *keys; /* of struct waiting */
    size_t unsent_count;
    void (*on_unsent)(void *context);
    void *context;
};

struct result_redis_progress *result_redis_progress_new(void (*on_unsent)(void *context),
                                                        void *context)
{
    struct result_redis_progress *progress = memory_new(sizeof(*progress));
    progress->keys = map_new();
    progress->on_unsent = on_unsent;
    progress->context = context;
    return progress;
}

static void remove_waiting(struct waiting *waiting)
{
    struct result_redis_progress *progress = waiting->progress;
    progress->unsent_count -= waiting->is_sent ? 0 : 1;
    (void)map_remove(progress->keys, bytes_of(waiting->key, waiting->key_bytes));
    memory_free(&waiting->key);
    memory_free(&waiting->document);
    memory_free(&waiting);
}

void result_redis_progress_free(struct result_redis_progress **progress_pointer)
{
    struct result_redis_progress *progress = *progress_pointer;
    size_t position = 0;
    struct bytes key;
    void *value = NULL;
    if (!progress) {
        return;
    }
    while (map_next(progress->keys, &position, &key, &value)) {
        remove_waiting(value);
    }
    map_free(&progress->keys);
    memory_free(progress_pointer);
}

void result_redis_progress_put(struct result_redis_progress *progress, struct bytes key,
                               struct bytes document, int64_t expires_s)
{
    struct waiting *waiting = map_get(progress->keys, key);
    if (!waiting && map_count(progress->keys) >= MAX_KEYS) {
        return;
    }
    if (!waiting) {
        waiting = memory_new(sizeof(*waiting));
        waiting->progress = progress;
        waiting->key = memory_text(key);
        waiting->key_bytes = key.length;
        (void)map_set(progress->keys, key, waiting);
        progress->unsent_count++;
    }
    memory_free(&waiting->document);
    waiting->document = memory_text(document);
    waiting->document_bytes = document.length;
    waiting->expires_s = expires_s;
    waiting->is_newer = true;
}

void result_redis_progress_drop(struct result_redis_progress *progress, struct bytes key)
{
    struct waiting *waiting = map_get(progress->keys, key);
    if (waiting && waiting->is_sent) {
        memory_free(&waiting->document); /* the reply finds that there is nothing left to do */
        waiting->is_newer = false;
    } else if (waiting) {
        remove_waiting(waiting);
    }
}

/* No reply: it may not have been stored. */
static void on_stored(void *context, const struct redisReply *reply)
{
    struct waiting *waiting = context;
    struct result_redis_progress *progress = waiting->progress;
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        log_write(LOG_DEBUG, "Result backend: progress is not stored: %.*s",
                  BYTES_FORMAT(redis_link_text(reply)));
    }
    waiting->is_sent = false;
    progress->unsent_count++;
    if (!waiting->document || (reply && !waiting->is_newer)) {
        remove_waiting(waiting);
    } else {
        progress->on_unsent(progress->context);
    }
}

static void send_waiting(struct waiting *waiting, struct redis_link *link)
{
    redis_link_begin(link, 6);
    redis_link_argument_text(link, "EVAL");
    redis_link_argument(link, bytes_of(script, sizeof(script) - 1));
    redis_link_argument_integer(link, 1);
    redis_link_argument(link, bytes_of(waiting->key, waiting->key_bytes));
    redis_link_argument(link, bytes_of(waiting->document, waiting->document_bytes));
    redis_link_argument_integer(link, waiting->expires_s);
    redis_link_end(link, on_stored, waiting);
    waiting->progress->unsent_count--;
    waiting->is_sent = true;
    waiting->is_newer = false;
}

void result_redis_progress_send(struct result_redis_progress *progress, struct redis_link *link,
                                const struct map *busy)
{
    size_t position = 0;
    struct bytes key;
    void *value = NULL;
    while (progress->unsent_count > 0 && map_next(progress->keys, &position, &key, &value)) {
        struct waiting *waiting = value;
        if (!waiting->is_sent && !map_get(busy, key)) {
            send_waiting(waiting, link);
        }
    }
}
