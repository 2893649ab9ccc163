/*
 * Turns a real loop until something is true, or fails the test: how tests wait for events.
 */
#ifndef PETIOLE_TESTS_SUPPORT_LOOP_UNTIL_H
#define PETIOLE_TESTS_SUPPORT_LOOP_UNTIL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"

#define LOOP_UNTIL_TIMEOUT_MS 20000

typedef bool(loop_until_fn)(void *context);

/* Turns `loop` until `is_reached`; the test fails after LOOP_UNTIL_TIMEOUT_MS, naming `what`. */
void loop_until_named(struct loop *loop, loop_until_fn *is_reached, void *context,
                      const char *what);
#define loop_until(loop, is_reached, context)                                                      \
    loop_until_named(loop, is_reached, context, #is_reached)

/* Turns `loop` for `duration_ms`: to show that something does not happen. */
void loop_until_later(struct loop *loop, int64_t duration_ms);

#endif
