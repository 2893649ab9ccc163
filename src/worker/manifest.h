/*
 * Where the manifest of an app comes from: a file (--manifest), or Python, which is asked once at
 * the start: `python -m petiole.manifest`, with PETIOLE_PYTHON or the first python3 on PATH. What
 * is in it is for settings_manifest.h.
 */
#ifndef PETIOLE_WORKER_MANIFEST_H
#define PETIOLE_WORKER_MANIFEST_H

#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"

struct options;

struct manifest {
    struct buffer text;  /* owned */
    const char *origin;  /* "app proj", or the file's path; NULL: there is none */
    const char *warning; /* why there is none although an app was named; NULL: nothing to say */
    bool is_told;        /* after a failure: Python has said on stderr what is wrong with the app */
    struct arena *arena; /* owned */
};

/* Gets the manifest that `options` ask for into `manifest`, which is zeroed or uninitialized; blocks
 * for as long as Python takes to import the app, at most two minutes. Nothing is asked for without
 * --manifest, -A, -I and a config module. A missing Python, or one without the package petiole, is
 * not an error: there is no manifest then, and a warning. NOT_FOUND when there is no such app,
 * INVALID when its import or the file is bad, TIMEOUT, TOO_LARGE, REFUSED when a signal came that
 * ends the worker. Free with manifest_fini, also after a failure. */
bool manifest_load(struct manifest *manifest, const struct options *options,
                   char *const *environment, struct error *reterr) MUST_CHECK;

/* Frees what it owns; the struct is zeroed. */
void manifest_fini(struct manifest *manifest);

/* The Python of the app: PETIOLE_PYTHON, a path or a name on PATH, else python3. The path is in
 * `arena`; NULL when there is none. Blocks. */
const char *manifest_python(char *const *environment, struct arena *arena);

/* Why there can be no Python processes with the app of `options`; NULL: there can. `python` is what
 * manifest_python returned. */
const char *manifest_obstacle(const struct options *options, const char *python);

#endif
