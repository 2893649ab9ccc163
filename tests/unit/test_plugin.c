/* Loading plugins (executor/plugin.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <petiole.h>

#include "base/memory.h"
#include "executor/plugin.h"
#include "support/sample_plugin.h"

static void do_nothing(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    (void)call;
    (void)reply;
}

static const struct petiole_task good_tasks[] = {
    {"test.one", do_nothing},
    {"test.two", do_nothing},
};

static struct petiole_plugin good_plugin(void)
{
    return (struct petiole_plugin){
        .size = sizeof(struct petiole_plugin),
        .abi_version = PETIOLE_PLUGIN_ABI,
        .name = "test",
        .version = "1",
        .tasks = good_tasks,
        .task_count = 2,
    };
}

static void check_refused(const struct petiole_plugin *plugin, const char *message)
{
    struct plugin_set *set = plugin_set_new();
    struct error error;
    assert_false(plugin_set_add(set, plugin, "x.so", &error));
    assert_int_equal(error.kind, ERROR_INVALID);
    assert_string_equal(error.message, message);
    assert_int_equal(plugin_set_count(set), 0);
    plugin_set_free(&set);
    assert_null(set);
}

static void test_tasks_are_found_by_name(void **state)
{
    (void)state;
    struct plugin_set *set = plugin_set_new();
    struct petiole_plugin plugin = good_plugin();
    assert_true(plugin_set_add(set, &plugin, "x.so", NULL));
    assert_ptr_equal(plugin_set_find(set, BYTES("test.two")), &good_tasks[1]);
    assert_null(plugin_set_find(set, BYTES("test.three")));
    size_t position = 0;
    size_t count = 0;
    while (plugin_set_next(set, &position)) {
        count++;
    }
    assert_int_equal(count, 2);
    plugin_set_free(&set);
}

static void test_other_abi_is_refused_with_both_versions(void **state)
{
    (void)state;
    struct petiole_plugin plugin = good_plugin();
    plugin.abi_version = 7;
    check_refused(&plugin, "plugin x.so was built for version 7 of the plugin ABI, this worker has "
                           "version 1: build it again with this worker's petiole.h");
}

static void test_short_tables_are_refused(void **state)
{
    (void)state;
    struct petiole_plugin plugin = good_plugin();
    plugin.size = 8;
    check_refused(&plugin, "plugin x.so: its table has 8 bytes, this worker needs 48");
    plugin.size = 40;
    check_refused(&plugin, "plugin x.so: its table has 40 bytes, this worker needs 48");
    check_refused(NULL, "plugin x.so: petiole_plugin_entry() returned no table");
}

static void test_incomplete_tables_are_refused(void **state)
{
    (void)state;
    struct petiole_plugin plugin = good_plugin();
    plugin.name = NULL;
    check_refused(&plugin, "plugin x.so: its table lacks a name");
    plugin = good_plugin();
    plugin.version = NULL;
    check_refused(&plugin, "plugin x.so: its table lacks a version");
    plugin = good_plugin();
    plugin.tasks = NULL;
    check_refused(&plugin, "plugin x.so: its table lacks tasks");
    static const struct petiole_task no_function[] = {{"test.one", NULL}, {"test.two", do_nothing}};
    plugin = good_plugin();
    plugin.tasks = no_function;
    check_refused(&plugin, "plugin x.so: task number 1 has no function");
    static const struct petiole_task no_name[] = {{"test.one", do_nothing}, {"", do_nothing}};
    plugin.tasks = no_name;
    check_refused(&plugin, "plugin x.so: task number 2 has no name");
}

static void test_duplicates_are_refused(void **state)
{
    (void)state;
    static const struct petiole_task twice[] = {{"test.one", do_nothing}, {"test.one", do_nothing}};
    struct petiole_plugin plugin = good_plugin();
    plugin.tasks = twice;
    check_refused(&plugin, "plugin x.so: two tasks are called test.one");

    struct plugin_set *set = plugin_set_new();
    plugin = good_plugin();
    struct error error;
    assert_true(plugin_set_add(set, &plugin, "x.so", NULL));
    assert_false(plugin_set_add(set, &plugin, "y.so", &error));
    assert_string_equal(error.message,
                        "plugin y.so: another plugin has a task called test.one too");
    plugin_set_free(&set);
}

static void test_sample_is_loaded(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    struct plugin_set *set = plugin_set_new();
    struct error error = {.message = ""};
    bool is_loaded = plugin_set_load(set, sample_plugin_path(arena), &error);
    assert_string_equal(error.message, "");
    assert_true(is_loaded);
    assert_int_equal(plugin_set_count(set), 4);
    assert_non_null(plugin_set_find(set, BYTES("petiole.sample.echo")));
    assert_false(plugin_set_load(set, sample_plugin_path(arena), &error));
    assert_non_null(strstr(error.message, "has a task called petiole.sample.add too"));
    plugin_set_free(&set);
    arena_free(&arena);
}

static void test_other_libraries_are_refused(void **state)
{
    (void)state;
    struct plugin_set *set = plugin_set_new();
    struct error error;
    assert_false(plugin_set_load(set, "./no-such-plugin.so", &error));
    assert_non_null(strstr(error.message, "plugin ./no-such-plugin.so cannot be loaded: "));
    assert_false(plugin_set_load(set, "libm.so.6", &error));
    assert_string_equal(error.message, "plugin libm.so.6 is no Petiole plugin: it has no function "
                                       "petiole_plugin_entry");
    plugin_set_free(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tasks_are_found_by_name),
        cmocka_unit_test(test_other_abi_is_refused_with_both_versions),
        cmocka_unit_test(test_short_tables_are_refused),
        cmocka_unit_test(test_incomplete_tables_are_refused),
        cmocka_unit_test(test_duplicates_are_refused),
        cmocka_unit_test(test_sample_is_loaded),
        cmocka_unit_test(test_other_libraries_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
