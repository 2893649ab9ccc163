#include "base/stream_tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct stream_tls_session {
    SSL *ssl;
    BIO *incoming; /* from the peer; owned by ssl */
    BIO *outgoing; /* to the peer; owned by ssl */
};

/* Describes OpenSSL's latest complaint and forgets the others. */
static bool fail(struct error *reterr, enum error_kind kind, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return error_set(reterr, kind, "%s: %s", what, reason ? reason : "unexpected end");
}

static bool load_files(SSL_CTX *context, const struct stream_tls *options, struct error *reterr)
{
    bool is_trusting = options->verify != STREAM_VERIFY_NONE;
    if (options->ca_file && SSL_CTX_load_verify_file(context, options->ca_file) != 1) {
        fail(reterr, ERROR_INVALID, "cannot use the CA file");
        return error_wrap(reterr, "%s", options->ca_file);
    }
    if (!options->ca_file && is_trusting && SSL_CTX_set_default_verify_paths(context) != 1) {
        return fail(reterr, ERROR_INVALID, "cannot use the system's CA certificates");
    }
    if (!options->certificate_file) {
        return true;
    }
    const char *key_file = options->key_file ? options->key_file : options->certificate_file;
    if (SSL_CTX_use_certificate_chain_file(context, options->certificate_file) != 1) {
        fail(reterr, ERROR_INVALID, "cannot use the client certificate");
        return error_wrap(reterr, "%s", options->certificate_file);
    }
    if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1) {
        fail(reterr, ERROR_INVALID, "cannot use the client key");
        return error_wrap(reterr, "%s", key_file);
    }
    return true;
}

/* Tells the server whom we want, and ourselves whom to accept. */
static bool set_names(SSL *ssl, const struct stream_tls *options, const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    bool is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    /* SSL_set_tlsext_host_name casts const away: it is given a copy of its own. */
    char *name CLEANUP(memory_free_at) = memory_text(bytes_from_text(host));
    if (!is_address
        && SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name) != 1) {
        return false;
    }
    if (!options->check_hostname || options->verify == STREAM_VERIFY_NONE) {
        return true;
    }
    return is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1
                      : SSL_set1_host(ssl, host) == 1;
}

static SSL_CTX *new_context(const struct stream_tls *options, struct error *reterr)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context) {
        fail(reterr, ERROR_TEMPORARY, "cannot set up TLS");
        return NULL;
    }
    (void)SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    (void)SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    /* To a client, OPTIONAL means the same as REQUIRED (Python's ssl.CERT_OPTIONAL). */
    SSL_CTX_set_verify(
        context, options->verify == STREAM_VERIFY_NONE ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (!load_files(context, options, reterr)) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

bool stream_tls_new(const struct stream_tls *options, const char *host,
                    struct stream_tls_session **ret_session, struct error *reterr)
{
    SSL_CTX *context = new_context(options, reterr);
    if (!context) {
        return false;
    }
    struct stream_tls_session *session = memory_new(sizeof(*session));
    session->ssl = SSL_new(context);
    SSL_CTX_free(context); /* the session holds on to it */
    session->incoming = BIO_new(BIO_s_mem());
    session->outgoing = BIO_new(BIO_s_mem());
    if (!session->ssl || !session->incoming || !session->outgoing) {
        abort(); /* out of memory */
    }
    SSL_set_bio(session->ssl, session->incoming, session->outgoing);
    SSL_set_connect_state(session->ssl);
    if (host && !set_names(session->ssl, options, host)) {
        stream_tls_free(&session);
        return fail(reterr, ERROR_INVALID, "cannot use the host name for TLS");
    }
    *ret_session = session;
    return true;
}

void stream_tls_free(struct stream_tls_session **session)
{
    if (!*session) {
        return;
    }
    SSL_free((*session)->ssl);
    memory_free(session);
}

void stream_tls_receive(struct stream_tls_session *session, struct bytes ciphertext)
{
    size_t written = 0;
    if (BIO_write_ex(session->incoming, ciphertext.data, ciphertext.length, &written) != 1
        || written != ciphertext.length) {
        abort(); /* a memory BIO refuses only when memory is out */
    }
}

bool stream_tls_handshake(struct stream_tls_session *session, bool *ret_is_done,
                          struct error *reterr)
{
    ERR_clear_error();
    int result = SSL_do_handshake(session->ssl);
    if (result == 1) {
        *ret_is_done = true;
        return true;
    }
    int reason = SSL_get_error(session->ssl, result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
        *ret_is_done = false;
        return true;
    }
    long verdict = SSL_get_verify_result(session->ssl);
    if (verdict != X509_V_OK && SSL_get_verify_mode(session->ssl) != SSL_VERIFY_NONE) {
        ERR_clear_error();
        return error_set(reterr, ERROR_REFUSED, "the certificate of the server is refused: %s",
                         X509_verify_cert_error_string(verdict));
    }
    return fail(reterr, ERROR_TEMPORARY, "TLS handshake failed");
}

bool stream_tls_read(struct stream_tls_session *session, char *place, size_t size,
                     size_t *ret_length, struct error *reterr)
{
    size_t length = 0;
    ERR_clear_error();
    int result = SSL_read_ex(session->ssl, place, size, &length);
    if (result == 1) {
        *ret_length = length;
        return true;
    }
    int reason = SSL_get_error(session->ssl, result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) {
        *ret_length = 0;
        return true;
    }
    if (reason == SSL_ERROR_ZERO_RETURN) {
        return error_set(reterr, ERROR_TEMPORARY, "the server ended the TLS session");
    }
    return fail(reterr, ERROR_TEMPORARY, "TLS failed");
}

bool stream_tls_write(struct stream_tls_session *session, struct bytes plain, struct error *reterr)
{
    size_t written = 0;
    ERR_clear_error();
    if (plain.length > 0 && SSL_write_ex(session->ssl, plain.data, plain.length, &written) != 1) {
        return fail(reterr, ERROR_TEMPORARY, "TLS failed");
    }
    return true;
}

void stream_tls_finish(struct stream_tls_session *session)
{
    if (SSL_is_init_finished(session->ssl)) {
        (void)SSL_shutdown(session->ssl);
        ERR_clear_error();
    }
}

bool stream_tls_take(struct stream_tls_session *session, struct buffer *out)
{
    size_t pending = BIO_ctrl_pending(session->outgoing);
    if (pending == 0) {
        return true;
    }
    char *place = buffer_reserve(out, pending);
    size_t length = 0;
    if (!place || BIO_read_ex(session->outgoing, place, pending, &length) != 1) {
        return false;
    }
    buffer_grew(out, length);
    return true;
}
