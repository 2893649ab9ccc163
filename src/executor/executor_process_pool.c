/*
 * The processes of the process executor: started when work waits, given work when they are idle,
 * ended after an idle time, replaced and lost.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "executor/executor_process_private.h"

#define KILL_AFTER_MS  100 /* billiard/pool.py: TimeoutHandler.on_hard_timeout */
#define RETRY_FIRST_MS 500
#define RETRY_MOST_MS  60000
#define EXIT_NOTHING   0
#define REASON_SIZE    128
#define MAX_NAME_BYTES ((size_t)1024) /* of a task that is shown */
#define UNKNOWN_SIGNAL (-SIGKILL)     /* of processes that went with their parent */

static const struct process_child_events child_events;
static const struct process_nursery_events nursery_events;

/* Looks for what is idle after the idle time; without processes their parent is, from now on. */
static void watch_idleness(struct executor_process *executor)
{
    bool is_due = executor->live_count == 0 || !timer_is_armed(&executor->idle_timer);
    if (executor->options.idle_timeout_ms > 0 && is_due) {
        loop_start_timer(executor->loop, &executor->idle_timer, executor->options.idle_timeout_ms);
    }
}

/* One process */

static void count_out(struct process_slot *slot)
{
    struct executor_process *executor = slot->executor;
    if (slot->state != PROCESS_ENDING) {
        executor->live_count--;
        executor->starting_count -= slot->state == PROCESS_STARTING ? 1 : 0;
        if (executor->live_count == 0) {
            watch_idleness(executor);
        }
    }
    slot->state = PROCESS_ENDING;
}

/* Lets a process end that has no task. */
static void retire(struct process_slot *slot)
{
    count_out(slot);
    process_child_close(slot->child);
}

void executor_process_signal(const struct process_slot *slot, int signal_number)
{
    if (slot->pid > 0) {
        (void)kill(-slot->pid, signal_number);
    }
}

static void on_kill_late(void *context)
{
    const struct process_slot *slot = context;
    executor_process_signal(slot, SIGKILL);
}

void executor_process_kill(struct process_slot *slot)
{
    process_child_drain(slot->child);
    retire(slot);
    executor_process_signal(slot, SIGTERM);
    loop_start_timer(slot->executor->loop, &slot->kill_timer, KILL_AFTER_MS);
}

static void free_slot(struct process_slot *slot)
{
    count_out(slot);
    list_remove(&slot->node);
    loop_stop_timer(slot->executor->loop, &slot->kill_timer);
    process_child_free(&slot->child);
    memory_free(&slot);
}

/* A process has ended: all that it said counts, then its task is lost. Returns whether it has ended
 * before it was of any use. */
static bool end_slot(struct process_slot *slot, int code)
{
    struct executor_process *executor = slot->executor;
    process_child_drain(slot->child);
    struct process_run *run = slot->run;
    bool has_failed = slot->state == PROCESS_STARTING || (run && !run->is_accepted);
    bool has_begun = slot->pid > 0; /* else it ends with its parent, before it was forked */
    if (has_begun && slot->state != PROCESS_ENDING && code != EXIT_NOTHING) {
        char how[EXECUTOR_PROCESS_END_SIZE];
        executor_process_describe_end(code, how);
        executor_process_notice(executor, LOG_ERROR,
                                "Process 'ForkPoolWorker-%d' pid:%d exited with '%s'", slot->number,
                                slot->pid, how);
    }
    free_slot(slot);
    if (run) {
        executor_process_lost(run, code);
    }
    return has_failed;
}

/* Starting */

/* Starts nothing for a while, after something that will not get better at once. What fails meanwhile
 * was asked for before: however many processes that were, one start has failed. */
static void hold(struct executor_process *executor)
{
    if (executor->is_held) {
        return;
    }
    executor->failed_starts++;
    int64_t delay_ms =
        loop_backoff_ms(executor->loop, RETRY_FIRST_MS,
                        executor->failed_starts < 16 ? executor->failed_starts : 16, RETRY_MOST_MS);
    executor->is_held = true;
    loop_start_timer(executor->loop, &executor->hold_timer, delay_ms);
}

void executor_process_on_hold_over(void *context)
{
    struct executor_process *executor = context;
    executor->is_held = false;
    executor->has_freed_slots = true;
    loop_defer(executor->loop, &executor->assign_call);
}

