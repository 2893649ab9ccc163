#include "executor/process_output.h"

#include "base/memory.h"
#include "base/stream.h"

#define MAX_LINE_BYTES  ((size_t)16 * 1024)
#define MAX_WRITE_BYTES 4096 /* nothing is written */
#define OPEN_MS         60000
#define TURN_BYTES      4096 /* each line costs more than its bytes: `yes` must not hold the loop */

struct process_output {
    process_output_fn *on_line;
    void *context;
    struct stream *stream; /* owned; NULL: ended */
    struct buffer line;    /* the beginning of a line */
};

static void tell_line(struct process_output *output)
{
    output->on_line(output->context, buffer_view(&output->line));
    buffer_clear(&output->line);
}

static void on_data(void *context, struct bytes data)
{
    struct process_output *output = context;
    while (data.length > 0) {
        size_t length = bytes_find(data, '\n');
        size_t room = output->line.max_bytes - output->line.length;
        size_t taken = length < room ? length : room;
        bool is_complete = taken == length && length < data.length;
        (void)buffer_append(&output->line, bytes_of(data.data, taken));
        if (is_complete || taken < length) {
            tell_line(output);
        }
        data = bytes_skip(data, taken + is_complete);
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
                                          process_output_fn *on_line, void *context)
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
    output->context = context;
    buffer_init(&output->line, MAX_LINE_BYTES);
    output->stream = stream_open(loop, &options, &stream_events, output);
    return output;
}

void process_output_flush(struct process_output *output)
{
    if (output->stream) {
        stream_read_now(output->stream);
    }
    if (output->line.length > 0) {
        tell_line(output);
    }
}

void process_output_free(struct process_output **output)
{
    if (!*output) {
        return;
    }
    stream_close(&(*output)->stream);
    buffer_fini(&(*output)->line);
    memory_free(output);
}
