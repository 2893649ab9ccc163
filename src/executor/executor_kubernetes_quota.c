/*
 * The namespace's ResourceQuotas and LimitRanges, followed by watches, and where each Job stands in
 * their sums. What a Job asks is worked out once, when it is seen first; when something else comes
 * to be limited, all Jobs are listed again for that.
 */
#include "executor/executor_kubernetes_private.h"
#include "executor/job_demand.h"

#define LIMIT_RANGES "v1 limitranges"
#define LAG_MS       3000 /* a quota's status may be older than what we know of a pod */

/* A ResourceQuota or LimitRange. */
struct rule {
    json_t *object; /* owned */
    bool is_listed;
};

/* Stages */

static bool is_settled_in(const struct executor_kubernetes *executor, const struct job_entry *entry)
{
    return loop_now_ms(executor->loop) - entry->changed_ms >= LAG_MS;
}

static enum job_quota_stage stage_of(const struct executor_kubernetes *executor,
                                     const struct job_entry *entry)
{
    bool is_settled = is_settled_in(executor, entry);
    if (!entry->exists) {
        return JOB_QUOTA_ABSENT;
    }
    if (entry->is_finished || entry->is_reported) {
        return is_settled ? JOB_QUOTA_ABSENT : JOB_QUOTA_LEAVING;
    }
    return entry->is_active && is_settled ? JOB_QUOTA_COUNTED : JOB_QUOTA_STARTING;
}

static void restage(struct executor_kubernetes *executor, struct job_entry *entry)
{
    if (entry->asked) {
        enum job_quota_stage stage = stage_of(executor, entry);
        job_quota_move(&executor->quota, entry->asked, entry->stage, stage);
        entry->stage = stage;
    }
}

static void start_settling(struct executor_kubernetes *executor)
{
    struct list_node *first = list_first(&executor->settling);
    if (first) {
        const struct job_entry *entry = list_entry(first, struct job_entry, settling_node);
        int64_t delay_ms = entry->changed_ms + LAG_MS - loop_now_ms(executor->loop);
        loop_start_timer(executor->loop, &executor->settle_timer, delay_ms > 0 ? delay_ms : 0);
    }
}

static void on_settled(void *context)
{
    struct executor_kubernetes *executor = context;
    struct list_node *first = NULL;
    while ((first = list_first(&executor->settling)) != NULL) {
        struct job_entry *entry = list_entry(first, struct job_entry, settling_node);
        if (!is_settled_in(executor, entry)) {
            break;
        }
        list_remove(first);
        restage(executor, entry);
    }
    start_settling(executor);
    executor->events->on_free_slots(executor->context, &executor->base);
}

static void unsettle(struct executor_kubernetes *executor, struct job_entry *entry)
{
    bool was_empty = list_is_empty(&executor->settling);
    entry->changed_ms = loop_now_ms(executor->loop);
    list_remove(&entry->settling_node);
    list_append(&executor->settling, &entry->settling_node);
    if (was_empty) {
        start_settling(executor);
    }
}

void executor_kubernetes_stage(struct executor_kubernetes *executor, struct job_entry *entry,
                               bool has_changed)
{
    if (has_changed && executor->quota.count > 0) {
        unsettle(executor, entry);
    }
    restage(executor, entry);
    bool is_podless = entry->exists && entry->is_mine && !entry->is_finished && !entry->is_reported
                      && !entry->is_active && !entry->has_pod;
    if (is_podless != list_is_linked(&entry->podless_node)) {
        if (is_podless) {
            entry->hasten_ms = loop_now_ms(executor->loop) + EXECUTOR_KUBERNETES_LOOK_MS;
            list_append(&executor->podless, &entry->podless_node);
            executor_kubernetes_hasten(executor);
        } else {
            list_remove(&entry->podless_node);
        }
    }
}

void executor_kubernetes_unstage(struct executor_kubernetes *executor, struct job_entry *entry)
{
    if (entry->asked) {
        job_quota_move(&executor->quota, entry->asked, entry->stage, JOB_QUOTA_ABSENT);
        memory_free(&entry->asked);
    }
    list_remove(&entry->settling_node);
    list_remove(&entry->podless_node);
}

/* What Jobs ask */

int64_t *executor_kubernetes_ask(const struct executor_kubernetes *executor, json_t *job)
{
    int64_t *asked = memory_new(sizeof(*asked) * (executor->quota.count + 1));
    job_demand_fill_in(job, executor->limit_ranges);
    job_quota_ask(&executor->quota, job, asked);
    return asked;
}

