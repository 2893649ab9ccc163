/*
 * Celery's remote control: commands that clients broadcast to all workers, or to some by name
 * (celery/worker/pidbox.py, celery/worker/control.py). Of the commands there are `ping` and
 * `revoke`; another one is answered as Celery answers one that it does not know. What was revoked
 * is also remembered at the broker, for the workers of the namespace that come later.
 */
#ifndef PETIOLE_WORKER_REMOTE_CONTROL_H
#define PETIOLE_WORKER_REMOTE_CONTROL_H

#include "base/loop.h"
#include "broker/broker.h"
#include "worker/pipeline.h"

struct remote_control;

/* Borrowed for the life of the object. */
struct remote_control_options {
    struct loop *loop;
    struct pipeline *pipeline;
    const char *node_name;
    const char *namespace_name; /* of what is remembered */
    double revoke_expires_s;    /* as of dispatch/revoked.h */
    size_t revokes_max;
    /* What is remembered has been read, or cannot be. Comes after each remote_control_load that
     * got an answer. */
    void (*on_loaded)(void *context);
    void *context;
};

/* Returns new; copies the options. */
struct remote_control *remote_control_new(const struct remote_control_options *options);

/* Leaves NULL; accepts NULL. */
void remote_control_free(struct remote_control **control);

/* Lends it the broker; NULL: that is closed. */
void remote_control_set_broker(struct remote_control *control, struct broker *broker);

/* Reads what was revoked before this worker was there, or while it could not hear. */
void remote_control_load(struct remote_control *control);

/* The broker's on_control: carries out a command that is for this worker, and answers it. */
void remote_control_receive(struct remote_control *control, const struct delivery *delivery);

#endif
