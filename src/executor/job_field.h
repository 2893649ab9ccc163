/*
 * Which fields of a Job a message may reach, by placeholder or override, and what it may put there.
 * Everything that is not listed is the operator's alone: namespace, ServiceAccount, volumes,
 * Secrets, security contexts, host namespaces, nodes. Pure.
 *
 * In commands and variables Kubernetes replaces $(NAME) by another variable's value, which may be a
 * secret; so every dollar sign that a message brings is doubled there, which the kubelet undoes.
 */
#ifndef PETIOLE_EXECUTOR_JOB_FIELD_H
#define PETIOLE_EXECUTOR_JOB_FIELD_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "executor/job_placeholder.h"

enum job_field_kind {
    JOB_FIELD_TEXT,     /* labels and annotations */
    JOB_FIELD_ARGUMENT, /* commands, arguments, values of variables */
    JOB_FIELD_IMAGE,    /* only what follows the colon behind the image's name */
    JOB_FIELD_FOLDER,   /* one name of a path, and never . or .. */
    JOB_FIELD_QUANTITY,
    JOB_FIELD_SECONDS,
};

/* The kind of the field at `pointer` (RFC 6901). False when no message may reach it. */
bool job_field_find(const char *pointer, enum job_field_kind *ret_kind) MUST_CHECK;

/* Whether a placeholder of `type`, or a text with several, may stand in a field of `kind`; INVALID
 * says what may. */
bool job_field_accepts(enum job_field_kind kind, const struct job_placeholder_text *text,
                       struct error *reterr) MUST_CHECK;

/* The field's value for `message` (NULL: by the defaults): returns a new reference, or NULL with
 * INVALID. */
json_t *job_field_render(enum job_field_kind kind, const struct job_placeholder_text *text,
                         const struct message *message, struct error *reterr);

/* The field's value that an override brings: returns a new reference, or NULL with INVALID. */
json_t *job_field_override(enum job_field_kind kind, struct json value, struct error *reterr);

#endif
