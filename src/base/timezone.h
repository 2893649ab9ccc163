/*
 * A named time zone (the app's `timezone`), read once from the system's zone files through libc.
 * The process's own TZ, which logs use, stays as it is.
 */
#ifndef PETIOLE_BASE_TIMEZONE_H
#define PETIOLE_BASE_TIMEZONE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attributes.h"
#include "base/error.h"

#define TIMEZONE_MAX_CHANGES 64

/* Offsets east of UTC in seconds, from `from_s` on, for about twelve years after it was made. */
struct timezone_table {
    struct timezone_change {
        int64_t from_s; /* since 1970 */
        int offset_s;
    } changes[TIMEZONE_MAX_CHANGES];

    int count;
};

/* Reads zone `name` ("Asia/Taipei", "UTC"). Sets and restores TZ, so it must run before the first
 * thread. Error INVALID when the system has no such zone: install tzdata. */
bool timezone_load(const char *name, int64_t now_s, struct timezone_table *ret_table,
                   struct error *reterr) MUST_CHECK;

/* The offset at `wall_s`. */
int timezone_offset_s(const struct timezone_table *table, double wall_s);

#endif
