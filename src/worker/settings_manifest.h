/*
 * The manifest of an app, which `python -m petiole.manifest` writes
 * (python-shim/src/petiole/_manifest.py has the format): the settings, read as those of the settings
 * file and below them, and the tasks, which settings_tasks.h makes rows of. It may come from a file,
 * so it is hostile until it was checked. What a newer Celery knows and we do not is left out with a
 * DEBUG note; a bad value of what we know is an error.
 */
#ifndef PETIOLE_WORKER_SETTINGS_MANIFEST_H
#define PETIOLE_WORKER_SETTINGS_MANIFEST_H

#include "base/json.h"
#include "worker/settings.h"

#define SETTINGS_MANIFEST_MAX_BYTES ((size_t)64 << 20)

/* A manifest while settings are loaded. All views borrow from its text. */
struct settings_manifest {
    const char *origin;          /* for messages; NULL: there is no manifest */
    const struct yaml *settings; /* what the app sets, in the settings' arena */
    struct json tasks;           /* an object of objects, or absent */
    struct json routes;          /* an array, or absent */
    size_t unknown_count;        /* settings and options that are not known; the first are noted */
};

/* Checks the manifest of `sources`, reads its settings into `settings`, and notes its warnings at
 * WARNING. Without a manifest nothing happens. INVALID names the file or app and the field. */
bool settings_manifest_read(struct settings *settings, const struct settings_sources *sources,
                            struct settings_manifest *ret_manifest,
                            struct error *reterr) MUST_CHECK;

/* Notes, at DEBUG, that `name`, a `kind` ("setting"), is not known. */
void settings_manifest_note_unknown(struct settings *settings, struct settings_manifest *manifest,
                                    const char *kind, struct bytes name);

/* Notes when the queue that the app publishes to is not what this worker consumes, because nobody
 * named queues: at WARNING, or at INFO when the app routes by tenant. */
void settings_manifest_note_queue(struct settings *settings,
                                  const struct settings_manifest *manifest);

#endif
