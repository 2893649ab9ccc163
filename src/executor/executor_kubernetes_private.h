/*
 * What the files of the Kubernetes executor share:
 *   executor_kubernetes.c           life cycle, slots
 *   executor_kubernetes_submit.c    from request to Job
 *   executor_kubernetes_observe.c   watches, and what is known of each Job
 *   executor_kubernetes_complete.c  from finished Job to outcome, and letting it go
 *   executor_kubernetes_cancel.c    ending Jobs that were terminated, and what is left of any
 *   executor_kubernetes_progress.c  following the logs of running pods

 *   executor_kubernetes_patience.c  which pods will never come to an end by themselves
 *   executor_kubernetes_rerun.c     another Job for a task whose code never ran
 *   executor_kubernetes_own.c       Lease and take-over
 *   executor_kubernetes_quota.c     what the namespace limits, and where each Job stands in it
 *   executor_kubernetes_admit.c     who may begin under the quota
 *   executor_kubernetes_hasten.c    places that become free are taken at once
 */
#ifndef PETIOLE_EXECUTOR_EXECUTOR_KUBERNETES_PRIVATE_H
#define PETIOLE_EXECUTOR_EXECUTOR_KUBERNETES_PRIVATE_H

#include "base/list.h"
#include "base/map.h"
#include "executor/executor_kubernetes.h"
#include "executor/job_failure.h"
#include "executor/job_inquiry.h"
#include "executor/job_name.h"
#include "executor/job_quota.h"
#include "executor/job_template.h"
#include "executor/kubernetes_api.h"
#include "executor/kubernetes_job.h"
#include "executor/kubernetes_watch.h"

#define EXECUTOR_KUBERNETES_JOBS   "batch/v1 jobs"
#define EXECUTOR_KUBERNETES_PODS   "v1 pods"
#define EXECUTOR_KUBERNETES_QUOTAS "v1 resourcequotas"
#define EXECUTOR_KUBERNETES_LEASES "coordination.k8s.io/v1 leases"

#define EXECUTOR_KUBERNETES_TICK_MS  5000
#define EXECUTOR_KUBERNETES_LEASE_MS 15000
#define EXECUTOR_KUBERNETES_LOOK_MS  250 /* for the Job controller's own first look at a Job */

/* What is known of an ended (or stuck) pod until its Job is reported. */
struct pod_facts {
    struct arena *arena; /* owned; holds this struct too */
    struct job_pod pod;
};

/* One Job; all that is kept of it. */
struct job_entry {
    char name[JOB_NAME_SIZE];
    char owner[24];                /* instance id */
    char version[24];              /* resourceVersion, as it was seen last */
    struct pod_facts *pod;         /* owned; NULL: nothing worth keeping */
    struct job_follower *follower; /* owned; NULL: its log is not followed */
    int64_t running_since_ms;      /* its pod, as far as we saw; 0: it does not run */
    int64_t owner_seen_ms;         /* when it was first seen to have this owner */
    int64_t stuck_since_ms;
    int64_t changed_ms;             /* when its place in the quota last changed */
    int64_t hasten_ms;              /* without a pod: when it may be hastened next */
    int64_t *asked;                 /* owned: job_quota_ask; NULL: nothing is limited */
    struct list_node settling_node; /* changed a short while ago */
    struct list_node podless_node;  /* ours, unfinished, without a pod */
    enum job_quota_stage stage;
    unsigned hastened; /* how often */
    bool exists;       /* the Job itself was seen (else only its pod) */
    bool is_listed;    /* told since the last list began */
    bool has_pod;      /* the same of a pod of it */
    bool is_mine;
    bool is_active;  /* has a pod that the quota counts */
    bool is_running; /* its pod has begun */
    bool is_silent;  /* nobody wants to know of its states before the end */
    bool is_finished;
    bool is_stuck;      /* its pod waits for what will not come: reported, then deleted */
    bool is_terminated; /* a client wants it ended: reported as REVOKED, then deleted */
    bool is_leaving;    /* its farewell has begun */
    bool is_settled;
    bool is_taken_over;
    bool is_completing; /* on its way to on_completed, or there */
    bool is_reported;
    bool is_failing;  /* FailureTarget: Failed follows when its pods have ended */
    bool is_repeated; /* its code never ran: another Job is being made, and counts until it is */
};

