/*
 * What a Pod object says of the task in it. The main container decides: the one that the annotation
 * kubectl.kubernetes.io/default-container names, else the first; when it has not begun because of
 * an init container, that one explains why. Pure. Source: k8s.io/api/core/v1 (PodStatus).
 */
#ifndef PETIOLE_EXECUTOR_JOB_POD_H
#define PETIOLE_EXECUTOR_JOB_POD_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/json.h"
#include "base/memory.h"

/* How a pod stands. */
enum job_pod_state {
    JOB_POD_NONE,    /* there is no pod (any more) */
    JOB_POD_WAITING, /* not started */
    JOB_POD_RUNNING,
    JOB_POD_ENDED, /* its main container has ended, or it never will run */
};

struct job_pod {
    enum job_pod_state state;
    struct bytes name;
    struct bytes container; /* the main one's name, or the init container's that it waits for */
    int64_t exit_code;      /* of `container`, ENDED; -1: it never ran */
    int64_t signal_number;  /* 0: none */
    struct bytes reason;    /* "OOMKilled", "Error", "ImagePullBackOff", "Evicted" … */
    struct bytes message;   /* the termination message of the main container */
    /* what the kubelet, the scheduler or a controller says of the pod: why it waits or was ended */
    struct bytes explanation;
    struct bytes disruption;    /* reason of the condition DisruptionTarget; empty: not disrupted */
    struct bytes unschedulable; /* the scheduler's message while no node takes it; else empty */
    double unschedulable_wall_s; /* since when; 0: unknown */
    double runtime_s;            /* of the main container; 0: unknown */
    bool is_init;                /* `container` is an init container */
    bool is_bound;               /* it has a node */
    bool is_deleted;             /* somebody has asked for its deletion */
    double deleted_wall_s;       /* when it was to be gone */
    bool is_over;                /* the whole pod has ended, not the main container alone */
    /* the main container has begun, or may have: nobody is left who could tell */
    bool may_have_run;
};

/* Reads a Pod object. Views borrow from `object` and `arena`. */
void job_pod_read(struct json object, struct arena *arena, struct job_pod *ret_pod);

/* A copy with all its texts in `arena`. */
struct job_pod job_pod_copy(const struct job_pod *pod, struct arena *arena);

/* Whether the pod waits for a reason in `reasons` (ends with NULL). ImagePullBackOff, the kubelet's
 * pause between two pulls, goes with ErrImagePull. */
bool job_pod_is_stuck(const struct job_pod *pod, const char *const *reasons);

/* Whether it waits for its image: a registry may recover. */
bool job_pod_waits_for_image(const struct job_pod *pod);

/* Whether the end of this pod is how its Job ended: with backoffLimit a Job has pods that failed
 * before the one that counts, and a container that is started again has ended before. */
bool job_pod_fits(const struct job_pod *pod, bool job_is_complete);

/* Whether it is certain that the task's code never ran and never will in this pod. */
bool job_pod_never_ran(const struct job_pod *pod);

#endif
