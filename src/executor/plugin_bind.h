/*
 * Gives the arguments of a task to named parameters, as a call of a Python function does, with
 * Python's own sentences for what does not fit (CPython: Python/ceval.c: initialize_locals). Pure.
 */
#ifndef PETIOLE_EXECUTOR_PLUGIN_BIND_H
#define PETIOLE_EXECUTOR_PLUGIN_BIND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/memory.h"

/* Parameters of a function: the first `required_count` of `count` must be given. Borrowed. */
struct plugin_parameters {
    struct bytes function; /* its name, for messages */
    const char *const *names;
    size_t required_count;
    size_t count;
};

/* Fills ret_values[0..count-1] from the array `args` and the object `kwargs`, JSON_TYPE_ABSENT for
 * what was not given. Returns false with the text of a TypeError in `ret_message`, and `ret_values`
 * undefined. */
bool plugin_bind(const struct plugin_parameters *parameters, struct json args, struct json kwargs,
                 struct json *ret_values, struct buffer *ret_message) MUST_CHECK;

#endif
