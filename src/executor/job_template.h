/*
 * A Job template: a plain Kubernetes manifest in YAML whose scalars may hold placeholders such
 * as ${kwargs.config.training.epochs:int=3}. It is parsed once into a tree; rendering copies the
 * tree and puts typed values into it, so that no value of a message is ever pasted into text.
 * Placeholders: job_placeholder.h. Alone in a scalar one gives its typed value, or that value's
 * text where Kubernetes wants text; inside a longer text only str, int and float may stand; where
 * a shell or interpreter would run it (job_command.h), none at all.
 *
 * Which fields a message may reach is a list (job_field.h), checked at load: never
 * metadata.namespace, serviceAccountName, hostPath, Secret volumes, envFrom, securityContext,
 * hostNetwork, and the like; the same holds for the JSON pointers of a task's `override`.
 */
#ifndef PETIOLE_EXECUTOR_JOB_TEMPLATE_H
#define PETIOLE_EXECUTOR_JOB_TEMPLATE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"
#include "codec/message.h"

struct job_template;

/* Reads and checks the template at `path`. `overrides` (ends with NULL; may be NULL) are the JSON
 * pointers that a message may set, by its header `petiole_override` (an object pointer -> value).
 * Returns new, or NULL with an error "file:line: field: what is wrong". */
struct job_template *job_template_load(const char *path, const char *const *overrides,
                                       struct error *reterr);

/* Frees; leaves NULL; accepts NULL. */
void job_template_free(struct job_template **job_template);

/* The template with the values of `message` (body open) in it: returns a new reference to a
 * batch/v1 Job object, or NULL. Error INVALID names the placeholder or field, the value's type and
 * what is allowed. */
json_t *job_template_render(const struct job_template *job_template, const struct message *message,
                            struct error *reterr);

/* The template as a task without arguments has it: a placeholder counts with its default, one
 * without stays as written. Returns a new reference to a tree of its own. */
json_t *job_template_typical(const struct job_template *job_template);

#endif
