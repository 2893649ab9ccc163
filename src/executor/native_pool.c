#include "executor/native_pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/log.h"
#include "base/memory.h"

#define BEGUN_DELAY_MS   2    /* how long a running job may go untold */
#define REFILL_DELAY_MS  1000 /* until a missing thread is tried again */
#define MAX_NOTES        1000
#define MAX_WAIT_S       1e9
#define NS_PER_S         INT64_C(1000000000)
#define NS_PER_MS        INT64_C(1000000)
#define THREAD_NAME_SIZE 16

struct note {
    struct list_node node;
    int level;
    char *text; /* owned */
};

struct native_thread {
    struct list_node node; /* the pool's threads; the loop's */
    struct native_pool *pool;
    pthread_t handle;
    pthread_cond_t is_cancelled; /* with the pool's lock */
    struct native_job *job;      /* guarded; NULL while idle */
    bool is_abandoned;           /* guarded */
};

struct native_pool {
    struct loop *loop;
    const struct native_pool_events *events;
    void *context;
    size_t thread_count;

    /* The loop's */
    struct list threads;
    size_t live_count;   /* length of `threads` */
    struct list pending; /* submitted in this turn */
    size_t pending_count;
    size_t untold_count; /* handed over, on_begun not called */
    struct loop_call flush;
    struct loop_call posted;
    struct timer check;

    /* Guarded by `lock` */
    pthread_mutex_t lock;
    pthread_cond_t has_work;
    struct list queue;
    struct list done;
    struct list notes;
    size_t note_count;
    size_t dropped_note_count;
    size_t idle_count;
    size_t abandoned_count;
    bool is_posted; /* `posted` is on its way */
    bool is_stopping;
    bool is_closed; /* the last abandoned thread frees the pool */
};

static int64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void lock_pool(struct native_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
}

static void unlock_pool(struct native_pool *pool)
{
    (void)pthread_mutex_unlock(&pool->lock);
}

static void free_pool(struct native_pool *pool)
{
    (void)pthread_cond_destroy(&pool->has_work);
    (void)pthread_mutex_destroy(&pool->lock);
    memory_free(&pool);
}

static void free_thread(struct native_thread *thread)
{
    (void)pthread_cond_destroy(&thread->is_cancelled);
    memory_free(&thread);
}

/* On the threads */

/* Whether the caller, who holds the lock, must post when it has let go of it. */
static bool needs_post(struct native_pool *pool)
{
    if (pool->is_posted) {
        return false;
    }
    pool->is_posted = true;
    return true;
}

/* Waits for a job and takes it; NULL when the pool is being closed. Holds the lock. */
static struct native_job *take_job(struct native_thread *thread)
{
    struct native_pool *pool = thread->pool;
    while (list_is_empty(&pool->queue) && !pool->is_stopping) {
        pool->idle_count++;
        (void)pthread_cond_wait(&pool->has_work, &pool->lock);
        pool->idle_count--;
    }
    struct list_node *node = list_pop(&pool->queue);
    if (!node) {
        return NULL;
    }
    struct native_job *job = list_entry(node, struct native_job, node);
    job->begun_ns = now_ns();
    job->thread = thread;
    thread->job = job;
    return job;
}

/* Hands a finished job back. Called and returns with the lock; lets go of it to wake the loop. */
static void give_back(struct native_thread *thread, struct native_job *job)
{
    struct native_pool *pool = thread->pool;
    thread->job = NULL;
    job->thread = NULL;
    list_append(&pool->done, &job->node);
    if (needs_post(pool)) {
        unlock_pool(pool);
        loop_post(pool->loop, &pool->posted);
        lock_pool(pool);
    }
}

/* The end of a thread that was given up. Called with the lock, which may be gone afterwards. */
static void leave_pool(struct native_thread *thread, struct native_job *job)
{
    struct native_pool *pool = thread->pool;
    pool->abandoned_count--;
    bool is_last = pool->is_closed && pool->abandoned_count == 0;
    unlock_pool(pool);
    job->free(job);
    free_thread(thread);
    if (is_last) {
        free_pool(pool);
    }
}

