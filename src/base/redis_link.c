#include "base/redis_link.h"

#include <assert.h>
#include <hiredis/hiredis.h>

#include "base/memory.h"
#include "base/stream.h"

#define RETRY_FIRST_MS    200
#define RETRY_MAXIMUM_MS  10000
#define STEADY_MS         10000 /* a connection that lived so long starts the back-off anew */
#define HEARTBEAT_MS      10000
#define SILENCE_MS        30000 /* with commands waiting: then the peer is dead */
#define READER_KEPT_BYTES ((size_t)256 * 1024)
#define MAX_NUMBER_DIGITS 20

enum link_state {
    LINK_DOWN,
    LINK_CONNECTING,
    LINK_GREETING,
    LINK_UP,
    LINK_CLOSED
};

struct waiting {
    redis_reply_fn *on_reply; /* may be NULL */
    void *context;
};

/* A queue of commands without a reply; `capacity` is a power of two. */
struct waiting_ring {
    struct waiting *items;
    size_t capacity;
    size_t first;
    size_t count;
};

struct redis_link {
    struct loop *loop;
    struct arena *texts; /* owned: what `url` and `name` point at */
    struct redis_url url;
    const char *name;
    struct redis_link_events events;
    void *context;
    enum link_state state;
    struct stream *stream; /* NULL while down */
    redisReader *reader;
    struct waiting_ring waiting; /* sent */
    struct waiting_ring refused; /* asked for while down; told by tell_refused */
    struct loop_call tell_refused;
    struct timer retry;
    struct timer heartbeat;
    unsigned attempt;
    int64_t up_since_ms;
    int64_t heard_ms; /* when the peer last said anything */
    int64_t id;
    struct buffer *out; /* of the command that is being written; NULL: it is refused */
    size_t arguments_left;
    /* how deep we are in callbacks: a link closed there is freed when they are over */
    unsigned busy_count;
};

/* Queue of waiting commands */

static void ring_push(struct waiting_ring *ring, redis_reply_fn *on_reply, void *context)
{
    if (ring->count == ring->capacity) {
        size_t capacity = ring->capacity > 0 ? ring->capacity * 2 : 16;
        struct waiting *items = memory_resize(NULL, capacity, sizeof(*items));
        for (size_t index = 0; index < ring->count; index++) {
            items[index] = ring->items[(ring->first + index) & (ring->capacity - 1)];
        }
        memory_free(&ring->items);
        ring->items = items;
        ring->capacity = capacity;
        ring->first = 0;
    }
    size_t last = (ring->first + ring->count) & (ring->capacity - 1);
    ring->items[last] = (struct waiting){on_reply, context};
    ring->count++;
}

static bool ring_pop(struct waiting_ring *ring, struct waiting *ret_waiting)
{
    if (ring->count == 0) {
        return false;
    }
    *ret_waiting = ring->items[ring->first];
    ring->first = (ring->first + 1) & (ring->capacity - 1);
    ring->count--;
    return true;
}

/* Tells `count` commands of `ring` that no reply comes. */
static void ring_fail(struct waiting_ring *ring, size_t count)
{
    struct waiting waiting;
    while (count-- > 0 && ring_pop(ring, &waiting)) {
        if (waiting.on_reply) {
            waiting.on_reply(waiting.context, NULL);
        }
    }
}

/* Commands */

/* Writes `mark` and `number` and the end of the line at `place`; returns the number of bytes, at
 * most MAX_NUMBER_DIGITS + 3. */
static size_t write_header(char *place, char mark, uint64_t number)
{
    char digits[MAX_NUMBER_DIGITS];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    size_t length = 0;
    place[length++] = mark;
    while (count > 0) {
        place[length++] = digits[--count];
    }
    place[length++] = '\r';
    place[length++] = '\n';
    return length;
}

static void begin(struct redis_link *link, size_t argument_count)
{
    assert(link->arguments_left == 0);
    link->arguments_left = argument_count;
    link->out = stream_out(link->stream);
    char *place = buffer_reserve(link->out, MAX_NUMBER_DIGITS + 3);
    if (place) {
        buffer_grew(link->out, write_header(place, '*', argument_count));
    }
}

