#include "executor/kubernetes_watch.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/http_server.h"

#define GUARD_MS    20000
#define TEXT_BYTES  8192
#define MAX_ANSWERS 8

#define STREAM      0
#define LONG_STREAM (-1)
#define LINE_BYTES  ((size_t)4 * 1024 * 1024) /* the longest that a watch takes */

struct scripted {
    const char *path; /* words of the request's first line */
    int status;       /* or STREAM, or LONG_STREAM: a line that does not end, after its lines */
    const char *body; /* of a stream: its lines; it stays open, but ends after a dot, and is cut off
                       * after an exclamation mark */
};

struct fixture {
    struct loop *loop;
    struct http_server *server;
    struct kubernetes_api *api;
    struct kubernetes_watch *watch;
    struct timer guard;
    bool is_late;
    struct scripted script[MAX_ANSWERS];
    char unexpected[TEXT_BYTES]; /* a request that the script has not */
    char told[TEXT_BYTES];       /* what came, in words */
    bool closes;
};

static void stream(int descriptor, const char *lines)
{
    char chunk[TEXT_BYTES];
    size_t length = strlen(lines);
    bool ends = length > 0 && lines[length - 1] == '.';
    bool is_cut = length > 0 && lines[length - 1] == '!';
    length -= ends || is_cut ? 1 : 0;
    http_server_write(descriptor, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    if (length > 0) {
        (void)snprintf(chunk, sizeof(chunk), "%zx\r\n%.*s\r\n", length, (int)length, lines);
        http_server_write(descriptor, chunk);
    }
    if (ends) {
        http_server_write(descriptor, "0\r\n\r\n");
    } else if (!is_cut) {
        http_server_linger(descriptor);
    }
}

static void stream_long_line(int descriptor, const char *lines)
{
    char *spaces = memory_new(LINE_BYTES + 1);
    char size[32];
    (void)snprintf(size, sizeof(size), "%zx\r\n", strlen(lines) + LINE_BYTES);
    memset(spaces, ' ', LINE_BYTES);
    http_server_write(descriptor, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    http_server_write(descriptor, size);
    http_server_write(descriptor, lines);
    http_server_write(descriptor, spaces);
    http_server_write(descriptor, "\r\n2\r\n  \r\n");
    http_server_linger(descriptor);
    memory_free(&spaces);
}

static void serve(void *context, int descriptor, const char *request, int number)
{
    struct fixture *f = context;
    const struct scripted *answer = &f->script[number - 1];
    if (number > MAX_ANSWERS || !answer->path || !strstr(request, answer->path)) {
        (void)snprintf(f->unexpected, sizeof(f->unexpected), "%d %.200s", number, request);
        http_server_linger(descriptor);
    } else if (answer->status == STREAM) {
        stream(descriptor, answer->body);
    } else if (answer->status == LONG_STREAM) {
        stream_long_line(descriptor, answer->body);
    } else {
        http_server_answer(descriptor, answer->status, answer->body);
    }
}

static void tell(struct fixture *f, const char *words, struct bytes text)
{
    size_t length = strlen(f->told);
    (void)snprintf(f->told + length, sizeof(f->told) - length, "%s%.*s ", words,
                   BYTES_FORMAT(text));
    if (f->closes) {
        kubernetes_watch_close(&f->watch);
    }
}

static void on_listing(void *context)
{
    struct fixture *f = context;
    bool closes = f->closes;
    f->closes = false;
    tell(f, "listing", (struct bytes){0});
    f->closes = closes;
}

static struct bytes name_of(struct json object)
{
    struct bytes name = json_get(json_get(object, "metadata"), "name").text;
    return name.length > 2 ? bytes_of(name.data + 1, name.length - 2) : name;
}

static void on_object(void *context, struct json object)
{
    tell(context, "+", name_of(object));
}

static void on_deleted(void *context, struct json object)
{
    tell(context, "-", name_of(object));
}

static void on_listed(void *context)
{
    tell(context, "listed", (struct bytes){0});
}

static void on_trouble(void *context, const struct error *error, int64_t retry_ms)
{
    assert_true(retry_ms >= 0 && retry_ms <= 30000);
    tell(context, "trouble:", bytes_from_text(error->message));
}

static const struct kubernetes_watch_events events = {
    .on_listing = on_listing,
    .on_object = on_object,
    .on_deleted = on_deleted,
    .on_listed = on_listed,
    .on_trouble = on_trouble,
};

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
    kubernetes_watch_close(&f->watch);
    kubernetes_api_free(&f->api);
    http_server_stop(&f->server);
    assert_string_equal("", f->unexpected);
    loop_stop_timer(f->loop, &f->guard);
    loop_free(&f->loop);
    memory_free(&f);
    return 0;
}

static void watch_until(struct fixture *f, const char *expected)
{
    f->watch = kubernetes_watch_open(f->api, "batch/v1 jobs", "a.b/c=d", &events, f);
    assert_string_equal("", f->told);
    while (strlen(f->told) < strlen(expected) && !f->is_late && !f->unexpected[0]) {
        loop_run_once(f->loop, true);
    }
    assert_string_equal(expected, f->told);
}

#define OBJECT(name, version)                                                                      \
    "{\"metadata\":{\"name\":\"" name "\",\"resourceVersion\":\"" version "\"}}"
#define LIST(version, more, items)                                                                 \
    "{\"metadata\":{\"resourceVersion\":\"" version "\",\"continue\":\"" more                      \
    "\"},\"items\":[" items "]}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"
#define EXPIRED             "{\"kind\":\"Status\",\"reason\":\"Expired\",\"code\":410}"

static void lists_by_pages_and_watches_from_there(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){
        "GET /apis/batch/v1/namespaces/tenant-a/jobs?limit=250&labelSelector=a.b%2Fc%3Dd HTTP", 200,
        LIST("7", "a+b", OBJECT("a", "3") "," OBJECT("b", "4"))};
    f->script[1] = (struct scripted){"&continue=a%2Bb HTTP", 200, LIST("7", "", OBJECT("c", "5"))};
    f->script[2] =
        (struct scripted){"&resourceVersion=7 HTTP", 0,
                          EVENT("ADDED", OBJECT("d", "8")) EVENT("MODIFIED", OBJECT("a", "9"))
                              EVENT("DELETED", OBJECT("b", "10"))};
    watch_until(f, "listing +a +b +c listed +d +a -b ");
    assert_true(kubernetes_watch_is_listed(f->watch));
    assert_non_null(strstr(http_server_last(f->server), "watch=true&allowWatchBookmarks=true&"));
}

