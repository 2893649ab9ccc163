#include "executor/process_output.h"

#include "base/memory.h"
#include "base/stream.h"

#define MAX_LINE_BYTES  ((size_t)16 * 1024)
#define MAX_WRITE_BYTES 4096 /* nothing is written */
#define OPEN_MS         60000
#define MARK_BYTES      2 /* without the end of its line */
#define MAX_KEPT_BYTES  ((size_t)64 * 1024)
#define TURN_BYTES      4096 /* each line costs more than its bytes: `yes` must not hold the loop */

struct process_output {
    process_output_fn *on_line;
    process_output_mark_fn *on_mark;
    void *context;
    struct stream *stream; /* owned; NULL: ended */
    struct buffer line;    /* the beginning of a line */
    struct buffer kept;    /* what follows the mark that holds */
    bool is_held;
    bool is_flushing; /* nothing holds */
};

static bool ends_with_mark(struct bytes line)
{
    return line.length >= MARK_BYTES && line.data[line.length - 2] == '\0'
           && line.data[line.length - 1] == '\x1d';
}

/* Returns whether to go on. */
static bool tell_line(struct process_output *output)
{
    struct bytes line = buffer_view(&output->line);
    bool is_mark = output->on_mark && ends_with_mark(line);
    if (is_mark) {
        line.length -= MARK_BYTES;
    }
    if (!is_mark || line.length > 0) {
        output->on_line(output->context, line);
    }
    buffer_clear(&output->line);
    return !is_mark || output->on_mark(output->context) || output->is_flushing;
}

/* Takes `data` in, and returns what is left of it at a mark that holds. */
static struct bytes take_in(struct process_output *output, struct bytes data)
{
    bool goes_on = true;
    while (goes_on && data.length > 0) {
        size_t length = bytes_find(data, '\n');
        size_t room = output->line.max_bytes - output->line.length;
        size_t taken = length < room ? length : room;
        bool is_complete = taken == length && length < data.length;
        (void)buffer_append(&output->line, bytes_of(data.data, taken));
        data = bytes_skip(data, taken + is_complete);
        if (is_complete || taken < length) {
            goes_on = tell_line(output);
        }
    }
    output->is_held = !goes_on;
    return data;
}

static void take_kept(struct process_output *output)
{
    struct buffer kept = output->kept;
    buffer_init(&output->kept, MAX_KEPT_BYTES);
    struct bytes rest = take_in(output, buffer_view(&kept));
    (void)buffer_append(&output->kept, rest);
    buffer_fini(&kept);
}

static void on_data(void *context, struct bytes data)
{
    struct process_output *output = context;
    while (output->is_held && !buffer_append(&output->kept, data)) {
        take_kept(output);
    }
    if (!output->is_held) {
        (void)buffer_append(&output->kept, take_in(output, data));
    }
}

void process_output_resume(struct process_output *output)
{
    if (output->is_held && output->on_mark(output->context)) {
        take_kept(output);
    }
}

static void on_open(void *context)
{
    (void)context;
}

static void on_drop(void *context, const struct error *error)
{
    struct process_output *output = context;
    (void)error;
    stream_close(&output->stream);
}

static const struct stream_events stream_events = {on_open, on_data, on_drop};

struct process_output *process_output_new(struct loop *loop, int descriptor,
                                          process_output_fn *on_line,
                                          process_output_mark_fn *on_mark, void *context)
{
    struct process_output *output = memory_new(sizeof(*output));
    struct stream_options options = {
        .unix_path = "output",
        .descriptor = descriptor,
        .connect_timeout_ms = OPEN_MS,
        .max_write_bytes = MAX_WRITE_BYTES,
        .turn_read_bytes = TURN_BYTES,
    };
    output->on_line = on_line;
    output->on_mark = on_mark;
    output->context = context;
    buffer_init(&output->line, MAX_LINE_BYTES);
    buffer_init(&output->kept, MAX_KEPT_BYTES);
    output->stream = stream_open(loop, &options, &stream_events, output);
    return output;
}

void process_output_flush(struct process_output *output)
{
    output->is_flushing = true;
    take_kept(output);
    if (output->stream) {
        stream_read_now(output->stream);
    }
    if (output->line.length > 0) {
        (void)tell_line(output);
    }
    output->is_flushing = false;
}

void process_output_free(struct process_output **output)
{
    if (!*output) {
        return;
    }
    stream_close(&(*output)->stream);
    buffer_fini(&(*output)->line);
    buffer_fini(&(*output)->kept);
    memory_free(output);
}
