/*
 * The worker's end of a pipe that is some process' stdout and stderr, told line by line.
 */
#ifndef PETIOLE_EXECUTOR_PROCESS_OUTPUT_H
#define PETIOLE_EXECUTOR_PROCESS_OUTPUT_H

#include "base/bytes.h"
#include "base/loop.h"

struct process_output;

/* A line without its end, borrowed; one of more than 16 KiB comes in pieces. */
typedef void(process_output_fn)(void *context, struct bytes line);

/* Returns new; takes `descriptor`. */
struct process_output *process_output_new(struct loop *loop, int descriptor,
                                          process_output_fn *on_line, void *context);

/* Tells all that has been written by now, also a line without an end. Not inside on_line. */
void process_output_flush(struct process_output *output);

/* Frees it and leaves NULL; accepts NULL. */
void process_output_free(struct process_output **output);

#endif
