#include "executor/local_output.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES    ((size_t)16 * 1024)
#define MAX_LINE_BYTES ((size_t)JOB_PROGRESS_MAX_LINE_BYTES + 1) /* one more: it is too long */

/* Opens the log for reading, unless the task has put something else in its place, and tells its
 * size. Returns the descriptor, or -1. */
static int open_log(const char *path, off_t *ret_size)
{
    struct stat status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (descriptor >= 0 && (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode))) {
        (void)close(descriptor);
        return -1;
    }
    if (descriptor >= 0) {
        *ret_size = status.st_size;
    }
    return descriptor;
}

void local_output_begin(struct local_output *output, const char *path)
{
    off_t size = 0;
    int descriptor = open_log(path, &size);
    buffer_init(&output->line, MAX_LINE_BYTES);
    if (descriptor >= 0) {
        output->offset = size;
        (void)close(descriptor);
    }
}

static void keep(struct buffer *line, struct bytes piece)
{
    size_t room = MAX_LINE_BYTES - line->length;
    piece.length = piece.length < room ? piece.length : room;
    (void)buffer_append(line, piece);
}

static void take_lines(struct local_output *output, struct bytes piece)
{
    size_t length = bytes_find(piece, '\n');
    while (length < piece.length) {
        keep(&output->line, bytes_of(piece.data, length));
        (void)job_progress_take(&output->progress, buffer_view(&output->line), NULL);
        buffer_clear(&output->line);
        piece = bytes_skip(piece, length + 1);
        length = bytes_find(piece, '\n');
    }
    keep(&output->line, piece);
}

/* What is left out may have ended in the middle of a line: its rest is no line of the task's. */
static void leave_out(struct local_output *output, off_t offset)
{
    output->offset = offset;
    buffer_clear(&output->line);
    (void)buffer_append_byte(&output->line, '?');
}

void local_output_look(struct local_output *output, const char *path)
{
    off_t size = 0;
    char piece[PIECE_BYTES];
    int descriptor = open_log(path, &size);
    if (descriptor < 0) {
        return;
    }
    if (size < output->offset) {
        leave_out(output, size); /* the task has cut it off */
    } else if (size - output->offset > (off_t)LOCAL_OUTPUT_MAX_LOOK_BYTES) {
        leave_out(output, size - (off_t)LOCAL_OUTPUT_MAX_LOOK_BYTES);
    }
    while (output->offset < size) {
        size_t wanted = (size_t)(size - output->offset);
        ssize_t count = pread(descriptor, piece, wanted < sizeof(piece) ? wanted : sizeof(piece),
                              output->offset);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            break;
        }
        take_lines(output, bytes_of(piece, (size_t)count));
        output->offset += count;
    }
    (void)close(descriptor);
}

void local_output_fini(struct local_output *output)
{
    buffer_fini(&output->line);
    job_progress_fini(&output->progress);
}
