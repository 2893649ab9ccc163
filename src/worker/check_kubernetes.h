/*
 * Tries the cluster for `petiole check`: credentials, the API server, and every right that a worker
 * uses.
 */
#ifndef PETIOLE_WORKER_CHECK_KUBERNETES_H
#define PETIOLE_WORKER_CHECK_KUBERNETES_H

#include <stdbool.h>

#include "base/loop.h"
#include "worker/settings.h"

/* `what` is one word ("right"), `text` the finding. */
typedef void(check_kubernetes_fn)(void *context, bool ok, const char *what, const char *text);

/* Calls `on_found` for everything that was tried, before it returns. Tells the settings the
 * namespace of the credentials, on which the tenant and its queue depend. */
void check_kubernetes_run(struct loop *loop, struct settings *settings, char *const *environment,
                          check_kubernetes_fn *on_found, void *context);

#endif
