/*
 * From settings to the options of the Redis broker and backend: URLs, TLS settings, transport
 * options. Every bad value is named with its place, before anything is connected.
 */
#ifndef PETIOLE_WORKER_SETTINGS_REDIS_H
#define PETIOLE_WORKER_SETTINGS_REDIS_H

#include "base/error.h"
#include "broker/broker_redis.h"
#include "result/result_redis.h"
#include "worker/settings.h"

/* Fills `ret_options` from broker_url, broker_use_ssl, broker_connection_timeout,
 * broker_transport_options and the queues. Strings live as long as the settings; instance_id is
 * left to the caller. INVALID when there is no broker URL or something is wrong with it. */
bool settings_redis_broker(struct settings *settings, struct broker_redis_options *ret_options,
                           struct error *reterr) MUST_CHECK;

/* Fills `ret_options` from result_backend, redis_*, result_backend_transport_options. NOT_FOUND
 * when no backend is set (or "disabled"): results are not stored. */
bool settings_redis_backend(struct settings *settings, struct result_redis_options *ret_options,
                            struct error *reterr) MUST_CHECK;

#endif
