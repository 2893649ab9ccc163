/*
 * Broker and backend URLs for Redis: redis://, rediss://, redis+socket:// and socket://, with
 * the query arguments that Kombu and Celery read (kombu/transport/redis.py: Channel._connparams;
 * celery/backends/redis.py: RedisBackend._params_from_url).
 */
#ifndef PETIOLE_BASE_REDIS_URL_H
#define PETIOLE_BASE_REDIS_URL_H

#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/stream.h"

struct redis_url {
    struct stream_options stream; /* strings live in the arena */
    const char *user;             /* NULL: none */
    const char *password;         /* NULL: none. Never printed. */
    int database;
    /* The URL for logs and banners, password as ** ("redis://user:**@host:6379/0"), as Kombu's
     * as_uri writes it. */
    const char *display;
};

/* Parses `text` into `ret_url`; strings are allocated in `arena`. `for_backend` applies the
 * backend's stricter rules (rediss:// needs ssl_cert_reqs). Errors INVALID or UNSUPPORTED
 * (sentinel://, other schemes) never contain the password. */
bool redis_url_parse(const char *text, bool for_backend, struct arena *arena,
                     struct redis_url *ret_url, struct error *reterr) MUST_CHECK;

/* A copy of `url` with its strings in `arena`. */
struct redis_url redis_url_copy(const struct redis_url *url, struct arena *arena);

#endif
