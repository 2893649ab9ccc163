#include "executor/executor_native.h"

#include <petiole.h>

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "executor/native_pool.h"
#include "executor/plugin.h"
#include "executor/plugin_host.h"

#define KILL_GRACE_MS   1000
#define MS_PER_S        1000.0
#define MAX_LIMIT_S     1e9
#define MAX_NOTE_BYTES  8192
#define MAX_NOTICE_SIZE 512

struct executor_native {
    struct executor base;
    struct loop *loop;
    const struct plugin_set *plugins;
    char *hostname; /* owned */
    size_t thread_count;
    int64_t cancel_grace_ms;
    const struct executor_events *events;
    void *context;
    struct native_pool *pool; /* owned */
    struct list runs;         /* handed to the pool */
    struct list early;        /* ended without the pool; told by `early_call` */
    size_t run_count;         /* in both lists */
    bool has_freed_slots;     /* since on_free_slots was called */
    struct loop_call ready_call;
    struct loop_call early_call;
    struct loop_call close_call;
    bool is_closing;
    void (*on_closed)(void *context);
    void *closed_context;
};

/* Why a run is to end other than by itself. */
enum run_end {
    RUN_GOES_ON,
    RUN_IS_REVOKED,
    RUN_IS_KILLED,
};

/* One submission. `job`, `call`, `function`, `outcome` and `texts` are the thread's while it runs;
 * when the run has been given up, all of it is. */
struct native_run {
    struct native_job job; /* the head */
    struct plugin_host_call call;
    petiole_task_function *function;
    struct outcome outcome; /* borrows from `call`, or from the request's arena */

    struct executor_native *executor;
    struct request *request;
    struct list_node node;
    struct timer timer; /* the next time limit, or the end of a grace period */
    int64_t begun_ms;
    int64_t soft_limit_ms; /* since begun_ms; 0: none, or passed */
    int64_t hard_limit_ms;
    enum run_end end;
    bool is_early; /* in the list `early` */
    char texts[];
};

static struct executor_native *native_of(struct executor *executor)
{
    return CONTAINER_OF(executor, struct executor_native, base);
}

static const struct executor_native *const_native_of(const struct executor *executor)
{
    return (const struct executor_native *)(const void *)executor; /* the head of its struct */
}

static struct native_run *run_of(struct native_job *job)
{
    return CONTAINER_OF(job, struct native_run, job);
}

/* On the threads */

static enum petiole_cancel run_is_cancelled(void *context)
{
    const struct native_run *run = context;
    return (enum petiole_cancel)native_pool_is_cancelled(&run->job);
}

static enum petiole_cancel run_wait(void *context, double seconds)
{
    struct native_run *run = context;
    return (enum petiole_cancel)native_pool_wait(&run->job, seconds);
}

static enum log_level log_level_of(enum petiole_log_level level)
{
    static const enum log_level levels[] = {
        [PETIOLE_LOG_DEBUG] = LOG_DEBUG,       [PETIOLE_LOG_INFO] = LOG_INFO,
        [PETIOLE_LOG_WARNING] = LOG_WARNING,   [PETIOLE_LOG_ERROR] = LOG_ERROR,
        [PETIOLE_LOG_CRITICAL] = LOG_CRITICAL,
    };

    return (size_t)level < ARRAY_LENGTH(levels) ? levels[level] : LOG_INFO;
}

static void run_log(void *context, enum petiole_log_level level, struct bytes text)
{
    struct native_run *run = context;
    const struct petiole_task_call *call = &run->call.call;
    struct buffer line CLEANUP(buffer_fini);
    buffer_init(&line, MAX_NOTE_BYTES + call->task_name.length + call->task_id.length);
    (void)buffer_append(&line, bytes_of(call->task_name.data, call->task_name.length));
    (void)buffer_append_byte(&line, '[');
    (void)buffer_append(&line, bytes_of(call->task_id.data, call->task_id.length));
    (void)buffer_append_text(&line, "]: ");
    (void)buffer_append(&line, text);
    native_pool_note(&run->job, (int)log_level_of(level), buffer_view(&line));
}

static const struct plugin_host_runner run_runner = {run_is_cancelled, run_wait, run_log};

static void run_function(struct native_job *job)
{
    struct native_run *run = run_of(job);
    plugin_host_run(&run->call, run->function, &run->outcome);
}

static void free_run(struct native_job *job)
{
    struct native_run *run = run_of(job);
    plugin_host_fini(&run->call);
    memory_free(&run);
}

/* Making a run: the request's texts are copied, because the body may outlive the request */

static struct petiole_text copy_text(char **position, struct bytes text)
{
    struct petiole_text copy = {*position, text.length};
    if (text.length > 0) {
        memcpy(*position, text.data, text.length);
    }
    *position += text.length;
    return copy;
}

