/*
 * The copy of its options that a stream keeps. Pure.
 */
#ifndef PETIOLE_BASE_STREAM_OPTIONS_H
#define PETIOLE_BASE_STREAM_OPTIONS_H

#include "base/stream.h"

struct arena;

/* A copy whose strings are of `texts`. */
struct stream_options stream_options_copy(const struct stream_options *options,
                                          struct arena *texts);

#endif
