/*
 * What a task in a container has left to do (executor/job_frame.h): its messages are sent, and the
 * ends of tasks that hang together with it are stored, one after the other. Each step can be done
 * again after a crash: the messages' ids are in the report, and their delivery tags are derived.
 */
#include <fnmatch.h>

#include "codec/message_retry.h"
#include "executor/job_frame.h"
#include "worker/pipeline_private.h"

struct frames {
    struct pipeline *pipeline;
    struct request *request; /* borrowed; this lives in its arena */
    struct json_walk walk;
    bool skips_failure;
    int position; /* of the frame under way, from 1: 0 is the worker's own retry */
    struct bytes sent_task;
    struct bytes sent_queue;
    bool has_forged; /* it told the end of a task that is not its to tell: no more of them counts */
    broker_done_fn *on_done;
    void *context;
};

static void go_on(struct frames *frames);

static void end(struct frames *frames, const struct error *error)
{
    frames->on_done(frames->context, error == NULL, error);
}

static void on_step_done(void *context, bool ok, const struct error *error)
{
    static const struct error closed = {.kind = ERROR_TEMPORARY, .message = "it was closed"};
    struct frames *frames = context;
    if (ok) {
        go_on(frames);
    } else {
        end(frames, error ? error : &closed);
    }
}

/* Publish */

static void on_sent(void *context, bool ok, const struct error *error)
{
    struct frames *frames = context;
    struct bytes labels[] = {frames->sent_task, frames->sent_queue};
    metrics_add(frames->pipeline->options.metrics, METRICS_TASK_SENT, labels, ok ? 1 : 0);
    on_step_done(frames, ok, error);
}

/* Whether the tasks of this worker may send to `queue`. */
static bool is_allowed(const struct frames *frames, struct bytes queue)
{
    const struct pipeline_options *options = &frames->pipeline->options;
    const char *name = arena_text(frames->request->arena, queue);
    bool is_found = bytes_equal(queue, frames->request->message.queue);
    for (const char *const *own = options->queues; *own && !is_found; own++) {
        is_found = strcmp(*own, name) == 0;
    }
    for (const char *const *glob = options->publish_queues; *glob && !is_found; glob++) {
        is_found = fnmatch(*glob, name, 0) == 0;
    }
    return is_found;
}

static void publish(struct frames *frames, const struct job_frame *frame)
{
    struct pipeline *pipeline = frames->pipeline;
    const struct strategy_rules *rules = &pipeline->options.rules;
    struct buffer headers;
    char tag[37];
    buffer_init(&headers, frame->headers.text.length * 6 + 1024);
    message_retry_append_sent_headers(&headers, frame->headers, rules->tenant_header,
                                      rules->tenant);
    message_retry_follow_up_id(&frames->request->message, frames->position, tag);
    struct publication publication = {
        .routing_key = frame->queue,
        .headers = buffer_view(&headers),
        .properties = frame->properties,
        .correlation_id = frame->correlation_id,
        .reply_to = frame->reply_to,
        .content_type = frame->content_type,
        .content_encoding = frame->content_encoding,
        .body = frame->body,
        .delivery_tag = bytes_from_text(tag),
        .priority = frame->priority,
    };
    frames->sent_task = frame->task;
    frames->sent_queue = frame->queue;
    pipeline->broker->ops->publish(pipeline->broker, &publication, on_sent, frames);
    buffer_fini(&headers);
}

static void publish_if_allowed(struct frames *frames, const struct job_frame *frame)
{
    struct error error = {.kind = ERROR_NONE};
    if (is_allowed(frames, frame->queue)) {
        publish(frames, frame);
        return;
    }
    (void)error_set(&error, ERROR_REFUSED,
                    "tasks of this worker may not send to queue %.*s: it is not one of "
                    "kubernetes_publish_queues",
                    BYTES_FORMAT(frame->queue));
    end(frames, &error);
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

/* The failure of what is left of this one's chain; nothing else is its to tell. */
static bool is_its_to_tell(const struct frames *frames, const struct job_frame *frame)
{
    const struct request *request = frames->request;
    return !frames->has_forged && bytes_equal_text(frame->state, RESULT_FAILURE)
           && one_names_task(request->message.chain, frame->task_id, request->arena);
}

/* Returns whether on_step_done follows. */
static bool store(struct frames *frames, const struct job_frame *frame)
{
    struct pipeline *pipeline = frames->pipeline;
    const struct message *message = &frames->request->message;
    bool is_its = is_its_to_tell(frames, frame);
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

static void complain_of_chord(const struct frames *frames, const struct job_frame *frame)
{
    const struct message *message = &frames->request->message;
    log_task(
        LOG_ERROR, message->task, message->id,
        "Task %.*s[%.*s] ends task %.*s, a member of chord %.*s, which this version of Petiole "
        "does not count: the chord's body will not run",
        BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id),
        BYTES_FORMAT(frame->task_id), BYTES_FORMAT(frame->group));
}

/* All of them */

/* Takes the next frame that is to be done; false at the end. */
static bool next_frame(struct frames *frames, struct job_frame *ret_frame)
{
    struct json element;
    while (json_next_element(&frames->walk, &element)) {
        frames->position++;
        bool is_read = job_frame_read(element, frames->request->arena, ret_frame, NULL);
        if (is_read && !(frames->skips_failure && ret_frame->is_after_failure)) {
            return true;
        }
    }
    return false;
}

static void go_on(struct frames *frames)
{
    struct job_frame frame;
    while (next_frame(frames, &frame)) {
        if (frame.kind == JOB_FRAME_PUBLISH) {
            publish_if_allowed(frames, &frame);
            return;
        }
        if (frame.kind == JOB_FRAME_STORE && store(frames, &frame)) {
            return;
        }
        if (frame.kind == JOB_FRAME_JOIN_CHORD) {
            complain_of_chord(frames, &frame);
        }
    }
    end(frames, NULL);
}

void pipeline_do_frames(struct pipeline *pipeline, struct request *request, struct json list,
                        bool skips_failure, broker_done_fn *on_done, void *context)
{
    struct frames *frames = arena_alloc(request->arena, sizeof(*frames));
    *frames = (struct frames){
        .pipeline = pipeline,
        .request = request,
        .walk = json_walk(list),
        .skips_failure = skips_failure,
        .on_done = on_done,
        .context = context,
    };
    go_on(frames);
}
