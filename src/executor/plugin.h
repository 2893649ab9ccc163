/*
 * Shared libraries with native tasks (include/petiole.h): loading, checking, and finding a task's
 * function by its name. Nothing is called here but petiole_plugin_entry.
 *
 * A library is never unloaded: a task that was given up at its time limit may still be running in
 * it.
 */
#ifndef PETIOLE_EXECUTOR_PLUGIN_H
#define PETIOLE_EXECUTOR_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"
#include "base/bytes.h"
#include "base/error.h"

struct petiole_plugin;
struct petiole_task;

/* The tasks of all libraries that were loaded. */
struct plugin_set;

/* Returns new. */
struct plugin_set *plugin_set_new(void);

/* Frees the table, not the libraries; leaves NULL. Accepts NULL. */
void plugin_set_free(struct plugin_set **set);

/* Loads the library at `path` (as dlopen finds it: with a slash a path, else along the library
 * path) and adds its tasks. Blocks; meant for the start. Error INVALID names the library and what
 * is wrong: not found, no entry function, another ABI (both versions are named), or a task that is
 * already there. */
bool plugin_set_load(struct plugin_set *set, const char *path, struct error *reterr) MUST_CHECK;

/* As plugin_set_load for a table that is in memory; `path` is for messages. Borrows the table for
 * ever. Either all of its tasks are added or none. */
bool plugin_set_add(struct plugin_set *set, const struct petiole_plugin *plugin, const char *path,
                    struct error *reterr) MUST_CHECK;

/* The task called `name`, or NULL. Borrowed from the library. */
const struct petiole_task *plugin_set_find(const struct plugin_set *set, struct bytes name);

size_t plugin_set_count(const struct plugin_set *set);

/* Visits every task in no particular order; `*position` starts at 0; NULL at the end. */
const struct petiole_task *plugin_set_next(const struct plugin_set *set, size_t *position);

#endif
