#include "executor/job_tree.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ARENA_BYTES 4096

struct fixture {
    struct arena *arena;
    struct error error;
    char pointers[ARENA_BYTES]; /* of the texts, a space behind each */
    bool refuses;
};

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    f->arena = arena_new(ARENA_BYTES);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    arena_free(&f->arena);
    memory_free(&f);
    return 0;
}

static bool on_text(void *context, const char *pointer, const struct yaml *node,
                    struct error *reterr)
{
    struct fixture *f = context;
    (void)node;
    size_t length = strlen(f->pointers);
    (void)snprintf(f->pointers + length, sizeof(f->pointers) - length, "%s ", pointer);
    return !f->refuses || error_set(reterr, ERROR_INVALID, "not this one");
}

static json_t *make(struct fixture *f, const char *text)
{
    const struct yaml *root = yaml_parse(bytes_from_text(text), "t.yaml", f->arena, &f->error);
    assert_non_null(root);
    return job_tree_make(root, "t.yaml", on_text, f, &f->error);
}

static void assert_dump(json_t *tree, const char *expected)
{
    assert_non_null(tree);
    char *dump = json_dumps(tree, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
    assert_string_equal(expected, dump);
    free(dump);
}

static void makes_what_kubernetes_would(void **state)
{
    struct fixture *f = *state;
    json_t *tree = make(f, "a: 1\nb: \"1\"\nc: yes\nd: 'no'\ne: 0644\nf: ~\ng:\nh: 1.5\ni: 2Gi\n"
                           "j: [x, {k: null}]\nl: |\n  1\nm: None\nn: 089\no: {}\np: ''\n");
    assert_dump(tree, "{\"a\":1,\"b\":\"1\",\"c\":true,\"d\":\"no\",\"e\":420,\"f\":null,\"g\":"
                      "null,\"h\":1.5,\"i\":\"2Gi\",\"j\":[\"x\",{\"k\":null}],\"l\":\"1\\n\","
                      "\"m\":\"None\",\"n\":89,\"o\":{},\"p\":\"\"}");
    json_decref(tree);
}

static void tells_texts_with_their_pointers(void **state)
{
    struct fixture *f = *state;
    json_decref(make(f, "a: {b: [1, x], c/d~e: y}\nf: 2\n"));
    assert_string_equal("/a/b/1 /a/c~1d~0e ", f->pointers);
}

static void says_where_a_text_was_refused(void **state)
{
    struct fixture *f = *state;
    f->refuses = true;
    assert_null(make(f, "a: 1\nb:\n- x\n"));
    assert_string_equal("t.yaml:3: /b/0: not this one", f->error.message);
}

static void bounds_what_aliases_multiply(void **state)
{
    struct fixture *f = *state;
    assert_null(make(f, "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
                        "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
                        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                        "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"));
    assert_non_null(strstr(f->error.message, "too many values"));
}

static void finds_by_pointer(void **state)
{
    struct fixture *f = *state;
    json_t *tree = make(f, "a: {b: [1, {c/d~e: y}]}\n");
    assert_string_equal("y", json_string_value(job_tree_get(tree, "/a/b/1/c~1d~0e")));
    assert_int_equal(1, json_integer_value(job_tree_get(tree, "/a/b/0")));
    assert_ptr_equal(tree, job_tree_get(tree, ""));
    assert_null(job_tree_get(tree, "/a/b/2"));
    assert_null(job_tree_get(tree, "/a/b/x"));
    assert_null(job_tree_get(tree, "/a/b/-1"));
    assert_null(job_tree_get(tree, "/a/b/0/c"));
    assert_null(job_tree_get(tree, "a"));
    json_decref(tree);
}

static void sets_by_pointer(void **state)
{
    struct fixture *f = *state;
    json_t *tree = make(f, "a: {b: [1]}\n");
    assert_true(job_tree_set(tree, "/a/b/0", json_integer(2)));
    assert_true(job_tree_set(tree, "/a/new/x~1y", json_string("z")));
    assert_false(job_tree_set(tree, "/a/b/1", json_integer(3)));
    assert_false(job_tree_set(tree, "/a/b/1/c", json_integer(3)));
    assert_false(job_tree_set(tree, "/a/b/0/c", json_integer(3)));
    assert_false(job_tree_set(tree, "", json_integer(3)));
    assert_false(job_tree_set(tree, "a", json_integer(3)));
    assert_dump(tree, "{\"a\":{\"b\":[2],\"new\":{\"x/y\":\"z\"}}}");
    json_decref(tree);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(makes_what_kubernetes_would),
        TEST(tells_texts_with_their_pointers),
        TEST(says_where_a_text_was_refused),
        TEST(bounds_what_aliases_multiply),
        TEST(finds_by_pointer),
        TEST(sets_by_pointer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
