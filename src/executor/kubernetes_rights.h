/*
 * What the worker's Role must allow, each verb with the call that needs it, and asking the API
 * server about it (SelfSubjectAccessReview, which everybody may send). k8s/base/role.yaml has the
 * same list.
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_RIGHTS_H
#define PETIOLE_EXECUTOR_KUBERNETES_RIGHTS_H

#include "executor/kubernetes_api.h"

struct kubernetes_right {
    const char *verb;
    const char *group;       /* "" is the core */
    const char *resource;    /* "pods" */
    const char *subresource; /* "log"; "" for none */
    const char *purpose;     /* the call that needs it */
};

extern const struct kubernetes_right kubernetes_rights_table[];
extern const size_t kubernetes_rights_count;

struct kubernetes_rights;

/* Comes once for each right, in any order, from the loop: `is_allowed`, or `error` when that could
 * not be found out. */
typedef void(kubernetes_rights_fn)(void *context, const struct kubernetes_right *right,
                                   bool is_allowed, const struct error *error);

/* Asks about every right of the table. Returns new; it frees itself right before `on_done`. */
struct kubernetes_rights *kubernetes_rights_ask(struct kubernetes_api *api,
                                                kubernetes_rights_fn *on_right,
                                                void (*on_done)(void *context), void *context);

/* Ends it without further callbacks; leaves NULL; accepts NULL. Not from on_right. */
void kubernetes_rights_cancel(struct kubernetes_rights **rights);

#endif