void redis_link_begin(struct redis_link *link, size_t argument_count)
{
    if (link->state == LINK_UP) {
        begin(link, argument_count);
        return;
    }
    link->arguments_left = argument_count;
    link->out = NULL;
}

void redis_link_argument(struct redis_link *link, struct bytes argument)
{
    assert(link->arguments_left > 0);
    link->arguments_left--;
    if (!link->out) {
        return;
    }
    char *place = buffer_reserve(link->out, argument.length + MAX_NUMBER_DIGITS + 5);
    if (!place) {
        return; /* the stream drops the connection for it */
    }
    size_t length = write_header(place, '$', argument.length);
    if (argument.length > 0) {
        memcpy(place + length, argument.data, argument.length);
    }
    length += argument.length;
    place[length++] = '\r';
    place[length++] = '\n';
    buffer_grew(link->out, length);
}

void redis_link_argument_text(struct redis_link *link, const char *argument)
{
    redis_link_argument(link, bytes_from_text(argument));
}

void redis_link_argument_integer(struct redis_link *link, int64_t argument)
{
    char text[MAX_NUMBER_DIGITS + 3];
    bool is_negative = argument < 0;
    uint64_t magnitude = is_negative ? UINT64_C(0) - (uint64_t)argument : (uint64_t)argument;
    size_t length = write_header(text, '-', magnitude) - 2; /* without the end of the line */
    redis_link_argument(link,
                        is_negative ? bytes_of(text, length) : bytes_of(text + 1, length - 1));
}

void redis_link_end(struct redis_link *link, redis_reply_fn *on_reply, void *context)
{
    assert(link->arguments_left == 0);
    if (link->out) {
        ring_push(&link->waiting, on_reply, context);
        link->out = NULL;
    } else if (on_reply) {
        ring_push(&link->refused, on_reply, context);
        loop_defer(link->loop, &link->tell_refused);
    }
}

void redis_link_command(struct redis_link *link, const struct bytes *arguments, size_t count,
                        redis_reply_fn *on_reply, void *context)
{
    redis_link_begin(link, count);
    for (size_t index = 0; index < count; index++) {
        redis_link_argument(link, arguments[index]);
    }
    redis_link_end(link, on_reply, context);
}

/* A command of our own, which also goes out during the greeting. */
static void command_text(struct redis_link *link, const char *const *words, size_t count,
                         redis_reply_fn *on_reply)
{
    begin(link, count);
    for (size_t index = 0; index < count; index++) {
        redis_link_argument_text(link, words[index]);
    }
    redis_link_end(link, on_reply, link);
}

/* The end */

static void maybe_free(struct redis_link *link)
{
    if (link->state != LINK_CLOSED || link->busy_count > 0) {
        return;
    }
    if (link->reader) {
        redisReaderFree(link->reader);
    }
    memory_free(&link->waiting.items);
    memory_free(&link->refused.items);
    arena_free(&link->texts);
    memory_free(&link);
}

static void release(struct redis_link *link)
{
    link->busy_count--;
    maybe_free(link);
}

static void go_down(struct redis_link *link, const struct error *error)
{
    bool was_steady =
        link->state == LINK_UP && loop_now_ms(link->loop) - link->up_since_ms >= STEADY_MS;
    link->attempt = was_steady ? 0 : link->attempt;
    int64_t retry_ms = loop_backoff_ms(link->loop, RETRY_FIRST_MS, link->attempt, RETRY_MAXIMUM_MS);
    link->attempt++;
    link->state = LINK_DOWN;
    link->id = 0;
    loop_stop_timer(link->loop, &link->heartbeat);
    loop_start_timer(link->loop, &link->retry, retry_ms);
    stream_close(&link->stream);
    link->busy_count++;
    link->events.on_down(link->context, error, retry_ms);
    ring_fail(&link->waiting, link->waiting.count);
    release(link);
}

/* Greeting the server */

static void refuse(struct redis_link *link, enum error_kind kind, const char *what,
                   const redisReply *reply)
{
    struct error error;
    (void)error_set(&error, kind, "%s was refused: %.*s", what,
                    BYTES_FORMAT(redis_link_text(reply)));
    go_down(link, &error);
}

