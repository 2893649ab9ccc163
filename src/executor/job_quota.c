#include "executor/job_quota.h"

#include <string.h>

#include "executor/job_demand.h"
#include "executor/job_quantity.h"

#define MILLI 1000

/* Reading */

static bool is_one_of(const char *resource, const char *first, const char *second)
{
    return strcmp(resource, first) == 0 || strcmp(resource, second) == 0;
}

void job_quota_add(struct job_quota *quota, const json_t *resource_quota)
{
    const json_t *metadata = json_object_get(resource_quota, "metadata");
    const char *name = json_string_value(json_object_get(metadata, "name"));
    const json_t *status = json_object_get(resource_quota, "status");
    json_t *wanted = json_object_get(json_object_get(resource_quota, "spec"), "hard");
    json_t *enforced = json_object_get(status, "hard");
    json_t *hard = json_is_object(enforced) ? enforced : wanted; /* else: no status yet */
    const char *resource = NULL;
    json_t *value = NULL;
    json_object_foreach(hard, resource, value) {
        if (quota->count == JOB_QUOTA_MAX_LIMITS
            || strlen(resource) >= sizeof(quota->limits[0].resource)) {
            continue;
        }
        struct job_quota_limit *limit = &quota->limits[quota->count++];
        int64_t to_come_milli = job_quantity_of(json_object_get(wanted, resource));
        *limit = (struct job_quota_limit){.object = resource_quota};
        (void)snprintf(limit->quota, sizeof(limit->quota), "%s", name ? name : "");
        (void)snprintf(limit->resource, sizeof(limit->resource), "%s", resource);
        limit->is_pods = is_one_of(resource, "pods", "count/pods");
        limit->is_jobs = strcmp(resource, "count/jobs.batch") == 0;
        limit->hard_milli = job_quantity_of(value);
        limit->most_milli = to_come_milli > limit->hard_milli ? to_come_milli : limit->hard_milli;
        limit->used_milli =
            job_quantity_of(json_object_get(json_object_get(status, "used"), resource));
    }
}

/* Whether the quotas of two limits count the same pods. */
static bool has_same_scope(const struct job_quota_limit *left, const struct job_quota_limit *right)
{
    static const char *const keys[] = {"scopes", "scopeSelector"};
    const json_t *left_spec = json_object_get(left->object, "spec");
    const json_t *right_spec = json_object_get(right->object, "spec");
    for (size_t i = 0; i < ARRAY_LENGTH(keys); i++) {
        const json_t *left_value = json_object_get(left_spec, keys[i]);
        const json_t *right_value = json_object_get(right_spec, keys[i]);
        bool is_same = left_value && right_value ? json_equal(left_value, right_value) != 0
                                                 : left_value == right_value;
        if (!is_same) {
            return false;
        }
    }
    return true;
}

bool job_quota_carry(struct job_quota *quota, const struct job_quota *old)
{
    bool is_same = quota->count == old->count;
    for (size_t index = 0; is_same && index < quota->count; index++) {
        const struct job_quota_limit *now = &quota->limits[index];
        const struct job_quota_limit *then = &old->limits[index];
        is_same = strcmp(now->quota, then->quota) == 0 && strcmp(now->resource, then->resource) == 0
                  && has_same_scope(now, then);
    }
    for (size_t index = 0; is_same && index < quota->count; index++) {
        struct job_quota_limit *now = &quota->limits[index];
        const struct job_quota_limit *then = &old->limits[index];
        memcpy(now->stages_milli, then->stages_milli, sizeof(now->stages_milli));
        now->others_milli = then->others_milli;
        now->has_others = then->has_others;
    }
    return is_same;
}

void job_quota_ask(const struct job_quota *quota, const json_t *job, int64_t *ret_asked)
{
    const json_t *object = NULL;
    bool is_counted = false;
    for (size_t index = 0; index < quota->count; index++) {
        const struct job_quota_limit *limit = &quota->limits[index];
        if (limit->object != object) {
            object = limit->object;
            is_counted = job_demand_is_in_scope(job, object);
        }
        ret_asked[index] = is_counted ? job_quantity_of_job(job, limit->resource) : 0;
    }
}

/* Sums */

void job_quota_reset(struct job_quota *quota)
{
    for (size_t index = 0; index < quota->count; index++) {
        struct job_quota_limit *limit = &quota->limits[index];
        memset(limit->stages_milli, 0, sizeof(limit->stages_milli));
        limit->has_others = false;
    }
}

void job_quota_move(struct job_quota *quota, const int64_t *asked, enum job_quota_stage from,
                    enum job_quota_stage to)
{
    for (size_t index = 0; index < quota->count; index++) {
        quota->limits[index].stages_milli[from] -= asked[index];
        quota->limits[index].stages_milli[to] += asked[index];
    }
}

