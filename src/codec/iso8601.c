#include "codec/iso8601.h"

#include <math.h>
#include <stdint.h>

#define SECONDS_PER_DAY 86400
#define END_OF_TIME_S   253402300800.0 /* 10000-01-01, which Python's datetime cannot tell */

struct reader {
    struct bytes rest;
};

static bool read_digits(struct reader *reader, size_t count, int *ret_number)
{
    if (reader->rest.length < count) {
        return false;
    }
    int number = 0;
    for (size_t index = 0; index < count; index++) {
        char digit = reader->rest.data[index];
        if (digit < '0' || digit > '9') {
            return false;
        }
        number = number * 10 + (digit - '0');
    }
    reader->rest = bytes_skip(reader->rest, count);
    *ret_number = number;
    return true;
}

static bool read_byte(struct reader *reader, char byte)
{
    if (reader->rest.length == 0 || reader->rest.data[0] != byte) {
        return false;
    }
    reader->rest = bytes_skip(reader->rest, 1);
    return true;
}

static bool is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* Days since 1970-01-01 of the proleptic Gregorian calendar, by whole 400-year eras from March
 * on. */
static int64_t days_from_date(int year, int month, int day)
{
    int64_t shifted_year = month <= 2 ? year - 1 : year;
    int64_t era = (shifted_year >= 0 ? shifted_year : shifted_year - 399) / 400;
    int64_t year_of_era = shifted_year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
           - 719468;
}

/* 1 (Monday) to 7. */
static int weekday_of(int64_t days)
{
    return (int)(((days + 3) % 7 + 7) % 7) + 1;
}

/* What follows "YYYY-W" or "YYYYW". */
static bool read_week_date(struct reader *reader, int year, bool is_extended, int64_t *ret_days)
{
    int week = 0;
    int weekday = 1;
    if (!read_digits(reader, 2, &week) || week < 1 || week > 53) {
        return false;
    }
    bool has_weekday = is_extended ? read_byte(reader, '-')
                                   : reader->rest.length > 0 && reader->rest.data[0] >= '0'
                                         && reader->rest.data[0] <= '9';
    if (has_weekday && (!read_digits(reader, 1, &weekday) || weekday < 1 || weekday > 7)) {
        return false;
    }
    int64_t fourth = days_from_date(year, 1, 4); /* always in week 1 */
    int days = (week - 1) * 7 + (weekday - 1);
    *ret_days = fourth - (weekday_of(fourth) - 1) + days;
    return true;
}

static size_t count_digits(struct bytes text)
{
    size_t count = 0;
    while (count < text.length && text.data[count] >= '0' && text.data[count] <= '9') {
        count++;
    }
    return count;
}

static bool read_ordinal(struct reader *reader, int year, int64_t *ret_days)
{
    int ordinal = 0;
    if (!read_digits(reader, 3, &ordinal) || ordinal < 1 || ordinal > (is_leap(year) ? 366 : 365)) {
        return false;
    }
    *ret_days = days_from_date(year, 1, 1) + ordinal - 1;
    return true;
}

/* `ret_complete`: down to the day; only then may a time follow. */
static bool read_date(struct reader *reader, int64_t *ret_days, bool *ret_complete)
{
    int year = 0;
    int month = 1;
    int day = 1;
    if (!read_digits(reader, 4, &year) || year < 1) {
        return false;
    }
    *ret_complete = true;
    bool is_extended = read_byte(reader, '-');
    if (read_byte(reader, 'W')) {
        return read_week_date(reader, year, is_extended, ret_days);
    }
    size_t digits = count_digits(reader->rest);
    if (digits == 3) {
        return read_ordinal(reader, year, ret_days);
    }
    if (is_extended ? digits != 2 : digits != 0 && digits != 4) {
        return false;
    }
    if (digits > 0 && (!read_digits(reader, 2, &month) || month < 1 || month > 12)) {
        return false;
    }
    bool has_day = is_extended ? read_byte(reader, '-') : digits == 4;
    if (has_day && (!read_digits(reader, 2, &day) || day < 1 || day > days_in_month(year, month))) {
        return false;
    }
    *ret_days = days_from_date(year, month, day);
    *ret_complete = has_day;
    return true;
}

