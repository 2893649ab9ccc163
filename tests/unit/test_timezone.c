#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "base/timezone.h"

#define NOW_S INT64_C(1767225600) /* 2026-01-01T00:00:00Z */

static struct timezone_table loaded(const char *name)
{
    struct timezone_table table = {.count = 0};
    struct error error = {0};
    if (!timezone_load(name, NOW_S, &table, &error)) {
        fail_msg("%s: %s", name, error.message);
    }
    return table;
}

static void test_a_zone_without_changes_has_one_offset(void **state)
{
    (void)state;
    struct timezone_table taipei = loaded("Asia/Taipei");
    assert_int_equal(taipei.count, 1);
    assert_int_equal(timezone_offset_s(&taipei, (double)NOW_S), 8 * 3600);
    assert_int_equal(timezone_offset_s(&taipei, 0), 8 * 3600);
    struct timezone_table kathmandu = loaded("Asia/Kathmandu");
    assert_int_equal(timezone_offset_s(&kathmandu, (double)NOW_S), 5 * 3600 + 45 * 60);
}

static void test_utc_is_known_in_any_spelling(void **state)
{
    (void)state;
    struct timezone_table utc = loaded("utc");
    assert_int_equal(timezone_offset_s(&utc, (double)NOW_S), 0);
    utc = loaded("UTC");
    assert_int_equal(timezone_offset_s(&utc, 1e12), 0);
}

static void test_the_clocks_change_at_their_second(void **state)
{
    (void)state;
    struct timezone_table berlin = loaded("Europe/Berlin");
    /* 2026-03-29T01:00:00Z and 2026-10-25T01:00:00Z */
    static const double spring_s = 1774746000;
    static const double autumn_s = 1792890000;
    assert_int_equal(timezone_offset_s(&berlin, spring_s - 1), 3600);
    assert_int_equal(timezone_offset_s(&berlin, spring_s - 0.001), 3600);
    assert_int_equal(timezone_offset_s(&berlin, spring_s), 7200);
    assert_int_equal(timezone_offset_s(&berlin, autumn_s - 1), 7200);
    assert_int_equal(timezone_offset_s(&berlin, autumn_s), 3600);
    assert_true(berlin.count >= 20 && berlin.count <= TIMEZONE_MAX_CHANGES);
}

static void test_offsets_west_and_of_the_south_are_right(void **state)
{
    (void)state;
    struct timezone_table new_york = loaded("America/New_York");
    assert_int_equal(timezone_offset_s(&new_york, (double)NOW_S), -5 * 3600);
    struct timezone_table sydney = loaded("Australia/Sydney");
    assert_int_equal(timezone_offset_s(&sydney, (double)NOW_S), 11 * 3600); /* summer there */
}

static void test_the_process_keeps_its_own_zone(void **state)
{
    (void)state;
    struct tm local;
    time_t now = (time_t)NOW_S;
    assert_int_equal(setenv("TZ", "America/New_York", 1), 0);
    tzset();
    (void)loaded("Asia/Taipei");
    assert_string_equal(getenv("TZ"), "America/New_York");
    (void)localtime_r(&now, &local);
    assert_int_equal(local.tm_gmtoff, -5 * 3600);
    assert_int_equal(unsetenv("TZ"), 0);
    (void)loaded("Asia/Taipei");
    assert_null(getenv("TZ"));
}

static void test_what_is_no_zone_is_refused_with_a_hint(void **state)
{
    (void)state;
    static const char *const names[] = {"Mars/Olympus",   "",           "../../../etc/passwd",
                                        "/etc/localtime", "Asia",       "Asia/",
                                        "Asia/Taipei/",   "GMT+25:00x", "zone.tab"};
    for (size_t index = 0; index < ARRAY_LENGTH(names); index++) {
        struct timezone_table table = {.count = -7};
        struct error error = {0};
        if (timezone_load(names[index], NOW_S, &table, &error)) {
            fail_msg("\"%s\" was read", names[index]);
        }
        assert_int_equal(error.kind, ERROR_INVALID);
        assert_int_equal(table.count, -7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_zone_without_changes_has_one_offset),
        cmocka_unit_test(test_utc_is_known_in_any_spelling),
        cmocka_unit_test(test_the_clocks_change_at_their_second),
        cmocka_unit_test(test_offsets_west_and_of_the_south_are_right),
        cmocka_unit_test(test_the_process_keeps_its_own_zone),
        cmocka_unit_test(test_what_is_no_zone_is_refused_with_a_hint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
