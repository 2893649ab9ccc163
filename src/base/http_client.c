#include "base/http_client.h"

#include <curl/curl.h>
#include <sys/socket.h>
#include <uv.h>

#include "base/keepalive.h"
#include "base/list.h"
#include "base/memory.h"

#define MAX_CONNECTIONS      16
#define MAX_IDLE_CONNECTIONS 4
#define MAX_IDLE_HANDLES     8
#define MAX_UNREAD_BYTES     ((size_t)16 * 1024 * 1024) /* of a stream, in one turn of the loop */
#define UPLOAD_BUFFER_BYTES  16384
#define MS_PER_S             1000
#define STATUS_OK_FIRST      200
#define STATUS_OK_LAST       299

struct http_client {
    struct loop *loop;
    CURLM *multi;
    char *ca_file;
    char *certificate_file;
    char *key_file;
    char *user_agent;
    bool is_insecure;
    int connect_timeout_ms;
    int64_t silence_ms;
    struct timer timer;   /* libcurl's own */
    struct timer listen;  /* armed while there are sockets and a limit to their silence */
    struct list starting; /* not yet given to libcurl */
    struct list active;   /* libcurl's */
    struct list finished; /* their answer is due */
    struct list unread;   /* streams with pieces to hand up, by unread_node */
    struct list sockets;  /* struct http_socket */
    struct loop_call start_call;
    bool *ret_freed; /* where a dispatch wants to hear that a callback freed us */
    CURL *idle[MAX_IDLE_HANDLES];
    size_t idle_count;
};

/* One that somebody waits on; idle connections have none. */
struct http_socket {
    struct list_node node;
    uv_poll_t poll;
    struct http_client *client;
    curl_socket_t descriptor;
    int64_t heard_ms; /* when something came last, or the waiting began */
};

struct http_request {
    struct list_node node;
    struct list_node unread_node;
    struct http_client *client;
    CURL *easy;
    struct curl_slist *headers;
    struct buffer body;      /* of the answer, or what a stream has not handed up yet */
    http_piece_fn *on_piece; /* NULL: a short request */
    http_answer_fn *on_answer;
    void *context;
    struct timer silence; /* streams only */
    int64_t silence_ms;
    CURLcode result;
    bool is_silent; /* ended by `silence` */
    char error_text[CURL_ERROR_SIZE];
};

/* Requests */

