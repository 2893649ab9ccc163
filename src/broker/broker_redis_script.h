/*
 * The Lua scripts that the Redis broker runs on the server, where several commands have to be
 * one step. Each registers first and removes last: Redis does not roll back a script that fails
 * half-way.
 *
 * Sent by digest; the text goes along the first time on each connection, so that no right to
 * SCRIPT is needed.
 */
#ifndef PETIOLE_BROKER_BROKER_REDIS_SCRIPT_H
#define PETIOLE_BROKER_BROKER_REDIS_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/redis_link.h"

enum broker_redis_script_name {
    /* Moves up to a number of messages from the queues into unacked and unacked_index.
     * KEYS: unacked, unacked_index, one list of refused elements a queue, then the queues'
     * lists, all queues of the most urgent step first.
     * ARGV: score, head of the tags, number of the first tag, messages wanted, longest list of
     * refused elements, number of queues, 1: take turns among the queues of a step (0: the first
     * has all), then for each queue what follows the envelope in unacked.
     * Reply: for each piece taken from a list {number of the list from 1, refused elements,
     * message, message ...}; tags count up in that order. */
    BROKER_REDIS_SCRIPT_POP,
    /* Gives a message back: to the right end of each list.
     * KEYS: unacked, unacked_index, lists. ARGV: tag, the value it must still have in unacked
     * ("": any), envelope. Reply: 1 done, 0 not there. */
    BROKER_REDIS_SCRIPT_RESTORE,
    /* Removes a message that another worker took, if it is of the task that is told: what a Job
     * says of itself may be forged.
     * KEYS: unacked, unacked_index. ARGV: tag, id of the task. Reply: 1 gone, 0 of another task. */
    BROKER_REDIS_SCRIPT_SETTLE,
    /* Puts a value aside that no worker could read.
     * KEYS: unacked, unacked_index, list of refused elements. ARGV: tag, the value it must still
     * have in unacked ("": any), what to put aside, longest list. Reply: as RESTORE. */
    BROKER_REDIS_SCRIPT_REJECT,
    /* Sends a message to the lists that do not have it among their last thousand. KEYS: lists.
     * ARGV: envelope. Reply: 1. */
    BROKER_REDIS_SCRIPT_PUBLISH,
    /* Gives back a lock that is still ours. KEYS: lock. ARGV: token. */
    BROKER_REDIS_SCRIPT_UNLOCK,
    BROKER_REDIS_SCRIPT_COUNT,
};

struct broker_redis_script {
    const char *text;
    char digest[41];
    bool is_known; /* to the server, after what was sent on this connection */
};

void broker_redis_script_init(struct broker_redis_script *scripts);

/* After a reconnect: the server may be another one. */
void broker_redis_script_forget(struct broker_redis_script *scripts);

/* Begins the call: then `key_count` keys and `argument_count` arguments are to be written, and
 * the end. */
void broker_redis_script_begin(struct broker_redis_script *scripts,
                               enum broker_redis_script_name name, struct redis_link *link,
                               size_t key_count, size_t argument_count);

/* The same with the text, for a transaction: there a script that the server does not know cannot
 * be sent again. */
void broker_redis_script_begin_text(const struct broker_redis_script *scripts,
                                    enum broker_redis_script_name name, struct redis_link *link,
                                    size_t key_count, size_t argument_count);

/* Whether the server has forgotten the script, for SCRIPT FLUSH: then the text goes along with
 * the next call. */
bool broker_redis_script_is_missing(struct broker_redis_script *scripts,
                                    enum broker_redis_script_name name,
                                    const struct redisReply *reply);

#endif
