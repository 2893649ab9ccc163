#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/memory.h"

#define LOG_MAX_MESSAGE_BYTES ((size_t)64 * 1024)
#define LOG_MAX_BLOCK_BYTES   ((size_t)128 * 1024)
#define LOG_MAX_REST_BYTES    ((size_t)16 * 1024) /* names and the time stamp */
/* A byte becomes at most six (\u0000). */
#define LOG_MAX_LINE_BYTES (6 * (LOG_MAX_MESSAGE_BYTES + LOG_MAX_BLOCK_BYTES + LOG_MAX_REST_BYTES))

struct log_sink {
    int descriptor;
    enum log_level level;
    enum log_form form;
    bool color;
    char path[1024]; /* empty: stderr */
};

/* The one mutable static of the program (see the header). */
/* NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables) */
static struct log_sink sink = {.descriptor = STDERR_FILENO, .level = LOG_WARNING};

struct log_entry {
    enum log_level level;
    const char *process; /* NULL: this one */
    struct bytes message;
    struct bytes task_name;
    struct bytes task_id;
    struct bytes block;
};

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

bool log_open(const char *path, enum log_level level, enum log_form form, bool color,
              struct error *reterr)
{
    int descriptor = STDERR_FILENO;
    if (path) {
        if (strlen(path) >= sizeof(sink.path)) {
            return error_set(reterr, ERROR_TOO_LARGE, "the log file's path is too long: %s", path);
        }
        descriptor = open_file(path);
        if (descriptor < 0) {
            return error_set(reterr, ERROR_INVALID, "cannot open log file %s: %s", path,
                             strerror(errno)); // NOLINT(concurrency-mt-unsafe): before threads
        }
    }
    if (sink.descriptor != STDERR_FILENO) {
        (void)close(sink.descriptor);
    }
    sink.descriptor = descriptor;
    sink.level = level;
    sink.form = form;
    sink.color = color && form == LOG_FORM_TEXT;
    (void)snprintf(sink.path, sizeof(sink.path), "%s", path ? path : "");
    return true;
}

void log_reopen(void)
{
    struct stat open_file_status;
    struct stat path_status;
    if (sink.path[0] == '\0') {
        return;
    }
    if (fstat(sink.descriptor, &open_file_status) == 0 && stat(sink.path, &path_status) == 0
        && open_file_status.st_ino == path_status.st_ino
        && open_file_status.st_dev == path_status.st_dev) {
        return;
    }
    int descriptor = open_file(sink.path);
    if (descriptor >= 0) {
        (void)close(sink.descriptor);
        sink.descriptor = descriptor;
    }
}

bool log_enabled(enum log_level level)
{
    return level >= sink.level;
}

static const char *const level_names[] = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"};

bool log_level_parse(const char *text, enum log_level *ret_level)
{
    for (size_t index = 0; index < ARRAY_LENGTH(level_names); index++) {
        if (strcasecmp(text, level_names[index]) == 0) {
            *ret_level = (enum log_level)index;
            return true;
        }
    }
    if (strcasecmp(text, "FATAL") == 0) {
        *ret_level = LOG_CRITICAL;
        return true;
    }
    return false;
}

const char *log_level_name(enum log_level level)
{
    return (size_t)level < ARRAY_LENGTH(level_names) ? level_names[level] : "CRITICAL";
}

/* Appends `text` with control characters escaped, but line breaks only unless `keeps_lines`. */
static void append_escaped(struct buffer *line, struct bytes text, bool keeps_lines)
{
    for (size_t index = 0; index < text.length; index++) {
        unsigned char byte = (unsigned char)text.data[index];
        if (byte == '\n') {
            (void)buffer_append_text(line, keeps_lines ? "\n" : "\\n");
        } else if (byte == '\t' || (byte >= 0x20 && byte != 0x7f)) {
            (void)buffer_append_byte(line, (char)byte);
        } else {
            (void)buffer_format(line, "\\x%02x", byte);
        }
    }
}

static const char *level_color(enum log_level level)
{
    static const char *const colors[] = {"\033[1;34m", "", "\033[1;33m", "\033[1;31m",
                                         "\033[1;35m"};
    return colors[level];
}

