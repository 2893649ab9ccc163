/*
 * The body of a task message: decompression, the content types that are accepted, and the shapes of
 * protocol 1 and 2 (celery/worker/strategy.py: proto1_to_proto2; kombu/serialization.py: loads;
 * kombu/compression.py). Pure. For message.c and message_record.c; others call message_open_body.
 */
#ifndef PETIOLE_CODEC_MESSAGE_BODY_H
#define PETIOLE_CODEC_MESSAGE_BODY_H

#include "codec/message.h"

/* Opens a protocol 2 body: sets body, args, kwargs and embed of `message`. */
enum message_fault message_body_open(const struct delivery *delivery,
                                     const struct message_rules *rules, struct message *message,
                                     struct error *reterr);

/* Reads a message whose headers name no task: its body is one object. Rewrites it as protocol 2
 * (headers and body), so that nobody later has to know. */
enum message_fault message_body_read_protocol1(const struct delivery *delivery,
                                               const struct message_rules *rules,
                                               struct message *message, struct error *reterr);

/* Reads the serialized JSON `body` of protocol 2 into `message`. The views borrow from `body`. */
enum message_fault message_body_parse(struct bytes body, struct message *message,
                                      struct error *reterr);

#endif