static bool is_error(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_ERROR;
}

/* A server or proxy that knows no AUTH repeats the password: "unknown command 'AUTH', with args
 * beginning with: ..." (redis/src/server.c: rejectCommandFormat). */
static void on_auth(void *context, const redisReply *reply)
{
    struct redis_link *link = context;
    struct error error;
    if (is_error(reply)) {
        struct bytes text = redis_link_text(reply);
        const char *arguments = strstr(reply->str, ", with args");
        if (arguments) {
            text.length = (size_t)(arguments - reply->str);
        }
        (void)error_set(&error, ERROR_REFUSED, "AUTH was refused: %.*s", BYTES_FORMAT(text));
        go_down(link, &error);
    }
}

static void on_select(void *context, const redisReply *reply)
{
    if (is_error(reply)) {
        refuse(context, ERROR_REFUSED, "SELECT", reply);
    }
}

/* A user may lack the right to CLIENT: then the id stays 0. */
static void on_client_id(void *context, const redisReply *reply)
{
    struct redis_link *link = context;
    if (reply && reply->type == REDIS_REPLY_INTEGER) {
        link->id = reply->integer;
    }
}

/* The last word of the greeting. A server that is loading its data or has lost its master is of no
 * use yet; one that only forbids PING is. */
static void on_greeted(void *context, const redisReply *reply)
{
    struct redis_link *link = context;
    if (!reply) {
        return;
    }
    if (is_error(reply) && strncmp(reply->str, "NOPERM", 6) != 0) {
        bool needs_auth = strncmp(reply->str, "NOAUTH", 6) == 0;
        refuse(link, needs_auth ? ERROR_REFUSED : ERROR_TEMPORARY, "PING", reply);
        return;
    }
    link->state = LINK_UP;
    link->up_since_ms = loop_now_ms(link->loop);
    loop_start_timer(link->loop, &link->heartbeat, HEARTBEAT_MS);
    link->events.on_up(link->context);
}

static void on_stream_open(void *context)
{
    struct redis_link *link = context;
    link->state = LINK_GREETING;
    link->heard_ms = loop_now_ms(link->loop);
    if (link->url.password && link->url.user) {
        command_text(link, (const char *[]){"AUTH", link->url.user, link->url.password}, 3,
                     on_auth);
    } else if (link->url.password) {
        command_text(link, (const char *[]){"AUTH", link->url.password}, 2, on_auth);
    }
    if (link->name) {
        command_text(link, (const char *[]){"CLIENT", "SETNAME", link->name}, 3, NULL);
    }
    if (link->url.database != 0) {
        char number[MAX_NUMBER_DIGITS];
        (void)snprintf(number, sizeof(number), "%d", link->url.database);
        command_text(link, (const char *[]){"SELECT", number}, 2, on_select);
    }
    command_text(link, (const char *[]){"CLIENT", "ID"}, 2, on_client_id);
    command_text(link, (const char *[]){"PING"}, 1, on_greeted);
}

/* Reading */

static bool is_message(const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 3) {
        return false;
    }
    struct bytes word = redis_link_text(reply->element[0]);
    return bytes_equal_text(word, "message") || bytes_equal_text(word, "pmessage");
}

static void dispatch(struct redis_link *link, const redisReply *reply)
{
    if (link->events.on_push && is_message(reply)) {
        link->events.on_push(link->context, reply);
        return;
    }
    struct waiting waiting;
    if (!ring_pop(&link->waiting, &waiting)) {
        struct error error;
        (void)error_set(&error, ERROR_TEMPORARY, "a reply came that was not asked for");
        go_down(link, &error);
        return;
    }
    if (waiting.on_reply) {
        waiting.on_reply(waiting.context, reply);
    }
}

static void on_stream_data(void *context, struct bytes data)
{
    struct redis_link *link = context;
    const struct stream *stream = link->stream;
    link->heard_ms = loop_now_ms(link->loop);
    link->busy_count++;
    (void)redisReaderFeed(link->reader, data.data, data.length);
    /* A callback may close the link or drop the connection. */
    while (link->stream == stream) {
        void *reply = NULL;
        if (redisReaderGetReply(link->reader, &reply) != REDIS_OK) {
            struct error error;
            (void)error_set(&error, ERROR_TEMPORARY, "this is no Redis: %s", link->reader->errstr);
            go_down(link, &error);
            break;
        }
        if (!reply) {
            break;
        }
        dispatch(link, reply);
        freeReplyObject(reply);
    }
    release(link);
}

