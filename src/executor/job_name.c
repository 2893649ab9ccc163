#include "executor/job_name.h"

#include <inttypes.h>
#include <openssl/sha.h>

#define SLUG_LENGTH       12
#define HASH_DIGITS       32
#define UUID_LENGTH       36
#define NUMBERS_SIZE      80 /* three 64-bit numbers with signs and marks */
#define CHARACTER_IS_DASH (-1)

/* The character of a DNS label for `byte`, or CHARACTER_IS_DASH. Locales have no say. */
static int label_character(char byte)
{
    if (byte >= 'A' && byte <= 'Z') {
        return byte - 'A' + 'a';
    }
    if ((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9')) {
        return byte;
    }
    return CHARACTER_IS_DASH;
}

static struct bytes last_part(struct bytes task)
{
    size_t start = task.length;
    while (start > 0 && task.data[start - 1] != '.') {
        start--;
    }
    return bytes_skip(task, start);
}

static void format_slug(struct bytes task, char ret_slug[SLUG_LENGTH + 1])
{
    struct bytes part = last_part(task);
    size_t length = 0;
    for (size_t i = 0; i < part.length && length < SLUG_LENGTH; i++) {
        int character = label_character(part.data[i]);
        if (character != CHARACTER_IS_DASH) {
            ret_slug[length++] = (char)character;
        } else if (length > 0) {
            ret_slug[length++] = '-';
        }
    }
    while (length > 0 && ret_slug[length - 1] == '-') {
        length--;
    }
    ret_slug[length] = '\0';
    if (length == 0) {
        memcpy(ret_slug, "task", sizeof("task"));
    }
}

static bool is_lower_case_uuid(struct bytes id)
{
    if (id.length != UUID_LENGTH) {
        return false;
    }
    for (size_t i = 0; i < id.length; i++) {
        char byte = id.data[i];
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool is_hex = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f');
        if (is_dash ? byte != '-' : !is_hex) {
            return false;
        }
    }
    return true;
}

static void format_digest(const unsigned char digest[SHA256_DIGEST_LENGTH],
                          char ret_text[HASH_DIGITS + 1])
{
    for (size_t i = 0; i < HASH_DIGITS / 2; i++) {
        (void)snprintf(ret_text + 2 * i, 3, "%02x", (unsigned)digest[i]);
    }
}

static void format_id(struct bytes id, char ret_id[UUID_LENGTH + 1])
{
    if (is_lower_case_uuid(id)) {
        memcpy(ret_id, id.data, UUID_LENGTH);
        ret_id[UUID_LENGTH] = '\0';
        return;
    }
    unsigned char digest[SHA256_DIGEST_LENGTH];
    (void)SHA256((const unsigned char *)(id.data ? id.data : ""), id.length, digest);
    format_digest(digest, ret_id);
}

static void format_numbers(const struct message *message, unsigned attempt,
                           char ret_numbers[NUMBERS_SIZE])
{
    int length = snprintf(ret_numbers, NUMBERS_SIZE, "%" PRId64, message->retries);
    if (message->replaced_task_nesting != 0) {
        length += snprintf(ret_numbers + length, NUMBERS_SIZE - (size_t)length, "-n%" PRId64,
                           message->replaced_task_nesting);
    }
    if (attempt != 0) {
        (void)snprintf(ret_numbers + length, NUMBERS_SIZE - (size_t)length, "-a%u", attempt);
    }
}

static void format_hashed(const char *slug, const char *id, const char *numbers,
                          char ret_name[JOB_NAME_SIZE])
{
    char text[UUID_LENGTH + NUMBERS_SIZE + 2];
    int length = snprintf(text, sizeof(text), "%s-%s", id, numbers);
    unsigned char digest[SHA256_DIGEST_LENGTH];
    (void)SHA256((const unsigned char *)text, (size_t)length, digest);
    char hash[HASH_DIGITS + 1];
    format_digest(digest, hash);
    (void)snprintf(ret_name, JOB_NAME_SIZE, "%s-%s", slug, hash);
}

void job_name_format(const struct message *message, unsigned attempt, char ret_name[JOB_NAME_SIZE])
{
    char slug[SLUG_LENGTH + 1];
    char id[UUID_LENGTH + 1];
    char numbers[NUMBERS_SIZE];
    format_slug(message->task, slug);
    format_id(message->id, id);
    format_numbers(message, attempt, numbers);
    int length = snprintf(ret_name, JOB_NAME_SIZE, "%s-%s-%s", slug, id, numbers);
    if (length >= JOB_NAME_SIZE) {
        format_hashed(slug, id, numbers, ret_name);
    }
}

void job_name_id(struct bytes id, char ret_id[JOB_NAME_ID_SIZE])
{
    format_id(id, ret_id);
}

bool job_name_is_of(const char *name, const char *id)
{
    const char *place = strstr(name, id);
    return place && place > name && place[-1] == '-' && place[strlen(id)] == '-';
}
