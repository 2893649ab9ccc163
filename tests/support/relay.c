#include "support/relay.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <uv.h>

#include <cmocka.h>

#include "base/list.h"
#include "base/memory.h"

struct relay {
    struct loop *loop;
    uv_tcp_t listener;
    unsigned short port;
    unsigned short target_port;
    struct list pairs;
    size_t handle_count;
    bool is_mute;
    size_t swallowed;
};

struct pair {
    struct list_node node;
    struct relay *relay;
    uv_tcp_t client;
    uv_tcp_t server;
    uv_connect_t connect;
    size_t handle_count;
};

struct piece {
    uv_write_t request;
    char *data;
};

static void on_end_closed(uv_handle_t *handle)
{
    struct pair *pair = handle->data;
    pair->relay->handle_count--;
    if (--pair->handle_count == 0) {
        memory_free(&pair);
    }
}

static void end_pair(struct pair *pair)
{
    if (list_is_linked(&pair->node)) {
        list_remove(&pair->node);
        uv_close((uv_handle_t *)&pair->client, on_end_closed);
        uv_close((uv_handle_t *)&pair->server, on_end_closed);
    }
}

static void on_allocate(uv_handle_t *handle, size_t suggested_bytes, uv_buf_t *ret_piece)
{
    (void)handle;
    *ret_piece = uv_buf_init(memory_new(suggested_bytes), (unsigned)suggested_bytes);
}

static void on_written(uv_write_t *request, int status)
{
    struct piece *piece = request->data;
    (void)status;
    memory_free(&piece->data);
    memory_free(&piece);
}

static void on_read(uv_stream_t *from, ssize_t count, const uv_buf_t *data)
{
    struct pair *pair = from->data;
    char *storage = data->base;
    bool from_server = from == (uv_stream_t *)&pair->server;
    if (count > 0 && from_server && pair->relay->is_mute) {
        pair->relay->swallowed += (size_t)count;
    } else if (count > 0) {
        struct piece *piece = memory_new(sizeof(*piece));
        uv_buf_t out = uv_buf_init(storage, (unsigned)count);
        piece->request.data = piece;
        piece->data = storage;
        uv_stream_t *to = (uv_stream_t *)(from_server ? &pair->client : &pair->server);
        assert_int_equal(uv_write(&piece->request, to, &out, 1, on_written), 0);
        return;
    }
    memory_free(&storage);
    if (count < 0) {
        end_pair(pair);
    }
}

static void on_connected(uv_connect_t *request, int status)
{
    struct pair *pair = request->data;
    if (!list_is_linked(&pair->node)) {
        return;
    }
    if (status < 0) {
        end_pair(pair);
        return;
    }
    assert_int_equal(uv_read_start((uv_stream_t *)&pair->client, on_allocate, on_read), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&pair->server, on_allocate, on_read), 0);
}

static struct sockaddr_in loopback(unsigned short port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void on_client(uv_stream_t *listener, int status)
{
    struct relay *relay = listener->data;
    assert_int_equal(status, 0);
    struct pair *pair = memory_new(sizeof(*pair));
    struct sockaddr_in target = loopback(relay->target_port);
    pair->relay = relay;
    pair->handle_count = 2;
    relay->handle_count += 2;
    assert_int_equal(uv_tcp_init(loop_uv(relay->loop), &pair->client), 0);
    assert_int_equal(uv_tcp_init(loop_uv(relay->loop), &pair->server), 0);
    pair->client.data = pair;
    pair->server.data = pair;
    pair->connect.data = pair;
    list_append(&relay->pairs, &pair->node);
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&pair->client), 0);
    assert_int_equal(uv_tcp_connect(&pair->connect, &pair->server, (const struct sockaddr *)&target,
                                    on_connected),
                     0);
}

struct relay *relay_new(struct loop *loop, unsigned short target_port)
{
    struct relay *relay = memory_new(sizeof(*relay));
    struct sockaddr_in address = loopback(0);
    int length = sizeof(address);
    relay->loop = loop;
    relay->target_port = target_port;
    list_init(&relay->pairs);
    assert_int_equal(uv_tcp_init(loop_uv(loop), &relay->listener), 0);
    relay->listener.data = relay;
    relay->handle_count = 1;
    assert_int_equal(uv_tcp_bind(&relay->listener, (const struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&relay->listener, 16, on_client), 0);
    assert_int_equal(uv_tcp_getsockname(&relay->listener, (struct sockaddr *)&address, &length), 0);
    relay->port = ntohs(address.sin_port);
    return relay;
}

unsigned short relay_port(const struct relay *relay)
{
    return relay->port;
}

void relay_set_mute(struct relay *relay, bool is_mute)
{
    relay->is_mute = is_mute;
}

size_t relay_swallowed(const struct relay *relay)
{
    return relay->swallowed;
}

void relay_cut(struct relay *relay)
{
    struct list_node *node = NULL;
    while ((node = list_first(&relay->pairs)) != NULL) {
        end_pair(list_entry(node, struct pair, node));
    }
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct relay *relay = handle->data;
    relay->handle_count--;
}

void relay_free(struct relay **relay)
{
    if (!*relay) {
        return;
    }
    relay_cut(*relay);
    uv_close((uv_handle_t *)&(*relay)->listener, on_listener_closed);
    while ((*relay)->handle_count > 0) {
        loop_run_once((*relay)->loop, true);
    }
    memory_free(relay);
}
