#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sys/random.h>
#include <time.h>
#include <uv.h>

#include "base/memory.h"

#define LOOP_MAX_SIGNALS      8
#define LOOP_VIRTUAL_START_MS INT64_C(1000000)
#define LOOP_VIRTUAL_START_S  1767225600.0 /* 2026-01-01T00:00:00Z */
#define MS_PER_S              1000
#define NS_PER_MS             1000000

struct loop_signal {
    uv_signal_t handle;
    loop_signal_fn *on_signal;
    void *context;
};

struct loop {
    uv_loop_t uv;
    enum loop_clock clock;
    int64_t now_ms;
    uint64_t uv_read_ms; /* libuv's clock when now_ms was read */
    int64_t virtual_elapsed_ms;
    uint64_t virtual_random;
    struct timer_heap timers;
    uv_timer_t wake_up;       /* for the earliest timer; the heap holds the rest */
    uv_prepare_t before_wait; /* arms wake_up */
    uv_check_t after_wait;    /* reads the clock */
    uv_idle_t no_wait; /* runs while deferred calls are waiting, so that polling does not block */
    uv_async_t from_threads;
    struct list deferred;
    pthread_mutex_t posted_lock;
    struct list posted; /* guarded by posted_lock, as the count */
    size_t posted_count;
    struct loop_signal signals[LOOP_MAX_SIGNALS];
    size_t signal_count;
    bool is_stopping;
};

static int64_t read_clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * MS_PER_S + now.tv_nsec / NS_PER_MS;
}

static void refresh_clock(struct loop *loop)
{
    uv_update_time(&loop->uv);
    loop->now_ms = loop->clock == LOOP_CLOCK_REAL
                       ? read_clock_ms()
                       : LOOP_VIRTUAL_START_MS + loop->virtual_elapsed_ms;
    loop->uv_read_ms = uv_now(&loop->uv);
}

/* Makes the calls that were deferred before this moment; what they defer waits for the next
 * turn. */
static void run_deferred(struct loop *loop)
{
    struct list batch;
    list_init(&batch);
    struct list_node *node = NULL;
    while ((node = list_pop(&loop->deferred)) != NULL) {
        list_append(&batch, node);
    }
    while ((node = list_pop(&batch)) != NULL) {
        struct loop_call *call = list_entry(node, struct loop_call, node);
        call->function(call->context);
    }
}

static void on_wake_up(uv_timer_t *handle)
{
    (void)handle; /* the timers run in on_after_wait, once a turn */
}

static void on_no_wait(uv_idle_t *handle)
{
    (void)handle;
}

static void on_before_wait(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;
    if (list_is_empty(&loop->deferred)) {
        (void)uv_idle_stop(&loop->no_wait);
    } else {
        (void)uv_idle_start(&loop->no_wait, on_no_wait);
    }
    int64_t next_ms = timer_heap_next_ms(&loop->timers);
    if (next_ms == INT64_MAX || loop->clock == LOOP_CLOCK_VIRTUAL) {
        (void)uv_timer_stop(&loop->wake_up);
        return;
    }
    int64_t delay_ms = next_ms - read_clock_ms();
    uv_update_time(&loop->uv);
    (void)uv_timer_start(&loop->wake_up, on_wake_up, delay_ms > 0 ? (uint64_t)delay_ms : 0, 0);
}

static void on_after_wait(uv_check_t *handle)
{
    struct loop *loop = handle->data;
    refresh_clock(loop);
    run_deferred(loop);
    timer_heap_run(&loop->timers, loop->now_ms);
}

/* Takes the first posted call, or NULL. Its node is touched under the lock only: another thread may
 * post it again at any time. */
static struct loop_call *take_posted(struct loop *loop)
{
    (void)pthread_mutex_lock(&loop->posted_lock);
    struct list_node *node = list_pop(&loop->posted);
    loop->posted_count -= node ? 1 : 0;
    (void)pthread_mutex_unlock(&loop->posted_lock);
    return node ? list_entry(node, struct loop_call, node) : NULL;
}

