/*
 * UTF-8, one character at a time, strictly: no overlong forms, no surrogates, nothing above U+10FFFF
 * (Unicode 15, table 3-7).
 */
#ifndef PETIOLE_BASE_UTF8_H
#define PETIOLE_BASE_UTF8_H

#include "base/bytes.h"

/* Reads the character at the start of `text`, which is not empty; returns how many bytes it has, or
 * 0, with `ret_point` untouched, when they are no character. */
size_t utf8_decode(struct bytes text, unsigned *ret_point);

#endif
