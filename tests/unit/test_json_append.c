#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "support/golden.h"

static void test_dumps_gives_what_python_gives(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = golden_read("dumps.json", arena);
    struct json_walk walk = json_walk(rows);
    struct json row;
    assert_true(json_count(rows) > 40);
    while (json_next_element(&walk, &row)) {
        struct bytes text;
        struct bytes expected;
        struct json value;
        struct buffer written;
        assert_true(json_text(json_at(row, 0), arena, &text));
        assert_true(json_text(json_at(row, 1), arena, &expected));
        assert_true(json_parse(text, &value, NULL));
        buffer_init(&written, 4096);
        json_append_dumps(&written, value);
        golden_assert(buffer_view(&written), expected, "json.dumps(json.loads())");
        buffer_fini(&written);
    }
    arena_free(&arena);
}

static void test_a_string_escapes_all_but_printable_ascii(void **state)
{
    (void)state;

    static const struct {
        struct bytes text;
        const char *written;
    } rows[] = {
        {{"", 0}, "\"\""},
        {{"a\0b", 3}, "\"a\\u0000b\""},
        {{"\x7f", 1}, "\"\\u007f\""},
        {{"/'", 2}, "\"/'\""},
        {{"\xc3\xa9\xf0\x9f\x98\x80", 6}, "\"\\u00e9\\ud83d\\ude00\""},
        {{"\xff\xc3", 2}, "\"\\ufffd\\ufffd\""},            /* bad bytes */
        {{"\xed\xa0\x80", 3}, "\"\\ufffd\\ufffd\\ufffd\""}, /* a surrogate in UTF-8 */
        {{"\xf4\x90\x80\x80", 4}, "\"\\ufffd\\ufffd\\ufffd\\ufffd\""},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        struct buffer buffer;
        buffer_init(&buffer, 100);
        json_append_string(&buffer, rows[index].text);
        golden_assert(buffer_view(&buffer), bytes_from_text(rows[index].written), "string");
        buffer_fini(&buffer);
    }
}

static void test_a_text_member_follows_another_one(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 100);
    (void)buffer_append_text(&buffer, "{\"v\": 1");
    json_append_text_member(&buffer, "queue", BYTES("a\"b"));
    golden_assert(buffer_view(&buffer), BYTES("{\"v\": 1, \"queue\": \"a\\\"b\""), "member");
    buffer_fini(&buffer);
}

static void test_what_does_not_fit_is_told(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 5);
    json_append_string(&buffer, BYTES("abc"));
    assert_false(buffer.overflowed);
    buffer_clear(&buffer);
    json_append_string(&buffer, BYTES("abcd"));
    assert_true(buffer.overflowed);
    buffer_fini(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dumps_gives_what_python_gives),
        cmocka_unit_test(test_a_string_escapes_all_but_printable_ascii),
        cmocka_unit_test(test_a_text_member_follows_another_one),
        cmocka_unit_test(test_what_does_not_fit_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
