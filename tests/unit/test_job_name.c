/* The names of Jobs (executor/job_name.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "executor/job_name.h"

#define UUID "4ba6c1f0-3d7e-4a52-9b1c-0f2a7c9d8e11"

static void check_name(struct message message, unsigned attempt, const char *expected)
{
    char name[JOB_NAME_SIZE];
    memset(name, 'x', sizeof(name));
    job_name_format(&message, attempt, name);
    assert_string_equal(name, expected);
}

static struct message message_of(const char *task, const char *id, int64_t retries, int64_t nesting)
{
    return (struct message){.task = bytes_from_text(task),
                            .id = bytes_from_text(id),
                            .retries = retries,
                            .replaced_task_nesting = nesting};
}

static void test_plain(void **state)
{
    (void)state;
    check_name(message_of("app.tasks.training.train_lora", UUID, 0, 0), 0, "train-lora-" UUID "-0");
    check_name(message_of("add", UUID, 3, 0), 0, "add-" UUID "-3");
}

static void test_suffixes_only_when_not_zero(void **state)
{
    (void)state;
    check_name(message_of("a.b", UUID, 1, 2), 0, "b-" UUID "-1-n2");
    check_name(message_of("a.b", UUID, 1, 0), 4, "b-" UUID "-1-a4");
    check_name(message_of("a.b", UUID, 1, 2), 4, "b-" UUID "-1-n2-a4");
}

static void test_slug_is_cut_and_has_no_dash_at_its_ends(void **state)
{
    (void)state;
    check_name(message_of("x.Evaluate_Model_Accuracy", UUID, 0, 0), 0, "evaluate-mod-" UUID "-0");
    check_name(message_of("x.abcdefghijk_lm", UUID, 0, 0), 0, "abcdefghijk-" UUID "-0");
    check_name(message_of("x.__private", UUID, 0, 0), 0, "private-" UUID "-0");
    check_name(message_of("x.na\xc3\xafve task", UUID, 0, 0), 0, "na--ve-task-" UUID "-0");
}

static void test_slug_of_nothing(void **state)
{
    (void)state;
    check_name(message_of("", UUID, 0, 0), 0, "task-" UUID "-0");
    check_name(message_of("trailing.", UUID, 0, 0), 0, "task-" UUID "-0");
    check_name(message_of("x.__", UUID, 0, 0), 0, "task-" UUID "-0");
}

static void test_other_ids_are_hashed(void **state)
{
    (void)state;
    check_name(message_of("a", "my-id", 0, 0), 0, "a-915430721245ebba50e3e6f3e5749d62-0");
    check_name(message_of("a", "", 0, 0), 0, "a-e3b0c44298fc1c149afbf4c8996fb924-0");
}

static void test_upper_case_uuid_is_hashed(void **state)
{
    (void)state;
    char lower[JOB_NAME_SIZE];
    char upper[JOB_NAME_SIZE];
    struct message message = message_of("a", UUID, 0, 0);
    job_name_format(&message, 0, lower);
    message.id = BYTES("4BA6C1F0-3D7E-4A52-9B1C-0F2A7C9D8E11");
    job_name_format(&message, 0, upper);
    assert_string_not_equal(lower, upper);
    assert_int_equal(strlen(upper), strlen("a-") + 32 + strlen("-0"));
}

static void test_numbers_that_do_not_fit_are_hashed_with_the_id(void **state)
{
    (void)state;
    char first[JOB_NAME_SIZE];
    char second[JOB_NAME_SIZE];
    struct message message = message_of("x.evaluate_model", UUID, INT64_MAX, INT64_MIN);
    job_name_format(&message, 0, first);
    assert_int_equal(strlen(first), strlen("evaluate-mod-") + 32);
    message.retries--;
    job_name_format(&message, 0, second);
    assert_string_not_equal(first, second);
}

static void test_a_name_tells_whose_it_is(void **state)
{
    (void)state;
    static const char *const ids[] = {UUID, "An Id/of my OWN", "0", ""};
    struct message message = message_of("app.train_lora", NULL, 2, 1);
    for (size_t index = 0; index < sizeof(ids) / sizeof(ids[0]); index++) {
        char name[JOB_NAME_SIZE];
        char id[JOB_NAME_ID_SIZE];
        message.id = bytes_from_text(ids[index]);
        job_name_format(&message, 1, name);
        for (size_t other = 0; other < sizeof(ids) / sizeof(ids[0]); other++) {
            job_name_id(bytes_from_text(ids[other]), id);
            assert_int_equal(job_name_is_of(name, id), index == other);
        }
    }
    assert_false(job_name_is_of(UUID "-0", UUID));
    assert_false(job_name_is_of("add-" UUID, UUID));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_suffixes_only_when_not_zero),
        cmocka_unit_test(test_slug_is_cut_and_has_no_dash_at_its_ends),
        cmocka_unit_test(test_slug_of_nothing),
        cmocka_unit_test(test_other_ids_are_hashed),
        cmocka_unit_test(test_upper_case_uuid_is_hashed),
        cmocka_unit_test(test_a_name_tells_whose_it_is),
        cmocka_unit_test(test_numbers_that_do_not_fit_are_hashed_with_the_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
