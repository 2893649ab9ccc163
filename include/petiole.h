/*
 * Native tasks for Petiole: the C ABI between the worker and a shared library with tasks in it.
 * This is the only public header; it needs nothing but the C library and can be included from C
 * (C99 and later) and C++.
 *
 * A plugin is a shared library that exports one function, petiole_plugin_entry, which returns a
 * constant table of its tasks. The worker loads it at start (--plugin FILE, or the setting
 * `plugins`), checks size and ABI version of the table, and from then on runs each task whose name
 * is in it by calling the task's function:
 *
 *     static void double_it(const struct petiole_task_call *call, struct petiole_reply *reply)
 *     {
 *         static const char *const names[] = {"number"};
 *         struct petiole_json number;
 *         int64_t value = 0;
 *         if (!call->host->bind(call, reply, names, 1, 1, &number)) {
 *             return;
 *         }
 *         if (!call->host->json_integer(number, &value)) {
 *             call->host->reply_error(reply, "TypeError", "double_it() takes an integer");
 *             return;
 *         }
 *         call->host->reply_integer(reply, 2 * value);
 *     }
 *
 *     static const struct petiole_task tasks[] = {{"my.double_it", double_it}};
 *     static const struct petiole_plugin plugin = {
 *         sizeof(struct petiole_plugin), PETIOLE_PLUGIN_ABI, "my", "1.0", tasks, 1,
 *     };
 *
 *     PETIOLE_PLUGIN_EXPORT const struct petiole_plugin *petiole_plugin_entry(void)
 *     {
 *         return &plugin;
 *     }
 *
 *     cc -shared -fPIC -o my.so my.c
 *
 * What a plugin must know
 *   - Functions run on worker threads of the worker's process, several at a time, also the same
 *     one: whatever they share they must guard. All signals are blocked there.
 *   - A crash in a plugin is a crash of the worker. Tasks that may crash belong into a Job or a
 *     process.
 *   - Native code cannot be stopped from outside. The soft time limit and a revoke set a flag
 *     (is_cancelled) that a long task has to look at. At the hard time limit, or some time after a
 *     revoke, the worker reports the task as ended and gives its thread up: the function goes on to
 *     the end on a thread that no longer counts, and what it replies is dropped.
 *   - Everything that the worker hands in (call, reply, texts) is valid until the function returns,
 *     on its thread only.
 *   - A library stays loaded until the worker ends.
 *   - Structs of the worker begin with their size: a member behind that size is not there in an
 *     older worker. Members are only ever added at the end; any other change raises
 *     PETIOLE_PLUGIN_ABI, and a plugin of another version is refused.
 */
#ifndef PETIOLE_H
#define PETIOLE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of everything below. */
#define PETIOLE_PLUGIN_ABI 1

/* Before the definition of petiole_plugin_entry: keeps it visible in libraries that hide their
 * symbols. */
#if defined(__GNUC__)
#    define PETIOLE_PLUGIN_EXPORT __attribute__((visibility("default")))
#else
#    define PETIOLE_PLUGIN_EXPORT
#endif

/* Values */

/* A view of bytes, not ended by a NUL. `data` may be NULL when `length` is 0. */
struct petiole_text {
    const char *data;
    size_t length;
};

enum petiole_json_type {
    PETIOLE_JSON_ABSENT, /* no such value */
    PETIOLE_JSON_NULL,
    PETIOLE_JSON_FALSE,
    PETIOLE_JSON_TRUE,
    PETIOLE_JSON_NUMBER,
    PETIOLE_JSON_STRING,
    PETIOLE_JSON_ARRAY,
    PETIOLE_JSON_OBJECT
};

/* A JSON value as it was sent: checked UTF-8 text, with the quotes or brackets around it. Numbers
 * may be NaN, Infinity and -Infinity, as in Python's json. Only values that the worker made may be
 * handed to its json_ functions. */
struct petiole_json {
    enum petiole_json_type type;
    struct petiole_text text;
};

/* A walk over the members of an array or object, made by json_walk. Its members are the worker's.
 */
struct petiole_walk {
    const char *position;
    const char *end;
    int is_object;
};

/* Why a task should end before it is done. */
enum petiole_cancel {
    PETIOLE_GO_ON = 0,
    PETIOLE_SOFT_TIME_LIMIT =
        1,                 /* its soft time limit has passed: it may still reply what it has */
    PETIOLE_TERMINATED = 2 /* it was revoked, or the worker ends: nobody waits for the reply */
};

enum petiole_log_level {
    PETIOLE_LOG_DEBUG,
    PETIOLE_LOG_INFO,
    PETIOLE_LOG_WARNING,
    PETIOLE_LOG_ERROR,
    PETIOLE_LOG_CRITICAL
};

/* What a task answers; filled by the reply_ functions of the worker. */
struct petiole_reply;

struct petiole_host;

/* One call of a task, made by the worker. */
struct petiole_task_call {
    size_t size; /* of this struct in the worker */
    const struct petiole_host *host;
    struct petiole_text task_name;
    struct petiole_text task_id;
    struct petiole_text hostname; /* the worker's node name, "celery@host" */
    struct petiole_json args;     /* an array: positional arguments */
    struct petiole_json kwargs;   /* an object: keyword arguments */
    int64_t retries;              /* how often the task has been tried before */
    void *host_data;              /* the worker's */
};

