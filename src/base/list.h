/*
 * An intrusive doubly linked list: the nodes are members of the listed structs, so that linking
 * never allocates and unlinking needs no search. A struct is in at most one list per node member.
 */
#ifndef PETIOLE_BASE_LIST_H
#define PETIOLE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/attributes.h"

struct list_node {
    struct list_node *next; /* NULL: not in a list */
    struct list_node *previous;
};

struct list {
    struct list_node head; /* a ring: an empty list points at its own head */
};

#define list_entry(node_pointer, type, member) CONTAINER_OF(node_pointer, type, member)

/* NOLINTBEGIN(bugprone-macro-parentheses): names that are declared take no parentheses. */
/* Walks `list_pointer`; `next` is read ahead, so the body may remove `node`, and nothing else. */
#define list_for_each(node, following, list_pointer)                                               \
    for (struct list_node *node = (list_pointer)->head.next, *following = node->next;              \
         node != &(list_pointer)->head; node = following, following = node->next)

/* NOLINTEND(bugprone-macro-parentheses) */

static inline void list_init(struct list *list)
{
    list->head.next = &list->head;
    list->head.previous = &list->head;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->head.next == &list->head;
}

static inline bool list_is_linked(const struct list_node *node)
{
    return node->next != NULL;
}

/* Puts `node`, which must be in no list, behind the last one. */
static inline void list_append(struct list *list, struct list_node *node)
{
    node->next = &list->head;
    node->previous = list->head.previous;
    list->head.previous->next = node;
    list->head.previous = node;
}

/* Puts `node`, which must be in no list, before the first one. */
static inline void list_prepend(struct list *list, struct list_node *node)
{
    node->next = list->head.next;
    node->previous = &list->head;
    list->head.next->previous = node;
    list->head.next = node;
}

/* Takes `node` out of its list; nothing happens when it is in none. */
static inline void list_remove(struct list_node *node)
{
    if (!list_is_linked(node)) {
        return;
    }
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = NULL;
    node->previous = NULL;
}

/* The first node, or NULL when the list is empty. */
static inline struct list_node *list_first(const struct list *list)
{
    return list_is_empty(list) ? NULL : list->head.next;
}

/* Takes the first node out and returns it, or NULL when the list is empty. */
static inline struct list_node *list_pop(struct list *list)
{
    struct list_node *node = list_first(list);
    if (node) {
        list_remove(node);
    }
    return node;
}

#endif
