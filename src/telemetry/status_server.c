#include "telemetry/status_server.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "telemetry/metrics.h"
#include "telemetry/status_request.h"

#define BACKLOG          128
#define READ_BYTES       2048
#define HEAD_BYTES       512
#define MAX_REASON_BYTES 1024

union handle {
    uv_handle_t any;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
};

struct status_server {
    struct loop *loop;
    const struct status_server_events *events;
    void *context;
    union handle listener;
    struct list connections; /* the one that was heard of longest ago comes first */
    size_t handle_count;     /* open or closing */
    size_t connection_count;
    char *address;   /* owned */
    bool is_closing; /* frees itself with the last handle */
    void (*on_closed)(void *context);
    void *closed_context;
};

struct connection {
    struct status_server *server;
    struct list_node node;
    union handle handle;
    struct timer timer; /* the deadline of what it is doing */
    struct buffer in;
    struct buffer out; /* the answer on its way */
    uv_write_t write;
    bool is_writing;
    bool is_closing;
    bool closes_after_write;
};

static void read_request(struct connection *connection);

/* Closing */

static void release_handle(struct status_server *server)
{
    if (--server->handle_count > 0 || !server->is_closing) {
        return;
    }
    void (*on_closed)(void *context) = server->on_closed;
    void *context = server->closed_context;
    memory_free(&server->address);
    memory_free(&server);
    if (on_closed) {
        on_closed(context);
    }
}

static void on_connection_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    struct status_server *server = connection->server;
    buffer_fini(&connection->in);
    buffer_fini(&connection->out);
    memory_free(&connection);
    release_handle(server);
}

static void close_connection(struct connection *connection)
{
    if (connection->is_closing) {
        return;
    }
    connection->is_closing = true;
    connection->server->connection_count--;
    list_remove(&connection->node);
    loop_stop_timer(connection->server->loop, &connection->timer);
    uv_close(&connection->handle.any, on_connection_closed);
}

static void on_deadline(void *context)
{
    close_connection(context);
}

static void start_deadline(struct connection *connection, int64_t delay_ms)
{
    loop_start_timer(connection->server->loop, &connection->timer, delay_ms);
}

/* Answering */

static const char *reason_phrase(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Content Too Large";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Internal Server Error";
    }
}

static void on_written(uv_write_t *write, int status)
{
    struct connection *connection = write->data;
    connection->is_writing = false;
    buffer_fini(&connection->out);
    if (connection->is_closing) {
        return;
    }
    if (status < 0 || connection->closes_after_write) {
        close_connection(connection);
        return;
    }
    start_deadline(connection,
                   connection->in.length > 0 ? STATUS_SERVER_REQUEST_MS : STATUS_SERVER_IDLE_MS);
    read_request(connection);
}

/* Sends `body` (taken) as the answer. `is_head` sends its head alone. */
static void answer(struct connection *connection, int status, const char *type, struct buffer *body,
                   bool is_head)
{
    if (body->overflowed) {
        status = 500;
        buffer_clear(body);
    }
    buffer_init(&connection->out, STATUS_SERVER_MAX_METRICS_BYTES + HEAD_BYTES);
    (void)buffer_format(&connection->out,
                        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                        "Cache-Control: no-store\r\n%sConnection: %s\r\n\r\n",
                        status, reason_phrase(status), type, body->length,
                        status == 405 ? "Allow: GET, HEAD\r\n" : "",
                        connection->closes_after_write ? "close" : "keep-alive");
    if (!is_head) {
        (void)buffer_append(&connection->out, buffer_view(body));
    }
    buffer_fini(body);
    connection->is_writing = true;
    connection->write.data = connection;
    start_deadline(connection, STATUS_SERVER_REQUEST_MS);
    uv_buf_t bytes = uv_buf_init(connection->out.data, (unsigned)connection->out.length);
    if (uv_write(&connection->write, &connection->handle.stream, &bytes, 1, on_written) != 0) {
        connection->is_writing = false;
        close_connection(connection);
    }
}

static void answer_text(struct connection *connection, int status, bool is_head, const char *text)
{
    struct buffer body;
    buffer_init(&body, MAX_REASON_BYTES + 64);
    (void)buffer_format(&body, "%s\n", text);
    answer(connection, status, "text/plain; charset=utf-8", &body, is_head);
}

static void answer_health(struct connection *connection, bool is_head,
                          bool (*is_well)(void *context, char *reason, size_t size))
{
    char reason[MAX_REASON_BYTES] = "";
    bool ok = is_well(connection->server->context, reason, sizeof(reason));
    answer_text(connection, ok ? 200 : 503, is_head, ok ? "ok" : reason);
}

static void answer_metrics(struct connection *connection, bool is_head)
{
    struct buffer body;
    buffer_init(&body, STATUS_SERVER_MAX_METRICS_BYTES);
    connection->server->events->write_metrics(connection->server->context, &body);
    answer(connection, 200, METRICS_CONTENT_TYPE, &body, is_head);
}

