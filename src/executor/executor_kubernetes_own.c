/*
 * Who reports a Job: its owner, as long as its Lease lives. Ours is renewed every five seconds; a
 * Lease of another worker that has not changed for fifteen, by our clock, has run out, and its Jobs
 * are taken over one by one, each by a PATCH that only one of us can win
 * (client-go/tools/leaderelection).
 */
#include <stdio.h>
#include <time.h>

#include "executor/executor_kubernetes_private.h"
#include "executor/kubernetes_page.h"

#define LEASE_HEAD      "petiole-"
#define LEASE_MARGIN_MS 3000 /* between our last renewal and what others may think */
#define LEASES_PAGE     250
#define MAX_TAKE_OVERS  64 /* at a time */

/* A Job being looked for, or taken over. */
struct check {
    struct list_node node;
    struct executor_kubernetes *executor;
    char name[JOB_NAME_SIZE];
    void (*on_found)(void *context, bool ok, bool exists); /* NULL: a take-over */
    void *context;
    struct kubernetes_call *call;
};

static void end_check(struct check *check)
{
    list_remove(&check->node);
    kubernetes_api_cancel(&check->call);
    memory_free(&check);
}

static struct check *new_check(struct executor_kubernetes *executor, struct list *checks,
                               struct bytes name)
{
    struct check *check = memory_new(sizeof(*check));
    check->executor = executor;
    memcpy(check->name, name.data,
           name.length < sizeof(check->name) ? name.length : sizeof(check->name) - 1);
    list_append(checks, &check->node);
    return check;
}

static void end_checks_of(struct list *checks)
{
    struct list_node *node = NULL;
    while ((node = list_first(checks)) != NULL) {
        struct check *check = list_entry(node, struct check, node);
        if (check->on_found) {
            check->on_found(check->context, false, false);
        }
        end_check(check);
    }
}

void executor_kubernetes_end_checks(struct executor_kubernetes *executor)
{
    end_checks_of(&executor->checks);
    end_checks_of(&executor->take_overs);
}

/* Receipts */

static void on_receipt(void *context, const struct kubernetes_answer *answer)
{
    struct check *check = context;
    check->call = NULL;
    bool is_known = answer->verdict == KUBERNETES_DONE || answer->verdict == KUBERNETES_NOT_FOUND;
    check->on_found(check->context, is_known, answer->verdict == KUBERNETES_DONE);
    end_check(check);
}

bool executor_kubernetes_has_job(const struct executor *base, struct bytes job_name)
{
    const struct job_entry *entry =
        executor_kubernetes_find(executor_kubernetes_of(base), job_name);
    return entry && entry->exists;
}

void executor_kubernetes_check_receipt(struct executor *base, struct bytes job_name,
                                       void (*on_found)(void *context, bool ok, bool exists),
                                       void *context)
{
    struct executor_kubernetes *executor = executor_kubernetes_of(base);
    struct check *check = new_check(executor, &executor->checks, job_name);
    check->on_found = on_found;
    check->context = context;
    check->call = kubernetes_api_call(
        executor->api,
        &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_JOBS, .name = check->name},
        on_receipt, check);
}

/* Take-over */

static void take_over(struct executor_kubernetes *executor);

/* The next round follows at once when this one won any Job, else with the next tick. */
static void end_take_over(struct check *check)
{
    struct executor_kubernetes *executor = check->executor;
    end_check(check);
    if (list_is_empty(&executor->take_overs) && executor->has_taken_over && !executor->is_closing
        && executor_kubernetes_is_owner(executor)) {
        take_over(executor);
    }
}

static void on_taken(void *context, const struct kubernetes_answer *answer)
{
    struct check *check = context;
    check->call = NULL;
    if (answer->verdict == KUBERNETES_DONE) {
        check->executor->has_taken_over = true;
        executor_kubernetes_see_job(check->executor, answer->body);
    }
    end_take_over(check); /* a conflict: somebody else was first, and the watch will say so */
}

/* Asks for the Job as it was seen last: the API refuses when anything of it has changed since. */
static void ask_for(struct executor_kubernetes *executor, const struct job_entry *entry)
{
    struct check *check = new_check(executor, &executor->take_overs, bytes_from_text(entry->name));
    struct buffer patch;
    buffer_init(&patch, 1024);
    kubernetes_job_append_owner(&patch, executor->options.instance_id,
                                bytes_from_text(entry->version));
    check->call =
        kubernetes_api_call(executor->api,
                            &(struct kubernetes_request){.method = "PATCH",
                                                         .resource = EXECUTOR_KUBERNETES_JOBS,
                                                         .name = check->name,
                                                         .body = buffer_view(&patch)},
                            on_taken, check);
    buffer_fini(&patch);
}

