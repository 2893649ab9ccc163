#include "base/stream.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/keepalive.h"
#include "base/memory.h"
#include "base/stream_options.h"
#include "base/stream_tls.h"

#define INPUT_BYTES        ((size_t)64 * 1024)
#define PLAIN_BYTES        ((size_t)16 * 1024) /* of one TLS record */
#define KEPT_BUFFER_BYTES  ((size_t)256 * 1024)
#define TLS_OVERHEAD_BYTES ((size_t)1024 * 1024) /* records and handshake beyond max_write_bytes */

enum stream_state {
    STREAM_RESOLVING,   /* nothing has begun yet, or the name is being looked up */
    STREAM_CONNECTING,  /* to the addresses, one after the other */
    STREAM_HANDSHAKING, /* TLS */
    STREAM_OPEN,
    STREAM_DROPPED, /* the owner has been told */
    STREAM_CLOSED,  /* by the owner; freed when libuv has let go of it */
};

struct stream {
    struct loop *loop;
    struct stream_events events;
    void *context;
    enum stream_state state;
    struct arena *texts;            /* owned: the strings of `options` */
    struct stream_options options;  /* a copy */
    struct stream_tls_session *tls; /* NULL: plain */

    union {
        uv_handle_t any;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } handle;

    bool handle_is_open; /* until its close callback */
    bool is_resolving;
    uv_getaddrinfo_t resolve;
    struct addrinfo *addresses; /* owned */
    const struct addrinfo *next_address;
    uv_connect_t connect;
    uv_write_t write;
    bool is_writing;
    struct buffer out;     /* what the owner wrote */
    struct buffer sending; /* what libuv is to write; ciphertext with TLS */
    char *input;
    struct timer deadline; /* of the connect */
    struct loop_call flush;
    struct loop_call begin;
    struct loop_call resume;
    struct error error; /* of the latest failure */
};

static void connect_next(struct stream *stream);

/* The end */

static void maybe_free(struct stream *stream)
{
    if (stream->state != STREAM_CLOSED || stream->handle_is_open || stream->is_resolving) {
        return;
    }
    if (stream->options.descriptor > 0) {
        (void)close(stream->options.descriptor); /* never taken over */
    }
    stream_tls_free(&stream->tls);
    uv_freeaddrinfo(stream->addresses);
    buffer_fini(&stream->out);
    buffer_fini(&stream->sending);
    memory_free(&stream->input);
    arena_free(&stream->texts);
    memory_free(&stream);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct stream *stream = handle->data;
    stream->handle_is_open = false;
    if (stream->state == STREAM_CONNECTING) {
        connect_next(stream);
        return;
    }
    maybe_free(stream);
}

static void close_handle(struct stream *stream)
{
    if (stream->handle_is_open && !uv_is_closing(&stream->handle.any)) {
        uv_close(&stream->handle.any, on_handle_closed);
    }
}

static void leave(struct stream *stream, enum stream_state state)
{
    stream->state = state;
    loop_stop_timer(stream->loop, &stream->deadline);
    loop_cancel(stream->loop, &stream->flush);
    loop_cancel(stream->loop, &stream->begin);
    loop_cancel(stream->loop, &stream->resume);
    close_handle(stream);
}

/* Tells the owner of stream->error. Whoever calls this must not touch the stream afterwards. */
static void drop(struct stream *stream)
{
    leave(stream, STREAM_DROPPED);
    struct error error = stream->error;
    stream->events.on_drop(stream->context, &error);
}

/* "redis.example:6379" or the path. */
static void describe_failure(struct stream *stream, enum error_kind kind, const char *what)
{
    if (stream->options.unix_path) {
        error_set(&stream->error, kind, "%s: %s", stream->options.unix_path, what);
    } else {
        error_set(&stream->error, kind, "%s:%u: %s", stream->options.host,
                  (unsigned)stream->options.port, what);
    }
}

static void drop_for(struct stream *stream, int uv_error)
{
    describe_failure(stream, ERROR_TEMPORARY,
                     uv_error == UV_EOF ? "the connection was closed by the server"
                                        : uv_strerror(uv_error));
    drop(stream);
}

static void drop_for_tls(struct stream *stream)
{
    struct error inner = stream->error;
    describe_failure(stream, inner.kind, inner.message);
    drop(stream);
}

static void on_deadline(void *context)
{
    struct stream *stream = context;
    char what[64];
    (void)snprintf(what, sizeof(what), "no connection within %d ms",
                   stream->options.connect_timeout_ms);
    describe_failure(stream, ERROR_TIMEOUT, what);
    drop(stream);
}

/* Writing */

