/*
 * Runs each task as a Kubernetes Job in the tenant's namespace. The Job is the receipt: it carries
 * the message, it is named after it, and whoever owns it reports it, this worker or, after its
 * death, another one. Nothing of a running task is kept here but a few hundred bytes.
 *
 *   submit ─> render ─> POST ─ 201 ─> on_started: the delivery can be acknowledged
 *                        ├─── 409 AlreadyExists ─> GET, is it ours? ─> on_started
 *                        │                         else on_finished, JobNameConflict
 *                        ├─── quota, busy, no answer ─> again, later
 *                        └─── refused ─> on_finished, FAILURE
 *
 *   terminate ─> the Job is there and has not finished ─> on_completed, REVOKED ─> forget ─> PATCH:
 *   reported ─> DELETE; also of a Job that is met later, pending or running
 *
 *   watch ─> pod runs ─> its log is followed ─> on_progress
 *
 *   watch ─> Job finished ─> its pod's report ─> on_completed ─> forget ─> PATCH: reported, TTL
 *
 *   Lease petiole-<instance id>, 15 s: the Jobs of an owner whose Lease has run out are taken over,
 *   each by a PATCH with resourceVersion.
 */
#ifndef PETIOLE_EXECUTOR_EXECUTOR_KUBERNETES_H
#define PETIOLE_EXECUTOR_EXECUTOR_KUBERNETES_H

#include "base/loop.h"
#include "dispatch/registry.h"
#include "dispatch/revoked.h"
#include "executor/executor.h"
#include "executor/kubeconfig.h"

/* Strings are borrowed for the life of the executor. */
struct executor_kubernetes_options {
    const struct kubeconfig *kubeconfig; /* copied */
    const char *namespace_name;
    const char *instance_id;
    const char *tenant;
    /* rows with executor kubernetes: their templates are loaded, job_template_index is set */
    struct registry *registry;
    size_t max_jobs;      /* kubernetes_max_jobs */
    int64_t result_ttl_s; /* kubernetes_result_ttl */
    int64_t api_qps;      /* kubernetes_api_qps; 0: no limit */
    int64_t api_burst;    /* kubernetes_api_burst */
    /* tasks whose Jobs are ended (revoked_terminates); changed by others; NULL: none is */
    const struct revoked *revoked;
    /* kubernetes_fatal_pending_reasons; ends with NULL */
    const char *const *fatal_reasons;
    int64_t image_grace_s;   /* kubernetes_image_pull_grace */
    int64_t unschedulable_s; /* kubernetes_unschedulable_timeout; 0: for ever */
    int64_t sidecar_grace_s; /* kubernetes_sidecar_grace */
    int64_t reserve_pods;    /* kubernetes_quota_reserve: what is kept free of the quota's pods */
    size_t follow_logs;      /* kubernetes_follow_logs: most pods whose log is followed; 0: none */
};

/* Returns new, or NULL: a template is wrong, or the credentials cannot be used. */
struct executor *executor_kubernetes_new(struct loop *loop,
                                         const struct executor_kubernetes_options *options,
                                         const struct executor_events *events, void *context,
                                         struct error *reterr);

/* Whether the watch knows of a Job called `job_name`; it may be late to hear of one. */
bool executor_kubernetes_has_job(const struct executor *base, struct bytes job_name);

/* Asks the API server whether the Job called `job_name` exists; `ok` false when that could not be
 * found out. Copies the names. */
void executor_kubernetes_check_receipt(struct executor *base, struct bytes job_name,
                                       void (*on_found)(void *context, bool ok, bool exists),
                                       void *context);

/* Unfinished Jobs of this worker: those whose pod runs, and those whose pod does not (yet). For
 * metrics. */
void executor_kubernetes_count(const struct executor *base, size_t *ret_running,
                               size_t *ret_pending);

#endif
