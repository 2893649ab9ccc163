#include "executor/job_quota.h"

#include <string.h>

#include "executor/job_quantity.h"

#define MILLI 1000

static struct job_quota_limit *find(struct job_quota *quota, const char *resource)
{
    for (size_t index = 0; index < quota->count; index++) {
        if (strcmp(quota->limits[index].resource, resource) == 0) {
            return &quota->limits[index];
        }
    }
    return NULL;
}

static void limit(struct job_quota *quota, const char *resource, int64_t hard_milli,
                  int64_t used_milli)
{
    struct job_quota_limit *known = find(quota, resource);
    if (!known && quota->count < JOB_QUOTA_MAX_RESOURCES) {
        known = &quota->limits[quota->count++];
        *known = (struct job_quota_limit){.hard_milli = INT64_MAX};
        (void)snprintf(known->resource, sizeof(known->resource), "%s", resource);
    }
    if (known && hard_milli - used_milli < known->hard_milli - known->used_milli) {
        known->hard_milli = hard_milli;
        known->used_milli = used_milli;
    }
}

/* The member's quantity in thousandths; `otherwise` when there is none. */
static int64_t quantity_of(struct json object, const char *key, int64_t otherwise)
{
    struct json value = json_get(object, key);
    struct bytes text = value.text;
    int64_t milli = otherwise;
    if (value.type == JSON_TYPE_STRING) {
        text = bytes_of(text.data + 1, text.length - 2);
    }
    if (!json_is_unset(value) && !job_quantity_parse(text, &milli)) {
        return otherwise;
    }
    return milli;
}

void job_quota_add(struct job_quota *quota, struct json resource_quota)
{
    struct json status = json_get(resource_quota, "status");
    struct json hard = json_get(status, "hard");
    if (hard.type != JSON_TYPE_OBJECT) {
        hard = json_get(json_get(resource_quota, "spec"), "hard"); /* no status yet */
    }
    struct json used = json_get(status, "used");
    struct json_walk walk = json_walk(hard);
    struct bytes key;
    struct json value;
    while (json_next_member(&walk, &key, &value)) {
        char resource[64];
        if (key.length >= sizeof(resource)) {
            continue;
        }
        memcpy(resource, key.data, key.length);
        resource[key.length] = '\0';
        limit(quota, resource, quantity_of(hard, resource, 0), quantity_of(used, resource, 0));
    }
}

void job_quota_carry(struct job_quota *quota, const struct job_quota *old)
{
    for (size_t index = 0; index < old->count; index++) {
        struct job_quota_limit *known = find(quota, old->limits[index].resource);
        if (known) {
            known->others_milli = old->limits[index].others_milli;
            known->has_others = old->limits[index].has_others;
        }
    }
}

/* Keeps the estimate between what is certain from both sides. */
static void estimate_others(struct job_quota_limit *limit, int64_t asked_milli,
                            const struct job_quota_jobs *jobs)
{
    int64_t most_ours = (int64_t)(jobs->unfinished + jobs->leaving) * asked_milli;
    int64_t least_ours = (int64_t)jobs->counted * asked_milli;
    int64_t least = limit->used_milli > most_ours ? limit->used_milli - most_ours : 0;
    int64_t most = limit->used_milli > least_ours ? limit->used_milli - least_ours : 0;
    if (!limit->has_others || limit->others_milli < least) {
        limit->others_milli = least;
    } else if (limit->others_milli > most) {
        limit->others_milli = most;
    }
    limit->has_others = true;
}

size_t job_quota_capacity(struct job_quota *quota, job_quota_request_fn *request,
                          const void *context, const struct job_quota_jobs *jobs,
                          int64_t reserved_pods)
{
    size_t capacity = JOB_QUOTA_UNLIMITED;
    for (size_t index = 0; index < quota->count; index++) {
        struct job_quota_limit *limit = &quota->limits[index];
        bool is_pods =
            strcmp(limit->resource, "pods") == 0 || strcmp(limit->resource, "count/pods") == 0;
        int64_t asked_milli = is_pods ? MILLI : request(context, limit->resource);
        if (asked_milli <= 0) {
            continue; /* a pod takes nothing of it */
        }
        estimate_others(limit, asked_milli, jobs);
        int64_t room_milli =
            limit->hard_milli - limit->others_milli - (is_pods ? reserved_pods * MILLI : 0);
        size_t fits = room_milli < asked_milli ? 0 : (size_t)(room_milli / asked_milli);
        capacity = fits < capacity ? fits : capacity;
    }
    return capacity;
}
