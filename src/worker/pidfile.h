/*
 * A file with the process id that keeps a second worker from starting (celery/platforms.py:
 * Pidfile). A file whose process is gone, whose content is broken or that names this very process
 * (pid 1 in a restarted container) is replaced.
 */
#ifndef PETIOLE_WORKER_PIDFILE_H
#define PETIOLE_WORKER_PIDFILE_H

#include <stdio.h>

#include "base/error.h"

/* The exit code of a worker that finds a live one's file (EX_CANTCREAT of sysexits.h). */
#define PIDFILE_EXIT_CODE 73

/* Creates `path` with "<pid>\n", mode 0644. Lines about a replaced file go to `notices`. CONFLICT
 * when a live process holds it, with Celery's two lines as the message: print it to stderr and exit
 * with PIDFILE_EXIT_CODE. INVALID when the file cannot be written. */
bool pidfile_create(const char *path, FILE *notices, struct error *reterr) MUST_CHECK;

/* Removes the file when it names this process. */
void pidfile_remove(const char *path);

#endif
