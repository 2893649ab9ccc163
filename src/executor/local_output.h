/*
 * What a running process says of itself in its log file: the file's new lines, a look at a time.
 * The functions that take a path block: they are called on libuv's pool threads.
 */
#ifndef PETIOLE_EXECUTOR_LOCAL_OUTPUT_H
#define PETIOLE_EXECUTOR_LOCAL_OUTPUT_H

#include <sys/types.h>

#include "base/memory.h"
#include "executor/job_progress.h"

#define LOCAL_OUTPUT_MAX_LOOK_BYTES ((size_t)1024 * 1024)

struct local_output {
    off_t offset;       /* up to which the file was read */
    struct buffer line; /* the beginning of a line that is not over, cut behind what one may have */
    struct job_progress progress;
};

/* Begins at the end of the file at `path`: what is there already is of an earlier run. */
void local_output_begin(struct local_output *output, const char *path);

/* Reads on. Of more than LOCAL_OUTPUT_MAX_LOOK_BYTES since the last look only the end is read. */
void local_output_look(struct local_output *output, const char *path);

void local_output_fini(struct local_output *output);

#endif
