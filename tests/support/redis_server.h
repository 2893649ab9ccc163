/*
 * A real redis-server of a test's own: on a free loopback port and a unix socket, in a folder
 * that goes with it. Failures of any of this end the test.
 */
#ifndef PETIOLE_TESTS_SUPPORT_REDIS_SERVER_H
#define PETIOLE_TESTS_SUPPORT_REDIS_SERVER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct redisContext;

struct redis_server {
    pid_t pid; /* 0: not running */
    unsigned short port;
    unsigned short tls_port; /* 0: none */
    char directory[64];
    char unix_path[96];
    char url[96];                /* redis://127.0.0.1:port/0 */
    struct redisContext *client; /* a blocking connection of the test */
};

/* Starts one and waits until it answers. `with_tls` makes a CA and certificates in `directory`
 * (ca.crt, server.crt for localhost and 127.0.0.1) and opens tls_port. */
void redis_server_start(struct redis_server *server, bool with_tls);

/* Ends it at once, as kill -9 does; the port stays its own. */
void redis_server_kill(struct redis_server *server);

/* Starts it again, empty, on the same port. */
void redis_server_restart(struct redis_server *server);

/* Stops it and removes its folder. */
void redis_server_stop(struct redis_server *server);

/* Runs a command as hiredis' redisCommand does. An error reply fails the test. */
void redis_server_do(struct redis_server *server, const char *format, ...);

/* The same for an integer reply. */
int64_t redis_server_integer(struct redis_server *server, const char *format, ...);

/* The same for a string reply, or the first of an array; copied into `text`, cut there; "" for
 * nil. */
void redis_server_text(struct redis_server *server, char *text, size_t size, const char *format,
                       ...);

#endif
