#include "executor/process_child.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/stream.h"
#include "executor/process_output.h"

#define OPEN_MS     60000
#define REASON_SIZE 128

/* A line of the log whose mark in the output has not come yet. */
struct log_line {
    struct list_node node;
    int level;
    size_t length;
    char text[];
};

struct process_child {
    const struct process_child_events *events;
    void *context;
    struct stream *peer;           /* owned; NULL: closed */
    struct process_output *output; /* owned */
    struct buffer input;           /* the beginning of a frame */
    struct list log_lines;         /* of struct log_line */
};

/* The log: each of its lines has a mark in the output, after which it is told, so that both come in
 * the order of the process. The line is sent before its mark is written. */

static void tell_first_log_line(struct process_child *child)
{
    struct log_line *line = list_entry(list_pop(&child->log_lines), struct log_line, node);
    child->events->on_line(child->context, line->level, bytes_of(line->text, line->length), false);
    memory_free(&line);
}

static void take_log_line(struct process_child *child, int level, struct bytes text)
{
    struct log_line *line = memory_new(sizeof(*line) + text.length);
    line->level = level;
    line->length = text.length;
    memcpy(line->text, text.data, text.length);
    list_append(&child->log_lines, &line->node);
    process_output_resume(child->output);
}

static bool on_mark(void *context)
{
    struct process_child *child = context;
    if (list_is_empty(&child->log_lines)) {
        return false;
    }
    tell_first_log_line(child);
    return true;
}

/* Tells all output and all lines of the log, also if a task has made marks of its own, or none. */
static void flush_lines(struct process_child *child)
{
    process_output_flush(child->output);
    while (!list_is_empty(&child->log_lines)) {
        tell_first_log_line(child);
    }
}

/* The socket */

static void break_off(struct process_child *child)
{
    stream_close(&child->peer);
    child->events->on_closed(child->context, true);
}

/* False when it is none of the frames that a process sends. */
static bool tell(struct process_child *child, const struct process_frame *frame)
{
    union {
        struct process_frame_state state;
        struct process_frame_done done;
        struct bytes text;
    } read;

    int number = 0;
    switch (frame->kind) {
    case PROCESS_FRAME_READY:
        if (!process_frame_read_ready(frame->payload, &number)) {
            return false;
        }
        child->events->on_ready(child->context, number);
        return true;
    case PROCESS_FRAME_ACCEPTED:
        child->events->on_accepted(child->context);
        return frame->payload.length == 0;
    case PROCESS_FRAME_STATE:
        if (!process_frame_read_state(frame->payload, &read.state)) {
            return false;
        }
        child->events->on_state(child->context, &read.state);
        return true;
    case PROCESS_FRAME_ENDED:
        if (!process_frame_read_ended(frame->payload, &read.text)) {
            return false;
        }
        child->events->on_task_ended(child->context, read.text);
        return true;
    case PROCESS_FRAME_DONE:
        if (!process_frame_read_done(frame->payload, &read.done)) {
            return false;
        }
        flush_lines(child);
        child->events->on_done(child->context, &read.done);
        return true;
    case PROCESS_FRAME_LOG:
        if (!process_frame_read_log(frame->payload, &number, &read.text)) {
            return false;
        }
        take_log_line(child, number, read.text);
        return true;
    default:
        return false;
    }
}

/* Tells the complete frames of `input`, and leaves the rest in it. */
static void tell_frames(struct process_child *child, struct bytes *input)
{
    struct process_frame frame;
    enum process_frame_status status = PROCESS_FRAME_COMPLETE;
    while (child->peer && (status = process_frame_take(input, &frame)) == PROCESS_FRAME_COMPLETE) {
        if (!tell(child, &frame)) {
            status = PROCESS_FRAME_BROKEN;
            break;
        }
    }
    if (status == PROCESS_FRAME_BROKEN && child->peer) {
        break_off(child);
    }
}

static void on_peer_data(void *context, struct bytes data)
{
    struct process_child *child = context;
    struct bytes rest = data;
    if (child->input.length == 0) {
        tell_frames(child, &rest);
        if (child->peer && !buffer_append(&child->input, rest)) {
            break_off(child);
        }
        return;
    }
    if (!buffer_append(&child->input, data)) {
        break_off(child);
        return;
    }
    rest = buffer_view(&child->input);
    tell_frames(child, &rest);
    buffer_consume(&child->input, child->input.length - rest.length);
    if (child->input.length == 0) {
        buffer_fini(&child->input);
    }
}

static void on_open(void *context)
{
    (void)context;
}

static void on_peer_drop(void *context, const struct error *error)
{
    struct process_child *child = context;
    (void)error;
    stream_close(&child->peer);
    child->events->on_closed(child->context, false);
}

static const struct stream_events peer_events = {on_open, on_peer_data, on_peer_drop};

/* The output */

static void on_output(void *context, struct bytes line)
{
    struct process_child *child = context;
    child->events->on_line(child->context, LOG_WARNING, line, true);
}

/* Life cycle */

static bool make_ends(int peers[2], int pipes[2], struct error *reterr)
{
    char reason[REASON_SIZE];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, peers) == 0) {
        if (pipe2(pipes, O_CLOEXEC) == 0) {
            return true;
        }
        (void)close(peers[0]);
        (void)close(peers[1]);
    }
    return error_set(reterr, ERROR_TEMPORARY, "no socket for a Python process: %s",
                     strerror_r(errno, reason, sizeof(reason)));
}

struct process_child *process_child_new(struct loop *loop,
                                        const struct process_child_events *events, void *context,
                                        struct process_child_ends *ret_ends, struct error *reterr)
{
    int peers[2] = {-1, -1};
    int pipes[2] = {-1, -1};
    if (!make_ends(peers, pipes, reterr)) {
        return NULL;
    }
    struct process_child *child = memory_new(sizeof(*child));
    child->events = events;
    child->context = context;
    buffer_init(&child->input, PROCESS_FRAME_MAX_BYTES);
    list_init(&child->log_lines);
    struct stream_options options = {
        .unix_path = "Python process",
        .descriptor = peers[0],
        .connect_timeout_ms = OPEN_MS,
        .max_write_bytes = 2 * PROCESS_FRAME_MAX_BYTES,
    };
    child->peer = stream_open(loop, &options, &peer_events, child);
    child->output = process_output_new(loop, pipes[0], on_output, on_mark, child);
    *ret_ends = (struct process_child_ends){peers[1], pipes[1]};
    return child;
}

void process_child_free(struct process_child **child)
{
    if (!*child) {
        return;
    }
    while (!list_is_empty(&(*child)->log_lines)) {
        struct log_line *line = list_entry(list_pop(&(*child)->log_lines), struct log_line, node);
        memory_free(&line);
    }
    stream_close(&(*child)->peer);
    process_output_free(&(*child)->output);
    buffer_fini(&(*child)->input);
    memory_free(child);
}

void process_child_send(struct process_child *child, const struct process_frame_task *task)
{
    if (child->peer) {
        process_frame_append_task(stream_out(child->peer), task);
    }
}

void process_child_send_ending(struct process_child *child, const struct process_frame_task *task,
                               struct bytes ending)
{
    if (child->peer) {
        process_frame_append_ending(stream_out(child->peer), task, ending);
    }
}

void process_child_close(struct process_child *child)
{
    stream_close(&child->peer);
}

void process_child_drain(struct process_child *child)
{
    if (child->peer) {
        stream_read_now(child->peer);
    }
    flush_lines(child);
}
