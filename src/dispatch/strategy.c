#include "dispatch/strategy.h"

#include "dispatch/tenancy.h"

/* What a message asks to happen afterwards that nobody does here; NULL: nothing. Celery's own tracing
 * carries canvas out in a Python process, and in a container all but the count of a chord. */
static const char *unsupported_canvas(const struct message *message, enum task_executor executor)
{
    if (executor == TASK_PROCESS) {
        return NULL;
    }
    if (executor != TASK_NATIVE) {
        return message_asks_for(message->chord) ? "a chord" : NULL;
    }
    if (message_asks_for(message->callbacks)) {
        return "a callback (link)";
    }
    if (message_asks_for(message->chain)) {
        return "a chain";
    }
    if (message_asks_for(message->chord)) {
        return "a chord";
    }
    return message_asks_for(message->errbacks) ? "an errback (link_error)" : NULL;
}

void strategy_decide(const struct strategy_rules *rules, const struct request *request,
                     double now_wall_s, struct verdict *ret_verdict)
{
    const struct message *message = &request->message;
    *ret_verdict = (struct verdict){.kind = VERDICT_RUN};
    if (!request->type) {
        ret_verdict->kind = VERDICT_UNREGISTERED;
        return;
    }
    if (!tenancy_check(rules, request, &ret_verdict->reason)) {
        ret_verdict->kind = VERDICT_FOREIGN_TENANT;
        return;
    }
    /* Strictly later, as celery/worker/request.py: Request.maybe_expire. */
    if (message->expires.length > 0 && now_wall_s > message->expires_wall_s) {
        ret_verdict->kind = VERDICT_EXPIRED;
        return;
    }
    if (revoked_has(rules->revoked, message->id)) {
        ret_verdict->kind = VERDICT_REVOKED;
        return;
    }
    const char *canvas = unsupported_canvas(message, request->type->executor);
    if (canvas) {
        (void)error_set(
            &ret_verdict->reason, ERROR_UNSUPPORTED,
            "task %.*s[%.*s] asks for %s, which this version of Petiole does not carry out; "
            "send it without, or to a queue of a Python worker",
            BYTES_FORMAT(message->task), BYTES_FORMAT(message->id), canvas);
        ret_verdict->kind = VERDICT_UNSUPPORTED;
        return;
    }
    if (message->eta.length > 0 && message->eta_wall_s > now_wall_s) {
        ret_verdict->kind = VERDICT_WAIT;
        ret_verdict->until_wall_s = message->eta_wall_s;
    }
}
