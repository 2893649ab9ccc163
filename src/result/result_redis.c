#include "result/result_redis.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/list.h"
#include "base/map.h"
#include "base/memory.h"
#include "base/redis_link.h"
#include "result/result_redis_progress.h"
#include "result/result_stored.h"

#define KEY_HEAD              "celery-task-meta-"
#define MAX_BATCH             256
#define MAX_BATCHES_WAITING   16
#define MAX_BATCH_BYTES       ((size_t)16 * 1024 * 1024)  /* of documents, or one */
#define MAX_DOCUMENT_BYTES    ((size_t)512 * 1024 * 1024) /* of a value in Redis */
#define FRESH_MS              5000                        /* well under the time of a Lease */
#define GATHER_MS             1
#define REFUSED_RETRY_MS      1000
#define REFUSED_RETRY_MOST_MS 30000

/* One store or look-up on its way; key and document lie behind it in the same block. */
struct entry {
    struct list_node node;
    struct bytes key;
    struct bytes document; /* empty: a look-up */
    int64_t expires_s;
    result_stored_fn *on_stored;
    result_state_fn *on_state;
    void *context;
    int64_t begun_ms;
    bool is_done;   /* found to be stored already */
    bool is_shared; /* another worker may store it, too */
    bool is_late;   /* what is stored may have changed since it was decided */
};

/* Entries that travel together: one MGET, then one transaction. No key is in two batches at
 * once. */
struct batch {
    struct list_node node;
    struct result_redis *backend;
    int64_t read_ms; /* when the MGET was sent */
    struct entry *entries[MAX_BATCH];
    size_t count;
};

struct result_redis {
    struct result_backend base;
    struct loop *loop;
    struct arena *arena;
    struct result_redis_options options;
    struct result_events events;
    void *context;
    struct redis_link *link;
    struct list queued;    /* entries, in order */
    struct list too_large; /* entries that no Redis takes */
    struct list waiting;   /* batches whose replies are to come */
    size_t waiting_count;
    struct map *busy; /* keys in a batch */
    struct result_redis_progress *progress;
    struct loop_call flush;
    struct timer flush_timer; /* after a refusal, and while gathering */
    bool is_gathering;
    unsigned refusals; /* in a row */
    struct timer close_timer;
    struct loop_call closed;
    bool is_closing;
    void (*on_closed)(void *context);
    void *closed_context;
};

static void free_entry(struct entry *entry)
{
    memory_free(&entry);
}

static void touch(struct result_redis *backend)
{
    if (timer_is_armed(&backend->flush_timer)) {
        return;
    }
    if (backend->is_gathering) {
        loop_start_timer(backend->loop, &backend->flush_timer, GATHER_MS);
    } else {
        loop_defer(backend->loop, &backend->flush);
    }
}

static void on_unsent(void *context)
{
    touch(context);
}

/* Ends a store or look-up with what its caller is told. */
static void end_entry(struct entry *entry, bool ok, struct bytes state, const struct error *error)
{
    if (entry->on_state) {
        entry->on_state(entry->context, state, error);
    } else if (entry->on_stored) {
        entry->on_stored(entry->context, ok, error);
    }
    free_entry(entry);
}

static void end_too_large(struct result_redis *backend)
{
    struct error error;
    struct list_node *node = NULL;
    (void)error_set(&error, ERROR_TOO_LARGE, "the result is larger than a value in Redis may be");
    while ((node = list_pop(&backend->too_large)) != NULL) {
        end_entry(list_entry(node, struct entry, node), false, bytes_of(NULL, 0), &error);
    }
}

/* Batches */

static void free_batch(struct batch *batch)
{
    struct result_redis *backend = batch->backend;
    list_remove(&batch->node);
    backend->waiting_count--;
    memory_free(&batch);
    touch(backend);
}

/* Puts what has not been carried out back at the head of the queue, in order. */
static void requeue(struct batch *batch)
{
    struct result_redis *backend = batch->backend;
    for (size_t index = batch->count; index-- > 0;) {
        (void)map_remove(backend->busy, batch->entries[index]->key);
        batch->entries[index]->is_late = true;
        list_prepend(&backend->queued, &batch->entries[index]->node);
    }
    free_batch(batch);
}

