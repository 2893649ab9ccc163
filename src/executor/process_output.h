/*
 * The worker's end of a pipe that is some process' stdout and stderr, told line by line.
 *
 * A process that tells things elsewhere, too, may write a mark when it has done so (MARK in
 * python-shim/src/petiole/_frames.py): "\0\x1d\n", by one write, so that nobody else's output gets
 * into it. It ends the line before it.
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_OUTPUT_H
#define PETIOLE_EXECUTOR_PROCESS_OUTPUT_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/loop.h"

struct process_output;

/* A line without its end, borrowed; one of more than 16 KiB comes in pieces. */
typedef void(process_output_fn)(void *context, struct bytes line);

/* All that was written before the mark has been told. Returns whether to go on; else the mark holds
 * what follows until process_output_resume, or until that is more than 64 KiB. */
typedef bool(process_output_mark_fn)(void *context);

/* Returns new; takes `descriptor`. `on_mark` NULL: marks are output like any other. */
struct process_output *process_output_new(struct loop *loop, int descriptor,
                                          process_output_fn *on_line,
                                          process_output_mark_fn *on_mark, void *context);

/* Tells all that has been written by now, also a line without an end, whatever marks hold. Not inside
 * on_line or on_mark. */
void process_output_flush(struct process_output *output);

/* Asks on_mark again about the mark that holds, if one does. Not inside on_line or on_mark. */
void process_output_resume(struct process_output *output);

/* Frees it and leaves NULL; accepts NULL. */
void process_output_free(struct process_output **output);

#endif
