/*
 * What the files of the Redis broker share. Each part has its state in a struct of its own and
 * is told when the server comes and goes:
 *   consume   takes messages, and hears of new ones without taking them
 *   settle    acknowledges, and keeps the outbox
 *   lease     renews what is held
 *   restore   gives back what anybody held for too long
 *   send      everything else that has to reach the server, however often it is away:
 *     publications, give-backs, elements put aside
 *   declare   binds the queues to their exchanges
 *   pidbox    hears commands of remote control, and remembers what they revoked
 */
#ifndef PETIOLE_BROKER_BROKER_REDIS_PRIVATE_H
#define PETIOLE_BROKER_BROKER_REDIS_PRIVATE_H

#include <hiredis/hiredis.h>

#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "base/redis_link.h"
#include "broker/broker_redis.h"
#include "broker/broker_redis_envelope.h"
#include "broker/broker_redis_script.h"

#define BROKER_REDIS_MAX_TAG 128 /* bytes of a tag of ours */

struct broker_redis_queue {
    struct bytes name;
    struct bytes tail;         /* what follows its envelopes in unacked */
    struct bytes rejected_key; /* elements put aside */
    struct bytes *step_keys;   /* its lists, the most urgent first */
    int64_t length;            /* when last counted; -1: never */
    int64_t counting;          /* the count that is going on */
    size_t counted_steps;
    long long refused_count; /* elements put aside by this pop */
};

/* A delivery as handed up, and what we know of it besides. */
struct broker_redis_delivery {
    struct delivery base; /* first member */
    uint64_t number;      /* the end of its tag */
    struct bytes envelope;
    bool is_lost; /* somebody else restored it */
};

struct broker_redis_consume {
    size_t places;        /* messages that may be handed up */
    size_t *cycle;        /* the queues in the order in which they are asked next */
    uint64_t next_number; /* of the next tag */
    bool is_dirty;        /* something may be waiting */
    bool is_popping;
    uint64_t popping_first; /* the tags of the pop that is on its way, or whose reply was lost */
    size_t popping_count;
    bool is_recovering; /* asks for the messages of a lost reply */
    bool is_tracking;   /* the server tells of changes; else we ask */
    bool has_complained;
    struct loop_call turn;
    struct timer look;
    struct timer count;
};

struct broker_redis_settle {
    struct broker_redis_batch *open; /* of this turn; NULL: none yet */
    struct list batches;             /* not yet confirmed, oldest first */
    struct list spare;
    struct loop_call flush;
};

struct broker_redis_lease {
    struct timer renew;
    struct list checks; /* of confirm_lease */
    struct timer checks_deadline;
};

struct broker_redis_restore {
    struct timer scan;
    bool is_scanning;
    char token[BROKER_REDIS_MAX_TAG]; /* of the lock */
    size_t skipped;                   /* entries of this scan that stay where they are */
    size_t outstanding;               /* entries of this page that are being restored */
    size_t page_length;
};

struct broker_redis_send {
    struct list errands; /* not yet done, oldest first */
    struct loop_call turn;
};

struct broker_redis_declare {
    struct broker_redis_declared *items; /* one for each binding */
    size_t count;
    bool is_due; /* something was refused for the moment */
    bool has_complained;
};

struct broker_redis_pidbox {
    struct bytes channel; /* empty: no remote control */
    bool has_complained;
};

