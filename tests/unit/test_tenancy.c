#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatch/tenancy.h"
#include "support/golden.h"

static const char *const accept_json[] = {"json", NULL};
static const struct message_rules message_rules = {accept_json, (size_t)1 << 20};

static const struct strategy_rules rules = {
    .tenant = "tenant-user",
    .tenant_path = "kwargs.config.metadata.namespace",
    .tenant_header = "petiole_tenant",
};

/* Whether a task with these headers and keyword arguments from `queue` is taken. */
static bool is_ours(const char *header, const char *kwargs, const char *queue, struct error *error)
{
    char headers[1024];
    char body[4096];
    struct request request = {.type = &registry_defaults};
    (void)snprintf(headers, sizeof(headers), "{\"task\": \"t\", \"id\": \"i\"%s}", header);
    (void)snprintf(body, sizeof(body), "[[], %s, null]", kwargs);
    struct delivery *delivery =
        golden_delivery_of(headers, "application/json", bytes_from_text(body), queue);
    struct error reading = {0};
    if (message_read(delivery, &message_rules, &request.message, &reading) != MESSAGE_FINE
        || message_open_body(delivery, &message_rules, &request.message, &reading)
               != MESSAGE_FINE) {
        fail_msg("%s: %s", body, reading.message);
    }
    request.arena = delivery->arena;
    request.delivery = delivery;
    bool ours = tenancy_check(&rules, &request, error);
    assert_int_equal(ours, error->kind == ERROR_NONE);
    golden_delivery_free(&delivery);
    return ours;
}

#define OWN   "{\"config\": {\"metadata\": {\"namespace\": \"tenant-user\"}}}"
#define OTHER "{\"config\": {\"metadata\": {\"namespace\": \"tenant-admin\"}}}"
#define NONE  "{\"config\": {}}"

static void assert_ours(const char *header, const char *kwargs, const char *queue)
{
    struct error error = {0};
    if (!is_ours(header, kwargs, queue, &error)) {
        fail_msg("%s %s from %s: %s", header, kwargs, queue, error.message);
    }
}

static void assert_refused(const char *header, const char *kwargs, const char *queue,
                           const char *says)
{
    struct error error = {0};
    if (is_ours(header, kwargs, queue, &error)) {
        fail_msg("%s %s from %s was taken", header, kwargs, queue);
    }
    assert_int_equal(error.kind, ERROR_REFUSED);
    if (!strstr(error.message, says)) {
        fail_msg("\"%s\" does not say \"%s\"", error.message, says);
    }
}

static void test_our_name_in_the_path_or_the_header_is_enough(void **state)
{
    (void)state;
    assert_ours("", OWN, "tenant-user");
    assert_ours("", OWN, "celery");
    assert_ours(", \"petiole_tenant\": \"tenant-user\"", NONE, "celery");
    assert_ours(", \"petiole_tenant\": \"tenant-user\"", OWN, "celery");
}

static void test_a_message_that_names_nobody_must_come_from_our_queue(void **state)
{
    (void)state;
    assert_ours("", NONE, "tenant-user");
    assert_ours("", "{}", "tenant-user");
    assert_ours("", "{\"config\": {\"metadata\": {\"namespace\": null}}}", "tenant-user");
    assert_ours(", \"petiole_tenant\": null", "{}", "tenant-user");
    assert_refused("", NONE, "celery", "names no tenant");
    assert_refused("", "{}", "tenant-admin", "names no tenant");
    assert_refused("", "{}", "tenant-user2", "names no tenant");
    assert_refused("", "{}", "", "names no tenant");
}

static void test_another_tenant_is_refused_wherever_it_comes_from(void **state)
{
    (void)state;
    assert_refused("", OTHER, "tenant-user", "tenant-admin");
    assert_refused("", OTHER, "tenant-admin", "kwargs.config.metadata.namespace");
    assert_refused(", \"petiole_tenant\": \"tenant-admin\"", "{}", "tenant-user",
                   "header petiole_tenant");
}