/* A fraction of a second: one digit or more, those after the sixth ignored. */
static bool read_fraction(struct reader *reader, double *ret_fraction)
{
    static const double units[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    size_t digits = count_digits(reader->rest);
    size_t counted = digits < 6 ? digits : 6;
    int number = 0;
    if (digits == 0 || !read_digits(reader, counted, &number)) {
        return false;
    }
    reader->rest = bytes_skip(reader->rest, digits - counted);
    *ret_fraction = number / units[counted];
    return true;
}

/* What follows "hh:" ("mm", "mm:ss", "mm:ss.f") or "hh" ("mm", "mmss", "mmss.f"). */
static bool read_in_hour(struct reader *reader, bool is_extended, double *ret_seconds)
{
    int minute = 0;
    int second = 0;
    double fraction = 0;
    if (!read_digits(reader, 2, &minute) || minute > 59) {
        return false;
    }
    if (is_extended ? read_byte(reader, ':') : count_digits(reader->rest) > 0) {
        if (!read_digits(reader, 2, &second) || second > 59) {
            return false;
        }
        bool has_fraction = read_byte(reader, '.') || read_byte(reader, ',');
        if (has_fraction && !read_fraction(reader, &fraction)) {
            return false;
        }
    }
    *ret_seconds = minute * 60 + second + fraction;
    return true;
}

static bool read_time(struct reader *reader, double *ret_seconds)
{
    int hour = 0;
    double in_hour = 0;
    if (!read_digits(reader, 2, &hour) || hour > 24) {
        return false;
    }
    bool is_extended = read_byte(reader, ':');
    if ((is_extended || count_digits(reader->rest) > 0)
        && !read_in_hour(reader, is_extended, &in_hour)) {
        return false;
    }
    *ret_seconds = hour * 3600 + in_hour;
    return hour < 24 || *ret_seconds <= SECONDS_PER_DAY;
}

static bool read_offset(struct reader *reader, int *ret_seconds)
{
    *ret_seconds = 0;
    if (reader->rest.length == 0) {
        return true;
    }
    if (read_byte(reader, 'Z') || read_byte(reader, 'z')) {
        return true;
    }
    int sign = read_byte(reader, '-') ? -1 : 1;
    if (sign > 0 && !read_byte(reader, '+')) {
        return false;
    }
    int hours = 0;
    int minutes = 0;
    if (!read_digits(reader, 2, &hours) || hours > 23) {
        return false;
    }
    if (reader->rest.length > 0) {
        (void)read_byte(reader, ':');
        if (!read_digits(reader, 2, &minutes) || minutes > 59) {
            return false;
        }
    }
    *ret_seconds = sign * (hours * 3600 + minutes * 60);
    return true;
}

bool iso8601_parse(struct bytes text, double *ret_wall_s)
{
    struct reader reader = {text};
    int64_t days = 0;
    double seconds = 0;
    int offset_s = 0;
    bool is_complete = false;
    if (!read_date(&reader, &days, &is_complete)) {
        return false;
    }
    if (reader.rest.length > 0 && is_complete) {
        reader.rest = bytes_skip(reader.rest, 1); /* any single separator, as isoparse */
        if (!read_time(&reader, &seconds) || !read_offset(&reader, &offset_s)) {
            return false;
        }
    }
    if (reader.rest.length > 0 || (double)days * SECONDS_PER_DAY + seconds >= END_OF_TIME_S) {
        return false;
    }
    *ret_wall_s = (double)days * SECONDS_PER_DAY + seconds - offset_s;
    return true;
}

/* The inverse of days_from_date. */
static void date_from_days(int64_t days, int *ret_year, int *ret_month, int *ret_day)
{
    int64_t shifted = days + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int64_t day_of_era = shifted - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_index = (5 * day_of_year + 2) / 153;
    *ret_day = (int)(day_of_year - (153 * month_index + 2) / 5 + 1);
    *ret_month = (int)(month_index < 10 ? month_index + 3 : month_index - 9);
    *ret_year = (int)(year_of_era + era * 400 + (*ret_month <= 2 ? 1 : 0));
}

void iso8601_append(struct buffer *buffer, double wall_s, int offset_s)
{
    int64_t microseconds = (int64_t)llround(wall_s * 1e6) + (int64_t)offset_s * 1000000;
    int64_t day_us = (int64_t)SECONDS_PER_DAY * 1000000;
    int64_t days = microseconds / day_us - (microseconds % day_us < 0 ? 1 : 0);
    int64_t in_day = microseconds - days * day_us;
    int year = 0;
    int month = 0;
    int day = 0;
    date_from_days(days, &year, &month, &day);
    int seconds = (int)(in_day / 1000000);
    int fraction = (int)(in_day % 1000000);
    (void)buffer_format(buffer, "%04d-%02d-%02dT%02d:%02d:%02d", year, month, day, seconds / 3600,
                        seconds / 60 % 60, seconds % 60);
    if (fraction > 0) {
        (void)buffer_format(buffer, ".%06d", fraction);
    }
    int offset = offset_s < 0 ? -offset_s : offset_s;
    (void)buffer_format(buffer, "%c%02d:%02d", offset_s < 0 ? '-' : '+', offset / 3600,
                        offset / 60 % 60);
}
