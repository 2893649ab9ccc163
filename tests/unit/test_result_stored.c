#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <zlib.h>

#include "result/result_stored.h"

#define HEAD "\0celery-compressed\0application/x-gzip"

static void expect_status(struct bytes document, const char *expected)
{
    struct arena *arena = arena_new(0);
    struct bytes status = result_stored_status(document, arena);
    assert_int_equal(status.length, strlen(expected));
    assert_memory_equal(status.data ? status.data : "", expected, status.length);
    arena_free(&arena);
}

static void test_reads_the_status(void **state)
{
    (void)state;
    expect_status(BYTES("{\"result\": 4, \"status\": \"SUCCESS\"}"), "\"SUCCESS\"");
    expect_status(BYTES("{\"status\": null}"), "");
    expect_status(BYTES("{\"result\": 4}"), "");
    expect_status(BYTES("[]"), "");
    expect_status(BYTES("no json"), "");
    expect_status(bytes_of(NULL, 0), "");
}

static void test_reads_compressed_documents(void **state)
{
    static const char plain[] = "{\"status\": \"FAILURE\"}";
    (void)state;
    char stored[256] = HEAD;
    uLongf length = sizeof(stored) - sizeof(HEAD);
    assert_int_equal(
        compress((Bytef *)stored + sizeof(HEAD), &length, (const Bytef *)plain, strlen(plain)),
        Z_OK);
    expect_status(bytes_of(stored, sizeof(HEAD) + length), "\"FAILURE\"");
    expect_status(bytes_of(stored, sizeof(HEAD) + length / 2), "");
    expect_status(BYTES("\0celery-compressed\0application/x-bz2\0anything"), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_the_status),
        cmocka_unit_test(test_reads_compressed_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
