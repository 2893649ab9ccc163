#include "executor/job_failure.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "codec/iso8601.h"

#define DEFAULT_CONTAINER "kubectl.kubernetes.io/default-container"
#define MAX_SHOWN_BYTES   2048

static struct bytes text_of(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

/* The element of `list` whose member `key` is `value`, else the first. */
static struct json find_named(struct json list, const char *key, struct bytes value,
                              struct arena *arena)
{
    struct json_walk walk = json_walk(list);
    struct json element;
    while (value.length > 0 && json_next_element(&walk, &element)) {
        if (bytes_equal(text_of(element, key, arena), value)) {
            return element;
        }
    }
    return json_at(list, 0);
}

static double seconds_between(struct json terminated, struct arena *arena)
{
    double started_s = 0;
    double finished_s = 0;
    bool is_known = iso8601_parse(text_of(terminated, "startedAt", arena), &started_s)
                    && iso8601_parse(text_of(terminated, "finishedAt", arena), &finished_s);
    return is_known && finished_s > started_s ? finished_s - started_s : 0;
}

static void read_terminated(struct json terminated, struct arena *arena, struct job_pod *pod)
{
    pod->state = JOB_POD_ENDED;
    pod->exit_code = 0;
    (void)!json_int64(json_get(terminated, "exitCode"), &pod->exit_code);
    (void)!json_int64(json_get(terminated, "signal"), &pod->signal_number);
    pod->reason = text_of(terminated, "reason", arena);
    pod->message = text_of(terminated, "message", arena);
    pod->runtime_s = seconds_between(terminated, arena);
}

void job_failure_read_pod(struct json pod, struct arena *arena, struct job_pod *ret_pod)
{
    struct json metadata = json_get(pod, "metadata");
    struct json status = json_get(pod, "status");
    struct json first = json_at(json_get(json_get(pod, "spec"), "containers"), 0);
    struct bytes named = text_of(json_get(metadata, "annotations"), DEFAULT_CONTAINER, arena);
    struct bytes main_name = named.length > 0 ? named : text_of(first, "name", arena);
    struct json container =
        find_named(json_get(status, "containerStatuses"), "name", main_name, arena);
    struct json state = json_get(container, "state");
    *ret_pod = (struct job_pod){
        .state = JOB_POD_WAITING,
        .name = text_of(metadata, "name", arena),
        .container = main_name,
        .exit_code = -1,
        .reason = text_of(json_get(state, "waiting"), "reason", arena),
        .message = text_of(json_get(state, "waiting"), "message", arena),
    };
    struct bytes phase = text_of(status, "phase", arena);
    if (json_get(state, "terminated").type == JSON_TYPE_OBJECT) {
        read_terminated(json_get(state, "terminated"), arena, ret_pod);
    } else if (json_get(state, "running").type == JSON_TYPE_OBJECT) {
        ret_pod->state = JOB_POD_RUNNING;
    }
    bool has_ended = bytes_equal(phase, BYTES("Failed")) || bytes_equal(phase, BYTES("Succeeded"));
    if (has_ended && ret_pod->state != JOB_POD_ENDED) {
        /* Evicted, or past its deadline, before the container's state was told. */
        ret_pod->state = JOB_POD_ENDED;
    }
    struct bytes pod_reason = text_of(status, "reason", arena);
    if (has_ended && pod_reason.length > 0) {
        ret_pod->reason = pod_reason; /* "Evicted", "DeadlineExceeded": above any container's */
    }
}

static bool is_one_of(struct bytes text, const char *const *names)
{
    for (; *names; names++) {
        if (bytes_equal_text(text, *names)) {
            return true;
        }
    }
    return false;
}

static const char *const image_reasons[] = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull",
                                            "RegistryUnavailable", NULL};
static const char *const bad_image_reasons[] = {"InvalidImageName", "ImageInspectError", NULL};
static const char *const config_reasons[] = {"CreateContainerConfigError", NULL};
static const char *const create_reasons[] = {"CreateContainerError", "RunContainerError",
                                             "StartError", "ContainerCannotRun", NULL};

bool job_failure_is_stuck(const struct job_pod *pod)
{
    return pod->state == JOB_POD_WAITING
           && (is_one_of(pod->reason, image_reasons) || is_one_of(pod->reason, bad_image_reasons)
               || is_one_of(pod->reason, config_reasons) || is_one_of(pod->reason, create_reasons));
}

bool job_failure_fits(const struct job_pod *pod, bool job_is_complete)
{
    return pod->state == JOB_POD_ENDED && (pod->exit_code == 0) == job_is_complete;
}

/* The reason of the Job's condition Failed or FailureTarget; empty: none. */
static struct bytes job_reason(struct json job, struct arena *arena)
{
    struct json_walk walk = json_walk(json_get(json_get(job, "status"), "conditions"));
    struct json condition;
    while (json_next_element(&walk, &condition)) {
        struct bytes type = text_of(condition, "type", arena);
        if (bytes_equal(type, BYTES("Failed")) || bytes_equal(type, BYTES("FailureTarget"))) {
            return text_of(condition, "reason", arena);
        }
    }
    return bytes_of(NULL, 0);
}

struct cause {
    const char *category;
    const char *sentence; /* what happened, after "Job …: " */
};

