#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base64.h"
#include "support/golden.h"

static void test_bytes_are_encoded_with_padding(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xff\xfe\xfb", "//77"},
    };
    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        struct buffer buffer;
        buffer_init(&buffer, 100);
        base64_append(&buffer, bytes_from_text(rows[index][0]));
        golden_assert(buffer_view(&buffer), bytes_from_text(rows[index][1]), "base64");
        buffer_fini(&buffer);
    }
}

static void test_every_length_and_byte_comes_back(void **state)
{
    (void)state;
    char plain[1024];
    for (size_t index = 0; index < sizeof(plain); index++) {
        plain[index] = (char)(index * 7 + index / 256);
    }
    for (size_t length = 0; length <= sizeof(plain); length++) {
        struct arena *arena = arena_new(256);
        struct buffer buffer;
        struct bytes decoded;
        buffer_init(&buffer, 2000);
        base64_append(&buffer, bytes_of(plain, length));
        assert_true(base64_decode(buffer_view(&buffer), arena, &decoded));
        assert_true(bytes_equal(decoded, bytes_of(plain, length)));
        assert_int_equal(decoded.data[decoded.length], '\0');
        buffer_fini(&buffer);
        arena_free(&arena);
    }
}

static void test_what_is_no_base64_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "Z",    "Zg",    "Zg=",    "=",     "==",     "====", "Zg===",   "Z===", "Zm9vYg==Zm9v",
        "Zg= ", " Zg==", "Zg==\n", "Zm 9v", "Zm9v\n", "Zm-_", "Zm9\xc3", "Zm=v", "=m9v",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(texts); index++) {
        struct arena *arena = arena_new(256);
        struct bytes decoded = BYTES("untouched");
        if (base64_decode(bytes_from_text(texts[index]), arena, &decoded)) {
            fail_msg("\"%s\" was read", texts[index]);
        }
        golden_assert(decoded, BYTES("untouched"), texts[index]);
        arena_free(&arena);
    }
    struct arena *arena = arena_new(256);
    struct bytes decoded;
    assert_false(base64_decode(bytes_of("Zm\0v", 4), arena, &decoded));
    arena_free(&arena);
}

static void test_what_does_not_fit_is_told(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 6);
    base64_append(&buffer, BYTES("foob"));
    assert_true(buffer.overflowed);
    assert_int_equal(buffer.length, 0);
    buffer_fini(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_encoded_with_padding),
        cmocka_unit_test(test_every_length_and_byte_comes_back),
        cmocka_unit_test(test_what_is_no_base64_is_refused),
        cmocka_unit_test(test_what_does_not_fit_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