static void *run_thread(void *argument)
{
    struct native_thread *thread = argument;
    struct native_pool *pool = thread->pool;
    lock_pool(pool);
    struct native_job *job = NULL;
    while ((job = take_job(thread)) != NULL) {
        unlock_pool(pool);
        job->run(job);
        job->ended_ns = now_ns();
        lock_pool(pool);
        if (thread->is_abandoned) {
            leave_pool(thread, job);
            return NULL;
        }
        give_back(thread, job);
    }
    unlock_pool(pool);
    return NULL;
}

/* Starting threads */

static void init_monotonic_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

/* Threads start with all signals blocked: those of the process are the loop's. */
static int create_thread(struct native_thread *thread)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread->handle, NULL, run_thread, thread);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static bool add_thread(struct native_pool *pool, struct error *reterr)
{
    struct native_thread *thread = memory_new(sizeof(*thread));
    thread->pool = pool;
    init_monotonic_condition(&thread->is_cancelled);
    int failed = create_thread(thread);
    if (failed) {
        free_thread(thread);
        char reason[128];
        return error_set(reterr, ERROR_TEMPORARY, "a thread for native tasks cannot be started: %s",
                         strerror_r(failed, reason, sizeof(reason)));
    }
    char name[THREAD_NAME_SIZE];
    (void)snprintf(name, sizeof(name), "native-%zu", pool->live_count + 1);
    (void)pthread_setname_np(thread->handle, name);
    list_append(&pool->threads, &thread->node);
    pool->live_count++;
    return true;
}

static void fill_threads(struct native_pool *pool)
{
    while (pool->live_count < pool->thread_count && add_thread(pool, NULL)) {
    }
}

/* On the loop */

/* Arms the check when something may begin that nobody has been told of. */
static void arm_check(struct native_pool *pool)
{
    if (timer_is_armed(&pool->check)) {
        return;
    }
    if (pool->live_count < pool->thread_count) {
        loop_start_timer(pool->loop, &pool->check, REFILL_DELAY_MS);
    } else if (pool->untold_count > 0) {
        loop_start_timer(pool->loop, &pool->check, BEGUN_DELAY_MS);
    }
}

/* Hands over what was submitted in this turn, with one lock and a wake-up for each thread in
 * need. */
static void on_flush(void *context)
{
    struct native_pool *pool = context;
    struct list_node *node = NULL;
    fill_threads(pool);
    lock_pool(pool);
    size_t wake_count =
        pool->pending_count < pool->idle_count ? pool->pending_count : pool->idle_count;
    while ((node = list_pop(&pool->pending)) != NULL) {
        list_entry(node, struct native_job, node)->is_handed_over = true;
        list_append(&pool->queue, node);
    }
    for (size_t i = 0; i < wake_count; i++) {
        (void)pthread_cond_signal(&pool->has_work);
    }
    unlock_pool(pool);
    pool->untold_count += pool->pending_count;
    pool->pending_count = 0;
    arm_check(pool);
}

static void tell_begun(struct native_pool *pool, struct native_job *job)
{
    if (job->is_begun_told) {
        return;
    }
    job->is_begun_told = true;
    pool->untold_count--;
    int64_t elapsed_ms = (now_ns() - job->begun_ns) / NS_PER_MS;
    pool->events->on_begun(pool->context, job, elapsed_ms);
}

/* Tells of jobs that have been running for a while. One that ends meanwhile stays valid: only the
 * loop takes it from `done`. */
static void on_check(void *context)
{
    struct native_pool *pool = context;
    size_t busy_count = 0;
    fill_threads(pool);
    list_for_each(node, following, &pool->threads) {
        struct native_thread *thread = list_entry(node, struct native_thread, node);
        lock_pool(pool);
        struct native_job *job = thread->job;
        unlock_pool(pool);
        if (job) {
            busy_count++;
            tell_begun(pool, job);
        }
    }
    /* With a full house nothing begins before something is done, which arms the check again. */
    if (busy_count < pool->thread_count) {
        arm_check(pool);
    }
}

