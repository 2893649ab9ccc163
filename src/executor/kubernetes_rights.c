#include "executor/kubernetes_rights.h"

#include "base/memory.h"

#define MAX_REVIEW_BYTES 1024
#define REVIEWS          "/authorization.k8s.io/v1 selfsubjectaccessreviews"

const struct kubernetes_right kubernetes_rights_table[] = {
    {"create", "batch", "jobs", "", "make the Job of a task"},
    {"get", "batch", "jobs", "", "look at the Job that exists already, before adopting it"},
    {"list", "batch", "jobs", "", "find all Jobs at start and after a watch is gone"},
    {"watch", "batch", "jobs", "", "hear how they go on"},
    {"patch", "batch", "jobs", "", "let a reported Job go, take over a dead worker's"},
    {"delete", "batch", "jobs", "", "cancel a task"},
    {"get", "", "pods", "", "read the pod of a Job once more"},
    {"list", "", "pods", "", "find all pods at start and after a watch is gone"},
    {"watch", "", "pods", "", "hear of exit codes and termination messages"},
    {"get", "", "pods", "log", "read results over 4096 bytes, and progress"},
    {"list", "", "events", "", "explain why a Job has no pod"},
    {"watch", "", "events", "", "explain it as it happens"},
    {"get", "", "resourcequotas", "", "read a quota again after a refusal"},
    {"list", "", "resourcequotas", "", "know what is free before a Job is made"},
    {"watch", "", "resourcequotas", "", "hear when something becomes free"},
    {"get", "", "limitranges", "", "read a limit again after a refusal"},
    {"list", "", "limitranges", "", "know what a pod requests by default"},
    {"watch", "", "limitranges", "", "hear when that changes"},
    {"create", "coordination.k8s.io", "leases", "", "say that this worker lives"},
    {"get", "coordination.k8s.io", "leases", "", "see whether a Job's owner lives"},
    {"list", "coordination.k8s.io", "leases", "", "find all workers at start"},
    {"watch", "coordination.k8s.io", "leases", "", "notice a worker that has gone"},
    {"update", "coordination.k8s.io", "leases", "", "go on saying that this worker lives"},
    {"delete", "coordination.k8s.io", "leases", "", "release it at shutdown"},
};

const size_t kubernetes_rights_count = ARRAY_LENGTH(kubernetes_rights_table);

/* One question. */
struct review {
    struct kubernetes_rights *rights;
    const struct kubernetes_right *right;
    struct kubernetes_call *call; /* NULL: answered */
};

struct kubernetes_rights {
    struct review reviews[ARRAY_LENGTH(kubernetes_rights_table)];
    size_t open_count;
    kubernetes_rights_fn *on_right;
    void (*on_done)(void *context);
    void *context;
};

static void finish(struct kubernetes_rights *rights)
{
    void (*on_done)(void *context) = rights->on_done;
    void *context = rights->context;
    memory_free(&rights);
    on_done(context);
}

static void on_review(void *context, const struct kubernetes_answer *answer)
{
    struct review *review = context;
    struct kubernetes_rights *rights = review->rights;
    struct error error;
    bool is_known = answer->verdict == KUBERNETES_DONE;
    struct json allowed = json_get(json_get(answer->body, "status"), "allowed");
    if (!is_known) {
        (void)error_set(&error, ERROR_TEMPORARY, "%s", answer->message);
    }
    review->call = NULL;
    rights->on_right(rights->context, review->right, is_known && allowed.type == JSON_TYPE_TRUE,
                     is_known ? NULL : &error);
    if (--rights->open_count == 0) {
        finish(rights);
    }
}

static void append_member(struct buffer *buffer, const char *key, const char *text)
{
    (void)buffer_format(buffer, ",\"%s\":", key);
    json_append_string(buffer, bytes_from_text(text));
}

static struct kubernetes_call *ask(struct kubernetes_api *api, struct review *review)
{
    struct buffer body;
    buffer_init(&body, MAX_REVIEW_BYTES);
    (void)buffer_append_text(&body, "{\"apiVersion\":\"authorization.k8s.io/v1\",\"kind\":"
                                    "\"SelfSubjectAccessReview\",\"spec\":{\"resourceAttributes\":"
                                    "{\"namespace\":");
    json_append_string(&body, bytes_from_text(kubernetes_api_namespace(api)));
    append_member(&body, "verb", review->right->verb);
    append_member(&body, "group", review->right->group);
    append_member(&body, "resource", review->right->resource);
    append_member(&body, "subresource", review->right->subresource);
    (void)buffer_append_text(&body, "}}}");
    struct kubernetes_call *call =
        kubernetes_api_call(api,
                            &(struct kubernetes_request){
                                .method = "POST", .resource = REVIEWS, .body = buffer_view(&body)},
                            on_review, review);
    buffer_fini(&body);
    return call;
}

struct kubernetes_rights *kubernetes_rights_ask(struct kubernetes_api *api,
                                                kubernetes_rights_fn *on_right,
                                                void (*on_done)(void *context), void *context)
{
    struct kubernetes_rights *rights = memory_new(sizeof(*rights));
    rights->on_right = on_right;
    rights->on_done = on_done;
    rights->context = context;
    rights->open_count = kubernetes_rights_count;
    for (size_t i = 0; i < kubernetes_rights_count; i++) {
        struct review *review = &rights->reviews[i];
        review->rights = rights;
        review->right = &kubernetes_rights_table[i];
        review->call = ask(api, review);
    }
    return rights;
}

void kubernetes_rights_cancel(struct kubernetes_rights **rights)
{
    for (size_t i = 0; *rights && i < kubernetes_rights_count; i++) {
        kubernetes_api_cancel(&(*rights)->reviews[i].call);
    }
    memory_free(rights);
}
