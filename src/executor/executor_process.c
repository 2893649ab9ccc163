#include "executor/executor_process.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "dispatch/registry.h"
#include "executor/executor_process_private.h"
#include "executor/local_process.h"
#include "executor/process_ending.h"
#include "executor/process_request.h"

#define MS_PER_S          1000.0
#define MAX_LIMIT_S       1e9
#define CANCEL_GRACE_MS   10000
#define CONCLUDE_MS       60000 /* then the worker's own document must do */
#define CONCLUDE_MOST_MS  ((int64_t)10 * CONCLUDE_MS)
#define MAX_NOTICE_SIZE   512
#define MAX_REQUEST_BYTES ((size_t)256 << 20)

static struct executor_process *process_of(struct executor *executor)
{
    return CONTAINER_OF(executor, struct executor_process, base);
}

static const struct executor_process *const_process_of(const struct executor *executor)
{
    return (const struct executor_process *)(const void *)executor; /* the head of its struct */
}

void executor_process_notice(const struct executor_process *executor, int level, const char *format,
                             ...)
{
    char text[MAX_NOTICE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    executor->events->on_notice(executor->context, level, text);
}

/* The end of a run */

void executor_process_defer_close(struct executor_process *executor)
{
    if (executor->is_closing && executor->run_count == 0) {
        loop_defer(executor->loop, &executor->close_call);
    }
}

/* Tells the outcome; the run, which is in no list and has no slot, is gone afterwards. */
static void finish(struct process_run *run, const struct outcome *outcome)
{
    struct executor_process *executor = run->executor;
    struct request *request = run->request;
    loop_stop_timer(executor->loop, &run->timer);
    executor->run_count--;
    executor->has_freed_slots = true;
    if (run->is_conclusion) {
        executor->events->on_concluded(executor->context, request,
                                       outcome->is_told ? outcome : NULL);
    } else {
        request->executor_data = NULL;
        executor->events->on_finished(executor->context, request, outcome);
    }
    loop_defer(executor->loop, &executor->assign_call);
    executor_process_defer_close(executor);
}

/* Ends a run that no process has, with `run->outcome`. */
static void finish_early(struct process_run *run)
{
    loop_stop_timer(run->executor->loop, &run->timer);
    list_remove(&run->node);
    run->executor->waiting_count--;
    run->is_early = true;
    list_append(&run->executor->early, &run->node);
    loop_defer(run->executor->loop, &run->executor->early_call);
}

static void on_early(void *context)
{
    struct executor_process *executor = context;
    struct list_node *node = NULL;
    while ((node = list_pop(&executor->early)) != NULL) {
        struct process_run *run = list_entry(node, struct process_run, node);
        finish(run, &run->outcome);
    }
}

/* Time limits (celery/worker/request.py: on_timeout) */

static int64_t limit_ms(double limit_s)
{
    double bounded_s = limit_s < MAX_LIMIT_S ? limit_s : MAX_LIMIT_S;
    return limit_s > 0.0 ? (int64_t)(bounded_s * MS_PER_S) + 1 : 0;
}

static void notice_soft_limit(const struct process_run *run)
{
    const struct message *message = &run->request->message;
    executor_process_notice(run->executor, LOG_WARNING,
                            "Soft time limit (%gs) exceeded for %.*s[%.*s]",
                            executor_soft_limit_s(run->request), BYTES_FORMAT(message->task),
                            BYTES_FORMAT(message->id));
}

/* Arms the timer for the limit that comes next. */
static void arm_limit(struct process_run *run)
{
    struct loop *loop = run->executor->loop;
    int64_t next_ms = run->soft_limit_ms > 0 ? run->soft_limit_ms : run->hard_limit_ms;
    if (next_ms > 0) {
        loop_start_timer(loop, &run->timer, run->accepted_ms + next_ms - loop_now_ms(loop));
    }
}

static void pass_soft_limit(struct process_run *run)
{
    bool is_first = run->hard_limit_ms == 0 || run->soft_limit_ms < run->hard_limit_ms;
    run->soft_limit_ms = 0;
    if (is_first) {
        notice_soft_limit(run);
        (void)kill(run->slot->pid, SIGUSR1);
    }
    arm_limit(run);
}

/* celery/worker/request.py: Request.on_failure: what came after the success is no failure of it. */
static void succeed(const struct process_run *run, const char *what, struct outcome *ret_outcome)
{
    const struct message *message = &run->request->message;
    executor_process_notice(
        run->executor, LOG_WARNING, "Task %.*s[%.*s] succeeded before the worker was lost: %s",
        BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id), what);
    *ret_outcome = (struct outcome){
        .kind = OUTCOME_SUCCESS,
        .is_told = true,
        .document = run->document,
    };
}

