/*
 * * Where in a container's command a message's values may stand: never as the program, never where
 * an interpreter takes options or a program's text (`sh -c TEXT`), because there a value would not
 * be an argument but code. Pure.
 */
#ifndef PETIOLE_EXECUTOR_JOB_COMMAND_H
#define PETIOLE_EXECUTOR_JOB_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"

/* One word of command and args together. */
struct job_command_word {
    const char *text;
    bool is_variable; /* a message can change it */
};

/* Looks at the whole command line. `has_command` false: the image's entrypoint, which may be a
 * shell, stands before it. Returns NULL when all is well, else what is wrong, and with which word.
 */
const char *job_command_find_fault(const struct job_command_word *words, size_t count,
                                   bool has_command, size_t *ret_index);

#endif