static bool start_nursery(struct executor_process *executor)
{
    struct error error;
    const struct process_nursery_options options = {
        .program = executor->options.program,
        .arguments = executor->options.arguments,
        .environment = executor->options.environment,
    };
    executor->is_stopping = false;
    executor->nursery = process_nursery_new(executor->loop, executor->table, &options,
                                            &nursery_events, executor, &error);
    if (!executor->nursery) {
        executor_process_notice(executor, LOG_ERROR, "No Python process can be started: %s",
                                error.message);
    }
    watch_idleness(executor); /* there may be no room for any process */
    return executor->nursery != NULL;
}

static bool start_process(struct executor_process *executor)
{
    struct error error;
    struct process_child_ends ends;
    struct process_slot *slot = memory_new(sizeof(*slot));
    slot->child = process_child_new(executor->loop, &child_events, slot, &ends, &error);
    if (!slot->child) {
        executor_process_notice(executor, LOG_ERROR, "%s", error.message);
        memory_free(&slot);
        return false;
    }
    slot->executor = executor;
    slot->number = ++executor->last_number;
    slot->kill_timer = (struct timer){.on_due = on_kill_late, .context = slot};
    list_append(&executor->slots, &slot->node);
    executor->live_count++;
    executor->starting_count++;
    if (!process_nursery_fork(executor->nursery, slot->number, &ends, &error)) {
        executor_process_notice(executor, LOG_WARNING, "%s", error.message);
        free_slot(slot);
        return false;
    }
    return true;
}

/* The one that has been idle for the shortest time: the others may end. */
struct process_slot *executor_process_find_idle(struct executor_process *executor)
{
    struct process_slot *best = NULL;
    list_for_each(node, following, &executor->slots) {
        struct process_slot *slot = list_entry(node, struct process_slot, node);
        if (slot->state == PROCESS_IDLE && (!best || slot->idle_since_ms > best->idle_since_ms)) {
            best = slot;
        }
    }
    return best;
}

/* What goes to the next idle process, or NULL: an end first, since somebody waits for it. */
static struct process_run *next_waiting(const struct executor_process *executor)
{
    list_for_each(node, following, &executor->waiting) {
        struct process_run *run = list_entry(node, struct process_run, node);
        if (run->is_conclusion) {
            return run;
        }
    }
    struct list_node *first = list_first(&executor->waiting);
    return first ? list_entry(first, struct process_run, node) : NULL;
}

/* One more than usual for an end: tasks may keep all others busy for ever. */
static bool may_start_process(const struct executor_process *executor,
                              const struct process_run *next)
{
    size_t most = executor->options.max_processes + (next->is_conclusion ? 1 : 0);
    return executor->live_count < most && executor->waiting_count > executor->starting_count;
}

static void start_missing(struct executor_process *executor)
{
    const struct process_run *next = next_waiting(executor);
    if (executor->is_held || executor->is_stopping || !next
        || (executor->is_closing && !next->is_conclusion)) {
        return;
    }
    bool ok = executor->nursery || start_nursery(executor);
    while (ok && may_start_process(executor, next)) {
        ok = start_process(executor);
    }
    if (!ok) {
        hold(executor);
    }
}

void executor_process_assign(void *context)
{
    struct executor_process *executor = context;
    struct process_run *run = NULL;
    struct process_slot *slot = NULL;
    while ((run = next_waiting(executor)) != NULL
           && (slot = executor_process_find_idle(executor)) != NULL) {
        executor_process_give(slot, run);
    }
    start_missing(executor);
    if (executor->is_closing) {
        executor_process_defer_close(executor);
        return;
    }
    if (executor->has_freed_slots) {
        executor->has_freed_slots = false;
        executor->events->on_free_slots(executor->context, &executor->base);
    }
}

/* Idleness */

static void become_idle(struct process_slot *slot)
{
    struct executor_process *executor = slot->executor;
    slot->state = PROCESS_IDLE;
    slot->idle_since_ms = loop_now_ms(executor->loop);
    watch_idleness(executor);
    loop_defer(executor->loop, &executor->assign_call);
}