static void pass_hard_limit(struct process_run *run)
{
    struct outcome outcome;
    struct process_slot *slot = run->slot;
    process_child_drain(slot->child);
    if (slot->run != run) {
        return; /* it has ended in time, and only the worker was late */
    }
    double limit_s = executor_hard_limit_s(run->request);
    executor_timed_out(run->request->arena, limit_s, &outcome);
    if (run->has_ended) {
        succeed(run, "its handlers ran into the hard time limit", &outcome);
    }
    outcome.runtime_s = (double)(loop_now_ms(run->executor->loop) - run->accepted_ms) / MS_PER_S;
    slot->run = NULL;
    run->slot = NULL;
    executor_process_kill(slot);
    finish(run, &outcome);
}

/* The end of a conclusion whose process is not there to tell it: what it has sent is not sent again. */
static struct outcome cut_short(const struct process_run *run)
{
    return (struct outcome){.kind = OUTCOME_IGNORE, .is_told = run->has_ended};
}

/* No process could do what follows from an end in time. One that waits for a process to be started
 * goes on to wait for some time, as long as that may succeed. */
static void give_up_conclusion(struct process_run *run)
{
    const struct outcome outcome = cut_short(run);
    struct process_slot *slot = run->slot;
    struct loop *loop = run->executor->loop;
    if (!slot && !run->executor->is_held && loop_now_ms(loop) < run->waits_until_ms) {
        loop_start_timer(loop, &run->timer, CONCLUDE_MS);
        return;
    }
    if (slot) {
        slot->run = NULL;
        run->slot = NULL;
        executor_process_kill(slot);
    } else {
        list_remove(&run->node);
        run->executor->waiting_count--;
    }
    finish(run, &outcome);
}

static void on_timer(void *context)
{
    struct process_run *run = context;
    if (run->is_conclusion) {
        give_up_conclusion(run);
    } else if (run->end != PROCESS_RUN_GOES_ON) {
        executor_process_signal(run->slot, SIGKILL); /* then executor_process_lost */
    } else if (run->soft_limit_ms > 0) {
        pass_soft_limit(run);
    } else {
        pass_hard_limit(run);
    }
}

/* What a process tells */

void executor_process_give(struct process_slot *slot, struct process_run *run)
{
    struct executor_process *executor = run->executor;
    const struct message *message = &run->request->message;
    list_remove(&run->node);
    executor->waiting_count--;
    slot->state = PROCESS_BUSY;
    slot->run = run;
    run->slot = slot;
    run->job = executor->job_count++;
    buffer_clear(&executor->request_text);
    process_request_append(&executor->request_text, message, executor->options.hostname);
    const struct process_frame_task task = {
        .id = message->id,
        .name = message->task,
        .request = buffer_view(&executor->request_text),
        .content_type = message->content_type,
        .content_encoding = message->content_encoding,
        .body = message->body,
    };
    if (run->is_conclusion) {
        loop_start_timer(executor->loop, &run->timer, CONCLUDE_MS);
        process_child_send_ending(slot->child, &task, run->ending);
    } else {
        process_child_send(slot->child, &task);
    }
}

