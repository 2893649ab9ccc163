#include "executor/kubeconfig.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/memory.h"
#include "base/yaml.h"

#define MAX_FILE_BYTES   ((size_t)4 * 1024 * 1024)
#define MAX_SMALL_BYTES  4096 /* the namespace file */
#define SERVICE_FOLDER   "/var/run/secrets/kubernetes.io/serviceaccount"
#define FIRST_ARENA_SIZE 4096

enum descriptor {
    DESCRIPTOR_CA,
    DESCRIPTOR_CERTIFICATE,
    DESCRIPTOR_KEY
};

/* One file being read. */
struct reading {
    struct kubeconfig *config;
    const char *path;
    struct arena *scratch; /* the tree's */
};

static const char *environment_get(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; environment && *environment; environment++) {
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=') {
            return *environment + length + 1;
        }
    }
    return NULL;
}

static struct kubeconfig *new_config(void)
{
    struct kubeconfig *config = memory_new(sizeof(*config));
    config->arena = arena_new(FIRST_ARENA_SIZE);
    for (size_t i = 0; i < ARRAY_LENGTH(config->descriptors); i++) {
        config->descriptors[i] = -1;
    }
    return config;
}

static bool refuse(const struct reading *reading, const struct yaml *node, const char *what,
                   struct error *reterr)
{
    return error_set(reterr, ERROR_UNSUPPORTED, "%s:%d: %s", reading->path, node->line, what);
}

/* Texts */

/* The scalar `key` of `mapping` in `*ret_text`, or NULL there when it is missing or empty. */
static bool read_text(const struct reading *reading, const struct yaml *mapping, const char *key,
                      const char **ret_text, struct error *reterr)
{
    const struct yaml *node = yaml_get(mapping, key);
    *ret_text = NULL;
    if (yaml_is_null(node)) {
        return true;
    }
    if (node->type != YAML_SCALAR) {
        return error_set(reterr, ERROR_INVALID, "%s:%d: %s: must be a text, not %s", reading->path,
                         node->line, key, yaml_type_name(node));
    }
    if (node->text.length > 0) {
        *ret_text = arena_text(reading->config->arena, node->text);
    }
    return true;
}

/* A path as kubectl reads it: relative to the file that it stands in. */
static bool read_path(const struct reading *reading, const struct yaml *mapping, const char *key,
                      const char **ret_path, struct error *reterr)
{
    const char *path = NULL;
    if (!read_text(reading, mapping, key, &path, reterr)) {
        return false;
    }
    const char *slash = strrchr(reading->path, '/');
    if (path && path[0] != '/' && slash) {
        path = arena_format(reading->config->arena, "%.*s/%s", (int)(slash - reading->path),
                            reading->path, path);
    }
    *ret_path = path;
    return true;
}

/* A file in memory that has no name anywhere: a key never touches a disk. */
static int make_file(struct bytes content, struct error *reterr)
{
    int descriptor = memfd_create("petiole-credential", MFD_CLOEXEC);
    if (descriptor < 0) {
        (void)error_set(reterr, ERROR_TEMPORARY, "a file in memory cannot be made");
        return -1;
    }
    while (content.length > 0) {
        ssize_t count = write(descriptor, content.data, content.length);
        if (count <= 0) {
            (void)error_set(reterr, ERROR_TEMPORARY, "a file in memory cannot be made");
            (void)close(descriptor);
            return -1;
        }
        content = bytes_skip(content, (size_t)count);
    }
    return descriptor;
}

static const char *path_of(struct arena *arena, int descriptor)
{
    return arena_format(arena, "/proc/self/fd/%d", descriptor);
}

/* A certificate or key: `<key>-data` inline, which wins as in client-go, or the file `<key>`. */
static bool read_credential(const struct reading *reading, const struct yaml *mapping,
                            const char *key, enum descriptor which, const char **ret_path,
                            struct error *reterr)
{
    struct kubeconfig *config = reading->config;
    const char *data_key = arena_format(reading->scratch, "%s-data", key);
    const char *data = NULL;
    if (!read_path(reading, mapping, key, ret_path, reterr)
        || !read_text(reading, mapping, data_key, &data, reterr)) {
        return false;
    }
    if (!data) {
        return true;
    }
    struct bytes plain;
    if (!base64_decode(bytes_from_text(data), reading->scratch, &plain)) {
        return error_set(reterr, ERROR_INVALID, "%s:%d: %s: is no base64", reading->path,
                         yaml_get(mapping, data_key)->line, data_key);
    }
    config->descriptors[which] = make_file(plain, reterr);
    if (config->descriptors[which] < 0) {
        return false;
    }
    *ret_path = path_of(config->arena, config->descriptors[which]);
    return true;
}

/* Sections */

