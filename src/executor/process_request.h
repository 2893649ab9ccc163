/*
 * What becomes `task.request` in a Python process: the message's headers and what a Celery worker
 * adds to them (celery/worker/request.py: create_request_cls, Request.execute_using_pool). args,
 * kwargs and embed are added where the body is read. Pure.
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_REQUEST_H
#define PETIOLE_EXECUTOR_PROCESS_REQUEST_H

#include "codec/message.h"

/* The member that names the compression of a body which Python is to decompress; not for the task. */
#define PROCESS_REQUEST_COMPRESSION "petiole_compression"

/* Appends one JSON object. */
void process_request_append(struct buffer *buffer, const struct message *message,
                            const char *hostname);

#endif
