/*
 * A YAML file as the JSON tree that Kubernetes would make of it, and fields of such a tree by JSON
 * pointer (RFC 6901). Pure.
 */
#ifndef PETIOLE_EXECUTOR_JOB_TREE_H
#define PETIOLE_EXECUTOR_JOB_TREE_H

#include <jansson.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/yaml.h"

#define JOB_TREE_MAX_NODES         20000 /* aliases counted each time */
#define JOB_TREE_MAX_POINTER_BYTES 1024

/* Called for each text before it becomes part of the tree. False with an error ends the making. */
typedef bool(job_tree_text_fn)(void *context, const char *pointer, const struct yaml *node,
                               struct error *reterr);

/* Makes a tree of `root`: returns a new reference, or NULL with INVALID. Plain scalars are null,
 * booleans and numbers as in Kubernetes' YAML (1.1), octal ones too. `path` heads the messages:
 * "path:line: pointer: what is wrong". */
json_t *job_tree_make(const struct yaml *root, const char *path, job_tree_text_fn *on_text,
                      void *context, struct error *reterr);

/* The value at `pointer`, borrowed; NULL when there is none. */
json_t *job_tree_get(const json_t *tree, const char *pointer);

/* Puts `value` at `pointer`, taking the reference in any case. Objects that are missing on the way
 * are made; elements of arrays must be there. */
bool job_tree_set(json_t *tree, const char *pointer, json_t *value) MUST_CHECK;

#endif
