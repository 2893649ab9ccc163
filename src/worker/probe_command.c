#include "worker/probe_command.h"

#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "worker/run_dir.h"

#define TIMEOUT_S        3
#define MAX_ANSWER_BYTES 4096
#define MAX_WORKERS      64

struct probe {
    const char *path; /* "/livez" */
    struct arena *arena;
    int well_count;
    int unwell_count;
};

static void set_timeouts(int descriptor)
{
    const struct timeval timeout = {.tv_sec = TIMEOUT_S};
    (void)setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    (void)setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

/* Connects, or returns -1 with errno. */
static int connect_place(int family, const struct sockaddr *place, socklen_t size)
{
    int descriptor = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) {
        return -1;
    }
    set_timeouts(descriptor);
    if (connect(descriptor, place, size) != 0) {
        int code = errno == EINPROGRESS ? ETIMEDOUT : errno;
        (void)close(descriptor);
        errno = code;
        return -1;
    }
    return descriptor;
}

static int connect_unix(const char *path)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(place.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    (void)snprintf(place.sun_path, sizeof(place.sun_path), "%s", path);
    return connect_place(AF_UNIX, (const struct sockaddr *)&place, sizeof(place));
}

/* Cuts "host:port"; an address that a server listens on everywhere is asked on this machine. */
static bool split_address(struct arena *arena, const char *address, const char **ret_host,
                          const char **ret_port)
{
    const char *colon = strrchr(address, ':');
    if (!colon || colon[1] == '\0') {
        return false;
    }
    struct bytes host = bytes_of(address, (size_t)(colon - address));
    if (host.length >= 2 && host.data[0] == '[' && host.data[host.length - 1] == ']') {
        host = bytes_of(host.data + 1, host.length - 2);
    }
    *ret_host = arena_text(arena, host);
    if (host.length == 0 || bytes_equal_text(host, "*") || bytes_equal_text(host, "0.0.0.0")) {
        *ret_host = "127.0.0.1";
    } else if (bytes_equal_text(host, "::")) {
        *ret_host = "::1";
    }
    *ret_port = colon + 1;
    return true;
}

static int connect_tcp(struct arena *arena, const char *address)
{
    const char *host = NULL;
    const char *port = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *places = NULL;
    if (!split_address(arena, address, &host, &port)
        || getaddrinfo(host, port, &hints, &places) != 0) {
        errno = EINVAL;
        return -1;
    }
    int descriptor = connect_place(places->ai_family, places->ai_addr, places->ai_addrlen);
    int code = errno;
    freeaddrinfo(places);
    errno = code;
    return descriptor;
}

/* Reads the whole answer, as far as it fits. */
static size_t read_answer(int descriptor, char *text, size_t size)
{
    size_t length = 0;
    ssize_t count = 0;
    while (length + 1 < size
           && (count = recv(descriptor, text + length, size - 1 - length, 0)) > 0) {
        length += (size_t)count;
    }
    text[length] = '\0';
    return length;
}

/* Whether the worker at an open connection says that it is well; else says on stderr what is wrong.
 */
static bool ask(const struct probe *probe, int descriptor, const char *address)
{
    char text[MAX_ANSWER_BYTES];
    const char *request =
        arena_format(probe->arena, "GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n", probe->path);
    if (send(descriptor, request, strlen(request), MSG_NOSIGNAL) < 0
        || read_answer(descriptor, text, sizeof(text)) == 0) {
        (void)fprintf(stderr, "petiole: %s does not answer within %d s\n", address, TIMEOUT_S);
        return false;
    }
    if (strncmp(text, "HTTP/1.1 200 ", 13) == 0 || strncmp(text, "HTTP/1.0 200 ", 13) == 0) {
        return true;
    }
    const char *body = strstr(text, "\r\n\r\n");
    (void)fprintf(stderr, "petiole: %s: %.*s\n", address,
                  body ? (int)strcspn(body + 4, "\n") : (int)strcspn(text, "\r\n"),
                  body ? body + 4 : text);
    return false;
}

static void probe_address(struct probe *probe, const char *address, bool may_be_absent)
{
    bool is_unix = strncmp(address, "unix:", 5) == 0;
    int descriptor = is_unix ? connect_unix(address + 5) : connect_tcp(probe->arena, address);
    if (descriptor < 0) {
        if (!may_be_absent) {
            (void)fprintf(stderr, "petiole: nothing answers at %s: %s\n", address,
                          strerrordesc_np(errno));
            probe->unwell_count++;
        }
        return;
    }
    bool is_well = ask(probe, descriptor, address);
    (void)close(descriptor);
    if (is_well) {
        probe->well_count++;
    } else {
        probe->unwell_count++;
    }
}

static bool is_socket_name(const char *name)
{
    size_t length = strlen(name);
    return length > 5 && strcmp(name + length - 5, ".sock") == 0;
}

/* Asks every worker of a run directory. A socket that nobody serves was left by a worker that was
 * killed. */
static void probe_folder(struct probe *probe, const char *path)
{
    DIR *folder = run_dir_is_ours(path) ? opendir(path) : NULL;
    const struct dirent *entry = NULL;
    int count = 0;
    if (!folder) {
        return;
    }
    while (count < MAX_WORKERS
           && (entry = readdir(folder)) != NULL) { /* NOLINT(concurrency-mt-unsafe): one thread */
        if (is_socket_name(entry->d_name)) {
            probe_address(probe, arena_format(probe->arena, "unix:%s/%s", path, entry->d_name),
                          true);
            count++;
        }
    }
    (void)closedir(folder);
}

static void probe_workers(struct probe *probe, const struct settings *settings)
{
    const char *paths[RUN_DIR_MAX_CANDIDATES];
    size_t count = run_dir_candidates(settings, probe->arena, paths);
    for (size_t index = 0; index < count; index++) {
        probe_folder(probe, paths[index]);
    }
    if (probe->well_count + probe->unwell_count > 0) {
        return;
    }
    if (settings->worker_http_address && settings->worker_http_address[0]) {
        probe_address(probe, settings->worker_http_address, false);
        return;
    }
    (void)fprintf(stderr, "petiole: no worker runs here: there is no socket in %s\n",
                  paths[count - 1]);
    probe->unwell_count++;
}

/* The settings, without the file when it has become wrong: a running worker is not to be ended for
 * a mistake in its next configuration. */
static bool load_settings(const struct options *options, char *const *environment,
                          struct settings *settings, struct error *reterr)
{
    if (options_load_settings(options, environment, NULL, NULL, settings, reterr)) {
        return true;
    }
    struct options without_file = *options;
    without_file.config_path = NULL;
    settings_fini(settings);
    return options->config_path
           && options_load_settings(&without_file, environment, NULL, NULL, settings, NULL);
}

int probe_command_run(const struct options *options, char *const *environment)
{
    struct settings settings;
    struct error error = {0};
    struct probe probe = {
        .path = strcmp(options->probe, "ready") == 0 ? "/readyz" : "/livez",
        .arena = arena_new(4096),
    };
    int exit_code = 2;
    if (options->address) {
        probe_address(&probe, options->address, false);
        exit_code = probe.unwell_count == 0 ? 0 : 1;
    } else if (load_settings(options, environment, &settings, &error)) {
        probe_workers(&probe, &settings);
        exit_code = probe.unwell_count == 0 ? 0 : 1;
        settings_fini(&settings);
    } else {
        (void)fprintf(stderr, "petiole: %s\n", error.message);
        settings_fini(&settings);
    }
    arena_free(&probe.arena);
    return exit_code;
}