static void on_posted(uv_async_t *handle)
{
    struct loop *loop = handle->data;
    refresh_clock(loop);
    (void)pthread_mutex_lock(&loop->posted_lock);
    size_t budget = loop->posted_count; /* what comes meanwhile has sent a wake-up of its own */
    (void)pthread_mutex_unlock(&loop->posted_lock);
    while (budget-- > 0) {
        struct loop_call *call = take_posted(loop);
        call->function(call->context);
    }
}

struct loop *loop_new(enum loop_clock clock)
{
    struct loop *loop = memory_new(sizeof(*loop));
    loop->clock = clock;
    int failed = uv_loop_init(&loop->uv);
    failed |= uv_timer_init(&loop->uv, &loop->wake_up);
    failed |= uv_prepare_init(&loop->uv, &loop->before_wait);
    failed |= uv_check_init(&loop->uv, &loop->after_wait);
    failed |= uv_idle_init(&loop->uv, &loop->no_wait);
    failed |= uv_async_init(&loop->uv, &loop->from_threads, on_posted);
    failed |= uv_prepare_start(&loop->before_wait, on_before_wait);
    failed |= uv_check_start(&loop->after_wait, on_after_wait);
    failed |= pthread_mutex_init(&loop->posted_lock, NULL);
    if (failed) {
        abort(); /* no descriptors or memory at the very start */
    }
    loop->before_wait.data = loop;
    loop->after_wait.data = loop;
    loop->from_threads.data = loop;
    timer_heap_init(&loop->timers);
    list_init(&loop->deferred);
    list_init(&loop->posted);
    refresh_clock(loop);
    return loop;
}

