/*
 * The name of a worker, name@host, and the % abbreviations in it and in file names
 * (celery/utils/nodenames.py: default_nodename, host_format, node_format).
 */
#ifndef PETIOLE_WORKER_NODENAME_H
#define PETIOLE_WORKER_NODENAME_H

#include "base/error.h"
#include "base/memory.h"

/* The node name for -n `text` (NULL or "": celery@<hostname>) on a machine called `hostname`: %h is
 * the hostname, %n its first part, %d the rest, %% a percent sign. As in Celery, a text without @
 * is the host: "w1" gives celery@w1. The result lives in `arena`. INVALID for another letter. */
bool nodename_make(const char *text, const char *hostname, struct arena *arena,
                   const char **ret_name, struct error *reterr) MUST_CHECK;

/* A file name for the worker `node_name`: as above with %n and %h of the node name, and %p all of
 * it, %i 0, %I nothing (the main process' pool index). */
bool nodename_expand(const char *text, const char *node_name, struct arena *arena,
                     const char **ret_path, struct error *reterr) MUST_CHECK;

/* What follows the first @ of `node_name`, or all of it; borrowed from it. */
const char *nodename_host(const char *node_name);

/* This machine's name, in `arena`. */
const char *nodename_hostname(struct arena *arena);

#endif