static void on_stream_drop(void *context, const struct error *error)
{
    go_down(context, error);
}

/* Connecting, and staying connected */

static void connect_now(void *context)
{
    static const struct stream_events stream_events = {on_stream_open, on_stream_data,
                                                       on_stream_drop};
    struct redis_link *link = context;
    if (link->reader) {
        redisReaderFree(link->reader);
    }
    link->reader = redisReaderCreate();
    if (!link->reader) {
        abort(); /* out of memory */
    }
    link->reader->maxbuf = READER_KEPT_BYTES;
    link->state = LINK_CONNECTING;
    link->stream = stream_open(link->loop, &link->url.stream, &stream_events, link);
}

static void on_heartbeat(void *context)
{
    struct redis_link *link = context;
    int64_t silence_ms = loop_now_ms(link->loop) - link->heard_ms;
    if (link->waiting.count > 0 && silence_ms >= SILENCE_MS) {
        struct error error;
        (void)error_set(&error, ERROR_TIMEOUT, "no answer for %d s", (int)(silence_ms / 1000));
        go_down(link, &error);
        return;
    }
    loop_start_timer(link->loop, &link->heartbeat, HEARTBEAT_MS);
    if (link->waiting.count == 0 && silence_ms >= HEARTBEAT_MS / 2) {
        command_text(link, (const char *[]){"PING"}, 1, NULL);
    }
}

static void tell_refused(void *context)
{
    struct redis_link *link = context;
    link->busy_count++;
    ring_fail(&link->refused, link->refused.count);
    release(link);
}

/* Life cycle */

struct redis_link *redis_link_open(struct loop *loop, const struct redis_url *url, const char *name,
                                   const struct redis_link_events *events, void *context)
{
    struct redis_link *link = memory_new(sizeof(*link));
    link->loop = loop;
    link->texts = arena_new(0);
    link->url = redis_url_copy(url, link->texts);
    link->name = name ? arena_text(link->texts, bytes_from_text(name)) : NULL;
    link->events = *events;
    link->context = context;
    link->tell_refused = (struct loop_call){.function = tell_refused, .context = link};
    link->retry = (struct timer){.on_due = connect_now, .context = link};
    link->heartbeat = (struct timer){.on_due = on_heartbeat, .context = link};
    connect_now(link);
    return link;
}

void redis_link_close(struct redis_link **link_pointer)
{
    struct redis_link *link = *link_pointer;
    if (!link) {
        return;
    }
    *link_pointer = NULL;
    link->state = LINK_CLOSED;
    loop_stop_timer(link->loop, &link->retry);
    loop_stop_timer(link->loop, &link->heartbeat);
    loop_cancel(link->loop, &link->tell_refused);
    stream_close(&link->stream);
    link->busy_count++;
    ring_fail(&link->waiting, link->waiting.count);
    ring_fail(&link->refused, link->refused.count);
    release(link);
}

void redis_link_drop(struct redis_link *link, const struct error *error)
{
    if (link->state == LINK_GREETING || link->state == LINK_UP) {
        go_down(link, error);
    }
}

/* What is known */

bool redis_link_is_up(const struct redis_link *link)
{
    return link && link->state == LINK_UP;
}

int64_t redis_link_id(const struct redis_link *link)
{
    return link->id;
}

size_t redis_link_waiting_count(const struct redis_link *link)
{
    return link->waiting.count;
}

struct bytes redis_link_text(const struct redisReply *reply)
{
    bool is_text = reply
                   && (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS
                       || reply->type == REDIS_REPLY_ERROR);
    struct bytes text = is_text ? bytes_of(reply->str, (size_t)reply->len) : bytes_of(NULL, 0);
    if (text.length > 0 && reply->type == REDIS_REPLY_ERROR && text.data[text.length - 1] == '.') {
        text.length--;
    }
    return text;
}