void loop_free(struct loop **loop_pointer)
{
    struct loop *loop = *loop_pointer;
    if (!loop) {
        return;
    }
    for (size_t index = 0; index < loop->signal_count; index++) {
        uv_close((uv_handle_t *)&loop->signals[index].handle, NULL);
    }
    uv_close((uv_handle_t *)&loop->wake_up, NULL);
    uv_close((uv_handle_t *)&loop->before_wait, NULL);
    uv_close((uv_handle_t *)&loop->after_wait, NULL);
    uv_close((uv_handle_t *)&loop->no_wait, NULL);
    uv_close((uv_handle_t *)&loop->from_threads, NULL);
    (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    int left_open = uv_loop_close(&loop->uv);
    assert(left_open == 0);
    (void)left_open;
    timer_heap_fini(&loop->timers);
    (void)pthread_mutex_destroy(&loop->posted_lock);
    memory_free(loop_pointer);
}

void loop_run(struct loop *loop)
{
    loop->is_stopping = false;
    while (!loop->is_stopping) {
        (void)uv_run(&loop->uv, UV_RUN_ONCE);
    }
}

void loop_run_once(struct loop *loop, bool wait)
{
    bool may_block = wait && loop->clock == LOOP_CLOCK_REAL;
    (void)uv_run(&loop->uv, may_block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

void loop_stop(struct loop *loop)
{
    loop->is_stopping = true;
}

void loop_advance(struct loop *loop, int64_t elapsed_ms)
{
    assert(loop->clock == LOOP_CLOCK_VIRTUAL);
    int64_t end_ms = loop->virtual_elapsed_ms + elapsed_ms;
    for (;;) {
        while (!list_is_empty(&loop->deferred)) {
            loop_run_once(loop, false);
        }
        int64_t next_ms = timer_heap_next_ms(&loop->timers) - LOOP_VIRTUAL_START_MS;
        if (next_ms > end_ms) {
            break;
        }
        if (next_ms > loop->virtual_elapsed_ms) {
            loop->virtual_elapsed_ms = next_ms;
        }
        loop_run_once(loop, false);
    }
    loop->virtual_elapsed_ms = end_ms;
    loop_run_once(loop, false);
}

struct uv_loop_s *loop_uv(struct loop *loop)
{
    return &loop->uv;
}

/* After a wait the callbacks of sockets come before on_after_wait; libuv's own clock is already
 * right for them. */
int64_t loop_now_ms(const struct loop *loop)
{
    if (loop->clock == LOOP_CLOCK_VIRTUAL) {
        return loop->now_ms;
    }
    uint64_t uv_now_ms = uv_now(&loop->uv);
    return uv_now_ms > loop->uv_read_ms ? loop->now_ms + (int64_t)(uv_now_ms - loop->uv_read_ms)
                                        : loop->now_ms;
}

double loop_wall_s(const struct loop *loop)
{
    if (loop->clock == LOOP_CLOCK_VIRTUAL) {
        return LOOP_VIRTUAL_START_S + (double)loop->virtual_elapsed_ms / MS_PER_S;
    }
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void loop_start_timer(struct loop *loop, struct timer *timer, int64_t delay_ms)
{
    int64_t delay = delay_ms > 0 ? delay_ms : 0;
    int64_t now_ms = loop_now_ms(loop);
    int64_t due_ms = delay > INT64_MAX - now_ms ? INT64_MAX - 1 : now_ms + delay;
    timer_heap_start(&loop->timers, timer, due_ms);
}

void loop_stop_timer(struct loop *loop, struct timer *timer)
{
    timer_heap_stop(&loop->timers, timer);
}

void loop_defer(struct loop *loop, struct loop_call *call)
{
    if (!list_is_linked(&call->node)) {
        list_append(&loop->deferred, &call->node);
    }
    /* The prepare handle has run already when the call comes from its own phase or a later one of
     * this turn. */
    (void)uv_idle_start(&loop->no_wait, on_no_wait);
}

void loop_cancel(struct loop *loop, struct loop_call *call)
{
    (void)loop;
    list_remove(&call->node);
}

void loop_post(struct loop *loop, struct loop_call *call)
{
    (void)pthread_mutex_lock(&loop->posted_lock);
    if (!list_is_linked(&call->node)) {
        list_append(&loop->posted, &call->node);
        loop->posted_count++;
    }
    (void)pthread_mutex_unlock(&loop->posted_lock);
    (void)uv_async_send(&loop->from_threads);
}

static void on_uv_signal(uv_signal_t *handle, int signal_number)
{
    struct loop_signal *entry = handle->data;
    entry->on_signal(entry->context, signal_number);
}

bool loop_on_signal(struct loop *loop, int signal_number, loop_signal_fn *on_signal, void *context,
                    struct error *reterr)
{
    if (loop->signal_count == LOOP_MAX_SIGNALS) {
        return error_set(reterr, ERROR_TOO_LARGE, "no more than %d signals can be watched",
                         LOOP_MAX_SIGNALS);
    }
    struct loop_signal *entry = &loop->signals[loop->signal_count];
    entry->on_signal = on_signal;
    entry->context = context;
    entry->handle.data = entry;
    int failed = uv_signal_init(&loop->uv, &entry->handle);
    if (!failed) {
        loop->signal_count++;
        failed = uv_signal_start(&entry->handle, on_uv_signal, signal_number);
    }
    if (failed) {
        return error_set(reterr, ERROR_INVALID, "cannot watch signal %d: %s", signal_number,
                         uv_strerror(failed));
    }
    uv_unref((uv_handle_t *)&entry->handle);
    return true;
}

uint64_t loop_random(struct loop *loop)
{
    if (loop->clock == LOOP_CLOCK_VIRTUAL) {
        return ++loop->virtual_random;
    }
    uint64_t number = 0;
    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number)) {
        number = (uint64_t)read_clock_ms() * UINT64_C(0x9e3779b97f4a7c15);
    }
    return number;
}

int64_t loop_backoff_ms(struct loop *loop, int64_t delay_ms, unsigned attempt, int64_t maximum_ms)
{
    int64_t limit_ms = delay_ms;
    for (unsigned step = 0; step < attempt && limit_ms < maximum_ms; step++) {
        limit_ms *= 2;
    }
    if (limit_ms > maximum_ms) {
        limit_ms = maximum_ms;
    }
    int64_t half_ms = limit_ms / 2;
    return half_ms + (int64_t)(loop_random(loop) % (uint64_t)(limit_ms - half_ms + 1));
}