static void stop_nursery(struct executor_process *executor)
{
    if (executor->nursery && !executor->is_stopping) {
        executor->is_stopping = true;
        process_nursery_stop(executor->nursery);
    }
}

void executor_process_on_idle(void *context)
{
    struct executor_process *executor = context;
    int64_t now_ms = loop_now_ms(executor->loop);
    int64_t oldest_ms = INT64_MAX;
    list_for_each(node, following, &executor->slots) {
        struct process_slot *slot = list_entry(node, struct process_slot, node);
        if (slot->state != PROCESS_IDLE) {
            continue;
        }
        if (now_ms - slot->idle_since_ms >= executor->options.idle_timeout_ms) {
            retire(slot);
        } else if (slot->idle_since_ms < oldest_ms) {
            oldest_ms = slot->idle_since_ms;
        }
    }
    if (oldest_ms != INT64_MAX) {
        loop_start_timer(executor->loop, &executor->idle_timer,
                         oldest_ms + executor->options.idle_timeout_ms - now_ms);
    } else if (executor->live_count == 0 && executor->waiting_count == 0) {
        stop_nursery(executor);
    } else if (executor->live_count == 0) {
        watch_idleness(executor); /* what waits may be given up */
    }
}

void executor_process_free_slot(struct process_slot *slot, uint64_t rss_kib, bool is_ending)
{
    struct executor_process *executor = slot->executor;
    const struct executor_process_options *options = &executor->options;
    slot->task_count++;
    bool is_large =
        options->max_memory_per_child_kib > 0 && rss_kib > options->max_memory_per_child_kib;
    if (is_large) {
        executor_process_notice(
            executor, LOG_WARNING,
            "child process exiting after exceeding memory limit (%lluKiB / %lluKiB)",
            (unsigned long long)rss_kib, (unsigned long long)options->max_memory_per_child_kib);
    }
    bool is_old =
        options->max_tasks_per_child > 0 && slot->task_count >= options->max_tasks_per_child;
    bool is_surplus = executor->live_count > options->max_processes;
    if (is_large || is_old || is_ending || is_surplus || executor->is_closing) {
        retire(slot);
        loop_defer(executor->loop, &executor->assign_call);
    } else {
        become_idle(slot);
    }
}

void executor_process_stop_all(struct executor_process *executor)
{
    list_for_each(node, following, &executor->slots) {
        struct process_slot *slot = list_entry(node, struct process_slot, node);
        if (!slot->run && slot->state != PROCESS_ENDING) {
            retire(slot);
        }
    }
    stop_nursery(executor);
}

/* What a process tells */

static void on_ready(void *context, int pid)
{
    struct process_slot *slot = context;
    if (slot->state == PROCESS_STARTING && (slot->pid == 0 || slot->pid == pid)) {
        slot->pid = pid;
        slot->executor->starting_count--;
        slot->executor->failed_starts = 0;
        become_idle(slot);
    }
}

static void on_accepted(void *context)
{
    struct process_slot *slot = context;
    if (slot->run && !slot->run->is_accepted) {
        executor_process_accepted(slot->run);
    }
}

static void on_state(void *context, const struct process_frame_state *state)
{
    struct process_slot *slot = context;
    const struct executor_process *executor = slot->executor;
    if (slot->run) {
        executor->events->on_state(executor->context, slot->run->request, state->task_id,
                                   state->state, state->document);
    }
}

static void on_task_ended(void *context, struct bytes document)
{
    struct process_slot *slot = context;
    struct process_run *run = slot->run;
    if (run && run->is_accepted && !run->has_ended) {
        run->has_ended = true;
        run->document = arena_copy(run->request->arena, document);
    }
}

static void on_done(void *context, const struct process_frame_done *done)
{
    struct process_slot *slot = context;
    struct process_run *run = slot->run;
    if (!run || !run->is_accepted) {
        return; /* it was given up meanwhile */
    }
    executor_process_done(run, done);
    executor_process_free_slot(slot, done->rss_kib, done->outcome == PROCESS_FRAME_LOST);
}

/* A line of stdout or stderr is shown as a line of Celery's task logger is, with the task's name and
 * id. */
