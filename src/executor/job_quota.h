/*
 * The ResourceQuotas of a namespace, and the arithmetic of what still fits. Pure: quota objects
 * and what Jobs ask in, numbers out. Source:
 * k8s.io/kubernetes/pkg/quota/v1/evaluator/core/pods.go (what is counted).
 *
 * Each resource that a quota limits is one limit. What a Job asks is a vector with one number for
 * each limit: 0 where the quota does not count its pod. Every known Job is in one stage, and the
 * sums of the stages are kept, so that nothing here walks over Jobs.
 *
 *   room = hard - what is not ours - what our unfinished Jobs ask
 *
 * What is not ours cannot be read off: Job, pod and quota are told by different watches, each late
 * in its own way. It is kept between what is certain from both sides: `used` less all that may be
 * ours in it, and `used` less what is ours in it for certain.
 */
#ifndef PETIOLE_EXECUTOR_JOB_QUOTA_H
#define PETIOLE_EXECUTOR_JOB_QUOTA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"

#define JOB_QUOTA_MAX_LIMITS 32
#define JOB_QUOTA_UNLIMITED  SIZE_MAX

/* Where a Job stands, as far as quotas go. */
enum job_quota_stage {
    JOB_QUOTA_ABSENT,   /* asks for nothing: not there, or finished for a while */
    JOB_QUOTA_STARTING, /* unfinished; maybe in `used`, maybe not */
    JOB_QUOTA_COUNTED,  /* unfinished, with a pod that is in `used` for certain */
    JOB_QUOTA_LEAVING,  /* finished a moment ago: maybe still in `used` */
};

/* One resource that one ResourceQuota limits. */
struct job_quota_limit {
    const json_t *object; /* the ResourceQuota, borrowed */
    char quota[64];       /* its name, cut */
    char resource[64];
    bool is_pods;       /* the pods' number */
    bool is_jobs;       /* the Jobs' number, finished ones among them: told by `used` alone */
    int64_t hard_milli; /* as it is enforced now */
    int64_t most_milli; /* the larger one of that and what is to be enforced */
    int64_t used_milli; /* by everything in the namespace, our pods among it */
    int64_t stages_milli[JOB_QUOTA_LEAVING + 1]; /* what Jobs ask, by stage */
    int64_t others_milli;                        /* our estimate of what is not ours */
    bool has_others;
};

struct job_quota {
    struct job_quota_limit limits[JOB_QUOTA_MAX_LIMITS];
    size_t count;
    int64_t reserved_pods; /* kept free for the worker's own pod */
};

/* Adds the limits of one ResourceQuota object, which is borrowed for the life of `quota`. More than
 * MAX_LIMITS in all are left out. */
void job_quota_add(struct job_quota *quota, const json_t *resource_quota);

/* Keeps the sums and estimates of `old`, of which `quota` is the newer reading. False, and nothing
 * kept, when they do not limit the same: what Jobs ask must be asked again. */
bool job_quota_carry(struct job_quota *quota, const struct job_quota *old);

/* What a Job asks, for each limit, in thousandths: `ret_asked` has `quota->count` numbers. `job` is
 * a batch/v1 Job object, filled in (job_demand.h). */
void job_quota_ask(const struct job_quota *quota, const json_t *job, int64_t *ret_asked);

/* No Job is known any more. */
void job_quota_reset(struct job_quota *quota);

/* Moves a Job that asks `asked` from one stage to another. */
void job_quota_move(struct job_quota *quota, const int64_t *asked, enum job_quota_stage from,
                    enum job_quota_stage to);

/* The limit that has no room now for one more Job that asks `asked`; NULL: it fits. */
const struct job_quota_limit *job_quota_find_short(struct job_quota *quota, const int64_t *asked);

/* The limit under which such a Job never fits, whatever becomes free; NULL: there is none. */
const struct job_quota_limit *job_quota_find_never(const struct job_quota *quota,
                                                   const int64_t *asked);

/* Whether it would fit if no Job of ours were there. */
bool job_quota_fits_alone(struct job_quota *quota, const int64_t *asked);

/* Whether a limit of the Jobs' number, finished ones among them, has no room for one more. */
bool job_quota_is_full_of_jobs(const struct job_quota *quota);

/* How many more Jobs fit that ask `asked`; UNLIMITED when they ask nothing that is limited. */
size_t job_quota_fits(struct job_quota *quota, const int64_t *asked);

/* Whether by `used` alone there is place for a pod that asks `asked`, beside what others in the
 * same round were given: then adds it to `given`, one number for each limit, at first 0. */
bool job_quota_give(const struct job_quota *quota, const int64_t *asked, int64_t *given);

/* Says of a limit that stands in the way: "needs 900m of requests.cpu; quota user-quota allows 1,
 * of which 600m is in use". `limit` is of `quota`. Allocated in `arena`. */
const char *job_quota_describe(const struct job_quota *quota, const struct job_quota_limit *limit,
                               const int64_t *asked, struct arena *arena);

#endif
