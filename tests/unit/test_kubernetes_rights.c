#include "executor/kubernetes_rights.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/http_server.h"

#define GUARD_MS 10000

struct fixture {
    struct loop *loop;
    struct http_server *server;
    struct kubernetes_api *api;
    struct kubernetes_rights *rights;
    struct timer guard;
    bool is_late;
    bool is_done;
    size_t allowed;
    size_t denied;
    size_t unknown;
    const struct kubernetes_right *denied_right;
};

/* Everything is allowed but deleting leases, and nobody knows about logs. */
static void serve(void *context, int descriptor, const char *request, int number)
{
    (void)context;
    (void)number;
    const char *body = "{\"status\":{\"allowed\":true}}";
    if (strstr(request, "\"verb\":\"delete\",\"group\":\"coordination.k8s.io\"")) {
        body = "{\"status\":{\"allowed\":false}}";
    }
    bool is_unknown = strstr(request, "\"subresource\":\"log\"") != NULL;
    bool is_review = strstr(request, "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
                     && strstr(request, "{\"namespace\":\"tenant-a\",\"verb\":\"");
    http_server_answer(descriptor, is_unknown || !is_review ? 500 : 201, body);
}

static void on_guard(void *context)
{
    struct fixture *f = context;
    f->is_late = true;
}

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    char url[64];
    f->loop = loop_new(LOOP_CLOCK_REAL);
    f->server = http_server_start(serve, f);
    f->guard = (struct timer){.on_due = on_guard, .context = f};
    loop_start_timer(f->loop, &f->guard, GUARD_MS);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d", (int)http_server_port(f->server));
    struct kubeconfig config = {.server = url, .origin = "test", .descriptors = {-1, -1, -1}};
    f->api = kubernetes_api_new(f->loop, &config, "tenant-a", NULL);
    *state = f;
    return f->api ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    kubernetes_rights_cancel(&f->rights);
    kubernetes_api_free(&f->api);
    http_server_stop(&f->server);
    loop_stop_timer(f->loop, &f->guard);
    loop_free(&f->loop);
    memory_free(&f);
    return 0;
}

static void on_right(void *context, const struct kubernetes_right *right, bool is_allowed,
                     const struct error *error)
{
    struct fixture *f = context;
    f->allowed += is_allowed ? 1 : 0;
    f->unknown += error ? 1 : 0;
    if (!is_allowed && !error) {
        f->denied++;
        f->denied_right = right;
    }
}

static void on_done(void *context)
{
    struct fixture *f = context;
    f->is_done = true;
    f->rights = NULL;
}

static void tells_each_right(void **state)
{
    struct fixture *f = *state;
    f->rights = kubernetes_rights_ask(f->api, on_right, on_done, f);
    while (!f->is_done && !f->is_late) {
        loop_run_once(f->loop, true);
    }
    assert_true(f->is_done);
    assert_int_equal(1, f->denied);
    assert_int_equal(1, f->unknown);
    assert_int_equal(kubernetes_rights_count - 2, f->allowed);
    assert_string_equal("delete", f->denied_right->verb);
    assert_string_equal("leases", f->denied_right->resource);
}

static void can_be_cancelled(void **state)
{
    struct fixture *f = *state;
    f->rights = kubernetes_rights_ask(f->api, on_right, on_done, f);
    while (f->allowed == 0 && !f->is_late) {
        loop_run_once(f->loop, true);
    }
    kubernetes_rights_cancel(&f->rights);
    assert_null(f->rights);
    assert_false(f->is_done);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tells_each_right),
        TEST(can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