static void empty_buffer(struct buffer *buffer)
{
    if (buffer->capacity > KEPT_BUFFER_BYTES) {
        buffer_fini(buffer);
    } else {
        buffer_clear(buffer);
    }
}

/* Moves what the owner wrote into `sending`, which is empty. */
static bool fill_sending(struct stream *stream)
{
    if (stream->out.overflowed) {
        describe_failure(stream, ERROR_TOO_LARGE, "more waits to be written than is allowed");
        return false;
    }
    if (!stream->tls) {
        struct buffer full = stream->out;
        stream->out = stream->sending;
        stream->sending = full;
        return true;
    }
    if (stream->state == STREAM_OPEN) {
        if (!stream_tls_write(stream->tls, buffer_view(&stream->out), &stream->error)) {
            return false;
        }
        empty_buffer(&stream->out);
    }
    if (!stream_tls_take(stream->tls, &stream->sending)) {
        describe_failure(stream, ERROR_TOO_LARGE, "more waits to be written than is allowed");
        return false;
    }
    return true;
}

static void on_written(uv_write_t *request, int status)
{
    struct stream *stream = request->data;
    stream->is_writing = false;
    if (stream->state >= STREAM_DROPPED) {
        return;
    }
    if (status < 0) {
        drop_for(stream, status);
        return;
    }
    empty_buffer(&stream->sending);
    loop_defer(stream->loop, &stream->flush);
}

/* Writes `sending`, the rest of it later; a negative libuv error on failure. */
static int send_sending(struct stream *stream)
{
    uv_buf_t piece = {.base = stream->sending.data, .len = stream->sending.length};
    int written = uv_try_write(&stream->handle.stream, &piece, 1);
    if (written < 0 && written != UV_EAGAIN) {
        return written;
    }
    size_t done = written > 0 ? (size_t)written : 0;
    if (done == stream->sending.length) {
        empty_buffer(&stream->sending);
        return 0;
    }
    piece.base += done;
    piece.len -= done;
    stream->write.data = stream;
    stream->is_writing = true;
    return uv_write(&stream->write, &stream->handle.stream, &piece, 1, on_written);
}

static void flush(void *context)
{
    struct stream *stream = context;
    bool is_connected = stream->state == STREAM_OPEN || stream->state == STREAM_HANDSHAKING;
    if (!is_connected || stream->is_writing) {
        return; /* on_written and become_open come back here */
    }
    if (!stream->tls && stream->state != STREAM_OPEN) {
        return;
    }
    if (!fill_sending(stream)) {
        drop(stream);
        return;
    }
    int failed = stream->sending.length > 0 ? send_sending(stream) : 0;
    if (failed) {
        drop_for(stream, failed);
    }
}

/* Reading */

static void on_allocate(uv_handle_t *handle, size_t suggested_bytes, uv_buf_t *ret_piece)
{
    struct stream *stream = handle->data;
    (void)suggested_bytes;
    if (!stream->input) {
        stream->input = memory_resize(NULL, INPUT_BYTES, 1);
    }
    size_t most = stream->options.turn_read_bytes;
    size_t length = most > 0 && most < INPUT_BYTES ? most : INPUT_BYTES;
    *ret_piece = uv_buf_init(stream->input, (unsigned)length);
}

static void become_open(struct stream *stream)
{
    stream->state = STREAM_OPEN;
    loop_stop_timer(stream->loop, &stream->deadline);
    loop_defer(stream->loop, &stream->flush);
    stream->events.on_open(stream->context);
}

/* Hands up what TLS has decrypted. */
static void read_plain(struct stream *stream)
{
    char plain[PLAIN_BYTES];
    while (stream->state == STREAM_OPEN) {
        size_t length = 0;
        if (!stream_tls_read(stream->tls, plain, sizeof(plain), &length, &stream->error)) {
            drop_for_tls(stream);
            return;
        }
        if (length == 0) {
            return;
        }
        stream->events.on_data(stream->context, bytes_of(plain, length));
    }
}

static void shake_hands(struct stream *stream)
{
    bool is_done = false;
    if (!stream_tls_handshake(stream->tls, &is_done, &stream->error)) {
        drop_for_tls(stream);
        return;
    }
    loop_defer(stream->loop, &stream->flush);
    if (is_done) {
        become_open(stream);
    }
}

