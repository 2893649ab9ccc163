/*
 * What the files of the process executor share: executor_process.c (tasks and their ends),
 * executor_process_pool.c (processes: started, found idle, replaced, lost).
 */
#ifndef PETIOLE_EXECUTOR_EXECUTOR_PROCESS_PRIVATE_H
#define PETIOLE_EXECUTOR_EXECUTOR_PROCESS_PRIVATE_H

#include "base/list.h"
#include "base/memory.h"
#include "executor/executor_process.h"
#include "executor/process_child.h"
#include "executor/process_nursery.h"

struct local_process_table;

enum process_slot_state {
    PROCESS_STARTING, /* asked for */
    PROCESS_IDLE,
    PROCESS_BUSY,   /* has a run */
    PROCESS_ENDING, /* its socket is closed or it was killed; counts no more */
};

/* One process. */
struct process_slot {
    struct executor_process *executor;
    struct list_node node;
    struct process_child *child; /* owned */
    enum process_slot_state state;
    int number; /* of ForkPoolWorker-N */
    int pid;    /* 0: not told yet */
    struct process_run *run;
    uint64_t task_count;
    int64_t idle_since_ms;
    struct timer kill_timer;
};

/* Why a run is to end other than by itself. */
enum process_run_end {
    PROCESS_RUN_GOES_ON,
    PROCESS_RUN_IS_REVOKED,
    PROCESS_RUN_IS_KILLED,
};

/* One submission; lives in the request's arena. */
struct process_run {
    struct executor_process *executor;
    struct request *request;
    struct list_node node;     /* in `waiting` or `early` */
    struct process_slot *slot; /* NULL: waits, or is early */
    struct timer timer;        /* the next time limit, or the end of a grace period */
    bool is_accepted;
    int64_t accepted_ms;
    int64_t lost_count;    /* processes that ended before they accepted it */
    uint64_t job;          /* billiard's number of it */
    int64_t soft_limit_ms; /* 0: none, or passed */
    int64_t hard_limit_ms;
    enum process_run_end end;
    /* The task has succeeded, whatever becomes of its process; of a conclusion: the next try has
     * been sent. */
    bool has_ended;
    struct bytes document;  /* of the success; empty: nothing is stored */
    bool is_early;          /* in `early` */
    struct outcome outcome; /* of an early one */
    bool is_conclusion;     /* an end is told to a process, instead of a task */
    struct bytes ending;    /* of a conclusion */
    int64_t waits_until_ms; /* of a conclusion: for a process */
};

struct executor_process {
    struct executor base;
    struct loop *loop;
    struct executor_process_options options;
    const struct executor_events *events;
    void *context;
    struct local_process_table *table; /* owned */
    struct process_nursery *nursery;   /* owned; NULL: not running */
    bool is_stopping;                  /* the nursery was asked to end */
    struct list slots;
    size_t live_count;     /* slots that are not ENDING */
    size_t starting_count; /* of these STARTING */
    int last_number;
    struct list waiting; /* of struct process_run */
    size_t waiting_count;
    struct list early; /* ended without a process; told by early_call */
    size_t run_count;  /* submitted and not yet finished */
    uint64_t job_count;
    bool has_freed_slots;
    struct buffer request_text; /* while a task is handed over */
    struct timer idle_timer;
    struct timer hold_timer; /* nothing is started before it fires */
    bool is_held;
    unsigned failed_starts; /* in a row */
    struct loop_call ready_call;
    struct loop_call assign_call;
    struct loop_call early_call;
    struct loop_call close_call;
    bool is_closing;
    void (*on_closed)(void *context);
    void *closed_context;
};

/* executor_process.c */

/* Hands the run to a process that is idle. */
void executor_process_give(struct process_slot *slot, struct process_run *run);

/* What a process tells of its run. */
void executor_process_accepted(struct process_run *run);
void executor_process_done(struct process_run *run, const struct process_frame_done *done);

/* Its process has ended; `code` as in process_nursery_events. */
void executor_process_lost(struct process_run *run, int code);

/* "signal 9 (SIGKILL)" or "exitcode 1" (billiard/common.py: human_status). */
#define EXECUTOR_PROCESS_END_SIZE 64
void executor_process_describe_end(int code, char ret_text[EXECUTOR_PROCESS_END_SIZE]);

/* Closes the executor when nothing is left of it. */
void executor_process_defer_close(struct executor_process *executor);

void executor_process_notice(const struct executor_process *executor, int level, const char *format,
                             ...) PRINTF_FORMAT(3, 4);

/* executor_process_pool.c */

/* An idle process, or NULL. */
struct process_slot *executor_process_find_idle(struct executor_process *executor);

/* Starts processes for what waits, at the end of this turn. */
void executor_process_assign(void *context);

/* Looks for processes that have been idle for too long. */
void executor_process_on_idle(void *context);

/* A back-off is over. */
void executor_process_on_hold_over(void *context);

/* The slot's task is over: the process takes the next one, or is replaced. */
void executor_process_free_slot(struct process_slot *slot, uint64_t rss_kib, bool is_ending);

/* Sends a signal to the process and its group. */
void executor_process_signal(const struct process_slot *slot, int signal_number);

/* Ends a process whose task is given up: SIGTERM, and SIGKILL soon. What it said by now is told. Not
 * inside an event of its. */
void executor_process_kill(struct process_slot *slot);

/* Lets every process that has no task end, and the nursery when none is left. */
void executor_process_stop_all(struct executor_process *executor);

#endif
