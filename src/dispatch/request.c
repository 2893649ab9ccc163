#include "dispatch/request.h"

#include <assert.h>

#define BIT(state) (1U << (state))

/* Row: from. Bits: where to. */
static const unsigned allowed_moves[] = {
    [REQUEST_RECEIVED] = BIT(REQUEST_SCHEDULED) | BIT(REQUEST_THROTTLED) | BIT(REQUEST_READY)
                         | BIT(REQUEST_RUNNING) | BIT(REQUEST_REPORTING) | BIT(REQUEST_DONE),
    [REQUEST_SCHEDULED] = BIT(REQUEST_RECEIVED) | BIT(REQUEST_DONE),
    [REQUEST_THROTTLED] = BIT(REQUEST_RECEIVED) | BIT(REQUEST_DONE),
    [REQUEST_READY] = BIT(REQUEST_RUNNING) | BIT(REQUEST_REPORTING) | BIT(REQUEST_DONE),
    [REQUEST_RUNNING] = BIT(REQUEST_READY) | BIT(REQUEST_REPORTING) | BIT(REQUEST_DONE),
    [REQUEST_REPORTING] = BIT(REQUEST_DONE),
    [REQUEST_DONE] = 0,
};

void request_move(struct request *request, enum request_state state)
{
    assert(allowed_moves[request->state] & BIT(state));
    request->state = state;
}

const char *request_state_name(enum request_state state)
{
    static const char *const names[] = {
        [REQUEST_RECEIVED] = "received",   [REQUEST_SCHEDULED] = "scheduled",
        [REQUEST_THROTTLED] = "throttled", [REQUEST_READY] = "ready",
        [REQUEST_RUNNING] = "running",     [REQUEST_REPORTING] = "reporting",
        [REQUEST_DONE] = "done",
    };
    return names[state];
}

static bool ignores_result(const struct request *request)
{
    if (request->message.ignore_result != MESSAGE_UNSET) {
        return request->message.ignore_result == MESSAGE_YES;
    }
    return request->type && request->type->ignore_result == MESSAGE_YES;
}

bool request_stores_result(const struct request *request)
{
    return !ignores_result(request);
}

bool request_stores_errors(const struct request *request)
{
    return !ignores_result(request)
           || (request->type && request->type->store_errors_even_if_ignored);
}