/* Another worker's Lease, as we saw it change: its clock is not trusted. */
struct foreign_lease {
    char renew_time[40];
    int64_t changed_ms;
    bool is_listed;
};

struct executor_kubernetes {
    struct executor base;
    struct loop *loop;
    struct executor_kubernetes_options options;
    const struct executor_events *events;
    void *context;
    struct kubernetes_api *api;
    struct job_template **templates; /* owned */
    size_t template_count;

    struct map *jobs;        /* name -> struct job_entry */
    size_t unfinished_count; /* ours */
    size_t waiting_count;    /* of those, without a pod that the quota counts */
    struct list submissions;
    size_t submission_count;
    struct list farewells;   /* reported Jobs on their way out */
    struct list completions; /* finished Jobs being read */
    struct list checks;      /* receipts being looked for */
    struct list take_overs;  /* the round that is under way */
    size_t take_over_count;  /* begun in it */

    struct kubernetes_watch *jobs_watch;
    struct kubernetes_watch *pods_watch;

    struct kubernetes_watch *quotas_watch;
    struct kubernetes_watch *ranges_watch;
    struct map *quotas;   /* name -> ResourceQuota */
    struct map *ranges;   /* name -> LimitRange */
    json_t *limit_ranges; /* owned: those as an array */
    struct job_quota quota;
    int64_t *smallest;    /* owned: what the smallest pod of any template asks */
    unsigned quota_shape; /* counts up when something else is limited */
    bool is_asked;        /* every Job's `asked` is of this shape */
    struct list settling; /* of struct job_entry, the oldest change first */
    struct list podless;  /* of struct job_entry, the oldest first */
    struct timer settle_timer;
    struct list hastenings; /* PATCHes under way */
    struct timer hasten_timer;

    struct kubernetes_api *logs_api; /* NULL: no log is followed */
    size_t follower_count;
    struct timer follow_timer;
    bool has_complained_of_logs;

    struct map *leases;       /* instance id -> struct foreign_lease */
    int64_t lease_renewed_ms; /* when the last renewal of our Lease was sent; 0: never */
    int64_t lease_sent_ms;    /* the same of the one under way */
    char lease_version[64];   /* its resourceVersion; empty: unknown */
    int64_t leases_asked_ms;  /* when the list of `leases` was asked for */
    bool leases_known;
    bool has_taken_over; /* a Job, in this round */
    struct kubernetes_call *lease_call;
    struct kubernetes_call *list_call;
    struct buffer leases_page; /* the next one of the list; empty: the first */
    struct timer tick;

    bool is_ready;
    bool is_closing;
    struct timer close_timer;
    struct loop_call closed;
    void (*on_closed)(void *context);
    void *closed_context;
};

struct executor_kubernetes *executor_kubernetes_of(const struct executor *base);

/* Tells an operator; LOG_WARNING of log.h. */
void executor_kubernetes_warn(struct executor_kubernetes *executor, const char *format, ...)
    PRINTF_FORMAT(2, 3);

/* Looks whether everything is listed and owned, and says on_ready once. */
void executor_kubernetes_check_ready(struct executor_kubernetes *executor);

/* When closing: looks whether nothing is under way any more. */
void executor_kubernetes_check_closed(struct executor_kubernetes *executor);

/* executor_kubernetes_submit.c */

void executor_kubernetes_submit(struct executor *base, struct request *request);

/* Ends the submission of `request` if it waits for another try; one that is on its way does not try
 * again. */
void executor_kubernetes_cancel(struct executor *base, struct request *request, int signal_number);

/* The Job of `request` as it will be sent: a new reference, or NULL with why it cannot be. */
json_t *executor_kubernetes_build(struct executor_kubernetes *executor,
                                  const struct request *request, struct error *reterr);

/* Something else is limited than before: works out again what each submission asks. */
void executor_kubernetes_ask_submissions(struct executor_kubernetes *executor);

/* A quota's status has changed: gives back the submissions that the quota refused and that fit
 * now, to be tried again. */
void executor_kubernetes_wake_submissions(struct executor_kubernetes *executor);

/* Ends submissions: those that wait for another try at once, with `force` all. */
void executor_kubernetes_end_submissions(struct executor_kubernetes *executor, bool force);