static struct petiole_json copy_json(char **position, struct json value, enum json_type type)
{
    if (value.type != type) {
        value.text = type == JSON_TYPE_ARRAY ? BYTES("[]") : BYTES("{}");
    }
    return (struct petiole_json){
        type == JSON_TYPE_ARRAY ? PETIOLE_JSON_ARRAY : PETIOLE_JSON_OBJECT,
        copy_text(position, value.text),
    };
}

static void fill_call(struct native_run *run, const struct message *message, const char *hostname)
{
    char *position = run->texts;
    struct petiole_task_call *call = &run->call.call;
    call->task_name = copy_text(&position, message->task);
    call->task_id = copy_text(&position, message->id);
    call->hostname = copy_text(&position, bytes_from_text(hostname));
    call->args = copy_json(&position, message->args, JSON_TYPE_ARRAY);
    call->kwargs = copy_json(&position, message->kwargs, JSON_TYPE_OBJECT);
    call->retries = message->retries;
    plugin_host_init(&run->call, &run_runner, run);
}

static int64_t limit_ms(double limit_s)
{
    double bounded_s = limit_s < MAX_LIMIT_S ? limit_s : MAX_LIMIT_S;
    int64_t floor_ms = (int64_t)(bounded_s * MS_PER_S);
    return limit_s > 0.0 ? floor_ms + 1 : 0;
}

static struct native_run *new_run(struct executor_native *native, struct request *request)
{
    const struct message *message = &request->message;
    size_t texts_bytes = message->task.length + message->id.length + strlen(native->hostname)
                         + message->args.text.length + message->kwargs.text.length + strlen("[]{}");
    struct native_run *run = memory_new(sizeof(*run) + texts_bytes);
    run->job.run = run_function;
    run->job.free = free_run;
    run->executor = native;
    run->request = request;
    run->soft_limit_ms = limit_ms(executor_soft_limit_s(request));
    run->hard_limit_ms = limit_ms(executor_hard_limit_s(request));
    fill_call(run, message, native->hostname);
    request->executor_data = run;
    native->run_count++;
    return run;
}

/* Ending a run */

static void defer_close(struct executor_native *native)
{
    if (native->is_closing && native->run_count == 0) {
        loop_defer(native->loop, &native->close_call);
    }
}

static void tell_free_slots(struct executor_native *native)
{
    if (native->has_freed_slots && !native->is_closing) {
        native->has_freed_slots = false;
        native->events->on_free_slots(native->context, &native->base);
    }
}

/* Takes the run from the executor and tells the outcome. The run itself is the caller's to free, or
 * its thread's. */
static void finish_request(struct executor_native *native, struct request *request,
                           const struct outcome *outcome)
{
    native->run_count--;
    native->has_freed_slots = true;
    request->executor_data = NULL;
    native->events->on_finished(native->context, request, outcome);
    defer_close(native);
}

static void detach_run(struct native_run *run)
{
    list_remove(&run->node);
    loop_stop_timer(run->executor->loop, &run->timer);
}

static void on_early(void *context)
{
    struct executor_native *native = context;
    struct list_node *node = NULL;
    while ((node = list_pop(&native->early)) != NULL) {
        struct native_run *run = list_entry(node, struct native_run, node);
        finish_request(native, run->request, &run->outcome);
        free_run(&run->job);
    }
    tell_free_slots(native);
}

/* Ends a run that no thread has, with `run->outcome`. */
static void finish_early(struct native_run *run)
{
    detach_run(run);
    run->is_early = true;
    list_append(&run->executor->early, &run->node);
    loop_defer(run->executor->loop, &run->executor->early_call);
}

/* Asks a running body to end, gives it up and reports `outcome`. When it has just ended, on_done
 * reports. */
static void give_up(struct native_run *run, struct outcome *outcome)
{
    struct executor_native *native = run->executor;
    struct request *request = run->request;
    outcome->runtime_s = (double)(loop_now_ms(native->loop) - run->begun_ms) / MS_PER_S;
    detach_run(run);
    if (native_pool_abandon(native->pool, &run->job, PETIOLE_TERMINATED)) {
        finish_request(native, request, outcome);
        tell_free_slots(native);
    } else {
        list_append(&native->runs, &run->node);
    }
}

static const char lost_sentence[] = "Worker shut down before the task ended.";

/* Of a run that was taken back before a thread began it. */
static void set_withdrawn_outcome(struct native_run *run)
{
    if (run->end == RUN_IS_REVOKED) {
        executor_revoked(run->request->arena, "terminated", &run->outcome);
    } else {
        executor_given_back(&run->outcome);
    }
}

