#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/stream.h"
#include "support/loop_until.h"

struct fixture {
    struct loop *loop;
    struct stream *stream;
    int listener;
    unsigned short port;
    int peer; /* -1: not accepted */
    int open_count;
    int drop_count;
    struct error error;
    struct buffer received;
    bool closes_on_data;
};

static int set_up(void **state)
{
    struct fixture *fixture = memory_new(sizeof(*fixture));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    fixture->loop = loop_new(LOOP_CLOCK_REAL);
    fixture->peer = -1;
    fixture->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fixture->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fixture->listener, 4), 0);
    assert_int_equal(getsockname(fixture->listener, (struct sockaddr *)&address, &length), 0);
    fixture->port = ntohs(address.sin_port);
    buffer_init(&fixture->received, (size_t)64 * 1024 * 1024);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    stream_close(&fixture->stream);
    loop_free(&fixture->loop);
    buffer_fini(&fixture->received);
    (void)close(fixture->listener);
    if (fixture->peer >= 0) {
        (void)close(fixture->peer);
    }
    memory_free(&fixture);
    return 0;
}

static void on_open(void *context)
{
    struct fixture *fixture = context;
    fixture->open_count++;
}

static void on_data(void *context, struct bytes data)
{
    struct fixture *fixture = context;
    assert_true(buffer_append(&fixture->received, data));
    if (fixture->closes_on_data) {
        stream_close(&fixture->stream);
    }
}

static void on_drop(void *context, const struct error *error)
{
    struct fixture *fixture = context;
    fixture->drop_count++;
    fixture->error = *error;
}

static bool is_open(void *context)
{
    return ((struct fixture *)context)->open_count > 0;
}

static bool is_dropped(void *context)
{
    return ((struct fixture *)context)->drop_count > 0;
}

static bool has_data(void *context)
{
    return ((struct fixture *)context)->received.length > 0;
}

static struct stream_options options_for(const struct fixture *fixture, const char *host)
{
    return (struct stream_options){.host = host,
                                   .port = fixture->port,
                                   .connect_timeout_ms = 5000,
                                   .max_write_bytes = (size_t)8 * 1024 * 1024};
}

static void open_stream(struct fixture *fixture, struct stream_options options)
{
    static const struct stream_events events = {on_open, on_data, on_drop};
    fixture->stream = stream_open(fixture->loop, &options, &events, fixture);
}

static void connect_stream(struct fixture *fixture)
{
    open_stream(fixture, options_for(fixture, "localhost"));
    loop_until(fixture->loop, is_open, fixture);
    fixture->peer = accept4(fixture->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fixture->peer >= 0);
}

/* The peer reads until `count` bytes have come. */
static void expect_at_peer(struct fixture *fixture, char *place, size_t count)
{
    size_t length = 0;
    while (length < count) {
        loop_run_once(fixture->loop, false);
        ssize_t got = recv(fixture->peer, place + length, count - length, MSG_DONTWAIT);
        length += got > 0 ? (size_t)got : 0;
        assert_true(got != 0);
    }
}

static void test_carries_bytes_both_ways(void **state)
{
    struct fixture *fixture = *state;
    char text[16] = "";
    connect_stream(fixture);
    stream_write(fixture->stream, BYTES("hel"));
    (void)buffer_append_text(stream_out(fixture->stream), "lo");
    expect_at_peer(fixture, text, 5);
    assert_string_equal(text, "hello");
    assert_int_equal(send(fixture->peer, "world", 5, 0), 5);
    loop_until(fixture->loop, has_data, fixture);
    assert_true(bytes_equal_text(buffer_view(&fixture->received), "world"));
    (void)close(fixture->peer);
    fixture->peer = -1;
    loop_until(fixture->loop, is_dropped, fixture);
    assert_int_equal(fixture->error.kind, ERROR_TEMPORARY);
    loop_until_later(fixture->loop, 5);
    assert_int_equal(fixture->drop_count, 1);
}

