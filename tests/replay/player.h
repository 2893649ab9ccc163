/*
 * The player of scenarios: a real pipeline on a loop with a virtual clock, between a fake broker,
 * fake executors and a fake result backend. What the pipeline asks of them goes into a trace, which
 * the scenario's EXPECT lines must tell in order and in full. README.md here is the language.
 *
 *   player.c           reads the scenario, line by line
 *   player_world.c     the pipeline, the trace, what is looked at
 *   player_broker.c    broker_ops; DELIVER
 *   player_executor.c  executor_ops, direct and durable; STARTED, FINISH, CREATED, COMPLETE ...
 *   player_result.c    result_ops
 */
#ifndef PETIOLE_REPLAY_PLAYER_H
#define PETIOLE_REPLAY_PLAYER_H

#include <stdio.h>

#include "worker/pipeline.h"

#define PLAYER_MAX_WORDS 16

/* Answers of a fake that come later: at the next turn, or when the scenario releases them. */
enum player_answers {
    PLAYER_ANSWERS_AT_ONCE,
    PLAYER_ANSWERS_HELD,
};

/* One answer under way. */
struct player_answer {
    struct list_node node;
    struct loop_call call;
    struct world *world;
    void (*give)(struct player_answer *answer, const struct error *error);
    broker_done_fn *on_done;
    broker_lease_fn *on_lease;
    result_stored_fn *on_stored;
    result_state_fn *on_state;
    void *context;
    struct bytes text; /* a state, in the world's arena */
};

/* A fake end: the answers that it owes. */
struct player_end {
    enum player_answers answers;
    struct list owed;     /* of struct player_answer */
    struct error failure; /* kind NONE: answers are good */
};

/* A Job that the fake durable executor has created. */
struct player_job {
    struct list_node node;
    struct bytes name;
    struct bytes record;
    struct bytes tag;
    bool is_settled;
    bool is_taken_over;
    bool is_completed;
};

/* What the durable executor says of a task until it is told otherwise. */
struct player_admission {
    struct list_node node;
    struct bytes id;
    enum executor_admission admission;
};

struct player_executor {
    struct executor base;
    struct executor_ops ops;
    struct world *world;
    size_t places;
    struct list submitted; /* of struct player_submission */
    struct list jobs;
    struct list admissions;
};

struct player_submission {
    struct list_node node;
    struct request *request;
    bool is_started;
};

struct world {
    struct arena *arena;
    struct loop *loop;
    struct registry *registry;
    struct metrics *metrics;
    struct timezone_table utc;
    struct pipeline *pipeline;
    struct pipeline_options options;
    struct broker broker;
    struct player_end broker_end;
    struct list unsettled; /* of struct delivery */
    size_t places;         /* as told last */
    bool lease_is_held;
    struct result_backend backend;
    struct player_end backend_end;
    bool has_backend;
    bool is_gathering; /* as told last */
    struct revoked *revoked;
    struct map *states; /* task id -> NUL-terminated state */
    struct map *sent;   /* delivery tag -> task id, NUL-terminated */
    struct player_executor executors[TASK_EXECUTOR_COUNT];
    struct list trace; /* of lines that no EXPECT has told yet */
    const char *scenario;
    size_t line_number;
};

/* player_world.c */

void world_init(struct world *world, const char *scenario);

/* Ends the scenario: everything must be told, settled and idle. */
void world_fini(struct world *world);

/* Makes the pipeline, and lets it accept unless it is to wait. */
void world_start(struct world *world, bool waits);

/* Adds a line to the trace. */
void world_trace(struct world *world, const char *format, ...) PRINTF_FORMAT(2, 3);

/* The oldest line of the trace must be `expected` ("nothing": there is none). */
void world_expect(struct world *world, const char *expected);

/* Says where and what is wrong, and ends the program. */
_Noreturn void world_fail(const struct world *world, const char *format, ...) PRINTF_FORMAT(2, 3);

/* Runs what is due now. */
void world_settle_down(struct world *world);

/* "5s", "200ms", "1h" in milliseconds. */
int64_t world_duration_ms(struct world *world, const char *text);

/* Owes an answer: it is given at the next turn unless answers are held. */
struct player_answer *world_owe(struct world *world, struct player_end *end);
void world_release(struct world *world, struct player_end *end);

/* The value of `key=` among the words, or NULL. */
const char *world_option(char *const *words, const char *key);

/* player_broker.c, player_result.c, player_executor.c */

void player_broker_init(struct world *world);
/* Returns new: the message that the words of a DELIVER or JOB line tell of. */
struct delivery *player_broker_delivery(struct world *world, char *const *words);
void player_broker_deliver(struct world *world, char *const *words);
void player_result_init(struct world *world);
void player_executor_init(struct world *world, char *const *words);

/* Carries out a command about what runs; false when `words` are none. */
bool player_executor_command(struct world *world, char *const *words);

#endif