/* The mapping `section` of the entry called `name` in the list `list_key`. */
static const struct yaml *find_entry(const struct reading *reading, const struct yaml *root,
                                     const char *list_key, const char *section, const char *name,
                                     struct error *reterr)
{
    const struct yaml *list = yaml_get(root, list_key);
    for (size_t i = 0; list && list->type == YAML_SEQUENCE && i < list->count; i++) {
        const struct yaml *entry = list->entries[i].value;
        const struct yaml *entry_name = yaml_get(entry, "name");
        const struct yaml *found = yaml_get(entry, section);
        if (entry_name && entry_name->type == YAML_SCALAR
            && bytes_equal_text(entry_name->text, name) && found && found->type == YAML_MAPPING) {
            return found;
        }
    }
    (void)error_set(reterr, ERROR_INVALID, "%s: there is no %s called \"%s\" in %s", reading->path,
                    section, name, list_key);
    return NULL;
}

struct refused_key {
    const char *key;
    const char *sentence;
};

static bool refuse_keys(const struct reading *reading, const struct yaml *mapping,
                        const struct refused_key *keys, size_t count, struct error *reterr)
{
    for (size_t i = 0; i < count; i++) {
        const struct yaml *node = yaml_get(mapping, keys[i].key);
        if (!yaml_is_null(node)) {
            return refuse(reading, node, keys[i].sentence, reterr);
        }
    }
    return true;
}

static bool read_server(const struct reading *reading, const struct yaml *cluster,
                        struct error *reterr)
{
    const char *server = NULL;
    if (!read_text(reading, cluster, "server", &server, reterr)) {
        return false;
    }
    struct bytes url = bytes_from_text(server);
    if (!bytes_starts_with(url, BYTES("https://")) && !bytes_starts_with(url, BYTES("http://"))) {
        return error_set(reterr, ERROR_INVALID,
                         "%s:%d: server: must be a URL that begins with https://", reading->path,
                         cluster->line);
    }
    while (url.data[url.length - 1] == '/') {
        url.length--;
    }
    reading->config->server = arena_text(reading->config->arena, url);
    return true;
}

static bool read_cluster(const struct reading *reading, const struct yaml *cluster,
                         struct error *reterr)
{
    static const struct refused_key refused[] = {
        {"tls-server-name", "tls-server-name is not supported: use a URL with the server's name"},
        {"proxy-url", "proxy-url is not supported: set HTTPS_PROXY in the environment"},
    };
    struct kubeconfig *config = reading->config;
    const struct yaml *insecure = yaml_get(cluster, "insecure-skip-tls-verify");
    if (!yaml_is_null(insecure) && !yaml_bool(insecure, &config->is_insecure)) {
        return error_set(reterr, ERROR_INVALID,
                         "%s:%d: insecure-skip-tls-verify: must be true or false", reading->path,
                         insecure->line);
    }
    return refuse_keys(reading, cluster, refused, ARRAY_LENGTH(refused), reterr)
           && read_server(reading, cluster, reterr)
           && read_credential(reading, cluster, "certificate-authority", DESCRIPTOR_CA,
                              &config->ca_file, reterr);
}

static bool read_user(const struct reading *reading, const struct yaml *user, struct error *reterr)
{
    static const struct refused_key refused[] = {
        {"exec", "users with exec are not supported: use a token, a token file or a certificate"},
        {"auth-provider",
         "users with auth-provider are not supported: use a token, a token file or a certificate"},
        {"username", "username and password are not supported: use a token or a certificate"},
        {"as", "impersonation (as) is not supported: use a user of its own"},
    };
    struct kubeconfig *config = reading->config;
    return refuse_keys(reading, user, refused, ARRAY_LENGTH(refused), reterr)
           && read_text(reading, user, "token", &config->token, reterr)
           && read_path(reading, user, "tokenFile", &config->token_file, reterr)
           && read_credential(reading, user, "client-certificate", DESCRIPTOR_CERTIFICATE,
                              &config->certificate_file, reterr)
           && read_credential(reading, user, "client-key", DESCRIPTOR_KEY, &config->key_file,
                              reterr);
}

static bool read_context(const struct reading *reading, const struct yaml *root,
                         const char *context_name, struct error *reterr)
{
    const char *cluster_name = NULL;
    const char *user_name = NULL;
    if (!context_name && !read_text(reading, root, "current-context", &context_name, reterr)) {
        return false;
    }
    if (!context_name) {
        return error_set(reterr, ERROR_INVALID, "%s: there is no current-context", reading->path);
    }
    const struct yaml *context =
        find_entry(reading, root, "contexts", "context", context_name, reterr);
    if (!context || !read_text(reading, context, "cluster", &cluster_name, reterr)
        || !read_text(reading, context, "user", &user_name, reterr)
        || !read_text(reading, context, "namespace", &reading->config->namespace_name, reterr)) {
        return false;
    }
    const struct yaml *cluster =
        find_entry(reading, root, "clusters", "cluster", cluster_name ? cluster_name : "", reterr);
    if (!cluster || !read_cluster(reading, cluster, reterr)) {
        return false;
    }
    if (!user_name) {
        return true; /* anonymous */
    }
    const struct yaml *user = find_entry(reading, root, "users", "user", user_name, reterr);
    return user && read_user(reading, user, reterr);
}

