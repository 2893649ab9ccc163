#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <zlib.h>

#include "codec/message_body.h"
#include "support/golden.h"

#define JSON_CONTENT "application/json"

static const char *const accept_json[] = {"json", NULL};
static const struct message_rules rules = {accept_json, 4096};

/* A message and what came of reading it. */
struct reading {
    struct delivery *delivery;
    struct message message;
    struct error error;
    enum message_fault fault;
};

static struct reading read_with(const char *headers, const char *content_type, struct bytes body,
                                const struct message_rules *with)
{
    struct reading reading = {.error = {.kind = ERROR_NONE}};
    reading.delivery = golden_delivery_of(headers, content_type, body, "celery");
    reading.fault = message_read(reading.delivery, with, &reading.message, &reading.error);
    if (reading.fault == MESSAGE_FINE) {
        reading.fault = message_open_body(reading.delivery, with, &reading.message, &reading.error);
    }
    return reading;
}

static struct reading read_text(const char *headers, const char *body)
{
    return read_with(headers, JSON_CONTENT, bytes_from_text(body), &rules);
}

static void done(struct reading *reading)
{
    golden_delivery_free(&reading->delivery);
}

#define PLAIN      "{\"task\": \"t\", \"id\": \"i\"}"
#define COMPRESSED "{\"task\": \"t\", \"id\": \"i\", \"compression\": \"application/x-gzip\"}"

static void test_a_body_of_protocol_2_has_three_parts(void **state)
{
    (void)state;
    struct reading reading = read_text(PLAIN, "[[1, \"x\"], {\"k\": null}, {\"chain\": [1]}]");
    assert_int_equal(reading.fault, MESSAGE_FINE);
    golden_assert(reading.message.args.text, BYTES("[1, \"x\"]"), "args");
    golden_assert(reading.message.kwargs.text, BYTES("{\"k\": null}"), "kwargs");
    golden_assert(reading.message.chain.text, BYTES("[1]"), "chain");
    assert_int_equal(reading.message.callbacks.type, JSON_TYPE_ABSENT);
    done(&reading);
}

static void test_embed_may_be_null(void **state)
{
    (void)state;
    struct reading reading = read_text(PLAIN, "[[], {}, null]");
    assert_int_equal(reading.fault, MESSAGE_FINE);
    done(&reading);
}

static void test_other_shapes_are_invalid(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "[]",
        "[[], {}]",
        "[[], {}, {}, {}]",
        "[[], [], {}]",
        "[{}, {}, {}]",
        "[[], {}, []]",
        "[[], {}, 1]",
        "[null, {}, {}]",
        "[[], null, null]",
        "{}",
        "{\"kwargs\": {}}",
        "null",
        "1",
        "\"x\"",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(bodies); index++) {
        struct reading reading = read_text(PLAIN, bodies[index]);
        assert_int_equal(reading.fault, MESSAGE_INVALID);
        assert_true(reading.error.message[0] != '\0');
        done(&reading);
    }
}

static void test_an_empty_body_is_undecodable(void **state)
{
    (void)state;
    struct reading reading = read_text(PLAIN, "");
    assert_int_equal(reading.fault, MESSAGE_UNDECODABLE);
    done(&reading);
}

/* Compresses with zlib (bits 15) or gzip (31) framing. */
static struct bytes packed(struct arena *arena, struct bytes plain, int bits)
{
    z_stream stream = {0};
    unsigned char *out = arena_alloc(arena, plain.length + 1024);
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
    stream.next_in = (unsigned char *)arena_text(arena, plain);
    stream.avail_in = (unsigned)plain.length;
    stream.next_out = out;
    stream.avail_out = (unsigned)plain.length + 1024;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t length = stream.total_out;
    assert_int_equal(deflateEnd(&stream), Z_OK);
    return bytes_of((const char *)out, length);
}

static void test_zlib_and_gzip_bodies_are_inflated(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    static const int framings[] = {15, 31};
    for (size_t index = 0; index < ARRAY_LENGTH(framings); index++) {
        struct bytes body = packed(arena, BYTES("[[\"zzzz\"], {}, null]"), framings[index]);
        struct reading reading = read_with(COMPRESSED, JSON_CONTENT, body, &rules);
        assert_int_equal(reading.fault, MESSAGE_FINE);
        golden_assert(reading.message.args.text, BYTES("[\"zzzz\"]"), "args");
        golden_assert(reading.message.body, BYTES("[[\"zzzz\"], {}, null]"), "body");
        done(&reading);
    }
    arena_free(&arena);
}

static void test_a_body_may_have_just_the_limit(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    for (size_t extra = 0; extra < 2; extra++) {
        size_t length = rules.max_body_bytes + extra;
        char *plain = arena_alloc(arena, length + 1);
        memset(plain, ' ', length);
        memcpy(plain, "[[], {}, null]", 14);
        enum message_fault expected = extra == 0 ? MESSAGE_FINE : MESSAGE_UNDECODABLE;
        struct reading reading = read_with(PLAIN, JSON_CONTENT, bytes_of(plain, length), &rules);
        assert_int_equal(reading.fault, expected);
        done(&reading);
        struct bytes body = packed(arena, bytes_of(plain, length), 15);
        reading = read_with(COMPRESSED, JSON_CONTENT, body, &rules);
        assert_int_equal(reading.fault, expected);
        assert_int_equal(reading.error.kind, extra == 0 ? ERROR_NONE : ERROR_TOO_LARGE);
        done(&reading);
    }
    arena_free(&arena);
}