struct broker_redis {
    struct broker base; /* first member */
    struct loop *loop;
    struct broker_events events;
    void *context;
    struct arena *texts;
    struct broker_redis_options options; /* with the defaults filled in; strings in `texts` */
    struct bytes separator;
    struct bytes unacked;
    struct bytes unacked_index;
    struct bytes unacked_mutex;
    struct bytes rejected_unacked; /* values of unacked put aside */
    struct bytes tag_head;         /* "<instance id>:" */
    struct broker_redis_queue *queues;
    struct broker_redis_script scripts[BROKER_REDIS_SCRIPT_COUNT];
    struct redis_link *commands; /* NULL before start */
    struct redis_link *changes;
    bool is_subscribed; /* `changes` hears of invalidations */
    bool is_usable;     /* `commands` is up, and its server is good enough */
    struct timer retry; /* armed: the server refuses for the moment, nothing is sent */
    unsigned retry_attempt;
    char trouble[256];           /* what the owner was told of last */
    const char *trouble_purpose; /* what could not be done then; a literal */
    struct list unsettled;       /* deliveries handed up, oldest first */
    size_t unsettled_count;
    struct broker_redis_consume consume;
    struct broker_redis_settle settle;
    struct broker_redis_lease lease;
    struct broker_redis_restore restore;
    struct broker_redis_send send;
    struct broker_redis_declare declare;
    struct broker_redis_pidbox pidbox;
    bool is_closing;
    bool is_finishing;
    struct timer close_deadline;
    struct loop_call close_check;
    struct loop_call closed;
    void (*on_closed)(void *context);
    void *closed_context;
};

static inline struct broker_redis *broker_redis_of(struct broker *base)
{
    return (struct broker_redis *)(void *)base;
}

/* Shared (broker_redis.c) */

enum broker_redis_verdict {
    BROKER_REDIS_OK,
    BROKER_REDIS_LOST,   /* no reply: nobody knows */
    BROKER_REDIS_AGAIN,  /* refused for now; broker->retry is armed or the connection dropped */
    BROKER_REDIS_REFUSED /* refused, and will be */
};

/* What `reply` means for a command whose purpose is `what` ("taking messages"). The owner is
 * told of a refusal, once until something else comes. */
enum broker_redis_verdict broker_redis_judge(struct broker_redis *broker, const redisReply *reply,
                                             const char *what);

/* Whether commands may be sent now. */
bool broker_redis_may_send(const struct broker_redis *broker);

/* Tells the parts to go on after `retry`: for work that stays to be done although the server
 * refused it. */
void broker_redis_retry_later(struct broker_redis *broker);

void broker_redis_notice(struct broker_redis *broker, int level, const char *format, ...)
    PRINTF_FORMAT(3, 4);

/* A key with the global prefix, in `arena`. */
struct bytes broker_redis_key(const struct broker_redis *broker, struct arena *arena,
                              const char *middle, struct bytes name);

/* The list of `queue` for a message of `priority`. */
struct bytes broker_redis_list(const struct broker_redis *broker, struct arena *arena,
                               struct bytes queue, int64_t priority);

/* Writes the tag of `number` as an argument. */
void broker_redis_tag_argument(struct broker_redis *broker, uint64_t number);

/* The time as the score of unacked_index, as an argument. */
void broker_redis_score_argument(struct broker_redis *broker, double wall_s);

/* Looks whether a broker that is closing has nothing left to do. */
void broker_redis_check_closed(struct broker_redis *broker);

/* Takes `delivery` off the list of unsettled ones. */
void broker_redis_forget(struct broker_redis *broker, struct broker_redis_delivery *delivery);

/* Consume */

void broker_redis_consume_init(struct broker_redis *broker);
void broker_redis_consume_up(struct broker_redis *broker);
void broker_redis_consume_down(struct broker_redis *broker);
void broker_redis_consume_stop(struct broker_redis *broker);
/* The connection for changes has come (and subscribed) or gone. */
void broker_redis_consume_track(struct broker_redis *broker);
void broker_redis_consume_untrack(struct broker_redis *broker);
void broker_redis_consume_on_change(struct broker_redis *broker, const redisReply *message);
/* Something may be waiting. */
void broker_redis_consume_poke(struct broker_redis *broker);
void broker_redis_consume_set_places(struct broker_redis *broker, size_t count);
bool broker_redis_consume_is_busy(const struct broker_redis *broker);

/* Settle */