/* Whether what is stored stays. A SUCCESS does (celery/backends/base.py: _store_result); so does
 * what we have stored ourselves before the connection broke, which must not be published twice, and
 * what another worker has stored while this one was stopped or cut off. */
static bool is_kept(const struct entry *entry, struct bytes stored)
{
    if (stored.length == 0 || bytes_equal(stored, entry->document)) {
        return stored.length > 0;
    }
    struct arena *arena = arena_new(0);
    struct bytes status = result_stored_status(stored, arena);
    bool has_ended =
        bytes_equal(status, BYTES("\"FAILURE\"")) || bytes_equal(status, BYTES("\"REVOKED\""));
    bool is_kept = bytes_equal(status, BYTES("\"SUCCESS\""))
                   || (has_ended && entry->is_shared && entry->is_late);
    arena_free(&arena);
    return is_kept;
}

/* Whether the server is in another role or state than the one that greeted us: then a new
 * connection may find a better one. */
static bool is_useless(struct bytes message)
{
    return bytes_starts_with(message, BYTES("READONLY"))
           || bytes_starts_with(message, BYTES("LOADING"))
           || bytes_starts_with(message, BYTES("MASTERDOWN"));
}

/* The server said no to a transaction: tried again, because a result is never dropped. */
static void on_refused(struct batch *batch, struct bytes message)
{
    struct result_redis *backend = batch->backend;
    struct error error = {0};
    (void)error_set(&error, ERROR_TEMPORARY, "Redis refuses to store: %.*s", BYTES_FORMAT(message));
    int64_t retry_ms = loop_backoff_ms(backend->loop, REFUSED_RETRY_MS, backend->refusals++,
                                       REFUSED_RETRY_MOST_MS);
    loop_start_timer(backend->loop, &backend->flush_timer, retry_ms);
    requeue(batch);
    if (is_useless(message)) {
        redis_link_drop(backend->link, &error);
        return;
    }
    backend->events.on_down(backend->context, &error, retry_ms);
}

static void end_batch(struct batch *batch)
{
    struct result_redis *backend = batch->backend;
    if (backend->refusals > 0) {
        backend->refusals = 0;
        backend->events.on_up(backend->context, backend->options.url.display);
    }
    for (size_t index = 0; index < batch->count; index++) {
        (void)map_remove(backend->busy, batch->entries[index]->key);
    }
    for (size_t index = 0; index < batch->count; index++) {
        end_entry(batch->entries[index], true, bytes_of(NULL, 0), NULL);
    }
    free_batch(batch);
}

/* The first error of a reply to EXEC, or the empty view. */
static struct bytes find_error(const struct redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY) {
        return reply->type == REDIS_REPLY_ERROR ? redis_link_text(reply)
                                                : BYTES("the transaction was dropped");
    }
    for (size_t index = 0; index < reply->elements; index++) {
        if (reply->element[index]->type == REDIS_REPLY_ERROR) {
            return redis_link_text(reply->element[index]);
        }
    }
    return bytes_of(NULL, 0);
}

static void on_executed(void *context, const struct redisReply *reply)
{
    struct batch *batch = context;
    if (!reply) {
        requeue(batch);
        return;
    }
    struct bytes message = find_error(reply);
    if (message.length > 0) {
        on_refused(batch, message);
    } else {
        end_batch(batch);
    }
}

/* SETEX (SET without an expiry) and PUBLISH, as celery/backends/redis.py: _set */
static void write_entry(struct redis_link *link, const struct entry *entry)
{
    redis_link_begin(link, entry->expires_s > 0 ? 4 : 3);
    redis_link_argument_text(link, entry->expires_s > 0 ? "SETEX" : "SET");
    redis_link_argument(link, entry->key);
    if (entry->expires_s > 0) {
        redis_link_argument_integer(link, entry->expires_s);
    }
    redis_link_argument(link, entry->document);
    redis_link_end(link, NULL, NULL);
    redis_link_begin(link, 3);
    redis_link_argument_text(link, "PUBLISH");
    redis_link_argument(link, entry->key);
    redis_link_argument(link, entry->document);
    redis_link_end(link, NULL, NULL);
}