static void test_writes_one_turn_in_one_piece(void **state)
{
    struct fixture *fixture = *state;
    char text[64];
    connect_stream(fixture);
    for (int index = 0; index < 10; index++) {
        stream_write(fixture->stream, BYTES("0123"));
    }
    loop_until_later(fixture->loop, 5);
    assert_int_equal(recv(fixture->peer, text, sizeof(text), 0), 40);
}

static void test_goes_on_when_the_peer_reads_slowly(void **state)
{
    struct fixture *fixture = *state;
    size_t length = (size_t)7 * 1024 * 1024;
    char *sent = memory_new(length);
    char *seen = memory_new(length);
    for (size_t index = 0; index < length; index++) {
        sent[index] = (char)(index * 7 + index / 251);
    }
    connect_stream(fixture);
    stream_write(fixture->stream, bytes_of(sent, length / 2));
    loop_until_later(fixture->loop, 5);
    stream_write(fixture->stream, bytes_of(sent + length / 2, length - length / 2));
    expect_at_peer(fixture, seen, length);
    assert_memory_equal(sent, seen, length);
    memory_free(&sent);
    memory_free(&seen);
}

static void test_drops_when_too_much_waits(void **state)
{
    struct fixture *fixture = *state;
    char *block = memory_new((size_t)1024 * 1024);
    connect_stream(fixture);
    for (int index = 0; index < 9; index++) {
        stream_write(fixture->stream, bytes_of(block, (size_t)1024 * 1024));
    }
    loop_until(fixture->loop, is_dropped, fixture);
    assert_int_equal(fixture->error.kind, ERROR_TOO_LARGE);
    memory_free(&block);
}

static void test_sends_the_last_words_on_close(void **state)
{
    struct fixture *fixture = *state;
    char text[16] = "";
    connect_stream(fixture);
    stream_write(fixture->stream, BYTES("bye"));
    stream_close(&fixture->stream);
    assert_null(fixture->stream);
    expect_at_peer(fixture, text, 3);
    assert_string_equal(text, "bye");
    assert_int_equal(fixture->drop_count, 0);
}

static void test_may_be_closed_while_handing_up_data(void **state)
{
    struct fixture *fixture = *state;
    connect_stream(fixture);
    fixture->closes_on_data = true;
    assert_int_equal(send(fixture->peer, "x", 1, 0), 1);
    loop_until(fixture->loop, has_data, fixture);
    assert_null(fixture->stream);
    assert_int_equal(fixture->drop_count, 0);
}

static void test_reports_who_could_not_be_reached(void **state)
{
    struct fixture *fixture = *state;
    (void)close(fixture->listener);
    fixture->listener = -1;
    open_stream(fixture, options_for(fixture, "localhost"));
    assert_int_equal(fixture->drop_count, 0);
    loop_until(fixture->loop, is_dropped, fixture);
    assert_non_null(strstr(fixture->error.message, "localhost:"));
    assert_non_null(strstr(fixture->error.message, "refused"));
    stream_close(&fixture->stream);
    fixture->drop_count = 0;
    open_stream(fixture, options_for(fixture, "nobody.invalid"));
    loop_until(fixture->loop, is_dropped, fixture);
    assert_int_equal(fixture->error.kind, ERROR_TEMPORARY);
    stream_close(&fixture->stream);
    fixture->drop_count = 0;
    struct stream_options options = {.unix_path = "/nowhere/redis.sock",
                                     .connect_timeout_ms = 5000};
    open_stream(fixture, options);
    loop_until(fixture->loop, is_dropped, fixture);
    assert_non_null(strstr(fixture->error.message, "/nowhere/redis.sock"));
}

static void test_gives_up_on_a_silent_peer(void **state)
{
    struct fixture *fixture = *state;
    struct stream_options options = options_for(fixture, "127.0.0.1");
    options.tls.enabled = true;
    options.connect_timeout_ms = 50;
    open_stream(fixture, options); /* the kernel accepts, and nobody shakes hands */
    loop_until(fixture->loop, is_dropped, fixture);
    assert_int_equal(fixture->error.kind, ERROR_TIMEOUT);
    assert_int_equal(fixture->open_count, 0);
}