static void set_end_outcome(const struct native_run *run, struct outcome *ret_outcome)
{
    struct arena *arena = run->request->arena;
    if (run->end == RUN_IS_REVOKED) {
        executor_revoked(arena, "terminated", ret_outcome);
    } else {
        executor_lost(arena, lost_sentence, ret_outcome);
    }
}

/* Time limits */

static void notice_limit(const struct native_run *run, enum log_level level, const char *which,
                         double limit_s)
{
    const struct message *message = &run->request->message;
    char text[MAX_NOTICE_SIZE];
    (void)snprintf(text, sizeof(text), "%s time limit (%gs) exceeded for %.*s[%.*s]", which,
                   limit_s, BYTES_FORMAT(message->task), BYTES_FORMAT(message->id));
    run->executor->events->on_notice(run->executor->context, (int)level, text);
}

/* Arms the timer for the limit that comes next, counted from the beginning of the body. */
static void arm_limit(struct native_run *run)
{
    struct loop *loop = run->executor->loop;
    int64_t next_ms = run->soft_limit_ms > 0 ? run->soft_limit_ms : run->hard_limit_ms;
    if (next_ms > 0) {
        loop_start_timer(loop, &run->timer, run->begun_ms + next_ms - loop_now_ms(loop));
    }
}

static void pass_soft_limit(struct native_run *run)
{
    bool is_first = run->hard_limit_ms == 0 || run->soft_limit_ms < run->hard_limit_ms;
    run->soft_limit_ms = 0;
    if (is_first) {
        notice_limit(run, LOG_WARNING, "Soft", executor_soft_limit_s(run->request));
        native_pool_cancel(run->executor->pool, &run->job, PETIOLE_SOFT_TIME_LIMIT);
    }
    arm_limit(run);
}

static void on_timer(void *context)
{
    struct native_run *run = context;
    struct outcome outcome;
    if (run->end != RUN_GOES_ON) {
        set_end_outcome(run, &outcome);
        give_up(run, &outcome);
    } else if (run->soft_limit_ms > 0) {
        pass_soft_limit(run);
    } else {
        double limit_s = executor_hard_limit_s(run->request);
        notice_limit(run, LOG_ERROR, "Hard", limit_s);
        executor_timed_out(run->request->arena, limit_s, &outcome);
        give_up(run, &outcome);
    }
}

/* Asks a run to end: at once when no thread has begun it, else within `grace_ms`. */
static void end_run(struct native_run *run, enum run_end end, int64_t grace_ms)
{
    struct executor_native *native = run->executor;
    if (run->end != RUN_IS_REVOKED) {
        run->end = end;
    }
    if (native_pool_withdraw(native->pool, &run->job)) {
        set_withdrawn_outcome(run);
        finish_early(run);
        return;
    }
    native_pool_cancel(native->pool, &run->job, PETIOLE_TERMINATED);
    loop_start_timer(native->loop, &run->timer, grace_ms);
}

/* Events of the pool */

static void on_begun(void *context, struct native_job *job, int64_t elapsed_ms)
{
    struct executor_native *native = context;
    struct native_run *run = run_of(job);
    run->begun_ms = loop_now_ms(native->loop) - elapsed_ms;
    if (run->end == RUN_GOES_ON) {
        arm_limit(run);
    }
    native->events->on_started(native->context, run->request, bytes_of(NULL, 0));
}

/* Whether what the body replied is still what is reported. A task that went on to its end although
 * the worker is being killed has a result like any other. */
static bool is_reply_wanted(const struct native_run *run)
{
    bool has_result = run->outcome.kind == OUTCOME_SUCCESS;
    return run->end == RUN_GOES_ON || (run->end == RUN_IS_KILLED && has_result);
}

static void on_done(void *context, struct native_job *job, double runtime_s)
{
    struct executor_native *native = context;
    struct native_run *run = run_of(job);
    detach_run(run);
    if (!is_reply_wanted(run)) {
        set_end_outcome(run, &run->outcome);
    }
    run->outcome.runtime_s = runtime_s;
    finish_request(native, run->request, &run->outcome);
    free_run(job);
}

static void on_batch_end(void *context)
{
    struct executor_native *native = context;
    tell_free_slots(native);
    defer_close(native);
}

static void on_note(void *context, int level, const char *text)
{
    struct executor_native *native = context;
    native->events->on_notice(native->context, level, text);
}

static const struct native_pool_events pool_events = {on_begun, on_done, on_batch_end, on_note};

/* The interface */

static void on_ready(void *context)
{
    struct executor_native *native = context;
    native->events->on_ready(native->context, &native->base);
}

static void native_start(struct executor *executor)
{
    struct executor_native *native = native_of(executor);
    loop_defer(native->loop, &native->ready_call);
}

