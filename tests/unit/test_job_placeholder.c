#include "executor/job_placeholder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ARENA_BYTES 1024

struct fixture {
    struct arena *arena;
    struct message message;
    struct error error;
};

static struct json parse(const char *text)
{
    struct json value;
    assert_true(json_parse(bytes_from_text(text), &value, NULL));
    return value;
}

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    f->arena = arena_new(ARENA_BYTES);
    f->message.id = BYTES("an \"id\"");
    f->message.retries = 2;
    f->message.args = parse("[\"first\", {\"deep\": [10, 20]}]");
    f->message.kwargs = parse("{\"text\": \"caf\\u00e9 $HOME\", \"n\": 3, \"big\": 1e3, \"half\": "
                              "0.5, \"yes\": true, \"no\": false, \"none\": null, \"cpu\": "
                              "\"500m\", \"cpus\": 2, \"nul\": \"a\\u0000b\", \"list\": [1, "
                              "NaN], \"minus\": -4}");
    f->message.headers = parse("{\"x-y\": \"h\"}");
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

static json_t *value_of(struct fixture *f, const char *text)
{
    struct job_placeholder_text parsed;
    assert_true(job_placeholder_parse(bytes_from_text(text), f->arena, &parsed, &f->error));
    assert_true(parsed.is_whole);
    return job_placeholder_value(parsed.parts[0].placeholder, &f->message, &f->error);
}

static void assert_value(struct fixture *f, const char *text, const char *expected)
{
    json_t *value = value_of(f, text);
    assert_non_null(value);
    char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    assert_string_equal(expected, dump);
    free(dump);
    json_decref(value);
}

static void assert_no_value(struct fixture *f, const char *text, const char *words)
{
    assert_null(value_of(f, text));
    assert_int_equal(ERROR_INVALID, f->error.kind);
    assert_non_null(strstr(f->error.message, words));
    assert_non_null(strstr(f->error.message, text));
}

static void assert_bad(struct fixture *f, const char *text, const char *words)
{
    struct job_placeholder_text parsed;
    assert_false(job_placeholder_parse(bytes_from_text(text), f->arena, &parsed, &f->error));
    assert_int_equal(ERROR_INVALID, f->error.kind);
    assert_non_null(strstr(f->error.message, words));
}

static void takes_values_of_every_root(void **state)
{
    struct fixture *f = *state;
    assert_value(f, "${id}", "\"an \\\"id\\\"\"");
    assert_value(f, "${retries}", "2");
    assert_value(f, "${retries:int}", "2");
    assert_value(f, "${args.0}", "\"first\"");
    assert_value(f, "${args.1.deep.1:int}", "20");
    assert_value(f, "${kwargs.text}", "\"caf\xc3\xa9 $HOME\"");
    assert_value(f, "${headers.x-y:str}", "\"h\"");
}

static void takes_values_of_every_type(void **state)
{
    struct fixture *f = *state;
    assert_value(f, "${kwargs.n:int}", "3");
    assert_value(f, "${kwargs.n:float}", "3.0");
    assert_value(f, "${kwargs.half:float}", "0.5");
    assert_value(f, "${kwargs.yes:bool}", "true");
    assert_value(f, "${kwargs.no:bool}", "false");
    assert_value(f, "${kwargs.cpu:quantity}", "\"500m\"");
    assert_value(f, "${kwargs.cpus:quantity}", "\"2\"");
    assert_value(f, "${args.1:json}", "{\"deep\":[10,20]}");
    assert_value(f, "${kwargs.none:json}", "null");
}

static void converts_nothing(void **state)
{
    struct fixture *f = *state;
    assert_no_value(f, "${kwargs.n}", "must be text, not a number");
    assert_no_value(f, "${kwargs.text:int}", "must be a whole number, not text");
    assert_no_value(f, "${kwargs.half:int}", "must be a whole number, not a number");
    assert_no_value(f, "${kwargs.yes:int}", "must be a whole number, not true");
    assert_no_value(f, "${kwargs.text:float}", "must be a number, not text");
    assert_no_value(f, "${kwargs.n:bool}", "must be true or false, not a number");
    assert_no_value(f, "${kwargs.text:quantity}", "must be a quantity such as 500m or 2Gi");
    assert_no_value(f, "${kwargs.minus:quantity}", "must be a quantity");
    assert_no_value(f, "${kwargs.nul}", "must be text");
    assert_no_value(f, "${kwargs.list:json}", "must be JSON");
    assert_null(strstr(f->error.message, "NaN"));
}

