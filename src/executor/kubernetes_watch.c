#include "executor/kubernetes_watch.h"

#include "base/memory.h"
#include "executor/kubernetes_page.h"

#define PAGE_OBJECTS      250
#define MAX_LINE_BYTES    ((size_t)4 * 1024 * 1024)
#define MAX_VERSION_BYTES 128
#define MAX_QUERY_BYTES   ((size_t)12 * 1024)
#define WATCH_SHORTEST_S  300
#define WATCH_SPREAD_S    301
#define BACKOFF_FIRST_MS  800
#define BACKOFF_MOST_MS   30000
#define HEALTHY_WATCH_MS  1000 /* shorter ones, with nothing in them, are not begun again at once */

enum watch_step {
    STEP_LIST,  /* from the start */
    STEP_PAGE,  /* the next page of a list */
    STEP_WATCH, /* from `version` on */
};

struct kubernetes_watch {
    struct kubernetes_api *api;
    char *resource;
    char *selector; /* NULL: all */
    const struct kubernetes_watch_events *events;
    void *context;
    struct kubernetes_call *call;
    struct timer timer;
    enum watch_step step;
    char version[MAX_VERSION_BYTES]; /* resourceVersion that we have seen everything of */
    struct buffer next_page;         /* the list's continue token */
    unsigned page_objects;
    unsigned failures; /* in a row */
    int64_t watch_began_ms;
    bool has_seen_change; /* in this watch */
    bool is_listed;
    bool is_in_event; /* a callback of the owner is running */
    bool is_closed;   /* by it */
};

static struct loop *loop_of(const struct kubernetes_watch *watch)
{
    return kubernetes_api_loop(watch->api);
}

static void free_watch(struct kubernetes_watch *watch)
{
    buffer_fini(&watch->next_page);
    memory_free(&watch->resource);
    memory_free(&watch->selector);
    memory_free(&watch);
}

/* What is to be done next */

static void schedule(struct kubernetes_watch *watch, enum watch_step step, int64_t delay_ms)
{
    watch->step = step;
    loop_start_timer(loop_of(watch), &watch->timer, delay_ms);
}

/* Tells the owner and tries `step` again later. */
static void retry(struct kubernetes_watch *watch, enum watch_step step,
                  const struct kubernetes_answer *answer)
{
    struct error error;
    enum error_kind kind = answer->verdict == KUBERNETES_REFUSED ? ERROR_REFUSED : ERROR_TEMPORARY;
    int64_t delay_ms =
        loop_backoff_ms(loop_of(watch), BACKOFF_FIRST_MS, watch->failures, BACKOFF_MOST_MS);
    if (answer->retry_after_ms > delay_ms) {
        delay_ms =
            answer->retry_after_ms < BACKOFF_MOST_MS ? answer->retry_after_ms : BACKOFF_MOST_MS;
    }
    (void)error_set(&error, kind, "%s", answer->message);
    watch->failures++;
    schedule(watch, step, delay_ms);
    watch->events->on_trouble(watch->context, &error, delay_ms);
}

/* From a new list: at once the first time, later when that happens again and again. */
static void list_again(struct kubernetes_watch *watch)
{
    int64_t delay_ms = watch->failures == 0 ? 0
                                            : loop_backoff_ms(loop_of(watch), BACKOFF_FIRST_MS,
                                                              watch->failures, BACKOFF_MOST_MS);
    watch->failures++;
    schedule(watch, STEP_LIST, delay_ms);
}

/* Objects */

static void note_version(struct kubernetes_watch *watch, struct json object)
{
    struct json version = json_get(json_get(object, "metadata"), "resourceVersion");
    if (version.type == JSON_TYPE_STRING && version.text.length - 2 < sizeof(watch->version)) {
        memcpy(watch->version, version.text.data + 1, version.text.length - 2);
        watch->version[version.text.length - 2] = '\0';
    }
}

/* Runs one of the owner's callbacks, which may close the watch: false then, and it is freed. */
static bool survives(struct kubernetes_watch *watch)
{
    watch->is_in_event = false;
    if (watch->is_closed) {
        free_watch(watch);
        return false;
    }
    return true;
}

