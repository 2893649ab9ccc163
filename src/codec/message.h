/*
 * A Celery task message, protocol 1 or 2, read into views (celery/app/amqp.py: as_task_v1,
 * as_task_v2; celery/worker/strategy.py: proto1_to_proto2). Decoding has two steps, as in Celery's
 * worker: the headers decide which task it is, and only then is the body opened, so that an unknown
 * task is reported before a bad body. Pure: no clock, no socket. All views borrow from the
 * delivery's arena or are allocated in it.
 */
#ifndef PETIOLE_CODEC_MESSAGE_H
#define PETIOLE_CODEC_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "broker/broker.h"

/* What a message that cannot be run is, in the words of celery/worker/consumer/consumer.py; each
 * has its own log line and settlement. */
enum message_fault {
    MESSAGE_FINE,
    MESSAGE_UNKNOWN,     /* "Received and deleted unknown message.  Wrong destination?!?": reject */
    MESSAGE_UNDECODABLE, /* "Can't decode message body": ack */
    MESSAGE_INVALID,     /* "Received invalid task message: ...": reject */
};

enum message_flag {
    MESSAGE_UNSET = -1,
    MESSAGE_NO = 0,
    MESSAGE_YES = 1
};

struct message {
    int protocol;      /* 1 or 2 */
    struct bytes task; /* registered name */
    struct bytes id;
    struct bytes shadow; /* name for logs; empty: none */
    struct bytes root_id;
    struct bytes parent_id; /* empty: none */
    struct bytes group;     /* empty: none */
    struct json group_index;
    int64_t retries;
    struct bytes eta; /* ISO 8601 text; empty: none */
    struct bytes expires;
    double hard_limit_s; /* 0: none */
    double soft_limit_s;
    struct bytes argsrepr;
    struct bytes kwargsrepr;
    struct bytes origin;
    enum message_flag ignore_result;
    int64_t replaced_task_nesting;
    struct bytes reply_to;
    struct bytes correlation_id;
    struct json stamped_headers;
    struct json stamps;
    struct json headers; /* the object as received (protocol 2), or as converted (protocol 1) */
    struct json properties;
    struct bytes queue;      /* routing key, as the sender wrote it; without one as taken_from */
    struct bytes taken_from; /* the queue that it was in */
    struct bytes exchange;
    int64_t priority;
    bool redelivered;
    double eta_wall_s; /* eta as seconds since 1970; 0: none */
    double expires_wall_s;
    struct bytes content_type;
    struct bytes content_encoding;
    struct bytes body;        /* decompressed, serialized; set by message_open_body */
    struct bytes compression; /* of a body that only Kombu can decompress; else empty */
    struct json args; /* set by message_open_body for JSON bodies; JSON_TYPE_ABSENT before */
    struct json kwargs;
    struct json callbacks; /* of embed; JSON_TYPE_ABSENT or JSON_TYPE_NULL when none */
    struct json errbacks;
    struct json chain;
    struct json chord;
};

/* The name for logs and events: shadow, else task. */
struct bytes message_display_name(const struct message *message);

/* What is allowed in a body. */
struct message_rules {
    const char *const *accept; /* accept_content: names ("json") or MIME types; ends with NULL */
    size_t max_body_bytes;     /* after decompression */
};

/* Reads the headers of `delivery` (protocol 1: its body too) into `ret_message`. A fault other than
 * FINE comes with a sentence in `reterr`; task and id are filled in as far as they are known. */
enum message_fault message_read(const struct delivery *delivery, const struct message_rules *rules,
                                struct message *ret_message, struct error *reterr);

/* Decompresses and parses the body: sets body, args, kwargs and the members of embed. Only JSON is
 * opened; of another content type that `rules` accepts body alone is set, and message_is_open tells
 * so; the same holds for a body whose compression is Kombu's and none of zlib's. One that they do not
 * accept is refused as Kombu refuses it. */
enum message_fault message_open_body(const struct delivery *delivery,
                                     const struct message_rules *rules, struct message *message,
                                     struct error *reterr);

/* Whether the arguments have been read: the body is JSON. */
bool message_is_open(const struct message *message);

/* Whether a member of embed (callbacks, errbacks, chain, chord) asks for something: absent, null and
 * empty ones do not. */
bool message_asks_for(struct json member);

/* Reads the protocol 2 headers that stand in message->headers. For message_read and
 * message_record_read. */
enum message_fault message_read_headers(struct arena *arena, struct message *message,
                                        struct error *reterr);

/* SHA-256, as 64 lower-case hex digits and a NUL in `ret_text`, of what makes two copies of a
 * message the same: task, id, retries, nesting and the decompressed body. A redelivered copy has
 * the same digest. */
void message_digest(const struct message *message, char ret_text[65]);

#endif
