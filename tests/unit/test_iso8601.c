#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "codec/iso8601.h"
#include "support/golden.h"

static void test_reads_what_dateutil_reads(void **state)
{
    (void)state;
    struct arena *arena = arena_new(4096);
    struct json rows = golden_read("iso8601.json", arena);
    struct json_walk walk = json_walk(rows);
    struct json row;
    assert_true(json_count(rows) > 200);
    int wrong = 0;
    while (json_next_element(&walk, &row)) {
        struct bytes text;
        double expected_s = 0;
        double wall_s = 0;
        assert_true(json_text(json_at(row, 0), arena, &text));
        bool is_date = json_double(json_at(row, 1), &expected_s);
        bool was_read = iso8601_parse(text, &wall_s);
        double difference_s = wall_s - expected_s;
        if (was_read != is_date || (is_date && (difference_s > 5e-7 || difference_s < -5e-7))) {
            print_error("%.*s is %s %.6f, not %s %.6f\n", BYTES_FORMAT(text),
                        was_read ? "read" : "refused", wall_s, is_date ? "read" : "refused",
                        expected_s);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    arena_free(&arena);
}

static void test_a_refused_text_leaves_the_result_alone(void **state)
{
    (void)state;
    double wall_s = 17;
    assert_false(iso8601_parse(BYTES("2030-01-02T25:00"), &wall_s));
    assert_true(wall_s == 17);
}

static void test_writes_as_isoformat_does(void **state)
{
    (void)state;

    static const struct {
        double wall_s;
        int offset_s;
        const char *text;
    } rows[] = {
        {0, 0, "1970-01-01T00:00:00+00:00"},
        {1893553445.678901, 0, "2030-01-02T03:04:05.678901+00:00"},
        {1893553445.5, 28800, "2030-01-02T11:04:05.500000+08:00"},
        {1893553445, -12600, "2030-01-01T23:34:05-03:30"},
        {-1, 0, "1969-12-31T23:59:59+00:00"},
        {1835395199.9999999, 0, "2028-02-29T00:00:00+00:00"}, /* rounded up, over midnight */
        {1835395199, 0, "2028-02-28T23:59:59+00:00"},
        {1835481599, 0, "2028-02-29T23:59:59+00:00"},
        {253402300799, 0, "9999-12-31T23:59:59+00:00"},
        {-62135596800, 0, "0001-01-01T00:00:00+00:00"},
    };

    for (size_t index = 0; index < ARRAY_LENGTH(rows); index++) {
        struct buffer buffer;
        buffer_init(&buffer, 100);
        iso8601_append(&buffer, rows[index].wall_s, rows[index].offset_s);
        golden_assert(buffer_view(&buffer), bytes_from_text(rows[index].text), "isoformat()");
        buffer_fini(&buffer);
    }
}

static void test_what_is_written_is_read_back(void **state)
{
    (void)state;
    for (int step = -2000; step < 2000; step++) {
        double wall_s = step * 1234567.0 + step * 0.000125;
        double read_s = 0;
        struct buffer buffer;
        buffer_init(&buffer, 100);
        iso8601_append(&buffer, wall_s, step % 14 * 3600);
        assert_true(iso8601_parse(buffer_view(&buffer), &read_s));
        assert_true(read_s - wall_s < 1e-6 && wall_s - read_s < 1e-6);
        buffer_fini(&buffer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_dateutil_reads),
        cmocka_unit_test(test_a_refused_text_leaves_the_result_alone),
        cmocka_unit_test(test_writes_as_isoformat_does),
        cmocka_unit_test(test_what_is_written_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
