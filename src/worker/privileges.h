/*
 * Whether a worker that takes pickle may run as who it is: pickle runs what its sender wants
 * (celery/platforms.py: check_privileges).
 */
#ifndef PETIOLE_WORKER_PRIVILEGES_H
#define PETIOLE_WORKER_PRIVILEGES_H

#include <sys/types.h>

#include "base/error.h"
#include "base/memory.h"

struct privileges {
    uid_t uid;
    uid_t effective_uid;
    gid_t gid;
    gid_t effective_gid;
    const char *group; /* its name; NULL: it has no entry */
    const char *effective_group;
};

/* What this process has; texts in `arena`. Blocks: looks the groups up. */
struct privileges privileges_of_process(struct arena *arena);

/* Error REFUSED for root, the groups sudo and wheel, and a group without an entry. */
bool privileges_allow_pickle(const struct privileges *privileges, struct error *reterr) MUST_CHECK;

#endif
