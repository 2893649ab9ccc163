/*
 * Placeholders in the texts of a Job template, ${root.path:type=default}, and the values that they
 * take from a message. "$$" is a dollar sign. Pure.
 *
 *   root     args kwargs id retries headers
 *   path     names of members or numbers of elements, each behind a dot
 *   type     str int float bool quantity json; without one str (of `retries`: int)
 *   default  up to the closing brace, for when the message has nothing or null there
 *
 * A value must be of its type: nothing is converted but a number to a quantity.
 */
#ifndef PETIOLE_EXECUTOR_JOB_PLACEHOLDER_H
#define PETIOLE_EXECUTOR_JOB_PLACEHOLDER_H

#include <jansson.h>
#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "codec/message.h"

enum job_placeholder_type {
    JOB_PLACEHOLDER_STR,
    JOB_PLACEHOLDER_INT,
    JOB_PLACEHOLDER_FLOAT,
    JOB_PLACEHOLDER_BOOL,
    JOB_PLACEHOLDER_QUANTITY,
    JOB_PLACEHOLDER_JSON,
};

enum job_placeholder_root {
    JOB_PLACEHOLDER_ARGS,
    JOB_PLACEHOLDER_KWARGS,
    JOB_PLACEHOLDER_ID,
    JOB_PLACEHOLDER_RETRIES,
    JOB_PLACEHOLDER_HEADERS,
};

struct job_placeholder {
    const char *source; /* as written, for messages */
    enum job_placeholder_root root;
    const char *const *path; /* ends with NULL */
    enum job_placeholder_type type;
    const char *default_text; /* NULL: none */
};

/* A text with placeholders in it. */
struct job_placeholder_text {
    struct job_placeholder_part {
        struct bytes literal;                      /* dollars unescaped */
        const struct job_placeholder *placeholder; /* behind the literal; NULL: none */
    } * parts;

    size_t count;
    size_t placeholder_count;
    bool is_whole; /* nothing but one placeholder */
};

/* Reads `text` into `arena`. INVALID says what is wrong with which placeholder; a default that is
 * not of its type is wrong, too. */
bool job_placeholder_parse(struct bytes text, struct arena *arena,
                           struct job_placeholder_text *ret_text, struct error *reterr) MUST_CHECK;

/* The value that `message` has for `placeholder`, else its default: returns a new reference, or
 * NULL with INVALID. Without a message (NULL) the default counts. */
json_t *job_placeholder_value(const struct job_placeholder *placeholder,
                              const struct message *message, struct error *reterr);

/* Makes a value of `type` of `value`: returns a new reference, or NULL with INVALID, "must be a
 * whole number, not text". The content is never told: it may be a secret. */
json_t *job_placeholder_convert(enum job_placeholder_type type, struct json value,
                                struct error *reterr);

/* Appends a value as the text that it is inside a longer one: numbers in digits, json compact. */
bool job_placeholder_append_text(struct buffer *buffer, const json_t *value);

#endif