static void uses_the_default_for_nothing_and_null(void **state)
{
    struct fixture *f = *state;
    assert_value(f, "${kwargs.missing=}", "\"\"");
    assert_value(f, "${kwargs.missing:str=a=b:c}", "\"a=b:c\"");
    assert_value(f, "${kwargs.none:int=7}", "7");
    assert_value(f, "${kwargs.n.deeper:float=1.5}", "1.5");
    assert_value(f, "${args.9:bool=true}", "true");
    assert_value(f, "${args.x:quantity=2Gi}", "\"2Gi\"");
    assert_value(f, "${kwargs.none:json=null}", "null");
    assert_value(f, "${kwargs.n:int=7}", "3");
    assert_no_value(f, "${kwargs.missing}", "the message has nothing there");
    assert_no_value(f, "${kwargs.none}", "the message has null there");
}

static void uses_only_defaults_without_a_message(void **state)
{
    struct fixture *f = *state;
    struct job_placeholder_text text;
    assert_true(job_placeholder_parse(BYTES("${kwargs.n:int=7}"), f->arena, &text, NULL));
    json_t *value = job_placeholder_value(text.parts[0].placeholder, NULL, NULL);
    assert_int_equal(7, json_integer_value(value));
    json_decref(value);
}

static void finds_several_in_one_text(void **state)
{
    struct fixture *f = *state;
    struct job_placeholder_text text;
    assert_true(
        job_placeholder_parse(BYTES("a$$b ${id}/$(POD)${retries}$"), f->arena, &text, &f->error));
    assert_int_equal(2, text.placeholder_count);
    assert_int_equal(3, text.count);
    assert_false(text.is_whole);
    assert_true(bytes_equal_text(text.parts[0].literal, "a$b "));
    assert_true(bytes_equal_text(text.parts[1].literal, "/$(POD)"));
    assert_true(bytes_equal_text(text.parts[2].literal, "$"));
    assert_string_equal("${retries}", text.parts[1].placeholder->source);
    assert_null(text.parts[2].placeholder);
    assert_true(job_placeholder_parse(BYTES("$${id}"), f->arena, &text, &f->error));
    assert_int_equal(0, text.placeholder_count);
    assert_true(bytes_equal_text(text.parts[0].literal, "${id}"));
}

static void refuses_bad_ones(void **state)
{
    struct fixture *f = *state;
    assert_bad(f, "${HOME}", "does not begin with args, kwargs");
    assert_bad(f, "${}", "does not begin with");
    assert_bad(f, "${id", "without a closing brace");
    assert_bad(f, "${kwargs..a}", "a name between the dots is missing");
    assert_bad(f, "${kwargs.}", "a name between the dots is missing");
    assert_bad(f, "${id.x}", "id has no members");
    assert_bad(f, "${kwargs.a:number}", "the type must be");
    assert_bad(f, "${kwargs.a:int=x}", "the default: must be a whole number");
    assert_bad(f, "${kwargs.a:bool=1}", "the default: must be true or false");
    assert_bad(f, "${kwargs.a:quantity=much}", "the default: must be a quantity");
}

static void writes_values_into_texts(void **state)
{
    (void)state;
    struct buffer buffer;
    buffer_init(&buffer, ARENA_BYTES);
    json_t *value = json_pack("[s, I, f, b]", "t", (json_int_t)-5, 0.1, 1);
    for (size_t i = 0; i < json_array_size(value); i++) {
        assert_true(job_placeholder_append_text(&buffer, json_array_get(value, i)));
        assert_true(buffer_append_byte(&buffer, ' '));
    }
    assert_true(job_placeholder_append_text(&buffer, value));
    assert_true(bytes_equal_text(buffer_view(&buffer),
                                 "t -5 0.1 true [\"t\",-5,0.10000000000000001,true]"));
    json_decref(value);
    buffer_fini(&buffer);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(takes_values_of_every_root),
        TEST(takes_values_of_every_type),
        TEST(converts_nothing),
        TEST(uses_the_default_for_nothing_and_null),
        TEST(uses_only_defaults_without_a_message),
        TEST(finds_several_in_one_text),
        TEST(refuses_bad_ones),
        TEST(writes_values_into_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
