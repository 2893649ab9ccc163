/*
 * Every option of the command line, one row each, and the help made of them. Names, short forms and
 * values are those of celery/bin/celery.py and celery/bin/worker.py.
 */
#ifndef PETIOLE_WORKER_OPTIONS_TABLE_H
#define PETIOLE_WORKER_OPTIONS_TABLE_H

#include "worker/options.h"

enum options_value {
    OPTIONS_VALUE_NONE, /* a flag */
    OPTIONS_VALUE_TEXT,
    OPTIONS_VALUE_INTEGER,
    OPTIONS_VALUE_FLOAT,
    OPTIONS_VALUE_COUNT,  /* a whole number or auto */
    OPTIONS_VALUE_CHOICE, /* one of the words in `value_name`, between bars */
};

enum options_effect {
    OPTIONS_SETS_MEMBER,  /* of struct options, at `offset`: bool for flags, else const char * */
    OPTIONS_SETS_SETTING, /* called `detail` */
    OPTIONS_SETS_CONFIG,  /* config_path or config_module */
    OPTIONS_SETS_LOGLEVEL,
    OPTIONS_ADDS_PLUGIN,
    OPTIONS_SETS_AUTOSCALE, /* the larger number is worker_concurrency, whatever else says so */
    OPTIONS_SHOWS_HELP,
    OPTIONS_SHOWS_VERSION,
    OPTIONS_IS_ACCEPTED, /* what it asks for is so anyway */
    OPTIONS_WARNS,       /* accepted, and a warning says `detail` */
    OPTIONS_REFUSES,     /* exit code 2, `detail` says why */
};

/* Where an option may stand. */
#define OPTIONS_BEFORE_COMMAND 1u
#define OPTIONS_AFTER_WORKER   2u /* and after check */
#define OPTIONS_AFTER_PROBE    4u

struct options_row {
    const char *name;           /* "--loglevel" */
    const char *other;          /* another spelling; NULL: none */
    const char *short_name;     /* "-l"; NULL: none */
    const char *variable;       /* click's environment variable; NULL: none */
    const char *other_variable; /* and the one that the option names itself; NULL: none */
    const char *value_name;     /* for the help; NULL for flags */
    enum options_value value;
    enum options_effect effect;
    unsigned places;
    size_t offset;
    const char *detail;
    const char *help; /* NULL: not shown */
};

#define OPTIONS_TABLE_MAX_ROWS 64

extern const struct options_row options_table_rows[];
extern const size_t options_table_count;

/* Prints the help of a command, or of the program. */
void options_table_print(FILE *file, enum options_command topic);

#endif
