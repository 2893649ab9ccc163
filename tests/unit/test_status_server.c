/* The HTTP server for probes (telemetry/status_server.h), hostile clients included: real sockets, virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "telemetry/status_server.h"

#define PATIENCE 5000 /* turns of the loop, of a millisecond each when nothing happens */

struct fixture {
    struct loop *loop;
    struct status_server *server;
    bool is_ready;
    bool is_closed;
    size_t metrics_bytes;
};

static bool is_live(void *context, char *reason, size_t size)
{
    (void)context;
    (void)reason;
    (void)size;
    return true;
}

static bool is_ready(void *context, char *reason, size_t size)
{
    const struct fixture *fixture = context;
    (void)snprintf(reason, size, "not ready: broker");
    return fixture->is_ready;
}

static void write_metrics(void *context, struct buffer *body)
{
    const struct fixture *fixture = context;
    (void)buffer_append_text(body, "# HELP x y\n");
    for (size_t count = 0; count < fixture->metrics_bytes; count++) {
        (void)buffer_append_byte(body, 'x');
    }
}

static const struct status_server_events events = {is_live, is_ready, write_metrics};

static void on_closed(void *context)
{
    struct fixture *fixture = context;
    fixture->is_closed = true;
}

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    struct error error = {0};
    fixture->loop = loop_new(LOOP_CLOCK_VIRTUAL);
    fixture->server = status_server_open(fixture->loop, "127.0.0.1:0", &events, fixture, &error);
    fixture->is_ready = true;
    *state = fixture;
    return fixture->server ? 0 : -1;
}

static void close_server(struct fixture *fixture)
{
    status_server_close(&fixture->server, on_closed, fixture);
    assert_null(fixture->server);
    for (int turn = 0; turn < PATIENCE && !fixture->is_closed; turn++) {
        loop_run_once(fixture->loop, false);
    }
    assert_true(fixture->is_closed);
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    close_server(fixture);
    loop_free(&fixture->loop);
    memory_free(&fixture);
    return 0;
}

static int connect_to(struct fixture *fixture)
{
    const char *colon = strrchr(status_server_address(fixture->server), ':');
    struct sockaddr_in place = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (const struct sockaddr *)&place, sizeof(place)), 0);
    return client;
}

