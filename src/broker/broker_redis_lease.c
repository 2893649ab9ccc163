#include "broker/broker_redis_private.h"

#define LONGEST_RENEWAL_MS 60000
#define RENEWAL_ITEMS      ((size_t)500)
#define CHECK_DEADLINE_MS  10000

/* The tags of one ZADD, to find out which of them were gone. */
struct renewal {
    struct broker_redis *broker;
    size_t count;
    uint64_t numbers[RENEWAL_ITEMS];
};

static struct broker_redis_delivery *find_unsettled(struct broker_redis *broker, uint64_t number)
{
    list_for_each(node, following, &broker->unsettled) {
        struct delivery *delivery = list_entry(node, struct delivery, node);
        struct broker_redis_delivery *own = (struct broker_redis_delivery *)(void *)delivery;
        if (own->number == number) {
            return own;
        }
    }
    return NULL;
}

static void lose(struct broker_redis *broker, uint64_t number)
{
    struct broker_redis_delivery *delivery = find_unsettled(broker, number);
    if (!delivery || delivery->is_lost) {
        return;
    }
    delivery->is_lost = true;
    broker_redis_notice(broker, LOG_WARNING,
                        "Lost the lease of message %.*s from queue %.*s: another worker has "
                        "restored it",
                        BYTES_FORMAT(delivery->base.tag), BYTES_FORMAT(delivery->base.queue));
}

static void on_scores(void *context, const redisReply *reply)
{
    struct renewal *renewal = context;
    bool is_answer = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == renewal->count;
    for (size_t index = 0; is_answer && index < renewal->count; index++) {
        if (reply->element[index]->type == REDIS_REPLY_NIL) {
            lose(renewal->broker, renewal->numbers[index]);
        }
    }
    memory_free(&renewal);
}

static void on_renewed(void *context, const redisReply *reply)
{
    struct renewal *renewal = context;
    struct broker_redis *broker = renewal->broker;
    enum broker_redis_verdict verdict = broker_redis_judge(broker, reply, "renewing leases");
    bool is_whole = verdict != BROKER_REDIS_OK || reply->integer == (long long)renewal->count;
    if (is_whole || !broker->is_usable) {
        memory_free(&renewal);
        return;
    }
    redis_link_begin(broker->commands, 2 + renewal->count);
    redis_link_argument_text(broker->commands, "ZMSCORE");
    redis_link_argument(broker->commands, broker->unacked_index);
    for (size_t index = 0; index < renewal->count; index++) {
        broker_redis_tag_argument(broker, renewal->numbers[index]);
    }
    redis_link_end(broker->commands, on_scores, renewal);
}

/* ZADD XX CH: only what is still there, and say how many (kombu/transport/redis.py: QoS.append
 * writes the same score). */
static void send_renewal(struct renewal *renewal)
{
    struct broker_redis *broker = renewal->broker;
    double now_s = loop_wall_s(broker->loop);
    redis_link_begin(broker->commands, 4 + 2 * renewal->count);
    redis_link_argument_text(broker->commands, "ZADD");
    redis_link_argument(broker->commands, broker->unacked_index);
    redis_link_argument_text(broker->commands, "XX");
    redis_link_argument_text(broker->commands, "CH");
    for (size_t index = 0; index < renewal->count; index++) {
        broker_redis_score_argument(broker, now_s);
        broker_redis_tag_argument(broker, renewal->numbers[index]);
    }
    redis_link_end(broker->commands, on_renewed, renewal);
}

void broker_redis_lease_renew(struct broker_redis *broker)
{
    struct renewal *renewal = NULL;
    if (!broker->is_usable) {
        return;
    }
    list_for_each(node, following, &broker->unsettled) {
        struct delivery *delivery = list_entry(node, struct delivery, node);
        struct broker_redis_delivery *own = (struct broker_redis_delivery *)(void *)delivery;
        if (own->is_lost) {
            continue;
        }
        if (!renewal) {
            renewal = memory_new(sizeof(*renewal));
            renewal->broker = broker;
        }
        renewal->numbers[renewal->count++] = own->number;
        if (renewal->count == RENEWAL_ITEMS) {
            send_renewal(renewal);
            renewal = NULL;
        }
    }
    if (renewal) {
        send_renewal(renewal);
    }
}

static void on_renewal_due(void *context)
{
    struct broker_redis *broker = context;
    int64_t third_ms = broker->options.visibility_timeout_ms / 3;
    int64_t interval_ms = third_ms < LONGEST_RENEWAL_MS ? third_ms : LONGEST_RENEWAL_MS;
    loop_start_timer(broker->loop, &broker->lease.renew, interval_ms > 0 ? interval_ms : 1);
    broker_redis_lease_renew(broker);
}

