#include "worker/privileges.h"

#include <grp.h>
#include <string.h>
#include <unistd.h>

static const char *group_name(gid_t gid, struct arena *arena)
{
    const struct group *entry = getgrgid(gid); // NOLINT(concurrency-mt-unsafe): while it starts
    return entry ? arena_text(arena, bytes_from_text(entry->gr_name)) : NULL;
}

struct privileges privileges_of_process(struct arena *arena)
{
    return (struct privileges){
        .uid = getuid(),
        .effective_uid = geteuid(),
        .gid = getgid(),
        .effective_gid = getegid(),
        .group = group_name(getgid(), arena),
        .effective_group = group_name(getegid(), arena),
    };
}

static bool may_become_root(const char *group)
{
    return strcmp(group, "sudo") == 0 || strcmp(group, "wheel") == 0;
}

bool privileges_allow_pickle(const struct privileges *privileges, struct error *reterr)
{
    bool is_root = privileges->uid == 0 || privileges->effective_uid == 0;
    bool is_unknown = !privileges->group || !privileges->effective_group;
    if (!is_root && !is_unknown && !may_become_root(privileges->group)
        && !may_become_root(privileges->effective_group)) {
        return true;
    }
    return error_set(
        reterr, ERROR_REFUSED,
        "%sRunning a worker with superuser privileges when the worker accepts messages "
        "serialized with pickle is a very bad idea! If you really want to continue "
        "then you have to set the C_FORCE_ROOT environment variable (but please think "
        "about this before you do). User information: uid=%u euid=%u gid=%u egid=%u",
        is_unknown ? "An entry for the specified gid or egid was not found. We're "
                     "assuming this is a potential security issue. "
                   : "",
        privileges->uid, privileges->effective_uid, privileges->gid, privileges->effective_gid);
}