static struct cause cause_of_exit(const struct job_pod *pod, struct arena *arena)
{
    int64_t number = pod->signal_number;
    if (number == 0 && pod->exit_code > 128 && pod->exit_code <= 128 + 64) {
        number = pod->exit_code - 128;
    }
    if (number > 0) {
        const char *name = sigabbrev_np((int)number);
        return (struct cause){"Signalled",
                              arena_format(arena, "the container was ended by signal %lld (SIG%s)",
                                           (long long)number, name ? name : "?")};
    }
    return (struct cause){
        "CrashExit", arena_format(arena, "the container ended with exit code %lld and no report",
                                  (long long)pod->exit_code)};
}

static struct cause cause_of_pod(const struct job_pod *pod, struct arena *arena)
{
    if (bytes_equal(pod->reason, BYTES("OOMKilled"))) {
        return (struct cause){
            "OOMKilled", "the container was killed because it used more memory than its limit"};
    }
    if (bytes_equal(pod->reason, BYTES("DeadlineExceeded"))) {
        return (struct cause){"DeadlineExceeded", "the pod ran longer than its deadline"};
    }
    if (bytes_equal(pod->reason, BYTES("Evicted"))) {
        return (struct cause){"Evicted", "the pod was evicted from its node"};
    }
    if (is_one_of(pod->reason, image_reasons)) {
        return (struct cause){"ImagePullError", "the container's image cannot be pulled"};
    }
    if (is_one_of(pod->reason, bad_image_reasons)) {
        return (struct cause){"InvalidImage", "the container's image is not valid"};
    }
    if (is_one_of(pod->reason, config_reasons)) {
        return (struct cause){"ContainerConfigError",
                              "the container's configuration names something that is not there"};
    }
    if (is_one_of(pod->reason, create_reasons)) {
        return (struct cause){"CreateContainerError", "the container could not be started"};
    }
    return pod->exit_code >= 0 ? cause_of_exit(pod, arena)
                               : (struct cause){"Unknown", "the pod failed without telling why"};
}

static struct cause cause_of(struct json job, const struct job_pod *pod, struct arena *arena)
{
    struct bytes reason = job_reason(job, arena);
    /* Its controller deletes the pod, whose own end is then a mere SIGTERM. */
    if (bytes_equal(reason, BYTES("DeadlineExceeded"))) {
        return (struct cause){"DeadlineExceeded", "the Job did not end before its deadline"};
    }
    if (pod && (pod->exit_code != 0 || bytes_equal(pod->reason, BYTES("OOMKilled")))) {
        return cause_of_pod(pod, arena);
    }
    if (reason.length == 0) {
        return (struct cause){"ResultLost", "it completed, but its result cannot be read"};
    }
    return (struct cause){"Unknown", arena_format(arena, "it failed (%.*s) and its pod is gone",
                                                  BYTES_FORMAT(reason))};
}

/* The last MAX_SHOWN_BYTES of `text`, from the start of a line when there is one. */
static struct bytes tail_of(struct bytes text)
{
    if (text.length <= MAX_SHOWN_BYTES) {
        return text;
    }
    struct bytes tail = bytes_skip(text, text.length - MAX_SHOWN_BYTES);
    size_t line = bytes_find(tail, '\n');
    return line + 1 < tail.length ? bytes_skip(tail, line + 1) : tail;
}

static void append_text(struct buffer *json, const char *before, struct bytes text)
{
    (void)buffer_append_text(json, before);
    if (text.length > 0) {
        json_append_string(json, text);
    } else {
        (void)buffer_append_text(json, "null");
    }
}

/* The details of contracts: category, subreason, exit_code, pod, container; and the log's end. */
static const char *details_of(const char *category, const struct job_pod *pod,
                              struct bytes log_tail, struct arena *arena)
{
    static const struct job_pod no_pod = {.exit_code = -1};
    const struct job_pod *known = pod ? pod : &no_pod;
    struct buffer json;
    buffer_init(&json, (size_t)64 * 1024);
    append_text(&json, "{\"category\": ", bytes_from_text(category));
    append_text(&json, ", \"subreason\": ", known->reason);
    if (known->exit_code >= 0) {
        (void)buffer_format(&json, ", \"exit_code\": %lld", (long long)known->exit_code);
    } else {
        (void)buffer_append_text(&json, ", \"exit_code\": null");
    }
    append_text(&json, ", \"pod\": ", known->name);
    append_text(&json, ", \"container\": ", known->container);
    if (log_tail.length > 0) {
        append_text(&json, ", \"log\": ", tail_of(log_tail));
    }
    (void)buffer_append_byte(&json, '}');
    const char *text = arena_text(arena, buffer_view(&json));
    buffer_fini(&json);
    return text;
}

void job_failure_explain(struct json job, const struct job_pod *pod, struct bytes log_tail,
                         struct arena *arena, struct outcome *ret_outcome)
{
    struct cause cause = cause_of(job, pod, arena);
    struct bytes name = text_of(json_get(job, "metadata"), "name", arena);
    const char *sentence = arena_format(arena, "Job %.*s: %s", BYTES_FORMAT(name), cause.sentence);
    executor_failure(arena, cause.category, sentence,
                     details_of(cause.category, pod, log_tail, arena), ret_outcome);
    ret_outcome->timed_out = strcmp(cause.category, "DeadlineExceeded") == 0;
    ret_outcome->runtime_s = pod ? pod->runtime_s : 0;
}
