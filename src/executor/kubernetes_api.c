#include "executor/kubernetes_api.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/list.h"
#include "base/memory.h"
#include "executor/kubernetes_budget.h"
#include "executor/kubernetes_verdict.h"

#define CONNECT_TIMEOUT_MS   10000
#define CALL_TIMEOUT_MS      30000
#define SILENCE_MS           30000  /* of a connection; our Lease alone is answered every 5 s */
#define STREAM_SILENCE_MS    150000 /* a watch gets a bookmark about every minute */
#define MAX_ANSWER_BYTES     ((size_t)8 * 1024 * 1024)
#define MAX_URL_BYTES        ((size_t)16 * 1024)
#define MAX_TOKEN_BYTES      ((size_t)64 * 1024)
#define MAX_MESSAGE_BYTES    512
#define MESSAGE_ARENA_BYTES  1024
#define TOKEN_LIFE_MS        60000
#define MAX_RETRY_AFTER_MS   60000
#define DOUBT_MS             10000
#define METHOD_BYTES         8
#define MS_PER_S             1000
#define FIELD_MANAGER        "fieldManager=petiole"
#define STATUS_OK            200
#define STATUS_REDIRECT      300
#define STATUS_SERVER_FAULTS 500
#define STATUS_UNAUTHORIZED  401

struct kubernetes_api {
    struct loop *loop;
    struct kubeconfig *config;
    struct http_client *http;
    char *namespace_name;
    struct buffer token;
    int64_t token_read_ms;
    bool has_read_token;
    struct list calls;
    int64_t doubted_until_ms; /* it was away: what it denies is not believed */
    struct kubernetes_budget budget;
    struct list waiting; /* for the budget: struct kubernetes_call by waiting_node */
    struct timer budget_timer;
};

struct kubernetes_call {
    struct list_node node;
    struct kubernetes_api *api;
    struct http_request *request;
    kubernetes_answer_fn *on_answer;
    void *context;
    bool has_name;     /* one object, not a collection */
    bool is_in_line;   /* on_line is running */
    bool is_cancelled; /* by on_line */
    bool cuts_lines;
    kubernetes_line_fn *on_line; /* streams only */
    struct buffer line;          /* its beginning */
    struct list_node waiting_node;
    char method[METHOD_BYTES]; /* what is to be sent, while it waits */
    const char *content_type;
    char *url;  /* owned */
    char *body; /* owned */
};

/* Tokens */

static bool read_token_file(struct kubernetes_api *api)
{
    int descriptor = open(api->config->token_file, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return false;
    }
    char text[MAX_TOKEN_BYTES];
    ssize_t length = read(descriptor, text, sizeof(text));
    (void)close(descriptor);
    while (length > 0 && (unsigned char)text[length - 1] <= ' ') {
        length--;
    }
    if (length <= 0) {
        return false;
    }
    buffer_clear(&api->token);
    return buffer_append(&api->token, bytes_of(text, (size_t)length))
           && buffer_append_byte(&api->token, '\0');
}

/* The token to use now, or NULL. One that cannot be read again stays in use. */
static const char *current_token(struct kubernetes_api *api)
{
    if (!api->config->token_file) {
        return api->config->token;
    }
    int64_t now_ms = loop_now_ms(api->loop);
    if (!api->has_read_token || now_ms - api->token_read_ms >= TOKEN_LIFE_MS) {
        api->has_read_token = read_token_file(api);
        api->token_read_ms = now_ms;
    }
    return api->token.length > 0 ? api->token.data : NULL;
}

/* Answers */

/* The API's own sentence, else the start of what it said, else only the status. */
static void describe(const struct http_answer *http, struct json body,
                     char ret_message[MAX_MESSAGE_BYTES])
{
    struct bytes text = http->body;
    struct arena *arena = arena_new(MESSAGE_ARENA_BYTES);
    struct bytes sentence;
    if (http->error) {
        text = bytes_from_text(http->error->message);
    } else if (json_text(json_get(body, "message"), arena, &sentence) && sentence.length > 0) {
        text = sentence;
    }
    while (text.length > 0 && (unsigned char)text.data[text.length - 1] <= ' ') {
        text.length--;
    }
    if (text.length > 0) {
        (void)snprintf(ret_message, MAX_MESSAGE_BYTES, "%.*s", BYTES_FORMAT(text));
    } else {
        (void)snprintf(ret_message, MAX_MESSAGE_BYTES, "the API server answered %d", http->status);
    }
    arena_free(&arena);
}

