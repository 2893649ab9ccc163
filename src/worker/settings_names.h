/*
 * Names of settings: found, guessed when they are mistyped, and recognized when they are of
 * Celery's old upper-case style (celery/app/defaults.py: _TO_NEW_KEY).
 */
#ifndef PETIOLE_WORKER_SETTINGS_NAMES_H
#define PETIOLE_WORKER_SETTINGS_NAMES_H

#include "base/bytes.h"
#include "base/memory.h"

/* The new name that the old `name` stands for ("CELERYD_CONCURRENCY": "worker_concurrency"), also
 * for the new name in capitals with or without CELERY_ before it; NULL when it stands for none. A
 * static text. */
const char *settings_names_modern(struct bytes name);

/* Appends ", did you mean a or b?" with at most three of `names` (of `count`, each `stride` bytes
 * after the other, so that they may be members of a table) that look like `name`, each behind
 * `prefix`; nothing when none does. */
void settings_names_append_nearest(struct buffer *buffer, const char *prefix, struct bytes name,
                                   const char *const *names, size_t count, size_t stride);

#endif
