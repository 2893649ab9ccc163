/*
 * The TLS client of a stream, without any I/O: OpenSSL between two memory buffers. The stream
 * brings what the peer sent and takes away what is to be sent.
 */
#ifndef PETIOLE_BASE_STREAM_TLS_H
#define PETIOLE_BASE_STREAM_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stream.h"

struct stream_tls_session;

/* Makes a session for one connection to `host` (NULL: a unix socket, whose name cannot be
 * checked). Returns new through `ret_session`. Error INVALID when a certificate or key cannot be
 * used. */
bool stream_tls_new(const struct stream_tls *options, const char *host,
                    struct stream_tls_session **ret_session, struct error *reterr) MUST_CHECK;

/* Frees it and leaves NULL; accepts NULL. */
void stream_tls_free(struct stream_tls_session **session);

/* Takes in what the peer sent. */
void stream_tls_receive(struct stream_tls_session *session, struct bytes ciphertext);

/* Goes on with the handshake; `ret_is_done` tells whether it is over. Error REFUSED when the
 * certificate does not pass, TEMPORARY otherwise. */
bool stream_tls_handshake(struct stream_tls_session *session, bool *ret_is_done,
                          struct error *reterr) MUST_CHECK;

/* Reads at most `size` decrypted bytes into `place`; `ret_length` 0: nothing there yet. Error
 * TEMPORARY when the peer has ended the session or broke it. */
bool stream_tls_read(struct stream_tls_session *session, char *place, size_t size,
                     size_t *ret_length, struct error *reterr) MUST_CHECK;

/* Encrypts `plain`, after the handshake. */
bool stream_tls_write(struct stream_tls_session *session, struct bytes plain,
                      struct error *reterr) MUST_CHECK;

/* Says good-bye to the peer. */
void stream_tls_finish(struct stream_tls_session *session);

/* Moves what is to be sent to the end of `out`; false past its maximum. */
bool stream_tls_take(struct stream_tls_session *session, struct buffer *out) MUST_CHECK;

#endif
