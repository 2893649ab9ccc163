/*
 * What a hostile message makes of a Job: its arguments go into every placeholder and its header
 * into overrides, and in the Job that comes out nothing differs from that of a harmless message but
 * the fields that are open, each of which holds what its kind allows. Which ones these are is
 * written down here once more, on purpose.
 *
 * Input: a line for each value, as JSON where it is JSON, else as text, an empty one for nothing;
 * then lines "pointer value" for the header. Runs in the top folder.
 */
#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>

#include "executor/job_template.h"
#include "executor/kubernetes_job.h"

#define MAX_BYTES     ((size_t)1 << 22)
#define POINTER_BYTES 1024
#define POD           "/spec/template/spec"
#define TRAIN         POD "/containers/1"
#define OWN(name)     "petiole.dev~1" name

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argument_count, char ***arguments);

/* What may stand in an open field. */
enum field_kind {
    FIELD_TEXT,
    FIELD_ARGUMENT, /* a text whose dollars are doubled */
    FIELD_IMAGE,
    FIELD_FOLDER,
    FIELD_QUANTITY,
    FIELD_SECONDS,
};

struct open_field {
    const char *pointer;
    enum field_kind kind;
};

/* Of every Job: what tells whose it is, in texts. */
static const struct open_field own_fields[] = {
    {"/metadata/labels/" OWN("task-id"), FIELD_TEXT},
    {"/metadata/annotations/" OWN("task-id"), FIELD_TEXT},
    {"/metadata/annotations/" OWN("digest"), FIELD_TEXT},
    {"/metadata/annotations/" OWN("message"), FIELD_TEXT},
    {"/spec/template/metadata/labels/" OWN("task-id"), FIELD_TEXT},
    {"/spec/template/metadata/annotations/" OWN("message"), FIELD_TEXT},
    {NULL, FIELD_TEXT},
};

static const struct open_field sample_fields[] = {
    {"/metadata/annotations/lora~1experiment", FIELD_TEXT},
    {POD "/containers/0/volumeMounts/1/subPath", FIELD_FOLDER},
    {POD "/containers/0/resources/requests/memory", FIELD_QUANTITY},
    {POD "/containers/0/resources/limits/nvidia.com~1gpu", FIELD_QUANTITY},
    {NULL, FIELD_TEXT},
};

static const char *const sample_overrides[] = {
    POD "/containers/0/resources/requests/memory",
    POD "/containers/0/resources/limits/nvidia.com~1gpu",
    NULL,
};

static const struct open_field every_field[] = {
    {"/metadata/labels/run", FIELD_TEXT},
    {"/metadata/labels/team", FIELD_TEXT},
    {"/metadata/annotations/note", FIELD_TEXT},
    {"/spec/activeDeadlineSeconds", FIELD_SECONDS},
    {"/spec/template/metadata/labels/run", FIELD_TEXT},
    {"/spec/template/metadata/annotations/all", FIELD_TEXT},
    {POD "/activeDeadlineSeconds", FIELD_SECONDS},
    {POD "/terminationGracePeriodSeconds", FIELD_SECONDS},
    {POD "/initContainers/0/image", FIELD_IMAGE},
    {POD "/initContainers/0/command/2", FIELD_ARGUMENT},
    {TRAIN "/image", FIELD_IMAGE},
    {TRAIN "/args/0", FIELD_ARGUMENT},
    {TRAIN "/args/1", FIELD_ARGUMENT},
    {TRAIN "/args/2", FIELD_ARGUMENT},
    {TRAIN "/env/0/value", FIELD_ARGUMENT},
    {TRAIN "/env/1/value", FIELD_ARGUMENT},
    {TRAIN "/resources/requests/memory", FIELD_QUANTITY},
    {TRAIN "/resources/requests/cpu", FIELD_QUANTITY},
    {TRAIN "/volumeMounts/0/subPath", FIELD_FOLDER},
    {NULL, FIELD_TEXT},
};

static const char *const every_override[] = {
    "/metadata/labels/team",
    "/spec/activeDeadlineSeconds",
    POD "/terminationGracePeriodSeconds",
    TRAIN "/args/2",
    TRAIN "/env/0/value",
    TRAIN "/resources/requests/memory",
    TRAIN "/volumeMounts/0/subPath",
    NULL,
};

/* Where the lines go, in their order. */
static const char *const names[] = {"label", "note",  "all", "tag",    "source", "name",  "folder",
                                    "wait",  "limit", "cpu", "memory", "epochs", "config"};

struct subject {
    const char *path;
    const struct open_field *fields;
    const char *const *overrides;
    struct job_template *template; /* loaded once */
};

static struct subject subjects[] = {
    {"k8s/samples/train-job.yaml", sample_fields, sample_overrides, NULL},
    {"tests/fuzz/every_field.yaml", every_field, every_override, NULL},
};

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* Messages */

static struct bytes take_line(struct bytes *input)
{
    size_t length = bytes_find(*input, '\n');
    struct bytes line = bytes_of(input->data, length);
    *input = bytes_skip(*input, length + 1);
    return line;
}

