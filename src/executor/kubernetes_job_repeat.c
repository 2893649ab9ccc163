#include "executor/kubernetes_job_repeat.h"

#include <stdio.h>

#include "codec/message_record.h"

#define LABEL(name) "petiole.dev/" name

/* What the API server or the Job controller put there (k8s.io/api/batch/v1/types.go). */
static void drop_marks_of_controller(json_t *metadata)
{
    static const char *const names[] = {
        "controller-uid",
        "job-name",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "batch.kubernetes.io/job-tracking",
    };
    json_t *labels = json_object_get(metadata, "labels");
    json_t *annotations = json_object_get(metadata, "annotations");
    for (size_t index = 0; index < ARRAY_LENGTH(names); index++) {
        (void)json_object_del(labels, names[index]);
        (void)json_object_del(annotations, names[index]);
    }
}

/* The old Job's marks with what is different: its name, whose it is, and which one it follows. */
static json_t *next_metadata(const json_t *old, const struct kubernetes_job *job, const char *name,
                             const char *instance_id)
{
    char attempt[24];
    (void)snprintf(attempt, sizeof(attempt), "%lld", (long long)job->attempt + 1);
    json_t *metadata =
        json_pack("{s:s, s:O?, s:O?}", "name", name, "labels", json_object_get(old, "labels"),
                  "annotations", json_object_get(old, "annotations"));
    json_t *labels = json_object_get(metadata, "labels");
    json_t *annotations = json_object_get(metadata, "annotations");
    drop_marks_of_controller(metadata);
    (void)json_object_del(annotations, LABEL("reported"));
    (void)json_object_set_new(labels, LABEL("owner"), json_string(instance_id));
    (void)json_object_set_new(annotations, LABEL("attempt"), json_string(attempt));
    (void)json_object_set_new(annotations, LABEL("follows"),
                              json_stringn(job->name.data, job->name.length));
    return metadata;
}

/* The selector is the API server's to make, anew for each Job. */
static json_t *next_spec(json_t *spec)
{
    (void)json_object_del(spec, "selector");
    (void)json_object_del(spec, "manualSelector");
    (void)json_object_set_new(spec, "ttlSecondsAfterFinished",
                              json_integer(KUBERNETES_JOB_CREATED_TTL_S));
    drop_marks_of_controller(json_object_get(json_object_get(spec, "template"), "metadata"));
    return spec;
}

bool kubernetes_job_repeat(struct json object, const struct kubernetes_job *job,
                           const char *instance_id, struct arena *arena,
                           struct kubernetes_job_repetition *ret_repetition, struct error *reterr)
{
    struct message message;
    if (!message_record_read(job->record, arena, &message, reterr)) {
        return false;
    }
    job_name_format(&message, (unsigned)job->attempt + 1, ret_repetition->name);
    json_t *old = json_loadb(object.text.data, object.text.length, 0, NULL);
    json_t *next = json_pack(
        "{s:s, s:s, s:o, s:O}", "apiVersion", "batch/v1", "kind", "Job", "metadata",
        next_metadata(json_object_get(old, "metadata"), job, ret_repetition->name, instance_id),
        "spec", next_spec(json_object_get(old, "spec")));
    ret_repetition->body = next ? json_dumps(next, JSON_COMPACT) : NULL;
    json_decref(next);
    json_decref(old);
    return ret_repetition->body
           || error_set(reterr, ERROR_INVALID, "the Job cannot be read as JSON");
}
