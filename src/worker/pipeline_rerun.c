/*
 * Another Job was made for a delivery, because the code never ran in the one before. The old one
 * may go when nothing depends on it any more, each step repeatable: settle its delivery, put the
 * new Job into the outbox, take the old one out, forget it. Until then whoever finds the old Job
 * comes to the same new one.
 */
#include "worker/pipeline_private.h"

struct rerun {
    struct pipeline *pipeline;
    struct request *request; /* owned */
    struct bytes old_receipt;
    struct bytes new_receipt;
    struct bytes tag; /* of the delivery; empty: known to be settled */
};

static void finish(struct rerun *rerun, bool is_done)
{
    struct pipeline *pipeline = rerun->pipeline;
    struct request *request = rerun->request;
    struct executor *executor = pipeline->lanes[TASK_KUBERNETES].executor;
    (void)map_remove(pipeline->receipts, rerun->old_receipt);
    if (executor && is_done) {
        /* A copy of a message that nobody saw settled would make the old Job once more. */
        bool is_awaited = rerun->tag.length > 0;
        executor->ops->forget(executor, rerun->old_receipt, is_awaited);
    }
    pipeline->reporting_count--;
    pipeline_drop(&request);
    pipeline_touch(pipeline);
}

static void on_old_left_outbox(void *context, bool ok, const struct error *error)
{
    (void)error;
    finish(context, ok);
}

static void on_new_in_outbox(void *context, bool ok, const struct error *error)
{
    struct rerun *rerun = context;
    struct broker *broker = rerun->pipeline->broker;
    (void)error;
    if (!ok) {
        finish(rerun, false);
        return;
    }
    broker->ops->outbox_remove(broker, bytes_from_text(rerun->pipeline->options.namespace_name),
                               rerun->old_receipt, on_old_left_outbox, rerun);
}

static void on_tag_settled(void *context, bool ok, const struct error *error)
{
    struct rerun *rerun = context;
    struct broker *broker = rerun->pipeline->broker;
    const struct broker_outbox_entry entry = {
        .namespace_name = bytes_from_text(rerun->pipeline->options.namespace_name),
        .job_name = rerun->new_receipt,
        .task_id = rerun->request->message.id,
    };
    (void)error;
    if (!ok) {
        finish(rerun, false);
        return;
    }
    broker->ops->outbox_add(broker, &entry, on_new_in_outbox, rerun);
}

void pipeline_rerun(struct pipeline *pipeline, struct request *request,
                    const struct completion *ended, struct bytes receipt)
{
    struct rerun *rerun = arena_alloc(request->arena, sizeof(*rerun));
    const struct message *message = &request->message;
    *rerun = (struct rerun){
        .pipeline = pipeline,
        .request = request,
        .old_receipt = arena_copy(request->arena, ended->receipt),
        .new_receipt = arena_copy(request->arena, receipt),
        .tag = ended->is_settled ? bytes_of(NULL, 0) : arena_copy(request->arena, ended->tag),
    };
    (void)map_set(pipeline->receipts, rerun->old_receipt, rerun);
    pipeline->reporting_count++;
    log_task(LOG_WARNING, message->task, message->id,
             "Task %.*s[%.*s] never began in Job %.*s, and is tried again as Job %.*s",
             BYTES_FORMAT(message_display_name(message)), BYTES_FORMAT(message->id),
             BYTES_FORMAT(rerun->old_receipt), BYTES_FORMAT(rerun->new_receipt));
    if (rerun->tag.length > 0) {
        pipeline->broker->ops->settle_tag(pipeline->broker, rerun->tag, message->id, on_tag_settled,
                                          rerun);
    } else {
        on_tag_settled(rerun, true, NULL);
    }
}