static void goes_on_where_a_watch_ended(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "", "")};
    f->script[1] =
        (struct scripted){"resourceVersion=7 ", 0,
                          EVENT("ADDED", OBJECT("a", "8")) EVENT("BOOKMARK", OBJECT("", "20")) "."};
    f->script[2] = (struct scripted){"resourceVersion=20 ", 0, EVENT("ADDED", OBJECT("b", "21"))};
    watch_until(f, "listing listed +a +b ");
}

/* Servers restart and balancers lose connections: only what comes next may be worth a word. */
static void goes_on_where_a_connection_was_lost(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "", "")};
    f->script[1] =
        (struct scripted){"resourceVersion=7 ", STREAM, EVENT("ADDED", OBJECT("a", "8")) "!"};
    f->script[2] = (struct scripted){"resourceVersion=8 ", 503, "starting"};
    f->script[3] = (struct scripted){"resourceVersion=8 ", STREAM, "!"};
    f->script[4] =
        (struct scripted){"resourceVersion=8 ", STREAM, EVENT("ADDED", OBJECT("b", "9"))};
    watch_until(f, "listing listed +a trouble:starting trouble:transfer closed with outstanding "
                   "read data remaining +b ");
}

static void lists_again_when_the_version_is_gone(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "", OBJECT("a", "1"))};
    f->script[1] = (struct scripted){"resourceVersion=7 ", 0, EVENT("ERROR", EXPIRED)};
    f->script[2] = (struct scripted){"limit=250", 200, LIST("9", "", OBJECT("b", "8"))};
    f->script[3] = (struct scripted){"resourceVersion=9 ", 410, EXPIRED};
    f->script[4] = (struct scripted){"limit=250", 200, LIST("12", "", OBJECT("c", "11"))};
    f->script[5] = (struct scripted){"resourceVersion=12 ", 0, EVENT("ADDED", OBJECT("d", "13"))};
    watch_until(f, "listing +a listed listing +b listed listing +c listed +d ");
}