static size_t native_free_slots(const struct executor *executor)
{
    const struct executor_native *native = const_native_of(executor);
    size_t place_count = native->thread_count + EXECUTOR_NATIVE_QUEUE_LENGTH;
    return native->is_closing || native->run_count >= place_count ? 0
                                                                  : place_count - native->run_count;
}

static void native_submit(struct executor *executor, struct request *request)
{
    struct executor_native *native = native_of(executor);
    struct native_run *run = new_run(native, request);
    run->timer = (struct timer){.on_due = on_timer, .context = run};
    const struct petiole_task *task = plugin_set_find(native->plugins, request->message.task);
    if (!task) {
        executor_not_registered(request->arena, request->message.task, &run->outcome);
        finish_early(run);
        return;
    }
    run->function = task->function;
    list_append(&native->runs, &run->node);
    native_pool_submit(native->pool, &run->job);
}

static void native_cancel(struct executor *executor, struct request *request, int signal_number)
{
    struct native_run *run = request->executor_data;
    (void)signal_number;
    if (run && !run->is_early) {
        end_run(run, RUN_IS_REVOKED, native_of(executor)->cancel_grace_ms);
    }
}

static bool native_terminate(struct executor *executor, struct bytes task_id)
{
    (void)executor;
    (void)task_id;
    return false;
}

static void native_note_settled(struct executor *executor, struct bytes receipt)
{
    (void)executor;
    (void)receipt;
}

static void native_forget(struct executor *executor, struct bytes receipt, bool is_awaited)
{
    (void)is_awaited;
    (void)executor;
    (void)receipt;
}

static size_t native_running_count(const struct executor *executor)
{
    return const_native_of(executor)->run_count;
}

static void free_native(struct executor_native *native)
{
    loop_cancel(native->loop, &native->ready_call);
    loop_cancel(native->loop, &native->early_call);
    loop_cancel(native->loop, &native->close_call);
    memory_free(&native->hostname);
    memory_free(&native);
}

static void on_close(void *context)
{
    struct executor_native *native = context;
    if (native->run_count > 0 || !native_pool_close(&native->pool)) {
        return; /* on_batch_end asks again */
    }
    void (*on_closed)(void *) = native->on_closed;
    void *closed_context = native->closed_context;
    free_native(native);
    on_closed(closed_context);
}

static void end_runs(struct executor_native *native)
{
    list_for_each(node, following, &native->runs) {
        end_run(list_entry(node, struct native_run, node), RUN_IS_KILLED, KILL_GRACE_MS);
    }
}

static void native_close(struct executor *executor, bool kill, void (*on_closed)(void *context),
                         void *context)
{
    struct executor_native *native = native_of(executor);
    if (!native->is_closing) {
        native->is_closing = true;
        native->on_closed = on_closed;
        native->closed_context = context;
    }
    /* All that wait first: a thread whose body was ended would begin the next one. */
    list_for_each(node, following, &native->runs) {
        struct native_run *run = list_entry(node, struct native_run, node);
        if (native_pool_withdraw(native->pool, &run->job)) {
            set_withdrawn_outcome(run);
            finish_early(run);
        }
    }
    if (kill) {
        end_runs(native);
    }
    defer_close(native);
}

static const struct executor_ops native_ops = {
    .name = "native",
    .is_durable = false,
    .start = native_start,
    .free_slots = native_free_slots,
    .submit = native_submit,
    .cancel = native_cancel,
    .terminate = native_terminate,
    .note_settled = native_note_settled,
    .forget = native_forget,
    .running_count = native_running_count,
    .close = native_close,
};

struct executor *executor_native_new(struct loop *loop,
                                     const struct executor_native_options *options,
                                     const struct executor_events *events, void *context,
                                     struct error *reterr)
{
    struct executor_native *native = memory_new(sizeof(*native));
    native->base.ops = &native_ops;
    native->loop = loop;
    native->plugins = options->plugins;
    native->hostname = memory_text(bytes_from_text(options->hostname));
    native->thread_count = options->thread_count > 0 ? options->thread_count : executor_cpu_count();
    native->cancel_grace_ms =
        options->cancel_grace_ms > 0 ? options->cancel_grace_ms : EXECUTOR_NATIVE_CANCEL_GRACE_MS;
    native->events = events;
    native->context = context;
    list_init(&native->runs);
    list_init(&native->early);
    native->ready_call = (struct loop_call){.function = on_ready, .context = native};
    native->early_call = (struct loop_call){.function = on_early, .context = native};
    native->close_call = (struct loop_call){.function = on_close, .context = native};
    native->pool = native_pool_new(loop, native->thread_count, &pool_events, native, reterr);
    if (!native->pool) {
        free_native(native);
        return NULL;
    }
    return &native->base;
}