static void test_path_and_header_in_conflict_are_refused(void **state)
{
    (void)state;
    assert_refused(", \"petiole_tenant\": \"tenant-admin\"", OWN, "tenant-user", "tenant-admin");
    assert_refused(", \"petiole_tenant\": \"tenant-user\"", OTHER, "tenant-user", "tenant-admin");
    assert_refused(", \"petiole_tenant\": 1", OWN, "tenant-user", "header");
}

static void test_a_name_that_is_not_a_string_is_refused(void **state)
{
    (void)state;
    static const char *const values[] = {
        "1", "true", "false", "{}", "[]", "[\"tenant-user\"]", "{\"tenant-user\": 1}", "NaN", "0",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(values); index++) {
        char kwargs[200];
        char header[200];
        (void)snprintf(kwargs, sizeof(kwargs), "{\"config\": {\"metadata\": {\"namespace\": %s}}}",
                       values[index]);
        (void)snprintf(header, sizeof(header), ", \"petiole_tenant\": %s", values[index]);
        assert_refused("", kwargs, "tenant-user", "not a tenant's name");
        assert_refused(header, "{}", "tenant-user", "not a tenant's name");
    }
}

static void test_tricks_with_the_name_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        " ",
        "../tenant-user",
        "tenant-user/../tenant-admin",
        "tenant-user/",
        "./tenant-user",
        "tenant-user.",
        "tenant-user ",
        " tenant-user",
        "Tenant-User",
        "TENANT-USER",
        "tenant-use",
        "tenant-user2",
        "tenant_user",
        "tenant-user,tenant-admin",
        "*",
        "tenant-*",
        "tenant-user\\u0000",
        "tenant-user\\u0000tenant-admin",
        "tenant-user\\n",
        "\\u0074enant-user", /* spells our name: by_tenant never writes it so */
        "tenant\\u002duser",
        "t\xd0\xb5nant-user", /* a Cyrillic letter */
        "tenant\xe2\x80\x90user",
        "tenant-user\xe2\x80\x8b",
        "${tenant}",
        "kube-system",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(names); index++) {
        char kwargs[200];
        char header[200];
        (void)snprintf(kwargs, sizeof(kwargs),
                       "{\"config\": {\"metadata\": {\"namespace\": \"%s\"}}}", names[index]);
        (void)snprintf(header, sizeof(header), ", \"petiole_tenant\": \"%s\"", names[index]);
        assert_refused("", kwargs, "tenant-user", "serves tenant-user");
        assert_refused(header, "{}", "tenant-user", "serves tenant-user");
        assert_refused(header, OWN, "tenant-user", "serves tenant-user");
    }
}

static void test_of_a_key_written_twice_the_last_counts_as_in_python(void **state)
{
    (void)state;
    assert_refused("",
                   "{\"config\": {\"metadata\": {\"namespace\": \"tenant-user\", \"namespace\": "
                   "\"tenant-admin\"}}}",
                   "tenant-user", "tenant-admin");
    assert_refused("",
                   "{\"config\": {\"metadata\": {\"namespace\": \"tenant-user\", "
                   "\"n\\u0061mespace\": \"tenant-admin\"}}}",
                   "tenant-user", "tenant-admin");
    assert_refused("",
                   "{\"config\": {\"metadata\": {\"namespace\": \"tenant-user\"}, \"metadata\": "
                   "{\"namespace\": \"tenant-admin\"}}}",
                   "tenant-user", "tenant-admin");
    assert_refused(", \"petiole_tenant\": \"tenant-user\", \"petiole_ten\\u0061nt\": \"x\"", "{}",
                   "tenant-user", "serves tenant-user");
    assert_ours("",
                "{\"config\": {\"metadata\": {\"namespace\": \"tenant-admin\", \"namespace\": "
                "\"tenant-user\"}}}",
                "celery");
}

