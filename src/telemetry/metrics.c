#include "telemetry/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <stdint.h>
#include <unistd.h>

#include "base/json.h"
#include "base/map.h"

enum family_type {
    COUNTER,
    GAUGE,
    HISTOGRAM
};

enum fixed_label {
    NONE,
    HOSTNAME,
    TENANT
};

/* One row of the table. */
struct family_row {
    const char *name;
    enum family_type type;
    enum fixed_label fixed_label;
    const char *labels; /* names between blanks */
    const char *help;
};

static const struct family_row rows[METRICS_FAMILY_COUNT] = {
#define METRICS_FAMILY(id, name, type, fixed_label, labels, help)                                  \
    {name, type, fixed_label, labels, help},
#include "telemetry/metrics_table.h"
#undef METRICS_FAMILY
};

/* celery-exporter's bounds of celery_task_runtime: those of the Prometheus client. */
static const double default_runtime_buckets[] = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25,
                                                 0.5,   0.75, 1,     2.5,  5,     7.5, 10};
/* And of celery_task_queue_wait_time. */
static const double wait_buckets[] = {0.05, 0.1, 0.25, 0.5, 1,   2.5, 5,
                                      10,   30,  60,   120, 300, 600, 1800};
static const double short_buckets[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                       1,     2.5,  5,     10,   30,  60};

struct series {
    char *labels; /* owned: name="a",queue_name="b" with the fixed label; may be empty */
    double value; /* counter, gauge; histogram: the sum */
    uint64_t observations;
    uint64_t *buckets; /* owned; histogram: how many fell into each, not those below */
};

struct family {
    struct map *by_values;  /* label values, joined -> struct series */
    struct series **series; /* owned, in the order of their birth */
    size_t count;
    size_t capacity;
    const double *bounds; /* histogram */
    size_t bound_count;
};

struct metrics {
    struct family families[METRICS_FAMILY_COUNT];
    char *hostname;
    char *tenant;
    double runtime_buckets[METRICS_MAX_BUCKETS];
    double started_wall_s;
};