bool executor_kubernetes_has_run_out(const struct executor_kubernetes *executor, const char *owner)
{
    const struct foreign_lease *lease = map_get(executor->leases, bytes_from_text(owner));
    return !lease || loop_now_ms(executor->loop) - lease->changed_ms > EXECUTOR_KUBERNETES_LEASE_MS;
}

/* Whether the Job is nobody's any more. A worker that began after the Leases were asked for has
 * none among them. */
static bool is_orphan(const struct executor_kubernetes *executor, const struct job_entry *entry)
{
    return entry->exists && !entry->is_mine && !entry->is_reported
           && entry->owner_seen_ms <= executor->leases_asked_ms
           && executor_kubernetes_has_run_out(executor, entry->owner);
}

/* Begins to take over Jobs of workers that are gone, those that have finished or those that have
 * not, until `limit` are on their way. */
static void take_over_some(struct executor_kubernetes *executor, bool is_finished, size_t limit)
{
    size_t position = 0;
    const struct job_entry *entry = NULL;
    while (executor->take_over_count < limit
           && (entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (entry->is_finished == is_finished && is_orphan(executor, entry)) {
            executor->take_over_count++;
            ask_for(executor, entry);
        }
    }
}

/* A round: results that wait come first. */
static void take_over(struct executor_kubernetes *executor)
{
    if (list_is_empty(&executor->take_overs)) { /* the last round is over */
        executor->has_taken_over = false;
        executor->take_over_count = 0;
        take_over_some(executor, true, MAX_TAKE_OVERS);
        take_over_some(executor, false, MAX_TAKE_OVERS);
    }
}

/* Other workers' Leases */

/* Whether a Job of `owner` is still to be reported. */
static bool has_jobs(const struct executor_kubernetes *executor, struct bytes owner)
{
    size_t position = 0;
    const struct job_entry *entry = NULL;
    while ((entry = executor_kubernetes_next(executor, &position)) != NULL) {
        if (entry->exists && !entry->is_reported && bytes_equal_text(owner, entry->owner)) {
            return true;
        }
    }
    return false;
}

static void on_lease_deleted(void *context, const struct kubernetes_answer *answer)
{
    struct check *check = context;
    (void)answer; /* the next list shows whether it is gone */
    check->call = NULL;
    end_check(check);
}

static void delete_lease(struct executor_kubernetes *executor, struct bytes owner)
{
    char name[64];
    (void)snprintf(name, sizeof(name), LEASE_HEAD "%.*s", BYTES_FORMAT(owner));
    struct check *check = new_check(executor, &executor->checks, owner);
    check->call = kubernetes_api_call(
        executor->api,
        &(struct kubernetes_request){
            .method = "DELETE", .resource = EXECUTOR_KUBERNETES_LEASES, .name = name},
        on_lease_deleted, check);
}

static void see_lease(struct executor_kubernetes *executor, struct json object, struct arena *arena)
{
    struct bytes name = {NULL, 0};
    struct bytes renewed = {NULL, 0};
    (void)!json_text(json_get(json_get(object, "metadata"), "name"), arena, &name);
    (void)!json_text(json_get(json_get(object, "spec"), "renewTime"), arena, &renewed);
    struct bytes owner = bytes_skip(name, sizeof(LEASE_HEAD) - 1);
    if (!bytes_starts_with(name, BYTES(LEASE_HEAD)) || owner.length == 0
        || bytes_equal_text(owner, executor->options.instance_id)) {
        return;
    }
    struct foreign_lease *lease = map_get(executor->leases, owner);
    if (!lease) {
        lease = memory_new(sizeof(*lease));
        lease->changed_ms = loop_now_ms(executor->loop);
        (void)map_set(executor->leases, owner, lease);
    } else if (!bytes_equal_text(renewed, lease->renew_time)) {
        lease->changed_ms = loop_now_ms(executor->loop);
    }
    lease->is_listed = true;
    (void)snprintf(lease->renew_time, sizeof(lease->renew_time), "%.*s", BYTES_FORMAT(renewed));
}

/* Forgets Leases that are gone, and deletes those that have run out and own nothing more. */
static void sort_leases(struct executor_kubernetes *executor)
{
    size_t position = 0;
    struct bytes owner;
    void *value = NULL;
    while (map_next(executor->leases, &position, &owner, &value)) {
        struct foreign_lease *lease = value;
        bool is_over = loop_now_ms(executor->loop) - lease->changed_ms
                       > INT64_C(4) * EXECUTOR_KUBERNETES_LEASE_MS;
        if (!lease->is_listed) {
            (void)map_remove(executor->leases, owner);
            memory_free(&lease);
        } else if (is_over && !has_jobs(executor, owner)) {
            delete_lease(executor, owner);
            lease->changed_ms = loop_now_ms(executor->loop);
        } else {
            lease->is_listed = false;
        }
    }
}

static void list_leases(struct executor_kubernetes *executor);

static void on_leases(void *context, const struct kubernetes_answer *answer)
{
    struct executor_kubernetes *executor = context;
    executor->list_call = NULL;
    if (answer->verdict != KUBERNETES_DONE) {
        buffer_clear(&executor->leases_page);
        return; /* asked again with the next tick */
    }
    struct arena *arena = arena_new(4096);
    struct json_walk walk = json_walk(json_get(answer->body, "items"));
    struct json item;
    while (json_next_element(&walk, &item)) {
        see_lease(executor, item, arena);
    }
    arena_free(&arena);
    if (kubernetes_page_keep_next(answer->body, &executor->leases_page)) {
        list_leases(executor);
        return;
    }
    sort_leases(executor);
    executor->leases_known = true;
    if (executor->is_ready && executor_kubernetes_is_owner(executor)) {
        take_over(executor);
    }
    executor_kubernetes_check_ready(executor);
}

/* Asks for the first page, or the one after the last. */
static void list_leases(struct executor_kubernetes *executor)
{
    struct buffer query;
    buffer_init(&query, KUBERNETES_PAGE_MAX_TOKEN * 4);
    kubernetes_page_append_query(&query, LEASES_PAGE, KUBERNETES_JOB_SELECTOR,
                                 buffer_view(&executor->leases_page));
    (void)buffer_append_byte(&query, '\0');
    executor->list_call = kubernetes_api_call(
        executor->api,
        &(struct kubernetes_request){.resource = EXECUTOR_KUBERNETES_LEASES, .query = query.data},
        on_leases, executor);
    buffer_fini(&query);
}

/* Our own */

bool executor_kubernetes_is_owner(const struct executor_kubernetes *executor)
{
    return executor->lease_renewed_ms > 0
           && loop_now_ms(executor->loop) - executor->lease_renewed_ms
                  < EXECUTOR_KUBERNETES_LEASE_MS - LEASE_MARGIN_MS;
}

static void append_lease(struct buffer *body, const struct executor_kubernetes *executor)
{
    double wall_s = loop_wall_s(executor->loop);
    time_t seconds = (time_t)wall_s;
    struct tm utc;
    char stamp[32];
    (void)gmtime_r(&seconds, &utc);
    (void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    (void)buffer_format(
        body,
        "{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"metadata\":"
        "{\"name\":\"" LEASE_HEAD
        "%s\",\"resourceVersion\":\"%s\",\"labels\":{\"app.kubernetes.io/managed-by\":"
        "\"petiole\"}},\"spec\":{\"holderIdentity\":\"%s\","
        "\"leaseDurationSeconds\":%d,\"renewTime\":\"%s.%06dZ\"}}",
        executor->options.instance_id, executor->lease_version, executor->options.instance_id,
        EXECUTOR_KUBERNETES_LEASE_MS / 1000, stamp, (int)((wall_s - (double)seconds) * 1e6));
}

static void keep_version(struct executor_kubernetes *executor, struct json lease)
{
    struct arena *arena = arena_new(256);
    struct bytes version = {NULL, 0};
    (void)!json_text(json_get(json_get(lease, "metadata"), "resourceVersion"), arena, &version);
    (void)snprintf(executor->lease_version, sizeof(executor->lease_version), "%.*s",
                   BYTES_FORMAT(version));
    arena_free(&arena);
}

static void send_lease(struct executor_kubernetes *executor);

/* The Lease is there, but not of the version that we knew: it is ours all the same. */
static void on_lease_read(void *context, const struct kubernetes_answer *answer)
{
    struct executor_kubernetes *executor = context;
    executor->lease_call = NULL;
    if (answer->verdict == KUBERNETES_DONE) {
        keep_version(executor, answer->body);
        send_lease(executor);
    }
}

static void read_lease(struct executor_kubernetes *executor)
{
    char name[64];
    (void)snprintf(name, sizeof(name), LEASE_HEAD "%s", executor->options.instance_id);
    executor->lease_call = kubernetes_api_call(
        executor->api,
        &(struct kubernetes_request){
            .resource = EXECUTOR_KUBERNETES_LEASES, .name = name, .is_urgent = true},
        on_lease_read, executor);
}

static void note_renewal(struct executor_kubernetes *executor, struct json lease)
{
    keep_version(executor, lease);
    bool was_lost = executor->lease_renewed_ms > 0 && !executor_kubernetes_is_owner(executor);
    executor->lease_renewed_ms = executor->lease_sent_ms;
    if (was_lost) {
        /* Others may have taken Jobs over meanwhile: see who owns what before anything is
         * reported. */
        executor_kubernetes_observe(executor);
    }
    executor_kubernetes_check_ready(executor);
}

static void on_renewed(void *context, const struct kubernetes_answer *answer)
{
    struct executor_kubernetes *executor = context;
    executor->lease_call = NULL;
    switch (answer->verdict) {
    case KUBERNETES_DONE:
        note_renewal(executor, answer->body);
        break;
    case KUBERNETES_NOT_FOUND:
        executor->lease_version[0] = '\0';
        send_lease(executor);
        break;
    case KUBERNETES_EXISTS:
    case KUBERNETES_CONFLICT:
        read_lease(executor);
        break;
    case KUBERNETES_REFUSED:
        executor_kubernetes_warn(executor, "the Lease cannot be renewed: %s", answer->message);
        break;
    case KUBERNETES_GONE:
    case KUBERNETES_QUOTA:
    case KUBERNETES_BUSY:
    default:
        break; /* tried again with the next tick */
    }
}

/* Makes the Lease, or renews it: an update needs the version that it replaces. */
static void send_lease(struct executor_kubernetes *executor)
{
    char name[64];
    struct buffer body;
    bool is_new = executor->lease_version[0] == '\0';
    buffer_init(&body, 2048);
    append_lease(&body, executor);
    (void)snprintf(name, sizeof(name), LEASE_HEAD "%s", executor->options.instance_id);
    executor->lease_sent_ms = loop_now_ms(executor->loop);
    executor->lease_call =
        kubernetes_api_call(executor->api,
                            &(struct kubernetes_request){.method = is_new ? "POST" : "PUT",
                                                         .resource = EXECUTOR_KUBERNETES_LEASES,
                                                         .name = is_new ? NULL : name,
                                                         .body = buffer_view(&body),
                                                         .is_urgent = true},
                            on_renewed, executor);
    buffer_fini(&body);
}

void executor_kubernetes_look_for_orphans(struct executor_kubernetes *executor)
{
    if (!executor->list_call) {
        executor->leases_asked_ms = loop_now_ms(executor->loop);
        list_leases(executor);
    }
}

static void on_tick(void *context)
{
    struct executor_kubernetes *executor = context;
    loop_start_timer(executor->loop, &executor->tick, EXECUTOR_KUBERNETES_TICK_MS);
    if (!executor->lease_call) {
        send_lease(executor);
    }
    executor_kubernetes_look_for_orphans(executor);
    executor_kubernetes_sweep(executor);
    executor_kubernetes_clear_up(executor);
}

void executor_kubernetes_own(struct executor_kubernetes *executor)
{
    executor->tick = (struct timer){.on_due = on_tick, .context = executor};
    on_tick(executor);
}

static void on_disowned(void *context, const struct kubernetes_answer *answer)
{
    struct executor_kubernetes *executor = context;
    (void)answer; /* a Lease that stays runs out */
    executor->lease_call = NULL;
    executor->lease_renewed_ms = 0;
    executor_kubernetes_check_closed(executor);
}

void executor_kubernetes_disown(struct executor_kubernetes *executor)
{
    char name[64];
    loop_stop_timer(executor->loop, &executor->tick);
    kubernetes_api_cancel(&executor->lease_call);
    kubernetes_api_cancel(&executor->list_call);
    (void)snprintf(name, sizeof(name), LEASE_HEAD "%s", executor->options.instance_id);
    executor->lease_call =
        kubernetes_api_call(executor->api,
                            &(struct kubernetes_request){.method = "DELETE",
                                                         .resource = EXECUTOR_KUBERNETES_LEASES,
                                                         .name = name,
                                                         .is_urgent = true},
                            on_disowned, executor);
}