static void append_value(struct buffer *buffer, struct bytes text)
{
    struct json value;
    if (json_parse(text, &value, NULL)) {
        (void)buffer_append(buffer, text);
    } else {
        json_append_string(buffer, text);
    }
}

/* Nothing for an empty text. */
static void append_member(struct buffer *buffer, const char *name, struct bytes text)
{
    if (text.length == 0) {
        return;
    }
    (void)buffer_format(buffer, "\"%s\": ", name);
    append_value(buffer, text);
    (void)buffer_append_text(buffer, ", ");
}

/* Body and headers of a message with the values of `input`; it has the id, the arguments and the
 * overrides, in this order. */
static void write_message(struct bytes input, struct buffer *headers, struct buffer *body)
{
    struct bytes id = take_line(&input);
    (void)buffer_append_text(headers, "{\"task\": \"t.t\", \"retries\": 0, \"id\": ");
    json_append_string(headers, id.length > 0 ? id : BYTES("an-id"));
    (void)buffer_append_text(headers, ", ");
    append_member(headers, "grace", take_line(&input));
    (void)buffer_append_text(body, "[[");
    append_value(body, take_line(&input));
    (void)buffer_append_text(body, "], {");
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        append_member(body, names[i], take_line(&input));
    }
    (void)buffer_append_text(body, "\"\": 0}, {}]");
    (void)buffer_append_text(headers, "\"petiole_override\": {");
    while (input.length > 0) {
        struct bytes line = take_line(&input);
        size_t length = bytes_find(line, ' ');
        json_append_string(headers, bytes_of(line.data, length));
        (void)buffer_append_text(headers, ": ");
        append_value(headers, bytes_skip(line, length + 1));
        (void)buffer_append_text(headers, input.length > 0 ? ", " : "");
    }
    (void)buffer_append_text(headers, "}}");
}

/* Reads the message of `input` as a worker does. NULL when it is none. */
static struct request *read_request(struct bytes input, struct arena *arena)
{
    static const char *const accept_json[] = {"json", NULL};
    static const struct message_rules rules = {accept_json, MAX_BYTES};
    struct request *request = arena_alloc(arena, sizeof(*request));
    struct delivery *delivery = arena_alloc(arena, sizeof(*delivery));
    struct error error = {0};
    struct buffer headers;
    struct buffer body;
    buffer_init(&headers, MAX_BYTES);
    buffer_init(&body, MAX_BYTES);
    write_message(input, &headers, &body);
    *delivery = (struct delivery){.arena = arena,
                                  .tag = BYTES("tag"),
                                  .queue = BYTES("tenant-user"),
                                  .content_type = BYTES("application/json"),
                                  .content_encoding = BYTES("utf-8"),
                                  .body = arena_copy(arena, buffer_view(&body))};
    bool is_object = json_parse(arena_copy(arena, buffer_view(&headers)), &delivery->headers, NULL);
    buffer_fini(&headers);
    buffer_fini(&body);
    *request = (struct request){.arena = arena, .delivery = delivery, .type = &registry_defaults};
    bool is_message =
        is_object && message_read(delivery, &rules, &request->message, &error) == MESSAGE_FINE
        && message_open_body(delivery, &rules, &request->message, &error) == MESSAGE_FINE
        && message_is_open(&request->message);
    return is_message ? request : NULL;
}

/* Jobs */

/* The whole Job: returns new, or NULL when it is refused with a sentence. */
static json_t *make_job(const struct job_template *template, const struct request *request)
{
    static const struct kubernetes_job_marks marks = {"t-an-id-0", "tenant-user", "an-instance",
                                                      "tenant-user"};
    struct error error = {0};
    json_t *job = job_template_render(template, &request->message, &error);
    if (job && !kubernetes_job_complete(job, request, &marks, &error)) {
        json_decref(job);
        job = NULL;
    }
    require(job || error.message[0] != '\0');
    return job;
}

static bool is_within(const json_t *value, json_int_t low, json_int_t high)
{
    return json_is_integer(value) && json_integer_value(value) >= low
           && json_integer_value(value) <= high;
}

static bool has_doubled_dollars(const char *text)
{
    while (*text) {
        size_t count = strspn(text, "$");
        if (count % 2 != 0) {
            return false;
        }
        text += count > 0 ? count : 1;
    }
    return true;
}

/* The operator's name of the image, one colon, and a tag. */
static bool is_image(const char *text)
{
    static const char *const heads[] = {"registry:5000/fetch:", "train:v"};
    for (size_t i = 0; i < ARRAY_LENGTH(heads); i++) {
        size_t length = strlen(heads[i]);
        if (strncmp(text, heads[i], length) == 0) {
            return !strpbrk(text + length, ":/@ \n\t$") && text[length] != '\0';
        }
    }
    return false;
}

/* Stays below where it begins. */
static bool is_folder(const char *text)
{
    if (*text == '/' || *text == '\0') {
        return false;
    }
    while (*text) {
        size_t length = strcspn(text, "/");
        if ((length == 1 && text[0] == '.') || (length == 2 && strncmp(text, "..", 2) == 0)) {
            return false;
        }
        text += length + (text[length] == '/' ? 1 : 0);
    }
    return true;
}

