#include "executor/job_failure.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define MAX_LOG_BYTES         2048
#define MAX_EXPLANATION_BYTES 400

/* What happened, in the contract's words. */
struct cause {
    const char *category;
    const char *sentence; /* after "Job …: " */
    struct bytes subreason;
};

static struct bytes text_of(struct json object, const char *key, struct arena *arena)
{
    struct bytes text = {NULL, 0};
    (void)!json_text(json_get(object, key), arena, &text);
    return text;
}

/* Tables: reasons of Kubernetes and what they are called here; end with NULL. */

struct known_reason {
    const char *reason;
    const char *category;
    const char *sentence;
};

static const struct known_reason disruptions[] = {
    {"PreemptionByScheduler", "Preempted", "its pod was removed for one of higher priority"},
    {"EvictionByEvictionAPI", "Evicted", "its pod was evicted from its node"},
    {"DeletionByTaintManager", "NodeLost", "its pod's node can no longer be used"},
    {"DeletionByPodGC", "NodeLost", "its pod's node is gone"},
    {NULL, NULL, NULL},
};

/* Of the pod as a whole: pkg/kubelet (eviction, lifecycle, nodeshutdown, preemption). */
static const struct known_reason pod_reasons[] = {
    {"Evicted", "Evicted", "its pod was evicted from its node"},
    {"Preempting", "Preempted", "its pod was removed for one of higher priority"},
    {"NodeLost", "NodeLost", "its pod's node does not answer"},
    {"NodeShutdown", "NodeLost", "its pod's node was shut down"},
    {"Shutdown", "NodeLost", "its pod's node was shut down"},
    {"Terminated", "NodeLost", "its pod's node was shut down"},
    {"OutOfcpu", "Unschedulable", "its pod's node had no room for it"},
    {"OutOfmemory", "Unschedulable", "its pod's node had no room for it"},
    {"OutOfpods", "Unschedulable", "its pod's node had no room for it"},
    {"OutOfephemeral-storage", "Unschedulable", "its pod's node had no room for it"},
    {"NodeAffinity", "Unschedulable", "its pod's node did not fit it"},
    {"NodePorts", "Unschedulable", "its pod's node did not fit it"},
    {"UnexpectedAdmissionError", "AdmissionDenied", "its pod's node refused it"},
    {"ContainerStatusUnknown", "NodeLost", "its pod's node does not know how the container ended"},
    {NULL, NULL, NULL},
};

static const struct known_reason container_reasons[] = {
    {"ErrImagePull", "ImagePullError", "the image cannot be pulled"},
    {"ImagePullBackOff", "ImagePullError", "the image cannot be pulled"},
    {"ErrImageNeverPull", "ImagePullError", "the image is not on the node and may not be pulled"},
    {"RegistryUnavailable", "ImagePullError", "the image's registry does not answer"},
    {"InvalidImageName", "InvalidImage", "the image's name is not valid"},
    {"ImageInspectError", "InvalidImage", "the image is not valid"},
    {"CreateContainerConfigError", "ContainerConfigError",
     "its configuration names something that is not there"},
    {"CreateContainerError", "CreateContainerError", "the runtime could not make it"},
    {"RunContainerError", "CreateContainerError", "the runtime could not start it"},
    {"StartError", "CreateContainerError", "the runtime could not start it"},
    {"ContainerCannotRun", "CreateContainerError", "the runtime could not start it"},
    {"PreCreateHookError", "CreateContainerError", "the runtime could not make it"},
    {"PreStartHookError", "CreateContainerError", "the runtime could not start it"},
    {"PostStartHookError", "CreateContainerError", "its postStart hook failed"},
    {"CrashLoopBackOff", "CrashExit", "it ends again and again"},
    {NULL, NULL, NULL},
};

/* Events that name the cause by their reason alone. */
static const struct known_reason event_reasons[] = {
    {"Evicted", "Evicted", "its pod was evicted from its node"},
    {"Preempted", "Preempted", "its pod was removed for one of higher priority"},
    {"TaintManagerEviction", "NodeLost", "its pod's node can no longer be used"},
    {"NodeNotReady", "NodeLost", "its pod's node does not answer"},
    {"OOMKilling", "OOMKilled", "its pod used more memory than its limit"},
    {"ErrImageNeverPull", "ImagePullError", "the image is not on the node and may not be pulled"},
    {"InspectFailed", "InvalidImage", "the image is not valid"},
    {"FailedScheduling", "Unschedulable", "no node took its pod"},
    {NULL, NULL, NULL},
};

