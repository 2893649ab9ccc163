/*
 * YAML as a tree whose nodes know their line, for files that people write: settings, kubeconfigs,
 * templates. On libyaml's parser. Scalars stay text: whoever reads one decides what it means and
 * says where it stood when it is wrong.
 *
 * Against hostile files: a maximum size, at most YAML_MAX_DEPTH levels, an alias only to an anchor
 * that is complete (so there are no cycles; it shares the node), no second document, no duplicate
 * keys, only scalars as keys. Merge keys ("<<") are kept as plain keys.
 */
#ifndef PETIOLE_BASE_YAML_H
#define PETIOLE_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/memory.h"

#define YAML_MAX_DEPTH 64

enum yaml_type {
    YAML_SCALAR,
    YAML_SEQUENCE,
    YAML_MAPPING
};

struct yaml;

struct yaml_entry {
    const struct yaml *key; /* a scalar; NULL in sequences */
    const struct yaml *value;
};

struct yaml {
    enum yaml_type type;
    bool
        /* scalar: written without quotes, not as a block, so it may mean a number, a boolean or
         * null */
        is_plain;
    int line;                   /* from 1 */
    int column;                 /* from 1 */
    struct bytes text;          /* scalar; a NUL follows it */
    struct yaml_entry *entries; /* sequence and mapping, in order */
    size_t count;
};

/* Reads `text`; `origin` ("petiole.yaml") heads the messages "origin:line: what is wrong". An empty
 * text is an empty mapping. Everything is allocated in `arena`. Returns NULL with INVALID. */
const struct yaml *yaml_parse(struct bytes text, const char *origin, struct arena *arena,
                              struct error *reterr);

/* The same for the file at `path`, of at most `max_bytes`. NOT_FOUND when there is none. */
const struct yaml *yaml_read(const char *path, size_t max_bytes, struct arena *arena,
                             struct error *reterr);

/* The value of `key` in a mapping, or NULL; NULL too when `node` is NULL or no mapping. */
const struct yaml *yaml_get(const struct yaml *node, const char *key);

/* Whether it is null: a plain scalar null, Null, NULL, ~, None or nothing at all (None: as Python
 * people write it). True for a NULL pointer. */
bool yaml_is_null(const struct yaml *node);

/* "a mapping", "a sequence", "text", "a number", "true or false", "nothing": for messages that say
 * what was found. */
const char *yaml_type_name(const struct yaml *node);

/* Scalars. Each is false when `node` is no such thing; quoted scalars are text only. */

/* true/false, yes/no, on/off in any case (YAML 1.1). */
bool yaml_bool(const struct yaml *node, bool *ret_value) MUST_CHECK;

/* A whole decimal number; underscores are not taken. */
bool yaml_integer(const struct yaml *node, int64_t *ret_value) MUST_CHECK;

/* A finite decimal number. */
bool yaml_double(const struct yaml *node, double *ret_value) MUST_CHECK;

#endif
