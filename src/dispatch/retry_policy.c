#include "dispatch/retry_policy.h"

#include <math.h>

/* Whether `name` is "Class" or "module.Class" of the exception. */
static bool names_exception(const char *name, struct bytes module, struct bytes type)
{
    struct bytes whole = bytes_from_text(name);
    if (bytes_equal(whole, type) || bytes_equal(whole, BYTES("Exception"))
        || bytes_equal(whole, BYTES("builtins.Exception"))) {
        return true;
    }
    return whole.length == module.length + 1 + type.length && bytes_starts_with(whole, module)
           && whole.data[module.length] == '.'
           && bytes_equal(bytes_skip(whole, module.length + 1), type);
}

bool retry_policy_lists(const char *const *names, struct bytes exc_module, struct bytes exc_type)
{
    for (; names && *names; names++) {
        if (names_exception(*names, exc_module, exc_type)) {
            return true;
        }
    }
    return false;
}

bool retry_policy_applies(const struct task_type *type, struct bytes exc_module,
                          struct bytes exc_type, int64_t retries)
{
    return retry_policy_lists(type->autoretry_for, exc_module, exc_type)
           && !retry_policy_lists(type->dont_autoretry_for, exc_module, exc_type)
           && (type->max_retries < 0 || retries < type->max_retries);
}

double retry_policy_countdown_s(const struct task_type *type, int64_t retries, uint64_t random)
{
    if (type->retry_backoff <= 0) {
        return type->default_retry_delay_s;
    }
    double factor = type->retry_backoff < 1 ? 1 : floor(type->retry_backoff);
    double doublings = retries > 60 ? 60 : (double)retries;
    double countdown_s = fmin(type->retry_backoff_max_s, factor * exp2(doublings));
    if (type->retry_jitter) {
        countdown_s = (double)(random % ((uint64_t)countdown_s + 1));
    }
    return countdown_s < 0 ? 0 : countdown_s;
}
