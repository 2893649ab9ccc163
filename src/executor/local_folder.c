#include "executor/local_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER_MODE     0700
#define FILE_MODE       0600
#define MAX_DESCRIPTORS 16 /* that nftw may hold open */
#define REASON_SIZE     128

/* Always false, with errno's text. */
static bool fail_with_errno(struct error *reterr, const char *what, const char *path)
{
    char reason[REASON_SIZE];
    return error_set(reterr, ERROR_TEMPORARY, "%s %s: %s", what, path,
                     strerror_r(errno, reason, sizeof(reason)));
}

static bool make_one(const char *path, struct error *reterr)
{
    if (mkdir(path, FOLDER_MODE) == 0 || errno == EEXIST) {
        return true;
    }
    return fail_with_errno(reterr, "cannot make the folder", path);
}

bool local_folder_make(const char *path, struct error *reterr)
{
    char *part CLEANUP(memory_free_at) = memory_text(bytes_from_text(path));
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool is_made = make_one(part, reterr);
        *slash = '/';
        if (!is_made) {
            return false;
        }
    }
    return make_one(part, reterr);
}

static bool write_all(int descriptor, struct bytes content)
{
    while (content.length > 0) {
        ssize_t written = write(descriptor, content.data, content.length);
        if (written < 0 && errno != EINTR) {
            return false;
        }
        content = bytes_skip(content, written > 0 ? (size_t)written : 0);
    }
    return true;
}

static bool write_file(const struct local_plan_file *file, struct error *reterr)
{
    int descriptor = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
    if (descriptor < 0) {
        return fail_with_errno(reterr, "cannot make the file", file->path);
    }
    bool is_written = write_all(descriptor, file->content);
    if (!is_written) {
        (void)fail_with_errno(reterr, "cannot write the file", file->path);
    }
    (void)close(descriptor);
    return is_written;
}

bool local_folder_fill(const struct local_plan *plan, const char *log_path, int *ret_log_descriptor,
                       struct error *reterr)
{
    for (const char *const *folder = plan->folders; *folder; folder++) {
        if (!local_folder_make(*folder, reterr)) {
            return false;
        }
    }
    for (size_t i = 0; i < plan->file_count; i++) {
        if (!write_file(&plan->files[i], reterr)) {
            return false;
        }
    }
    int descriptor = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, FILE_MODE);
    if (descriptor < 0) {
        return fail_with_errno(reterr, "cannot open the log", log_path);
    }
    *ret_log_descriptor = descriptor;
    return true;
}

/* Reads `length` bytes from `offset` on; shorter when the file is. */
static struct bytes read_range(int descriptor, off_t offset, size_t length, struct arena *arena)
{
    char *data = arena_alloc(arena, length + 1);
    size_t done = 0;
    while (done < length) {
        ssize_t count = pread(descriptor, data + done, length - done, offset + (off_t)done);
        if (count == 0 || (count < 0 && errno != EINTR)) {
            break;
        }
        done += count > 0 ? (size_t)count : 0;
    }
    return bytes_of(data, done);
}

struct bytes local_folder_read_end(const char *path, size_t max_bytes, struct arena *arena)
{
    struct bytes content = {NULL, 0};
    struct stat status;
    /* Not to wait for the other end of a pipe that a task may have put there. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (descriptor < 0) {
        return content;
    }
    if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) {
        bool is_longer = (uintmax_t)status.st_size > max_bytes;
        size_t length = is_longer ? max_bytes : (size_t)status.st_size;
        content = read_range(descriptor, status.st_size - (off_t)length, length, arena);
    }
    (void)close(descriptor);
    return content;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    (void)remove(path);
    return 0;
}

void local_folder_remove(const char *path)
{
    /* Without FTW_CHDIR it keeps to its own thread. */
    /* NOLINTNEXTLINE(concurrency-mt-unsafe) */
    (void)nftw(path, remove_one, MAX_DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
}