static bool is_quantity(const json_t *value)
{
    const char *text = json_string_value(value);
    return is_within(value, 0, INT64_MAX)
           || (text && (isdigit((unsigned char)text[0]) || text[0] == '.' || text[0] == '+')
               && !strpbrk(text, " \n\t:{}[]\"'"));
}

static bool is_of_kind(const json_t *value, enum field_kind kind)
{
    const char *text = json_string_value(value);
    switch (kind) {
    case FIELD_TEXT:
        return text;
    case FIELD_ARGUMENT:
        return text && has_doubled_dollars(text);
    case FIELD_IMAGE:
        return text && is_image(text);
    case FIELD_FOLDER:
        return text && is_folder(text);
    case FIELD_QUANTITY:
        return is_quantity(value);
    case FIELD_SECONDS:
        return is_within(value, 1, INT32_MAX);
    }
    return false;
}

/* Comparing */

static const struct open_field *find_field(const struct open_field *fields, const char *pointer)
{
    while (fields->pointer && strcmp(fields->pointer, pointer) != 0) {
        fields++;
    }
    return fields->pointer ? fields : NULL;
}

static bool is_parent_of_field(const struct open_field *fields, const char *pointer)
{
    size_t length = strlen(pointer);
    while (fields->pointer
           && (strncmp(fields->pointer, pointer, length) != 0 || fields->pointer[length] != '/')) {
        fields++;
    }
    return fields->pointer != NULL;
}

/* `pointer` and one step more. */
static void step(char ret_pointer[POINTER_BYTES], const char *pointer, const char *name)
{
    size_t length = (size_t)snprintf(ret_pointer, POINTER_BYTES, "%s/", pointer);
    for (; *name && length < POINTER_BYTES - 3; name++) {
        if (*name == '~' || *name == '/') {
            ret_pointer[length++] = '~';
            ret_pointer[length++] = *name == '~' ? '0' : '1';
        } else {
            ret_pointer[length++] = *name;
        }
    }
    ret_pointer[length] = '\0';
}

static void compare(const json_t *plain, const json_t *hostile, const char *pointer,
                    const struct open_field *fields);

/* An object that holds open fields; those that the header made have no counterpart. */
static void compare_objects(const json_t *plain, json_t *hostile, const char *pointer,
                            const struct open_field *fields)
{
    char child[POINTER_BYTES];
    const char *name;
    json_t *value;
    size_t common = 0;
    json_object_foreach(hostile, name, value) {
        const json_t *other = json_object_get(plain, name);
        step(child, pointer, name);
        common += other ? 1 : 0;
        compare(other, value, child, fields);
    }
    require(common == json_object_size(plain));
}

static void compare(const json_t *plain, const json_t *hostile, const char *pointer,
                    const struct open_field *fields)
{
    const struct open_field *field = find_field(fields, pointer);
    field = field ? field : find_field(own_fields, pointer);
    if (field) {
        require(is_of_kind(hostile, field->kind));
        return;
    }
    if (!is_parent_of_field(fields, pointer) && !is_parent_of_field(own_fields, pointer)) {
        require(plain && json_equal(plain, hostile));
        return;
    }
    if (json_is_object(hostile)) {
        json_t *borrowed = json_incref((json_t *)(uintptr_t)hostile);
        compare_objects(plain, borrowed, pointer, fields);
        json_decref(borrowed);
        return;
    }
    require(json_is_array(hostile) && json_array_size(hostile) == json_array_size(plain));
    for (size_t i = 0; i < json_array_size(hostile); i++) {
        char child[POINTER_BYTES];
        (void)snprintf(child, sizeof(child), "%s/%zu", pointer, i);
        compare(json_array_get(plain, i), json_array_get(hostile, i), child, fields);
    }
}

/* libFuzzer's entries */

int LLVMFuzzerInitialize(int *argument_count, char ***arguments)
{
    (void)argument_count;
    (void)arguments;
    for (size_t i = 0; i < ARRAY_LENGTH(subjects); i++) {
        struct error error = {0};
        struct subject *subject = &subjects[i];
        subject->template = job_template_load(subject->path, subject->overrides, &error);
        if (!subject->template) {
            (void)fprintf(stderr, "%s\n", error.message);
            abort();
        }
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new(4096);
    struct bytes input = arena_copy(arena, bytes_of((const char *)data, size));
    const struct request *plain = read_request(BYTES(""), arena);
    const struct request *hostile = read_request(input, arena);
    require(plain);
    for (size_t i = 0; hostile && i < ARRAY_LENGTH(subjects); i++) {
        json_t *expected = make_job(subjects[i].template, plain);
        json_t *made = make_job(subjects[i].template, hostile);
        require(expected);
        if (made) {
            compare(expected, made, "", subjects[i].fields);
        }
        json_decref(expected);
        json_decref(made);
    }
    arena_free(&arena);
    return 0;
}
