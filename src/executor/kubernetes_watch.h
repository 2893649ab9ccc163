/*
 * Follows all objects of one kind in the namespace: a paged list, then a watch from there with
 * bookmarks, then again when the watch ends or its connection does, which is normal, or from a new
 * list when the server no longer knows where we were. The caller sees objects appear, change and go (client-go/tools/cache:
 * Reflector).
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_WATCH_H
#define PETIOLE_EXECUTOR_KUBERNETES_WATCH_H

#include "executor/kubernetes_api.h"

struct kubernetes_watch;

/* All mandatory, from the loop. Objects are borrowed. */
struct kubernetes_watch_events {
    /* A full list begins: what is not told again before on_listed is gone. */
    void (*on_listing)(void *context);
    /* The object exists as it is now. */
    void (*on_object)(void *context, struct json object);
    /* The object was deleted; as it was last. */
    void (*on_deleted)(void *context, struct json object);
    /* The list is complete; changes follow. */
    void (*on_listed)(void *context);
    /* Lost, or refused: tried again in `retry_ms`. For logs and metrics; an ordinary end of the
     * watch is not told. */
    void (*on_trouble)(void *context, const struct error *error, int64_t retry_ms);
};

/* Begins to follow `resource` ("batch/v1 jobs"), those that match `label_selector` (NULL: all).
 * Returns new. */
struct kubernetes_watch *kubernetes_watch_open(struct kubernetes_api *api, const char *resource,
                                               const char *label_selector,
                                               const struct kubernetes_watch_events *events,
                                               void *context);

/* Ends it without callbacks; leaves NULL; accepts NULL. */
void kubernetes_watch_close(struct kubernetes_watch **watch);

/* Whether a list has been completed. */
bool kubernetes_watch_is_listed(const struct kubernetes_watch *watch);

#endif
