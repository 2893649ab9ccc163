#include "executor/local_run.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>
#include <uv.h>

#include "base/memory.h"
#include "executor/job_result.h"
#include "executor/local_folder.h"
#include "executor/local_output.h"
#include "executor/local_plan.h"
#include "executor/local_process.h"

#define ARENA_FIRST_BYTES 4096
#define MAX_SECONDS       1e9
#define MS_PER_S          1000.0
#define REASON_SIZE       128

struct local_run {
    const struct local_run_site *site;
    const struct local_run_events *events;
    void *context;
    double hard_limit_s;
    const char *name;
    const char *record;
    json_t *job;         /* owned */
    struct arena *arena; /* owned; the pool thread's while `work` is under way, as what follows */
    char *folder;
    const char *log_path;
    const char *program;
    struct local_plan plan;
    int log_descriptor; /* -1: closed */
    struct local_output states;
    struct bytes report;
    struct bytes output;

    /* The loop's */
    uv_work_t work;
    struct loop_call refuse_call;
    struct local_process process;
    struct timer look_timer;
    bool is_looking;    /* `work` is under way meanwhile */
    struct timer timer; /* the earlier limit, then the end of the grace period */
    enum local_end timer_end;
    enum local_end end;
    bool has_started;
    bool is_over;       /* what is left is to be collected and told */
    bool is_terminated; /* it was asked to end */
    int exit_code;
    int signal_number;
    int64_t started_ms;
    double runtime_s;
    const char *error_category; /* NULL: it was not refused */
    struct error error;
};

static int64_t delay_ms(double seconds)
{
    double bounded_s = seconds < MAX_SECONDS ? seconds : MAX_SECONDS;
    return bounded_s > 0.0 ? (int64_t)(bounded_s * MS_PER_S) : 0;
}

/* On a pool thread */

static bool make_private_folder(struct local_run *run)
{
    if (!local_folder_make(run->site->log_folder, &run->error)
        || !local_folder_make(run->site->work_folder, &run->error)) {
        return false;
    }
    run->log_path = arena_format(run->arena, "%s/%s.log", run->site->log_folder, run->name);
    char *folder = arena_format(run->arena, "%s/%s-XXXXXX", run->site->work_folder, run->name);
    if (!mkdtemp(folder)) {
        char reason[REASON_SIZE];
        return error_set(&run->error, ERROR_TEMPORARY, "cannot make the folder %s: %s", folder,
                         strerror_r(errno, reason, sizeof(reason)));
    }
    run->folder = folder;
    return true;
}

static bool find_program(struct local_run *run)
{
    const char *word = run->plan.arguments[0];
    run->program =
        local_process_find(word, local_plan_variable(run->plan.environment, "PATH"), run->arena);
    if (!run->program) {
        return error_set(&run->error, ERROR_NOT_FOUND, "there is no program %s on this machine",
                         word);
    }
    return true;
}

static void prepare(uv_work_t *work)
{
    struct local_run *run = work->data;
    if (!make_private_folder(run)) {
        run->error_category = "CreateContainerError";
        return;
    }
    struct local_plan_site site = {
        .job_name = run->name,
        .namespace_name = run->site->namespace_name,
        .record = run->record,
        .folder = run->folder,
        .claims_folder = run->site->claims_folder,
        .environment = run->site->environment,
        .passed_names = run->site->passed_names,
    };
    if (!local_plan_make(run->job, &site, run->arena, &run->plan, &run->error)) {
        run->error_category = "TemplateError";
    } else if (!find_program(run)
               || !local_folder_fill(&run->plan, run->log_path, &run->log_descriptor,
                                     &run->error)) {
        run->error_category = "CreateContainerError";
    } else {
        local_output_begin(&run->states, run->log_path);
    }
}

static void look(uv_work_t *work)
{
    struct local_run *run = work->data;
    local_output_look(&run->states, run->log_path);
}

static void collect(uv_work_t *work)
{
    struct local_run *run = work->data;
    if (run->has_started) {
        run->report = local_folder_read_end(run->plan.result_file, JOB_RESULT_MAX_MESSAGE_BYTES + 1,
                                            run->arena);
        run->output = local_folder_read_end(run->log_path, JOB_RESULT_MAX_LOG_BYTES, run->arena);
    }
    if (run->folder) {
        local_folder_remove(run->folder);
    }
}

/* On the loop: the end */

static void tell_ended(struct local_run *run)
{
    struct outcome outcome;
    struct local_end_state state = {
        .job_name = run->name,
        .container = run->plan.container ? run->plan.container : "",
        .end = run->end,
        .has_started = run->has_started,
        .limit_s = run->hard_limit_s,
        .exit_code = run->exit_code,
        .signal_number = run->signal_number,
        .report = run->report,
        .output = run->output,
    };
    if (run->error_category && run->end != LOCAL_END_REVOKED) {
        local_outcome_of_error(run->name, run->error_category, &run->error, run->arena, &outcome);
    } else {
        local_outcome_make(&state, run->arena, &outcome);
    }
    outcome.runtime_s = run->runtime_s;
    run->events->on_ended(run->context, &outcome);
}

static void on_collected(uv_work_t *work, int status)
{
    (void)status;
    tell_ended(work->data);
}

static void on_refused(void *context)
{
    tell_ended(context);
}

static void start_collecting(struct local_run *run)
{
    (void)uv_queue_work(loop_uv(run->site->loop), &run->work, collect, on_collected);
}

/* On the loop: what it says of itself */

