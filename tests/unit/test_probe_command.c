/* The command `petiole probe` (worker/probe_command.h) against a thread that answers like a worker. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "worker/probe_command.h"

#define WELL   "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
#define UNWELL "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: broker\n"

/* A server for one request. */
struct peer {
    int listener;
    const char *answer;
    pthread_t thread;
    char request[512];
};

struct fixture {
    char folder[32];
    char socket_path[64];
    struct arena *arena;
    char *environment[4];
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    (void)snprintf(fixture->folder, sizeof(fixture->folder), "/tmp/petiole-test-XXXXXX");
    fixture->arena = arena_new(1024);
    *state = fixture;
    if (!mkdtemp(fixture->folder)) {
        return -1;
    }
    (void)snprintf(fixture->socket_path, sizeof(fixture->socket_path), "%s/w@box.sock",
                   fixture->folder);
    fixture->environment[0] = arena_format(fixture->arena, "PETIOLE_RUN_DIR=%s", fixture->folder);
    fixture->environment[1] = arena_text(fixture->arena, BYTES("PETIOLE_WORKER_HTTP_ADDRESS="));
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)unlink(fixture->socket_path);
    (void)rmdir(fixture->folder);
    arena_free(&fixture->arena);
    memory_free(&fixture);
    return 0;
}

static void *serve(void *context)
{
    struct peer *peer = context;
    int connection = accept(peer->listener, NULL, NULL);
    (void)recv(connection, peer->request, sizeof(peer->request) - 1, 0);
    (void)send(connection, peer->answer, strlen(peer->answer), MSG_NOSIGNAL);
    (void)close(connection);
    return NULL;
}

static int listen_at(int family, const struct sockaddr *place, socklen_t size)
{
    int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, place, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    return listener;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    (void)snprintf(place.sun_path, sizeof(place.sun_path), "%s", path);
    return listen_at(AF_UNIX, (const struct sockaddr *)&place, sizeof(place));
}

static void start(struct peer *peer)
{
    assert_int_equal(pthread_create(&peer->thread, NULL, serve, peer), 0);
}

static void stop(struct peer *peer)
{
    assert_int_equal(pthread_join(peer->thread, NULL), 0);
    assert_int_equal(close(peer->listener), 0);
}

static int probe(struct fixture *fixture, const char *what, const char *address)
{
    char *words[] = {arena_text(fixture->arena, BYTES("petiole")),
                     arena_text(fixture->arena, BYTES("probe")),
                     arena_text(fixture->arena, bytes_from_text(what)),
                     arena_text(fixture->arena, BYTES("--address")),
                     arena_text(fixture->arena, bytes_from_text(address))};
    struct options options;
    struct error error = {0};
    assert_true(options_parse(&options, address ? 5 : 3, words, fixture->environment, &error));
    int exit_code = probe_command_run(&options, fixture->environment);
    options_fini(&options);
    return exit_code;
}

static void test_socket_in_the_run_directory(void **state)
{
    struct fixture *fixture = *state;
    struct peer peer = {.listener = listen_unix(fixture->socket_path), .answer = WELL};
    start(&peer);
    assert_int_equal(probe(fixture, "ready", NULL), 0);
    stop(&peer);
    assert_int_equal(strncmp(peer.request, "GET /readyz HTTP/1.0\r\n", 22), 0);
}

static void test_unwell(void **state)
{
    struct fixture *fixture = *state;
    struct peer peer = {.listener = listen_unix(fixture->socket_path), .answer = UNWELL};
    start(&peer);
    assert_int_equal(probe(fixture, "live", NULL), 1);
    stop(&peer);
    assert_int_equal(strncmp(peer.request, "GET /livez HTTP/1.0\r\n", 21), 0);
}

static void test_nobody(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(probe(fixture, "live", NULL), 1);
    int dead = listen_unix(fixture->socket_path);
    assert_int_equal(close(dead), 0);
    assert_int_equal(probe(fixture, "live", NULL), 1);
    assert_int_equal(probe(fixture, "live", "127.0.0.1"), 1);
    assert_int_equal(probe(fixture, "live", "unix:/nonexistent/socket"), 1);
}

static void test_empty_answer(void **state)
{
    struct fixture *fixture = *state;
    struct peer peer = {.listener = listen_unix(fixture->socket_path), .answer = ""};
    start(&peer);
    assert_int_equal(probe(fixture, "live", NULL), 1);
    stop(&peer);
}

static void test_tcp_address(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(place);
    struct peer peer = {.answer = WELL};
    peer.listener = listen_at(AF_INET, (const struct sockaddr *)&place, sizeof(place));
    assert_int_equal(getsockname(peer.listener, (struct sockaddr *)&place, &size), 0);
    start(&peer);
    const char *address = arena_format(fixture->arena, "0.0.0.0:%d", (int)ntohs(place.sin_port));
    assert_int_equal(probe(fixture, "ready", address), 0);
    stop(&peer);
}

/* A mistake in the next configuration of a worker that runs must not end it. */
static void test_broken_settings_file_is_passed_over(void **state)
{
    struct fixture *fixture = *state;
    fixture->environment[2] =
        arena_text(fixture->arena, BYTES("PETIOLE_CONFIG=/nonexistent/petiole.yaml"));
    struct peer peer = {.listener = listen_unix(fixture->socket_path), .answer = WELL};
    start(&peer);
    assert_int_equal(probe(fixture, "ready", NULL), 0);
    stop(&peer);
}

static void test_wrong_environment(void **state)
{
    struct fixture *fixture = *state;
    fixture->environment[2] = arena_text(fixture->arena, BYTES("PETIOLE_WORKER_LOOKAHEAD=many"));
    assert_int_equal(probe(fixture, "ready", NULL), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_socket_in_the_run_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unwell, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_empty_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tcp_address, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_broken_settings_file_is_passed_over, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_environment, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("probe_command", tests, NULL, NULL);
}
