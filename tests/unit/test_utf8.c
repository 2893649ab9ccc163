#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/utf8.h"

static void test_characters_are_read_with_their_length(void **state)
{
    (void)state;

    static const struct {
        const char *text;
        unsigned point;
        size_t length;
    } rows[] = {
        {"ab", 'a', 1},
        {"\x7f", 0x7f, 1},
        {"\xc2\x80", 0x80, 2},
        {"\xc3\xa9x", 0xe9, 2},
        {"\xe0\xa0\x80", 0x800, 3},
        {"\xed\x9f\xbf", 0xd7ff, 3},
        {"\xee\x80\x80", 0xe000, 3},
        {"\xef\xbf\xbf", 0xffff, 3},
        {"\xf0\x90\x80\x80", 0x10000, 4},
        {"\xf4\x8f\xbf\xbf", 0x10ffff, 4},
    };

    for (size_t index = 0; index < sizeof(rows) / sizeof(rows[0]); index++) {
        unsigned point = 0;
        assert_int_equal(utf8_decode(bytes_from_text(rows[index].text), &point),
                         rows[index].length);
        assert_int_equal(point, rows[index].point);
    }
    unsigned point = 1;
    assert_int_equal(utf8_decode(bytes_of("\0", 1), &point), 1);
    assert_int_equal(point, 0);
}

static void test_bad_bytes_are_no_character(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\x80",     /* a continuation */
        "\xc0\x80", /* overlong */
        "\xc1\xbf",
        "\xe0\x9f\xbf",
        "\xf0\x8f\xbf\xbf",
        "\xed\xa0\x80", /* surrogates */
        "\xed\xbf\xbf",
        "\xf4\x90\x80\x80", /* above U+10FFFF */
        "\xf8\x88\x80\x80\x80",
        "\xff",
        "\xc3", /* cut */
        "\xe2\x82",
        "\xf0\x9f\x98",
        "\xc3(",
        "\xe2(\xac",
        "\xe2\x82(",
    };
    for (size_t index = 0; index < sizeof(texts) / sizeof(texts[0]); index++) {
        unsigned point = 77;
        assert_int_equal(utf8_decode(bytes_from_text(texts[index]), &point), 0);
        assert_int_equal(point, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_characters_are_read_with_their_length),
        cmocka_unit_test(test_bad_bytes_are_no_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
