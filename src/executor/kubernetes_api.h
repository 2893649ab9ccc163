/*
 * Requests to the Kubernetes API server in one namespace: paths, credentials, and what an answer
 * means for whoever asked. It does not repeat a request: the caller knows what is safe to say
 * again, and is told when. Sources: k8s.io/apimachinery/pkg/api/errors, client-go/rest.
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_API_H
#define PETIOLE_EXECUTOR_KUBERNETES_API_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/http_client.h"
#include "base/json.h"
#include "base/loop.h"
#include "executor/kubeconfig.h"

struct kubernetes_api;
struct kubernetes_call;

/* What an answer means. */
enum kubernetes_verdict {
    KUBERNETES_DONE,      /* 2xx */
    KUBERNETES_EXISTS,    /* 409 with reason AlreadyExists */
    KUBERNETES_CONFLICT,  /* 409 of a changed resourceVersion */
    KUBERNETES_NOT_FOUND, /* 404 of the object */
    KUBERNETES_GONE,      /* 410: the resourceVersion is too old */
    /* 403 "exceeded quota", 409 on a resourcequota, 500 "quota evaluation timed out" */
    KUBERNETES_QUOTA,
    /* passes by itself: 429, 401, 408, 5xx, lost connections, and for 10 s after the last two a 403
     * for want of rights: a server that begins denies everything */
    KUBERNETES_BUSY,
    /* never passes: 400, 403, 404 of the namespace, 422, an answer of more than 8 MiB, too long a
     * line */
    KUBERNETES_REFUSED,
};

/* Borrowed until the callback returns. */
struct kubernetes_answer {
    enum kubernetes_verdict verdict;
    int status;             /* HTTP; 0: no answer */
    struct json body;       /* an object, or JSON_TYPE_ABSENT */
    const char *message;    /* the API's sentence, or why there was no answer; never NULL */
    int64_t retry_after_ms; /* what the server asked for, at most a minute; -1: nothing */
    bool may_be_done; /* not DONE, and yet the server may have done, or may do, what it was asked */
};

typedef void(kubernetes_answer_fn)(void *context, const struct kubernetes_answer *answer);
typedef void(kubernetes_line_fn)(void *context, struct bytes line);

/* Returns new; copies what it needs of `kubeconfig`. Tokens from files are read again at most once
 * a minute and after a 401, certificates for each new connection. A connection on which something
 * is awaited and nothing comes for 30 s is closed. */
struct kubernetes_api *kubernetes_api_new(struct loop *loop, const struct kubeconfig *kubeconfig,
                                          const char *namespace_name, struct error *reterr);

/* Cancels what is under way without callbacks. Leaves NULL; accepts NULL. */
void kubernetes_api_free(struct kubernetes_api **api);

/* Bounds what kubernetes_api_call sends, from now on: `burst` requests at once and `qps` a second in
 * the long run (client-go/rest: Config.QPS, Config.Burst). What is over it waits its turn; streams
 * are not counted. `qps` 0, as at first: no bound. */
void kubernetes_api_limit(struct kubernetes_api *api, int64_t qps, int64_t burst);

/* From now on a connection on which something is awaited may be silent for more than 30 s, as that
 * of logs whose pods have nothing to say: a server that acknowledges and does not answer is noticed
 * after 150 s, by each stream. */
void kubernetes_api_allow_silence(struct kubernetes_api *api);

/* The namespace that every path is in. */
const char *kubernetes_api_namespace(const struct kubernetes_api *api);

/* The loop that it runs on, borrowed. */
struct loop *kubernetes_api_loop(const struct kubernetes_api *api);

/* What to ask for; members that are left out are NULL. Borrowed for the call alone. */
struct kubernetes_request {
    const char *method; /* NULL: GET. PATCH is a merge patch */
    /* what follows the namespace, with its group's root: "batch/v1 jobs", "v1 pods",
     * "coordination.k8s.io/v1 leases"; a slash before it means outside of any namespace */
    const char *resource;
    const char *name;  /* one object, or one and its subresource, "x/log"; NULL: the collection */
    const char *query; /* what follows the "?" */
    struct bytes body; /* may be empty */
    bool is_urgent;    /* is counted, but does not wait for its turn */
    bool cuts_lines;   /* of a stream: a line that is too long is handed up without its end */
};

/* Sends one request, now or when the limit allows it. The callback comes once, from the loop. */
struct kubernetes_call *kubernetes_api_call(struct kubernetes_api *api,
                                            const struct kubernetes_request *request,
                                            kubernetes_answer_fn *on_answer, void *context);

/* Ends a call without its callback; leaves NULL; accepts NULL. Valid until the callback. */
void kubernetes_api_cancel(struct kubernetes_call **call);

/* As kubernetes_api_call for a stream: `on_line` gets each line (at most `max_line_bytes`; a longer
 * one ends the stream with REFUSED, unless it is to be cut), borrowed; then on_answer when it has
 * ended. */
struct kubernetes_call *kubernetes_api_stream(struct kubernetes_api *api,
                                              const struct kubernetes_request *request,
                                              size_t max_line_bytes, kubernetes_line_fn *on_line,
                                              kubernetes_answer_fn *on_answer, void *context);

#endif
