#include "worker/settings_names.h"

#include <ctype.h>

#include "worker/settings.h"

#define MAX_NAME_BYTES 80
#define MAX_NEAREST    3

/* Old names whose new one does not follow from them. */
static const struct {
    const char *old;
    const char *modern;
} renamed[] = {
    {"CELERY_MESSAGE_COMPRESSION", "task_compression"},
    {"CELERY_TASK_RESULT_EXPIRES", "result_expires"},
    {"CELERY_MAX_CACHED_RESULTS", "result_cache_max"},
    {"CELERY_EAGER_PROPAGATES_EXCEPTIONS", "task_eager_propagates"},
    {"CELERY_SEND_TASK_SENT_EVENT", "task_send_sent_event"},
    {"CELERY_SEND_EVENTS", "worker_send_task_events"},
};

/* `view` in lower case behind `prefix`, looked up among the settings. */
static const struct setting_row *find_with_prefix(const char *prefix, struct bytes view)
{
    char name[MAX_NAME_BYTES];
    int written = snprintf(name, sizeof(name), "%s%.*s", prefix, BYTES_FORMAT(view));
    if (written < 0 || (size_t)written >= sizeof(name)) {
        return NULL;
    }
    for (char *letter = name; *letter; letter++) {
        *letter = (char)tolower((unsigned char)*letter);
    }
    return settings_find_row(bytes_from_text(name));
}

static bool is_upper_case(struct bytes name)
{
    for (size_t index = 0; index < name.length; index++) {
        if (islower((unsigned char)name.data[index])) {
            return false;
        }
    }
    return name.length > 0;
}

/* What follows CELERY_, CELERYD_ or CELERYBEAT_ in `name`, or all of it. */
static struct bytes without_brand(struct bytes name)
{
    static const char *const brands[] = {"CELERY_", "CELERYD_", "CELERYBEAT_"};
    for (size_t index = 0; index < ARRAY_LENGTH(brands); index++) {
        struct bytes brand = bytes_from_text(brands[index]);
        if (bytes_starts_with(name, brand)) {
            return bytes_skip(name, brand.length);
        }
    }
    return name;
}

const char *settings_names_modern(struct bytes name)
{
    static const char *const sections[] = {"", "task_", "worker_", "beat_", "result_"};
    if (!is_upper_case(name)) {
        return NULL;
    }
    for (size_t index = 0; index < ARRAY_LENGTH(renamed); index++) {
        if (bytes_equal_text(name, renamed[index].old)) {
            return renamed[index].modern;
        }
    }
    struct bytes core = without_brand(name);
    bool is_beat = bytes_starts_with(name, BYTES("CELERYBEAT_"));
    for (size_t index = 0; index < ARRAY_LENGTH(sections); index++) {
        const struct setting_row *row = find_with_prefix(is_beat ? "beat_" : sections[index], core);
        if (row) {
            return row->name;
        }
    }
    return NULL;
}

static size_t smaller(size_t left, size_t right)
{
    return left < right ? left : right;
}

/* How many letters must be changed, added or removed to make `right` of `left` (Levenshtein). */
static size_t distance(struct bytes left, struct bytes right)
{
    size_t row[MAX_NAME_BYTES + 1];
    if (left.length > MAX_NAME_BYTES || right.length > MAX_NAME_BYTES) {
        return SIZE_MAX;
    }
    for (size_t column = 0; column <= right.length; column++) {
        row[column] = column;
    }
    for (size_t line = 1; line <= left.length; line++) {
        size_t diagonal = row[0];
        row[0] = line;
        for (size_t column = 1; column <= right.length; column++) {
            size_t above = row[column];
            size_t change = diagonal + (left.data[line - 1] == right.data[column - 1] ? 0 : 1);
            row[column] = smaller(change, 1 + smaller(above, row[column - 1]));
            diagonal = above;
        }
    }
    return row[right.length];
}

struct guess {
    const char *name;
    size_t distance;
};

/* Puts `guess` among the nearest, which are in order. */
static void keep_guess(struct guess *nearest, struct guess guess)
{
    for (size_t index = 0; index < MAX_NEAREST; index++) {
        if (!nearest[index].name || guess.distance < nearest[index].distance) {
            struct guess pushed = nearest[index];
            nearest[index] = guess;
            guess = pushed;
        }
        if (!guess.name) {
            return;
        }
    }
}

void settings_names_append_nearest(struct buffer *buffer, const char *prefix, struct bytes name,
                                   const char *const *names, size_t count, size_t stride)
{
    struct guess nearest[MAX_NEAREST] = {{NULL, 0}};
    for (size_t index = 0; index < count; index++) {
        const char *candidate =
            *(const char *const *)(const void *)((const char *)names + index * stride);
        struct guess guess = {candidate, distance(name, bytes_from_text(candidate))};
        if (guess.distance <= 1 + name.length / 4) {
            keep_guess(nearest, guess);
        }
    }
    for (size_t index = 0; index < MAX_NEAREST && nearest[index].name; index++) {
        (void)buffer_format(buffer, "%s%s%s", index == 0 ? ", did you mean " : " or ", prefix,
                            nearest[index].name);
    }
    if (nearest[0].name) {
        (void)buffer_append_text(buffer, "?");
    }
}
