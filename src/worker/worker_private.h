/*
 * What the files of the worker share: worker.c (phases and signals), worker_parts.c (building and
 * closing the parts), worker_process.c (the pool of Python processes), worker_status.c (probes and gauges), worker_outbox.c (Jobs that are gone).
 */
#ifndef PETIOLE_WORKER_WORKER_PRIVATE_H
#define PETIOLE_WORKER_WORKER_PRIVATE_H

#include "base/loop.h"
#include "base/timezone.h"
#include "dispatch/revoked.h"
#include "telemetry/status_server.h"
#include "worker/pipeline.h"
#include "worker/remote_control.h"
#include "worker/worker.h"

enum worker_phase {
    WORKER_STARTING,
    WORKER_RUNNING,
    WORKER_DRAINING,
    WORKER_RECALLING,
    WORKER_CLOSING,
    WORKER_STOPPED,
};

struct kubeconfig;
struct plugin_set;

/* One executor in use. */
struct worker_executor {
    struct worker *worker;
    enum task_executor which;
    struct executor *executor; /* owned until closed */
    bool is_ready;
    bool is_closing;
};

struct worker {
    const struct options *options;
    struct settings *settings;
    const char *node_name;
    struct arena *arena;
    struct loop *loop;
    enum worker_phase phase;
    int exit_code;
    char instance_id[33]; /* random per start; heads delivery tags, names the Lease */

    struct metrics *metrics;
    struct timezone_table timezone;
    struct revoked *revoked; /* owned */
    struct pipeline *pipeline;
    struct remote_control *remote_control; /* owned; NULL: worker_enable_remote_control is false */
    struct worker_executor executors[TASK_EXECUTOR_COUNT];
    struct broker *broker;
    struct result_backend *backend;
    struct plugin_set *plugins;       /* owned */
    struct kubeconfig *kubeconfig;    /* owned; NULL: no task runs as a Job */
    const char *run_folder;           /* NULL: none can be used */
    struct status_server *servers[2]; /* worker_http_address, and the probe socket */
    const char *broker_url;           /* without password */
    const char *backend_url;          /* without password; NULL: results are disabled */

    bool broker_is_up;
    bool broker_was_up;
    int broker_attempts;
    bool backend_is_up;
    bool knows_revoked; /* what was revoked before has been read */
    bool has_said_ready;
    int open_parts; /* closing callbacks that are still to come */
    struct timer trim_timer;
    bool has_forgotten_start;
    int64_t flush_ms;         /* how long closing may take to flush what is left */
    struct timer drain_timer; /* when durable executors are closed though they are not idle */
    struct timer outbox_timer;
};

/* worker_parts.c */

/* Builds every part from the settings, connecting to nothing. The error says what to change. */
bool worker_parts_build(struct worker *worker, struct error *reterr) MUST_CHECK;

/* worker_process.c */

/* Builds the pool of Python processes. Without an app or Python `*ret_executor` stays NULL: an error
 * when a row of `tasks` asks for the pool, else a warning. */
bool worker_process_build(struct worker *worker, struct executor **ret_executor,
                          struct error *reterr) MUST_CHECK;

/* worker_parts.c */

/* Starts backend and executors; the broker follows when they are ready. */
void worker_parts_start(struct worker *worker);

/* Frees what was built; nothing may be open. */
void worker_parts_free(struct worker *worker);

/* worker.c */

/* All executors are ready: take tasks. */
void worker_on_executor_ready(void *context, struct executor *executor);

/* Nothing runs any more after a stop. */
void worker_on_idle(void *context);

/* Says CRITICAL "Unrecoverable error: …" and shuts down with exit code 1. */
void worker_fail(struct worker *worker, const struct error *error);

/* What was revoked before this worker was there is known. */
void worker_on_revoked_loaded(void *context);

extern const struct broker_events worker_broker_events;
extern const struct result_events worker_result_events;

/* worker_status.c */

extern const struct status_server_events worker_status_events;

/* worker_outbox.c */

/* Looks through the outbox now and every five minutes. */
void worker_outbox_start(struct worker *worker);
void worker_outbox_stop(struct worker *worker);

#endif
