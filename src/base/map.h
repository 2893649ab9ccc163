/*
 * A hash table from a key of bytes to a pointer. Keys are copied; values are borrowed, the caller
 * frees them. Open addressing; keyed hashing (SipHash-like mixing with a per-table seed), because
 * keys come from peers.
 */
#ifndef PETIOLE_BASE_MAP_H
#define PETIOLE_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"

struct map;

/* Returns new. */
struct map *map_new(void);

/* Frees table and keys, not the values; leaves NULL. Accepts NULL. */
void map_free(struct map **map);

/* Sets `key` to `value` (not NULL), replacing what was there. Returns the old value or NULL. */
void *map_set(struct map *map, struct bytes key, void *value);

/* The value, or NULL. */
void *map_get(const struct map *map, struct bytes key);

/* Takes the entry out and returns its value, or NULL when there was none. */
void *map_remove(struct map *map, struct bytes key);

size_t map_count(const struct map *map);

/* Visits every entry: `*position` starts at 0; false at the end. The table must not grow meanwhile;
 * removing the entry just visited is allowed. */
bool map_next(const struct map *map, size_t *position, struct bytes *ret_key, void **ret_value);

#endif
