#include "executor/job_inquiry.h"

#include "executor/job_event.h"

#define PODS               "v1 pods"
#define EVENTS             "v1 events"
#define DEADLINE_MS        5000 /* the kubelet of a node in trouble may not answer at all */
#define LOG_LINES          "100"
#define MAX_LOG_LINE_BYTES ((size_t)64 * 1024)
#define MAX_KEPT_LOG_BYTES ((size_t)16 * 1024) /* more than is shown; the end of the log counts */

struct job_inquiry {
    struct kubernetes_api *api;
    const char *name; /* of the Job; in the arena */
    struct job_facts facts;
    struct arena *arena; /* borrowed */
    struct buffer log;
    struct timer timer;
    struct loop_call begin;
    struct kubernetes_call *call;
    job_inquiry_fn *on_explained;
    void *context;
};

void job_inquiry_close(struct job_inquiry **inquiry)
{
    struct job_inquiry *ended = *inquiry;
    if (!ended) {
        return;
    }
    struct loop *loop = kubernetes_api_loop(ended->api);
    loop_stop_timer(loop, &ended->timer);
    loop_cancel(loop, &ended->begin);
    kubernetes_api_cancel(&ended->call);
    buffer_fini(&ended->log);
    memory_free(inquiry);
}

static void finish(struct job_inquiry *inquiry)
{
    struct outcome outcome;
    job_inquiry_fn *on_explained = inquiry->on_explained;
    void *context = inquiry->context;
    job_failure_explain(&inquiry->facts, inquiry->arena, &outcome);
    job_inquiry_close(&inquiry);
    on_explained(context, &outcome);
}

static void on_deadline(void *context)
{
    finish(context);
}

/* Events */

static void ask_events(struct job_inquiry *inquiry, const char *kind, struct bytes name,
                       kubernetes_answer_fn *on_answer)
{
    const char *query = arena_format(inquiry->arena,
                                     "fieldSelector=involvedObject.kind%%3D%s"
                                     "%%2CinvolvedObject.name%%3D%.*s",
                                     kind, BYTES_FORMAT(name));
    inquiry->call = kubernetes_api_call(
        inquiry->api, &(struct kubernetes_request){.resource = EVENTS, .query = query}, on_answer,
        inquiry);
}

/* Keeps the last telling event of an answer. */
static void keep_event(struct job_inquiry *inquiry, const struct kubernetes_answer *answer)
{
    struct job_event event;
    if (answer->verdict == KUBERNETES_DONE
        && job_event_find(answer->body, inquiry->arena, &event)) {
        inquiry->facts.event.reason = arena_copy(inquiry->arena, event.reason);
        inquiry->facts.event.message = arena_copy(inquiry->arena, event.message);
    }
}

static void on_pod_events(void *context, const struct kubernetes_answer *answer)
{
    struct job_inquiry *inquiry = context;
    inquiry->call = NULL;
    keep_event(inquiry, answer);
    finish(inquiry);
}

/* The pod may be gone: the Job's events name the ones that it had. */
static void on_job_events(void *context, const struct kubernetes_answer *answer)
{
    struct job_inquiry *inquiry = context;
    const struct job_pod *pod = inquiry->facts.pod;
    struct bytes pod_name = pod ? pod->name : bytes_of(NULL, 0);
    inquiry->call = NULL;
    keep_event(inquiry, answer);
    if (answer->verdict == KUBERNETES_DONE && pod_name.length == 0) {
        pod_name = arena_copy(inquiry->arena, job_event_created_pod(answer->body, inquiry->arena));
    }
    if (pod_name.length > 0) {
        ask_events(inquiry, "Pod", pod_name, on_pod_events);
    } else {
        finish(inquiry);
    }
}

static void explain_by_events(struct job_inquiry *inquiry)
{
    const struct job_facts *facts = &inquiry->facts;
    if (job_failure_needs_event(facts->job, facts->pod, inquiry->arena)) {
        ask_events(inquiry, "Job", bytes_from_text(inquiry->name), on_job_events);
    } else {
        finish(inquiry);
    }
}

/* The log */

static void on_log_line(void *context, struct bytes line)
{
    struct job_inquiry *inquiry = context;
    struct buffer *log = &inquiry->log;
    (void)buffer_append(log, line);
    (void)buffer_append_byte(log, '\n');
    size_t length = buffer_view(log).length;
    if (length > MAX_KEPT_LOG_BYTES) {
        buffer_consume(log, length - MAX_KEPT_LOG_BYTES);
    }
}

static void on_log_end(void *context, const struct kubernetes_answer *answer)
{
    struct job_inquiry *inquiry = context;
    struct bytes log = buffer_view(&inquiry->log);
    inquiry->call = NULL;
    if (answer->verdict == KUBERNETES_DONE && log.length > 0) {
        inquiry->facts.log = arena_copy(inquiry->arena, log);
    }
    explain_by_events(inquiry);
}

static void begin(void *context)
{
    struct job_inquiry *inquiry = context;
    const struct job_pod *pod = inquiry->facts.pod;
    bool has_log = pod && pod->name.length > 0 && pod->container.length > 0
                   && (pod->exit_code >= 0 || pod->state == JOB_POD_RUNNING);
    if (!has_log) {
        explain_by_events(inquiry);
        return;
    }
    const char *name = arena_format(inquiry->arena, "%.*s/log", BYTES_FORMAT(pod->name));
    const char *query = arena_format(inquiry->arena, "container=%.*s&tailLines=" LOG_LINES,
                                     BYTES_FORMAT(pod->container));
    inquiry->call = kubernetes_api_stream(
        inquiry->api, &(struct kubernetes_request){.resource = PODS, .name = name, .query = query},
        MAX_LOG_LINE_BYTES, on_log_line, on_log_end, inquiry);
}

struct job_inquiry *job_inquiry_open(struct kubernetes_api *api, const char *name,
                                     const struct job_facts *facts, struct arena *arena,
                                     job_inquiry_fn *on_explained, void *context)
{
    struct job_inquiry *inquiry = memory_new(sizeof(*inquiry));
    struct loop *loop = kubernetes_api_loop(api);
    inquiry->api = api;
    inquiry->name = arena_text(arena, bytes_from_text(name));
    inquiry->facts = *facts;
    inquiry->arena = arena;
    inquiry->on_explained = on_explained;
    inquiry->context = context;
    inquiry->timer = (struct timer){.on_due = on_deadline, .context = inquiry};
    inquiry->begin = (struct loop_call){.function = begin, .context = inquiry};
    buffer_init(&inquiry->log, MAX_KEPT_LOG_BYTES + MAX_LOG_LINE_BYTES + 1);
    if (facts->pod && facts->log.length == 0) {
        inquiry->facts.log = facts->pod->message; /* what the kubelet kept of it, if it did */
    }
    loop_start_timer(loop, &inquiry->timer, DEADLINE_MS);
    loop_defer(loop, &inquiry->begin);
    return inquiry;
}