static const struct known_reason *find_reason(const struct known_reason *table, struct bytes reason)
{
    for (; table->reason; table++) {
        if (bytes_equal_text(reason, table->reason)) {
            return table;
        }
    }
    return NULL;
}

/* Sentences */

/* `sentence`, with what Kubernetes says of it when that is anything. */
static const char *with_explanation(const char *sentence, struct bytes explanation,
                                    struct arena *arena)
{
    struct bytes shown = explanation;
    if (shown.length == 0) {
        return sentence;
    }
    bool is_cut = shown.length > MAX_EXPLANATION_BYTES;
    shown.length = is_cut ? MAX_EXPLANATION_BYTES : shown.length;
    while (is_cut && shown.length > 0 && ((unsigned char)shown.data[shown.length] & 0xC0) == 0x80) {
        shown.length--; /* not in the middle of a character */
    }
    return arena_format(arena, "%s: %.*s%s", sentence, BYTES_FORMAT(shown), is_cut ? " …" : "");
}

/* How the container is called in a sentence. */
static const char *container_of(const struct job_pod *pod, struct arena *arena)
{
    return arena_format(arena, "%scontainer %.*s", pod->is_init ? "init " : "",
                        BYTES_FORMAT(pod->container));
}

/* Causes */

static bool contains(struct bytes text, const char *part)
{
    return text.length > 0 && memmem(text.data, text.length, part, strlen(part)) != NULL;
}

/* kube-scheduler: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint …".
 * What is short on some node may come free; a taint or an affinity that keeps all away is told
 * first when nothing is short. */
static struct bytes unschedulable_subreason(struct bytes message)
{
    if (contains(message, "Insufficient") || contains(message, "Too many pods")) {
        return BYTES("InsufficientResources");
    }
    if (contains(message, "affinity") || contains(message, "selector")) {
        return BYTES("NodeAffinity");
    }
    return contains(message, "taint") ? BYTES("Taint") : bytes_of(NULL, 0);
}

static struct cause cause_of_exit(const struct job_pod *pod, struct arena *arena)
{
    const char *container = container_of(pod, arena);
    int64_t number = pod->signal_number;
    if (number == 0 && pod->exit_code > 128 && pod->exit_code <= 128 + 64) {
        number = pod->exit_code - 128;
    }
    if (number > 0) {
        const char *name = sigabbrev_np((int)number);
        return (struct cause){"Signalled",
                              arena_format(arena, "%s was ended by signal %lld (SIG%s)", container,
                                           (long long)number, name ? name : "?"),
                              pod->reason};
    }
    return (struct cause){
        "CrashExit",
        arena_format(arena, "%s ended with exit code %lld%s", container, (long long)pod->exit_code,
                     pod->is_init ? ", so the task never began" : " and no report"),
        pod->reason};
}

static struct cause cause_of_container(const struct job_pod *pod, struct arena *arena)
{
    const struct known_reason *known = find_reason(container_reasons, pod->reason);
    if (known) {
        const char *sentence =
            arena_format(arena, "%s: %s", container_of(pod, arena), known->sentence);
        return (struct cause){known->category, with_explanation(sentence, pod->explanation, arena),
                              pod->reason};
    }
    if (pod->exit_code >= 0) {
        return cause_of_exit(pod, arena);
    }
    return (struct cause){
        "Unknown", with_explanation("its pod failed without telling why", pod->explanation, arena),
        pod->reason};
}

/* What ended the pod from outside, or NULL. */
static const struct known_reason *outer_cause(const struct job_pod *pod)
{
    const struct known_reason *found = find_reason(pod_reasons, pod->reason);
    if (!found) {
        found = find_reason(disruptions, pod->disruption);
    }
    /* Of a node that shuts down or runs short the kubelet's own reason is better. */
    if (!found && bytes_equal(pod->disruption, BYTES("TerminationByKubelet"))) {
        found = &pod_reasons[0];
    }
    return found;
}

static struct cause cause_of_outer(const struct known_reason *known, const struct job_pod *pod,
                                   struct arena *arena)
{
    bool is_disruption = find_reason(disruptions, pod->disruption) == known;
    struct bytes subreason = is_disruption ? pod->disruption : pod->reason;
    if (strcmp(known->category, "Unschedulable") == 0) {
        subreason = bytes_starts_with(pod->reason, BYTES("OutOf")) ? BYTES("InsufficientResources")
                                                                   : BYTES("NodeAffinity");
    }
    return (struct cause){known->category,
                          with_explanation(known->sentence, pod->explanation, arena), subreason};
}

