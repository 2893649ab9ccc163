#include "executor/job_quota.h"

#include <string.h>

#include "executor/job_quantity.h"

#define MILLI 1000

static struct job_quota_left *find(struct job_quota *quota, const char *resource)
{
    for (size_t index = 0; index < quota->count; index++) {
        if (strcmp(quota->left[index].resource, resource) == 0) {
            return &quota->left[index];
        }
    }
    return NULL;
}

static void limit(struct job_quota *quota, const char *resource, int64_t left_milli)
{
    struct job_quota_left *known = find(quota, resource);
    if (known) {
        known->left_milli = left_milli < known->left_milli ? left_milli : known->left_milli;
    } else if (quota->count < JOB_QUOTA_MAX_RESOURCES) {
        struct job_quota_left *left = &quota->left[quota->count++];
        (void)snprintf(left->resource, sizeof(left->resource), "%s", resource);
        left->left_milli = left_milli;
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
        limit(quota, resource, quantity_of(hard, resource, 0) - quantity_of(used, resource, 0));
    }
}

size_t job_quota_fits(const struct job_quota *quota, job_quota_request_fn *request,
                      const void *context, size_t uncounted, int64_t reserved_pods)
{
    size_t fits = JOB_QUOTA_UNLIMITED;
    for (size_t index = 0; index < quota->count; index++) {
        const struct job_quota_left *left = &quota->left[index];
        bool is_pods =
            strcmp(left->resource, "pods") == 0 || strcmp(left->resource, "count/pods") == 0;
        int64_t asked_milli = is_pods ? MILLI : request(context, left->resource);
        if (asked_milli <= 0) {
            continue; /* a pod takes nothing of it */
        }
        int64_t left_milli = left->left_milli - (is_pods ? reserved_pods * MILLI : 0);
        size_t pods = left_milli < asked_milli ? 0 : (size_t)(left_milli / asked_milli);
        fits = pods < fits ? pods : fits;
    }
    if (fits == JOB_QUOTA_UNLIMITED) {
        return fits;
    }
    return fits > uncounted ? fits - uncounted : 0;
}