/* executor_kubernetes_observe.c */

/* Opens the watches. */
void executor_kubernetes_observe(struct executor_kubernetes *executor);

/* Takes a Job object into account, wherever it came from. */
void executor_kubernetes_see_job(struct executor_kubernetes *executor, struct json object);

/* The entry of `name`, or NULL. */
struct job_entry *executor_kubernetes_find(const struct executor_kubernetes *executor,
                                           struct bytes name);

/* The next entry behind `*position`, which begins at 0; NULL at the end. The one that was told last
 * may be removed. */
struct job_entry *executor_kubernetes_next(const struct executor_kubernetes *executor,
                                           size_t *position);

/* Puts a Job that was just created or adopted into the books; `asked` (may be NULL) is copied. */
void executor_kubernetes_note_created(struct executor_kubernetes *executor, const char *name,
                                      const int64_t *asked);

/* Changes the marks that counts depend on. */
void executor_kubernetes_mark_reported(struct executor_kubernetes *executor,
                                       struct job_entry *entry);

void executor_kubernetes_mark_repeated(struct executor_kubernetes *executor,
                                       struct job_entry *entry);

/* Looks at every entry again: stuck pods, Jobs that can be completed. */
void executor_kubernetes_sweep(struct executor_kubernetes *executor);

/* Frees all entries. */
void executor_kubernetes_free_entries(struct executor_kubernetes *executor);

/* executor_kubernetes_complete.c */

/* Begins to complete `entry` when that is possible now. */
void executor_kubernetes_consider(struct executor_kubernetes *executor, struct job_entry *entry);
void executor_kubernetes_forget(struct executor *base, struct bytes receipt, bool is_awaited);
void executor_kubernetes_end_completions(struct executor_kubernetes *executor);
/* Deletes a Job that is reported, with its pods. */
void executor_kubernetes_delete(struct executor_kubernetes *executor, struct job_entry *entry);
void executor_kubernetes_end_farewells(struct executor_kubernetes *executor);

/* executor_kubernetes_cancel.c */

bool executor_kubernetes_terminate(struct executor *base, struct bytes task_id);

/* Marks `entry`, whose Job was just read, when its task is to be ended. */
void executor_kubernetes_mark_terminated(struct executor_kubernetes *executor,
                                         struct job_entry *entry, struct bytes task_id);

/* Deletes the Jobs that are reported and go on: whoever reported them was not there any more to do
 * so. Where a quota of count/jobs.batch has no room, some that are reported and finished go too. */
void executor_kubernetes_clear_up(struct executor_kubernetes *executor);

/* Does so at once where such a quota has no room. */
void executor_kubernetes_make_room(struct executor_kubernetes *executor);

/* executor_kubernetes_progress.c */

/* A pod of `entry` runs, or does not. */
void executor_kubernetes_note_running(struct executor_kubernetes *executor, struct job_entry *entry,
                                      bool is_running);

/* Looks, soon, whether there are pods to follow, and places for them. */
void executor_kubernetes_follow(struct executor_kubernetes *executor);

/* Something has changed of `entry`: it may be over, or ours to follow. */
void executor_kubernetes_review_follower(struct executor_kubernetes *executor,
                                         struct job_entry *entry);

/* Stops following `entry`, which goes. */
void executor_kubernetes_unfollow(struct job_entry *entry);

/* Stops following all. */
void executor_kubernetes_end_progress(struct executor_kubernetes *executor);

/* Whether the farewell of the Job called `name` is still on its way to the API server. */
bool executor_kubernetes_is_leaving(const struct executor_kubernetes *executor, struct bytes name);

/* executor_kubernetes_patience.c */

/* Whether a pod like this may be stuck: then its facts and the time are kept. */
bool executor_kubernetes_may_be_stuck(const struct executor_kubernetes *executor,
                                      const struct job_entry *entry, const struct job_pod *pod);

/* Sets is_stuck, unless the Job is being completed: while that waits for the API, its pod may begin
 * to run. */
void executor_kubernetes_judge(struct executor_kubernetes *executor, struct job_entry *entry);

/* executor_kubernetes_rerun.c */

struct executor_kubernetes_rerun;

