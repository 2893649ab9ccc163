#include "base/timezone.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/memory.h"

#define DAY_S          86400
#define DAYS_BEHIND    2
#define DAYS_AHEAD     (12 * 366)
#define ZONE_DIRECTORY "/usr/share/zoneinfo/"

static int offset_at(int64_t time_s)
{
    time_t time = (time_t)time_s;
    struct tm local;
    (void)localtime_r(&time, &local);
    return (int)local.tm_gmtoff;
}

/* The first second in (`low_s`, `high_s`] at which the offset is not that of low_s. */
static int64_t find_change(int64_t low_s, int64_t high_s)
{
    int before = offset_at(low_s);
    while (high_s - low_s > 1) {
        int64_t middle_s = low_s + (high_s - low_s) / 2;
        if (offset_at(middle_s) == before) {
            low_s = middle_s;
        } else {
            high_s = middle_s;
        }
    }
    return high_s;
}

static void fill(struct timezone_table *table, int64_t now_s)
{
    int64_t day_s = now_s - (int64_t)DAYS_BEHIND * DAY_S;
    *table = (struct timezone_table){.count = 1};
    table->changes[0] = (struct timezone_change){INT64_MIN, offset_at(day_s)};
    for (int day = 0; day < DAYS_AHEAD && table->count < TIMEZONE_MAX_CHANGES;
         day++, day_s += DAY_S) {
        if (offset_at(day_s) != offset_at(day_s + DAY_S)) {
            int64_t change_s = find_change(day_s, day_s + DAY_S);
            table->changes[table->count++] =
                (struct timezone_change){change_s, offset_at(change_s)};
        }
    }
}

/* Whether the system has a zone file of that name: they begin with "TZif" (RFC 9636). */
static bool is_zone(const char *name)
{
    char path[256];
    char magic[4] = {0};
    int length = snprintf(path, sizeof(path), ZONE_DIRECTORY "%s", name);
    if (length < 0 || (size_t)length >= sizeof(path) || strstr(name, "..") || name[0] == '/') {
        return false;
    }
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    bool is_read = read(file, magic, sizeof(magic)) == (ssize_t)sizeof(magic);
    (void)close(file);
    return is_read && memcmp(magic, "TZif", sizeof(magic)) == 0;
}

bool timezone_load(const char *name, int64_t now_s, struct timezone_table *ret_table,
                   struct error *reterr)
{
    if (strcasecmp(name, "UTC") == 0) {
        *ret_table = (struct timezone_table){.changes = {{INT64_MIN, 0}}, .count = 1};
        return true;
    }
    if (!is_zone(name)) {
        return error_set(reterr, ERROR_INVALID,
                         "this system has no time zone %s: is the package tzdata installed?", name);
    }
    const char *old = getenv("TZ"); // NOLINT(concurrency-mt-unsafe): before threads
    char *saved CLEANUP(memory_free_at) = old ? memory_text(bytes_from_text(old)) : NULL;
    (void)setenv("TZ", name, 1); // NOLINT(concurrency-mt-unsafe)
    tzset();
    fill(ret_table, now_s);
    if (saved) {
        (void)setenv("TZ", saved, 1); // NOLINT(concurrency-mt-unsafe)
    } else {
        (void)unsetenv("TZ"); // NOLINT(concurrency-mt-unsafe)
    }
    tzset();
    return true;
}

int timezone_offset_s(const struct timezone_table *table, double wall_s)
{
    int index = table->count - 1;
    while (index > 0 && (double)table->changes[index].from_s > wall_s) {
        index--;
    }
    return table->changes[index].offset_s;
}