static void on_read(uv_stream_t *handle, ssize_t count, const uv_buf_t *piece)
{
    struct stream *stream = handle->data;
    if (count < 0) {
        drop_for(stream, (int)count);
        return;
    }
    struct bytes data = bytes_of(piece->base, (size_t)count);
    if (count == 0) {
        return;
    }
    if (data.length == piece->len && stream->options.turn_read_bytes > 0) {
        (void)uv_read_stop(&stream->handle.stream);
        loop_defer(stream->loop, &stream->resume);
    }
    if (!stream->tls) {
        stream->events.on_data(stream->context, data);
        return;
    }
    stream_tls_receive(stream->tls, data);
    if (stream->state == STREAM_HANDSHAKING) {
        shake_hands(stream);
    }
    if (stream->state == STREAM_OPEN) {
        loop_defer(stream->loop, &stream->flush); /* TLS may have something to answer by itself */
        read_plain(stream);
    }
}

static void resume(void *context)
{
    struct stream *stream = context;
    int failed = uv_read_start(&stream->handle.stream, on_allocate, on_read);
    if (failed) {
        drop_for(stream, failed);
    }
}

/* Only what is there at the beginning: who writes without end must not hold the loop. */
void stream_read_now(struct stream *stream)
{
    uv_os_fd_t descriptor = -1;
    uv_buf_t piece;
    int unread_bytes = 0;
    if (stream->state != STREAM_OPEN || uv_fileno(&stream->handle.any, &descriptor) != 0
        || ioctl(descriptor, FIONREAD, &unread_bytes) != 0) {
        return;
    }
    on_allocate(&stream->handle.any, 0, &piece);
    while (unread_bytes > 0 && stream->state == STREAM_OPEN) {
        size_t unread = (size_t)unread_bytes;
        ssize_t count = read(descriptor, piece.base, unread < piece.len ? unread : piece.len);
        if (count <= 0) {
            return; /* an end is told by the loop */
        }
        unread_bytes -= (int)count;
        stream->events.on_data(stream->context, bytes_of(piece.base, (size_t)count));
    }
}

/* Connecting */

static void set_socket_options(struct stream *stream)
{
    if (stream->options.unix_path) {
        return;
    }
    uv_os_fd_t descriptor = -1;
    (void)uv_tcp_nodelay(&stream->handle.tcp, 1);
    if (uv_fileno(&stream->handle.any, &descriptor) == 0) {
        keepalive_set(descriptor);
    }
}

static void on_connected(uv_connect_t *request, int status)
{
    struct stream *stream = request->data;
    if (stream->state != STREAM_CONNECTING) {
        return; /* dropped or closed meanwhile */
    }
    if (status < 0) {
        describe_failure(stream, ERROR_TEMPORARY, uv_strerror(status));
        close_handle(stream); /* then on_handle_closed tries the next address */
        return;
    }
    set_socket_options(stream);
    int failed = uv_read_start(&stream->handle.stream, on_allocate, on_read);
    if (failed) {
        drop_for(stream, failed);
        return;
    }
    if (!stream->tls) {
        become_open(stream);
        return;
    }
    stream->state = STREAM_HANDSHAKING;
    shake_hands(stream);
}

static int begin_tcp(struct stream *stream, const struct sockaddr *address)
{
    int failed = uv_tcp_init(loop_uv(stream->loop), &stream->handle.tcp);
    if (failed) {
        return failed;
    }
    stream->handle.any.data = stream;
    stream->handle_is_open = true;
    return uv_tcp_connect(&stream->connect, &stream->handle.tcp, address, on_connected);
}

static int begin_unix(struct stream *stream)
{
    struct sockaddr_un address;
    if (strlen(stream->options.unix_path) >= sizeof(address.sun_path)) {
        return UV_ENAMETOOLONG;
    }
    int failed = uv_pipe_init(loop_uv(stream->loop), &stream->handle.pipe, 0);
    if (failed) {
        return failed;
    }
    stream->handle.any.data = stream;
    stream->handle_is_open = true;
    uv_pipe_connect(&stream->connect, &stream->handle.pipe, stream->options.unix_path,
                    on_connected);
    return 0;
}

/* Takes over the descriptor of the options. */
static void adopt(struct stream *stream)
{
    int failed = uv_pipe_init(loop_uv(stream->loop), &stream->handle.pipe, 0);
    if (!failed) {
        stream->handle.any.data = stream;
        stream->handle_is_open = true;
        failed = uv_pipe_open(&stream->handle.pipe, stream->options.descriptor);
    }
    if (!failed) {
        stream->options.descriptor = 0; /* the handle's now */
        failed = uv_read_start(&stream->handle.stream, on_allocate, on_read);
    }
    if (failed) {
        drop_for(stream, failed);
        return;
    }
    become_open(stream);
}