static bool tell_object(struct kubernetes_watch *watch,
                        void (*on_object)(void *context, struct json object), struct json object)
{
    watch->is_in_event = true;
    on_object(watch->context, object);
    return survives(watch);
}

static bool tell_step(struct kubernetes_watch *watch, void (*on_step)(void *context))
{
    watch->is_in_event = true;
    on_step(watch->context);
    return survives(watch);
}

/* List */

static void take_page(struct kubernetes_watch *watch, struct json list)
{
    struct json object;
    struct json_walk walk = json_walk(json_get(list, "items"));
    while (json_next_element(&walk, &object)) {
        if (!tell_object(watch, watch->events->on_object, object)) {
            return;
        }
    }
    if (kubernetes_page_keep_next(list, &watch->next_page)) {
        schedule(watch, STEP_PAGE, 0);
        return;
    }
    note_version(watch, list);
    watch->is_listed = true;
    schedule(watch, STEP_WATCH, 0);
    (void)tell_step(watch, watch->events->on_listed);
}

static void on_page(void *context, const struct kubernetes_answer *answer)
{
    struct kubernetes_watch *watch = context;
    watch->call = NULL;
    bool is_too_large = answer->verdict == KUBERNETES_REFUSED && answer->status == 0;
    if (answer->verdict == KUBERNETES_DONE) {
        take_page(watch, answer->body);
    } else if (answer->verdict == KUBERNETES_GONE) {
        list_again(watch); /* the token has run out */
    } else if (is_too_large && watch->page_objects > 1) {
        watch->page_objects /= 2;
        schedule(watch, STEP_PAGE, 0);
    } else {
        retry(watch, watch->step == STEP_PAGE ? STEP_PAGE : STEP_LIST, answer);
    }
}

static void ask_for_page(struct kubernetes_watch *watch)
{
    struct buffer query;
    buffer_init(&query, MAX_QUERY_BYTES);
    kubernetes_page_append_query(&query, watch->page_objects, watch->selector,
                                 buffer_view(&watch->next_page));
    (void)buffer_append_byte(&query, '\0');
    watch->call = kubernetes_api_call(
        watch->api, &(struct kubernetes_request){.resource = watch->resource, .query = query.data},
        on_page, watch);
    buffer_fini(&query);
}

/* Watch */

static bool is_type(struct json type, const char *name)
{
    size_t length = strlen(name);
    return type.text.length == length + 2 && memcmp(type.text.data + 1, name, length) == 0;
}

/* An ERROR event, whose object is a Status, or a line that is no event: the rest of this watch is
 * not to be trusted, and after either a new list is never wrong. */
static void abandon(struct kubernetes_watch *watch)
{
    kubernetes_api_cancel(&watch->call);
    list_again(watch);
}

static void on_line(void *context, struct bytes line)
{
    enum {
        TYPE,
        OBJECT,
        COUNT
    };

    static const char *const names[COUNT] = {"type", "object"};
    struct kubernetes_watch *watch = context;
    struct json event;
    struct json found[COUNT] = {{JSON_TYPE_ABSENT, {NULL, 0}}};
    bool is_event = json_parse(line, &event, NULL);
    if (is_event) {
        json_pick(event, names, COUNT, found);
    }
    if (!is_event || is_type(found[TYPE], "ERROR")) {
        abandon(watch);
        return;
    }
    watch->has_seen_change = true;
    watch->failures = 0;
    note_version(watch, found[OBJECT]);
    if (is_type(found[TYPE], "DELETED")) {
        (void)tell_object(watch, watch->events->on_deleted, found[OBJECT]);
    } else if (is_type(found[TYPE], "ADDED") || is_type(found[TYPE], "MODIFIED")) {
        (void)tell_object(watch, watch->events->on_object, found[OBJECT]);
    }
}

