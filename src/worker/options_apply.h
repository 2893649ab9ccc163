/*
 * What an option does once it was found, wherever it came from: its value is checked in click's
 * words and put where it belongs. Shared by the readers of the arguments and of the environment.
 */
#ifndef PETIOLE_WORKER_OPTIONS_APPLY_H
#define PETIOLE_WORKER_OPTIONS_APPLY_H

#include "worker/options_table.h"

/* The command line while it is read. */
struct options_reader {
    struct options *options;
    char *const *arguments;
    int count;
    int position;
    unsigned place;       /* where options may stand now */
    bool only_positional; /* -- was read */
    bool has_command;
    bool is_done; /* --help or --version was read */
    bool is_given[OPTIONS_TABLE_MAX_ROWS];
    struct buffer plugins; /* a YAML list of what --plugin named, without its end */
    const char *autoscale; /* the most processes of --autoscale; NULL: not given */
    struct error *reterr;
};

/* One use of an option. */
struct options_use {
    const struct options_row *row;
    const char *spelling; /* "-c", or the environment variable */
    const char *text;     /* NULL: a flag */
    bool is_variable;
};

/* Checks the value and carries the option out. */
bool options_apply(struct options_reader *reader, const struct options_use *use) MUST_CHECK;

/* Reads a flag's variable as click does (click/types.py: BoolParamType). */
bool options_apply_read_flag(struct options_reader *reader, const struct options_use *use,
                             bool *ret_flag) MUST_CHECK;

/* Takes `text` as --config does; an empty one names none. */
void options_apply_config(struct options *options, const char *text);

/* Fails with INVALID and the formatted sentence. */
bool options_apply_fail(struct options_reader *reader, const char *format, ...) PRINTF_FORMAT(2, 3);

/* Add a value for a setting, a warning, a debug line; texts are kept, not copied. */
void options_apply_override(struct options *options, const char *name, const char *text,
                            const char *origin);
void options_apply_warn(struct options *options, const char *text);
void options_apply_debug(struct options *options, const char *text);

#endif
