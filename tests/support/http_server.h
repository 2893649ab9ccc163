/*
 * A little HTTP server for unit tests, on a thread of its own: one request a connection, answered by
 * a function of the test.
 */
#ifndef PETIOLE_TESTS_HTTP_SERVER_H
#define PETIOLE_TESTS_HTTP_SERVER_H

#include <stdint.h>

struct http_server;

/* Writes the answer to `request` (head and body, NUL-terminated) to `descriptor`, on the server's
 * thread. `number` counts requests from 1. */
typedef void(http_server_fn)(void *context, int descriptor, const char *request, int number);

/* Returns new: listens on a free port of 127.0.0.1. */
struct http_server *http_server_start(http_server_fn *answer, void *context);

/* Ends the thread; leaves NULL. Clients must have gone. */
void http_server_stop(struct http_server **server);

uint16_t http_server_port(const struct http_server *server);

/* The last request that was read; stable while none is under way. */
const char *http_server_last(const struct http_server *server);

/* For answers: writes all of `text`; a 200 or other whole answer with a body; or waits until the
 * client has gone. */
void http_server_write(int descriptor, const char *text);
void http_server_answer(int descriptor, int status, const char *body);
void http_server_linger(int descriptor);

#endif
