/*
 * The name of the Job that a message becomes: the same message gives the same name, wherever and
 * however often it is asked for, so that a second POST meets the first one's Job. Kubernetes Jobs
 * and local processes share it. Pure.
 *
 *   <slug>-<id>-<retries>[-n<replaced_task_nesting>][-a<attempt>]      train-lora-4ba6...-3-n1
 *
 *   slug      the last dotted part of the task's name in lower case, everything but letters and
 * digits as "-", at most 12 characters, without a dash at either end; "task" when nothing is left
 *   id        the task id when it is a lower-case UUID, else the first 32 hex digits of its SHA-256
 *   nesting   only when not 0: `replace` keeps a task's id and retries (celery/app/task.py:
 * Task.replace) attempt   only when not 0: a re-run that is not counted as a retry
 *
 * A message may claim any number of retries. When they do not fit into 63 characters, the name is
 * <slug>-<32 hex digits of the SHA-256 of everything behind the slug>.
 */
#ifndef PETIOLE_EXECUTOR_JOB_NAME_H
#define PETIOLE_EXECUTOR_JOB_NAME_H

#include "codec/message.h"

/* The longest value that Kubernetes takes for the label job-name, and the NUL behind it. */
#define JOB_NAME_SIZE 64

/* Writes the name of the Job for `message` into `ret_name`. Always a DNS label. */
void job_name_format(const struct message *message, unsigned attempt, char ret_name[JOB_NAME_SIZE]);

/* The bytes of an id as it stands in names, and the NUL behind it. */
#define JOB_NAME_ID_SIZE 37

/* Writes the part of every name that stands for the task `id`. */
void job_name_id(struct bytes id, char ret_id[JOB_NAME_ID_SIZE]);

/* Whether `name` is that of a Job of the task whose job_name_id is `id`. A name that is cut, because
 * the message claimed too many retries, is none's. */
bool job_name_is_of(const char *name, const char *id);

#endif
