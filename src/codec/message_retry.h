/*
 * The message of a task's next try: the same id, retries + 1, the same options (celery/app/task.py:
 * Task.signature_from_request, Task.retry); and what all messages have in common that follow a
 * task. Pure.
 */
#ifndef PETIOLE_CODEC_MESSAGE_RETRY_H
#define PETIOLE_CODEC_MESSAGE_RETRY_H

#include "codec/message.h"

/* Appends the headers of the next try as a JSON object: those of `message`, unknown ones too, with
 * retries + 1, `eta_wall_s` (0: none), and root_id and parent_id = id where they were none; without
 * RabbitMQ's x-death headers, and with compression only when message->body is still compressed.
 * `tenant_header` says whose task it is: `tenant`'s, so that no other tenant's worker takes it,
 * wherever it is sent. */
void message_retry_append_headers(struct buffer *buffer, const struct message *message,
                                  double eta_wall_s, const char *tenant_header, const char *tenant);

/* Appends the headers of a message that a task sends: `headers`, an object, with `tenant_header`
 * saying whose it is, likewise. */
void message_retry_append_sent_headers(struct buffer *buffer, struct json headers,
                                       const char *tenant_header, const char *tenant);

/* Where the positions of what follows one run of a task begin; far apart, so that no two of it have
 * one. */
enum message_follow_up {
    MESSAGE_FOLLOW_UP_RETRY = 0,          /* the next try that the worker makes */
    MESSAGE_FOLLOW_UP_FRAMES = 1,         /* what its runner left to do, or the worker for it */
    MESSAGE_FOLLOW_UP_ERRBACKS = 1 << 20, /* ids of errbacks that have none */
    MESSAGE_FOLLOW_UP_FAILURE = 2 << 20,  /* what the worker does when those frames made it fail */
};

/* A UUID text for follow-up number `position` of a task's run: version 5 of (task id, retries,
 * nesting, position), so that a second report after a crash names the same things. */
void message_retry_follow_up_id(const struct message *message, int position, char ret_text[37]);

#endif