static void answer_request(struct connection *connection, const struct status_request *request)
{
    const struct status_server_events *events = connection->server->events;
    connection->closes_after_write = !request->keeps_alive;
    if (request->refusal != 0) {
        answer_text(connection, request->refusal, request->is_head,
                    reason_phrase(request->refusal));
    } else if (bytes_equal(request->path, BYTES("/livez"))
               || bytes_equal(request->path, BYTES("/healthz"))) {
        answer_health(connection, request->is_head, events->is_live);
    } else if (bytes_equal(request->path, BYTES("/readyz"))) {
        answer_health(connection, request->is_head, events->is_ready);
    } else if (bytes_equal(request->path, BYTES("/metrics"))) {
        answer_metrics(connection, request->is_head);
    } else {
        answer_text(connection, 404, request->is_head,
                    "there are /livez /readyz /healthz /metrics");
    }
}

/* Reading */

/* Answers the first request in the buffer, if it is complete and no answer is on its way. */
static void read_request(struct connection *connection)
{
    struct status_request request;
    if (connection->is_writing || connection->is_closing) {
        return;
    }
    if (status_request_parse(buffer_view(&connection->in), &request)) {
        answer_request(connection, &request);
        buffer_consume(&connection->in, request.length);
    } else if (connection->in.length >= STATUS_SERVER_MAX_REQUEST_BYTES) {
        connection->closes_after_write = true;
        answer_text(connection, 431, false, reason_phrase(431));
    }
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
    (void)suggested;
    struct connection *connection = handle->data;
    size_t room = STATUS_SERVER_MAX_REQUEST_BYTES - connection->in.length;
    size_t count = room < READ_BYTES ? room : READ_BYTES;
    char *place = count > 0 ? buffer_reserve(&connection->in, count) : NULL;
    *ret_buffer = uv_buf_init(place, place ? (unsigned)count : 0);
}

/* A full buffer (UV_ENOBUFS) means that it goes on sending while it does not read our answer. */
static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    (void)buffer;
    struct connection *connection = stream->data;
    if (count < 0) {
        close_connection(connection);
        return;
    }
    if (count == 0) {
        return;
    }
    if (connection->in.length == 0 && !connection->is_writing) {
        start_deadline(connection, STATUS_SERVER_REQUEST_MS);
    }
    buffer_grew(&connection->in, (size_t)count);
    list_remove(&connection->node);
    list_append(&connection->server->connections, &connection->node);
    read_request(connection);
}

static void init_handle(struct status_server *server, union handle *handle, void *data)
{
    uv_loop_t *loop = loop_uv(server->loop);
    if (server->listener.any.type == UV_NAMED_PIPE) {
        (void)uv_pipe_init(loop, &handle->pipe, 0);
    } else {
        (void)uv_tcp_init(loop, &handle->tcp);
    }
    handle->any.data = data;
    server->handle_count++;
}

/* When all places are taken, the connection that was silent longest makes room: a client that opens
 * many shuts out itself, not the probes. */
static void make_room(struct status_server *server)
{
    struct list_node *oldest = list_first(&server->connections);
    if (server->connection_count >= STATUS_SERVER_MAX_CONNECTIONS && oldest) {
        close_connection(list_entry(oldest, struct connection, node));
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct status_server *server = listener->data;
    if (status < 0 || server->is_closing) {
        return;
    }
    make_room(server);
    struct connection *connection = memory_new(sizeof(*connection));
    connection->server = server;
    connection->timer.on_due = on_deadline;
    connection->timer.context = connection;
    buffer_init(&connection->in, STATUS_SERVER_MAX_REQUEST_BYTES);
    init_handle(server, &connection->handle, connection);
    server->connection_count++;
    list_append(&server->connections, &connection->node);
    if (uv_accept(listener, &connection->handle.stream) != 0
        || uv_read_start(&connection->handle.stream, on_allocate, on_read) != 0) {
        close_connection(connection);
        return;
    }
    start_deadline(connection, STATUS_SERVER_REQUEST_MS);
}

/* Addresses */

static bool parse_tcp(const char *address, struct sockaddr_storage *ret_address)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    size_t length = colon ? (size_t)(colon - address) : 0;
    if (!colon || length >= sizeof(host) || strspn(colon + 1, "0123456789") != strlen(colon + 1)
        || colon[1] == '\0' || strlen(colon + 1) > 5) {
        return false;
    }
    unsigned long port = strtoul(colon + 1, NULL, 10);
    (void)snprintf(host, sizeof(host), "%.*s", (int)length, address);
    if (port > 65535) {
        return false;
    }
    if (host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = '\0';
        return uv_ip6_addr(host + 1, (int)port, (struct sockaddr_in6 *)ret_address) == 0;
    }
    const char *name = length == 0 || strcmp(host, "*") == 0 ? "0.0.0.0" : host;
    name = strcmp(name, "localhost") == 0 ? "127.0.0.1" : name;
    return uv_ip4_addr(name, (int)port, (struct sockaddr_in *)ret_address) == 0;
}