void broker_redis_settle_init(struct broker_redis *broker);
void broker_redis_settle_up(struct broker_redis *broker);
void broker_redis_settle_finish(struct broker_redis *broker);
bool broker_redis_settle_is_busy(const struct broker_redis *broker);
/* Whether an acknowledgement of `number` is still to reach the server. */
bool broker_redis_settle_has(const struct broker_redis *broker, uint64_t number);
void broker_redis_settle_own(struct broker_redis *broker, uint64_t number,
                             const struct broker_outbox_entry *entry, broker_done_fn *on_done,
                             void *context);
void broker_redis_settle_tag(struct broker *base, struct bytes tag, struct bytes task_id,
                             broker_done_fn *on_done, void *context);
void broker_redis_settle_outbox_add(struct broker *base, const struct broker_outbox_entry *entry,
                                    broker_done_fn *on_done, void *context);
void broker_redis_settle_outbox_remove(struct broker *base, struct bytes namespace_name,
                                       struct bytes job_name, broker_done_fn *on_done,
                                       void *context);
void broker_redis_settle_outbox_list(struct broker *base, struct bytes namespace_name,
                                     broker_outbox_fn *on_entry, void *context);

/* Lease */

void broker_redis_lease_init(struct broker_redis *broker);
void broker_redis_lease_up(struct broker_redis *broker);
void broker_redis_lease_stop(struct broker_redis *broker);
void broker_redis_lease_finish(struct broker_redis *broker);
/* Renews all that is held, now. */
void broker_redis_lease_renew(struct broker_redis *broker);
/* Whether `number` is a delivery that is not settled yet, as far as we know. */
bool broker_redis_lease_holds(struct broker_redis *broker, uint64_t number);
void broker_redis_lease_confirm(struct broker *base, struct delivery *delivery,
                                broker_lease_fn *on_lease, void *context);

/* Restore */

void broker_redis_restore_init(struct broker_redis *broker);
void broker_redis_restore_up(struct broker_redis *broker);
void broker_redis_restore_stop(struct broker_redis *broker);

/* Send */

void broker_redis_send_init(struct broker_redis *broker);
void broker_redis_send_up(struct broker_redis *broker);
void broker_redis_send_finish(struct broker_redis *broker);
bool broker_redis_send_is_busy(const struct broker_redis *broker);
void broker_redis_send_publish(struct broker *base, const struct publication *publication,
                               broker_done_fn *on_done, void *context);
/* The lists that a message of `routing_key` and `priority` goes to, by the members of its
 * exchange's routing table, each list once; in `arena`. Returns how many. */
size_t broker_redis_send_routes(const struct broker_redis *broker, struct arena *arena,
                                const redisReply *members, struct bytes routing_key,
                                int64_t priority, struct bytes **ret_lists);
/* Gives a delivery of ours back to its queue; `on_done` may be NULL. */
void broker_redis_send_back(struct broker_redis *broker,
                            const struct broker_redis_delivery *delivery, broker_done_fn *on_done,
                            void *context);
/* Puts an element aside that has the tag of `number` and is no message. */
void broker_redis_send_aside(struct broker_redis *broker, const struct broker_redis_queue *queue,
                             uint64_t number, struct bytes element);

/* Declare */

void broker_redis_declare_init(struct broker_redis *broker);
/* Writes all bindings. */
void broker_redis_declare_up(struct broker_redis *broker);
/* The same when one was refused for the moment. */
void broker_redis_declare_retry(struct broker_redis *broker);

/* Pidbox */

void broker_redis_pidbox_init(struct broker_redis *broker);
/* The connection for changes has come: subscribes. */
void broker_redis_pidbox_up(struct broker_redis *broker);
/* Takes what was published if it is a command; else false. */
bool broker_redis_pidbox_take(struct broker_redis *broker, const redisReply *message);
void broker_redis_pidbox_revoked_add(struct broker *base, const struct broker_revoked *revoked,
                                     double expires_s, size_t most);
void broker_redis_pidbox_revoked_list(struct broker *base, struct bytes namespace_name,
                                      double since_wall_s, broker_revoked_fn *on_revoked,
                                      void *context);

#endif