static int64_t retry_after_of(const struct http_answer *http, struct json body)
{
    int64_t delay_s = 0;
    struct json value = json_get(json_get(body, "details"), "retryAfterSeconds");
    if (http->retry_after_ms >= 0) {
        return http->retry_after_ms < MAX_RETRY_AFTER_MS ? http->retry_after_ms
                                                         : MAX_RETRY_AFTER_MS;
    }
    if (!json_int64(value, &delay_s) || delay_s <= 0) {
        return -1;
    }
    return delay_s < MAX_RETRY_AFTER_MS / MS_PER_S ? delay_s * MS_PER_S : MAX_RETRY_AFTER_MS;
}

static void free_call(struct kubernetes_call *call)
{
    list_remove(&call->node);
    list_remove(&call->waiting_node);
    http_client_cancel(&call->request);
    buffer_fini(&call->line);
    memory_free(&call->url);
    memory_free(&call->body);
    memory_free(&call);
}

/* An API server that has just begun knows no rights yet. */
static void believe_or_doubt(struct kubernetes_api *api, struct kubernetes_answer *answer)
{
    int64_t now_ms = loop_now_ms(api->loop);
    if (answer->status == 0 || answer->status >= STATUS_SERVER_FAULTS) {
        api->doubted_until_ms = now_ms + DOUBT_MS;
    } else if (kubernetes_verdict_is_denial(answer) && now_ms < api->doubted_until_ms) {
        answer->verdict = KUBERNETES_BUSY;
    }
}

static void on_http_answer(void *context, const struct http_answer *http)
{
    struct kubernetes_call *call = context;
    struct kubernetes_api *api = call->api;
    struct kubernetes_answer answer = {.status = http->status};
    struct json body;
    if (http->body.length > 0 && http->body.data[0] == '{' && json_parse(http->body, &body, NULL)) {
        answer.body = body;
    }
    char message[MAX_MESSAGE_BYTES] = "";
    bool is_done = http->status >= STATUS_OK && http->status < STATUS_REDIRECT;
    answer.retry_after_ms = -1;
    if (!is_done) {
        describe(http, answer.body, message);
        answer.retry_after_ms = retry_after_of(http, answer.body);
    }
    answer.message = message;
    answer.verdict = kubernetes_verdict_of(&answer, http->error, call->has_name);
    believe_or_doubt(api, &answer);
    answer.may_be_done =
        http->status >= STATUS_SERVER_FAULTS || (!http->status && !http->is_unsent);
    if (http->status == STATUS_UNAUTHORIZED) {
        api->has_read_token = false;
    }
    kubernetes_answer_fn *on_answer = call->on_answer;
    void *call_context = call->context;
    call->request = NULL;
    free_call(call);
    on_answer(call_context, &answer);
}

/* Lines */

/* A line that is longer than we take ends the stream. It would come again: REFUSED. */
static void refuse_line(struct kubernetes_call *call)
{
    struct error error;
    (void)error_set(&error, ERROR_TOO_LARGE, "a line is longer than %zu bytes",
                    call->line.max_bytes);
    struct http_answer answer = {.retry_after_ms = -1, .error = &error};
    http_client_cancel(&call->request);
    on_http_answer(call, &answer);
}

static void hand_up_line(struct kubernetes_call *call, struct bytes line)
{
    call->is_in_line = true;
    call->on_line(call->context, line);
    call->is_in_line = false;
}

/* Adds to the beginning of a line. False when it becomes too long, and is not to be cut. */
static bool keep(struct kubernetes_call *call, struct bytes piece)
{
    size_t room = call->line.max_bytes - call->line.length;
    if (call->cuts_lines && piece.length > room) {
        piece.length = room;
    }
    return buffer_append(&call->line, piece);
}

/* Hands up what ends with this piece. False when the call is gone. */
static bool take_line(struct kubernetes_call *call, struct bytes end)
{
    if (call->line.length == 0 && end.length <= call->line.max_bytes) {
        hand_up_line(call, end);
    } else if (keep(call, end)) {
        hand_up_line(call, buffer_view(&call->line));
        buffer_fini(&call->line);
    } else {
        refuse_line(call);
        return false;
    }
    if (call->is_cancelled) {
        free_call(call);
        return false;
    }
    return true;
}

static void on_http_piece(void *context, struct bytes piece)
{
    struct kubernetes_call *call = context;
    while (piece.length > 0) {
        size_t length = bytes_find(piece, '\n');
        if (length == piece.length) {
            if (!keep(call, piece)) {
                refuse_line(call);
            }
            return;
        }
        if (!take_line(call, bytes_of(piece.data, length))) {
            return;
        }
        piece = bytes_skip(piece, length + 1);
    }
}

static void on_http_stream_end(void *context, const struct http_answer *http)
{
    struct kubernetes_call *call = context;
    call->request = NULL;
    if (http->status == STATUS_OK && call->line.length > 0 && !take_line(call, bytes_of("", 0))) {
        return;
    }
    on_http_answer(call, http);
}

