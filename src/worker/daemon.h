/*
 * What --detach, --uid, --gid and --umask ask for (celery/platforms.py: DaemonContext,
 * maybe_drop_privileges): before the first thread and before the loop, because neither survives a
 * fork.
 */
#ifndef PETIOLE_WORKER_DAEMON_H
#define PETIOLE_WORKER_DAEMON_H

#include "base/error.h"
#include "worker/options.h"
#include "worker/settings.h"

/* With --detach goes on in a new session in the background, its standard streams on /dev/null; the
 * process that was started exits with 0. Then sets umask, group and user of worker_umask,
 * worker_gid and worker_uid. INVALID when there is no such user or group, or the umask is no
 * number; REFUSED when the system says no. */
bool daemon_enter(const struct options *options, const struct settings *settings,
                  struct error *reterr) MUST_CHECK;

#endif
