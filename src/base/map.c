#include "base/map.h"

#include <stdint.h>
#include <sys/random.h>

#include "base/memory.h"

#define MAP_FIRST_CAPACITY 16 /* a power of two */

struct map_entry {
    char *key; /* owned; NULL: never used */
    size_t key_length;
    uint64_t hash;
    void *value; /* NULL with a key: removed */
};

struct map {
    struct map_entry *entries;
    size_t capacity;   /* a power of two */
    size_t used_count; /* entries with a key, the removed ones too */
    size_t live_count;
    uint64_t seed[2];
};

static uint64_t rotate_left(uint64_t word, unsigned bits)
{
    return (word << bits) | (word >> (64 - bits));
}

/* One SipHash round over the four words of `state`. */
static void mix(uint64_t state[4])
{
    state[0] += state[1];
    state[1] = rotate_left(state[1], 13) ^ state[0];
    state[0] = rotate_left(state[0], 32);
    state[2] += state[3];
    state[3] = rotate_left(state[3], 16) ^ state[2];
    state[0] += state[3];
    state[3] = rotate_left(state[3], 21) ^ state[0];
    state[2] += state[1];
    state[1] = rotate_left(state[1], 17) ^ state[2];
    state[2] = rotate_left(state[2], 32);
}

static uint64_t hash_key(const struct map *map, struct bytes key)
{
    uint64_t state[4] = {
        map->seed[0] ^ UINT64_C(0x736f6d6570736575),
        map->seed[1] ^ UINT64_C(0x646f72616e646f6d),
        map->seed[0] ^ UINT64_C(0x6c7967656e657261),
        map->seed[1] ^ UINT64_C(0x7465646279746573),
    };
    size_t offset = 0;
    while (key.length - offset >= sizeof(uint64_t)) {
        uint64_t word = 0;
        memcpy(&word, key.data + offset, sizeof(word));
        state[3] ^= word;
        mix(state);
        state[0] ^= word;
        offset += sizeof(word);
    }
    uint64_t last = (uint64_t)key.length << 56;
    if (offset < key.length) {
        memcpy(&last, key.data + offset, key.length - offset);
        last |= (uint64_t)key.length << 56;
    }
    state[3] ^= last;
    mix(state);
    state[0] ^= last;
    state[2] ^= 0xff;
    for (int round = 0; round < 3; round++) {
        mix(state);
    }
    return state[0] ^ state[1] ^ state[2] ^ state[3];
}

struct map *map_new(void)
{
    struct map *map = memory_new(sizeof(*map));
    map->capacity = MAP_FIRST_CAPACITY;
    map->entries = memory_new(map->capacity * sizeof(*map->entries));
    /* Without randomness the table still works; only a peer that picks colliding keys could slow it
     * down. */
    (void)!getrandom(map->seed, sizeof(map->seed), 0);
    return map;
}

void map_free(struct map **map)
{
    if (!*map) {
        return;
    }
    for (size_t index = 0; index < (*map)->capacity; index++) {
        memory_free(&(*map)->entries[index].key);
    }
    memory_free(&(*map)->entries);
    memory_free(map);
}

/* The entry of `key`, or the free one where it would go. */
static struct map_entry *find_entry(const struct map *map, struct bytes key, uint64_t hash)
{
    size_t index = (size_t)hash & (map->capacity - 1);
    for (;;) {
        struct map_entry *entry = &map->entries[index];
        if (!entry->key) {
            return entry;
        }
        if (entry->hash == hash && bytes_equal(bytes_of(entry->key, entry->key_length), key)) {
            return entry;
        }
        index = (index + 1) & (map->capacity - 1);
    }
}

/* Moves the live entries to a table with room for twice as many. */
static void rebuild(struct map *map)
{
    struct map_entry *old_entries = map->entries;
    size_t old_capacity = map->capacity;
    while (map->capacity < map->live_count * 4) {
        map->capacity *= 2;
    }
    map->entries = memory_new(map->capacity * sizeof(*map->entries));
    map->used_count = map->live_count;
    for (size_t index = 0; index < old_capacity; index++) {
        struct map_entry *entry = &old_entries[index];
        if (entry->value) {
            *find_entry(map, bytes_of(entry->key, entry->key_length), entry->hash) = *entry;
        } else {
            memory_free(&entry->key);
        }
    }
    memory_free(&old_entries);
}

void *map_set(struct map *map, struct bytes key, void *value)
{
    if ((map->used_count + 1) * 4 > map->capacity * 3) {
        rebuild(map);
    }
    uint64_t hash = hash_key(map, key);
    struct map_entry *entry = find_entry(map, key, hash);
    if (!entry->key) {
        entry->key = memory_text(key);
        entry->key_length = key.length;
        entry->hash = hash;
        map->used_count++;
    }
    void *old_value = entry->value;
    entry->value = value;
    map->live_count += old_value ? 0 : 1;
    return old_value;
}

void *map_get(const struct map *map, struct bytes key)
{
    return find_entry(map, key, hash_key(map, key))->value;
}

void *map_remove(struct map *map, struct bytes key)
{
    struct map_entry *entry = find_entry(map, key, hash_key(map, key));
    void *value = entry->value;
    if (value) {
        entry->value = NULL;
        map->live_count--;
    }
    return value;
}

size_t map_count(const struct map *map)
{
    return map->live_count;
}

bool map_next(const struct map *map, size_t *position, struct bytes *ret_key, void **ret_value)
{
    while (*position < map->capacity) {
        const struct map_entry *entry = &map->entries[(*position)++];
        if (entry->value) {
            *ret_key = bytes_of(entry->key, entry->key_length);
            *ret_value = entry->value;
            return true;
        }
    }
    return false;
}
