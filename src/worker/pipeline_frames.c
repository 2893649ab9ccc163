/*
 * What a task in a container has left to do (executor/job_frame.h): its messages are sent, and the
 * ends of tasks that hang together with it are stored, one after the other. Each step can be done
 * again after a crash: the messages' ids are in the report, and their delivery tags are derived.
 */
#include <fnmatch.h>

#include "codec/message_retry.h"
#include "worker/pipeline_private.h"

#define MAX_UNDONE_LINES 10 /* of the log, for one task */

struct frames {
    struct pipeline *pipeline;
    struct request *request; /* borrowed; this lives in its arena */
    struct json_walk walk;
    bool skips_failure;
    bool goes_on;
    int position; /* of the frame under way */
    struct job_frame frame;
    size_t undone_count; /* of frames that were left out */
    bool has_forged; /* it told the end of a task that is not its to tell: no more of them counts */
    bool has_joined_chord;
    broker_done_fn *on_done;
    void *context;
};

static void go_on(struct frames *frames);

static void end(struct frames *frames, const struct error *error)
{
    const struct message *message = &frames->request->message;
    if (frames->undone_count > MAX_UNDONE_LINES) {
        log_task(LOG_ERROR, message->task, message->id,
                 "%zu more of what task %.*s[%.*s], which has failed, leaves to do are not done",
                 frames->undone_count - MAX_UNDONE_LINES,
                 BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id));
    }
    frames->on_done(frames->context, error == NULL, error);
}

/* Tells that the frame under way is not done; `what` is about it. */
static void log_undone(struct frames *frames, const char *what, const struct error *error)
{
    const struct message *message = &frames->request->message;
    if (++frames->undone_count <= MAX_UNDONE_LINES) {
        log_task(LOG_ERROR, message->task, message->id,
                 "Of what task %.*s[%.*s], which has failed, leaves to do, %s: %s",
                 BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id), what,
                 error->message);
    }
}

/* Leaves the frame under way out, by `error`, and tells so; false when the rest may not be done without
 * it. A task that has failed does not fail again: whoever waits for it has to know. */
static bool leave_out(struct frames *frames, const struct error *error)
{
    const struct job_frame *frame = &frames->frame;
    struct arena *arena = frames->request->arena;
    if (!frames->goes_on || error->kind == ERROR_TEMPORARY || error->kind == ERROR_NONE) {
        return false;
    }
    log_undone(frames,
               frame->kind == JOB_FRAME_PUBLISH
                   ? arena_format(arena, "task %.*s[%.*s] is not sent to queue %.*s",
                                  BYTES_FORMAT(frame->task), BYTES_FORMAT(frame->task_id),
                                  BYTES_FORMAT(frame->queue))
                   : arena_format(arena, "the end of task %.*s is not stored",
                                  BYTES_FORMAT(frame->task_id)),
               error);
    return true;
}

static void on_step_done(void *context, bool ok, const struct error *error)
{
    static const struct error closed = {.kind = ERROR_TEMPORARY, .message = "it was closed"};
    struct frames *frames = context;
    const struct error *reason = error ? error : &closed;
    if (ok || leave_out(frames, reason)) {
        go_on(frames);
    } else {
        end(frames, reason);
    }
}

/* Publish */

static void on_sent(void *context, bool ok, const struct error *error)
{
    struct frames *frames = context;
    struct bytes labels[] = {frames->frame.task, frames->frame.queue};
    metrics_add(frames->pipeline->options.metrics, METRICS_TASK_SENT, labels, ok ? 1 : 0);
    on_step_done(frames, ok, error);
}

bool pipeline_may_send_to(const struct pipeline *pipeline, struct arena *arena, struct bytes queue,
                          struct error *reterr)
{
    const struct pipeline_options *options = &pipeline->options;
    const char *name = arena_text(arena, queue);
    bool is_found = strcmp(options->rules.tenant, name) == 0;
    for (const char *const *own = options->queues; *own && !is_found; own++) {
        is_found = strcmp(*own, name) == 0;
    }
    for (const char *const *glob = options->publish_queues; *glob && !is_found; glob++) {
        is_found = fnmatch(*glob, name, 0) == 0;
    }
    return is_found
           || error_set(reterr, ERROR_REFUSED,
                        "tasks of this worker may not send to queue %s: add it to "
                        "kubernetes_publish_queues to allow it",
                        name);
}

struct publication pipeline_publication_of(const struct job_frame *frame, struct bytes headers,
                                           struct bytes delivery_tag)
{
    return (struct publication){
        .routing_key = frame->queue,
        .headers = headers,
        .properties = frame->properties,
        .correlation_id = frame->correlation_id,
        .reply_to = frame->reply_to,
        .content_type = frame->content_type,
        .content_encoding = frame->content_encoding,
        .body = frame->body,
        .delivery_tag = delivery_tag,
        .priority = frame->priority,
    };
}

static void publish(struct frames *frames)
{
    const struct job_frame *frame = &frames->frame;
    struct pipeline *pipeline = frames->pipeline;
    const struct strategy_rules *rules = &pipeline->options.rules;
    struct buffer headers;
    char tag[37];
    buffer_init(&headers, frame->headers.text.length * 6 + 1024);
    message_retry_append_sent_headers(&headers, frame->headers, rules->tenant_header,
                                      rules->tenant);
    message_retry_follow_up_id(&frames->request->message, frames->position, tag);
    struct publication publication =
        pipeline_publication_of(frame, buffer_view(&headers), bytes_from_text(tag));
    pipeline->broker->ops->publish(pipeline->broker, &publication, on_sent, frames);
    buffer_fini(&headers);
}

