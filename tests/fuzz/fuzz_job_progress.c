/*
 * Hostile output of a task, line by line: what is told of it must be a state that a task may have,
 * newer than all before, and become a document that is JSON.
 */
#include <stdint.h>
#include <stdlib.h>

#include "executor/job_progress.h"
#include "result/result_document.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void tell(struct job_progress *progress, struct arena *arena)
{
    static const struct timezone_table utc = {.changes = {{INT64_MIN, 0}}, .count = 1};
    const struct result_document_options options = {true, "celery@fuzz", &utc};
    struct request request = {.arena = arena, .type = &registry_defaults};
    struct progress told = job_progress_give(progress);
    struct buffer buffer;
    struct json document = {JSON_TYPE_ABSENT, {NULL, 0}};
    struct bytes status = {NULL, 0};
    request.message.id = BYTES("id");
    buffer_init(&buffer, (size_t)1 << 20);
    result_document_append_progress(&buffer, &request, &told, &options, 1893553445.5);
    require(!buffer.overflowed && json_parse(buffer_view(&buffer), &document, NULL));
    require(json_text(json_get(document, "status"), arena, &status));
    require(status.length > 0 && !bytes_equal(status, BYTES("SUCCESS"))
            && !bytes_equal(status, BYTES("FAILURE")) && !bytes_equal(status, BYTES("REVOKED")));
    require(json_get(document, "result").type != JSON_TYPE_ABSENT);
    buffer_fini(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new(4096);
    struct bytes output = arena_copy(arena, bytes_of((const char *)data, size));
    struct job_progress progress = {.seq = 0};
    while (output.length > 0) {
        struct error error = {0};
        size_t length = bytes_find(output, '\n');
        int64_t before = progress.seq;
        enum job_progress_line kind =
            job_progress_take(&progress, bytes_of(output.data, length), &error);
        require((kind == JOB_PROGRESS_NEW) == (progress.seq > before));
        require((kind == JOB_PROGRESS_BAD) == (error.message[0] != '\0'));
        if (kind == JOB_PROGRESS_NEW) {
            tell(&progress, arena);
        }
        output = bytes_skip(output, length + 1);
    }
    job_progress_fini(&progress);
    arena_free(&arena);
    return 0;
}