static void tell_notes(struct native_pool *pool, struct list *notes, size_t dropped_count)
{
    struct list_node *node = NULL;
    while ((node = list_pop(notes)) != NULL) {
        struct note *note = list_entry(node, struct note, node);
        pool->events->on_note(pool->context, note->level, note->text);
        memory_free(&note->text);
        memory_free(&note);
    }
    if (dropped_count > 0) {
        char text[80];
        (void)snprintf(text, sizeof(text), "%zu log lines of native tasks were dropped",
                       dropped_count);
        pool->events->on_note(pool->context, LOG_WARNING, text);
    }
}

static void move_all(struct list *from, struct list *to)
{
    struct list_node *node = NULL;
    while ((node = list_pop(from)) != NULL) {
        list_append(to, node);
    }
}

static void on_posted(void *context)
{
    struct native_pool *pool = context;
    struct list done;
    struct list notes;
    list_init(&done);
    list_init(&notes);
    lock_pool(pool);
    pool->is_posted = false;
    move_all(&pool->done, &done);
    move_all(&pool->notes, &notes);
    size_t dropped_count = pool->dropped_note_count;
    pool->dropped_note_count = 0;
    pool->note_count = 0;
    unlock_pool(pool);
    tell_notes(pool, &notes, dropped_count);
    struct list_node *node = NULL;
    while ((node = list_pop(&done)) != NULL) {
        struct native_job *job = list_entry(node, struct native_job, node);
        tell_begun(pool, job);
        double runtime_s = (double)(job->ended_ns - job->begun_ns) / (double)NS_PER_S;
        pool->events->on_done(pool->context, job, runtime_s);
    }
    arm_check(pool);
    pool->events->on_batch_end(pool->context);
}

/* Public functions: the pool */

struct native_pool *native_pool_new(struct loop *loop, size_t thread_count,
                                    const struct native_pool_events *events, void *context,
                                    struct error *reterr)
{
    struct native_pool *pool = memory_new(sizeof(*pool));
    pool->loop = loop;
    pool->events = events;
    pool->context = context;
    pool->thread_count = thread_count;
    list_init(&pool->threads);
    list_init(&pool->pending);
    list_init(&pool->queue);
    list_init(&pool->done);
    list_init(&pool->notes);
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->has_work, NULL);
    pool->flush = (struct loop_call){.function = on_flush, .context = pool};
    pool->posted = (struct loop_call){.function = on_posted, .context = pool};
    pool->check = (struct timer){.on_due = on_check, .context = pool};
    while (pool->live_count < thread_count) {
        if (!add_thread(pool, reterr)) {
            (void)native_pool_close(&pool);
            return NULL;
        }
    }
    return pool;
}

static void join_threads(struct native_pool *pool)
{
    struct list_node *node = NULL;
    while ((node = list_pop(&pool->threads)) != NULL) {
        struct native_thread *thread = list_entry(node, struct native_thread, node);
        (void)pthread_join(thread->handle, NULL);
        free_thread(thread);
    }
}

bool native_pool_close(struct native_pool **pool_pointer)
{
    struct native_pool *pool = *pool_pointer;
    lock_pool(pool);
    if (pool->is_posted) {
        unlock_pool(pool);
        return false;
    }
    assert(list_is_empty(&pool->queue) && list_is_empty(&pool->pending));
    pool->is_stopping = true;
    (void)pthread_cond_broadcast(&pool->has_work);
    unlock_pool(pool);
    loop_cancel(pool->loop, &pool->flush);
    loop_stop_timer(pool->loop, &pool->check);
    /* Nothing runs on them, so they end at once. */
    join_threads(pool);
    lock_pool(pool);
    pool->is_closed = true;
    bool is_last = pool->abandoned_count == 0;
    unlock_pool(pool);
    if (is_last) {
        free_pool(pool);
    }
    *pool_pointer = NULL;
    return true;
}