static struct cause cause_of_pod(const struct job_pod *pod, struct arena *arena)
{
    if (bytes_equal(pod->reason, BYTES("DeadlineExceeded"))) {
        return (struct cause){"DeadlineExceeded", "its pod ran longer than its deadline",
                              pod->reason};
    }
    if (bytes_equal(pod->reason, BYTES("OOMKilled"))) {
        return (struct cause){
            "OOMKilled",
            arena_format(arena, "%s used more memory than its limit", container_of(pod, arena)),
            pod->reason};
    }
    const struct known_reason *outer = outer_cause(pod);
    if (outer) {
        return cause_of_outer(outer, pod, arena);
    }
    if (pod->is_deleted) {
        return (struct cause){"JobDeleted", "somebody deleted its pod", BYTES("PodDeleted")};
    }
    if (pod->unschedulable.length > 0) {
        return (struct cause){"Unschedulable",
                              with_explanation("no node took its pod", pod->unschedulable, arena),
                              unschedulable_subreason(pod->unschedulable)};
    }
    return cause_of_container(pod, arena);
}

static struct cause cause_of_event(const struct job_event *event, struct arena *arena)
{
    const struct known_reason *known = find_reason(event_reasons, event->reason);
    struct cause cause = {known ? known->category : "Unknown",
                          known ? known->sentence : "its pod is gone", event->reason};
    if (bytes_equal(event->reason, BYTES("FailedCreate"))) {
        bool is_security = contains(event->message, "violates PodSecurity");
        bool is_quota = contains(event->message, "exceeded quota");
        cause.category = is_security ? "PodSecurityViolation"
                         : is_quota  ? "QuotaExceeded"
                                     : "AdmissionDenied";
        cause.sentence = "its pod cannot be made";
    } else if (bytes_equal(event->reason, BYTES("FailedScheduling"))) {
        cause.subreason = unschedulable_subreason(event->message);
    }
    cause.sentence = with_explanation(cause.sentence, event->message, arena);
    return cause;
}

/* The Job */

/* Its condition Failed or FailureTarget, or JSON_TYPE_ABSENT. */
static struct json failed_condition(struct json job, struct arena *arena)
{
    struct json_walk walk = json_walk(json_get(json_get(job, "status"), "conditions"));
    struct json condition;
    while (json_next_element(&walk, &condition)) {
        struct bytes type = text_of(condition, "type", arena);
        if (bytes_equal(type, BYTES("Failed")) || bytes_equal(type, BYTES("FailureTarget"))) {
            return condition;
        }
    }
    return (struct json){.type = JSON_TYPE_ABSENT};
}

static bool is_past_deadline(struct json condition, struct arena *arena)
{
    return bytes_equal(text_of(condition, "reason", arena), BYTES("DeadlineExceeded"));
}

/* Its controller deletes the pod, whose own end is then a mere SIGTERM: only what kept it from
 * running at all is worth telling. */
static struct cause cause_of_deadline(const struct job_pod *pod, struct arena *arena)
{
    const char *sentence = "it did not end before its deadline";
    struct bytes subreason = BYTES("DeadlineExceeded");
    if (pod && pod->unschedulable.length > 0) {
        subreason = BYTES("Unschedulable");
        sentence = with_explanation("its deadline came before a node took its pod",
                                    pod->unschedulable, arena);
    }
    return (struct cause){"DeadlineExceeded", sentence, subreason};
}

/* Whether the pod itself tells why its Job failed, or will never end. */
static bool is_telling(const struct job_pod *pod)
{
    return pod
           && (pod->exit_code > 0 || pod->signal_number > 0 || pod->is_deleted
               || pod->unschedulable.length > 0 || outer_cause(pod)
               || find_reason(container_reasons, pod->reason)
               || bytes_equal(pod->reason, BYTES("OOMKilled"))
               || bytes_equal(pod->reason, BYTES("DeadlineExceeded")));
}