/* Keeps the estimate between what is certain from both sides. */
static void estimate_others(struct job_quota_limit *limit)
{
    const int64_t *stages = limit->stages_milli;
    int64_t least_ours = stages[JOB_QUOTA_COUNTED];
    int64_t most_ours = least_ours + stages[JOB_QUOTA_STARTING] + stages[JOB_QUOTA_LEAVING];
    int64_t least = limit->used_milli > most_ours ? limit->used_milli - most_ours : 0;
    int64_t most = limit->used_milli > least_ours ? limit->used_milli - least_ours : 0;
    if (!limit->has_others || limit->others_milli < least) {
        limit->others_milli = least;
    } else if (limit->others_milli > most) {
        limit->others_milli = most;
    }
    limit->has_others = true;
}

static int64_t reserved_milli(const struct job_quota *quota, const struct job_quota_limit *limit)
{
    return limit->is_pods ? quota->reserved_pods * MILLI : 0;
}

/* What is left when only others are there. */
static int64_t room_alone(const struct job_quota *quota, struct job_quota_limit *limit)
{
    estimate_others(limit);
    return limit->hard_milli - limit->others_milli - reserved_milli(quota, limit);
}

static int64_t room_of(const struct job_quota *quota, struct job_quota_limit *limit)
{
    if (limit->is_jobs) {
        return limit->hard_milli - limit->used_milli;
    }
    const int64_t *stages = limit->stages_milli;
    return room_alone(quota, limit) - stages[JOB_QUOTA_STARTING] - stages[JOB_QUOTA_COUNTED];
}

const struct job_quota_limit *job_quota_find_short(struct job_quota *quota, const int64_t *asked)
{
    for (size_t index = 0; index < quota->count; index++) {
        struct job_quota_limit *limit = &quota->limits[index];
        if (asked[index] > 0 && room_of(quota, limit) < asked[index]) {
            return limit;
        }
    }
    return NULL;
}

const struct job_quota_limit *job_quota_find_never(const struct job_quota *quota,
                                                   const int64_t *asked)
{
    for (size_t index = 0; index < quota->count; index++) {
        const struct job_quota_limit *limit = &quota->limits[index];
        int64_t most_milli = limit->most_milli - reserved_milli(quota, limit);
        if (asked[index] > 0 && most_milli < asked[index]) {
            return limit;
        }
    }
    return NULL;
}

bool job_quota_fits_alone(struct job_quota *quota, const int64_t *asked)
{
    for (size_t index = 0; index < quota->count; index++) {
        struct job_quota_limit *limit = &quota->limits[index];
        if (asked[index] > 0 && !limit->is_jobs && room_alone(quota, limit) < asked[index]) {
            return false;
        }
    }
    return true;
}

bool job_quota_is_full_of_jobs(const struct job_quota *quota)
{
    for (size_t index = 0; index < quota->count; index++) {
        const struct job_quota_limit *limit = &quota->limits[index];
        if (limit->is_jobs && limit->hard_milli - limit->used_milli < MILLI) {
            return true;
        }
    }
    return false;
}

size_t job_quota_fits(struct job_quota *quota, const int64_t *asked)
{
    size_t fits = JOB_QUOTA_UNLIMITED;
    for (size_t index = 0; index < quota->count; index++) {
        struct job_quota_limit *limit = &quota->limits[index];
        if (asked[index] > 0) {
            int64_t room = room_of(quota, limit);
            size_t here = room < asked[index] ? 0 : (size_t)(room / asked[index]);
            fits = here < fits ? here : fits;
        }
    }
    return fits;
}

bool job_quota_give(const struct job_quota *quota, const int64_t *asked, int64_t *given)
{
    for (size_t index = 0; index < quota->count; index++) {
        const struct job_quota_limit *limit = &quota->limits[index];
        int64_t room = limit->hard_milli - limit->used_milli - given[index];
        if (asked[index] > 0 && !limit->is_jobs && room < asked[index]) {
            return false;
        }
    }
    for (size_t index = 0; index < quota->count; index++) {
        given[index] += asked[index];
    }
    return true;
}

const char *job_quota_describe(const struct job_quota *quota, const struct job_quota_limit *limit,
                               const int64_t *asked, struct arena *arena)
{
    char needs[JOB_QUANTITY_TEXT_SIZE];
    char allows[JOB_QUANTITY_TEXT_SIZE];
    char used[JOB_QUANTITY_TEXT_SIZE];
    const char *resource = limit->resource;
    const char *reserve = "";
    job_quantity_format(resource, asked[limit - quota->limits], needs);
    job_quantity_format(resource, limit->hard_milli, allows);
    job_quantity_format(resource, limit->used_milli, used);
    if (reserved_milli(quota, limit) > 0) {
        reserve = arena_format(arena, " and kubernetes_quota_reserve keeps %lld free",
                               (long long)quota->reserved_pods);
    }
    return arena_format(arena, "needs %s of %s; quota %s allows %s, of which %s is in use%s", needs,
                        resource, limit->quota, allows, used, reserve);
}