enum executor_kubernetes_made {
    EXECUTOR_KUBERNETES_MADE,       /* it exists, and is in the books */
    EXECUTOR_KUBERNETES_MADE_LATER, /* not now */
    EXECUTOR_KUBERNETES_MADE_NEVER, /* it is refused */
};

typedef void(executor_kubernetes_rerun_fn)(void *context, enum executor_kubernetes_made made,
                                           const char *name);

/* Whether the task of `job` may be begun once more. */
bool executor_kubernetes_may_rerun(const struct executor_kubernetes *executor,
                                   const struct kubernetes_job *job);

/* Makes the Job that follows `object`, of which `job` was read; both are borrowed until the
 * callback, which comes once. Returns new, or NULL when that cannot be done. */
struct executor_kubernetes_rerun *executor_kubernetes_rerun(
    struct executor_kubernetes *executor, struct json object, const struct kubernetes_job *job,
    struct arena *arena, executor_kubernetes_rerun_fn *on_made, void *context);

/* Ends it without the callback. Leaves NULL; accepts NULL. Not valid after the callback. */
void executor_kubernetes_end_rerun(struct executor_kubernetes_rerun **rerun);

/* executor_kubernetes_own.c */

/* Creates the Lease and keeps it; begins the ticks. */
void executor_kubernetes_own(struct executor_kubernetes *executor);

/* Asks for the others' Leases, and takes over the Jobs of those that have run out. */
void executor_kubernetes_look_for_orphans(struct executor_kubernetes *executor);

/* Whether our Lease is fresh enough to report. */
bool executor_kubernetes_is_owner(const struct executor_kubernetes *executor);

/* Whether the Lease of the worker `owner` has run out, or is gone. */
bool executor_kubernetes_has_run_out(const struct executor_kubernetes *executor, const char *owner);

void executor_kubernetes_disown(struct executor_kubernetes *executor);
void executor_kubernetes_end_checks(struct executor_kubernetes *executor);

/* executor_kubernetes_quota.c */

/* What the namespace limits is known and followed from follow_rules on, until leave_rules. */
void executor_kubernetes_init_rules(struct executor_kubernetes *executor);
void executor_kubernetes_follow_rules(struct executor_kubernetes *executor);
bool executor_kubernetes_knows_rules(const struct executor_kubernetes *executor);
void executor_kubernetes_leave_rules(struct executor_kubernetes *executor);
void executor_kubernetes_fini_rules(struct executor_kubernetes *executor);

/* What `job` asks of each limit; fills it in. Returns new. */
int64_t *executor_kubernetes_ask(const struct executor_kubernetes *executor, json_t *job);

/* Sees to it that `entry` has what its Job asks: of the Job `object`, or a copy of `asked` (NULL:
 * unknown). */
void executor_kubernetes_ask_seen(struct executor_kubernetes *executor, struct job_entry *entry,
                                  struct json object);
void executor_kubernetes_note_asked(struct executor_kubernetes *executor, struct job_entry *entry,
                                    const int64_t *asked);

/* Puts `entry` where its marks say that it stands. `has_changed`: they were others before. */
void executor_kubernetes_stage(struct executor_kubernetes *executor, struct job_entry *entry,
                               bool has_changed);

/* Takes `entry` out of the sums, before it is freed. */
void executor_kubernetes_unstage(struct executor_kubernetes *executor, struct job_entry *entry);

/* executor_kubernetes_admit.c */

/* How many of `free_count` free places the quota leaves. */
size_t executor_kubernetes_slots(struct executor_kubernetes *executor, size_t free_count);

enum executor_admission executor_kubernetes_admit(struct executor *base, struct request *request);
void executor_kubernetes_explain(struct executor *base, struct request *request,
                                 const char **ret_category, const char **ret_sentence);

/* A copy of what an admitted `request` asks. Returns new, or NULL: unknown, or nothing is limited. */
int64_t *executor_kubernetes_copy_asked(const struct executor_kubernetes *executor,
                                        const struct request *request);

/* executor_kubernetes_hasten.c */

void executor_kubernetes_init_hastening(struct executor_kubernetes *executor);
void executor_kubernetes_end_hastening(struct executor_kubernetes *executor);

/* Looks, soon, whether Jobs that wait for a pod can have one. */
void executor_kubernetes_hasten(struct executor_kubernetes *executor);

#endif
