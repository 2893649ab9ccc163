/*
 * What to do with a request now: run it, wait, or end it on the spot (celery/worker/strategy.py,
 * celery/worker/request.py). It has no side effects: the pipeline carries the verdict out, and asks
 * again when a wait is over. Pure.
 */
#ifndef PETIOLE_DISPATCH_STRATEGY_H
#define PETIOLE_DISPATCH_STRATEGY_H

#include "base/error.h"
#include "dispatch/request.h"
#include "dispatch/revoked.h"

enum verdict_kind {
    VERDICT_RUN,
    VERDICT_WAIT,           /* until `until_wall_s`, then ask again */
    VERDICT_EXPIRED,        /* REVOKED, "expired" */
    VERDICT_REVOKED,        /* REVOKED, "revoked" */
    VERDICT_UNREGISTERED,   /* FAILURE NotRegistered */
    VERDICT_FOREIGN_TENANT, /* FAILURE TenantMismatch */
    VERDICT_UNSUPPORTED,    /* FAILURE: it asks for canvas, which would be lost silently */
};

struct verdict {
    enum verdict_kind kind;
    double until_wall_s;
    struct error reason; /* one sentence, for FOREIGN_TENANT and UNSUPPORTED */
};

/* Whose worker this is, and where messages say whose they are; all borrowed. */
struct strategy_rules {
    const char *tenant;            /* our own: namespace and queue */
    const char *tenant_path;       /* "kwargs.config.metadata.namespace" */
    const char *tenant_header;     /* "petiole_tenant" */
    const struct revoked *revoked; /* what clients have revoked; NULL: nothing */
};

/* Decides at `now_wall_s` for a request whose body is open (or whose type is NULL). */
void strategy_decide(const struct strategy_rules *rules, const struct request *request,
                     double now_wall_s, struct verdict *ret_verdict);

#endif