static struct kubeconfig *load_file(const char *path, const char *context, struct error *reterr)
{
    struct arena *scratch = arena_new(FIRST_ARENA_SIZE);
    struct kubeconfig *config = new_config();
    config->origin = arena_text(config->arena, bytes_from_text(path));
    struct reading reading = {.config = config, .path = config->origin, .scratch = scratch};
    const struct yaml *root = yaml_read(path, MAX_FILE_BYTES, scratch, reterr);
    if (!root || !read_context(&reading, root, context, reterr)) {
        kubeconfig_free(&config);
    }
    arena_free(&scratch);
    return config;
}

/* In a pod */

/* The pod's own namespace, or NULL when the file says none. */
static const char *read_namespace(struct arena *arena, const char *path)
{
    char text[MAX_SMALL_BYTES];
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = descriptor >= 0 ? read(descriptor, text, sizeof(text)) : 0;
    if (descriptor >= 0) {
        (void)close(descriptor);
    }
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' ')) {
        length--;
    }
    return length > 0 ? arena_text(arena, bytes_of(text, (size_t)length)) : NULL;
}

static struct kubeconfig *load_service_account(const char *host, const char *port,
                                               const char *folder)
{
    struct kubeconfig *config = new_config();
    bool is_ipv6 = strchr(host, ':') != NULL;
    config->origin = "the pod's ServiceAccount";
    config->server = arena_format(config->arena, "https://%s%s%s:%s", is_ipv6 ? "[" : "", host,
                                  is_ipv6 ? "]" : "", port);
    config->ca_file = arena_format(config->arena, "%s/ca.crt", folder);
    config->token_file = arena_format(config->arena, "%s/token", folder);
    config->namespace_name =
        read_namespace(config->arena, arena_format(config->arena, "%s/namespace", folder));
    return config;
}

struct kubeconfig *kubeconfig_load(const struct kubeconfig_sources *sources, struct error *reterr)
{
    char *const *environment = sources->environment;
    const char *named = sources->path ? sources->path : environment_get(environment, "KUBECONFIG");
    char path[MAX_SMALL_BYTES];
    if (named && named[0]) {
        int length = sources->path ? (int)strlen(named) : (int)strcspn(named, ":");
        (void)snprintf(path, sizeof(path), "%.*s", length, named);
        return load_file(path, sources->context, reterr);
    }
    const char *folder = sources->service_folder ? sources->service_folder : SERVICE_FOLDER;
    const char *host = environment_get(environment, "KUBERNETES_SERVICE_HOST");
    const char *port = environment_get(environment, "KUBERNETES_SERVICE_PORT");
    (void)snprintf(path, sizeof(path), "%s/token", folder);
    if (host && port && host[0] && port[0] && access(path, R_OK) == 0) {
        return load_service_account(host, port, folder);
    }
    const char *home = environment_get(environment, "HOME");
    (void)snprintf(path, sizeof(path), "%s/.kube/config", home ? home : "");
    if (home && access(path, R_OK) == 0) {
        return load_file(path, sources->context, reterr);
    }
    (void)error_set(reterr, ERROR_NOT_FOUND,
                    "no way to a Kubernetes API server is known: KUBECONFIG is not set, this is "
                    "no pod with a ServiceAccount, and there is no ~/.kube/config");
    return NULL;
}

/* Life cycle */

struct kubeconfig *kubeconfig_copy(const struct kubeconfig *kubeconfig)
{
    struct kubeconfig *copy = new_config();
    struct arena *arena = copy->arena;
    copy->server = arena_text_copy(arena, kubeconfig->server);
    copy->token = arena_text_copy(arena, kubeconfig->token);
    copy->token_file = arena_text_copy(arena, kubeconfig->token_file);
    copy->namespace_name = arena_text_copy(arena, kubeconfig->namespace_name);
    copy->origin = arena_text_copy(arena, kubeconfig->origin);
    copy->is_insecure = kubeconfig->is_insecure;

    const struct {
        const char *from;
        const char **to;
    } files[] = {
        [DESCRIPTOR_CA] = {kubeconfig->ca_file, &copy->ca_file},
        [DESCRIPTOR_CERTIFICATE] = {kubeconfig->certificate_file, &copy->certificate_file},
        [DESCRIPTOR_KEY] = {kubeconfig->key_file, &copy->key_file},
    };

    for (size_t i = 0; i < ARRAY_LENGTH(files); i++) {
        int descriptor = kubeconfig->descriptors[i];
        *files[i].to = arena_text_copy(arena, files[i].from);
        if (descriptor >= 0) {
            copy->descriptors[i] = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
            *files[i].to = path_of(arena, copy->descriptors[i]);
        }
    }
    return copy;
}

void kubeconfig_free(struct kubeconfig **kubeconfig)
{
    struct kubeconfig *config = *kubeconfig;
    if (!config) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(config->descriptors); i++) {
        if (config->descriptors[i] >= 0) {
            (void)close(config->descriptors[i]);
        }
    }
    arena_free(&config->arena);
    memory_free(kubeconfig);
}