static void test_a_bomb_stops_at_the_limit(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    char *plain = arena_alloc(arena, (size_t)4 << 20);
    struct bytes body = packed(arena, bytes_of(plain, (size_t)4 << 20), 15);
    struct reading reading = read_with(COMPRESSED, JSON_CONTENT, body, &rules);
    assert_int_equal(reading.fault, MESSAGE_UNDECODABLE);
    assert_int_equal(reading.error.kind, ERROR_TOO_LARGE);
    assert_true(arena_bytes(reading.delivery->arena) < 65536);
    done(&reading);
    arena_free(&arena);
}

static void test_corrupt_or_unknown_compression_is_undecodable(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct bytes body = packed(arena, BYTES("[[], {}, null]"), 15);
    static const char *const methods[] = {"\"made-up\"", "5", "[]"};
    for (size_t index = 0; index < ARRAY_LENGTH(methods); index++) {
        char headers[200];
        (void)snprintf(headers, sizeof(headers),
                       "{\"task\": \"t\", \"id\": \"i\", \"compression\": %s}", methods[index]);
        struct reading reading = read_with(headers, JSON_CONTENT, body, &rules);
        assert_int_equal(reading.fault, MESSAGE_UNDECODABLE);
        done(&reading);
    }
    for (size_t length = 0; length < body.length; length++) {
        struct reading reading =
            read_with(COMPRESSED, JSON_CONTENT, bytes_of(body.data, length), &rules);
        assert_int_equal(reading.fault, MESSAGE_UNDECODABLE);
        done(&reading);
    }
    arena_free(&arena);
}

static void test_a_compression_of_kombus_is_left_for_python(void **state)
{
    (void)state;
    static const char *const methods[] = {"application/x-bz2", "xz", "brotli", "application/zstd"};
    struct bytes body = BYTES("packed");
    for (size_t index = 0; index < ARRAY_LENGTH(methods); index++) {
        char headers[200];
        (void)snprintf(headers, sizeof(headers),
                       "{\"task\": \"t\", \"id\": \"i\", \"compression\": \"%s\"}", methods[index]);
        struct reading reading = read_with(headers, JSON_CONTENT, body, &rules);
        assert_int_equal(reading.fault, MESSAGE_FINE);
        assert_false(message_is_open(&reading.message));
        assert_true(bytes_equal(reading.message.body, body));
        assert_true(bytes_equal_text(reading.message.compression, methods[index]));
        done(&reading);
        reading = read_with(headers, "made/up", body, &rules);
        assert_int_equal(reading.fault, MESSAGE_INVALID);
        assert_int_equal(reading.error.kind, ERROR_REFUSED);
        done(&reading);
    }
}

static void test_compression_is_looked_at_before_the_content_type(void **state)
{
    (void)state;
    struct reading reading = read_with(COMPRESSED, "made/up", BYTES("no zlib"), &rules);
    assert_int_equal(reading.fault, MESSAGE_UNDECODABLE);
    done(&reading);
}

static void test_accept_content_names_types_by_short_name_or_in_full(void **state)
{
    (void)state;
    static const char *const full[] = {"application/json", NULL};
    static const char *const other[] = {"yaml", "pickle", NULL};
    struct message_rules by_full = {full, 4096};
    struct message_rules by_other = {other, 4096};
    struct bytes body = BYTES("[[], {}, null]");
    struct reading reading = read_with(PLAIN, JSON_CONTENT, body, &by_full);
    assert_int_equal(reading.fault, MESSAGE_FINE);
    done(&reading);
    reading = read_with(PLAIN, JSON_CONTENT, body, &by_other);
    assert_int_equal(reading.error.kind, ERROR_REFUSED);
    assert_string_equal(reading.error.message, "Refusing to deserialize untrusted content of type "
                                               "json (application/json)");
    done(&reading);
    reading = read_with(PLAIN, "text/x-mine", body, &by_other);
    assert_string_equal(reading.error.message,
                        "Refusing to deserialize untrusted content of type text/x-mine");
    done(&reading);
    reading = read_with(PLAIN, "yaml", body, &by_other);
    assert_int_equal(reading.error.kind, ERROR_REFUSED); /* a short name is no content type */
    done(&reading);
    reading = read_with(PLAIN, "application/x-yaml", body, &by_other);
    assert_int_equal(reading.fault, MESSAGE_FINE); /* accepted, and left for whoever runs it */
    assert_false(message_is_open(&reading.message));
    assert_true(bytes_equal(reading.message.body, body));
    done(&reading);
}