static void write_batch(struct batch *batch)
{
    static const struct bytes multi[] = {{"MULTI", 5}};
    static const struct bytes execute[] = {{"EXEC", 4}};
    struct redis_link *link = batch->backend->link;
    redis_link_command(link, multi, 1, NULL, NULL);
    for (size_t index = 0; index < batch->count; index++) {
        if (!batch->entries[index]->is_done) {
            write_entry(link, batch->entries[index]);
        }
    }
    redis_link_command(link, execute, 1, on_executed, batch);
}

/* Tells a look-up what is stored. */
static void end_look_up(struct entry *entry, struct bytes stored)
{
    struct arena *arena = arena_new(0);
    struct bytes status = result_stored_status(stored, arena);
    struct bytes state =
        status.length > 2 ? bytes_of(status.data + 1, status.length - 2) : bytes_of(NULL, 0);
    end_entry(entry, true, state, NULL);
    arena_free(&arena);
}

static void on_read(void *context, const struct redisReply *reply)
{
    struct batch *batch = context;
    bool is_old = loop_now_ms(batch->backend->loop) - batch->read_ms > FRESH_MS;
    if (!reply || is_old) {
        requeue(batch);
        return;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != batch->count) {
        on_refused(batch, redis_link_text(reply));
        return;
    }
    size_t kept = 0;
    size_t to_write = 0;
    for (size_t index = 0; index < reply->elements; index++) {
        struct entry *entry = batch->entries[index];
        struct bytes stored = redis_link_text(reply->element[index]);
        if (entry->on_state) {
            (void)map_remove(batch->backend->busy, entry->key);
            end_look_up(entry, stored);
            continue;
        }
        entry->is_done = is_kept(entry, stored);
        to_write += entry->is_done ? 0 : 1;
        batch->entries[kept++] = entry;
    }
    batch->count = kept;
    if (to_write > 0) {
        write_batch(batch);
    } else {
        end_batch(batch);
    }
}

/* Takes entries off the queue for one batch, until a key that is on its way already. Returns new,
 * or NULL. */
static struct batch *take_batch(struct result_redis *backend)
{
    struct batch *batch = memory_new(sizeof(*batch));
    size_t total_bytes = 0;
    batch->backend = backend;
    batch->read_ms = loop_now_ms(backend->loop);
    list_for_each(node, following, &backend->queued) {
        struct entry *entry = list_entry(node, struct entry, node);
        if (batch->count == MAX_BATCH || map_get(backend->busy, entry->key)) {
            break;
        }
        total_bytes += entry->document.length;
        if (batch->count > 0 && total_bytes > MAX_BATCH_BYTES) {
            break;
        }
        list_remove(node);
        (void)map_set(backend->busy, entry->key, entry);
        entry->is_late = entry->is_late || batch->read_ms - entry->begun_ms > FRESH_MS;
        batch->entries[batch->count++] = entry;
    }
    if (batch->count == 0) {
        memory_free(&batch);
        return NULL;
    }
    list_append(&backend->waiting, &batch->node);
    backend->waiting_count++;
    return batch;
}

static void send_batches(struct result_redis *backend)
{
    while (!list_is_empty(&backend->queued) && backend->waiting_count < MAX_BATCHES_WAITING) {
        struct batch *batch = take_batch(backend);
        if (!batch) {
            return;
        }
        redis_link_begin(backend->link, batch->count + 1);
        redis_link_argument_text(backend->link, "MGET");
        for (size_t index = 0; index < batch->count; index++) {
            redis_link_argument(backend->link, batch->entries[index]->key);
        }
        redis_link_end(backend->link, on_read, batch);
    }
}

/* Closing */

static void finish_close(void *context)
{
    struct result_redis *backend = context;
    void (*on_closed)(void *) = backend->on_closed;
    void *closed_context = backend->closed_context;
    map_free(&backend->busy);
    result_redis_progress_free(&backend->progress);
    arena_free(&backend->arena);
    memory_free(&backend);
    on_closed(closed_context);
}

