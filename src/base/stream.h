/*
 * One connection to a peer: TCP, unix socket, TLS over either (OpenSSL), or a socket or pipe that is
 * open already, on the loop. Bytes
 * written during one turn of the loop leave in one system call; bytes read are handed up as they
 * come. Name look-up runs on libuv's thread pool. It knows nothing of what it carries.
 */
#ifndef PETIOLE_BASE_STREAM_H
#define PETIOLE_BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/loop.h"

struct stream;

enum stream_verify {
    STREAM_VERIFY_NONE,
    STREAM_VERIFY_OPTIONAL,
    STREAM_VERIFY_REQUIRED
};

struct stream_tls {
    bool enabled;
    enum stream_verify verify; /* ssl_cert_reqs of redis-py */
    bool check_hostname;
    const char *ca_file; /* NULL: the system's store */
    const char *certificate_file;
    const char *key_file;
};

/* Where to connect; copied by stream_open. */
struct stream_options {
    const char *host; /* name or address; NULL when unix_path is set */
    unsigned short port;
    const char *unix_path;
    /* An open socket, or an end of a pipe, which the stream takes; unix_path is its name in errors,
     * and host is NULL. 0: connect. */
    int descriptor;
    struct stream_tls tls;
    int connect_timeout_ms; /* name look-up, connect and handshake together */
    /* What may wait to be written; beyond it the connection is dropped with TOO_LARGE. */
    size_t max_write_bytes;
    /* What is read in one turn of the loop at most, of a peer that writes more than its owner can
     * take: the others' turn comes in between. 64 KiB is the highest bound. 0: none. */
    size_t turn_read_bytes;
};

/* Both ends of the conversation with the owner. All are called from the loop, never inside
 * stream_open. */
struct stream_events {
    void (*on_open)(void *context); /* mandatory: connected, handshake done */
    void (*on_data)(
        void *context,
        struct bytes data); /* mandatory: borrows until it returns; may close the stream */
    void (*on_drop)(
        void *context,
        const struct error *error); /* mandatory: failed or ended, once, never after stream_close */
};

/* Begins to connect and returns new. TCP_NODELAY, keepalive (30 s, 3 probes of 5 s) and
 * TCP_USER_TIMEOUT (45 s) are set. */
struct stream *stream_open(struct loop *loop, const struct stream_options *options,
                           const struct stream_events *events, void *context);

/* Queues a copy of `data`; it leaves at the end of this turn, or once connected. */
void stream_write(struct stream *stream, struct bytes data);

/* The buffer that stream_write fills, to format into directly; flushed like a write. Borrowed
 * until the turn ends. */
struct buffer;
struct buffer *stream_out(struct stream *stream);

/* Hands up what has arrived by now, without waiting for the loop, and no more than that, however much
 * the peer goes on to write; never drops the connection. Not for TLS, and not inside on_data. */
void stream_read_now(struct stream *stream);

/* Drops the connection without a callback and leaves NULL; the memory goes when libuv has let go
 * of it. What was written in this turn is tried once more. Accepts NULL. */
void stream_close(struct stream **stream);

#endif
