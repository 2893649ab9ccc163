/*
 * The JSON object that Kombu puts into a Redis list for each message, and what it keeps of it in
 * unacked (kombu/transport/virtual/base.py: Channel.prepare_message, Message;
 * kombu/transport/redis.py: QoS.append, Channel._do_restore_message). Pure.
 */
#ifndef PETIOLE_BROKER_BROKER_REDIS_ENVELOPE_H
#define PETIOLE_BROKER_BROKER_REDIS_ENVELOPE_H

#include "base/error.h"
#include "base/memory.h"
#include "broker/broker.h"

/* Fills the members of `delivery` that come from `envelope`, which must live in its arena. What
 * is missing or of a wrong type stays empty, for whoever reads the message to judge. `ret_fault`
 * tells (else NULL) why the body could not be read. Error INVALID when it is no JSON object. */
bool broker_redis_envelope_read(struct bytes envelope, struct delivery *delivery,
                                const char **ret_fault, struct error *reterr) MUST_CHECK;

/* Appends `envelope` with headers.redelivered and properties.delivery_info.redelivered set to
 * true, and every other byte as it was. An object that is missing stays so. */
void broker_redis_envelope_mark(struct buffer *buffer, struct bytes envelope);

/* What a value of unacked holds: [envelope, exchange, routing key]. Views borrow from `value` or
 * `arena`; the envelope is a JSON object, `priority` the one in it. False for anything else. */
struct broker_redis_held {
    struct bytes envelope;
    struct bytes exchange;
    struct bytes routing_key;
    int64_t priority;
};

bool broker_redis_envelope_unwrap(struct bytes value, struct arena *arena,
                                  struct broker_redis_held *ret_held) MUST_CHECK;

/* Appends what follows an envelope in unacked for a message of `queue` on the anonymous
 * exchange: `, "", "queue"]`, so that whoever restores it brings it back to that queue. */
void broker_redis_envelope_append_tail(struct buffer *buffer, struct bytes queue);

/* Appends the envelope of a message to send, byte for byte as Kombu writes it. */
void broker_redis_envelope_append(struct buffer *buffer, const struct publication *publication);

#endif