static void test_reports_a_bad_certificate_file(void **state)
{
    struct fixture *fixture = *state;
    struct stream_options options = options_for(fixture, "127.0.0.1");
    options.tls = (struct stream_tls){
        .enabled = true, .verify = STREAM_VERIFY_REQUIRED, .ca_file = "/nowhere/ca.crt"};
    open_stream(fixture, options);
    loop_until(fixture->loop, is_dropped, fixture);
    assert_int_equal(fixture->error.kind, ERROR_INVALID);
    assert_non_null(strstr(fixture->error.message, "/nowhere/ca.crt"));
}

static void test_may_be_closed_at_any_stage(void **state)
{
    struct fixture *fixture = *state;
    for (int turns = 0; turns < 4; turns++) {
        open_stream(fixture, options_for(fixture, turns % 2 ? "localhost" : "127.0.0.1"));
        for (int turn = 0; turn < turns; turn++) {
            loop_run_once(fixture->loop, false);
        }
        stream_close(&fixture->stream);
    }
    loop_until_later(fixture->loop, 20);
    assert_int_equal(fixture->drop_count, 0);
}

/* Also by a bound that is more than one read takes. */
static void test_bounds_what_a_turn_reads(void **state)
{
    static const size_t bounds[] = {1000, (size_t)1024 * 1024};
    static const size_t expected[] = {1000, (size_t)64 * 1024};
    static const char written[(size_t)128 * 1024];
    struct fixture *fixture = *state;
    for (size_t index = 0; index < ARRAY_LENGTH(bounds); index++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        struct stream_options options = {.unix_path = "pair",
                                         .descriptor = ends[0],
                                         .connect_timeout_ms = 5000,
                                         .max_write_bytes = 4096,
                                         .turn_read_bytes = bounds[index]};
        fixture->open_count = 0;
        open_stream(fixture, options);
        loop_until(fixture->loop, is_open, fixture);
        ssize_t sent = send(ends[1], written, sizeof(written), MSG_DONTWAIT);
        assert_true(sent > (ssize_t)expected[index]);
        buffer_clear(&fixture->received);
        loop_until(fixture->loop, has_data, fixture);
        assert_int_equal(fixture->received.length, expected[index]);
        stream_close(&fixture->stream);
        (void)close(ends[1]);
    }
}

/* Writes as much again as it is handed. */
static void write_again(void *context, struct bytes data)
{
    struct fixture *fixture = context;
    (void)buffer_append(&fixture->received, data);
    assert_true(fixture->received.length < 100);
    assert_int_equal(write(fixture->peer, data.data, data.length), data.length);
}

static void test_reads_what_is_there_and_no_more(void **state)
{
    static const struct stream_events events = {on_open, write_again, on_drop};
    struct fixture *fixture = *state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    fixture->peer = ends[1];
    struct stream_options options = {.unix_path = "pair",
                                     .descriptor = ends[0],
                                     .connect_timeout_ms = 5000,
                                     .max_write_bytes = 4096};
    fixture->stream = stream_open(fixture->loop, &options, &events, fixture);
    loop_until(fixture->loop, is_open, fixture);
    stream_read_now(fixture->stream);
    assert_int_equal(fixture->received.length, 0);
    assert_int_equal(write(fixture->peer, "words", 5), 5);
    stream_read_now(fixture->stream);
    assert_int_equal(fixture->received.length, 5);
    stream_read_now(fixture->stream);
    assert_int_equal(fixture->received.length, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_carries_bytes_both_ways, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writes_one_turn_in_one_piece, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_goes_on_when_the_peer_reads_slowly, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_drops_when_too_much_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sends_the_last_words_on_close, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_may_be_closed_while_handing_up_data, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_reports_who_could_not_be_reached, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gives_up_on_a_silent_peer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reports_a_bad_certificate_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_may_be_closed_at_any_stage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds_what_a_turn_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reads_what_is_there_and_no_more, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
