#include "executor/kubernetes_budget.h"

#define THOUSANDTHS 1000 /* qps is the same number in thousandths per millisecond */

/* What is left at `now_ms`. */
static int64_t left_at(const struct kubernetes_budget *budget, int64_t now_ms)
{
    int64_t most = budget->burst * THOUSANDTHS;
    int64_t missing = most - budget->thousandths;
    int64_t elapsed_ms = now_ms - budget->filled_ms;
    if (elapsed_ms <= 0) {
        return budget->thousandths;
    }
    return elapsed_ms > missing / budget->qps ? most
                                              : budget->thousandths + elapsed_ms * budget->qps;
}

void kubernetes_budget_init(struct kubernetes_budget *budget, int64_t qps, int64_t burst,
                            int64_t now_ms)
{
    *budget = (struct kubernetes_budget){
        .qps = qps,
        .burst = burst > 1 ? burst : 1,
        .filled_ms = now_ms,
    };
    budget->thousandths = budget->burst * THOUSANDTHS;
}

void kubernetes_budget_take_ahead(struct kubernetes_budget *budget, int64_t now_ms)
{
    if (budget->qps > 0) {
        budget->thousandths = left_at(budget, now_ms) - THOUSANDTHS;
        budget->filled_ms = now_ms;
    }
}

bool kubernetes_budget_take(struct kubernetes_budget *budget, int64_t now_ms)
{
    if (kubernetes_budget_wait_ms(budget, now_ms) > 0) {
        return false;
    }
    kubernetes_budget_take_ahead(budget, now_ms);
    return true;
}

int64_t kubernetes_budget_wait_ms(const struct kubernetes_budget *budget, int64_t now_ms)
{
    int64_t missing = budget->qps > 0 ? THOUSANDTHS - left_at(budget, now_ms) : 0;
    return missing > 0 ? (missing + budget->qps - 1) / budget->qps : 0;
}