/* Ends everything that waits, and frees the backend on the next turn. */
static void shut(void *context)
{
    struct result_redis *backend = context;
    loop_stop_timer(backend->loop, &backend->close_timer);
    loop_stop_timer(backend->loop, &backend->flush_timer);
    redis_link_close(&backend->link); /* waiting batches come back into the queue */
    end_too_large(backend);
    struct list_node *node = NULL;
    while ((node = list_pop(&backend->queued)) != NULL) {
        struct error error = {0};
        (void)error_set(&error, ERROR_TEMPORARY, "the result backend is being closed");
        end_entry(list_entry(node, struct entry, node), false, bytes_of(NULL, 0), &error);
    }
    loop_cancel(backend->loop, &backend->flush);
    loop_defer(backend->loop, &backend->closed);
}

static bool is_empty(const struct result_redis *backend)
{
    return list_is_empty(&backend->queued) && list_is_empty(&backend->too_large)
           && backend->waiting_count == 0;
}

static void flush(void *context)
{
    struct result_redis *backend = context;
    end_too_large(backend);
    if (!backend->link) {
        return;
    }
    if (redis_link_is_up(backend->link)) {
        send_batches(backend);
    }
    if (redis_link_is_up(backend->link) && list_is_empty(&backend->queued)) {
        result_redis_progress_send(backend->progress, backend->link, backend->busy);
    }
    if (backend->is_closing && is_empty(backend)) {
        shut(backend);
    }
}

/* The interface */

static struct result_redis *from_base(const struct result_backend *base)
{
    union {
        const struct result_backend *constant;
        struct result_backend *base;
    } pointer = {.constant = base};

    return CONTAINER_OF(pointer.base, struct result_redis, base);
}

static void on_link_up(void *context)
{
    struct result_redis *backend = context;
    backend->refusals = 0;
    backend->events.on_up(backend->context, backend->options.url.display);
    touch(backend);
}

static void on_link_down(void *context, const struct error *error, int64_t retry_ms)
{
    struct result_redis *backend = context;
    backend->events.on_down(backend->context, error, retry_ms);
}

static const struct redis_link_events link_events = {
    .on_up = on_link_up,
    .on_down = on_link_down,
};

static void start(struct result_backend *base)
{
    struct result_redis *backend = from_base(base);
    const char *name = backend->options.client_name ? backend->options.client_name : "petiole";
    backend->link =
        redis_link_open(backend->loop, &backend->options.url, name, &link_events, backend);
}

/* A new entry for `task_id` with room for `document` behind its key. */
static struct entry *new_entry(struct result_redis *backend, struct bytes task_id,
                               struct bytes document)
{
    struct bytes prefix = bytes_from_text(backend->options.global_keyprefix);
    size_t key_length = prefix.length + sizeof(KEY_HEAD) - 1 + task_id.length;
    bool is_too_large = document.length > MAX_DOCUMENT_BYTES;
    if (is_too_large) {
        document.length = 0; /* it goes nowhere */
    }
    struct entry *entry = memory_new(sizeof(*entry) + key_length + document.length + 1);
    char *storage = (char *)(entry + 1);
    memcpy(storage, prefix.data ? prefix.data : "", prefix.length);
    memcpy(storage + prefix.length, KEY_HEAD, sizeof(KEY_HEAD) - 1);
    memcpy(storage + key_length - task_id.length, task_id.data, task_id.length);
    memcpy(storage + key_length, document.data ? document.data : "", document.length);
    entry->key = bytes_of(storage, key_length);
    entry->document = bytes_of(storage + key_length, document.length);
    entry->begun_ms = loop_now_ms(backend->loop);
    list_append(is_too_large ? &backend->too_large : &backend->queued, &entry->node);
    touch(backend);
    return entry;
}

static struct entry *new_store(struct result_backend *base, struct bytes task_id,
                               struct bytes document, int64_t expires_s,
                               result_stored_fn *on_stored, void *context)
{
    struct result_redis *backend = from_base(base);
    struct entry *entry = new_entry(backend, task_id, document);
    entry->expires_s = expires_s;
    entry->on_stored = on_stored;
    entry->context = context;
    result_redis_progress_drop(backend->progress, entry->key);
    return entry;
}

