/*
 * An error on its way up: what kind it is, so that code can decide, and one sentence, so that a
 * person can. It lives in a buffer of the caller, is written only on failure, and is logged once,
 * by whoever decides what to do.
 */
#ifndef PETIOLE_BASE_ERROR_H
#define PETIOLE_BASE_ERROR_H

#include <stdbool.h>

#include "base/attributes.h"

enum error_kind {
    ERROR_NONE,
    ERROR_INVALID,     /* input that can never be right: a message, a setting, a template */
    ERROR_REFUSED,     /* understood, and not allowed: rights, tenancy, content type */
    ERROR_TEMPORARY,   /* may succeed when tried again: network, server busy, quota */
    ERROR_NOT_FOUND,   /* what was asked for is not there */
    ERROR_CONFLICT,    /* somebody else was first */
    ERROR_TOO_LARGE,   /* a limit of ours or of a peer */
    ERROR_TIMEOUT,     /* no answer within the deadline */
    ERROR_UNSUPPORTED, /* right, but not something that we or the peer can do */
};

struct error {
    enum error_kind kind;
    char message[512]; /* one sentence, NUL-terminated, cut when longer */
};

/* Writes kind and message into `reterr` (NULL: nobody wants to know). Returns false, so that a
 * failing function can `return error_set(...)`. */
bool error_set(struct error *reterr, enum error_kind kind, const char *format, ...)
    PRINTF_FORMAT(3, 4);

/* Puts "<formatted>: " before the message of an error that is set; keeps its kind. Returns
 * false. */
bool error_wrap(struct error *reterr, const char *format, ...) PRINTF_FORMAT(2, 3);

/* A lower-case name of `kind` for logs and metrics ("temporary"). */
const char *error_kind_name(enum error_kind kind);

#endif