void executor_kubernetes_ask_seen(struct executor_kubernetes *executor, struct job_entry *entry,
                                  struct json object)
{
    if (executor->quota.count == 0 || entry->asked) {
        return;
    }
    struct bytes text = json_get(object, "spec").text;
    json_t *job = json_pack("{s:o?}", "spec", json_loadb(text.data, text.length, 0, NULL));
    entry->asked = executor_kubernetes_ask(executor, job);
    json_decref(job);
}

void executor_kubernetes_note_asked(struct executor_kubernetes *executor, struct job_entry *entry,
                                    const int64_t *asked)
{
    if (asked && !entry->asked) {
        size_t size = sizeof(*asked) * executor->quota.count;
        entry->asked = memory_new(size);
        memcpy(entry->asked, asked, size);
    }
}

/* For each limit the least that a pod of any template asks. */
static void find_smallest(struct executor_kubernetes *executor)
{
    memory_free(&executor->smallest);
    for (size_t index = 0; index < executor->template_count; index++) {
        json_t *job = job_template_typical(executor->templates[index]);
        int64_t *asked = executor_kubernetes_ask(executor, job);
        json_decref(job);
        for (size_t limit = 0; executor->smallest && limit < executor->quota.count; limit++) {
            int64_t least = executor->smallest[limit];
            asked[limit] = least < asked[limit] ? least : asked[limit];
        }
        memory_free(&executor->smallest);
        executor->smallest = asked;
    }
}

/* Something else is limited than before: what each Job asks must be worked out again. */
static void ask_again(struct executor_kubernetes *executor)
{
    size_t position = 0;
    struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        memory_free(&entry->asked);
        entry->stage = JOB_QUOTA_ABSENT;
    }
    job_quota_reset(&executor->quota);
    executor->quota_shape++;
    find_smallest(executor);
    executor_kubernetes_ask_submissions(executor);
    executor->is_asked = executor->quota.count == 0;
    if (executor->jobs_watch) {
        executor_kubernetes_observe(executor);
    }
}

/* Rules */

static void free_rule(struct rule *rule)
{
    json_decref(rule->object);
    memory_free(&rule);
}

static void recount(struct executor_kubernetes *executor, bool is_new_shape)
{
    size_t position = 0;
    struct bytes name;
    void *value = NULL;
    struct job_quota old = executor->quota;
    executor->quota = (struct job_quota){.reserved_pods = executor->options.reserve_pods};
    while (map_next(executor->quotas, &position, &name, &value)) {
        const struct rule *rule = value;
        job_quota_add(&executor->quota, rule->object);
    }
    if (!job_quota_carry(&executor->quota, &old) || is_new_shape) {
        ask_again(executor);
    }
    executor_kubernetes_hasten(executor);
    executor_kubernetes_make_room(executor);
    executor_kubernetes_wake_submissions(executor);
    executor->events->on_free_slots(executor->context, &executor->base);
}

static void collect_ranges(struct executor_kubernetes *executor)
{
    size_t position = 0;
    struct bytes name;
    void *value = NULL;
    json_decref(executor->limit_ranges);
    executor->limit_ranges = json_array();
    while (map_next(executor->ranges, &position, &name, &value)) {
        const struct rule *rule = value;
        (void)json_array_append(executor->limit_ranges, rule->object);
    }
}

/* Takes `rule` in (NULL: takes it out) under `name`, and counts again. */
static void set_rule(struct executor_kubernetes *executor, struct map *rules, struct bytes name,
                     struct rule *rule)
{
    bool is_quota = rules == executor->quotas;
    struct rule *old = rule ? map_set(rules, name, rule) : map_remove(rules, name);
    bool is_new_range = false;
    if (!is_quota) {
        is_new_range = !old || !rule
                       || !json_equal(json_object_get(old->object, "spec"),
                                      json_object_get(rule->object, "spec"));
        collect_ranges(executor);
    }
    if (is_quota || is_new_range) {
        recount(executor, is_new_range);
    }
    if (old) {
        free_rule(old); /* the old limits borrowed it until now */
    }
}

static void see_rule(struct executor_kubernetes *executor, struct map *rules, struct json object,
                     bool is_there)
{
    struct arena *arena = arena_new(256);
    struct bytes name = {NULL, 0};
    json_t *tree = is_there ? json_loadb(object.text.data, object.text.length, 0, NULL) : NULL;
    if (json_text(json_get(json_get(object, "metadata"), "name"), arena, &name)
        && (tree || !is_there)) {
        struct rule *rule = NULL;
        if (tree) {
            rule = memory_new(sizeof(*rule));
            *rule = (struct rule){.object = json_incref(tree), .is_listed = true};
        }
        set_rule(executor, rules, name, rule);
    }
    json_decref(tree);
    arena_free(&arena);
}