/* celery/app/defaults.py: DEFAULT_PROCESS_LOG_FMT; celery/utils/log.py: ColorFormatter */
static void append_text_line(struct buffer *line, const struct log_entry *entry,
                             const struct timespec *now)
{
    struct tm local;
    char stamp[32];
    (void)localtime_r(&now->tv_sec, &local);
    (void)strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &local);
    const char *color = sink.color ? level_color(entry->level) : "";
    (void)buffer_format(line, "[%s,%03ld: %s/%s] %s", stamp, now->tv_nsec / 1000000,
                        log_level_name(entry->level),
                        entry->process ? entry->process : "MainProcess", color);
    append_escaped(line, entry->message, false);
    if (entry->block.length > 0) {
        (void)buffer_append_byte(line, '\n');
        append_escaped(line, entry->block, true);
    }
    if (color[0] != '\0') {
        (void)buffer_append_text(line, "\033[0m");
    }
}

static void append_json_member(struct buffer *line, const char *name, struct bytes value)
{
    if (value.length > 0) {
        (void)buffer_format(line, ", \"%s\": ", name);
        json_append_string(line, value);
    }
}

static void append_json_line(struct buffer *line, const struct log_entry *entry,
                             const struct timespec *now)
{
    struct tm utc;
    char stamp[32];
    (void)gmtime_r(&now->tv_sec, &utc);
    (void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    (void)buffer_format(line, "{\"time\": \"%s.%03ldZ\", \"level\": \"%s\", \"message\": ", stamp,
                        now->tv_nsec / 1000000, log_level_name(entry->level));
    json_append_string(line, entry->message);
    append_json_member(line, "task_name", entry->task_name);
    append_json_member(line, "task_id", entry->task_id);
    append_json_member(line, "traceback", entry->block);
    (void)buffer_append_byte(line, '}');
}

static void write_entry(const struct log_entry *entry)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct buffer line;
    buffer_init(&line, LOG_MAX_LINE_BYTES);
    if (sink.form == LOG_FORM_JSON) {
        append_json_line(&line, entry, &now);
    } else {
        append_text_line(&line, entry, &now);
    }
    (void)buffer_append_byte(&line, '\n');
    if (write(sink.descriptor, line.data, line.length) < 0) {
        /* There is nowhere to tell that the log is gone. */
        errno = 0;
    }
    buffer_fini(&line);
}

/* Formats the message of `entry`, which has all the rest, and writes it. */
static PRINTF_FORMAT(2, 0) void write_formatted(struct log_entry entry, const char *format,
                                                va_list arguments)
{
    char small[1024];
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(small, sizeof(small), format, arguments);
    char *large CLEANUP(memory_free_at) = NULL;
    if (length >= (int)sizeof(small)) {
        size_t size = (size_t)length + 1;
        size = size < LOG_MAX_MESSAGE_BYTES ? size : LOG_MAX_MESSAGE_BYTES;
        large = memory_new(size);
        (void)vsnprintf(large, size, format, again);
    }
    va_end(again);
    entry.message = bytes_from_text(large ? large : small);
    if (entry.block.length > LOG_MAX_BLOCK_BYTES) {
        entry.block.length = LOG_MAX_BLOCK_BYTES;
    }
    write_entry(&entry);
}

void log_write(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level)) {
        return;
    }
    struct log_entry entry = {.level = level};
    va_list arguments;
    va_start(arguments, format);
    write_formatted(entry, format, arguments);
    va_end(arguments);
}

void log_task(enum log_level level, struct bytes task_name, struct bytes task_id,
              const char *format, ...)
{
    if (!log_enabled(level)) {
        return;
    }
    struct log_entry entry = {.level = level, .task_name = task_name, .task_id = task_id};
    va_list arguments;
    va_start(arguments, format);
    write_formatted(entry, format, arguments);
    va_end(arguments);
}

void log_task_block(enum log_level level, struct bytes task_name, struct bytes task_id,
                    struct bytes block, const char *format, ...)
{
    if (!log_enabled(level)) {
        return;
    }
    struct log_entry entry = {
        .level = level, .task_name = task_name, .task_id = task_id, .block = block};
    va_list arguments;
    va_start(arguments, format);
    write_formatted(entry, format, arguments);
    va_end(arguments);
}

void log_process(enum log_level level, const char *process, struct bytes task_name,
                 struct bytes task_id, struct bytes message, struct bytes block)
{
    if (!log_enabled(level)) {
        return;
    }
    struct log_entry entry = {
        .level = level,
        .process = process,
        .task_name = task_name,
        .task_id = task_id,
        .message =
            bytes_of(message.data, message.length < LOG_MAX_MESSAGE_BYTES ? message.length
                                                                          : LOG_MAX_MESSAGE_BYTES),
        .block = bytes_of(block.data,
                          block.length < LOG_MAX_BLOCK_BYTES ? block.length : LOG_MAX_BLOCK_BYTES),
    };
    write_entry(&entry);
}
