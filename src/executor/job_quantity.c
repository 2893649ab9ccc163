#include "executor/job_quantity.h"

#include <inttypes.h>

#define FRACTION_DIGITS 9
#define FRACTION_WHOLE  INT64_C(1000000000)
#define MILLI           1000
#define MAX_EXPONENT    30
#define DECIMAL_BASE    10
#define BINARY_BITS     10 /* of each step from Ki to Ei */
#define NUMBER_BYTES    32

/* A number that is not negative: whole + fraction / FRACTION_WHOLE. Too large a one stays at
 * INT64_MAX. */
struct fixed {
    int64_t whole;
    int64_t fraction;
};

static void multiply(struct fixed *number, int64_t factor)
{
    int64_t fraction = number->fraction * factor;
    int64_t carry = fraction / FRACTION_WHOLE;
    if (number->whole > (INT64_MAX - carry) / factor) {
        *number = (struct fixed){INT64_MAX, 0};
        return;
    }
    number->whole = number->whole * factor + carry;
    number->fraction = fraction % FRACTION_WHOLE;
}

/* Rounds up what is lost. */
static void divide_by_ten(struct fixed *number)
{
    if (number->whole == INT64_MAX) {
        return;
    }
    int64_t rest = number->fraction + (number->whole % DECIMAL_BASE) * FRACTION_WHOLE;
    number->whole /= DECIMAL_BASE;
    number->fraction = (rest + DECIMAL_BASE - 1) / DECIMAL_BASE;
    if (number->fraction == FRACTION_WHOLE) {
        number->whole++;
        number->fraction = 0;
    }
}

