/*
 * The folder of this machine's workers: each has a socket <node name>.sock there that answers
 * probes when no address is served. The setting run_dir (PETIOLE_RUN_DIR), else the first that
 * works of /run/petiole, $XDG_RUNTIME_DIR/petiole and /tmp/petiole-<uid>.
 */
#ifndef PETIOLE_WORKER_RUN_DIR_H
#define PETIOLE_WORKER_RUN_DIR_H

#include "base/error.h"
#include "base/memory.h"
#include "worker/settings.h"

/* Finds the folder, or makes it (mode 0700; one in /tmp must be ours). The path lives in `arena`.
 * REFUSED when none can be used. */
bool run_dir_open(const struct settings *settings, struct arena *arena, const char **ret_path,
                  struct error *reterr) MUST_CHECK;

#define RUN_DIR_MAX_CANDIDATES 3

/* The folders that it may be, best first, whether they exist or not; in `arena`. Returns how many.
 */
size_t run_dir_candidates(const struct settings *settings, struct arena *arena,
                          const char *ret_paths[RUN_DIR_MAX_CANDIDATES]);

/* Whether `path` is a folder that nobody else can have put there: ours, and not writable for
 * others. */
bool run_dir_is_ours(const char *path);

/* The address of the status socket of `node_name` in `path`, for status_server_open:
 * "unix:<path>/<node name>.sock"; in `arena`. */
const char *run_dir_socket_address(const char *path, const char *node_name, struct arena *arena);

#endif