/* Runs one task and replies once. Without a reply the task succeeds with null, as a Python function
 * without return. */
typedef void petiole_task_function(const struct petiole_task_call *call,
                                   struct petiole_reply *reply);

/* What the worker does for a task. All of it on the thread of the call and before its function
 * returns; nothing here blocks but `wait`. Texts that are handed in are copied. Of several replies
 * the last one counts. */
struct petiole_host {
    size_t size; /* of this struct in the worker */

    /* Arguments */

    /* Gives args and kwargs the `count` parameter names `names`, of which the first
     * `required_count` must be there, as a call of a Python function does. Fills
     * ret_values[0..count-1]; parameters that were not passed are ABSENT. Returns 1, or 0 after it
     * replied with the TypeError that Python would raise. */
    int (*bind)(const struct petiole_task_call *call, struct petiole_reply *reply,
                const char *const *names, size_t required_count, size_t count,
                struct petiole_json *ret_values);

    /* JSON values */

    /* The number of elements or members; 0 for anything else. */
    size_t (*json_count)(struct petiole_json container);
    /* Element number `index`, or ABSENT. Takes time in proportion to the index: walk over long
     * arrays. */
    struct petiole_json (*json_item)(struct petiole_json array, size_t index);
    /* The member `key` (UTF-8), or ABSENT. */
    struct petiole_json (*json_member)(struct petiole_json object, const char *key);
    /* Begins a walk over an array or object; anything else has no members. */
    struct petiole_walk (*json_walk)(struct petiole_json container);
    /* The next value; returns 0 at the end. `ret_key` (may be NULL; objects only) is the key as
     * written between its quotes, escapes and all. */
    int (*json_next)(struct petiole_walk *walk, struct petiole_text *ret_key,
                     struct petiole_json *ret_value);
    /* Returns 1 and the number when `value` is one without fraction and exponent that fits, else 0.
     */
    int (*json_integer)(struct petiole_json value, int64_t *ret_number);
    /* Returns 1 and the number when `value` is any number, NaN and infinities included, else 0. */
    int (*json_number)(struct petiole_json value, double *ret_number);
    /* Returns 1 and the characters of a string without its escapes, in UTF-8, else 0. They are
     * valid until the function returns. */
    int (*json_string)(const struct petiole_task_call *call, struct petiole_json value,
                       struct petiole_text *ret_text);

    /* Replies */

    /* SUCCESS with a result: JSON text, checked by the worker when the function has returned. Text
     * that is not one JSON value, or longer than 64 MiB, makes the task fail with
     * kombu.exceptions.EncodeError. */
    void (*reply_json)(struct petiole_reply *reply, const char *json, size_t length);
    void (*reply_integer)(struct petiole_reply *reply, int64_t number);
    void (*reply_number)(struct petiole_reply *reply, double number);
    /* A string; bytes that are not UTF-8 become U+FFFD. */
    void (*reply_string)(struct petiole_reply *reply, const char *text, size_t length);
    /* FAILURE: as if Python had raised the class `type` of `module` ("builtins") with the arguments
     * `args`, the text of a JSON array of `args_length` bytes. */
    void (*reply_exception)(struct petiole_reply *reply, const char *type, const char *module,
                            const char *args, size_t args_length);
    /* FAILURE: the class `type` of Python's builtins with one message, NUL-terminated UTF-8. */
    void (*reply_error)(struct petiole_reply *reply, const char *type, const char *message);
    /* Asks to be run again in `countdown_s` seconds, at most 10^9; negative: after the task's own
     * delay. An exception that was replied before stays as the reason. When the retries are used
     * up the worker makes it a failure. */
    void (*reply_retry)(struct petiole_reply *reply, double countdown_s);
    /* For a task that ends because is_cancelled or wait said so: SoftTimeLimitExceeded after a soft
     * time limit. */
    void (*reply_cancelled)(struct petiole_reply *reply);

    /* Running */

    /* Whether the task should end now. Cheap: made for inner loops. */
    enum petiole_cancel (*is_cancelled)(const struct petiole_task_call *call);
    /* Sleeps for `seconds`, or until the task is cancelled; says which, as is_cancelled does. */
    enum petiole_cancel (*wait)(const struct petiole_task_call *call, double seconds);
    /* Writes a line to the worker's log, with the task's name and id before it. `text` is
     * NUL-terminated UTF-8, of which the first 4096 bytes count. */
    void (*log)(const struct petiole_task_call *call, enum petiole_log_level level,
                const char *text);
};

/* One task of a plugin; everything here is the plugin's and stays valid and unchanged for ever. */
struct petiole_task {
    const char *name; /* as clients send it: "petiole.sample.add" */
    petiole_task_function *function;
};

struct petiole_plugin {
    size_t size;          /* sizeof(struct petiole_plugin) */
    uint32_t abi_version; /* PETIOLE_PLUGIN_ABI */
    const char *name;     /* for logs */
    const char *version;  /* for logs */
    const struct petiole_task *tasks;
    size_t task_count;
};

/* Defined by the plugin: returns its table. Called once, from the worker's main thread. */
PETIOLE_PLUGIN_EXPORT const struct petiole_plugin *petiole_plugin_entry(void);

#ifdef __cplusplus
}
#endif

#endif
