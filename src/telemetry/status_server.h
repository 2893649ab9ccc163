/*
 * The HTTP server for probes and Prometheus: GET and HEAD of /livez, /readyz, /healthz (as /livez)
 * and /metrics over HTTP/1.1, on libuv. Everything that a client can use up has a bound:
 * connections, bytes of a request, time for one, bytes of answers that it does not read.
 */
#ifndef PETIOLE_TELEMETRY_STATUS_SERVER_H
#define PETIOLE_TELEMETRY_STATUS_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/loop.h"
#include "base/memory.h"

#define STATUS_SERVER_MAX_CONNECTIONS   64
#define STATUS_SERVER_MAX_REQUEST_BYTES 8192
#define STATUS_SERVER_REQUEST_MS                                                                   \
    5000 /* from the first byte of a request to its last, and to send the answer */
#define STATUS_SERVER_IDLE_MS           75000 /* between two requests of a connection */
#define STATUS_SERVER_MAX_METRICS_BYTES (16u << 20)

struct status_server;

/* All mandatory, called from the loop. */
struct status_server_events {
    /* Whether the worker is well enough to be left running / to be counted as ready. When not,
     * writes which parts are not into `reason` (NUL-terminated, one line). */
    bool (*is_live)(void *context, char *reason, size_t size);
    bool (*is_ready)(void *context, char *reason, size_t size);
    /* Appends the text of /metrics. */
    void (*write_metrics)(void *context, struct buffer *body);
};

/* Listens on `address`: "0.0.0.0:9808", "[::]:9808", ":9808" (all), "127.0.0.1:0" (any free port),
 * "unix:/path" (a stale socket there is replaced). Returns new, or NULL: INVALID for what is no
 * address, CONFLICT when it is taken, REFUSED or TEMPORARY when the system says no. Copies
 * `address`, borrows `events`. */
struct status_server *status_server_open(struct loop *loop, const char *address,
                                         const struct status_server_events *events, void *context,
                                         struct error *reterr);

/* Whether `address` is one that status_server_open understands; the empty text is not. INVALID says
 * what is allowed. */
bool status_server_is_address(const char *address, struct error *reterr);

/* Where it listens, with the real port: "127.0.0.1:43210"; borrowed. */
const char *status_server_address(const struct status_server *server);

/* Closes listener and connections; calls `on_closed` (may be NULL) from the loop when all is freed.
 * Leaves NULL; accepts NULL, and then does not call. */
void status_server_close(struct status_server **server, void (*on_closed)(void *context),
                         void *context);

#endif
