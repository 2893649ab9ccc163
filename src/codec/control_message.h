/*
 * A command of Celery's remote control, as clients broadcast it, and the answer to it
 * (kombu/pidbox.py: Mailbox._broadcast, Node.handle_message, Node.reply;
 * celery/app/control.py). Pure.
 */
#ifndef PETIOLE_CODEC_CONTROL_MESSAGE_H
#define PETIOLE_CODEC_CONTROL_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "broker/broker.h"

/* Views borrow from the delivery's arena. */
struct control_message {
    struct bytes method;     /* "revoke" */
    struct json arguments;   /* an object, or unset */
    struct json destination; /* an array of node names, or unset: for all */
    struct bytes pattern;    /* of node names; empty: none */
    struct bytes matcher;    /* "glob" or "pcre" */
    struct bytes ticket;     /* comes back with the answer */
    struct bytes reply_to;   /* exchange of the answer; empty: none is wanted */
    struct bytes reply_key;  /* and its routing key */
    int64_t clock;           /* the sender's; 0: unknown */
};

/* Reads a broadcast message. INVALID when it is none: not JSON, no object, no method. */
bool control_message_read(const struct delivery *delivery, struct control_message *ret_message,
                          struct error *reterr) MUST_CHECK;

/* Whether it is for the node called `node_name`: named as a destination, or matched by the pattern,
 * or neither is given. A "pcre" pattern is read as a POSIX extended regular expression that must
 * match from the start of the name; one that cannot be read matches nothing. */
bool control_message_is_for(const struct control_message *message, const char *node_name);

/* The answer's body: {node_name: value}, with `value` as JSON text. */
void control_message_append_reply(struct buffer *body, const char *node_name, struct bytes value);

/* The answer's headers. */
void control_message_append_headers(struct buffer *headers, const struct control_message *message,
                                    int64_t clock);

#endif
