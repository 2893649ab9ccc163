/*
 * The sample plugin: four small tasks that show what include/petiole.h offers, and that tests and
 * benchmarks use.
 *
 *   petiole.sample.add(x, y)        x + y of numbers, as Python adds them; integers up to 64 bits
 *   petiole.sample.echo(value)      its argument as it came
 *   petiole.sample.sleep(seconds)   null after that time; ends early when it is cancelled
 *   petiole.sample.fail(message)    raises ValueError(message); without one: ValueError()
 */
#include <petiole.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_SIZE 160

/* One operand of add. */
struct number {
    int is_integer;
    int64_t integer;
    double real;
};

/* Python's name for the type of `value`. */
static const char *type_name(struct petiole_json value)
{
    static const char *const names[] = {
        "NoneType", "NoneType", "bool", "bool", "float", "str", "list", "dict",
    };
    if (value.type == PETIOLE_JSON_NUMBER) {
        int is_float = 0;
        for (size_t i = 0; i < value.text.length; i++) {
            is_float = is_float || strchr(".eENI", value.text.data[i]) != NULL;
        }
        return is_float ? "float" : "int";
    }
    return names[value.type];
}

static int is_number(struct petiole_json value)
{
    return value.type == PETIOLE_JSON_NUMBER || value.type == PETIOLE_JSON_TRUE
           || value.type == PETIOLE_JSON_FALSE;
}

/* Reads a number; returns 0 for an integer of more than 64 bits. True is 1 and False is 0, as in
 * Python. */
static int read_number(const struct petiole_host *host, struct petiole_json value,
                       struct number *ret_number)
{
    struct number number = {1, value.type == PETIOLE_JSON_TRUE, 0.0};
    if (value.type == PETIOLE_JSON_NUMBER) {
        number.is_integer = strcmp(type_name(value), "int") == 0;
        if (number.is_integer && !host->json_integer(value, &number.integer)) {
            return 0;
        }
    }
    if (number.is_integer) {
        number.real = (double)number.integer;
    } else if (!host->json_number(value, &number.real)) {
        return 0;
    }
    *ret_number = number;
    return 1;
}

/* Adds two 64-bit integers; returns 0 when the sum is none. */
static int add_integers(int64_t left, int64_t right, int64_t *ret_sum)
{
    if (right > 0 ? left > INT64_MAX - right : left < INT64_MIN - right) {
        return 0;
    }
    *ret_sum = left + right;
    return 1;
}

static void add(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    static const char *const names[] = {"x", "y"};
    const struct petiole_host *host = call->host;
    struct petiole_json values[2];
    struct number left;
    struct number right;
    if (!host->bind(call, reply, names, 2, 2, values)) {
        return;
    }
    if (!is_number(values[0]) || !is_number(values[1])) {
        char message[MESSAGE_SIZE];
        (void)snprintf(message, sizeof(message), "unsupported operand type(s) for +: '%s' and '%s'",
                       type_name(values[0]), type_name(values[1]));
        host->reply_error(reply, "TypeError", message);
        return;
    }
    int64_t sum = 0;
    if (!read_number(host, values[0], &left) || !read_number(host, values[1], &right)
        || (left.is_integer && right.is_integer
            && !add_integers(left.integer, right.integer, &sum))) {
        host->reply_error(reply, "OverflowError", "add() works with integers of up to 64 bits");
    } else if (left.is_integer && right.is_integer) {
        host->reply_integer(reply, sum);
    } else {
        host->reply_number(reply, left.real + right.real);
    }
}

static void echo(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    static const char *const names[] = {"value"};
    struct petiole_json value;
    if (call->host->bind(call, reply, names, 1, 1, &value)) {
        call->host->reply_json(reply, value.text.data, value.text.length);
    }
}

static void sleep_for(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    static const char *const names[] = {"seconds"};
    const struct petiole_host *host = call->host;
    struct petiole_json value;
    double seconds = 0.0;
    if (!host->bind(call, reply, names, 1, 1, &value)) {
        return;
    }
    if (!host->json_number(value, &seconds)) {
        char message[MESSAGE_SIZE];
        (void)snprintf(message, sizeof(message), "'%s' object cannot be interpreted as an integer",
                       type_name(value));
        host->reply_error(reply, "TypeError", message);
    } else if (!(seconds >= 0.0)) {
        host->reply_error(reply, "ValueError", "sleep length must be non-negative");
    } else if (host->wait(call, seconds) != PETIOLE_GO_ON) {
        host->reply_cancelled(reply);
    }
}

static void fail(const struct petiole_task_call *call, struct petiole_reply *reply)
{
    static const char *const names[] = {"message"};
    struct petiole_json message;
    char args[4096];
    if (!call->host->bind(call, reply, names, 0, 1, &message)) {
        return;
    }
    int length = snprintf(args, sizeof(args), "[%.*s]", (int)message.text.length,
                          message.text.data ? message.text.data : "");
    if (length < 0 || (size_t)length >= sizeof(args)) {
        call->host->reply_error(reply, "ValueError", "fail() takes a message of up to 4 KB");
        return;
    }
    call->host->reply_exception(reply, "ValueError", "builtins", args, (size_t)length);
}

static const struct petiole_task tasks[] = {
    {"petiole.sample.add", add},
    {"petiole.sample.echo", echo},
    {"petiole.sample.sleep", sleep_for},
    {"petiole.sample.fail", fail},
};

static const struct petiole_plugin plugin = {
    sizeof(struct petiole_plugin),    PETIOLE_PLUGIN_ABI, "petiole-sample", "1.0", tasks,
    sizeof(tasks) / sizeof(tasks[0]),
};

const struct petiole_plugin *petiole_plugin_entry(void)
{
    return &plugin;
}
