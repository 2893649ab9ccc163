/*
 * Requests whose executor says that what they need is not free, such as room in a quota. They wait
 * in their lane, visibly: a state for those that track it, a gauge, a line of the log. And not for
 * ever: until they expire, or kubernetes_quota_timeout has passed.
 */
#include "worker/pipeline_private.h"

#define MS_PER_S   1000
#define LONGEST_MS INT64_C(3600000) /* the clock may be set while we wait */

/* How a request that waits ends, and when. */
static int64_t left_ms(const struct pipeline *pipeline, const struct request *request)
{
    int64_t timeout_ms = pipeline->options.waiting_timeout_ms;
    int64_t left = INT64_MAX;
    if (timeout_ms > 0) {
        left = request->waiting_ms + timeout_ms - loop_now_ms(pipeline->options.loop);
    }
    if (request->message.expires.length > 0) {
        double wait_s = request->message.expires_wall_s - loop_wall_s(pipeline->options.loop);
        double limited_s = wait_s * MS_PER_S < (double)LONGEST_MS ? wait_s : LONGEST_MS / MS_PER_S;
        int64_t expires_ms = (int64_t)(limited_s * MS_PER_S) + 1;
        left = expires_ms < left ? expires_ms : left;
    }
    return left;
}

static void arm(struct pipeline *pipeline, struct request *request)
{
    int64_t left = left_ms(pipeline, request);
    if (left != INT64_MAX) {
        left = left > LONGEST_MS ? LONGEST_MS : left;
        loop_start_timer(pipeline->options.loop, &request->timer, left > 0 ? left : 0);
    }
}

static void end_with_reason(struct pipeline *pipeline, struct executor *executor,
                            struct request *request, const char *head)
{
    struct outcome outcome;
    const char *category = NULL;
    const char *sentence = NULL;
    executor->ops->explain(executor, request, &category, &sentence);
    sentence = arena_format(request->arena, "%s%s", head, sentence);
    executor_failure(request->arena, category, sentence, NULL, &outcome);
    pipeline_report(pipeline, request, &outcome, NULL);
}

static void on_due(void *context)
{
    struct request *request = context;
    struct pipeline *pipeline = request->report_data;
    struct executor *executor = pipeline->lanes[request->type->executor].executor;
    int64_t waited_ms = loop_now_ms(pipeline->options.loop) - request->waiting_ms;
    int64_t timeout_ms = pipeline->options.waiting_timeout_ms;
    if (pipeline_is_over(pipeline, request)) {
        pipeline_take(pipeline, request);
        (void)pipeline_end_if_over(pipeline, request);
    } else if (timeout_ms > 0 && waited_ms >= timeout_ms) {
        pipeline_take(pipeline, request);
        const char *head =
            arena_format(request->arena, "after %lld seconds ", (long long)(timeout_ms / MS_PER_S));
        end_with_reason(pipeline, executor, request, head);
    } else {
        arm(pipeline, request);
    }
    pipeline_touch(pipeline);
}

void pipeline_begin_waiting(struct pipeline *pipeline, struct executor *executor,
                            struct request *request)
{
    if (request->is_waiting) {
        return;
    }
    const char *category = NULL;
    const char *sentence = NULL;
    bool is_first = request->waiting_ms == 0;
    request->is_waiting = true;
    pipeline->waiting_count++;
    if (is_first) {
        request->waiting_ms = loop_now_ms(pipeline->options.loop);
        executor->ops->explain(executor, request, &category, &sentence);
        pipeline_log_waiting(request, sentence);
        pipeline_store_waiting(pipeline, request, sentence);
    }
    request->report_data = pipeline;
    request->timer.on_due = on_due;
    request->timer.context = request;
    arm(pipeline, request);
}

void pipeline_stop_waiting(struct pipeline *pipeline, struct request *request)
{
    if (request->is_waiting) {
        request->is_waiting = false;
        pipeline->waiting_count--;
        loop_stop_timer(pipeline->options.loop, &request->timer);
    }
}

void pipeline_end_refused(struct pipeline *pipeline, struct executor *executor,
                          struct request *request)
{
    end_with_reason(pipeline, executor, request, "");
}

size_t pipeline_waiting_count(const struct pipeline *pipeline)
{
    return pipeline->waiting_count;
}