/* Asking about one */

struct lease_check {
    struct list_node node;
    struct broker_redis *broker;
    uint64_t number;
    bool is_flying;
    int64_t deadline_ms;
    broker_lease_fn *on_lease; /* NULL: it was told already, only the reply is awaited */
    void *context;
};

static void tell_check(struct lease_check *check, bool is_held)
{
    broker_lease_fn *on_lease = check->on_lease;
    check->on_lease = NULL;
    list_remove(&check->node);
    if (on_lease) {
        on_lease(check->context, is_held);
    }
}

static void on_score(void *context, const redisReply *reply)
{
    struct lease_check *check = context;
    struct broker_redis *broker = check->broker;
    check->is_flying = false;
    bool is_known = broker_redis_judge(broker, reply, "renewing leases") == BROKER_REDIS_OK;
    if (check->on_lease && !is_known) {
        return; /* asked again when the server is back, until the deadline */
    }
    if (check->on_lease && reply->type == REDIS_REPLY_NIL) {
        lose(broker, check->number);
    }
    tell_check(check, is_known && reply->type != REDIS_REPLY_NIL);
    memory_free(&check);
}

static void send_check(struct lease_check *check)
{
    struct broker_redis *broker = check->broker;
    redis_link_begin(broker->commands, 5);
    redis_link_argument_text(broker->commands, "ZADD");
    redis_link_argument(broker->commands, broker->unacked_index);
    redis_link_argument_text(broker->commands, "XX");
    broker_redis_score_argument(broker, loop_wall_s(broker->loop));
    broker_redis_tag_argument(broker, check->number);
    redis_link_end(broker->commands, NULL, NULL);
    redis_link_begin(broker->commands, 3);
    redis_link_argument_text(broker->commands, "ZSCORE");
    redis_link_argument(broker->commands, broker->unacked_index);
    broker_redis_tag_argument(broker, check->number);
    check->is_flying = true;
    redis_link_end(broker->commands, on_score, check);
}

static void on_checks_deadline(void *context)
{
    struct broker_redis *broker = context;
    struct list_node *node = NULL;
    while ((node = list_first(&broker->lease.checks)) != NULL) {
        struct lease_check *check = list_entry(node, struct lease_check, node);
        int64_t left_ms = check->deadline_ms - loop_now_ms(broker->loop);
        if (left_ms > 0) {
            loop_start_timer(broker->loop, &broker->lease.checks_deadline, left_ms);
            return;
        }
        bool is_flying = check->is_flying;
        tell_check(check, false);
        if (!is_flying) {
            memory_free(&check);
        }
    }
}

void broker_redis_lease_confirm(struct broker *base, struct delivery *delivery,
                                broker_lease_fn *on_lease, void *context)
{
    struct broker_redis *broker = broker_redis_of(base);
    struct lease_check *check = memory_new(sizeof(*check));
    check->broker = broker;
    check->number = ((struct broker_redis_delivery *)(void *)delivery)->number;
    check->deadline_ms = loop_now_ms(broker->loop) + CHECK_DEADLINE_MS;
    check->on_lease = on_lease;
    check->context = context;
    list_append(&broker->lease.checks, &check->node);
    if (!timer_is_armed(&broker->lease.checks_deadline)) {
        loop_start_timer(broker->loop, &broker->lease.checks_deadline, CHECK_DEADLINE_MS);
    }
    if (broker->is_usable) {
        send_check(check);
    }
}

bool broker_redis_lease_holds(struct broker_redis *broker, uint64_t number)
{
    return find_unsettled(broker, number) || broker_redis_settle_has(broker, number);
}

/* Life cycle */

void broker_redis_lease_init(struct broker_redis *broker)
{
    list_init(&broker->lease.checks);
    broker->lease.renew = (struct timer){.on_due = on_renewal_due, .context = broker};
    broker->lease.checks_deadline = (struct timer){.on_due = on_checks_deadline, .context = broker};
}

void broker_redis_lease_up(struct broker_redis *broker)
{
    on_renewal_due(broker);
    list_for_each(node, following, &broker->lease.checks) {
        struct lease_check *check = list_entry(node, struct lease_check, node);
        if (!check->is_flying) {
            send_check(check);
        }
    }
}

void broker_redis_lease_stop(struct broker_redis *broker)
{
    loop_stop_timer(broker->loop, &broker->lease.renew);
    loop_stop_timer(broker->loop, &broker->lease.checks_deadline);
}

void broker_redis_lease_finish(struct broker_redis *broker)
{
    struct list_node *node = NULL;
    while ((node = list_first(&broker->lease.checks)) != NULL) {
        struct lease_check *check = list_entry(node, struct lease_check, node);
        tell_check(check, false);
        memory_free(&check);
    }
}
