#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"

struct item {
    int number;
    struct list_node node;
};

static void assert_order(const struct list *list, const int *expected, size_t count)
{
    size_t index = 0;
    list_for_each(node, following, list) {
        assert_true(index < count);
        assert_int_equal(list_entry(node, struct item, node)->number, expected[index]);
        index++;
    }
    assert_int_equal(index, count);
}

static void test_nodes_stand_in_the_order_they_were_put(void **state)
{
    (void)state;
    struct list list;
    struct item items[] = {{.number = 0}, {.number = 1}, {.number = 2}};
    list_init(&list);
    assert_true(list_is_empty(&list));
    list_append(&list, &items[1].node);
    list_append(&list, &items[2].node);
    list_prepend(&list, &items[0].node);
    assert_order(&list, (int[]){0, 1, 2}, 3);
    assert_ptr_equal(list_first(&list), &items[0].node);
}

static void test_a_node_knows_whether_it_is_in_a_list(void **state)
{
    (void)state;
    struct list list;
    struct item item = {.number = 1};
    list_init(&list);
    assert_false(list_is_linked(&item.node));
    list_append(&list, &item.node);
    assert_true(list_is_linked(&item.node));
    list_remove(&item.node);
    assert_false(list_is_linked(&item.node));
    list_remove(&item.node);
    assert_true(list_is_empty(&list));
}

static void test_popping_takes_the_first_until_there_is_none(void **state)
{
    (void)state;
    struct list list;
    struct item items[] = {{.number = 0}, {.number = 1}};
    list_init(&list);
    list_append(&list, &items[0].node);
    list_append(&list, &items[1].node);
    assert_ptr_equal(list_pop(&list), &items[0].node);
    assert_false(list_is_linked(&items[0].node));
    assert_ptr_equal(list_pop(&list), &items[1].node);
    assert_null(list_pop(&list));
    assert_null(list_first(&list));
}

static void test_a_walk_may_remove_what_it_is_at(void **state)
{
    (void)state;
    struct list list;
    struct item items[] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};
    list_init(&list);
    for (size_t index = 0; index < ARRAY_LENGTH(items); index++) {
        list_append(&list, &items[index].node);
    }
    list_for_each(node, following, &list) {
        if (list_entry(node, struct item, node)->number % 2 == 0) {
            list_remove(node);
        }
    }
    assert_order(&list, (int[]){1, 3}, 2);
}

static void test_a_node_moves_from_list_to_list(void **state)
{
    (void)state;
    struct list one;
    struct list other;
    struct item item = {.number = 5};
    list_init(&one);
    list_init(&other);
    list_append(&one, &item.node);
    list_remove(&item.node);
    list_append(&other, &item.node);
    assert_true(list_is_empty(&one));
    assert_order(&other, (int[]){5}, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes_stand_in_the_order_they_were_put),
        cmocka_unit_test(test_a_node_knows_whether_it_is_in_a_list),
        cmocka_unit_test(test_popping_takes_the_first_until_there_is_none),
        cmocka_unit_test(test_a_walk_may_remove_what_it_is_at),
        cmocka_unit_test(test_a_node_moves_from_list_to_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
