#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/banned.h"

bool error_set(struct error *reterr, enum error_kind kind, const char *format, ...)
{
    if (!reterr) {
        return false;
    }
    reterr->kind = kind;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(reterr->message, sizeof(reterr->message), format, arguments);
    va_end(arguments);
    return false;
}

bool error_wrap(struct error *reterr, const char *format, ...)
{
    if (!reterr) {
        return false;
    }
    struct error inner = *reterr;
    va_list arguments;
    va_start(arguments, format);
    int written = vsnprintf(reterr->message, sizeof(reterr->message), format, arguments);
    va_end(arguments);
    if (written < 0 || (size_t)written + 2 >= sizeof(reterr->message)) {
        return false;
    }
    size_t used = (size_t)written;
    size_t room = sizeof(reterr->message) - used - 3;
    size_t inner_length = strnlen(inner.message, room);
    memcpy(reterr->message + used, ": ", 2);
    memcpy(reterr->message + used + 2, inner.message, inner_length);
    reterr->message[used + 2 + inner_length] = '\0';
    return false;
}

const char *error_kind_name(enum error_kind kind)
{
    static const char *const names[] = {
        [ERROR_NONE] = "none",
        [ERROR_INVALID] = "invalid",
        [ERROR_REFUSED] = "refused",
        [ERROR_TEMPORARY] = "temporary",
        [ERROR_NOT_FOUND] = "not_found",
        [ERROR_CONFLICT] = "conflict",
        [ERROR_TOO_LARGE] = "too_large",
        [ERROR_TIMEOUT] = "timeout",
        [ERROR_UNSUPPORTED] = "unsupported",
    };
    return (size_t)kind < ARRAY_LENGTH(names) ? names[kind] : "unknown";
}
