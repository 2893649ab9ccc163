/*
 * Where messages come from and go to: the interface that each transport implements. A broker hands
 * up deliveries, up to the places that it was told are free; holds them registered with the server,
 * and their lease renewed, until each is settled, once; and publishes.
 *
 * All callbacks come from the loop, never inside the call that asked for them. A broker mends its
 * own connections; what it was asked to settle or publish while the server was away is done when it
 * is back.
 */
#ifndef PETIOLE_BROKER_BROKER_H
#define PETIOLE_BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "base/list.h"
#include "base/memory.h"

struct broker;

/* What becomes of a message; said once per delivery. */
enum settlement {
    SETTLEMENT_ACK, /* done with: remove it */
    /* give it back to the front of its queue, marked redelivered (kombu/transport/redis.py:
     * QoS.restore_by_tag) */
    SETTLEMENT_REQUEUE,
    SETTLEMENT_DISCARD, /* reject without requeue; the same as ACK on Redis, dead-letters on AMQP */
};

/* One message on its way through the worker. Everything lives in `arena`, which whoever got the
 * delivery frees with delivery_free after it was settled (or abandoned). Views borrow from the
 * arena. */
struct delivery {
    struct arena *arena;       /* owned */
    struct list_node node;     /* the broker's: its list of unsettled deliveries */
    bool is_settled;           /* broker_settle was called */
    struct bytes tag;          /* names the delivery at the server, while it is unsettled */
    struct bytes queue;        /* where it was taken from, without prefix or priority suffix */
    struct json headers;       /* an object, or JSON_TYPE_ABSENT when it was none */
    struct json properties;    /* an object; JSON_TYPE_ABSENT when it was none */
    struct bytes content_type; /* empty: null or missing */
    struct bytes content_encoding;
    /* transport encoding removed (base64), still compressed when headers say so */
    struct bytes body;
    struct bytes exchange; /* from delivery_info */
    struct bytes routing_key;
    int64_t priority; /* as the sender set it; 0 when absent */
    bool redelivered;
    double received_wall_s; /* when it was popped */
};

/* What a settlement does in the same step, for the outbox of Jobs (contracts:
 * petiole:jobs:<namespace>). */
struct broker_outbox_entry {
    struct bytes namespace_name;
    struct bytes job_name;
    struct bytes task_id;
};

/* A message to send; everything is borrowed until broker_ops.publish returns. The body is already
 * serialized (and encoded as the queue wants it by the broker: base64 on Redis). */
struct publication {
    struct bytes exchange;    /* "" for a plain queue */
    struct bytes routing_key; /* the queue */
    struct bytes headers;     /* JSON object text */
    /* An object of further properties (app_id, expiration …); what this struct has a member for is
     * passed over in it. ABSENT: none. */
    struct json properties;
    struct bytes correlation_id;
    struct bytes reply_to;
    struct bytes content_type;
    struct bytes content_encoding;
    struct bytes body;
    struct bytes delivery_tag; /* Redis: the tag in the envelope; a UUID text */
    int64_t priority;
};

/* `ok` false: it cannot be done (the error says why), or the broker was closed first. */
typedef void(broker_done_fn)(void *context, bool ok, const struct error *error);

/* `is_held` tells whether the message is still ours at the server. False also when that could not
 * be found out in time. */
typedef void(broker_lease_fn)(void *context, bool is_held);

/* One entry of the outbox a call, then once with an empty job_name at the end (or `error`). Views
 * are borrowed. */
typedef void(broker_outbox_fn)(void *context, struct bytes job_name, struct bytes task_id,
                               const struct error *error);

/* A task that a client has revoked, as it is remembered at the server. */
struct broker_revoked {
    struct bytes namespace_name;
    struct bytes task_id;
    bool terminate;
    double since_wall_s;
};

/* One revoked task a call, then once with an empty task_id at the end (or `error`). Borrowed. */
typedef void(broker_revoked_fn)(void *context, const struct broker_revoked *revoked,
                                const struct error *error);

