/*
 * Whose task is it? A message says so in its arguments (tenant_path) or in a header
 * (tenant_header); one that says neither is accepted only from the worker's own queue, or, when it
 * runs in a Python process of the worker itself and so in no namespace, from every queue that the
 * worker was told to consume. Everything else is refused: a worker never touches another tenant.
 * Pure.
 */
#ifndef PETIOLE_DISPATCH_TENANCY_H
#define PETIOLE_DISPATCH_TENANCY_H

#include "base/error.h"
#include "dispatch/strategy.h"

/* True when the task is ours. Otherwise REFUSED with a sentence that names the task, the field and
 * what is wrong. */
bool tenancy_check(const struct strategy_rules *rules, const struct request *request,
                   struct error *reterr) MUST_CHECK;

#endif