void executor_process_accepted(struct process_run *run)
{
    struct executor_process *executor = run->executor;
    run->is_accepted = true;
    if (run->is_conclusion) {
        return;
    }
    run->accepted_ms = loop_now_ms(executor->loop);
    if (run->end == PROCESS_RUN_GOES_ON) {
        arm_limit(run);
    }
    executor->events->on_started(executor->context, run->request, bytes_of(NULL, 0));
}

static enum outcome_kind kind_of(enum process_frame_outcome outcome)
{
    static const enum outcome_kind kinds[] = {
        [PROCESS_FRAME_SUCCESS] = OUTCOME_SUCCESS, [PROCESS_FRAME_FAILURE] = OUTCOME_FAILURE,
        [PROCESS_FRAME_RETRY] = OUTCOME_RETRY,     [PROCESS_FRAME_IGNORED] = OUTCOME_IGNORE,
        [PROCESS_FRAME_REJECTED] = OUTCOME_REJECT, [PROCESS_FRAME_LOST] = OUTCOME_LOST,
    };

    return kinds[outcome];
}

void executor_process_done(struct process_run *run, const struct process_frame_done *done)
{
    struct outcome outcome = {
        .kind = kind_of(done->outcome),
        .exc_type = done->exc_type,
        .exc_module = done->exc_module,
        .exc_message = done->exc_message,
        .traceback = done->traceback,
        .requeue = done->requeue,
        .is_told = done->is_told,
        .document = done->document,
        .runtime_s = done->runtime_s,
    };
    if (done->outcome == PROCESS_FRAME_LOST && run->has_ended) {
        succeed(run, "its handlers ended the process", &outcome);
        outcome.runtime_s = done->runtime_s;
    }
    run->slot->run = NULL;
    run->slot = NULL;
    finish(run, &outcome);
}

void executor_process_describe_end(int code, char ret_text[EXECUTOR_PROCESS_END_SIZE])
{
    const char *name = code < 0 ? sigabbrev_np(-code) : NULL;
    if (code < 0) {
        (void)snprintf(ret_text, EXECUTOR_PROCESS_END_SIZE, "signal %d (%s%s)", -code,
                       name ? "SIG" : "", name ? name : "unknown");
    } else {
        (void)snprintf(ret_text, EXECUTOR_PROCESS_END_SIZE, "exitcode %d", code);
    }
}

/* A task that no process has accepted goes to the next one, or back to its queue. */
static void wait_again(struct process_run *run)
{
    run->slot = NULL;
    if (run->executor->is_closing && !run->is_conclusion) {
        executor_given_back(&run->outcome);
        finish(run, &run->outcome);
        return;
    }
    list_prepend(&run->executor->waiting, &run->node);
    run->executor->waiting_count++;
    loop_defer(run->executor->loop, &run->executor->assign_call);
}

/* One that ends each process at once, such as a message that is too large for its memory, is lost in
 * the end, like a Job whose pods never ran. */
static bool may_wait_again(struct process_run *run)
{
    const struct task_type *type = run->request->type;
    if (run->is_accepted || run->end != PROCESS_RUN_GOES_ON) {
        return false;
    }
    run->lost_count++;
    return run->lost_count < (type ? type : &registry_defaults)->max_delivery_attempts;
}

void executor_process_lost(struct process_run *run, int code)
{
    struct arena *arena = run->request->arena;
    struct outcome outcome;
    if (may_wait_again(run)) {
        wait_again(run);
        return;
    }
    if (run->is_conclusion) {
        outcome = cut_short(run);
    } else if (run->has_ended) {
        char how[EXECUTOR_PROCESS_END_SIZE];
        executor_process_describe_end(code, how);
        succeed(run, how, &outcome);
    } else if (run->end == PROCESS_RUN_IS_REVOKED) {
        executor_revoked(arena, "terminated", &outcome);
    } else {
        char how[EXECUTOR_PROCESS_END_SIZE];
        executor_process_describe_end(code, how);
        executor_lost(arena,
                      arena_format(arena, "Worker exited prematurely: %s Job: %llu.", how,
                                   (unsigned long long)run->job),
                      &outcome);
    }
    if (run->is_accepted) {
        outcome.runtime_s =
            (double)(loop_now_ms(run->executor->loop) - run->accepted_ms) / MS_PER_S;
    }
    run->slot = NULL;
    finish(run, &outcome);
}

