#include "support/redis_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

static unsigned short find_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(descriptor >= 0);
    assert_int_equal(bind(descriptor, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(descriptor, (struct sockaddr *)&address, &length), 0);
    (void)close(descriptor);
    return ntohs(address.sin_port);
}

static void run_shell(const char *script, const char *directory)
{
    pid_t pid = fork();
    if (pid == 0) {
        execlp("sh", "sh", "-ec", script, "sh", directory, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void make_certificates(const char *directory)
{
    run_shell("cd \"$1\"; exec 2>/dev/null\n"
              "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
              "-subj /CN=test-ca -keyout ca.key -out ca.crt\n"
              "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost "
              "-keyout server.key -out server.csr\n"
              "echo subjectAltName=DNS:localhost,IP:127.0.0.1 >extensions\n"
              "openssl x509 -req -days 2 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial "
              "-extfile extensions -out server.crt\n",
              directory);
}

static _Noreturn void exec_server(const struct redis_server *server, int output)
{
    char port[8];
    char tls_port[8];
    (void)snprintf(port, sizeof(port), "%u", (unsigned)server->port);
    (void)snprintf(tls_port, sizeof(tls_port), "%u", (unsigned)server->tls_port);
    const char *arguments[32] = {
        "redis-server",
        "--port",
        port,
        "--bind",
        "127.0.0.1",
        "--unixsocket",
        server->unix_path,
        "--dir",
        server->directory,
        "--save",
        "",
        "--appendonly",
        "no",
        "--daemonize",
        "no",
    };
    const char *tls[] = {
        "--tls-port",         tls_port,     "--tls-cert-file",    "server.crt",
        "--tls-key-file",     "server.key", "--tls-ca-cert-file", "ca.crt",
        "--tls-auth-clients", "no",
    };
    if (server->tls_port) {
        memcpy(&arguments[15], tls, sizeof(tls));
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (chdir(server->directory) != 0 || dup2(output, STDOUT_FILENO) < 0) {
        _exit(127);
    }

    union { /* execvp does not change its arguments, but its type predates const */
        const char **constant;
        char **writable;
    } vector = {.constant = arguments};

    execvp("redis-server", vector.writable);
    _exit(127);
}

/* Reads the server's log until it says that it listens. */
static void await_ready(int log)
{
    char text[16384];
    size_t length = 0;
    while (length < sizeof(text) - 1) {
        ssize_t count = read(log, text + length, sizeof(text) - 1 - length);
        if (count <= 0) {
            break;
        }
        length += (size_t)count;
        text[length] = '\0';
        /* With a port and a unix socket there are two such lines; the one of the socket comes
         * last. */
        if (strstr(text, "now ready to accept connections at")) {
            return;
        }
    }
    text[length] = '\0';
    fail_msg("redis-server did not start: %s", text);
}

static void launch(struct redis_server *server)
{
    int log[2];
    assert_int_equal(pipe2(log, O_CLOEXEC), 0);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        exec_server(server, log[1]);
    }
    (void)close(log[1]);
    await_ready(log[0]);
    /* The log goes on into a pipe that nobody reads, which is fine for as little as it writes:
     * closing it would end the server. */
    server->client = redisConnect("127.0.0.1", server->port);
    assert_non_null(server->client);
    assert_int_equal(server->client->err, 0);
}

void redis_server_start(struct redis_server *server, bool with_tls)
{
    memset(server, 0, sizeof(*server));
    (void)snprintf(server->directory, sizeof(server->directory), "/tmp/petiole-redis-XXXXXX");
    assert_non_null(mkdtemp(server->directory));
    (void)snprintf(server->unix_path, sizeof(server->unix_path), "%s/redis.sock",
                   server->directory);
    server->port = find_free_port();
    (void)snprintf(server->url, sizeof(server->url), "redis://127.0.0.1:%u/0",
                   (unsigned)server->port);
    if (with_tls) {
        make_certificates(server->directory);
        server->tls_port = find_free_port();
    }
    launch(server);
}

void redis_server_kill(struct redis_server *server)
{
    if (server->client) {
        redisFree(server->client);
        server->client = NULL;
    }
    if (server->pid > 0) {
        (void)kill(server->pid, SIGKILL);
        (void)waitpid(server->pid, NULL, 0);
        server->pid = 0;
    }
}

void redis_server_restart(struct redis_server *server)
{
    redis_server_kill(server);
    launch(server);
}

void redis_server_stop(struct redis_server *server)
{
    redis_server_kill(server);
    run_shell("case $1 in /tmp/petiole-redis-*) rm -rf \"$1\";; esac", server->directory);
}

static redisReply *run(struct redis_server *server, const char *format, va_list arguments)
{
    redisReply *reply = redisvCommand(server->client, format, arguments);
    if (!reply) {
        fail_msg("redis-server: %s", server->client->errstr);
        abort();
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        fail_msg("redis-server: %s: %s", format, reply->str);
    }
    return reply;
}

void redis_server_do(struct redis_server *server, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = run(server, format, arguments);
    va_end(arguments);
    freeReplyObject(reply);
}

int64_t redis_server_integer(struct redis_server *server, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = run(server, format, arguments);
    va_end(arguments);
    assert_int_equal(reply->type, REDIS_REPLY_INTEGER);
    int64_t number = reply->integer;
    freeReplyObject(reply);
    return number;
}

void redis_server_text(struct redis_server *server, char *text, size_t size, const char *format,
                       ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = run(server, format, arguments);
    va_end(arguments);
    const redisReply *value = reply;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements > 0) {
        value = reply->element[0];
    }
    (void)snprintf(text, size, "%s", value->str ? value->str : "");
    freeReplyObject(reply);
}
