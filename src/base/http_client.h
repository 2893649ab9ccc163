/*
 * * HTTPS requests on the loop, by libcurl's multi interface: short ones with a whole answer, and
 * streams (watches, logs) whose bytes are handed up as they come. It knows nothing of Kubernetes.
 * One client has one TLS identity and a bounded number of connections.
 */
#ifndef PETIOLE_BASE_HTTP_CLIENT_H
#define PETIOLE_BASE_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/loop.h"

struct http_client;
struct http_request;

/* Copied by http_client_new. Files are read again for each new connection, so that one that was
 * replaced counts from then on. */
struct http_client_options {
    const char *ca_file;          /* NULL with http:// or insecure */
    const char *certificate_file; /* client certificate, NULL: none */
    const char *key_file;
    bool insecure; /* insecure-skip-tls-verify of a kubeconfig */
    int connect_timeout_ms;
    /* A connection on which somebody waits and nothing comes for so long is closed, and with it end
     * the requests and streams that it carries: their peer may still acknowledge what it gets and
     * never answer. 0: no limit. (k8s.io/apimachinery/pkg/util/net: ReadIdleTimeout) */
    int64_t silence_ms;
    const char *user_agent; /* "petiole/0.1.0" */
};

struct http_call {
    const char *method;       /* "GET", "POST", "PATCH", "DELETE", "PUT" */
    const char *url;          /* copied */
    const char *bearer_token; /* NULL: none; copied; never logged */
    const char *content_type; /* of the body; NULL without one */
    struct bytes body;        /* copied */
    int64_t timeout_ms;       /* whole answer; for a stream: the longest silence */
    size_t max_answer_bytes;  /* a longer answer fails with TOO_LARGE; for a stream: no limit */
};

struct http_answer {
    int status;             /* 0 when there was no answer: then `error` says why */
    struct bytes body;      /* borrowed until the callback returns; empty for streams */
    int64_t retry_after_ms; /* of a Retry-After header in seconds; -1 without one */
    const struct error
        *error;     /* kind TEMPORARY, TIMEOUT or TOO_LARGE when status is 0, else NULL */
    bool is_unsent; /* there was no connection: nothing of it has reached the server */
};

/* Called once from the loop, also after a failure; not after http_client_cancel. */
typedef void(http_answer_fn)(void *context, const struct http_answer *answer);

/* A piece of a stream with status 200; borrowed. The answer callback follows when the stream ends.
 * A stream whose status is not 2xx gives no pieces, its body comes in the answer. */
typedef void(http_piece_fn)(void *context, struct bytes piece);

/* Returns new, or NULL with an error when libcurl lacks what we need. */
struct http_client *http_client_new(struct loop *loop, const struct http_client_options *options,
                                    struct error *reterr);

/* Cancels what is under way without callbacks; leaves NULL. Accepts NULL. */
void http_client_free(struct http_client **client);

/* Takes the limit `silence_ms` away; that of each stream remains. */
void http_client_allow_silence(struct http_client *client);

/* Sends `call`. Returns a handle that is valid until `on_answer` has been called or it is
 * cancelled. `on_piece` makes it a stream; NULL: a short request. */
struct http_request *http_client_send(struct http_client *client, const struct http_call *call,
                                      http_piece_fn *on_piece, http_answer_fn *on_answer,
                                      void *context);

/* Ends a request without a callback; leaves NULL. Accepts NULL. */
void http_client_cancel(struct http_request **request);

#endif