static void connect_next(struct stream *stream)
{
    int failed = 0;
    if (stream->options.unix_path) {
        failed = begin_unix(stream);
    } else if (stream->next_address) {
        const struct addrinfo *address = stream->next_address;
        stream->next_address = address->ai_next;
        failed = begin_tcp(stream, address->ai_addr);
    } else {
        drop(stream); /* with the error of the last attempt */
        return;
    }
    if (failed) {
        describe_failure(stream, ERROR_TEMPORARY, uv_strerror(failed));
        drop(stream);
    }
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct stream *stream = request->data;
    stream->is_resolving = false;
    stream->addresses = addresses;
    if (stream->state != STREAM_RESOLVING) {
        maybe_free(stream);
        return;
    }
    if (status < 0 || !addresses) {
        describe_failure(stream, ERROR_TEMPORARY, uv_strerror(status < 0 ? status : UV_EAI_NONAME));
        drop(stream);
        return;
    }
    stream->next_address = addresses;
    stream->state = STREAM_CONNECTING;
    connect_next(stream);
}

/* Looks the host up: at once when it is an address, else on libuv's threads. */
static void resolve(struct stream *stream)
{
    char service[8];
    (void)snprintf(service, sizeof(service), "%u", (unsigned)stream->options.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    if (getaddrinfo(stream->options.host, service, &hints, &stream->addresses) == 0) {
        stream->next_address = stream->addresses;
        stream->state = STREAM_CONNECTING;
        connect_next(stream);
        return;
    }
    stream->addresses = NULL;
    stream->resolve.data = stream;
    hints.ai_flags = AI_NUMERICSERV;
    int failed = uv_getaddrinfo(loop_uv(stream->loop), &stream->resolve, on_resolved,
                                stream->options.host, service, &hints);
    stream->is_resolving = failed == 0;
    if (failed) {
        drop_for(stream, failed);
    }
}

static void begin(void *context)
{
    struct stream *stream = context;
    if (stream->options.tls.enabled
        && !stream_tls_new(&stream->options.tls, stream->options.host, &stream->tls,
                           &stream->error)) {
        drop_for_tls(stream);
        return;
    }
    if (stream->options.descriptor > 0) {
        adopt(stream);
        return;
    }
    if (!stream->options.unix_path) {
        resolve(stream);
        return;
    }
    stream->state = STREAM_CONNECTING;
    connect_next(stream);
}

/* Life cycle */

struct stream *stream_open(struct loop *loop, const struct stream_options *options,
                           const struct stream_events *events, void *context)
{
    assert((options->host != NULL) != (options->unix_path != NULL));
    struct stream *stream = memory_new(sizeof(*stream));
    stream->loop = loop;
    stream->events = *events;
    stream->context = context;
    stream->texts = arena_new(0);
    stream->options = stream_options_copy(options, stream->texts);
    stream->connect.data = stream;
    stream->write.data = stream;
    buffer_init(&stream->out, options->max_write_bytes);
    buffer_init(&stream->sending,
                options->max_write_bytes + (options->tls.enabled ? TLS_OVERHEAD_BYTES : 0));
    stream->deadline = (struct timer){.on_due = on_deadline, .context = stream};
    stream->flush = (struct loop_call){.function = flush, .context = stream};
    stream->resume = (struct loop_call){.function = resume, .context = stream};
    stream->begin = (struct loop_call){.function = begin, .context = stream};
    loop_start_timer(loop, &stream->deadline, options->connect_timeout_ms);
    loop_defer(loop, &stream->begin);
    return stream;
}

void stream_write(struct stream *stream, struct bytes data)
{
    (void)buffer_append(stream_out(stream), data); /* flush sees an overflow */
}

struct buffer *stream_out(struct stream *stream)
{
    if (stream->state < STREAM_DROPPED) {
        loop_defer(stream->loop, &stream->flush);
    }
    return &stream->out;
}

/* One more try for what was written in this turn; what the system does not take at once is lost. */
static void send_last(struct stream *stream)
{
    if (stream->state != STREAM_OPEN || stream->is_writing || !fill_sending(stream)) {
        return;
    }
    if (stream->tls) {
        stream_tls_finish(stream->tls);
        (void)!stream_tls_take(stream->tls, &stream->sending);
    }
    if (stream->sending.length > 0) {
        uv_buf_t piece = {.base = stream->sending.data, .len = stream->sending.length};
        (void)uv_try_write(&stream->handle.stream, &piece, 1);
    }
}

void stream_close(struct stream **stream_pointer)
{
    struct stream *stream = *stream_pointer;
    if (!stream) {
        return;
    }
    *stream_pointer = NULL;
    send_last(stream);
    leave(stream, STREAM_CLOSED);
    if (stream->is_resolving) {
        (void)uv_cancel((uv_req_t *)&stream->resolve);
    }
    maybe_free(stream);
}
