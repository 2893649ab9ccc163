/*
 * A connection to Redis that mends itself: hiredis as the RESP2 codec on a stream. It connects,
 * sends AUTH, CLIENT SETNAME and SELECT, and after a drop tries again with back-off until it is
 * closed. A quiet connection is tried with PING: a dead peer is noticed within 45 s. Commands
 * are pipelined: any number may be on the way, replies come in order. It never repeats a
 * command: on a drop every waiting callback is told, and the caller knows what is safe to say
 * again.
 */
#ifndef PETIOLE_BASE_REDIS_LINK_H
#define PETIOLE_BASE_REDIS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/redis_url.h"

struct redis_link;
struct redisReply;

/* The answer to one command, borrowed until the callback returns; NULL when the connection was
 * lost before it came: then the command may or may not have been carried out. A Redis error is a
 * reply of type REDIS_REPLY_ERROR. */
typedef void(redis_reply_fn)(void *context, const struct redisReply *reply);

struct redis_link_events {
    /* Mandatory: ready for commands, after each (re)connect. */
    void (*on_up)(void *context);
    /* Mandatory: lost or could not connect; comes before the waiting callbacks get NULL.
     * `retry_ms` from now it tries again. Also for a refused AUTH or SELECT. `error` says why; it
     * does not name the URL, which its caller knows. */
    void (*on_down)(void *context, const struct error *error, int64_t retry_ms);
    /* Optional: a message of a subscription ("message" and "pmessage" arrays), borrowed. With
     * it, subscribe to one channel or pattern a command: the confirmation is the reply to that. */
    void (*on_push)(void *context, const struct redisReply *reply);
};

/* Begins to connect; returns new. Copies `url`. `name` is for CLIENT SETNAME and logs. */
struct redis_link *redis_link_open(struct loop *loop, const struct redis_url *url, const char *name,
                                   const struct redis_link_events *events, void *context);

/* Closes without further callbacks but for the waiting commands, which get NULL now. Leaves
 * NULL; accepts NULL. */
void redis_link_close(struct redis_link **link);

/* Ends this connection as if the server had: on_down with `error`, NULL to the waiting
 * callbacks, and a new try later. For a caller to whom the server's answers say that it is of no
 * use now. Nothing happens while it is down. */
void redis_link_drop(struct redis_link *link, const struct error *error);

bool redis_link_is_up(const struct redis_link *link);

/* The CLIENT ID of this connection, known from on_up on; 0 before. */
int64_t redis_link_id(const struct redis_link *link);

/* Commands. Only while up: else the callback (may be NULL when nobody cares) gets NULL from the
 * loop. */

/* One command from views: `arguments[0]` is its name. */
void redis_link_command(struct redis_link *link, const struct bytes *arguments, size_t count,
                        redis_reply_fn *on_reply, void *context);

/* The same piece by piece, without an array: begin with the number of arguments, then exactly so
 * many argument calls, then end. */
void redis_link_begin(struct redis_link *link, size_t argument_count);
void redis_link_argument(struct redis_link *link, struct bytes argument);
void redis_link_argument_text(struct redis_link *link, const char *argument);
void redis_link_argument_integer(struct redis_link *link, int64_t argument);
void redis_link_end(struct redis_link *link, redis_reply_fn *on_reply, void *context);

/* How many commands wait for their reply. */
size_t redis_link_waiting_count(const struct redis_link *link);

/* A view of a string or status reply, and of an error without the full stop at its end, so that a
 * sentence may go on behind it; else the empty view. */
struct bytes redis_link_text(const struct redisReply *reply);

#endif