/* The interface */

static void on_ready(void *context)
{
    struct executor_process *executor = context;
    executor->events->on_ready(executor->context, &executor->base);
}

static void process_start(struct executor *executor)
{
    struct executor_process *process = process_of(executor);
    loop_defer(process->loop, &process->ready_call);
}

static size_t process_free_slots(const struct executor *executor)
{
    const struct executor_process *process = const_process_of(executor);
    size_t most = process->options.max_processes;
    if (process->is_held && process->live_count < most) {
        most = process->live_count; /* those that there are go on */
    }
    return process->is_closing || process->run_count >= most ? 0 : most - process->run_count;
}

static struct process_run *new_run(struct executor_process *process, struct request *request)
{
    struct process_run *run = arena_alloc(request->arena, sizeof(*run));
    run->executor = process;
    run->request = request;
    run->timer = (struct timer){.on_due = on_timer, .context = run};
    process->run_count++;
    process->waiting_count++;
    return run;
}

static void process_submit(struct executor *executor, struct request *request)
{
    struct executor_process *process = process_of(executor);
    struct process_run *run = new_run(process, request);
    run->soft_limit_ms = limit_ms(executor_soft_limit_s(request));
    run->hard_limit_ms = limit_ms(executor_hard_limit_s(request));
    request->executor_data = run;
    list_append(&process->waiting, &run->node);
    struct process_slot *slot =
        process->waiting_count == 1 ? executor_process_find_idle(process) : NULL;
    if (slot) {
        executor_process_give(slot, run);
    } else {
        loop_defer(process->loop, &process->assign_call);
    }
}

/* Goes before the tasks that wait: somebody waits for the end of this one. */
static void process_conclude(struct executor *executor, struct request *request,
                             const struct outcome *outcome, bool stores, bool has_begun)
{
    struct executor_process *process = process_of(executor);
    struct process_run *run = new_run(process, request);
    run->is_conclusion = true;
    buffer_clear(&process->request_text);
    process_ending_append(&process->request_text, outcome, stores, has_begun);
    run->ending = arena_copy(request->arena, buffer_view(&process->request_text));
    run->waits_until_ms = loop_now_ms(process->loop) + CONCLUDE_MOST_MS;
    list_prepend(&process->waiting, &run->node);
    loop_start_timer(process->loop, &run->timer, CONCLUDE_MS);
    loop_defer(process->loop, &process->assign_call);
}

static void process_cancel(struct executor *executor, struct request *request, int signal_number)
{
    struct process_run *run = request->executor_data;
    (void)executor;
    if (!run || run->is_early || run->end == PROCESS_RUN_IS_KILLED) {
        return;
    }
    run->end = PROCESS_RUN_IS_REVOKED;
    if (run->slot) {
        executor_process_signal(run->slot, signal_number);
        loop_start_timer(run->executor->loop, &run->timer, CANCEL_GRACE_MS);
    } else {
        executor_revoked(request->arena, "terminated", &run->outcome);
        finish_early(run);
    }
}

static bool process_terminate(struct executor *executor, struct bytes task_id)
{
    (void)executor;
    (void)task_id;
    return false;
}

static void process_note_settled(struct executor *executor, struct bytes receipt)
{
    (void)executor;
    (void)receipt;
}

static void process_forget(struct executor *executor, struct bytes receipt, bool is_awaited)
{
    (void)executor;
    (void)receipt;
    (void)is_awaited;
}

static size_t process_running_count(const struct executor *executor)
{
    return const_process_of(executor)->run_count;
}