/* What the owner wants to hear. */
struct broker_events {
    /* Mandatory. Takes the delivery: settle it, then delivery_free. */
    void (*on_delivery)(void *context, struct delivery *delivery);
    /* Mandatory: connected and consuming; also after each reconnect. `where` is the URL without
     * password ("redis://host:6379/0"). */
    void (*on_up)(void *context, const char *where);
    /* Mandatory: lost, or could not connect. Unsettled deliveries stay valid. It tries again in
     * `retry_ms`. */
    void (*on_down)(void *context, const struct error *error, int64_t retry_ms);
    /* Mandatory: something that an operator must know (an element put aside, a lease lost, an
     * unsupported server). `level` as in log.h. */
    void (*on_notice)(void *context, int level, const char *text);
    /* Optional: a command of remote control was broadcast. The delivery is borrowed, and is in no
     * queue: there is nothing to settle. */
    void (*on_control)(void *context, const struct delivery *delivery);
};

struct broker_ops {
    /* All mandatory. */

    /* Connects and starts to consume the queues of its options. */
    void (*start)(struct broker *broker);
    /* How many further messages may be handed up from now on. 0 stops popping; already requested
     * ones may still come (at most those on their way, never more than were allowed before). */
    void (*set_free_places)(struct broker *broker, size_t count);
    /* Settles `delivery`, once. With `entry` (ACK only; borrowed) the outbox entry is written in
     * the same atomic step. `on_done` (may be NULL) comes when the server has confirmed it. The
     * delivery may be freed right after the call. */
    void (*settle)(struct broker *broker, struct delivery *delivery, enum settlement settlement,
                   const struct broker_outbox_entry *entry, broker_done_fn *on_done, void *context);
    /* Settles by tag a delivery of the task `task_id` that an earlier worker took (ACK). Unknown
     * tags are fine: then it is settled already. A tag of another task's delivery is left alone. */
    void (*settle_tag)(struct broker *broker, struct bytes tag, struct bytes task_id,
                       broker_done_fn *on_done, void *context);
    /* Renews the lease of `delivery` now and tells whether it was still held. For the moment before
     * something that cannot be undone. */
    void (*confirm_lease)(struct broker *broker, struct delivery *delivery,
                          broker_lease_fn *on_lease, void *context);
    /* Sends a message. `on_done` (may be NULL) comes when the server has it. Repeated by the broker
     * until it is stored, or the broker closes. */
    void (*publish)(struct broker *broker, const struct publication *publication,
                    broker_done_fn *on_done, void *context);
    /* Writes an entry into the outbox. */
    void (*outbox_add)(struct broker *broker, const struct broker_outbox_entry *entry,
                       broker_done_fn *on_done, void *context);
    /* Removes an entry from the outbox. */
    void (*outbox_remove)(struct broker *broker, struct bytes namespace_name, struct bytes job_name,
                          broker_done_fn *on_done, void *context);
    /* Reads the whole outbox of a namespace. */
    void (*outbox_list)(struct broker *broker, struct bytes namespace_name,
                        broker_outbox_fn *on_entry, void *context);
    /* Remembers at the server that a task is revoked, for workers of the namespace that start later
     * or did not hear of it. Within the limits of dispatch/revoked.h, which the caller gives.
     * Not repeated: a server that goes away in this moment forgets it. */
    void (*revoked_add)(struct broker *broker, const struct broker_revoked *revoked,
                        double expires_s, size_t most);
    /* Reads what is remembered since `since_wall_s`. */
    void (*revoked_list)(struct broker *broker, struct bytes namespace_name, double since_wall_s,
                         broker_revoked_fn *on_revoked, void *context);
    /* The number of messages waiting in all steps of `queue` when last seen; -1 unknown. For
     * metrics. */
    int64_t (*queue_length)(const struct broker *broker, struct bytes queue);
    bool (*is_up)(const struct broker *broker);
    /* Flushes what was asked for within `deadline_ms`, gives unsettled deliveries back (REQUEUE)
     * and disconnects; then on_closed, after which the broker is freed. Every waiting callback has
     * come by then. */
    void (*close)(struct broker *broker, int64_t deadline_ms, void (*on_closed)(void *context),
                  void *context);
};

/* The head of every implementation's struct. */
struct broker {
    const struct broker_ops *ops;
};

/* Frees a delivery and all that lives in its arena; leaves NULL. It must be settled or its broker
 * closed. Accepts NULL. */
void delivery_free(struct delivery **delivery);

#endif