static void store(struct result_backend *base, struct bytes task_id, struct bytes document,
                  int64_t expires_s, result_stored_fn *on_stored, void *context)
{
    (void)new_store(base, task_id, document, expires_s, on_stored, context);
}

static void store_progress(struct result_backend *base, struct bytes task_id, struct bytes document,
                           int64_t expires_s)
{
    struct result_redis *backend = from_base(base);
    struct bytes prefix = bytes_from_text(backend->options.global_keyprefix);
    struct buffer key;
    buffer_init(&key, prefix.length + sizeof(KEY_HEAD) + task_id.length);
    (void)buffer_append(&key, prefix);
    (void)buffer_append_text(&key, KEY_HEAD);
    (void)buffer_append(&key, task_id);
    result_redis_progress_put(backend->progress, buffer_view(&key), document, expires_s);
    buffer_fini(&key);
    touch(backend);
}

static void store_once(struct result_backend *base, struct bytes task_id, struct bytes document,
                       int64_t expires_s, result_stored_fn *on_stored, void *context)
{
    new_store(base, task_id, document, expires_s, on_stored, context)->is_shared = true;
}

static void fetch_state(struct result_backend *base, struct bytes task_id,
                        result_state_fn *on_state, void *context)
{
    struct entry *entry = new_entry(from_base(base), task_id, bytes_of(NULL, 0));
    entry->on_state = on_state;
    entry->context = context;
}

static void gather(struct result_backend *base, bool is_gathering)
{
    from_base(base)->is_gathering = is_gathering;
}

static bool is_up(const struct result_backend *base)
{
    const struct result_redis *backend = from_base(base);
    return backend->link && redis_link_is_up(backend->link) && backend->refusals == 0;
}

static void close_backend(struct result_backend *base, int64_t deadline_ms,
                          void (*on_closed)(void *context), void *context)
{
    struct result_redis *backend = from_base(base);
    backend->is_closing = true;
    backend->on_closed = on_closed;
    backend->closed_context = context;
    backend->close_timer.on_due = shut;
    backend->close_timer.context = backend;
    loop_start_timer(backend->loop, &backend->close_timer, backend->link ? deadline_ms : 0);
    loop_defer(backend->loop, &backend->flush);
}

static const struct result_ops ops = {
    .start = start,
    .store = store,
    .store_progress = store_progress,
    .store_once = store_once,
    .fetch_state = fetch_state,
    .gather = gather,
    .is_up = is_up,
    .close = close_backend,
};

/* The prefix as Celery builds it: with an underscore unless it ends in a separator
 * (celery/backends/base.py: KeyValueStoreBackend._add_global_keyprefix). */
static const char *prefix_of(struct arena *arena, const char *prefix)
{
    size_t length = prefix ? strlen(prefix) : 0;
    if (length == 0) {
        return NULL;
    }
    bool is_separated = strchr(":_-.", prefix[length - 1]) != NULL;
    return arena_format(arena, "%s%s", prefix, is_separated ? "" : "_");
}

struct result_backend *result_redis_new(struct loop *loop,
                                        const struct result_redis_options *options,
                                        const struct result_events *events, void *context)
{
    struct result_redis *backend = memory_new(sizeof(*backend));
    backend->base.ops = &ops;
    backend->loop = loop;
    backend->arena = arena_new(512);
    backend->options = *options;
    backend->options.global_keyprefix = prefix_of(backend->arena, options->global_keyprefix);
    backend->options.client_name = arena_text_copy(backend->arena, options->client_name);
    backend->options.url = redis_url_copy(&options->url, backend->arena);
    backend->events = *events;
    backend->context = context;
    backend->busy = map_new();
    backend->progress = result_redis_progress_new(on_unsent, backend);
    backend->flush = (struct loop_call){.function = flush, .context = backend};
    backend->closed = (struct loop_call){.function = finish_close, .context = backend};
    backend->flush_timer = (struct timer){.on_due = flush, .context = backend};
    list_init(&backend->queued);
    list_init(&backend->too_large);
    list_init(&backend->waiting);
    return &backend->base;
}