static void on_looked(uv_work_t *work, int status)
{
    struct local_run *run = work->data;
    (void)status;
    run->is_looking = false;
    if (run->is_over) {
        start_collecting(run);
        return;
    }
    loop_start_timer(run->site->loop, &run->look_timer, JOB_PROGRESS_MIN_PERIOD_MS);
    if (job_progress_is_new(&run->states.progress)) {
        struct progress progress = job_progress_give(&run->states.progress);
        run->events->on_progress(run->context, &progress);
    }
}

static void start_look(void *context)
{
    struct local_run *run = context;
    run->is_looking = true;
    (void)uv_queue_work(loop_uv(run->site->loop), &run->work, look, on_looked);
}

/* On the loop: the process */

static void on_exit_of_process(void *context, int exit_code, int signal_number)
{
    struct local_run *run = context;
    loop_stop_timer(run->site->loop, &run->timer);
    run->exit_code = exit_code;
    run->signal_number = signal_number;
    run->runtime_s = (double)(loop_now_ms(run->site->loop) - run->started_ms) / MS_PER_S;
    run->is_over = true;
    loop_stop_timer(run->site->loop, &run->look_timer);
    if (!run->is_looking) {
        start_collecting(run);
    }
}

static void on_timer(void *context)
{
    struct local_run *run = context;
    if (run->is_terminated) {
        local_process_signal(&run->process, SIGKILL);
    } else {
        local_run_end(run, run->timer_end, -1.0);
    }
}

/* Arms the timer for whichever limit comes first. */
static void arm_limit(struct local_run *run)
{
    double limit_s = run->plan.deadline_s;
    run->timer_end = LOCAL_END_DEADLINE;
    double end_s = run->hard_limit_s + run->site->limit_grace_s;
    if (run->hard_limit_s > 0.0 && (limit_s <= 0.0 || end_s < limit_s)) {
        limit_s = end_s;
        run->timer_end = LOCAL_END_LIMIT;
    }
    if (limit_s > 0.0) {
        loop_start_timer(run->site->loop, &run->timer, delay_ms(limit_s));
    }
}

static bool start_process(struct local_run *run)
{
    struct local_process_options options = {
        .program = run->program,
        .arguments = run->plan.arguments,
        .environment = run->plan.environment,
        .working_folder = run->plan.working_folder,
        .output = run->log_descriptor,
    };
    run->process.on_exit = on_exit_of_process;
    run->process.context = run;
    run->started_ms = loop_now_ms(run->site->loop);
    return local_process_start(run->site->table, &run->process, &options, &run->error);
}

static void on_prepared(uv_work_t *work, int status)
{
    struct local_run *run = work->data;
    (void)status;
    if (!run->error_category && run->end == LOCAL_END_ITSELF) {
        run->has_started = start_process(run);
        run->error_category = run->has_started ? NULL : "CreateContainerError";
    }
    if (run->log_descriptor >= 0) {
        (void)close(run->log_descriptor);
        run->log_descriptor = -1;
    }
    if (run->has_started) {
        arm_limit(run);
        if (run->events->on_progress) {
            loop_start_timer(run->site->loop, &run->look_timer, JOB_PROGRESS_MIN_PERIOD_MS);
        }
        run->events->on_started(run->context);
    } else {
        run->is_over = true;
        start_collecting(run);
    }
}

/* Public functions */

struct local_run *local_run_new(const struct local_run_site *site, const char *name,
                                struct bytes record, double hard_limit_s,
                                const struct local_run_events *events, void *context)
{
    struct local_run *run = memory_new(sizeof(*run));
    run->site = site;
    run->events = events;
    run->context = context;
    run->hard_limit_s = hard_limit_s;
    run->arena = arena_new(ARENA_FIRST_BYTES);
    run->name = arena_text(run->arena, bytes_from_text(name));
    run->record = arena_text(run->arena, record);
    run->log_descriptor = -1;
    run->exit_code = -1;
    run->work.data = run;
    run->refuse_call = (struct loop_call){.function = on_refused, .context = run};
    run->timer = (struct timer){.on_due = on_timer, .context = run};
    run->look_timer = (struct timer){.on_due = start_look, .context = run};
    return run;
}

void local_run_free(struct local_run **run)
{
    if (!*run) {
        return;
    }
    json_decref((*run)->job);
    local_output_fini(&(*run)->states);
    arena_free(&(*run)->arena);
    memory_free(run);
}

void local_run_begin(struct local_run *run, json_t *job)
{
    run->job = job;
    (void)uv_queue_work(loop_uv(run->site->loop), &run->work, prepare, on_prepared);
}

void local_run_refuse(struct local_run *run, const char *category, const struct error *error)
{
    run->error_category = category;
    run->error = *error;
    loop_defer(run->site->loop, &run->refuse_call);
}

static void end_by(struct local_run *run, enum local_end end, double grace_s, int signal_number)
{
    if (!run->is_over && run->end == LOCAL_END_ITSELF) {
        run->end = end;
    }
    if (!run->has_started || run->is_over) {
        return;
    }
    struct loop *loop = run->site->loop;
    int64_t grace_ms = delay_ms(grace_s < 0.0 ? run->plan.grace_s : grace_s);
    bool is_earlier = run->timer.due_ms > loop_now_ms(loop) + grace_ms;
    if (!run->is_terminated || is_earlier) {
        loop_start_timer(loop, &run->timer, grace_ms);
    }
    if (!run->is_terminated || signal_number != SIGTERM) {
        run->is_terminated = true;
        local_process_signal(&run->process, signal_number);
    }
}

void local_run_end(struct local_run *run, enum local_end end, double grace_s)
{
    end_by(run, end, grace_s, SIGTERM);
}

void local_run_revoke(struct local_run *run, int signal_number)
{
    end_by(run, LOCAL_END_REVOKED, -1.0, signal_number);
}