static long status_of(struct http_request *request)
{
    long status = 0;
    (void)curl_easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static bool is_flowing(struct http_request *request)
{
    long status = status_of(request);
    return request->on_piece && status >= STATUS_OK_FIRST && status <= STATUS_OK_LAST;
}

/* Keeps the handle for the next request, with its buffers, or lets it go. */
static void retire_handle(struct http_client *client, CURL *easy)
{
    if (client->idle_count == MAX_IDLE_HANDLES) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    client->idle[client->idle_count++] = easy;
}

static void free_request(struct http_request *request)
{
    struct http_client *client = request->client;
    loop_stop_timer(client->loop, &request->silence);
    list_remove(&request->node);
    list_remove(&request->unread_node);
    (void)curl_multi_remove_handle(client->multi, request->easy);
    retire_handle(client, request->easy);
    curl_slist_free_all(request->headers);
    buffer_fini(&request->body);
    memory_free(&request);
}

/* Called by libcurl: nothing but taking note may happen here. */
static size_t on_body(char *data, size_t size, size_t count, void *context)
{
    struct http_request *request = context;
    if (!buffer_append(&request->body, bytes_of(data, size * count))) {
        return 0;
    }
    if (is_flowing(request)) {
        struct http_client *client = request->client;
        if (!list_is_linked(&request->unread_node)) {
            list_append(&client->unread, &request->unread_node);
        }
        loop_start_timer(client->loop, &request->silence, request->silence_ms);
    }
    return size * count;
}

static void describe_failure(struct http_request *request, struct error *ret_error)
{
    if (request->is_silent) {
        (void)error_set(ret_error, ERROR_TIMEOUT, "nothing came for %d s",
                        (int)(request->silence_ms / MS_PER_S));
    } else if (request->body.overflowed) {
        (void)error_set(ret_error, ERROR_TOO_LARGE, "the answer is longer than %zu bytes",
                        request->body.max_bytes);
    } else {
        bool is_late = request->result == CURLE_OPERATION_TIMEDOUT;
        const char *text =
            request->error_text[0] ? request->error_text : curl_easy_strerror(request->result);
        (void)error_set(ret_error, is_late ? ERROR_TIMEOUT : ERROR_TEMPORARY, "%s", text);
    }
}

static bool has_no_connection(CURLcode result)
{
    return result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST
           || result == CURLE_SSL_CONNECT_ERROR || result == CURLE_PEER_FAILED_VERIFICATION;
}

/* Calls back once and lets the request go. */
static void answer_request(struct http_request *request)
{
    struct error error = {0};
    struct http_answer answer = {.retry_after_ms = -1};
    if (request->result == CURLE_OK && !request->is_silent) {
        curl_off_t retry_after_s = 0;
        (void)curl_easy_getinfo(request->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
        answer.status = (int)status_of(request);
        answer.body = buffer_view(&request->body);
        answer.retry_after_ms = retry_after_s > 0 ? (int64_t)retry_after_s * MS_PER_S : -1;
    } else {
        describe_failure(request, &error);
        answer.error = &error;
        answer.is_unsent = has_no_connection(request->result);
    }
    struct buffer body = request->body;
    request->body = (struct buffer){.max_bytes = body.max_bytes};
    http_answer_fn *on_answer = request->on_answer;
    void *context = request->context;
    free_request(request);
    on_answer(context, &answer);
    buffer_fini(&body);
}

static void hand_up_pieces(struct http_request *request)
{
    struct buffer pieces = request->body;
    buffer_init(&request->body, pieces.max_bytes);
    list_remove(&request->unread_node);
    request->on_piece(request->context, buffer_view(&pieces));
    buffer_fini(&pieces);
}

/* Dispatch: libcurl allows no calls into itself from its callbacks, so all of ours are made after
 * it has returned. A callback may do anything, even free the client. */

static void collect_finished(struct http_client *client)
{
    int left = 0;
    CURLMsg *message = NULL;
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        struct http_request *request = NULL;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
        request->result = message->data.result;
        list_remove(&request->node);
        list_append(&client->finished, &request->node);
    }
}

static void dispatch(struct http_client *client)
{
    bool is_freed = false;
    bool *outer = client->ret_freed;
    client->ret_freed = &is_freed;
    collect_finished(client);
    struct list_node *node = NULL;
    while (!is_freed && (node = list_first(&client->unread)) != NULL) {
        hand_up_pieces(list_entry(node, struct http_request, unread_node));
    }
    while (!is_freed && (node = list_first(&client->finished)) != NULL) {
        answer_request(list_entry(node, struct http_request, node));
    }
    if (!is_freed) {
        client->ret_freed = outer;
    } else if (outer) {
        *outer = true;
    }
}

static void on_silence(void *context)
{
    struct http_request *request = context;
    struct http_client *client = request->client;
    request->is_silent = true;
    list_remove(&request->node);
    list_append(&client->finished, &request->node);
    dispatch(client);
}

static void on_start(void *context)
{
    struct http_client *client = context;
    struct list_node *node = NULL;
    while ((node = list_pop(&client->starting)) != NULL) {
        struct http_request *request = list_entry(node, struct http_request, node);
        bool is_added = curl_multi_add_handle(client->multi, request->easy) == CURLM_OK;
        list_append(is_added ? &client->active : &client->finished, &request->node);
        if (!is_added) {
            request->result = CURLE_FAILED_INIT;
        } else if (request->on_piece) {
            loop_start_timer(client->loop, &request->silence, request->silence_ms);
        }
    }
    dispatch(client);
}

/* libcurl on the loop */

static void on_timer(void *context)
{
    struct http_client *client = context;
    int running = 0;
    (void)curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    dispatch(client);
}

static int set_timer(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct http_client *client = context;
    if (timeout_ms < 0) {
        loop_stop_timer(client->loop, &client->timer);
    } else {
        loop_start_timer(client->loop, &client->timer, timeout_ms);
    }
    return 0;
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct http_socket *sock = poll->data;
    struct http_client *client = sock->client;
    if (events & UV_READABLE) {
        sock->heard_ms = loop_now_ms(client->loop);
    }
    /* Let it read what is wrong: it tries again when an idle connection was closed meanwhile. */
    int what = status < 0 ? CURL_CSELECT_ERR | CURL_CSELECT_IN : 0;
    what |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    what |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    int running = 0;
    (void)curl_multi_socket_action(client->multi, sock->descriptor, what, &running);
    dispatch(client);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct http_socket *sock = handle->data;
    memory_free(&sock);
}

static void forget_socket(struct http_socket *sock)
{
    list_remove(&sock->node);
    (void)uv_poll_stop(&sock->poll);
    uv_close((uv_handle_t *)&sock->poll, on_poll_closed);
}

/* Silence: HTTP/2 puts new requests on a connection whose old ones were not answered, and libcurl
 * would do so for ever. The end of the connection ends whatever waits on it. */

static bool is_unheard(const struct http_socket *sock)
{
    const struct http_client *client = sock->client;
    return client->silence_ms > 0
           && loop_now_ms(client->loop) - sock->heard_ms >= client->silence_ms;
}

static void give_up(struct http_socket *sock)
{
    sock->heard_ms = loop_now_ms(sock->client->loop);
    (void)shutdown(sock->descriptor, SHUT_RDWR);
}

static void on_listen(void *context)
{
    struct http_client *client = context;
    int64_t oldest_ms = INT64_MAX;
    list_for_each(node, following, &client->sockets) {
        struct http_socket *sock = list_entry(node, struct http_socket, node);
        if (is_unheard(sock)) {
            give_up(sock);
        }
        oldest_ms = sock->heard_ms < oldest_ms ? sock->heard_ms : oldest_ms;
    }
    if (oldest_ms != INT64_MAX) {
        loop_start_timer(client->loop, &client->listen,
                         oldest_ms + client->silence_ms - loop_now_ms(client->loop));
    }
}

static struct http_socket *watch_socket(struct http_client *client, curl_socket_t descriptor)
{
    struct http_socket *sock = memory_new(sizeof(*sock));
    if (uv_poll_init_socket(loop_uv(client->loop), &sock->poll, descriptor) != 0) {
        memory_free(&sock);
        return NULL;
    }
    sock->poll.data = sock;
    sock->client = client;
    sock->descriptor = descriptor;
    sock->heard_ms = loop_now_ms(client->loop);
    list_append(&client->sockets, &sock->node);
    if (client->silence_ms > 0 && !timer_is_armed(&client->listen)) {
        loop_start_timer(client->loop, &client->listen, client->silence_ms);
    }
    (void)curl_multi_assign(client->multi, descriptor, sock);
    return sock;
}

static int set_socket(CURL *easy, curl_socket_t descriptor, int what, void *context,
                      void *socket_context)
{
    (void)easy;
    struct http_client *client = context;
    struct http_socket *sock = socket_context;
    if (what == CURL_POLL_REMOVE) {
        if (sock) {
            (void)curl_multi_assign(client->multi, descriptor, NULL);
            if (is_unheard(sock)) {
                give_up(sock); /* else the next request would be put on it */
            }
            forget_socket(sock);
        }
        return 0;
    }
    if (!sock) {
        sock = watch_socket(client, descriptor);
    }
    if (!sock) {
        return -1;
    }
    int events = what & CURL_POLL_IN ? UV_READABLE : 0;
    events |= what & CURL_POLL_OUT ? UV_WRITABLE : 0;
    return uv_poll_start(&sock->poll, events, on_ready) == 0 ? 0 : -1;
}

static int tune_socket(void *context, curl_socket_t descriptor, curlsocktype purpose)
{
    (void)context;
    (void)purpose;
    keepalive_set(descriptor);
    return CURL_SOCKOPT_OK;
}

/* Client */

/* Debian's libcurl brings GnuTLS along for protocols that we never speak, and GnuTLS would set
 * itself up before main: a megabyte of memory and its PKCS#11 modules. This is its own way to be
 * told not to (gnutls.h: GNUTLS_SKIP_GLOBAL_INIT); the linker exports it, for the library to find.
 */
int _gnutls_global_init_skip(void);

__attribute__((visibility("default"))) int _gnutls_global_init_skip(void)
{
    return 1;
}

static char *copy_or_null(const char *text)
{
    return text ? memory_text(bytes_from_text(text)) : NULL;
}

struct http_client *http_client_new(struct loop *loop, const struct http_client_options *options,
                                    struct error *reterr)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        (void)error_set(reterr, ERROR_UNSUPPORTED, "libcurl does not start");
        return NULL;
    }
    CURLM *multi = curl_multi_init();
    if (!multi || !(curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_SSL)) {
        (void)curl_multi_cleanup(multi);
        curl_global_cleanup();
        (void)error_set(reterr, ERROR_UNSUPPORTED, "libcurl has no TLS");
        return NULL;
    }
    struct http_client *client = memory_new(sizeof(*client));
    client->loop = loop;
    client->multi = multi;
    client->ca_file = copy_or_null(options->ca_file);
    client->certificate_file = copy_or_null(options->certificate_file);
    client->key_file = copy_or_null(options->key_file);
    client->user_agent = copy_or_null(options->user_agent);
    client->is_insecure = options->insecure;
    client->connect_timeout_ms = options->connect_timeout_ms;
    client->silence_ms = options->silence_ms;
    client->timer = (struct timer){.on_due = on_timer, .context = client};
    client->listen = (struct timer){.on_due = on_listen, .context = client};
    client->start_call = (struct loop_call){.function = on_start, .context = client};
    list_init(&client->starting);
    list_init(&client->active);
    list_init(&client->finished);
    list_init(&client->unread);
    list_init(&client->sockets);
    (void)curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    (void)curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client);
    (void)curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
    (void)curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client);
    (void)curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)MAX_CONNECTIONS);
    (void)curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)MAX_IDLE_CONNECTIONS);
    return client;
}

