#include "executor/kubernetes_verdict.h"

#define STATUS_OK            200
#define STATUS_REDIRECT      300
#define STATUS_UNAUTHORIZED  401
#define STATUS_FORBIDDEN     403
#define STATUS_NOT_FOUND     404
#define STATUS_TIMEOUT       408
#define STATUS_CONFLICT      409
#define STATUS_GONE          410
#define STATUS_TOO_MANY      429
#define STATUS_SERVER_FAULTS 500

static bool says(const struct kubernetes_answer *answer, const char *words)
{
    return strstr(answer->message, words) != NULL;
}

static bool is_about(struct json body, const char *kind)
{
    struct json found = json_get(json_get(body, "details"), "kind");
    return found.type == JSON_TYPE_STRING && found.text.length == strlen(kind) + 2
           && memcmp(found.text.data + 1, kind, strlen(kind)) == 0;
}

static bool has_reason(struct json body, const char *reason)
{
    struct json found = json_get(body, "reason");
    return found.type == JSON_TYPE_STRING && found.text.length == strlen(reason) + 2
           && memcmp(found.text.data + 1, reason, strlen(reason)) == 0;
}

static enum kubernetes_verdict judge_conflict(const struct kubernetes_answer *answer)
{
    if (has_reason(answer->body, "AlreadyExists")) {
        return KUBERNETES_EXISTS;
    }
    return is_about(answer->body, "resourcequotas") || says(answer, "resourcequotas")
               ? KUBERNETES_QUOTA
               : KUBERNETES_CONFLICT;
}

static enum kubernetes_verdict judge_forbidden(const struct kubernetes_answer *answer)
{
    /* k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go */
    bool is_quota = says(answer, "exceeded quota") || says(answer, "status unknown for quota");
    return is_quota ? KUBERNETES_QUOTA : KUBERNETES_REFUSED;
}

/* Only the API server's own word counts: a Job that is not found has failed, and the page of a proxy
 * or load balancer on the way says nothing about it. */
static enum kubernetes_verdict judge_not_found(const struct kubernetes_answer *answer,
                                               bool has_name)
{
    bool is_object =
        has_name && has_reason(answer->body, "NotFound") && !is_about(answer->body, "namespaces");
    return is_object ? KUBERNETES_NOT_FOUND : KUBERNETES_REFUSED;
}

enum kubernetes_verdict kubernetes_verdict_of(const struct kubernetes_answer *answer,
                                              const struct error *error, bool has_name)
{
    int status = answer->status;
    if (status == 0) {
        bool is_hopeless = error && error->kind == ERROR_TOO_LARGE;
        return is_hopeless ? KUBERNETES_REFUSED : KUBERNETES_BUSY;
    }
    if (status >= STATUS_OK && status < STATUS_REDIRECT) {
        return KUBERNETES_DONE;
    }
    switch (status) {
    case STATUS_CONFLICT:
        return judge_conflict(answer);
    case STATUS_FORBIDDEN:
        return judge_forbidden(answer);
    case STATUS_NOT_FOUND:
        return judge_not_found(answer, has_name);
    case STATUS_GONE:
        return KUBERNETES_GONE;
    case STATUS_UNAUTHORIZED:
    case STATUS_TIMEOUT:
    case STATUS_TOO_MANY:
        return KUBERNETES_BUSY;
    default:
        break;
    }
    if (status >= STATUS_SERVER_FAULTS) {
        return says(answer, "quota evaluation timed out") ? KUBERNETES_QUOTA : KUBERNETES_BUSY;
    }
    return KUBERNETES_REFUSED;
}

bool kubernetes_verdict_is_denial(const struct kubernetes_answer *answer)
{
    return answer->status == STATUS_FORBIDDEN && answer->verdict == KUBERNETES_REFUSED
           && says(answer, " cannot ");
}
