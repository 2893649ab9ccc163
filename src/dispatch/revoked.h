/*
 * The tasks that a client has revoked: ids that are remembered for a while, at most so many of
 * them, the oldest forgotten first (celery/worker/state.py: revoked, REVOKES_MAX, REVOKE_EXPIRES;
 * celery/utils/collections.py: LimitedSet). It only remembers: strategy decides, and whoever runs a
 * task ends it. Pure: time is an argument.
 */
#ifndef PETIOLE_DISPATCH_REVOKED_H
#define PETIOLE_DISPATCH_REVOKED_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

#define REVOKED_MAX       50000
#define REVOKED_EXPIRES_S 10800

struct revoked;

/* Returns new: at most `max_count` ids (0: REVOKED_MAX), each for at least `expires_s` (0:
 * REVOKED_EXPIRES_S) unless there are more. Ids that have expired go when the set is full. */
struct revoked *revoked_new(size_t max_count, double expires_s);
void revoked_free(struct revoked **revoked);

/* Remembers `id`, which is copied, as revoked at `now_s`. `terminate`: it is to be ended, too, if
 * it has begun; once said, that stays. */
void revoked_add(struct revoked *revoked, struct bytes id, bool terminate, double now_s);

/* Whether `id` is revoked; `revoked` may be NULL: nothing is. */
bool revoked_has(const struct revoked *revoked, struct bytes id);

/* Whether `id` is to be ended although it has begun; `revoked` may be NULL. */
bool revoked_terminates(const struct revoked *revoked, struct bytes id);

size_t revoked_count(const struct revoked *revoked);

#endif