void http_client_allow_silence(struct http_client *client)
{
    client->silence_ms = 0;
    loop_stop_timer(client->loop, &client->listen);
}

static void free_requests(struct list *list)
{
    struct list_node *node = NULL;
    while ((node = list_first(list)) != NULL) {
        free_request(list_entry(node, struct http_request, node));
    }
}

void http_client_free(struct http_client **client_pointer)
{
    struct http_client *client = *client_pointer;
    if (!client) {
        return;
    }
    if (client->ret_freed) {
        *client->ret_freed = true;
    }
    loop_cancel(client->loop, &client->start_call);
    free_requests(&client->starting);
    free_requests(&client->active);
    free_requests(&client->finished);
    while (client->idle_count > 0) {
        curl_easy_cleanup(client->idle[--client->idle_count]);
    }
    (void)curl_multi_cleanup(client->multi);
    loop_stop_timer(client->loop, &client->timer);
    loop_stop_timer(client->loop, &client->listen);
    struct list_node *node = NULL;
    while ((node = list_first(&client->sockets)) != NULL) {
        forget_socket(list_entry(node, struct http_socket, node));
    }
    curl_global_cleanup();
    memory_free(&client->ca_file);
    memory_free(&client->certificate_file);
    memory_free(&client->key_file);
    memory_free(&client->user_agent);
    memory_free(client_pointer);
}

