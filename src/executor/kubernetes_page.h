/*
 * Lists by pages: what a request says of the page it wants, and what a page says of the next
 * (k8s.io/apimachinery/pkg/apis/meta/v1: ListOptions, ListMeta).
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_PAGE_H
#define PETIOLE_EXECUTOR_KUBERNETES_PAGE_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/json.h"

#define KUBERNETES_PAGE_MAX_TOKEN ((size_t)8 * 1024) /* of what the server calls a next page */

/* Appends "limit=…", the selector of labels (NULL: all) and the token of the page (empty: the first
 * one). */
void kubernetes_page_append_query(struct buffer *query, unsigned limit, const char *selector,
                                  struct bytes token);

/* Appends "&<name>=<value>"; the value may be anything. */
void kubernetes_page_append_parameter(struct buffer *query, const char *name, struct bytes value);

/* Makes `token` that of the page after `list`; its maximum is KUBERNETES_PAGE_MAX_TOKEN. False, and
 * an empty token, when `list` is the last one. */
bool kubernetes_page_keep_next(struct json list, struct buffer *token);

#endif