static void say(int client, const char *text)
{
    assert_int_equal(send(client, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Turns the loop until the client has something to read; returns recv's result, at most `size`. */
static ssize_t hear(struct fixture *fixture, int client, char *text, size_t size)
{
    struct pollfd readable = {.fd = client, .events = POLLIN};
    for (int turn = 0; turn < PATIENCE; turn++) {
        loop_run_once(fixture->loop, false);
        if (poll(&readable, 1, 1) > 0) {
            ssize_t count = recv(client, text, size - 1, 0);
            text[count > 0 ? count : 0] = '\0';
            return count;
        }
    }
    fail_msg("no answer");
    return -1;
}

static void check_ended(struct fixture *fixture, int client)
{
    char text[4096];
    while (hear(fixture, client, text, sizeof(text)) > 0) {
        continue;
    }
    (void)close(client);
}

/* Lets the server see everything that was sent. */
static void settle(struct fixture *fixture)
{
    for (int turn = 0; turn < 20; turn++) {
        loop_run_once(fixture->loop, false);
    }
}

static void check_answer(struct fixture *fixture, const char *request, const char *status,
                         const char *body)
{
    char text[4096];
    int client = connect_to(fixture);
    say(client, request);
    (void)hear(fixture, client, text, sizeof(text));
    assert_int_equal(strncmp(text, status, strlen(status)), 0);
    const char *end = strstr(text, "\r\n\r\n");
    assert_non_null(end);
    assert_string_equal(end + 4, body);
    (void)close(client);
}

static void test_paths(void **state)
{
    check_answer(*state, "GET /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "ok\n");
    check_answer(*state, "GET /healthz?x HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "ok\n");
    check_answer(*state, "GET /readyz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "ok\n");
    check_answer(*state, "HEAD /readyz HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "");
    check_answer(*state, "GET /metrics HTTP/1.1\r\n\r\n",
                 "HTTP/1.1 200 OK\r\nContent-Type: text/plain; "
                 "version=0.0.4",
                 "# HELP x y\n");
    check_answer(*state, "GET /other HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n",
                 "there are /livez /readyz /healthz /metrics\n");
    check_answer(*state, "DELETE /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n",
                 "Method Not Allowed\n");
}

static void test_not_ready_names_the_part(void **state)
{
    struct fixture *fixture = *state;
    fixture->is_ready = false;
    check_answer(fixture, "GET /readyz HTTP/1.1\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n",
                 "not ready: broker\n");
    check_answer(fixture, "GET /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "ok\n");
}

static void test_keep_alive_and_pipelining(void **state)
{
    struct fixture *fixture = *state;
    char text[4096];
    int client = connect_to(fixture);
    say(client, "GET /livez HTTP/1.1\r\n\r\n");
    assert_true(hear(fixture, client, text, sizeof(text)) > 0);
    say(client, "GET /livez HTTP/1.1\r\n\r\nGET /livez HTTP/1.1\r\nConnection: close\r\n\r\n");
    check_ended(fixture, client);
}

static void test_close_is_honoured(void **state)
{
    int client = connect_to(*state);
    say(client, "GET /livez HTTP/1.0\r\n\r\n");
    check_ended(*state, client);
    client = connect_to(*state);
    say(client, "nonsense\r\n\r\n");
    check_ended(*state, client);
}

static void test_slow_request_is_dropped(void **state)
{
    struct fixture *fixture = *state;
    int client = connect_to(fixture);
    settle(fixture);
    for (int piece = 0; piece < 3; piece++) {
        loop_advance(fixture->loop, STATUS_SERVER_REQUEST_MS / 4);
        say(client, "GET");
        settle(fixture);
    }
    loop_advance(fixture->loop, STATUS_SERVER_REQUEST_MS);
    check_ended(fixture, client);
}

static void test_silent_connection_is_dropped(void **state)
{
    struct fixture *fixture = *state;
    int client = connect_to(fixture);
    settle(fixture);
    loop_advance(fixture->loop, STATUS_SERVER_REQUEST_MS);
    check_ended(fixture, client);
}

static void test_idle_connection_is_dropped_later(void **state)
{
    struct fixture *fixture = *state;
    char text[4096];
    int client = connect_to(fixture);
    say(client, "GET /livez HTTP/1.1\r\n\r\n");
    assert_true(hear(fixture, client, text, sizeof(text)) > 0);
    settle(fixture);
    loop_advance(fixture->loop, STATUS_SERVER_IDLE_MS - 1);
    say(client, "GET /livez HTTP/1.1\r\n\r\n");
    assert_true(hear(fixture, client, text, sizeof(text)) > 0);
    settle(fixture);
    loop_advance(fixture->loop, STATUS_SERVER_IDLE_MS);
    check_ended(fixture, client);
}

static void test_endless_head_is_refused(void **state)
{
    struct fixture *fixture = *state;
    char text[4096];
    int client = connect_to(fixture);
    char piece[STATUS_SERVER_MAX_REQUEST_BYTES + 1];
    memset(piece, 'x', sizeof(piece) - 1);
    piece[sizeof(piece) - 1] = '\0';
    say(client, piece);
    assert_true(hear(fixture, client, text, sizeof(text)) > 0);
    assert_non_null(strstr(text, "431"));
    check_ended(fixture, client);
}

static void test_reader_that_does_not_read_is_dropped(void **state)
{
    struct fixture *fixture = *state;
    fixture->metrics_bytes = 12 << 20;
    int client = connect_to(fixture);
    say(client, "GET /metrics HTTP/1.1\r\n\r\n");
    settle(fixture);
    loop_advance(fixture->loop, STATUS_SERVER_REQUEST_MS);
    settle(fixture);
    check_ended(fixture, client);
}

static void test_too_many_metrics(void **state)
{
    struct fixture *fixture = *state;
    fixture->metrics_bytes = STATUS_SERVER_MAX_METRICS_BYTES;
    check_answer(fixture, "GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 500 Internal Server Error\r\n",
                 "");
}

static void test_many_connections_leave_room_for_a_probe(void **state)
{
    struct fixture *fixture = *state;
    int hoard[STATUS_SERVER_MAX_CONNECTIONS];
    for (size_t index = 0; index < STATUS_SERVER_MAX_CONNECTIONS; index++) {
        hoard[index] = connect_to(fixture);
    }
    settle(fixture);
    check_answer(fixture, "GET /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n", "ok\n");
    check_ended(fixture, hoard[0]);
    for (size_t index = 1; index < STATUS_SERVER_MAX_CONNECTIONS; index++) {
        (void)close(hoard[index]);
    }
}

static void test_addresses(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    assert_true(status_server_is_address("0.0.0.0:9808", NULL));
    assert_true(status_server_is_address("[::]:9808", NULL));
    assert_true(status_server_is_address(":9808", NULL));
    assert_true(status_server_is_address("localhost:1", NULL));
    assert_true(status_server_is_address("unix:/run/x.sock", NULL));
    assert_false(status_server_is_address("", NULL));
    assert_false(status_server_is_address("9808", NULL));
    assert_false(status_server_is_address("host:9808", NULL));
    assert_false(status_server_is_address("1.2.3.4:", NULL));
    assert_false(status_server_is_address("1.2.3.4:65536", NULL));
    assert_false(status_server_is_address("1.2.3.4:-1", NULL));
    assert_false(status_server_is_address("[::1:9808", NULL));
    assert_false(status_server_is_address("unix:relative", &error));
    assert_non_null(strstr(error.message, "unix:relative"));
    assert_null(status_server_open(fixture->loop, status_server_address(fixture->server), &events,
                                   fixture, &error));
    assert_int_equal(error.kind, ERROR_CONFLICT);
}

static void test_unix_socket(void **state)
{
    struct fixture *fixture = *state;
    struct error error = {0};
    char folder[] = "/tmp/petiole-test-XXXXXX";
    char address[64];
    assert_non_null(mkdtemp(folder));
    (void)snprintf(address, sizeof(address), "unix:%s/a.sock", folder);

    /* A socket that nobody serves any more is in the way, as after a kill -9. */
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    (void)snprintf(place.sun_path, sizeof(place.sun_path), "%s", address + 5);
    int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(dead, (const struct sockaddr *)&place, sizeof(place)), 0);
    (void)close(dead);

    struct fixture other = {.loop = fixture->loop};
    other.server = status_server_open(fixture->loop, address, &events, &other, &error);
    assert_non_null(other.server);
    assert_null(status_server_open(fixture->loop, address, &events, &other, &error));
    assert_int_equal(error.kind, ERROR_CONFLICT);

    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (const struct sockaddr *)&place, sizeof(place)), 0);
    say(client, "GET /readyz HTTP/1.0\r\n\r\n");
    char text[4096];
    assert_true(hear(&other, client, text, sizeof(text)) > 0);
    assert_non_null(strstr(text, "503"));
    (void)close(client);
    close_server(&other);
    struct stat status;
    assert_int_equal(stat(address + 5, &status), -1);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_not_ready_names_the_part, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_keep_alive_and_pipelining, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_close_is_honoured, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slow_request_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_silent_connection_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_idle_connection_is_dropped_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_endless_head_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reader_that_does_not_read_is_dropped, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_too_many_metrics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_connections_leave_room_for_a_probe, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unix_socket, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("status_server", tests, NULL, NULL);
}