size_t native_pool_missing_threads(const struct native_pool *pool)
{
    return pool->thread_count - pool->live_count;
}

/* Public functions: jobs */

void native_pool_submit(struct native_pool *pool, struct native_job *job)
{
    job->pool = pool;
    list_append(&pool->pending, &job->node);
    pool->pending_count++;
    loop_defer(pool->loop, &pool->flush);
}

bool native_pool_withdraw(struct native_pool *pool, struct native_job *job)
{
    if (!job->is_handed_over) {
        list_remove(&job->node);
        pool->pending_count--;
        return true;
    }
    lock_pool(pool);
    bool is_queued = job->begun_ns == 0;
    if (is_queued) {
        list_remove(&job->node);
        pool->untold_count--;
    }
    unlock_pool(pool);
    return is_queued;
}

/* Called with the lock. */
static void tell_cancelled(struct native_job *job, int reason)
{
    atomic_store_explicit(&job->cancel_reason, reason, memory_order_relaxed);
    if (job->thread) {
        (void)pthread_cond_signal(&job->thread->is_cancelled);
    }
}

void native_pool_cancel(struct native_pool *pool, struct native_job *job, int reason)
{
    lock_pool(pool);
    tell_cancelled(job, reason);
    unlock_pool(pool);
}

bool native_pool_abandon(struct native_pool *pool, struct native_job *job, int reason)
{
    lock_pool(pool);
    struct native_thread *thread = job->thread;
    if (!thread) {
        unlock_pool(pool);
        return false;
    }
    /* Without the lock, both may be gone. */
    tell_cancelled(job, reason);
    thread->is_abandoned = true;
    pool->abandoned_count++;
    pool->untold_count -= job->is_begun_told ? 0 : 1;
    list_remove(&thread->node);
    pool->live_count--;
    (void)pthread_detach(thread->handle);
    unlock_pool(pool);
    fill_threads(pool);
    arm_check(pool);
    return true;
}

/* Public functions: on a job's thread */

int native_pool_is_cancelled(const struct native_job *job)
{
    return atomic_load_explicit(&job->cancel_reason, memory_order_relaxed);
}

int native_pool_wait(struct native_job *job, double seconds)
{
    double bounded_s = seconds < MAX_WAIT_S ? seconds : MAX_WAIT_S;
    int64_t wait_ns = seconds > 0.0 ? (int64_t)(bounded_s * (double)NS_PER_S) : 0;
    int64_t end_ns = now_ns() + wait_ns;
    struct timespec end = {.tv_sec = (time_t)(end_ns / NS_PER_S), .tv_nsec = end_ns % NS_PER_S};
    struct native_pool *pool = job->pool;
    int reason = 0;
    int waited = 0;
    lock_pool(pool);
    while ((reason = native_pool_is_cancelled(job)) == 0 && waited == 0) {
        waited = pthread_cond_timedwait(&job->thread->is_cancelled, &pool->lock, &end);
    }
    unlock_pool(pool);
    return reason;
}

void native_pool_note(struct native_job *job, int level, struct bytes text)
{
    struct native_pool *pool = job->pool;
    struct note *note = memory_new(sizeof(*note));
    note->level = level;
    note->text = memory_text(text);
    bool must_post = false;
    lock_pool(pool);
    if (job->thread->is_abandoned || pool->note_count == MAX_NOTES) {
        pool->dropped_note_count += job->thread->is_abandoned ? 0 : 1;
        memory_free(&note->text);
        memory_free(&note);
    } else {
        list_append(&pool->notes, &note->node);
        pool->note_count++;
        must_post = needs_post(pool);
    }
    unlock_pool(pool);
    if (must_post) {
        loop_post(pool->loop, &pool->posted);
    }
}
