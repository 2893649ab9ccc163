/*
 * A TCP relay between a test's client and its server, on the test's own loop, to lose what is on
 * the way: replies that never come, connections that end in the middle.
 */
#ifndef PETIOLE_TESTS_SUPPORT_RELAY_H
#define PETIOLE_TESTS_SUPPORT_RELAY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/loop.h"

struct relay;

/* Listens on a free loopback port and passes connections on to `target_port` of this machine.
 * Returns new. */
struct relay *relay_new(struct loop *loop, unsigned short target_port);

unsigned short relay_port(const struct relay *relay);

/* From now on swallows what the server says, or passes it on again. */
void relay_set_mute(struct relay *relay, bool is_mute);

/* How many bytes were swallowed. */
size_t relay_swallowed(const struct relay *relay);

/* Ends all connections. */
void relay_cut(struct relay *relay);

/* Closes it and turns the loop until it is gone; leaves NULL. */
void relay_free(struct relay **relay);

#endif
