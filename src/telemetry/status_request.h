/*
 * The head of one HTTP/1.x request, as the status server reads it (RFC 9112, without bodies). Pure:
 * bytes in, a verdict out.
 */
#ifndef PETIOLE_TELEMETRY_STATUS_REQUEST_H
#define PETIOLE_TELEMETRY_STATUS_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

struct status_request {
    struct bytes path; /* of the target, without a query; borrowed */
    bool is_head;      /* HEAD instead of GET */
    bool keeps_alive;  /* the connection may be used again */
    int refusal;       /* HTTP status to answer with; 0: it is a GET or HEAD that we understand */
    size_t length;     /* bytes of the request */
};

/* Reads a request from the beginning of `data`. False while its head is not complete. A request
 * that cannot be understood, or has a body, is complete with a refusal, and then the connection is
 * not kept alive. */
bool status_request_parse(struct bytes data, struct status_request *ret_request);

#endif
