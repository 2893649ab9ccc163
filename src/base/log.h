/*
 * The log: lines in Celery's format or JSON lines, to stderr or a file. The sink is the one mutable
 * static of the program, because every line goes to the same place. Below worker/ nothing logs
 * above DEBUG: errors travel up and are logged once, where they are decided.
 *
 * Text: "[2026-11-23 17:39:12,950: INFO/MainProcess] message" (celery/app/defaults.py:
 * DEFAULT_PROCESS_LOG_FMT), local time. JSON: {"time": RFC 3339 with ms, "level": "INFO",
 * "message": …, "task_id"/"task_name" when log_task was used}.
 */
#ifndef PETIOLE_BASE_LOG_H
#define PETIOLE_BASE_LOG_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"

enum log_level {
    LOG_DEBUG,
    LOG_INFO,
    LOG_WARNING,
    LOG_ERROR,
    LOG_CRITICAL
};

enum log_form {
    LOG_FORM_TEXT,
    LOG_FORM_JSON
};

/* Sends lines of at least `level` to `path` (NULL: stderr), appending. `color` is for terminals and
 * text only. Before the first call: WARNING, text, stderr. */
bool log_open(const char *path, enum log_level level, enum log_form form, bool color,
              struct error *reterr) MUST_CHECK;

/* Opens the same path again when the file has been moved away (logrotate). */
void log_reopen(void);

/* Whether a line of `level` would be written: for arguments that cost something. */
bool log_enabled(enum log_level level);

/* DEBUG INFO WARNING ERROR CRITICAL FATAL, any case (celery/bin/base.py: LogLevel); false for
 * anything else. */
bool log_level_parse(const char *text, enum log_level *ret_level) MUST_CHECK;
const char *log_level_name(enum log_level level);

/* Writes one line. Control characters, line breaks too, are written as escapes (\n, \x1b): a peer's
 * text cannot forge a line. */
void log_write(enum log_level level, const char *format, ...) PRINTF_FORMAT(2, 3);

/* As log_write, about one task: JSON lines get task_id and task_name members. */
void log_task(enum log_level level, struct bytes task_name, struct bytes task_id,
              const char *format, ...) PRINTF_FORMAT(4, 5);

/* As log_task with a block of lines below the message, such as a traceback, whose line breaks are
 * kept. JSON lines get it as member "traceback". A message is cut at 64 KiB, a block at 128 KiB. */
void log_task_block(enum log_level level, struct bytes task_name, struct bytes task_id,
                    struct bytes block, const char *format, ...) PRINTF_FORMAT(5, 6);

/* As log_task_block, a line that another process has made: its name ("ForkPoolWorker-3") stands in
 * place of MainProcess. Empty task name and id: it is about no task. */
void log_process(enum log_level level, const char *process, struct bytes task_name,
                 struct bytes task_id, struct bytes message, struct bytes block);

#endif
