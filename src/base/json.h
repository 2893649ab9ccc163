/*
 * JSON as views. json_parse checks a whole text once; from then on a `struct json` is a type and
 * the view of its text, and members are found by skipping, without building a tree or copying. That
 * is what the hot path needs: it reads a dozen members of an envelope and passes the rest through
 * untouched. Trees (jansson) are for what somebody changes: Job templates. A file may use both, so
 * no name here is one of jansson's.
 *
 * Dialect: RFC 8259 as Python's json reads it: NaN, Infinity and -Infinity are numbers
 * (kombu/utils/json.py). Text must be UTF-8. Nesting is limited to JSON_MAX_DEPTH.
 */
#ifndef PETIOLE_BASE_JSON_H
#define PETIOLE_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/memory.h"

#define JSON_MAX_DEPTH 200

enum json_type {
    JSON_TYPE_ABSENT, /* no such member; the zero value of struct json */
    JSON_TYPE_NULL,
    JSON_TYPE_FALSE,
    JSON_TYPE_TRUE,
    JSON_TYPE_NUMBER,
    JSON_TYPE_STRING,
    JSON_TYPE_ARRAY,
    JSON_TYPE_OBJECT,
};

struct json {
    enum json_type type;
    /* the value as written, quotes and brackets included; borrows from the parsed text */
    struct bytes text;
};

/* Walks the members of an array or object; made by json_walk. */
struct json_walk {
    const char *position;
    const char *end;
};

/* Reading */

/* Checks that `text` is exactly one JSON value (white space around it allowed) and gives it.
 * Borrows `text`. Error INVALID says what is wrong and at which byte. */
bool json_parse(struct bytes text, struct json *ret_value, struct error *reterr) MUST_CHECK;

/* The value of a text that was checked before, or that we wrote: exactly one, without space around. */
struct json json_checked(struct bytes text);

/* Begins a walk over `container`; anything but an array or object has no members. */
struct json_walk json_walk(struct json container);

/* The next element of an array; false at the end. */
bool json_next_element(struct json_walk *walk, struct json *ret_value);

/* The next member of an object; `ret_key` is the raw key between its quotes, escapes and all. False
 * at the end. */
bool json_next_member(struct json_walk *walk, struct bytes *ret_key, struct json *ret_value);

/* The last member called `key` (as Python's json keeps it), or a value of type JSON_TYPE_ABSENT when
 * there is none or `object` is none. Keys written with escapes are found too. */
struct json json_get(struct json object, const char *key);

/* The same for several different keys in one walk, for objects of which much is read. */
void json_pick(struct json object, const char *const *keys, size_t count, struct json *ret_values);

/* Element number `index`, or JSON_TYPE_ABSENT. */
struct json json_at(struct json array, size_t index);

size_t json_count(struct json container);

/* True for JSON_TYPE_ABSENT and JSON_TYPE_NULL. */
static inline bool json_is_unset(struct json value)
{
    return value.type <= JSON_TYPE_NULL;
}

/* The text of a string: a view into the parsed text when nothing is escaped, else a copy in
 * `arena`. A lone surrogate becomes U+FFFD. False when it is no string. */
bool json_text(struct json value, struct arena *arena, struct bytes *ret_text) MUST_CHECK;

/* A number without fraction or exponent that fits; false otherwise. */
bool json_int64(struct json value, int64_t *ret_number) MUST_CHECK;

/* Any finite number; false otherwise. */
bool json_double(struct json value, double *ret_number) MUST_CHECK;

/* Writing, in the form of Python's json.dumps with its defaults: ASCII only, as Celery writes it */

/* Appends `text` (UTF-8; bad bytes become U+FFFD) as a quoted string with every non-ASCII character
 * escaped. */
void json_append_string(struct buffer *buffer, struct bytes text);

/* Appends `text` as above, as a member that is not the first one of its object. `key` is written as it
 * is. */
void json_append_text_member(struct buffer *buffer, const char *key, struct bytes text);

/* Appends a number as Python's repr of a float: shortest digits that read back the same. */
void json_append_double(struct buffer *buffer, double number);

/* Appends `value` again as json.loads and json.dumps would: ", " and ": ", strings as above, whole
 * numbers as written, others as json_append_double does. */
void json_append_dumps(struct buffer *buffer, struct json value);

/* Append `before` as it is, then the text as json_append_string does, or the value as
 * json_append_dumps does: null for one that is missing. */
void json_append_text_after(struct buffer *buffer, const char *before, struct bytes text);
void json_append_value_after(struct buffer *buffer, const char *before, struct json value);

#endif