static void lists_again_when_a_page_token_has_run_out(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "x", OBJECT("a", "1"))};
    f->script[1] = (struct scripted){"continue=x", 410, EXPIRED};
    f->script[2] = (struct scripted){"limit=250", 200, LIST("9", "", OBJECT("b", "8"))};
    f->script[3] = (struct scripted){"resourceVersion=9 ", 0, ""};
    watch_until(f, "listing +a listing +b listed ");
}

static void lists_again_after_a_line_that_is_no_event(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "", "")};
    f->script[1] = (struct scripted){"resourceVersion=7 ", 0, "{\"type\":\n"};
    f->script[2] = (struct scripted){"limit=250", 200, LIST("9", "", "")};
    f->script[3] = (struct scripted){"resourceVersion=9 ", 0, ""};
    watch_until(f, "listing listed listing listed ");
}

/* The same line would come again from the same version; a list gets past it. */
static void lists_again_after_a_line_that_is_too_long(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "", "")};
    f->script[1] =
        (struct scripted){"resourceVersion=7 ", LONG_STREAM, EVENT("ADDED", OBJECT("a", "8"))};
    f->script[2] = (struct scripted){"limit=250", 200, LIST("9", "", OBJECT("b", "9"))};
    f->script[3] = (struct scripted){"resourceVersion=9 ", STREAM, ""};
    watch_until(f, "listing listed +a trouble:a line is longer than 4194304 bytes listing +b "
                   "listed ");
}

static void ignores_what_it_does_not_know(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){
        "limit=250", 200, "{\"news\":[],\"metadata\":{\"resourceVersion\":\"7\",\"shards\":{}}}"};
    f->script[1] = (struct scripted){
        "resourceVersion=7 ", STREAM,
        EVENT("RENAMED",
              OBJECT("a",
                     "8")) "{\"type\":7,\"object\":null}\n"
                           "{\"cause\":{\"type\":\"ERROR\"},\"type\":\"ADDED\",\"object\":" OBJECT(
                               "b", "9") "}\n."};
    f->script[2] =
        (struct scripted){"resourceVersion=9 ", STREAM, EVENT("ADDED", OBJECT("c", "10"))};
    watch_until(f, "listing listed +b +c ");
}

static void tells_trouble_and_tries_again(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 503, "away"};
    f->script[1] = (struct scripted){"limit=250", 403, "{\"message\":\"may not\"}"};
    f->script[2] = (struct scripted){"limit=250", 200, LIST("7", "", "")};
    f->script[3] = (struct scripted){"resourceVersion=7 ", 500, "oops"};
    f->script[4] = (struct scripted){"resourceVersion=7 ", 0, EVENT("ADDED", OBJECT("a", "8"))};
    watch_until(f, "listing trouble:away listing trouble:may not listing listed trouble:oops +a ");
}

static void may_be_closed_by_each_callback(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "", OBJECT("a", "1"))};
    f->script[1] = (struct scripted){"limit=250", 200, LIST("7", "", "")};
    f->closes = true;
    watch_until(f, "listing +a ");
    assert_null(f->watch);
    f->told[0] = '\0';
    watch_until(f, "listing listed ");
    assert_null(f->watch);
}

static void may_be_closed_by_a_change(void **state)
{
    struct fixture *f = *state;
    f->script[0] = (struct scripted){"limit=250", 200, LIST("7", "", "")};
    f->script[1] =
        (struct scripted){"resourceVersion=7 ", 0,
                          EVENT("DELETED", OBJECT("a", "8")) EVENT("DELETED", OBJECT("b", "9"))};
    watch_until(f, "listing listed ");
    f->closes = true;
    while (f->watch && !f->is_late) {
        loop_run_once(f->loop, true);
    }
    assert_string_equal("listing listed -a ", f->told);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lists_by_pages_and_watches_from_there),
        TEST(goes_on_where_a_watch_ended),
        TEST(goes_on_where_a_connection_was_lost),
        TEST(lists_again_when_the_version_is_gone),
        TEST(lists_again_when_a_page_token_has_run_out),
        TEST(lists_again_after_a_line_that_is_no_event),
        TEST(lists_again_after_a_line_that_is_too_long),
        TEST(ignores_what_it_does_not_know),
        TEST(tells_trouble_and_tries_again),
        TEST(may_be_closed_by_each_callback),
        TEST(may_be_closed_by_a_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
