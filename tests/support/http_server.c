#include "support/http_server.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"

#define REQUEST_BYTES 65536
#define BACKLOG       16

struct http_server {
    pthread_t thread;
    int listener;
    uint16_t port;
    int count;
    http_server_fn *answer;
    void *context;
    char request[REQUEST_BYTES];
};

void http_server_write(int descriptor, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t count = send(descriptor, text, left, MSG_NOSIGNAL);
        if (count <= 0) {
            return;
        }
        text += count;
        left -= (size_t)count;
    }
}

void http_server_answer(int descriptor, int status, const char *body)
{
    char head[128];
    (void)snprintf(head, sizeof(head), "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\n\r\n", status,
                   strlen(body));
    http_server_write(descriptor, head);
    http_server_write(descriptor, body);
}

void http_server_linger(int descriptor)
{
    char byte = 0;
    while (read(descriptor, &byte, 1) > 0) {
    }
}

static bool is_complete(const char *request)
{
    const char *end = strstr(request, "\r\n\r\n");
    const char *length = strstr(request, "Content-Length: ");
    if (!end) {
        return false;
    }
    size_t wanted = length ? strtoul(length + strlen("Content-Length: "), NULL, 10) : 0;
    return strlen(end + 4) >= wanted;
}

static void read_request(struct http_server *server, int descriptor)
{
    size_t length = 0;
    server->request[0] = '\0';
    while (length < REQUEST_BYTES - 1 && !is_complete(server->request)) {
        ssize_t count = read(descriptor, server->request + length, REQUEST_BYTES - 1 - length);
        if (count <= 0) {
            return;
        }
        length += (size_t)count;
        server->request[length] = '\0';
    }
}

static void *serve(void *context)
{
    struct http_server *server = context;
    for (;;) {
        int descriptor = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        if (descriptor < 0) {
            return NULL;
        }
        read_request(server, descriptor);
        if (server->request[0]) {
            server->answer(server->context, descriptor, server->request, ++server->count);
        }
        (void)close(descriptor);
    }
}

struct http_server *http_server_start(http_server_fn *answer, void *context)
{
    struct http_server *server = memory_new(sizeof(*server));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    server->answer = answer;
    server->context = context;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server->listener, (struct sockaddr *)&address, length) != 0
        || listen(server->listener, BACKLOG) != 0
        || getsockname(server->listener, (struct sockaddr *)&address, &length) != 0
        || pthread_create(&server->thread, NULL, serve, server) != 0) {
        abort();
    }
    server->port = ntohs(address.sin_port);
    return server;
}

void http_server_stop(struct http_server **server)
{
    (void)shutdown((*server)->listener, SHUT_RDWR);
    (void)pthread_join((*server)->thread, NULL);
    (void)close((*server)->listener);
    memory_free(server);
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

const char *http_server_last(const struct http_server *server)
{
    return server->request;
}
