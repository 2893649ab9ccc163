#include "executor/job_event.h"

#include "codec/iso8601.h"

static struct bytes text_of(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

/* When it happened last: old events have lastTimestamp, new ones eventTime. */
static double time_of(struct json event, struct arena *arena)
{
    double when_s = 0;
    if (!iso8601_parse(text_of(event, "lastTimestamp", arena), &when_s)) {
        (void)!iso8601_parse(text_of(event, "eventTime", arena), &when_s);
    }
    return when_s;
}

/* A pod's events are mostly of its ordinary life; Failed, BackOff and Killing are told better by its
 * status, but when it is gone they are all there is. */
static bool is_telling(struct bytes reason)
{
    static const char *const reasons[] = {
        "FailedCreate",        "Evicted",     "Preempted",          "TaintManagerEviction",
        "NodeNotReady",        "OOMKilling",  "ErrImageNeverPull",  "InspectFailed",
        "FailedScheduling",    "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox",
        "ExceededGracePeriod", NULL,
    };
    for (const char *const *known = reasons; *known; known++) {
        if (bytes_equal_text(reason, *known)) {
            return true;
        }
    }
    return false;
}

/* A pod that has got its node is not unschedulable any more. */
static bool is_over(struct bytes reason)
{
    return bytes_equal(reason, BYTES("Scheduled")) || bytes_equal(reason, BYTES("Started"));
}

bool job_event_find(struct json list, struct arena *arena, struct job_event *ret_event)
{
    struct json_walk walk = json_walk(json_get(list, "items"));
    struct json event;
    struct job_event found = {.reason = {NULL, 0}};
    double latest_s = -1;
    while (json_next_element(&walk, &event)) {
        struct bytes reason = text_of(event, "reason", arena);
        double when_s = time_of(event, arena);
        if (when_s >= latest_s && is_over(reason)) {
            latest_s = when_s;
            found = (struct job_event){.reason = {NULL, 0}};
        } else if (when_s >= latest_s && is_telling(reason)) {
            latest_s = when_s;
            found = (struct job_event){reason, text_of(event, "message", arena)};
        }
    }
    if (found.reason.length > 0) {
        *ret_event = found;
    }
    return found.reason.length > 0;
}

struct bytes job_event_created_pod(struct json list, struct arena *arena)
{
    struct bytes head = BYTES("Created pod: ");
    struct bytes found = {NULL, 0};
    struct json_walk walk = json_walk(json_get(list, "items"));
    struct json event;
    double latest_s = -1;
    while (json_next_element(&walk, &event)) {
        struct bytes message = text_of(event, "message", arena);
        double when_s = time_of(event, arena);
        if (bytes_equal(text_of(event, "reason", arena), BYTES("SuccessfulCreate"))
            && bytes_starts_with(message, head) && when_s >= latest_s) {
            latest_s = when_s;
            found = bytes_skip(message, head.length);
        }
    }
    return found;
}
