#include "broker/broker.h"

#include <assert.h>

void delivery_free(struct delivery **delivery)
{
    if (!*delivery) {
        return;
    }
    assert((*delivery)->is_settled || !list_is_linked(&(*delivery)->node));
    struct arena *arena = (*delivery)->arena;
    *delivery = NULL;
    arena_free(&arena);
}
