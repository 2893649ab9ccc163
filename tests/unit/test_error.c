#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/error.h"

static void test_setting_says_kind_and_sentence_and_returns_false(void **state)
{
    (void)state;
    struct error error = {0};
    assert_false(error_set(&error, ERROR_CONFLICT, "%s is taken by %d", "a", 7));
    assert_int_equal(error.kind, ERROR_CONFLICT);
    assert_string_equal(error.message, "a is taken by 7");
}

static void test_nobody_need_want_to_know(void **state)
{
    (void)state;
    assert_false(error_set(NULL, ERROR_INVALID, "x"));
    assert_false(error_wrap(NULL, "x"));
}

static void test_wrapping_puts_words_before_the_sentence(void **state)
{
    (void)state;
    struct error error = {0};
    (void)error_set(&error, ERROR_TIMEOUT, "no answer");
    assert_false(error_wrap(&error, "while asking %s", "redis"));
    assert_string_equal(error.message, "while asking redis: no answer");
    assert_int_equal(error.kind, ERROR_TIMEOUT);
}

/* A text of `length` letters. */
static const char *long_text(char *text, size_t length, char letter)
{
    for (size_t index = 0; index < length; index++) {
        text[index] = letter;
    }
    text[length] = '\0';
    return text;
}

static void test_long_sentences_are_cut_and_still_end(void **state)
{
    (void)state;
    char inner[1000];
    char outer[1000];
    struct error error = {0};
    (void)error_set(&error, ERROR_INVALID, "%s", long_text(inner, 900, 'i'));
    assert_int_equal(strlen(error.message), sizeof(error.message) - 1);
    for (size_t length = 490; length < 530; length++) {
        (void)error_set(&error, ERROR_INVALID, "inner");
        (void)error_wrap(&error, "%s", long_text(outer, length, 'o'));
        size_t written = strlen(error.message);
        assert_true(written < sizeof(error.message));
        assert_true(written
                    >= (length < sizeof(error.message) ? length : sizeof(error.message) - 1));
        assert_int_equal(error.message[0], 'o');
    }
}

static void test_every_kind_has_a_name(void **state)
{
    (void)state;
    for (int one = ERROR_NONE; one <= ERROR_UNSUPPORTED; one++) {
        assert_string_not_equal(error_kind_name((enum error_kind)one), "unknown");
        for (int other = one + 1; other <= ERROR_UNSUPPORTED; other++) {
            assert_string_not_equal(error_kind_name((enum error_kind)one),
                                    error_kind_name((enum error_kind)other));
        }
    }
    assert_string_equal(error_kind_name((enum error_kind)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_setting_says_kind_and_sentence_and_returns_false),
        cmocka_unit_test(test_nobody_need_want_to_know),
        cmocka_unit_test(test_wrapping_puts_words_before_the_sentence),
        cmocka_unit_test(test_long_sentences_are_cut_and_still_end),
        cmocka_unit_test(test_every_kind_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