/* Calls */

static void append_encoded(struct buffer *buffer, struct bytes text, bool keeps_slash)
{
    for (size_t i = 0; i < text.length; i++) {
        char byte = text.data[i];
        bool is_plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z')
                        || (byte >= '0' && byte <= '9') || (byte && strchr("-._~", byte));
        if (is_plain || (byte == '/' && keeps_slash)) {
            (void)buffer_append_byte(buffer, byte);
            keeps_slash = keeps_slash && byte != '/';
        } else {
            (void)buffer_format(buffer, "%%%02X", (unsigned)(unsigned char)byte);
        }
    }
}

static void append_url(struct buffer *url, const struct kubernetes_api *api,
                       const struct kubernetes_request *request)
{
    bool is_outside = request->resource[0] == '/';
    struct bytes group = bytes_from_text(is_outside ? request->resource + 1 : request->resource);
    size_t space = bytes_find(group, ' ');
    struct bytes kind = bytes_skip(group, space + 1);
    group.length = space;
    bool is_core = bytes_find(group, '/') == group.length;
    (void)buffer_format(url, "%s/%s/%.*s", api->config->server, is_core ? "api" : "apis",
                        BYTES_FORMAT(group));
    if (!is_outside) {
        (void)buffer_append_text(url, "/namespaces/");
        append_encoded(url, bytes_from_text(api->namespace_name), false);
    }
    (void)buffer_format(url, "/%.*s", BYTES_FORMAT(kind));
    if (request->name) {
        (void)buffer_append_byte(url, '/');
        append_encoded(url, bytes_from_text(request->name), true);
    }
}

static void append_query(struct buffer *url, const char *query, bool is_change)
{
    const char *separator = "?";
    if (query && query[0]) {
        (void)buffer_format(url, "?%s", query);
        separator = "&";
    }
    if (is_change) {
        (void)buffer_format(url, "%s" FIELD_MANAGER, separator);
    }
}

static struct kubernetes_call *new_call(struct kubernetes_api *api, const char *name,
                                        kubernetes_answer_fn *on_answer, void *context)
{
    struct kubernetes_call *call = memory_new(sizeof(*call));
    call->api = api;
    call->has_name = name != NULL;
    call->on_answer = on_answer;
    call->context = context;
    list_append(&api->calls, &call->node);
    return call;
}

/* Sends it with the token of this moment. */
static void send_call(struct kubernetes_call *call, struct http_call http)
{
    struct kubernetes_api *api = call->api;
    http.bearer_token = current_token(api);
    http.timeout_ms = CALL_TIMEOUT_MS;
    http.max_answer_bytes = MAX_ANSWER_BYTES;
    call->request = http_client_send(api->http, &http, NULL, on_http_answer, call);
}

static void await_budget(struct kubernetes_api *api)
{
    int64_t wait_ms = kubernetes_budget_wait_ms(&api->budget, loop_now_ms(api->loop));
    if (!list_is_empty(&api->waiting)) {
        loop_start_timer(api->loop, &api->budget_timer, wait_ms);
    }
}

static void on_budget(void *context)
{
    struct kubernetes_api *api = context;
    struct list_node *node = NULL;
    while ((node = list_first(&api->waiting)) != NULL
           && kubernetes_budget_take(&api->budget, loop_now_ms(api->loop))) {
        struct kubernetes_call *call = list_entry(node, struct kubernetes_call, waiting_node);
        list_remove(node);
        send_call(call, (struct http_call){.method = call->method,
                                           .url = call->url,
                                           .content_type = call->content_type,
                                           .body = bytes_from_text(call->body)});
        memory_free(&call->url);
        memory_free(&call->body);
    }
    await_budget(api);
}

/* Keeps it until those before it are sent and the budget has room. */
static void keep_call(struct kubernetes_call *call, const struct http_call *http)
{
    struct kubernetes_api *api = call->api;
    (void)snprintf(call->method, sizeof(call->method), "%s", http->method);
    call->url = memory_text(bytes_from_text(http->url));
    call->body = memory_text(http->body);
    call->content_type = http->content_type;
    list_append(&api->waiting, &call->waiting_node);
    await_budget(api);
}

static void send_or_keep(struct kubernetes_call *call, const struct http_call *http, bool is_urgent)
{
    struct kubernetes_api *api = call->api;
    int64_t now_ms = loop_now_ms(api->loop);
    if (is_urgent) {
        kubernetes_budget_take_ahead(&api->budget, now_ms);
        send_call(call, *http);
    } else if (list_is_empty(&api->waiting) && kubernetes_budget_take(&api->budget, now_ms)) {
        send_call(call, *http);
    } else {
        keep_call(call, http);
    }
}