/* The path of "unix:/path", or NULL. */
static const char *unix_path(const char *address)
{
    struct sockaddr_un place;
    if (strncmp(address, "unix:/", 6) != 0 || strlen(address + 5) >= sizeof(place.sun_path)) {
        return NULL;
    }
    return address + 5;
}

bool status_server_is_address(const char *address, struct error *reterr)
{
    struct sockaddr_storage place;
    if (!unix_path(address) && !parse_tcp(address, &place)) {
        return error_set(reterr, ERROR_INVALID,
                         "an address such as 0.0.0.0:9808, [::]:9808 or unix:/path of at most 107 "
                         "letters is allowed, not \"%.128s\"",
                         address);
    }
    return true;
}

static bool fail_to_listen(const char *address, int code, struct error *reterr)
{
    enum error_kind kind = ERROR_TEMPORARY;
    if (code == UV_EADDRINUSE) {
        kind = ERROR_CONFLICT;
    } else if (code == UV_EACCES || code == UV_EPERM || code == UV_EROFS) {
        kind = ERROR_REFUSED;
    }
    return error_set(reterr, kind, "cannot serve probes on %s: %s", address, uv_strerror(code));
}

/* Whether a server answers at `path`; connecting to a unix socket does not wait. */
static bool is_alive(const char *path)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    (void)snprintf(place.sun_path, sizeof(place.sun_path), "%s", path);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) {
        return true;
    }
    int result = connect(descriptor, (const struct sockaddr *)&place, sizeof(place));
    bool is_refused = result != 0 && errno == ECONNREFUSED;
    (void)close(descriptor);
    return !is_refused;
}

static void remove_stale_socket(const char *path)
{
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) && !is_alive(path)) {
        (void)unlink(path);
    }
}

static int bind_unix(struct status_server *server, const char *path)
{
    (void)uv_pipe_init(loop_uv(server->loop), &server->listener.pipe, 0);
    remove_stale_socket(path);
    int code = uv_pipe_bind(&server->listener.pipe, path);
    if (code == 0) {
        (void)chmod(path, 0600);
        server->address = memory_text(bytes_from_text(path));
    }
    return code;
}

static void keep_tcp_address(struct status_server *server)
{
    struct sockaddr_storage place = {0};
    int size = sizeof(place);
    char host[64] = "";
    struct buffer text;
    (void)uv_tcp_getsockname(&server->listener.tcp, (struct sockaddr *)&place, &size);
    (void)uv_ip_name((const struct sockaddr *)&place, host, sizeof(host));
    bool is_v6 = place.ss_family == AF_INET6;
    in_port_t port = is_v6 ? ((const struct sockaddr_in6 *)&place)->sin6_port
                           : ((const struct sockaddr_in *)&place)->sin_port;
    buffer_init(&text, 128);
    (void)buffer_format(&text, is_v6 ? "[%s]:%d" : "%s:%d", host, (int)ntohs(port));
    server->address = memory_text(buffer_view(&text));
    buffer_fini(&text);
}

static int bind_tcp(struct status_server *server, const struct sockaddr_storage *place)
{
    (void)uv_tcp_init(loop_uv(server->loop), &server->listener.tcp);
    return uv_tcp_bind(&server->listener.tcp, (const struct sockaddr *)place, 0);
}

static void on_listener_closed(uv_handle_t *handle)
{
    release_handle(handle->data);
}

struct status_server *status_server_open(struct loop *loop, const char *address,
                                         const struct status_server_events *events, void *context,
                                         struct error *reterr)
{
    struct sockaddr_storage place = {0};
    if (!status_server_is_address(address, reterr)) {
        return NULL;
    }
    struct status_server *server = memory_new(sizeof(*server));
    *server = (struct status_server){
        .loop = loop, .events = events, .context = context, .handle_count = 1};
    list_init(&server->connections);
    const char *path = unix_path(address);
    bool is_tcp = !path && parse_tcp(address, &place);
    int code = is_tcp ? bind_tcp(server, &place) : bind_unix(server, path);
    server->listener.any.data = server;
    if (code == 0) {
        code = uv_listen(&server->listener.stream, BACKLOG, on_connection);
    }
    if (code != 0) {
        (void)fail_to_listen(address, code, reterr);
        status_server_close(&server, NULL, NULL);
        return NULL;
    }
    if (is_tcp) {
        keep_tcp_address(server);
    }
    return server;
}

const char *status_server_address(const struct status_server *server)
{
    return server->address;
}

void status_server_close(struct status_server **server, void (*on_closed)(void *context),
                         void *context)
{
    if (!*server) {
        return;
    }
    struct status_server *closing = *server;
    *server = NULL;
    closing->is_closing = true;
    closing->on_closed = on_closed;
    closing->closed_context = context;
    list_for_each(node, following, &closing->connections) {
        close_connection(list_entry(node, struct connection, node));
    }
    uv_close(&closing->listener.any, on_listener_closed);
}
