#include "dispatch/revoked.h"

#include "base/list.h"
#include "base/map.h"
#include "base/memory.h"

struct revoked_id {
    struct list_node node; /* oldest first */
    double since_s;
    bool terminate;
    struct bytes id; /* in the same block */
};

struct revoked {
    struct map *ids; /* id -> struct revoked_id, owned */
    struct list by_age;
    size_t max_count;
    double expires_s;
};

struct revoked *revoked_new(size_t max_count, double expires_s)
{
    struct revoked *revoked = memory_new(sizeof(*revoked));
    revoked->ids = map_new();
    list_init(&revoked->by_age);
    revoked->max_count = max_count > 0 ? max_count : REVOKED_MAX;
    revoked->expires_s = expires_s > 0 ? expires_s : REVOKED_EXPIRES_S;
    return revoked;
}

static struct revoked_id *oldest_of(const struct revoked *revoked)
{
    struct list_node *node = list_first(&revoked->by_age);
    return node ? list_entry(node, struct revoked_id, node) : NULL;
}

static void drop(struct revoked *revoked, struct revoked_id *entry)
{
    list_remove(&entry->node);
    (void)map_remove(revoked->ids, entry->id);
    memory_free(&entry);
}

void revoked_free(struct revoked **revoked)
{
    struct revoked_id *entry = NULL;
    if (!*revoked) {
        return;
    }
    while ((entry = oldest_of(*revoked)) != NULL) {
        drop(*revoked, entry);
    }
    map_free(&(*revoked)->ids);
    memory_free(revoked);
}

/* Makes room when the set is full: what has expired goes too. */
static void purge(struct revoked *revoked, double now_s)
{
    struct revoked_id *entry = NULL;
    while (map_count(revoked->ids) > revoked->max_count) {
        drop(revoked, oldest_of(revoked));
    }
    while ((entry = oldest_of(revoked)) != NULL && entry->since_s + revoked->expires_s <= now_s) {
        drop(revoked, entry);
    }
}

void revoked_add(struct revoked *revoked, struct bytes id, bool terminate, double now_s)
{
    struct revoked_id *old = map_get(revoked->ids, id);
    struct revoked_id *entry = memory_new(sizeof(*entry) + id.length);
    char *text = (char *)(entry + 1);
    memcpy(text, id.data ? id.data : "", id.length);
    entry->id = bytes_of(text, id.length);
    entry->since_s = now_s;
    entry->terminate = terminate || (old && old->terminate);
    if (old) {
        drop(revoked, old);
    }
    (void)map_set(revoked->ids, entry->id, entry);
    list_append(&revoked->by_age, &entry->node);
    if (map_count(revoked->ids) >= revoked->max_count) {
        purge(revoked, now_s);
    }
}

bool revoked_has(const struct revoked *revoked, struct bytes id)
{
    return revoked && map_get(revoked->ids, id);
}

bool revoked_terminates(const struct revoked *revoked, struct bytes id)
{
    const struct revoked_id *entry = revoked ? map_get(revoked->ids, id) : NULL;
    return entry && entry->terminate;
}

size_t revoked_count(const struct revoked *revoked)
{
    return map_count(revoked->ids);
}
