/*
 * Counters, gauges and histograms in memory, written in Prometheus' text format 0.0.4. The families
 * are the rows of metrics_table.h. Label values come from peers, so their number is bounded: from
 * METRICS_MAX_SERIES on, what is new in a family is counted together under the value "other".
 */
#ifndef PETIOLE_TELEMETRY_METRICS_H
#define PETIOLE_TELEMETRY_METRICS_H

#include <stddef.h>

#include "base/bytes.h"
#include "base/memory.h"

#define METRICS_MAX_SERIES      500
#define METRICS_MAX_LABEL_BYTES 200 /* of one value; longer ones are cut */
#define METRICS_MAX_BUCKETS     32
#define METRICS_MAX_LABELS      3 /* that vary, of a family */

enum metrics_family {
#define METRICS_FAMILY(id, name, type, fixed_label, labels, help) METRICS_##id,
#include "telemetry/metrics_table.h"
#undef METRICS_FAMILY
    METRICS_FAMILY_COUNT
};

struct metrics;

/* Copied by metrics_new. */
struct metrics_options {
    /* the fixed label of celery_ families: the node name after its @ */
    const char *hostname;
    const char *tenant; /* the fixed label of petiole_ families */
    /* ascending upper bounds in seconds, without +Inf; NULL: celery-exporter's */
    const double *runtime_buckets;
    size_t runtime_bucket_count; /* at most METRICS_MAX_BUCKETS */
};

/* Returns new. */
struct metrics *metrics_new(const struct metrics_options *options);

/* Leaves NULL; accepts NULL. */
void metrics_free(struct metrics **metrics);

/* `labels` are the values of the family's further labels, in the table's order; NULL for a family
 * that has none. They are copied. */

/* Adds to a counter; `amount` is not negative. The first of a task's counters brings the others
 * into being at 0, as celery-exporter does, so that rates begin at 0. */
void metrics_add(struct metrics *metrics, enum metrics_family family, const struct bytes *labels,
                 double amount);

/* Sets a gauge. */
void metrics_set(struct metrics *metrics, enum metrics_family family, const struct bytes *labels,
                 double value);

/* Observes a value in a histogram. */
void metrics_observe(struct metrics *metrics, enum metrics_family family,
                     const struct bytes *labels, double value);

/* The value of a counter or gauge, or the number of observations; 0 when there is no such series.
 * For tests. */
double metrics_value(const struct metrics *metrics, enum metrics_family family,
                     const struct bytes *labels);

/* Appends all families that have series, in the table's order; the process_ ones are read now. */
void metrics_write(struct metrics *metrics, struct buffer *buffer);

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