static double wall_s(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void set_bounds(struct metrics *metrics, enum metrics_family family, const double *bounds,
                       size_t count)
{
    metrics->families[family].bounds = bounds;
    metrics->families[family].bound_count = count;
}

struct metrics *metrics_new(const struct metrics_options *options)
{
    struct metrics *metrics = memory_new(sizeof(*metrics));
    metrics->hostname = memory_text(bytes_from_text(options->hostname));
    metrics->tenant = memory_text(bytes_from_text(options->tenant));
    metrics->started_wall_s = wall_s();
    for (size_t family = 0; family < METRICS_FAMILY_COUNT; family++) {
        metrics->families[family].by_values = map_new();
        set_bounds(metrics, (enum metrics_family)family, short_buckets,
                   ARRAY_LENGTH(short_buckets));
    }
    set_bounds(metrics, METRICS_TASK_QUEUE_WAIT, wait_buckets, ARRAY_LENGTH(wait_buckets));
    set_bounds(metrics, METRICS_TASK_RUNTIME, default_runtime_buckets,
               ARRAY_LENGTH(default_runtime_buckets));
    if (options->runtime_buckets) {
        assert(options->runtime_bucket_count <= METRICS_MAX_BUCKETS);
        memcpy(metrics->runtime_buckets, options->runtime_buckets,
               options->runtime_bucket_count * sizeof(double));
        set_bounds(metrics, METRICS_TASK_RUNTIME, metrics->runtime_buckets,
                   options->runtime_bucket_count);
    }
    return metrics;
}

static void free_family(struct family *family)
{
    for (size_t index = 0; index < family->count; index++) {
        memory_free(&family->series[index]->labels);
        memory_free(&family->series[index]->buckets);
        memory_free(&family->series[index]);
    }
    memory_free(&family->series);
    map_free(&family->by_values);
}

void metrics_free(struct metrics **metrics)
{
    if (!*metrics) {
        return;
    }
    for (size_t family = 0; family < METRICS_FAMILY_COUNT; family++) {
        free_family(&(*metrics)->families[family]);
    }
    memory_free(&(*metrics)->hostname);
    memory_free(&(*metrics)->tenant);
    memory_free(metrics);
}

/* Label values */

/* The next name in `names`, which are separated by blanks; the empty view at the end. */
static struct bytes next_name(struct bytes *names)
{
    size_t end = bytes_find(*names, ' ');
    struct bytes name = bytes_of(names->data, end);
    *names = bytes_skip(*names, end + 1);
    return name;
}

/* `value` cut to the maximum, between two characters. */
static struct bytes cut(struct bytes value)
{
    if (value.length <= METRICS_MAX_LABEL_BYTES) {
        return value;
    }
    value.length = METRICS_MAX_LABEL_BYTES;
    while (value.length > 0 && ((unsigned char)value.data[value.length] & 0xc0) == 0x80) {
        value.length--;
    }
    return value;
}

/* The label values of one series, as many as the family has names for. */
struct labels {
    struct bytes values[METRICS_MAX_LABELS];
    size_t count;
};

/* Takes the caller's array, whose length is the number of the family's names; NULL when it has
 * none. */
static struct labels read_labels(const struct family_row *row, const struct bytes *values)
{
    struct labels labels = {.count = 0};
    struct bytes names = bytes_from_text(row->labels);
    while (values && labels.count < METRICS_MAX_LABELS && next_name(&names).length > 0) {
        labels.values[labels.count] = cut(values[labels.count]);
        labels.count++;
    }
    assert(names.length == 0);
    return labels;
}

static void append_value(struct buffer *buffer, struct bytes value)
{
    for (size_t index = 0; index < value.length; index++) {
        char letter = value.data[index];
        if (letter == '\\' || letter == '"') {
            (void)buffer_append_byte(buffer, '\\');
        }
        if (letter == '\n') {
            (void)buffer_append_text(buffer, "\\n");
        } else {
            (void)buffer_append_byte(buffer, letter);
        }
    }
}

static void append_label(struct buffer *buffer, struct bytes name, struct bytes value)
{
    (void)buffer_format(buffer, "%s%.*s=\"", buffer->length > 0 ? "," : "", BYTES_FORMAT(name));
    append_value(buffer, value);
    (void)buffer_append_byte(buffer, '"');
}

struct pair {
    struct bytes name;
    struct bytes value;
};

static bool comes_before(struct bytes left, struct bytes right)
{
    size_t shorter = left.length < right.length ? left.length : right.length;
    int order = shorter > 0 ? memcmp(left.data, right.data, shorter) : 0;
    return order < 0 || (order == 0 && left.length < right.length);
}

/* Puts a pair among `count` others that are in order. */
static void insert_pair(struct pair *pairs, size_t count, struct bytes name, struct bytes value)
{
    size_t place = count;
    while (place > 0 && comes_before(name, pairs[place - 1].name)) {
        pairs[place] = pairs[place - 1];
        place--;
    }
    pairs[place] = (struct pair){name, value};
}

/* The labels in the order of their names, as the Prometheus client of celery-exporter writes them.
 * Returns how many. */
static size_t sort_labels(const struct metrics *metrics, const struct family_row *row,
                          const struct labels *labels, struct pair pairs[METRICS_MAX_LABELS + 1])
{
    size_t count = 0;
    struct bytes names = bytes_from_text(row->labels);
    for (; count < labels->count; count++) {
        insert_pair(pairs, count, next_name(&names), labels->values[count]);
    }
    if (row->fixed_label == HOSTNAME) {
        insert_pair(pairs, count++, BYTES("hostname"), bytes_from_text(metrics->hostname));
    }
    if (row->fixed_label == TENANT) {
        insert_pair(pairs, count++, BYTES("tenant"), bytes_from_text(metrics->tenant));
    }
    return count;
}

static char *format_labels(const struct metrics *metrics, const struct family_row *row,
                           const struct labels *labels)
{
    struct pair pairs[METRICS_MAX_LABELS + 1];
    size_t count = sort_labels(metrics, row, labels, pairs);
    struct buffer buffer;
    buffer_init(&buffer, 16384);
    for (size_t index = 0; index < count; index++) {
        append_label(&buffer, pairs[index].name, pairs[index].value);
    }
    char *text = memory_text(buffer_view(&buffer));
    buffer_fini(&buffer);
    return text;
}

#define MAX_KEY_BYTES (METRICS_MAX_LABELS * (METRICS_MAX_LABEL_BYTES + 1))

/* The key of a series: its values, a NUL behind each. */
static struct bytes join_values(const struct labels *labels, char joined[MAX_KEY_BYTES])
{
    size_t length = 0;
    for (size_t index = 0; index < labels->count; index++) {
        struct bytes value = labels->values[index];
        if (value.length > 0) {
            memcpy(joined + length, value.data, value.length);
        }
        length += value.length;
        joined[length++] = '\0';
    }
    return bytes_of(joined, length);
}

/* Series */

static struct series *add_series(struct metrics *metrics, enum metrics_family id,
                                 const struct labels *labels, struct bytes key)
{
    struct family *family = &metrics->families[id];
    if (family->count == family->capacity) {
        family->capacity = family->capacity == 0 ? 4 : 2 * family->capacity;
        family->series = memory_resize(family->series, family->capacity, sizeof(struct series *));
    }
    struct series *series = memory_new(sizeof(*series));
    series->labels = format_labels(metrics, &rows[id], labels);
    if (rows[id].type == HISTOGRAM) {
        series->buckets = memory_new((family->bound_count + 1) * sizeof(uint64_t));
    }
    family->series[family->count++] = series;
    (void)map_set(family->by_values, key, series);
    return series;
}

static struct series *find_or_add(struct metrics *metrics, enum metrics_family id,
                                  const struct labels *labels)
{
    char joined[MAX_KEY_BYTES];
    struct bytes key = join_values(labels, joined);
    struct series *series = map_get(metrics->families[id].by_values, key);
    return series ? series : add_series(metrics, id, labels, key);
}

static bool is_known(const struct family *family, const struct labels *labels)
{
    char joined[MAX_KEY_BYTES];
    return map_get(family->by_values, join_values(labels, joined)) != NULL;
}

static struct series *find_series(struct metrics *metrics, enum metrics_family id,
                                  const struct bytes *values)
{
    struct labels labels = read_labels(&rows[id], values);
    const struct family *family = &metrics->families[id];
    if (family->count >= METRICS_MAX_SERIES && !is_known(family, &labels)) {
        for (size_t index = 0; index < labels.count; index++) {
            labels.values[index] = BYTES("other");
        }
    }
    return find_or_add(metrics, id, &labels);
}

/* Brings the counters of a task into being that have not counted yet. */
static void add_siblings(struct metrics *metrics, struct bytes name, struct bytes queue)
{
    const struct bytes values[METRICS_MAX_LABELS] = {name, queue, BYTES("")};
    for (int id = METRICS_TASK_SENT; id <= METRICS_TASK_RETRIED; id++) {
        (void)find_series(metrics, (enum metrics_family)id, values);
    }
}

void metrics_add(struct metrics *metrics, enum metrics_family family, const struct bytes *labels,
                 double amount)
{
    assert(rows[family].type == COUNTER && amount >= 0);
    size_t before = metrics->families[family].count;
    find_series(metrics, family, labels)->value += amount;
    bool is_new = metrics->families[family].count > before;
    if (is_new && labels && family <= METRICS_TASK_RETRIED) {
        add_siblings(metrics, labels[0], labels[1]);
    }
}

void metrics_set(struct metrics *metrics, enum metrics_family family, const struct bytes *labels,
                 double value)
{
    assert(rows[family].type == GAUGE);
    find_series(metrics, family, labels)->value = value;
}

void metrics_observe(struct metrics *metrics, enum metrics_family family,
                     const struct bytes *labels, double value)
{
    assert(rows[family].type == HISTOGRAM);
    const struct family *state = &metrics->families[family];
    struct series *series = find_series(metrics, family, labels);
    size_t bucket = 0;
    while (bucket < state->bound_count && value > state->bounds[bucket]) {
        bucket++;
    }
    series->buckets[bucket]++;
    series->observations++;
    series->value += value;
}

double metrics_value(const struct metrics *metrics, enum metrics_family family,
                     const struct bytes *labels)
{
    char joined[MAX_KEY_BYTES];
    struct labels read = read_labels(&rows[family], labels);
    const struct series *series =
        map_get(metrics->families[family].by_values, join_values(&read, joined));
    if (!series) {
        return 0;
    }
    return rows[family].type == HISTOGRAM ? (double)series->observations : series->value;
}

/* Writing */

static void write_sample(struct buffer *buffer, const char *name, const char *suffix,
                         const char *labels, double value)
{
    (void)buffer_format(buffer, "%s%s", name, suffix);
    if (labels[0]) {
        (void)buffer_format(buffer, "{%s}", labels);
    }
    (void)buffer_append_byte(buffer, ' ');
    json_append_double(buffer, value);
    (void)buffer_append_byte(buffer, '\n');
}

static void write_bucket(struct buffer *buffer, const char *name, const char *labels,
                         const double *bound, uint64_t count)
{
    (void)buffer_format(buffer, "%s_bucket{%s%sle=\"", name, labels, labels[0] ? "," : "");
    if (bound) {
        json_append_double(buffer, *bound);
    } else {
        (void)buffer_append_text(buffer, "+Inf");
    }
    (void)buffer_format(buffer, "\"} %llu\n", (unsigned long long)count);
}

static void write_histogram(struct buffer *buffer, const struct family *family, const char *name,
                            const struct series *series)
{
    uint64_t below = 0;
    for (size_t bucket = 0; bucket < family->bound_count; bucket++) {
        below += series->buckets[bucket];
        write_bucket(buffer, name, series->labels, &family->bounds[bucket], below);
    }
    write_bucket(buffer, name, series->labels, NULL, series->observations);
    write_sample(buffer, name, "_sum", series->labels, series->value);
    write_sample(buffer, name, "_count", series->labels, (double)series->observations);
}

static void write_family(struct buffer *buffer, const struct family *family,
                         const struct family_row *row)
{
    static const char *const types[] = {
        [COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram"};
    if (family->count == 0) {
        return;
    }
    (void)buffer_format(buffer, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
                        types[row->type]);
    for (size_t index = 0; index < family->count; index++) {
        const struct series *series = family->series[index];
        if (row->type == HISTOGRAM) {
            write_histogram(buffer, family, row->name, series);
        } else {
            write_sample(buffer, row->name, "", series->labels, series->value);
        }
    }
}

static double resident_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long long total = 0;
    unsigned long long resident = 0;
    if (!file) {
        return 0;
    }
    char line[128] = "";
    char *end = NULL;
    if (fgets(line, sizeof(line), file)) {
        total = strtoull(line, &end, 10);
        resident = total > 0 ? strtoull(end, NULL, 10) : 0;
    }
    (void)fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    double count = 0;
    if (!directory) {
        return 0;
    }
    while (readdir(directory)) { // NOLINT(concurrency-mt-unsafe): the stream is ours alone
        count++;
    }
    (void)closedir(directory);
    return count > 3 ? count - 3 : 0; /* without "." and ".." and the directory itself */
}

static void read_process(struct metrics *metrics)
{
    struct timespec used = {0};
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    metrics_set(metrics, METRICS_RESIDENT_BYTES, NULL, resident_bytes());
    metrics_set(metrics, METRICS_OPEN_FDS, NULL, open_descriptors());
    metrics_set(metrics, METRICS_START_TIME, NULL, metrics->started_wall_s);
    find_series(metrics, METRICS_CPU_SECONDS, NULL)->value =
        (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

void metrics_write(struct metrics *metrics, struct buffer *buffer)
{
    read_process(metrics);
    for (size_t family = 0; family < METRICS_FAMILY_COUNT; family++) {
        write_family(buffer, &metrics->families[family], &rows[family]);
    }
}
