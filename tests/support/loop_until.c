#include "support/loop_until.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void set_flag(void *context)
{
    *(bool *)context = true;
}

void loop_until_named(struct loop *loop, loop_until_fn *is_reached, void *context, const char *what)
{
    bool is_late = false;
    struct timer deadline = {.on_due = set_flag, .context = &is_late};
    loop_start_timer(loop, &deadline, LOOP_UNTIL_TIMEOUT_MS);
    while (!is_reached(context)) {
        if (is_late) {
            fail_msg("%s was not reached in %d ms", what, LOOP_UNTIL_TIMEOUT_MS);
        }
        loop_run_once(loop, true);
    }
    loop_stop_timer(loop, &deadline);
}

void loop_until_later(struct loop *loop, int64_t duration_ms)
{
    bool is_over = false;
    struct timer timer = {.on_due = set_flag, .context = &is_over};
    loop_start_timer(loop, &timer, duration_ms);
    while (!is_over) {
        loop_run_once(loop, true);
    }
}
