/*
 * One value of one setting: read from a node by the kind of its row, and said where it stands when
 * it is wrong. Values from the environment and the command line become nodes first, so that every
 * source is read by the same rules.
 */
#ifndef PETIOLE_WORKER_SETTINGS_VALUE_H
#define PETIOLE_WORKER_SETTINGS_VALUE_H

#include "worker/settings.h"

/* Sets the member of `row` from `node` (NULL: null); what is kept of it lives in the arena of
 * `settings`. `origin` is who says so: the path of the settings file, or "option -c"; kept. */
bool settings_value_read(struct settings *settings, const struct setting_row *row,
                         const struct yaml *node, const char *origin,
                         struct error *reterr) MUST_CHECK;

/* The same for `text` of the environment or the command line. Trees are read as YAML in one line;
 * lists are separated by commas. */
bool settings_value_read_text(struct settings *settings, const struct setting_row *row,
                              const char *text, const char *origin,
                              struct error *reterr) MUST_CHECK;

/* Fails with INVALID and "<file>:<line>: <name>: <formatted>", or without the line when `id` was
 * not set in the file. `node` is where exactly; NULL: where the setting stands. */
bool settings_value_fail(const struct settings *settings, enum setting_id id,
                         const struct yaml *node, struct error *reterr, const char *format, ...)
    PRINTF_FORMAT(5, 6);

/* Reads a boolean as Celery does: also 1 and 0, quoted or not. */
bool settings_value_bool(const struct yaml *node, bool *ret_value) MUST_CHECK;

/* Reads `node` as a list of texts: a sequence of scalars, or one text that is split at `separator`,
 * blanks around the pieces removed and empty pieces left out. NULL and null give the empty list.
 * The result ends with NULL and lives in `arena`; NULL when `node` is something else. */
const char *const *settings_value_list(const struct yaml *node, char separator,
                                       struct arena *arena);

/* The number of texts in a list. */
size_t settings_value_count(const char *const *list);

/* Adds a line to the notes. */
void settings_value_note(struct settings *settings, enum log_level level, const char *format, ...)
    PRINTF_FORMAT(3, 4);

#endif