static struct cause cause_of(const struct job_facts *facts, struct arena *arena)
{
    const struct job_pod *pod = facts->pod;
    struct json condition = failed_condition(facts->job, arena);
    bool has_failed = condition.type == JSON_TYPE_OBJECT;
    if (is_past_deadline(condition, arena)) {
        return cause_of_deadline(pod, arena);
    }
    if (is_telling(pod)) {
        return cause_of_pod(pod, arena);
    }
    if (facts->event.reason.length > 0) {
        return cause_of_event(&facts->event, arena);
    }
    if (pod && (has_failed || pod->state == JOB_POD_WAITING)) {
        return cause_of_pod(pod, arena);
    }
    if (!has_failed) {
        return (struct cause){
            "ResultLost", "it completed, but its result cannot be read", {NULL, 0}};
    }
    return (struct cause){"Unknown",
                          with_explanation("it failed and its pod is gone",
                                           text_of(condition, "message", arena), arena),
                          text_of(condition, "reason", arena)};
}

/* Documents */

/* The last MAX_LOG_BYTES of `text`, from the start of a line when there is one. */
static struct bytes tail_of(struct bytes text)
{
    if (text.length <= MAX_LOG_BYTES) {
        return text;
    }
    struct bytes tail = bytes_skip(text, text.length - MAX_LOG_BYTES);
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

/* The details of contracts: category, subreason, exit_code, pod, container; how many Jobs were made
 * for it when there were more than one; and the log's end. */
static const char *details_of(const struct cause *cause, const struct job_facts *facts,
                              struct arena *arena)
{
    static const struct job_pod no_pod = {.exit_code = -1};
    const struct job_pod *known = facts->pod ? facts->pod : &no_pod;
    struct buffer json;
    buffer_init(&json, (size_t)64 * 1024);
    append_text(&json, "{\"category\": ", bytes_from_text(cause->category));
    append_text(&json, ", \"subreason\": ", cause->subreason);
    if (known->exit_code >= 0) {
        (void)buffer_format(&json, ", \"exit_code\": %lld", (long long)known->exit_code);
    } else {
        (void)buffer_append_text(&json, ", \"exit_code\": null");
    }
    append_text(&json, ", \"pod\": ", known->name);
    append_text(&json, ", \"container\": ", known->container);
    if (facts->attempts > 1) {
        (void)buffer_format(&json, ", \"attempts\": %lld", (long long)facts->attempts);
    }
    if (facts->log.length > 0) {
        append_text(&json, ", \"log\": ", tail_of(facts->log));
    }
    (void)buffer_append_byte(&json, '}');
    const char *text = arena_text(arena, buffer_view(&json));
    buffer_fini(&json);
    return text;
}

static void fail_with(const struct cause *cause, struct bytes name, const struct job_facts *facts,
                      struct arena *arena, struct outcome *ret_outcome)
{
    const char *sentence = arena_format(arena, "Job %.*s: %s", BYTES_FORMAT(name), cause->sentence);
    if (facts->attempts > 1) {
        sentence = arena_format(arena, "%s (attempt %lld)", sentence, (long long)facts->attempts);
    }
    executor_failure(arena, cause->category, sentence, details_of(cause, facts, arena),
                     ret_outcome);
    ret_outcome->timed_out = strcmp(cause->category, "DeadlineExceeded") == 0;
    ret_outcome->runtime_s = facts->pod ? facts->pod->runtime_s : 0;
}

void job_failure_explain(const struct job_facts *facts, struct arena *arena,
                         struct outcome *ret_outcome)
{
    struct cause cause = cause_of(facts, arena);
    struct bytes name = text_of(json_get(facts->job, "metadata"), "name", arena);
    fail_with(&cause, name, facts, arena, ret_outcome);
}

void job_failure_deleted(struct bytes name, const struct job_pod *pod, struct arena *arena,
                         struct outcome *ret_outcome)
{
    struct cause cause = {
        "JobDeleted", "somebody deleted it before its result was stored", {NULL, 0}};
    struct job_facts facts = {.pod = pod};
    fail_with(&cause, name, &facts, arena, ret_outcome);
}

bool job_failure_is_rerun(struct json job, const struct job_pod *pod, struct arena *arena)
{
    struct json condition = failed_condition(job, arena);
    if (condition.type != JSON_TYPE_OBJECT || is_past_deadline(condition, arena) || !pod
        || !job_pod_never_ran(pod) || bytes_equal(pod->reason, BYTES("DeadlineExceeded"))) {
        return false;
    }
    /* An image, a name or a command that is wrong stays wrong. */
    return !find_reason(container_reasons, pod->reason);
}

bool job_failure_needs_event(struct json job, const struct job_pod *pod, struct arena *arena)
{
    struct json condition = failed_condition(job, arena);
    return condition.type == JSON_TYPE_OBJECT && !is_past_deadline(condition, arena)
           && !is_telling(pod);
}
