/*
 * How the worker's queues are declared: to which exchange each is bound, and by which routing key
 * (celery/app/amqp.py: Queues.add, add_compat, new_missing, AMQP.Queues). task_queues says so, as
 * an app's manifest or a settings file has it:
 *   - a mapping of a list has the members of a kombu Queue: name, alias, exchange, exchange_type,
 *     routing_key, no_declare, auto_delete, and `bindings`, a list of exchange, exchange_type, routing_key
 *   - the value in a mapping has the options of Celery's older form: without a routing key (or
 *     binding_key) the queue's name is the key
 *   - a bare name, and one of -Q that task_queues does not have, is bound to an exchange of its
 *     own name
 * What is not said comes from task_default_exchange, task_default_exchange_type and
 * task_default_routing_key.
 */
#ifndef PETIOLE_WORKER_SETTINGS_BINDINGS_H
#define PETIOLE_WORKER_SETTINGS_BINDINGS_H

#include "broker/broker_redis_binding.h"
#include "worker/settings.h"

/* A queue as Celery's banner shows it. Everything is borrowed from the settings. */
struct settings_bindings_queue {
    const char *name;
    const char *exchange;
    const char *exchange_type;
    const char *routing_key;
};

/* The name of an element of task_queues; NULL when it has none. */
const char *settings_bindings_name(struct yaml_entry element);

/* The queue that task_queues names `name`, or has the alias `name` for; else `name` itself. */
const char *settings_bindings_resolve(const struct settings *settings, const char *name);

/* Checks the members of task_queues that are used here. INVALID when one is no text. */
bool settings_bindings_check(const struct settings *settings, struct error *reterr) MUST_CHECK;

/* Notes queues that messages will not reach by their exchange. */
void settings_bindings_note(struct settings *settings);

/* How the queue `name` is declared. */
struct settings_bindings_queue settings_bindings_of(const struct settings *settings,
                                                    const char *name);

/* What is to be bound for all queues of the settings, but for those with no_declare, and queues
 * with auto_delete of fanout exchanges; lives in their arena. */
const struct broker_redis_binding *settings_bindings_all(const struct settings *settings,
                                                         size_t *ret_count);

#endif
