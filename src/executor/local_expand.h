/*
 * Strings of a pod's container as the kubelet makes them: variables put in, and mount paths
 * replaced by folders of this machine. Pure.
 */
#ifndef PETIOLE_EXECUTOR_LOCAL_EXPAND_H
#define PETIOLE_EXECUTOR_LOCAL_EXPAND_H

#include <stddef.h>

#include "base/memory.h"

/* A growing list of names and values, all in one arena; zeroed but for the arena. */
struct local_pairs {
    struct arena *arena;

    struct local_pair {
        const char *name;
        const char *value;
    } * items;

    size_t count;
    size_t capacity;
};

/* Sets `name`, replacing what it was. Borrows both texts for the life of the arena. */
void local_expand_set(struct local_pairs *pairs, const char *name, const char *value);

/* The value of `name`, or NULL. */
const char *local_expand_get(const struct local_pairs *pairs, const char *name);

/* Replaces $(NAME) by the variable's value. What names no variable stays as it is, and $$ is a
 * single dollar sign (k8s.io/kubernetes/third_party/forked/golang/expansion: Expand). Allocated in
 * the arena of `variables`; NULL when it comes to more than 1 MiB. */
const char *local_expand_variables(const struct local_pairs *variables, const char *text);

/* Gives `text` the folder in place of a mount path at its beginning: the longest of `mounts` (path
 * to folder) that is all of it or is followed by a slash. Allocated in the arena of `mounts`, or
 * `text` itself. */
const char *local_expand_path(const struct local_pairs *mounts, const char *text);

#endif
