#include "executor/kubernetes_page.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/memory.h"

static void assert_text(struct buffer *buffer, const char *expected)
{
    assert_true(bytes_equal_text(buffer_view(buffer), expected));
    buffer_clear(buffer);
}

static void asks_for_a_page(void **state)
{
    (void)state;
    struct buffer query;
    buffer_init(&query, 1024);
    kubernetes_page_append_query(&query, 250, NULL, bytes_of(NULL, 0));
    assert_text(&query, "limit=250");
    kubernetes_page_append_query(&query, 2, "a.b/c=d,e!=f", BYTES("x+y=\xc3\xa9&limit=9"));
    assert_text(&query, "limit=2&labelSelector=a.b%2Fc%3Dd%2Ce%21%3Df"
                        "&continue=x%2By%3D%C3%A9%26limit%3D9");
    kubernetes_page_append_parameter(&query, "resourceVersion", BYTES("az-AZ._~09"));
    assert_text(&query, "&resourceVersion=az-AZ._~09");
    buffer_fini(&query);
}

static bool keep_next(const char *list, struct buffer *token)
{
    struct json parsed;
    assert_true(json_parse(bytes_from_text(list), &parsed, NULL));
    return kubernetes_page_keep_next(parsed, token);
}

static void keeps_the_token_of_the_next_page(void **state)
{
    (void)state;
    struct buffer token;
    buffer_init(&token, 4);
    assert_true(keep_next("{\"metadata\":{\"continue\":\"a\\/b\"}}", &token));
    assert_text(&token, "a/b");
    static const char *const last[] = {"{}", "{\"metadata\":{\"continue\":\"\"}}",
                                       "{\"metadata\":{\"continue\":7}}", "[]"};
    for (size_t i = 0; i < sizeof(last) / sizeof(*last); i++) {
        (void)buffer_append(&token, BYTES("old"));
        assert_false(keep_next(last[i], &token));
        assert_int_equal(0, token.length);
    }
    assert_false(keep_next("{\"metadata\":{\"continue\":\"too long\"}}", &token));
    buffer_fini(&token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asks_for_a_page),
        cmocka_unit_test(keeps_the_token_of_the_next_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
