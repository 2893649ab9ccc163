/*
 * The files of a task that runs on this machine: its private folder, its log, and what they hold
 * afterwards. Every function blocks: they are called on libuv's pool threads.
 */
#ifndef PETIOLE_EXECUTOR_LOCAL_FOLDER_H
#define PETIOLE_EXECUTOR_LOCAL_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/memory.h"
#include "executor/local_plan.h"

/* Makes the folder `path`, for its owner alone, and its parents. Fine when it is there. */
bool local_folder_make(const char *path, struct error *reterr) MUST_CHECK;

/* Makes the plan's folders and files, and a log file at `log_path` (0600), which is opened for
 * appending, close-on-exec, as `ret_log_descriptor`: the caller's to close. Error TEMPORARY names
 * the path and what the system said. */
bool local_folder_fill(const struct local_plan *plan, const char *log_path, int *ret_log_descriptor,
                       struct error *reterr) MUST_CHECK;

/* The last `max_bytes` of the file at `path`, allocated in `arena`; empty when it cannot be
 * read. */
struct bytes local_folder_read_end(const char *path, size_t max_bytes, struct arena *arena);

/* Removes the folder and all that is in it, following no links. What resists stays. */
void local_folder_remove(const char *path);

#endif
