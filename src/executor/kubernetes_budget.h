/*
 * How many requests a worker may send to the API server: a token bucket, as the clients of
 * Kubernetes have it (client-go/util/flowcontrol: NewTokenBucketRateLimiter). Pure: time is an
 * argument.
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_BUDGET_H
#define PETIOLE_EXECUTOR_KUBERNETES_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct kubernetes_budget {
    int64_t qps;         /* requests per second in the long run; 0: no limit */
    int64_t burst;       /* requests at once, after a rest; at least 1 */
    int64_t thousandths; /* of a request that are left; below 0 after spending ahead */
    int64_t filled_ms;
};

/* A full one. Both limits are at most 1,000,000,000; a `burst` below 1 is 1. */
void kubernetes_budget_init(struct kubernetes_budget *budget, int64_t qps, int64_t burst,
                            int64_t now_ms);

/* Spends one request. False when none is left now. */
bool kubernetes_budget_take(struct kubernetes_budget *budget, int64_t now_ms);

/* Spends one request, whether one is left or not: those that come later wait the longer. */
void kubernetes_budget_take_ahead(struct kubernetes_budget *budget, int64_t now_ms);

/* Milliseconds until there is one to take, 0 when there is. */
int64_t kubernetes_budget_wait_ms(const struct kubernetes_budget *budget, int64_t now_ms);

#endif