/* Returns false when there is nothing to wait for: it was left out. */
static bool publish_if_allowed(struct frames *frames)
{
    struct error error = {.kind = ERROR_NONE};
    if (pipeline_may_send_to(frames->pipeline, frames->request->arena, frames->frame.queue,
                             &error)) {
        publish(frames);
        return true;
    }
    if (leave_out(frames, &error)) {
        return false;
    }
    end(frames, &error);
    return true;
}

/* Store */

static bool names_task(struct json signature, struct bytes id, struct arena *arena);

static bool one_names_task(struct json signatures, struct bytes id, struct arena *arena)
{
    struct json_walk walk = json_walk(signatures);
    struct json signature;
    while (signatures.type == JSON_TYPE_ARRAY && json_next_element(&walk, &signature)) {
        if (names_task(signature, id, arena)) {
            return true;
        }
    }
    return false;
}

/* Whether a signature, or one that it is made of as a group, chain or chord, has this task id. The
 * depth is limited by that of JSON. */
static bool names_task(struct json signature, struct bytes id, struct arena *arena)
{
    struct json kwargs = json_get(signature, "kwargs");
    struct bytes text;
    if (json_text(json_get(json_get(signature, "options"), "task_id"), arena, &text)
        && bytes_equal(text, id)) {
        return true;
    }
    if (json_is_unset(json_get(signature, "subtask_type"))) {
        return false; /* a task, whose arguments are its own */
    }
    return names_task(json_get(kwargs, "body"), id, arena)
           || one_names_task(json_get(kwargs, "tasks"), id, arena)
           || one_names_task(json_get(kwargs, "header"), id, arena);
}

/* The failure of what is left of this one's chain, or of its chord; nothing else is its to tell. */
static bool is_its_to_tell(const struct frames *frames)
{
    const struct job_frame *frame = &frames->frame;
    const struct request *request = frames->request;
    return !frames->has_forged && bytes_equal_text(frame->state, RESULT_FAILURE)
           && (one_names_task(request->message.chain, frame->task_id, request->arena)
               || names_task(request->message.chord, frame->task_id, request->arena));
}

/* Returns whether on_step_done follows. */
static bool store(struct frames *frames)
{
    const struct job_frame *frame = &frames->frame;
    struct pipeline *pipeline = frames->pipeline;
    const struct message *message = &frames->request->message;
    bool is_its = is_its_to_tell(frames);
    if (!is_its && !frames->has_forged) {
        frames->has_forged = true;
        log_task(LOG_WARNING, message->task, message->id,
                 "Task %.*s[%.*s] told the state %.*s of task %.*s, which is not its to tell; this "
                 "and what else it tells of other tasks is not stored",
                 BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id),
                 BYTES_FORMAT(frame->state), BYTES_FORMAT(frame->task_id));
    }
    if (!is_its || !pipeline->backend) {
        return false;
    }
    pipeline->backend->ops->store(pipeline->backend, frame->task_id, frame->document,
                                  pipeline->options.result_expires_s, on_step_done, frames);
    return true;
}

static void complain_of_chord(struct frames *frames)
{
    const struct message *message = &frames->request->message;
    if (!frames->has_joined_chord) {
        frames->has_joined_chord = true;
        log_task(LOG_ERROR, message->task, message->id,
                 "Task %.*s[%.*s] ends task %.*s, a member of chord %.*s, which this version of "
                 "Petiole does not count: the chord's body will not run",
                 BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id),
                 BYTES_FORMAT(frames->frame.task_id), BYTES_FORMAT(frames->frame.group));
    }
}

/* All of them */

/* Takes the next frame that is to be done; false at the end. Those of a report could all be read
 * when it was; the worker's own may be of signatures with bad names. */
static bool next_frame(struct frames *frames)
{
    struct json element;
    struct error error = {.kind = ERROR_NONE};
    while (json_next_element(&frames->walk, &element)) {
        frames->position++;
        if (!job_frame_read(element, frames->request->arena, &frames->frame, &error)) {
            log_undone(frames, "one thing cannot be read", &error);
        } else if (!(frames->skips_failure && frames->frame.is_after_failure)) {
            return true;
        }
    }
    return false;
}

/* Does the frame under way; returns whether on_step_done or the end follows. */
static bool begin_step(struct frames *frames)
{
    switch (frames->frame.kind) {
    case JOB_FRAME_PUBLISH:
        return publish_if_allowed(frames);
    case JOB_FRAME_STORE:
        return store(frames);
    case JOB_FRAME_JOIN_CHORD:
    default:
        complain_of_chord(frames);
        return false;
    }
}

static void go_on(struct frames *frames)
{
    while (next_frame(frames)) {
        if (begin_step(frames)) {
            return;
        }
    }
    end(frames, NULL);
}

void pipeline_do_frames(struct pipeline *pipeline, struct request *request,
                        const struct pipeline_frames *what, broker_done_fn *on_done, void *context)
{
    struct frames *frames = arena_alloc(request->arena, sizeof(*frames));
    *frames = (struct frames){
        .pipeline = pipeline,
        .request = request,
        .walk = json_walk(what->list),
        .skips_failure = what->skips_failure,
        .goes_on = what->goes_on,
        .position = (int)what->follow_up - 1,
        .on_done = on_done,
        .context = context,
    };
    go_on(frames);
}
