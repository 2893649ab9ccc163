/*
 * Times as text on the wire. Reads what dateutil's isoparse reads, since that is what Celery's
 * worker uses (celery/utils/iso8601.py, celery/utils/time.py: maybe_iso8601): calendar, week and
 * ordinal dates, basic and extended form, fractions with a point or a comma, 24:00, Z and offsets.
 * Pure.
 */
#ifndef PETIOLE_CODEC_ISO8601_H
#define PETIOLE_CODEC_ISO8601_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/memory.h"

/* Reads `text` as seconds since 1970. Without an offset it is UTC (celery/utils/time.py:
 * maybe_make_aware with naive_as_utc). False when it is no date. */
bool iso8601_parse(struct bytes text, double *ret_wall_s) MUST_CHECK;

/* Appends datetime.isoformat() of `wall_s` in a zone `offset_s` east of UTC: microseconds unless
 * they are zero, offset as +08:00. */
void iso8601_append(struct buffer *buffer, double wall_s, int offset_s);

#endif
