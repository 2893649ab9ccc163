#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/map.h"
#include "base/memory.h"

static void test_sets_gets_and_removes(void **state)
{
    (void)state;
    struct map *map = map_new();
    int values[2] = {1, 2};
    assert_null(map_get(map, BYTES("a")));
    assert_null(map_set(map, BYTES("a"), &values[0]));
    assert_ptr_equal(map_set(map, BYTES("a"), &values[1]), &values[0]);
    assert_ptr_equal(map_get(map, BYTES("a")), &values[1]);
    assert_int_equal(map_count(map), 1);
    assert_ptr_equal(map_remove(map, BYTES("a")), &values[1]);
    assert_null(map_remove(map, BYTES("a")));
    assert_int_equal(map_count(map), 0);
    assert_null(map_set(map, bytes_of("", 0), &values[0]));
    assert_ptr_equal(map_get(map, bytes_of(NULL, 0)), &values[0]);
    map_free(&map);
    assert_null(map);
    map_free(&map);
}

static void test_keeps_many_entries_through_growth_and_removal(void **state)
{
    (void)state;
    struct map *map = map_new();

    enum {
        COUNT = 5000
    };

    static int values[COUNT];
    char key[32];
    for (int round = 0; round < 3; round++) {
        for (int index = 0; index < COUNT; index++) {
            (void)snprintf(key, sizeof(key), "key-%d", index);
            (void)map_set(map, bytes_from_text(key), &values[index]);
        }
        for (int index = 0; index < COUNT; index += 2) {
            (void)snprintf(key, sizeof(key), "key-%d", index);
            assert_ptr_equal(map_remove(map, bytes_from_text(key)), &values[index]);
        }
        assert_int_equal(map_count(map), COUNT / 2);
    }
    size_t position = 0;
    size_t visited = 0;
    struct bytes seen;
    void *value = NULL;
    while (map_next(map, &position, &seen, &value)) {
        assert_ptr_equal(map_get(map, seen), value);
        visited++;
    }
    assert_int_equal(visited, COUNT / 2);
    map_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets_gets_and_removes),
        cmocka_unit_test(test_keeps_many_entries_through_growth_and_removal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
