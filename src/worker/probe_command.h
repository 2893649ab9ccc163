/*
 * `petiole probe live|ready`: asks a worker on this machine how it is, for the exec probes of pods
 * that used to start an interpreter. Blocking, without a loop: it lives a few milliseconds.
 */
#ifndef PETIOLE_WORKER_PROBE_COMMAND_H
#define PETIOLE_WORKER_PROBE_COMMAND_H

#include "worker/options.h"

/* Asks --address; else every worker with a socket in the run directory; else worker_http_address.
 * Returns the exit code: 0 when all that answer are well, 1 when one is not or none answers within
 * 3 s, with a sentence on stderr; 2 when the settings are wrong. */
int probe_command_run(const struct options *options, char *const *environment);

#endif