static void on_line(void *context, int level, struct bytes text, bool is_output)
{
    struct process_slot *slot = context;
    const struct message *message = slot->run ? &slot->run->request->message : NULL;
    struct bytes none = {NULL, 0};
    struct buffer line;
    char process[32];
    (void)snprintf(process, sizeof(process), "ForkPoolWorker-%d", slot->number);
    size_t head = is_output ? text.length : bytes_find(text, '\n');
    buffer_init(&line, head + (message ? message->id.length + (size_t)2 * MAX_NAME_BYTES : 0) + 16);
    if (message && is_output) {
        (void)buffer_format(&line, "%.*s[%.*s]: ", BYTES_FORMAT(message_display_name(message)),
                            BYTES_FORMAT(message->id));
    }
    (void)buffer_append(&line, bytes_of(text.data, head));
    log_process((enum log_level)level, process, message ? message->task : none,
                message ? message->id : none, buffer_view(&line),
                head < text.length ? bytes_skip(text, head + 1) : none);
    buffer_fini(&line);
}

/* The nursery tells how it ended. */
static void on_closed(void *context, bool is_broken)
{
    struct process_slot *slot = context;
    if (is_broken) {
        executor_process_notice(slot->executor, LOG_ERROR,
                                "Process 'ForkPoolWorker-%d' pid:%d wrote something that is no "
                                "answer, and is ended",
                                slot->number, slot->pid);
        executor_process_signal(slot, SIGKILL);
    }
}

static const struct process_child_events child_events = {
    .on_ready = on_ready,
    .on_accepted = on_accepted,
    .on_state = on_state,
    .on_task_ended = on_task_ended,
    .on_done = on_done,
    .on_line = on_line,
    .on_closed = on_closed,
};

/* What the nursery tells */

static void on_forked(void *context, int pid, int number)
{
    const struct executor_process *executor = context;
    list_for_each(node, following, &executor->slots) {
        struct process_slot *slot = list_entry(node, struct process_slot, node);
        if (slot->number == number && slot->pid == 0) {
            slot->pid = pid;
        }
    }
}

static void on_refused(void *context, int error_number, int number)
{
    struct executor_process *executor = context;
    char reason[REASON_SIZE];
    if (!executor->is_held) {
        executor_process_notice(executor, LOG_ERROR, "No Python process can be forked: %s",
                                strerror_r(error_number, reason, sizeof(reason)));
    }
    hold(executor);
    list_for_each(node, following, &executor->slots) {
        struct process_slot *slot = list_entry(node, struct process_slot, node);
        if (slot->number == number && slot->pid == 0) {
            (void)end_slot(slot, EXIT_NOTHING); /* has not begun: nothing is told of its end */
            break;
        }
    }
    loop_defer(executor->loop, &executor->assign_call);
}

static void on_exited(void *context, int pid, int code)
{
    struct executor_process *executor = context;
    bool has_failed = false;
    list_for_each(node, following, &executor->slots) {
        struct process_slot *slot = list_entry(node, struct process_slot, node);
        if (slot->pid == pid) {
            has_failed = end_slot(slot, code);
            break;
        }
    }
    process_nursery_reap(executor->nursery, pid);
    if (has_failed) {
        hold(executor);
    }
    loop_defer(executor->loop, &executor->assign_call);
}

static void on_nursery_line(void *context, struct bytes text)
{
    (void)context;
    log_write(LOG_WARNING, "%.*s", BYTES_FORMAT(text));
}

static void on_ended(void *context, int exit_code, int signal_number)
{
    struct executor_process *executor = context;
    bool is_expected = executor->is_stopping;
    process_nursery_free(&executor->nursery);
    executor->is_stopping = false;
    struct list_node *node = NULL;
    while ((node = list_first(&executor->slots)) != NULL) {
        (void)end_slot(list_entry(node, struct process_slot, node), UNKNOWN_SIGNAL);
    }
    if (!is_expected) {
        hold(executor);
        executor_process_notice(
            executor, LOG_CRITICAL,
            "The parent of the Python processes ended (%s %d); tasks wait until "
            "it can be started again",
            signal_number ? "signal" : "exit code", signal_number ? signal_number : exit_code);
    }
    loop_defer(executor->loop, &executor->assign_call);
}

static const struct process_nursery_events nursery_events = {
    .on_forked = on_forked,
    .on_refused = on_refused,
    .on_exited = on_exited,
    .on_line = on_nursery_line,
    .on_ended = on_ended,
};