static void on_watch_end(void *context, const struct kubernetes_answer *answer)
{
    struct kubernetes_watch *watch = context;
    watch->call = NULL;
    int64_t lasted_ms = loop_now_ms(loop_of(watch)) - watch->watch_began_ms;
    bool was_healthy = watch->has_seen_change || lasted_ms >= HEALTHY_WATCH_MS;
    if (answer->verdict == KUBERNETES_GONE) {
        list_again(watch);
        return;
    }
    bool is_lost = answer->verdict == KUBERNETES_BUSY && answer->status == 0;
    watch->failures = was_healthy ? 0 : watch->failures;
    if (was_healthy && (is_lost || answer->verdict == KUBERNETES_DONE)) {
        schedule(watch, STEP_WATCH, 0); /* if the server is away, that will tell */
    } else if (answer->verdict != KUBERNETES_DONE) {
        retry(watch, answer->verdict == KUBERNETES_BUSY ? STEP_WATCH : STEP_LIST, answer);
    } else {
        schedule(
            watch, STEP_WATCH,
            loop_backoff_ms(loop_of(watch), BACKOFF_FIRST_MS, watch->failures++, BACKOFF_MOST_MS));
    }
}

static void ask_for_changes(struct kubernetes_watch *watch)
{
    unsigned timeout_s =
        WATCH_SHORTEST_S + (unsigned)(loop_random(loop_of(watch)) % WATCH_SPREAD_S);
    struct buffer query;
    buffer_init(&query, MAX_QUERY_BYTES);
    (void)buffer_format(&query, "watch=true&allowWatchBookmarks=true&timeoutSeconds=%u", timeout_s);
    if (watch->selector) {
        kubernetes_page_append_parameter(&query, "labelSelector", bytes_from_text(watch->selector));
    }
    kubernetes_page_append_parameter(&query, "resourceVersion", bytes_from_text(watch->version));
    (void)buffer_append_byte(&query, '\0');
    watch->has_seen_change = false;
    watch->watch_began_ms = loop_now_ms(loop_of(watch));
    watch->call = kubernetes_api_stream(
        watch->api, &(struct kubernetes_request){.resource = watch->resource, .query = query.data},
        MAX_LINE_BYTES, on_line, on_watch_end, watch);
    buffer_fini(&query);
}

static void begin_step(void *context)
{
    struct kubernetes_watch *watch = context;
    switch (watch->step) {
    case STEP_LIST:
        buffer_clear(&watch->next_page);
        watch->version[0] = '\0';
        if (tell_step(watch, watch->events->on_listing)) {
            ask_for_page(watch);
        }
        break;
    case STEP_PAGE:
        ask_for_page(watch);
        break;
    case STEP_WATCH:
        ask_for_changes(watch);
        break;
    }
}

/* Life cycle */

struct kubernetes_watch *kubernetes_watch_open(struct kubernetes_api *api, const char *resource,
                                               const char *label_selector,
                                               const struct kubernetes_watch_events *events,
                                               void *context)
{
    struct kubernetes_watch *watch = memory_new(sizeof(*watch));
    watch->api = api;
    watch->resource = memory_text(bytes_from_text(resource));
    watch->selector = label_selector ? memory_text(bytes_from_text(label_selector)) : NULL;
    watch->events = events;
    watch->context = context;
    watch->timer = (struct timer){.on_due = begin_step, .context = watch};
    watch->page_objects = PAGE_OBJECTS;
    buffer_init(&watch->next_page, KUBERNETES_PAGE_MAX_TOKEN);
    schedule(watch, STEP_LIST, 0);
    return watch;
}

void kubernetes_watch_close(struct kubernetes_watch **watch_pointer)
{
    struct kubernetes_watch *watch = *watch_pointer;
    *watch_pointer = NULL;
    if (!watch) {
        return;
    }
    kubernetes_api_cancel(&watch->call);
    loop_stop_timer(loop_of(watch), &watch->timer);
    if (watch->is_in_event) {
        watch->is_closed = true;
    } else {
        free_watch(watch);
    }
}

bool kubernetes_watch_is_listed(const struct kubernetes_watch *watch)
{
    return watch->is_listed;
}
