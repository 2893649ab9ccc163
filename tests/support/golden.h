/*
 * Golden data for unit tests: files under tests/data, and envelopes as they lie in Redis lists made
 * into deliveries.
 */
#ifndef PETIOLE_SUPPORT_GOLDEN_H
#define PETIOLE_SUPPORT_GOLDEN_H

#include "broker/broker.h"

/* Reads tests/data/`name`, a JSON file, into `arena`. The test fails when it cannot be read. */
struct json golden_read(const char *name, struct arena *arena);

/* The text of string member `key`, which must be there; in `arena`. */
struct bytes golden_text(struct json object, const char *key, struct arena *arena);

/* Returns new: the delivery of `envelope`, as a Redis broker hands it up. Free it with
 * golden_delivery_free. */
struct delivery *golden_delivery(struct bytes envelope);

/* Returns new: a delivery with these parts from `queue`; empty headers are none. */
struct delivery *golden_delivery_of(const char *headers, const char *content_type,
                                    struct bytes body, const char *queue);

/* Leaves NULL. */
void golden_delivery_free(struct delivery **delivery);

/* Asserts that `actual` is `expected`, showing both when it is not. */
void golden_assert(struct bytes actual, struct bytes expected, const char *what);

#endif
