#include "executor/job_progress.h"

#define LINE_HEAD "::petiole "

/* States that only the end of a task makes, by its report. */
static bool is_end(struct bytes state)
{
    return bytes_equal(state, BYTES("SUCCESS")) || bytes_equal(state, BYTES("FAILURE"))
           || bytes_equal(state, BYTES("REVOKED"));
}

/* Reads the object behind the head of a line; views borrow from `arena` and `text`. */
static bool read_object(struct bytes text, struct arena *arena, int64_t *ret_seq,
                        struct progress *ret_progress, struct error *reterr)
{
    struct json object;
    struct progress progress;
    if (!json_parse(text, &object, reterr)) {
        return false;
    }
    if (!json_int64(json_get(object, "seq"), ret_seq) || *ret_seq < 1) {
        return error_set(reterr, ERROR_INVALID, "it has no seq of 1 or more");
    }
    if (!json_text(json_get(object, "state"), arena, &progress.state) || progress.state.length == 0
        || progress.state.length > JOB_PROGRESS_MAX_STATE_BYTES) {
        return error_set(reterr, ERROR_INVALID, "it has no state of 1 to %d bytes",
                         JOB_PROGRESS_MAX_STATE_BYTES);
    }
    if (is_end(progress.state)) {
        return error_set(reterr, ERROR_INVALID, "only the task's end makes it %.*s",
                         BYTES_FORMAT(progress.state));
    }
    progress.meta = json_get(object, "meta");
    *ret_progress = progress;
    return true;
}

enum job_progress_line job_progress_take(struct job_progress *progress, struct bytes line,
                                         struct error *reterr)
{
    int64_t seq = 0;
    struct progress found;
    if (!bytes_starts_with(line, BYTES(LINE_HEAD))) {
        return JOB_PROGRESS_OTHER;
    }
    if (line.length > JOB_PROGRESS_MAX_LINE_BYTES) {
        (void)error_set(reterr, ERROR_INVALID, "it is longer than %d bytes",
                        JOB_PROGRESS_MAX_LINE_BYTES);
        return JOB_PROGRESS_BAD;
    }
    struct arena *arena = arena_new(line.length + 1);
    struct bytes text = arena_copy(arena, bytes_skip(line, sizeof(LINE_HEAD) - 1));
    enum job_progress_line kind = JOB_PROGRESS_BAD;
    if (read_object(text, arena, &seq, &found, reterr)) {
        kind = seq > progress->seq ? JOB_PROGRESS_NEW : JOB_PROGRESS_OLD;
    }
    if (kind == JOB_PROGRESS_NEW) {
        arena_free(&progress->arena);
        *progress = (struct job_progress){seq, arena, found};
    } else {
        arena_free(&arena);
    }
    return kind;
}

bool job_progress_is_new(const struct job_progress *progress)
{
    return progress->newest.state.length > 0;
}

struct progress job_progress_give(struct job_progress *progress)
{
    struct progress newest = progress->newest;
    progress->newest = (struct progress){.state = {NULL, 0}};
    return newest;
}

void job_progress_fini(struct job_progress *progress)
{
    arena_free(&progress->arena);
    *progress = (struct job_progress){.seq = 0};
}