static void begin_list(struct map *rules)
{
    size_t position = 0;
    struct bytes name;
    void *value = NULL;
    while (map_next(rules, &position, &name, &value)) {
        struct rule *rule = value;
        rule->is_listed = false;
    }
}

static void end_list(struct executor_kubernetes *executor, struct map *rules)
{
    size_t position = 0;
    struct bytes name;
    void *value = NULL;
    while (map_next(rules, &position, &name, &value)) {
        const struct rule *rule = value;
        if (!rule->is_listed) {
            set_rule(executor, rules, name, NULL);
        }
    }
    if (!executor->jobs_watch && executor_kubernetes_knows_rules(executor)) {
        executor_kubernetes_observe(executor);
    }
    executor_kubernetes_check_ready(executor);
}

static void on_quotas_listing(void *context)
{
    struct executor_kubernetes *executor = context;
    begin_list(executor->quotas);
}

static void on_quota(void *context, struct json object)
{
    struct executor_kubernetes *executor = context;
    see_rule(executor, executor->quotas, object, true);
}

static void on_quota_deleted(void *context, struct json object)
{
    struct executor_kubernetes *executor = context;
    see_rule(executor, executor->quotas, object, false);
}

static void on_quotas_listed(void *context)
{
    struct executor_kubernetes *executor = context;
    end_list(executor, executor->quotas);
}

static void on_ranges_listing(void *context)
{
    struct executor_kubernetes *executor = context;
    begin_list(executor->ranges);
}

static void on_range(void *context, struct json object)
{
    struct executor_kubernetes *executor = context;
    see_rule(executor, executor->ranges, object, true);
}

static void on_range_deleted(void *context, struct json object)
{
    struct executor_kubernetes *executor = context;
    see_rule(executor, executor->ranges, object, false);
}

static void on_ranges_listed(void *context)
{
    struct executor_kubernetes *executor = context;
    end_list(executor, executor->ranges);
}

static void on_trouble(void *context, const struct error *error, int64_t retry_ms)
{
    executor_kubernetes_warn(context, "Kubernetes: %s. Trying again in %.2f seconds...",
                             error->message, (double)retry_ms / 1000);
}

static const struct kubernetes_watch_events quotas_events = {
    .on_listing = on_quotas_listing,
    .on_object = on_quota,
    .on_deleted = on_quota_deleted,
    .on_listed = on_quotas_listed,
    .on_trouble = on_trouble,
};
static const struct kubernetes_watch_events ranges_events = {
    .on_listing = on_ranges_listing,
    .on_object = on_range,
    .on_deleted = on_range_deleted,
    .on_listed = on_ranges_listed,
    .on_trouble = on_trouble,
};

/* Life cycle */

bool executor_kubernetes_knows_rules(const struct executor_kubernetes *executor)
{
    return executor->quotas_watch && executor->ranges_watch
           && kubernetes_watch_is_listed(executor->quotas_watch)
           && kubernetes_watch_is_listed(executor->ranges_watch);
}

void executor_kubernetes_init_rules(struct executor_kubernetes *executor)
{
    executor->quotas = map_new();
    executor->ranges = map_new();
    executor->quota.reserved_pods = executor->options.reserve_pods;
    executor->is_asked = true;
    list_init(&executor->settling);
    list_init(&executor->podless);
    executor->settle_timer = (struct timer){.on_due = on_settled, .context = executor};
}

void executor_kubernetes_follow_rules(struct executor_kubernetes *executor)
{
    executor->quotas_watch = kubernetes_watch_open(executor->api, EXECUTOR_KUBERNETES_QUOTAS, NULL,
                                                   &quotas_events, executor);
    executor->ranges_watch =
        kubernetes_watch_open(executor->api, LIMIT_RANGES, NULL, &ranges_events, executor);
}

void executor_kubernetes_leave_rules(struct executor_kubernetes *executor)
{
    kubernetes_watch_close(&executor->quotas_watch);
    kubernetes_watch_close(&executor->ranges_watch);
    loop_stop_timer(executor->loop, &executor->settle_timer);
    executor_kubernetes_end_hastening(executor);
}

static void free_rules(struct map **rules)
{
    size_t position = 0;
    struct bytes name;
    void *value = NULL;
    while (map_next(*rules, &position, &name, &value)) {
        (void)map_remove(*rules, name);
        free_rule(value);
    }
    map_free(rules);
}

void executor_kubernetes_fini_rules(struct executor_kubernetes *executor)
{
    free_rules(&executor->quotas);
    free_rules(&executor->ranges);
    json_decref(executor->limit_ranges);
    memory_free(&executor->smallest);
}