/* Sending */

static void set_identity(const struct http_client *client, CURL *easy)
{
    (void)curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    (void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, client->is_insecure ? 0L : 1L);
    (void)curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, client->is_insecure ? 0L : 2L);
    /* Read again for each connection, so that a rotated file counts. */
    (void)curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
    if (client->ca_file) {
        (void)curl_easy_setopt(easy, CURLOPT_CAINFO, client->ca_file);
    }
    if (client->certificate_file) {
        (void)curl_easy_setopt(easy, CURLOPT_SSLCERT, client->certificate_file);
        (void)curl_easy_setopt(easy, CURLOPT_SSLKEY,
                               client->key_file ? client->key_file : client->certificate_file);
    }
    if (client->user_agent) {
        (void)curl_easy_setopt(easy, CURLOPT_USERAGENT, client->user_agent);
    }
}

static void set_behaviour(const struct http_client *client, CURL *easy)
{
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    /* Rather wait for a stream on a connection that is there than open another one. */
    (void)curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)client->connect_timeout_ms);
    (void)curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, tune_socket);
    (void)curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)UPLOAD_BUFFER_BYTES);
}

static void add_header(struct http_request *request, const char *name, const char *value)
{
    struct buffer line;
    buffer_init(&line, SIZE_MAX);
    (void)buffer_format(&line, "%s:%s%s", name, value ? " " : "", value ? value : "");
    (void)buffer_append_byte(&line, '\0');
    struct curl_slist *headers = curl_slist_append(request->headers, line.data);
    if (headers) {
        request->headers = headers;
    }
    buffer_fini(&line);
}

