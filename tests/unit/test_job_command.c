#include "executor/job_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"

#define MAX_WORDS 16

/* A command line with spaces between the words; one that begins with $ is variable. */
static const char *fault_of(const char *line, bool has_command, size_t *ret_index)
{
    static char storage[256];
    struct job_command_word words[MAX_WORDS];
    size_t count = 0;
    (void)snprintf(storage, sizeof(storage), "%s", line);
    char *position = storage;
    while (*position && count < MAX_WORDS) {
        size_t length = strcspn(position, " ");
        bool is_last = position[length] == '\0';
        position[length] = '\0';
        words[count].text = position;
        words[count++].is_variable = *position == '$';
        position += is_last ? length : length + 1;
    }
    return job_command_find_fault(words, count, has_command, ret_index);
}

static void assert_fine(const char *line)
{
    size_t index = 0;
    assert_null(fault_of(line, true, &index));
}

static void assert_fault(const char *line, size_t expected)
{
    size_t index = SIZE_MAX;
    assert_non_null(fault_of(line, true, &index));
    assert_int_equal(expected, index);
}

static void lets_arguments_be_set(void **state)
{
    (void)state;
    assert_fine("");
    assert_fine("train --epochs $n $path");
    assert_fine("python -m petiole.run $x");
    assert_fine("python3.11 -u train.py $x");
    assert_fine("sh -c script-text zero $x");
    assert_fine("/bin/bash -ec script-text $x $y");
    assert_fine("sh /run.sh $x");
    assert_fine("sh -c fixed");
    assert_fine("env A=b train $x");
    assert_fine("shiny $x");
}

static void refuses_programs(void **state)
{
    (void)state;
    assert_fault("$program", 0);
    assert_fault("$program fixed", 0);
}

static void refuses_what_a_shell_would_run(void **state)
{
    (void)state;
    assert_fault("sh -c $x", 2);
    assert_fault("/bin/sh -ec $x", 2);
    assert_fault("sh $option text", 1);
    assert_fault("sh $file", 1);
    assert_fault("bash -o pipefail -c $x", 4);
    assert_fault("bash -o $x -c fixed", 2);
    assert_fault("busybox sh -c $x", 3);
    assert_fault("tini -- dash -lc $x", 4);
    assert_fault("env A=b sh -c $x", 4);
    assert_fault("python -c $x", 2);
    assert_fault("/usr/bin/python3.11 -Ic $x", 2);
    assert_fault("python -u $x", 2);
    assert_fault("perl -e $x", 2);
    assert_fault("node -e $x", 2);
}

static void refuses_values_behind_an_unknown_entrypoint(void **state)
{
    (void)state;
    size_t index = SIZE_MAX;
    assert_non_null(fault_of("fixed $x", false, &index));
    assert_int_equal(1, index);
    assert_null(fault_of("fixed words", false, &index));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lets_arguments_be_set),
        cmocka_unit_test(refuses_programs),
        cmocka_unit_test(refuses_what_a_shell_would_run),
        cmocka_unit_test(refuses_values_behind_an_unknown_entrypoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
