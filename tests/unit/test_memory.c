#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/memory.h"

static void test_arena_gives_zeroed_aligned_memory(void **state)
{
    (void)state;
    struct arena *arena = arena_new(100);
    for (size_t size = 1; size < 5000; size += 97) {
        char *storage = arena_alloc(arena, size);
        assert_int_equal((uintptr_t)storage % _Alignof(max_align_t), 0);
        for (size_t index = 0; index < size; index++) {
            assert_int_equal(storage[index], 0);
            storage[index] = 'x';
        }
    }
    assert_string_equal(arena_text(arena, BYTES("text")), "text");
    assert_string_equal(arena_format(arena, "%d-%s", 7, "x"), "7-x");
    assert_int_equal(arena_copy(arena, bytes_of(NULL, 0)).length, 0);
    assert_true(arena_bytes(arena) > 5000);
    arena_free(&arena);
    assert_null(arena);
    arena_free(&arena);
}

static void test_buffer_stops_at_its_maximum(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, 10);
    assert_true(buffer_append_text(&buffer, "12345678"));
    assert_false(buffer_append_text(&buffer, "abc"));
    assert_true(buffer.overflowed);
    assert_int_equal(buffer.length, 8);
    assert_true(buffer_append_byte(&buffer, '9'));
    buffer_consume(&buffer, 7);
    assert_int_equal(buffer.length, 2);
    assert_memory_equal(buffer_view(&buffer).data, "89", 2);
    buffer_clear(&buffer);
    assert_false(buffer.overflowed);
    assert_true(buffer_format(&buffer, "%s", "abcdefghi"));
    assert_int_equal(buffer.length, 9);
    assert_false(buffer_format(&buffer, "%s", "ab"));
    buffer_cut(&buffer, 8);
    assert_false(buffer.overflowed);
    assert_true(buffer_append_text(&buffer, "xy"));
    assert_memory_equal(buffer_view(&buffer).data, "abcdefghxy", 10);
    buffer_fini(&buffer);
    assert_int_equal(buffer.length, 0);
}

static void test_memory_text_and_free(void **state)
{
    (void)state;
    char *text = memory_text(BYTES("abc"));
    assert_string_equal(text, "abc");
    text = memory_resize(text, 10, 2);
    assert_string_equal(text, "abc");
    memory_free(&text);
    assert_null(text);
    memory_free(&text);
}

/* How much of files is mapped, in KiB. */
static long mapped_file_kib(void)
{
    char line[128];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    assert_non_null(status);
    while (fgets(line, sizeof(line), status)) {
        if (strncmp(line, "RssFile:", 8) == 0) {
            kib = strtol(line + 8, NULL, 10);
        }
    }
    assert_int_equal(fclose(status), 0);
    return kib;
}

static void test_what_the_start_needed_is_forgotten(void **state)
{
    (void)state;
    long before_kib = mapped_file_kib();
    memory_forget_start();
    long after_kib = mapped_file_kib();
    assert_true(after_kib > 0);
    assert_true(after_kib < before_kib);
    memory_forget_start(); /* again does no harm */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_start_needed_is_forgotten),
        cmocka_unit_test(test_arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(test_buffer_stops_at_its_maximum),
        cmocka_unit_test(test_memory_text_and_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
