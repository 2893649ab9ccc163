/*
 * A Redis broker under test, with everything it tells written down, and the server that it talks
 * to.
 */
#ifndef PETIOLE_TESTS_SUPPORT_BROKER_CLIENT_H
#define PETIOLE_TESTS_SUPPORT_BROKER_CLIENT_H

#include "base/loop.h"
#include "base/memory.h"
#include "broker/broker_redis.h"
#include "support/redis_server.h"
#include "support/relay.h"

#define BROKER_CLIENT_DELIVERIES 4096
#define BROKER_CLIENT_STEP_3                                                                       \
    "celery\x06\x16"                                                                               \
    "3" /* the list of step 3 of queue celery */

struct broker_client {
    struct loop *loop;
    struct broker *broker; /* NULL: not opened, or closed */
    struct broker_redis_options options;
    struct arena *texts;
    struct delivery *deliveries[BROKER_CLIENT_DELIVERIES]; /* as handed up; freed with the client */
    size_t delivery_count;
    int up_count;
    int down_count;
    struct error down_error;
    int notice_count;
    char notice[512];
    int done_count; /* calls of broker_client_on_done */
    int failed_count;
    struct error done_error;
    int lease_count;
    bool is_held;
    size_t outbox_count;
    bool is_outbox_read;
    char outbox[256];  /* "job=task " for each entry */
    int control_count; /* calls of on_control */
    char control[512]; /* the last one's body */
    bool is_closed;
};

/* A test's server, loop and up to two brokers: A and B. */
struct broker_stage {
    struct redis_server server;
    struct loop *loop;
    struct broker_client a;
    struct broker_client b;
    struct relay *relay; /* NULL: none */
};

/* For cmocka: makes a stage with a running server and clients that are set up for the queue
 * "celery", named "a" and "b". */
int broker_stage_set_up(void **state);
int broker_stage_tear_down(void **state);

/* Puts a relay between client A and the server. Before broker_client_open. */
void broker_stage_use_relay(struct broker_stage *stage);

/* Begins to connect with client->options. */
void broker_client_start(struct broker_client *client);

/* Opens with client->options, waits until it is up, and gives `places`. */
void broker_client_open(struct broker_client *client, size_t places);

/* Closes and waits. */
void broker_client_close(struct broker_client *client, int64_t deadline_ms);

/* Puts a message with this task id at the left end of the list `key`. */
void broker_client_push(struct redis_server *server, const char *key, const char *id);

/* Waits until so many deliveries have been handed up in all. */
void broker_client_await(struct broker_client *client, size_t count);

/* Waits until so many on_done calls came. */
void broker_client_await_done(struct broker_client *client, int count);

/* The task id of delivery number `index`. */
const char *broker_client_id(struct broker_client *client, size_t index);

/* Settles delivery number `index`, with broker_client_on_done. */
void broker_client_settle(struct broker_client *client, size_t index, enum settlement settlement);

void broker_client_on_done(void *context, bool ok, const struct error *error);
void broker_client_on_lease(void *context, bool is_held);
void broker_client_on_outbox(void *context, struct bytes job_name, struct bytes task_id,
                             const struct error *error);

#endif
