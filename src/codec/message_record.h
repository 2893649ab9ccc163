/*
 * A message as one JSON object, as it travels with a Job (annotation petiole.dev/message) to the
 * container, and back to a worker that adopts the Job:
 *
 *   {"v": 1, "headers": {…protocol 2…}, "properties": {…}, "content-type": …,
 *    "content-encoding": …, "body": base64 of the decompressed body, "body_encoding": "base64",
 *    "queue": …, "exchange": …, "priority": …, "redelivered": …}
 *
 * and "taken_from" when the queue's name is another one than its routing key, "queue".
 * python -m petiole.run reads the same. Pure.
 */
#ifndef PETIOLE_CODEC_MESSAGE_RECORD_H
#define PETIOLE_CODEC_MESSAGE_RECORD_H

#include "codec/message.h"

/* Appends the record of `message`, whose body is open. */
void message_record_append(struct buffer *buffer, const struct message *message);

/* Reads a record back; the message's views borrow from `record` and `arena`. The body is open
 * afterwards. */
bool message_record_read(struct bytes record, struct arena *arena, struct message *ret_message,
                         struct error *reterr) MUST_CHECK;

#endif