static void test_protocol_1_becomes_protocol_2(void **state)
{
    (void)state;
    struct reading reading = read_text(
        "{\"x-custom\": 1, \"petiole_tenant\": \"tenant-user\"}",
        "{\"task\": \"t\", \"id\": \"i\", \"args\": [1], \"kwargs\": {\"a\": 2}, \"retries\": 4, "
        "\"taskset\": \"g\", \"group\": \"h\", \"timelimit\": [9, 8], \"callbacks\": [{}], "
        "\"eta\": \"2030-01-02T03:04:05\", \"utc\": true, \"chord\": null}");
    assert_int_equal(reading.fault, MESSAGE_FINE);
    assert_int_equal(reading.message.protocol, 1);
    assert_int_equal(reading.message.retries, 4);
    golden_assert(reading.message.group, BYTES("g"), "taskset is the group");
    assert_true(reading.message.hard_limit_s == 9 && reading.message.soft_limit_s == 8);
    assert_true(reading.message.eta_wall_s == 1893553445);
    golden_assert(
        reading.message.body,
        BYTES("[[1], {\"a\": 2}, {\"callbacks\": [{}], \"errbacks\": null, \"chord\": null, "
              "\"chain\": null}]"),
        "body");
    golden_assert(json_get(reading.message.headers, "petiole_tenant").text,
                  BYTES("\"tenant-user\""), "the message's own headers are kept");
    golden_assert(json_get(reading.message.headers, "task").text, BYTES("\"t\""), "task");
    done(&reading);
}

static void test_protocol_1_without_arguments_has_none(void **state)
{
    (void)state;
    struct reading reading = read_text("{}", "{\"task\": \"t\", \"id\": \"i\"}");
    assert_int_equal(reading.fault, MESSAGE_FINE);
    golden_assert(reading.message.args.text, BYTES("[]"), "args");
    golden_assert(reading.message.kwargs.text, BYTES("{}"), "kwargs");
    golden_assert(
        reading.message.headers.text,
        BYTES("{\"lang\": null, \"task\": \"t\", \"id\": \"i\", \"root_id\": null, "
              "\"parent_id\": null, \"group\": null, \"meth\": null, \"shadow\": null, "
              "\"eta\": null, \"expires\": null, \"retries\": 0, \"timelimit\": [null, null], "
              "\"argsrepr\": null, \"kwargsrepr\": null, \"origin\": null}"),
        "what Celery makes of it, no more");
    done(&reading);
}

static void test_bad_protocol_1_is_invalid(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"task\": \"t\"}",
        "{\"task\": \"t\", \"id\": \"i\", \"kwargs\": [1]}",
        "{\"task\": \"t\", \"id\": \"i\", \"args\": {}}",
        "{\"task\": \"t\", \"id\": \"i\", \"eta\": \"x\"}",
        "{\"task\": \"t\", \"id\": \"i\", \"retries\": \"x\"}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(bodies); index++) {
        struct reading reading = read_text("{}", bodies[index]);
        assert_int_equal(reading.fault, MESSAGE_INVALID);
        done(&reading);
    }
}

static void test_headers_win_over_a_body_of_protocol_1(void **state)
{
    (void)state;
    struct reading reading =
        read_text("{\"task\": \"t\", \"id\": \"i\", \"retries\": 2}",
                  "{\"task\": \"other\", \"id\": \"other\", \"args\": [1], \"retries\": 7, "
                  "\"expires\": \"2030-01-02\", \"timelimit\": [5, null], \"errbacks\": [{}]}");
    assert_int_equal(reading.fault, MESSAGE_FINE);
    golden_assert(reading.message.task, BYTES("t"), "task");
    golden_assert(reading.message.id, BYTES("i"), "id");
    assert_int_equal(reading.message.retries, 2);
    assert_true(reading.message.hard_limit_s == 5);
    golden_assert(reading.message.expires, BYTES("2030-01-02"), "the body fills in");
    golden_assert(reading.message.errbacks.text, BYTES("[{}]"), "errbacks");
    assert_true(bytes_starts_with(reading.message.body, BYTES("[[1], {}, {")));
    done(&reading);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_body_of_protocol_2_has_three_parts),
        cmocka_unit_test(test_embed_may_be_null),
        cmocka_unit_test(test_other_shapes_are_invalid),
        cmocka_unit_test(test_an_empty_body_is_undecodable),
        cmocka_unit_test(test_zlib_and_gzip_bodies_are_inflated),
        cmocka_unit_test(test_a_body_may_have_just_the_limit),
        cmocka_unit_test(test_a_bomb_stops_at_the_limit),
        cmocka_unit_test(test_corrupt_or_unknown_compression_is_undecodable),
        cmocka_unit_test(test_a_compression_of_kombus_is_left_for_python),
        cmocka_unit_test(test_compression_is_looked_at_before_the_content_type),
        cmocka_unit_test(test_accept_content_names_types_by_short_name_or_in_full),
        cmocka_unit_test(test_protocol_1_becomes_protocol_2),
        cmocka_unit_test(test_protocol_1_without_arguments_has_none),
        cmocka_unit_test(test_bad_protocol_1_is_invalid),
        cmocka_unit_test(test_headers_win_over_a_body_of_protocol_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
