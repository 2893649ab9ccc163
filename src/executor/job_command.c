#include "executor/job_command.h"

#include <string.h>

#include "base/banned.h"

/* A program whose option takes a program's text as the next word. */
struct interpreter {
    const char *name; /* the last part of its path; digits and dots may follow (python3.11) */
    char option;
};

static const struct interpreter interpreters[] = {
    {"sh", 'c'},   {"bash", 'c'}, {"dash", 'c'},   {"ash", 'c'},  {"zsh", 'c'},  {"ksh", 'c'},
    {"mksh", 'c'}, {"fish", 'c'}, {"python", 'c'}, {"pypy", 'c'}, {"perl", 'e'}, {"ruby", 'e'},
    {"node", 'e'}, {"lua", 'e'},  {"php", 'r'},    {"su", 'c'},
};

static const struct interpreter *find_interpreter(const char *word)
{
    const char *slash = strrchr(word, '/');
    const char *name = slash ? slash + 1 : word;
    for (size_t i = 0; i < ARRAY_LENGTH(interpreters); i++) {
        size_t length = strlen(interpreters[i].name);
        if (strncmp(name, interpreters[i].name, length) == 0
            && strspn(name + length, "0123456789.-") == strlen(name + length)) {
            return &interpreters[i];
        }
    }
    return NULL;
}

/* "-c", and "-ec" or "-lc" too. */
static bool takes_program(const char *word, char option)
{
    return word[0] == '-' && word[1] != '-' && strchr(word + 1, option);
}

/* The first word behind the interpreter at `start` that is an argument of its program. */
static size_t find_arguments(const struct job_command_word *words, size_t count, size_t start,
                             char option)
{
    for (size_t i = start + 1; i < count; i++) {
        if (takes_program(words[i].text, option)) {
            return i + 2;
        }
    }
    for (size_t i = start + 1; i < count; i++) {
        if (words[i].is_variable || words[i].text[0] != '-') {
            return i + 1; /* behind the name of the program's file */
        }
    }
    return count;
}

const char *job_command_find_fault(const struct job_command_word *words, size_t count,
                                   bool has_command, size_t *ret_index)
{
    for (size_t i = 0; i < count; i++) {
        *ret_index = i;
        if (words[i].is_variable && !has_command) {
            return "needs a command beside it: the image's own may be a shell";
        }
        if (words[i].is_variable && i == 0) {
            return "the program to run must be fixed";
        }
        const struct interpreter *interpreter =
            words[i].is_variable ? NULL : find_interpreter(words[i].text);
        if (!interpreter) {
            continue;
        }
        size_t end = find_arguments(words, count, i, interpreter->option);
        for (size_t behind = i + 1; behind < end && behind < count; behind++) {
            if (words[behind].is_variable) {
                *ret_index = behind;
                return "a shell or interpreter would run this: pass values as arguments behind it, "
                       "or in env";
            }
        }
    }
    return NULL;
}