static void scale_by_ten(struct fixed *number, int exponent)
{
    for (; exponent > 0; exponent--) {
        multiply(number, DECIMAL_BASE);
    }
    for (; exponent < 0; exponent++) {
        divide_by_ten(number);
    }
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* Reads digits, with a point among them or not, from the start of `text`; gives how many bytes
 * that were, 0 for none. */
static size_t read_digits(struct bytes text, struct fixed *number)
{
    size_t position = 0;
    size_t digits = 0;
    for (; position < text.length && is_digit(text.data[position]); position++, digits++) {
        multiply(number, DECIMAL_BASE);
        number->whole += number->whole < INT64_MAX - DECIMAL_BASE ? text.data[position] - '0' : 0;
    }
    if (position == text.length || text.data[position] != '.') {
        return position;
    }
    position++;
    int64_t unit = FRACTION_WHOLE;
    bool has_more = false;
    for (; position < text.length && is_digit(text.data[position]); position++, digits++) {
        unit /= DECIMAL_BASE;
        number->fraction += unit * (text.data[position] - '0');
        has_more = has_more || (unit == 0 && text.data[position] != '0');
    }
    number->fraction += has_more ? 1 : 0;
    if (number->fraction == FRACTION_WHOLE) {
        number->whole++;
        number->fraction = 0;
    }
    return digits > 0 ? position : 0;
}

static bool apply_exponent(struct bytes digits, struct fixed *number)
{
    bool is_negative = digits.length > 0 && digits.data[0] == '-';
    if (is_negative || (digits.length > 0 && digits.data[0] == '+')) {
        digits = bytes_skip(digits, 1);
    }
    int exponent = 0;
    for (size_t i = 0; i < digits.length; i++) {
        if (!is_digit(digits.data[i])) {
            return false;
        }
        exponent = exponent * DECIMAL_BASE + (digits.data[i] - '0');
        exponent = exponent > MAX_EXPONENT ? MAX_EXPONENT : exponent;
    }
    scale_by_ten(number, is_negative ? -exponent : exponent);
    return digits.length > 0;
}

static bool apply_suffix(struct bytes suffix, struct fixed *number)
{
    static const struct {
        const char *name;
        int decimal;
        int binary;
    } suffixes[] = {
        {"", 0, 0},   {"n", -9, 0}, {"u", -6, 0}, {"m", -3, 0}, {"k", 3, 0},  {"M", 6, 0},
        {"G", 9, 0},  {"T", 12, 0}, {"P", 15, 0}, {"E", 18, 0}, {"Ki", 0, 1}, {"Mi", 0, 2},
        {"Gi", 0, 3}, {"Ti", 0, 4}, {"Pi", 0, 5}, {"Ei", 0, 6},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(suffixes); i++) {
        if (bytes_equal_text(suffix, suffixes[i].name)) {
            scale_by_ten(number, suffixes[i].decimal);
            for (int step = 0; step < suffixes[i].binary; step++) {
                multiply(number, INT64_C(1) << BINARY_BITS);
            }
            return true;
        }
    }
    bool is_exponent = suffix.data[0] == 'e' || suffix.data[0] == 'E';
    return is_exponent && apply_exponent(bytes_skip(suffix, 1), number);
}

bool job_quantity_parse(struct bytes text, int64_t *ret_milli)
{
    struct fixed number = {0, 0};
    if (text.length > 0 && text.data[0] == '+') {
        text = bytes_skip(text, 1);
    }
    size_t length = read_digits(text, &number);
    if (length == 0) {
        return false;
    }
    multiply(&number, MILLI);
    if (!apply_suffix(bytes_skip(text, length), &number)) {
        return false;
    }
    bool rounds_up = number.fraction > 0 && number.whole < INT64_MAX;
    *ret_milli = number.whole + (rounds_up ? 1 : 0);
    return true;
}

static int64_t add(int64_t left, int64_t right)
{
    return left > INT64_MAX - right ? INT64_MAX : left + right;
}

int64_t job_quantity_of(const json_t *value)
{
    int64_t milli = 0;
    if (json_is_string(value)) {
        struct bytes text = bytes_of(json_string_value(value), json_string_length(value));
        return job_quantity_parse(text, &milli) ? milli : 0;
    }
    char number[NUMBER_BYTES] = "";
    if (json_is_integer(value)) {
        (void)snprintf(number, sizeof(number), "%" PRId64, (int64_t)json_integer_value(value));
    } else if (json_is_real(value)) {
        (void)snprintf(number, sizeof(number), "%.9f", json_real_value(value));
    }
    return job_quantity_parse(bytes_from_text(number), &milli) ? milli : 0;
}

static int64_t of_container(const json_t *container, const char *kind, const char *name)
{
    const json_t *resources = json_object_get(container, "resources");
    const json_t *value = json_object_get(json_object_get(resources, kind), name);
    if (!value && strcmp(kind, "requests") == 0) {
        value = json_object_get(json_object_get(resources, "limits"), name);
    }
    return job_quantity_of(value);
}

/* An init container that goes on running beside the others (a sidecar). */
static bool is_sidecar(const json_t *container)
{
    const char *policy = json_string_value(json_object_get(container, "restartPolicy"));
    return policy && strcmp(policy, "Always") == 0;
}

static int64_t of_pod(const json_t *spec, const char *kind, const char *name)
{
    int64_t running = 0;
    int64_t starting = 0;
    size_t index = 0;
    const json_t *container = NULL;
    const json_t *resources = json_object_get(spec, "resources");
    const json_t *whole = json_object_get(json_object_get(resources, kind), name);
    if (whole) {
        return job_quantity_of(whole); /* said for the pod as a whole */
    }
    json_array_foreach(json_object_get(spec, "initContainers"), index, container) {
        int64_t milli = of_container(container, kind, name);
        if (is_sidecar(container)) {
            running = add(running, milli);
        } else if (add(running, milli) > starting) {
            starting = add(running, milli);
        }
    }
    json_array_foreach(json_object_get(spec, "containers"), index, container) {
        running = add(running, of_container(container, kind, name));
    }
    return running > starting ? running : starting;
}

int64_t job_quantity_of_job(const json_t *job, const char *resource)
{
    static const char *const counted_once[] = {"pods", "count/pods", "count/jobs.batch"};
    for (size_t i = 0; i < ARRAY_LENGTH(counted_once); i++) {
        if (strcmp(resource, counted_once[i]) == 0) {
            return MILLI;
        }
    }
    const json_t *spec =
        json_object_get(json_object_get(json_object_get(job, "spec"), "template"), "spec");
    struct bytes name = bytes_from_text(resource);
    if (bytes_starts_with(name, BYTES("limits."))) {
        return of_pod(spec, "limits", resource + strlen("limits."));
    }
    if (bytes_starts_with(name, BYTES("requests."))) {
        return of_pod(spec, "requests", resource + strlen("requests."));
    }
    return of_pod(spec, "requests", resource);
}

void job_quantity_format(const char *resource, int64_t milli, char ret_text[JOB_QUANTITY_TEXT_SIZE])
{
    static const char suffixes[] = "KMGTPE";
    bool is_of_bytes =
        strstr(resource, "memory") || strstr(resource, "storage") || strstr(resource, "hugepages");
    if (milli % MILLI != 0) {
        (void)snprintf(ret_text, JOB_QUANTITY_TEXT_SIZE, "%" PRId64 "m", milli);
        return;
    }
    int64_t whole = milli / MILLI;
    int step = 0;
    while (is_of_bytes && whole != 0 && whole % (INT64_C(1) << BINARY_BITS) == 0
           && suffixes[step] != '\0') {
        whole >>= BINARY_BITS;
        step++;
    }
    if (step > 0) {
        (void)snprintf(ret_text, JOB_QUANTITY_TEXT_SIZE, "%" PRId64 "%ci", whole,
                       suffixes[step - 1]);
    } else {
        (void)snprintf(ret_text, JOB_QUANTITY_TEXT_SIZE, "%" PRId64, whole);
    }
}
