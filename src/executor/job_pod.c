#include "executor/job_pod.h"

#include "codec/iso8601.h"

#define DEFAULT_CONTAINER "kubectl.kubernetes.io/default-container"

static struct bytes text_of(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

static bool is_set(struct json value)
{
    return value.type == JSON_TYPE_OBJECT;
}

/* The element of `list` whose member `key` is `value`, or JSON_TYPE_ABSENT. */
static struct json find_named(struct json list, const char *key, struct bytes value,
                              struct arena *arena)
{
    struct json_walk walk = json_walk(list);
    struct json element;
    while (json_next_element(&walk, &element)) {
        if (bytes_equal(text_of(element, key, arena), value)) {
            return element;
        }
    }
    return (struct json){.type = JSON_TYPE_ABSENT};
}

static double seconds_between(struct json terminated, struct arena *arena)
{
    double started_s = 0;
    double finished_s = 0;
    bool is_known = iso8601_parse(text_of(terminated, "startedAt", arena), &started_s)
                    && iso8601_parse(text_of(terminated, "finishedAt", arena), &finished_s);
    return is_known && started_s > 0 && finished_s > started_s ? finished_s - started_s : 0;
}

/* Containers */

/* A runtime that cannot start a container tells its end, which never began. */
static bool is_start_failure(struct bytes reason)
{
    return bytes_equal(reason, BYTES("StartError"))
           || bytes_equal(reason, BYTES("ContainerCannotRun"))
           || bytes_equal(reason, BYTES("CreateContainerError"))
           || bytes_equal(reason, BYTES("CreateContainerConfigError"));
}

static void read_end(struct json terminated, struct arena *arena, struct job_pod *pod)
{
    pod->exit_code = 0;
    (void)!json_int64(json_get(terminated, "exitCode"), &pod->exit_code);
    (void)!json_int64(json_get(terminated, "signal"), &pod->signal_number);
    pod->reason = text_of(terminated, "reason", arena);
}

static void read_main(struct json status, struct arena *arena, struct job_pod *pod)
{
    struct json state = json_get(status, "state");
    struct json terminated = json_get(state, "terminated");
    int64_t restarts = 0;
    (void)!json_int64(json_get(status, "restartCount"), &restarts);
    pod->may_have_run =
        restarts > 0 || is_set(json_get(json_get(status, "lastState"), "terminated"));
    if (is_set(terminated)) {
        pod->state = JOB_POD_ENDED;
        read_end(terminated, arena, pod);
        pod->message = text_of(terminated, "message", arena);
        pod->runtime_s = seconds_between(terminated, arena);
        if (is_start_failure(pod->reason)) {
            pod->explanation = pod->message;
            pod->message = bytes_of(NULL, 0);
        } else {
            pod->may_have_run = true;
        }
    } else if (is_set(json_get(state, "running"))) {
        pod->state = JOB_POD_RUNNING;
        pod->may_have_run = true;
    } else {
        pod->reason = text_of(json_get(state, "waiting"), "reason", arena);
        pod->explanation = text_of(json_get(state, "waiting"), "message", arena);
    }
}

/* The init container that keeps the main one from beginning: failed, or waiting itself. One that
 * waits for its turn has no reason but PodInitializing. */
static void read_init(struct json statuses, struct arena *arena, struct job_pod *pod)
{
    struct json_walk walk = json_walk(statuses);
    struct json status;
    while (json_next_element(&walk, &status)) {
        struct json state = json_get(status, "state");
        struct json terminated = json_get(state, "terminated");
        struct bytes waiting = text_of(json_get(state, "waiting"), "reason", arena);
        int64_t exit_code = 0;
        (void)!json_int64(json_get(terminated, "exitCode"), &exit_code);
        bool waits = waiting.length > 0 && !bytes_equal(waiting, BYTES("PodInitializing"));
        if (exit_code == 0 && !waits) {
            continue;
        }
        pod->is_init = true;
        pod->container = text_of(status, "name", arena);
        if (waits) {
            pod->reason = waiting;
            pod->explanation = text_of(json_get(state, "waiting"), "message", arena);
        } else {
            read_end(terminated, arena, pod);
            pod->explanation = text_of(terminated, "message", arena);
        }
        return;
    }
}

/* The pod */

static void read_conditions(struct json conditions, struct arena *arena, struct job_pod *pod)
{
    struct json disrupted = find_named(conditions, "type", BYTES("DisruptionTarget"), arena);
    struct json scheduled = find_named(conditions, "type", BYTES("PodScheduled"), arena);
    if (bytes_equal(text_of(disrupted, "status", arena), BYTES("True"))) {
        pod->disruption = text_of(disrupted, "reason", arena);
        pod->explanation = text_of(disrupted, "message", arena);
    }
    if (bytes_equal(text_of(scheduled, "status", arena), BYTES("False"))
        && bytes_equal(text_of(scheduled, "reason", arena), BYTES("Unschedulable"))) {
        pod->unschedulable = text_of(scheduled, "message", arena);
        if (pod->unschedulable.length == 0) {
            pod->unschedulable = BYTES("no node takes it");
        }
        (void)!iso8601_parse(text_of(scheduled, "lastTransitionTime", arena),
                             &pod->unschedulable_wall_s);
    }
}

/* What the kubelet or a controller says of the end of the whole pod is above any container's. */
static void read_phase(struct json status, struct arena *arena, struct job_pod *pod)
{
    struct bytes phase = text_of(status, "phase", arena);
    struct bytes reason = text_of(status, "reason", arena);
    struct bytes message = text_of(status, "message", arena);
    pod->is_over = bytes_equal(phase, BYTES("Failed")) || bytes_equal(phase, BYTES("Succeeded"));
    if (!pod->is_over) {
        return;
    }
    /* PodGC ends the pods of a node that is gone: what ran there last, nobody knows. */
    if (pod->is_bound && bytes_equal(pod->disruption, BYTES("DeletionByPodGC"))) {
        pod->may_have_run = true;
    }
    pod->state = JOB_POD_ENDED;
    if (reason.length > 0) {
        pod->reason = reason;
    }
    if (message.length > 0) {
        pod->explanation = message;
    }
}

void job_pod_read(struct json object, struct arena *arena, struct job_pod *ret_pod)
{
    struct json metadata = json_get(object, "metadata");
    struct json spec = json_get(object, "spec");
    struct json status = json_get(object, "status");
    struct bytes named = text_of(json_get(metadata, "annotations"), DEFAULT_CONTAINER, arena);
    struct json containers = json_get(spec, "containers");
    if (!is_set(find_named(containers, "name", named, arena))) {
        named = text_of(json_at(containers, 0), "name", arena);
    }
    *ret_pod = (struct job_pod){
        .state = JOB_POD_WAITING,
        .name = text_of(metadata, "name", arena),
        .container = named,
        .exit_code = -1,
        .is_bound = text_of(spec, "nodeName", arena).length > 0,
    };
    ret_pod->is_deleted =
        iso8601_parse(text_of(metadata, "deletionTimestamp", arena), &ret_pod->deleted_wall_s);
    read_main(find_named(json_get(status, "containerStatuses"), "name", named, arena), arena,
              ret_pod);
    if (ret_pod->state == JOB_POD_WAITING && !ret_pod->may_have_run) {
        read_init(json_get(status, "initContainerStatuses"), arena, ret_pod);
    }
    read_conditions(json_get(status, "conditions"), arena, ret_pod);
    read_phase(status, arena, ret_pod);
}

struct job_pod job_pod_copy(const struct job_pod *pod, struct arena *arena)
{
    struct job_pod copy = *pod;
    copy.name = arena_copy(arena, pod->name);
    copy.container = arena_copy(arena, pod->container);
    copy.reason = arena_copy(arena, pod->reason);
    copy.message = arena_copy(arena, pod->message);
    copy.explanation = arena_copy(arena, pod->explanation);
    copy.disruption = arena_copy(arena, pod->disruption);
    copy.unschedulable = arena_copy(arena, pod->unschedulable);
    return copy;
}

/* Questions */

bool job_pod_waits_for_image(const struct job_pod *pod)
{
    return pod->state == JOB_POD_WAITING
           && (bytes_equal(pod->reason, BYTES("ErrImagePull"))
               || bytes_equal(pod->reason, BYTES("ImagePullBackOff")));
}

bool job_pod_is_stuck(const struct job_pod *pod, const char *const *reasons)
{
    bool is_image = job_pod_waits_for_image(pod);
    for (; pod->state == JOB_POD_WAITING && *reasons; reasons++) {
        if (bytes_equal_text(pod->reason, *reasons)
            || (is_image && strcmp(*reasons, "ErrImagePull") == 0)) {
            return true;
        }
    }
    return false;
}

bool job_pod_fits(const struct job_pod *pod, bool job_is_complete)
{
    return pod->state == JOB_POD_ENDED && (pod->exit_code == 0) == job_is_complete;
}

bool job_pod_never_ran(const struct job_pod *pod)
{
    return !pod->may_have_run && (pod->is_over || (pod->is_deleted && !pod->is_bound));
}