struct kubernetes_call *kubernetes_api_call(struct kubernetes_api *api,
                                            const struct kubernetes_request *request,
                                            kubernetes_answer_fn *on_answer, void *context)
{
    const char *method = request->method ? request->method : "GET";
    bool is_patch = strcmp(method, "PATCH") == 0;
    bool is_change = is_patch || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0;
    struct kubernetes_call *call = new_call(api, request->name, on_answer, context);
    struct buffer url;
    buffer_init(&url, MAX_URL_BYTES);
    append_url(&url, api, request);
    append_query(&url, request->query, is_change);
    (void)buffer_append_byte(&url, '\0');
    struct http_call http = {
        .method = method,
        .url = url.data,
        .content_type = request->body.length == 0 ? NULL
                        : is_patch                ? "application/merge-patch+json"
                                                  : "application/json",
        .body = request->body,
    };
    send_or_keep(call, &http, request->is_urgent);
    buffer_fini(&url);
    return call;
}

struct kubernetes_call *kubernetes_api_stream(struct kubernetes_api *api,
                                              const struct kubernetes_request *request,
                                              size_t max_line_bytes, kubernetes_line_fn *on_line,
                                              kubernetes_answer_fn *on_answer, void *context)
{
    struct kubernetes_call *call = new_call(api, request->name, on_answer, context);
    call->on_line = on_line;
    call->cuts_lines = request->cuts_lines;
    buffer_init(&call->line, max_line_bytes);
    struct buffer url;
    buffer_init(&url, MAX_URL_BYTES);
    append_url(&url, api, request);
    append_query(&url, request->query, false);
    (void)buffer_append_byte(&url, '\0');
    struct http_call http = {
        .method = "GET",
        .url = url.data,
        .bearer_token = current_token(api),
        .timeout_ms = STREAM_SILENCE_MS,
    };
    call->request = http_client_send(api->http, &http, on_http_piece, on_http_stream_end, call);
    buffer_fini(&url);
    return call;
}

void kubernetes_api_cancel(struct kubernetes_call **call_pointer)
{
    struct kubernetes_call *call = *call_pointer;
    *call_pointer = NULL;
    if (!call) {
        return;
    }
    if (call->is_in_line) {
        list_remove(&call->node);
        http_client_cancel(&call->request);
        call->is_cancelled = true; /* its own line is still being handed up */
    } else {
        free_call(call);
    }
}

/* Life cycle */

struct kubernetes_api *kubernetes_api_new(struct loop *loop, const struct kubeconfig *kubeconfig,
                                          const char *namespace_name, struct error *reterr)
{
    struct kubernetes_api *api = memory_new(sizeof(*api));
    api->loop = loop;
    api->config = kubeconfig_copy(kubeconfig);
    api->namespace_name = memory_text(bytes_from_text(namespace_name));
    buffer_init(&api->token, MAX_TOKEN_BYTES + 1);
    list_init(&api->calls);
    list_init(&api->waiting);
    api->budget_timer = (struct timer){.on_due = on_budget, .context = api};
    struct http_client_options options = {
        .ca_file = api->config->ca_file,
        .certificate_file = api->config->certificate_file,
        .key_file = api->config->key_file,
        .insecure = api->config->is_insecure,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .silence_ms = SILENCE_MS,
        .user_agent = "petiole/" PETIOLE_VERSION,
    };
    api->http = http_client_new(loop, &options, reterr);
    if (!api->http) {
        kubernetes_api_free(&api);
    }
    return api;
}

void kubernetes_api_free(struct kubernetes_api **api_pointer)
{
    struct kubernetes_api *api = *api_pointer;
    if (!api) {
        return;
    }
    struct list_node *node = NULL;
    while ((node = list_first(&api->calls)) != NULL) {
        struct kubernetes_call *call = list_entry(node, struct kubernetes_call, node);
        kubernetes_api_cancel(&call);
    }
    loop_stop_timer(api->loop, &api->budget_timer);
    http_client_free(&api->http);
    kubeconfig_free(&api->config);
    buffer_fini(&api->token);
    memory_free(&api->namespace_name);
    memory_free(api_pointer);
}

void kubernetes_api_limit(struct kubernetes_api *api, int64_t qps, int64_t burst)
{
    kubernetes_budget_init(&api->budget, qps, burst, loop_now_ms(api->loop));
}

void kubernetes_api_allow_silence(struct kubernetes_api *api)
{
    http_client_allow_silence(api->http);
}

const char *kubernetes_api_namespace(const struct kubernetes_api *api)
{
    return api->namespace_name;
}

struct loop *kubernetes_api_loop(const struct kubernetes_api *api)
{
    return api->loop;
}
