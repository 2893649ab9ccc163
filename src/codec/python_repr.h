/*
 * What Python's repr() shows of a JSON value, for log lines and events that Celery users know:
 * {'a': None, 'b': [1, True]}. Pure.
 */
#ifndef PETIOLE_CODEC_PYTHON_REPR_H
#define PETIOLE_CODEC_PYTHON_REPR_H

#include "base/json.h"

/* Appends repr(value); after `max_bytes` it ends in "..." (celery/utils/saferepr.py cuts in the
 * same way). */
void python_repr_append(struct buffer *buffer, struct json value, size_t max_bytes);

/* Appends repr() of a str with this text. */
void python_repr_append_text(struct buffer *buffer, struct bytes text);

#endif