static void test_a_path_that_ends_early_names_nobody(void **state)
{
    (void)state;
    static const char *const values[] = {
        "{\"config\": null}",
        "{\"config\": \"tenant-user\"}",
        "{\"config\": {\"metadata\": \"tenant-user\"}}",
        "{\"config\": {\"metadata.namespace\": \"tenant-user\"}}",
        "{\"config\": [{\"metadata\": {\"namespace\": \"tenant-user\"}}]}",
        "{\"config\": {\"metadata\": [\"tenant-user\"]}}",
        "{\"config.metadata.namespace\": \"tenant-user\"}",
        "{\"namespace\": \"tenant-user\"}",
    };
    for (size_t index = 0; index < ARRAY_LENGTH(values); index++) {
        assert_refused("", values[index], "celery", "names no tenant");
        assert_ours("", values[index], "tenant-user");
    }
}

static void test_a_long_name_is_cut_in_the_sentence(void **state)
{
    (void)state;
    char kwargs[2000];
    struct error error = {0};
    (void)snprintf(kwargs, sizeof(kwargs),
                   "{\"config\": {\"metadata\": {\"namespace\": \"%01500d\"}}}", 0);
    assert_false(is_ours("", kwargs, "tenant-user", &error));
    assert_true(strlen(error.message) < 250);
}

static void test_a_long_id_leaves_room_for_what_is_wrong(void **state)
{
    (void)state;
    char header[600];
    (void)snprintf(header, sizeof(header), ", \"id\": \"%0500d\"", 0);
    assert_refused(header, OTHER, "tenant-user", "namespace is \"tenant-admin\"");
    assert_refused(header, NONE, "celery", "came from queue celery, not from tenant-user's own");
}

/* What a path finds in `body` for a worker of "me". */
static bool is_found(const char *path, const char *body)
{
    struct strategy_rules by_path = {"me", path, "tenant", NULL};
    struct request request = {.type = &registry_defaults};
    struct delivery *delivery =
        golden_delivery_of("{\"task\": \"t\", \"id\": \"i\", \"who\": {\"is\": \"me\"}}",
                           "application/json", bytes_from_text(body), "celery");
    struct error error = {0};
    assert_int_equal(message_read(delivery, &message_rules, &request.message, &error),
                     MESSAGE_FINE);
    assert_int_equal(message_open_body(delivery, &message_rules, &request.message, &error),
                     MESSAGE_FINE);
    request.delivery = delivery;
    bool found = tenancy_check(&by_path, &request, &error);
    golden_delivery_free(&delivery);
    return found;
}

static void test_a_path_goes_through_arguments_arrays_and_headers(void **state)
{
    (void)state;
    assert_true(is_found("args.1.tenant", "[[0, {\"tenant\": \"me\"}], {}, null]"));
    assert_true(is_found("kwargs.list.0", "[[], {\"list\": [\"me\"]}, null]"));
    assert_true(is_found("who.is", "[[], {}, null]"));
    assert_false(is_found("args.0.tenant", "[[0, {\"tenant\": \"me\"}], {}, null]"));
    assert_false(is_found("args.2", "[[\"me\"], {}, null]"));
    assert_false(is_found("args.x", "[[\"me\"], {}, null]"));
    assert_false(is_found("args.-0", "[[\"me\"], {}, null]"));
    assert_false(is_found("args. 0", "[[\"me\"], {}, null]"));
    assert_false(is_found("args.0x", "[[\"me\"], {}, null]"));
    assert_false(is_found("args.18446744073709551616", "[[\"me\"], {}, null]"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_our_name_in_the_path_or_the_header_is_enough),
        cmocka_unit_test(test_a_message_that_names_nobody_must_come_from_our_queue),
        cmocka_unit_test(test_another_tenant_is_refused_wherever_it_comes_from),
        cmocka_unit_test(test_path_and_header_in_conflict_are_refused),
        cmocka_unit_test(test_a_name_that_is_not_a_string_is_refused),
        cmocka_unit_test(test_tricks_with_the_name_are_refused),
        cmocka_unit_test(test_of_a_key_written_twice_the_last_counts_as_in_python),
        cmocka_unit_test(test_a_path_that_ends_early_names_nobody),
        cmocka_unit_test(test_a_long_name_is_cut_in_the_sentence),
        cmocka_unit_test(test_a_long_id_leaves_room_for_what_is_wrong),
        cmocka_unit_test(test_a_path_goes_through_arguments_arrays_and_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