static void free_process(struct executor_process *process)
{
    struct loop_call *const calls[] = {&process->ready_call, &process->assign_call,
                                       &process->early_call, &process->close_call};
    for (size_t index = 0; index < ARRAY_LENGTH(calls); index++) {
        loop_cancel(process->loop, calls[index]);
    }
    loop_stop_timer(process->loop, &process->idle_timer);
    loop_stop_timer(process->loop, &process->hold_timer);
    buffer_fini(&process->request_text);
    memory_free(&process);
}

static void on_table_closed(void *context)
{
    struct executor_process *process = context;
    void (*on_closed)(void *) = process->on_closed;
    void *closed_context = process->closed_context;
    free_process(process);
    on_closed(closed_context);
}

static void on_close(void *context)
{
    struct executor_process *process = context;
    if (process->run_count > 0) {
        return; /* an end is being told, of what ended last */
    }
    executor_process_stop_all(process);
    if (!process->nursery && list_is_empty(&process->slots) && process->table) {
        local_process_table_close(&process->table, on_table_closed, process);
    }
}

static void give_back_waiting(struct executor_process *process, bool kill)
{
    list_for_each(node, following, &process->waiting) {
        struct process_run *run = list_entry(node, struct process_run, node);
        if (!run->is_conclusion) {
            executor_given_back(&run->outcome);
            finish_early(run);
        } else if (kill) {
            finish_early(run);
        }
    }
}

static void process_close(struct executor *executor, bool kill, void (*on_closed)(void *context),
                          void *context)
{
    struct executor_process *process = process_of(executor);
    if (!process->is_closing) {
        process->is_closing = true;
        process->on_closed = on_closed;
        process->closed_context = context;
    }
    give_back_waiting(process, kill);
    list_for_each(node, following, &process->slots) {
        struct process_slot *slot = list_entry(node, struct process_slot, node);
        if (kill && slot->run) {
            slot->run->end = PROCESS_RUN_IS_KILLED;
        }
        if (kill && (slot->run || slot->state == PROCESS_ENDING)) {
            executor_process_signal(slot, SIGKILL);
        }
    }
    executor_process_defer_close(process);
}

static const struct executor_ops process_ops = {
    .name = "process",
    .is_durable = false,
    .is_tracing = true,
    .start = process_start,
    .free_slots = process_free_slots,
    .submit = process_submit,
    .conclude = process_conclude,
    .cancel = process_cancel,
    .terminate = process_terminate,
    .note_settled = process_note_settled,
    .forget = process_forget,
    .running_count = process_running_count,
    .close = process_close,
};

static void prepare(struct executor_process *process)
{
    list_init(&process->slots);
    list_init(&process->waiting);
    list_init(&process->early);
    buffer_init(&process->request_text, MAX_REQUEST_BYTES);
    process->idle_timer = (struct timer){.on_due = executor_process_on_idle, .context = process};
    process->hold_timer =
        (struct timer){.on_due = executor_process_on_hold_over, .context = process};
    process->ready_call = (struct loop_call){.function = on_ready, .context = process};
    process->assign_call =
        (struct loop_call){.function = executor_process_assign, .context = process};
    process->early_call = (struct loop_call){.function = on_early, .context = process};
    process->close_call = (struct loop_call){.function = on_close, .context = process};
}

struct executor *executor_process_new(struct loop *loop,
                                      const struct executor_process_options *options,
                                      const struct executor_events *events, void *context,
                                      struct error *reterr)
{
    struct executor_process *process = memory_new(sizeof(*process));
    process->base.ops = &process_ops;
    process->loop = loop;
    process->options = *options;
    process->events = events;
    process->context = context;
    if (process->options.max_processes == 0) {
        process->options.max_processes = executor_cpu_count();
    }
    prepare(process);
    process->table = local_process_table_new(loop, reterr);
    if (!process->table) {
        free_process(process);
        return NULL;
    }
    return &process->base;
}
