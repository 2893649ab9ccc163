/* The banner (worker/banner.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/attributes.h"
#include "worker/banner.h"
#include "worker/settings_bindings.h"

static char *print(const struct banner *banner)
{
    char *text = NULL;
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    assert_non_null(file);
    banner_print(file, banner, 1767225600.0);
    assert_int_equal(fclose(file), 0);
    return text;
}

static void test_look_of_celery(void **state)
{
    (void)state;
    const struct settings_bindings_queue queues[] = {{"tenant-a", "tenant-a", "direct", "tenant-a"},
                                                     {"orders", "events", "topic", "order.#"}};
    const char *const tasks[] = {"app.*", "b", NULL};
    const struct banner banner = {.node_name = "celery@box",
                                  .version = "petiole 0.1.0",
                                  .transport = "redis://:**@h:6379/0",
                                  .concurrency = 4,
                                  .pool = "native",
                                  .queues = queues,
                                  .queue_count = ARRAY_LENGTH(queues),
                                  .tasks = tasks};
    char *text = print(&banner);
    assert_ptr_equal(
        strstr(text, " \n -------------- celery@box petiole 0.1.0\n--- ***** ----- \n"), text);
    assert_non_null(strstr(text, "\n- ** ---------- [config]\n"));
    assert_non_null(strstr(text, "\n- ** ---------- .> transport:   redis://:**@h:6379/0\n"));
    assert_non_null(strstr(text, "\n- ** ---------- .> results:     disabled://\n"));
    assert_non_null(strstr(text, "\n- *** --- * --- .> concurrency: 4 (native)\n"));
    assert_non_null(
        strstr(text, ".> task events: OFF (enable -E to monitor tasks in this worker)\n"));
    assert_non_null(strstr(text, "\n -------------- [queues]\n"
                                 "                .> tenant-a         exchange=tenant-a(direct) "
                                 "key=tenant-a\n"
                                 "                .> orders           exchange=events(topic) "
                                 "key=order.#\n"));
    assert_non_null(strstr(text, "key=order.#\n\n[tasks]\n  . app.*\n  . b\n\n"));
    free(text);
}

/* Celery has a line more where there is one queue. */
static void test_one_queue(void **state)
{
    (void)state;
    const struct settings_bindings_queue queue = {
        .name = "celery", .exchange = "celery", .exchange_type = "direct", .routing_key = "celery"};
    const char *const tasks[] = {"b", NULL};
    const struct banner banner = {.node_name = "n",
                                  .version = "v",
                                  .transport = "t",
                                  .pool = "p",
                                  .queues = &queue,
                                  .queue_count = 1,
                                  .tasks = tasks};
    char *text = print(&banner);
    assert_non_null(strstr(text, " key=celery\n                \n\n[tasks]\n  . b\n\n"));
    free(text);
}

static void test_without_tasks(void **state)
{
    (void)state;
    const struct banner banner = {.node_name = "n",
                                  .version = "v",
                                  .app = "proj",
                                  .transport = "t",
                                  .results = "r",
                                  .pool = "p",
                                  .sends_task_events = true,
                                  .is_colored = true};
    char *text = print(&banner);
    assert_null(strstr(text, "[tasks]"));
    assert_non_null(strstr(text, ".> app:         proj\n"));
    assert_non_null(strstr(text, ".> task events: ON\n"));
    assert_int_equal(strncmp(text, "\033[1;36m", 7), 0);
    assert_non_null(strstr(text, "\033[0m\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_look_of_celery),
        cmocka_unit_test(test_one_queue),
        cmocka_unit_test(test_without_tasks),
    };
    return cmocka_run_group_tests_name("banner", tests, NULL, NULL);
}
