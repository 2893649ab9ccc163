/*
 * What is read of a result document that Celery or Petiole has stored. It must not know where it was
 * stored. Pure.
 */
#ifndef PETIOLE_RESULT_RESULT_STORED_H
#define PETIOLE_RESULT_RESULT_STORED_H

#include "base/bytes.h"
#include "base/memory.h"

/* The member "status" of a stored document, quotes and all; empty when it has none. A document of
 * 5.7's result_compression is unpacked first (celery/backends/base.py: _decompress_payload), into
 * `arena` and up to 64 MiB; the view is of `document` or of the arena. */
struct bytes result_stored_status(struct bytes document, struct arena *arena);

#endif
