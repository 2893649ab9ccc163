/*
 * Who may begin under the quota. A Job is made when it fits, so that no pod is refused. What does
 * not fit waits, and smaller ones go before it, but not for ever: after MOST_PASSES of them it is
 * next, and nothing more begins until it fits, as long as it would fit beside what is not ours.
 */
#include "executor/executor_kubernetes_private.h"
#include "executor/job_demand.h"

#define MOST_PASSES 16

/* What a request asks, kept in its arena. */
struct request_ask {
    unsigned shape;      /* of the quota that it was worked out for */
    const char *missing; /* what its containers do not say; NULL: nothing */
    int64_t asked[JOB_QUOTA_MAX_LIMITS];
};

size_t executor_kubernetes_slots(struct executor_kubernetes *executor, size_t free_count)
{
    if (executor->quota.count == 0) {
        return free_count;
    }
    if (!executor->is_asked || !executor->smallest) {
        return 0;
    }
    size_t fits = job_quota_fits(&executor->quota, executor->smallest);
    if (fits == JOB_QUOTA_UNLIMITED || fits == 0) {
        return fits == 0 ? 0 : free_count;
    }
    /* What is being made elsewhere at this moment cannot be seen: each worker makes at most its
     * share at a time, or one Job. */
    size_t under_way = executor->submission_count;
    size_t share = (fits + under_way) / (1 + map_count(executor->leases));
    size_t most = share > 1 ? share : 1;
    size_t slots = most > under_way ? most - under_way : 0;
    slots = slots < fits ? slots : fits;
    return slots < free_count ? slots : free_count;
}

/* Says in `arena` what `job` must say and does not, under any quota that counts it; else NULL. */
static const char *find_missing(const struct executor_kubernetes *executor, const json_t *job,
                                struct arena *arena)
{
    const json_t *object = NULL;
    struct buffer text;
    const char *missing = NULL;
    buffer_init(&text, 1024);
    for (size_t index = 0; index < executor->quota.count && !missing; index++) {
        const struct job_quota_limit *limit = &executor->quota.limits[index];
        if (limit->object == object) {
            continue;
        }
        object = limit->object;
        if (job_demand_is_in_scope(job, object) && job_demand_append_missing(&text, job, object)) {
            missing = arena_format(arena, "quota %s: must specify %.*s", limit->quota,
                                   BYTES_FORMAT(buffer_view(&text)));
        }
    }
    buffer_fini(&text);
    return missing;
}

/* Works out what `request` asks; NULL when its Job cannot be built, which its submission tells. */
static const struct request_ask *ask_of(struct executor_kubernetes *executor,
                                        struct request *request)
{
    struct request_ask *ask = request->executor_data;
    struct error error = {0};
    if (ask && ask->shape == executor->quota_shape) {
        return ask;
    }
    json_t *job = executor_kubernetes_build(executor, request, &error);
    if (!job) {
        return NULL;
    }
    if (!ask) {
        ask = arena_alloc(request->arena, sizeof(*ask));
        request->executor_data = ask;
    }
    int64_t *asked = executor_kubernetes_ask(executor, job);
    memcpy(ask->asked, asked, sizeof(*asked) * executor->quota.count);
    memory_free(&asked);
    ask->shape = executor->quota_shape;
    ask->missing = find_missing(executor, job, request->arena);
    json_decref(job);
    return ask;
}

int64_t *executor_kubernetes_copy_asked(const struct executor_kubernetes *executor,
                                        const struct request *request)
{
    const struct request_ask *ask = request->executor_data;
    if (executor->quota.count == 0 || !ask || ask->shape != executor->quota_shape) {
        return NULL;
    }
    int64_t *asked = memory_new(sizeof(*asked) * executor->quota.count);
    memcpy(asked, ask->asked, sizeof(*asked) * executor->quota.count);
    return asked;
}

enum executor_admission executor_kubernetes_admit(struct executor *base, struct request *request)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    if (executor->quota.count == 0 || !executor->is_asked) {
        return EXECUTOR_ADMITS;
    }
    const struct request_ask *ask = ask_of(executor, request);
    if (!ask) {
        return EXECUTOR_ADMITS;
    }
    if (ask->missing || job_quota_find_never(&executor->quota, ask->asked)) {
        return EXECUTOR_REFUSES;
    }
    if (!job_quota_find_short(&executor->quota, ask->asked)) {
        return EXECUTOR_ADMITS;
    }
    bool is_next =
        request->passes >= MOST_PASSES && job_quota_fits_alone(&executor->quota, ask->asked);
    return is_next ? EXECUTOR_NEXT : EXECUTOR_LATER;
}

void executor_kubernetes_explain(struct executor *base, struct request *request,
                                 const char **ret_category, const char **ret_sentence)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    const struct request_ask *ask = ask_of(executor, request);
    struct arena *arena = request->arena;
    const struct job_quota_limit *limit = NULL;
    *ret_category = "QuotaExceeded";
    *ret_sentence = "the quota has no room for the Job";
    if (!ask) {
        return;
    }
    if (ask->missing) {
        *ret_category = "AdmissionDenied";
        *ret_sentence = arena_format(
            arena,
            "no pod of the Job would be let in by %s; say so in the template, or give the "
            "namespace a LimitRange with defaults",
            ask->missing);
    } else if ((limit = job_quota_find_never(&executor->quota, ask->asked)) != NULL) {
        *ret_sentence =
            arena_format(arena, "the Job is larger than the whole quota: its pod %s",
                         job_quota_describe(&executor->quota, limit, ask->asked, arena));
    } else if ((limit = job_quota_find_short(&executor->quota, ask->asked)) != NULL) {
        *ret_sentence =
            arena_format(arena, "the quota has no room for the Job: its pod %s",
                         job_quota_describe(&executor->quota, limit, ask->asked, arena));
    }
}