static void set_headers(struct http_request *request, const struct http_call *call)
{
    add_header(request, "Accept", "application/json, */*");
    add_header(request, "Expect", NULL); /* no waiting for "100 Continue" */
    if (call->content_type) {
        add_header(request, "Content-Type", call->content_type);
    }
    (void)curl_easy_setopt(request->easy, CURLOPT_HTTPHEADER, request->headers);
    if (call->bearer_token) {
        (void)curl_easy_setopt(request->easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        (void)curl_easy_setopt(request->easy, CURLOPT_XOAUTH2_BEARER, call->bearer_token);
    }
}

static void set_call(struct http_request *request, const struct http_call *call)
{
    CURL *easy = request->easy;
    (void)curl_easy_setopt(easy, CURLOPT_URL, call->url);
    if (call->content_type) {
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.length);
        (void)curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS,
                               call->body.data ? call->body.data : "");
    }
    (void)curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
    (void)curl_easy_setopt(easy, CURLOPT_PRIVATE, request);
    (void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, request->error_text);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, request);
    if (!request->on_piece) {
        (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
    }
}

struct http_request *http_client_send(struct http_client *client, const struct http_call *call,
                                      http_piece_fn *on_piece, http_answer_fn *on_answer,
                                      void *context)
{
    struct http_request *request = memory_new(sizeof(*request));
    request->client = client;
    request->easy = client->idle_count > 0 ? client->idle[--client->idle_count] : curl_easy_init();
    if (!request->easy) {
        abort();
    }
    request->on_piece = on_piece;
    request->on_answer = on_answer;
    request->context = context;
    request->silence = (struct timer){.on_due = on_silence, .context = request};
    request->silence_ms = call->timeout_ms;
    buffer_init(&request->body, on_piece ? MAX_UNREAD_BYTES : call->max_answer_bytes);
    set_identity(client, request->easy);
    set_behaviour(client, request->easy);
    set_headers(request, call);
    set_call(request, call);
    list_append(&client->starting, &request->node);
    loop_defer(client->loop, &client->start_call);
    return request;
}

void http_client_cancel(struct http_request **request)
{
    if (*request) {
        free_request(*request);
        *request = NULL;
    }
}
