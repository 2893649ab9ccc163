#include "executor/kubeconfig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

#define TEXT_BYTES 4096

struct fixture {
    char folder[64];
    char path[128];
    struct error error;
    struct kubeconfig *config;
};

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(0, fclose(file));
}

static void assert_content(const char *path, const char *expected)
{
    char text[TEXT_BYTES] = "";
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    (void)!fread(text, 1, sizeof(text) - 1, file);
    assert_int_equal(0, fclose(file));
    assert_string_equal(expected, text);
}

static int set_up(void **state)
{
    struct fixture *f = memory_new(sizeof(*f));
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/petiole-kubeconfig-XXXXXX");
    if (!mkdtemp(f->folder)) {
        return -1;
    }
    (void)snprintf(f->path, sizeof(f->path), "%s/config", f->folder);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"config", "token", "namespace", "other"};
    struct fixture *f = *state;
    kubeconfig_free(&f->config);
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char path[160];
        (void)snprintf(path, sizeof(path), "%s/%s", f->folder, names[i]);
        (void)unlink(path);
    }
    int failed = rmdir(f->folder);
    memory_free(&f);
    return failed;
}

/* A kubeconfig whose cluster and user are these flow mappings. */
static bool load(struct fixture *f, const char *cluster, const char *user)
{
    char text[TEXT_BYTES];
    (void)snprintf(
        text, sizeof(text),
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
        "contexts:\n- {name: here, context: {cluster: c, user: u, namespace: tenant-a}}\n"
        "- {name: there, context: {cluster: c2, user: u}}\n"
        "clusters:\n- {name: c, cluster: %s}\n"
        "- {name: c2, cluster: {server: \"https://there\"}}\n"
        "users:\n- {name: u, user: %s}\n",
        cluster, user);
    write_file(f->folder, "config", text);
    kubeconfig_free(&f->config);
    f->error = (struct error){0};
    f->config = kubeconfig_load(&(struct kubeconfig_sources){.path = f->path}, &f->error);
    return f->config != NULL;
}

static void reads_the_current_context(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f, "{server: \"https://10.0.0.1:443/\", certificate-authority: ca.pem}",
                     "{token: abc, client-certificate: /etc/c.pem, client-key: k.pem}"));
    char ca_file[160];
    (void)snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", f->folder);
    assert_string_equal("https://10.0.0.1:443", f->config->server);
    assert_string_equal(ca_file, f->config->ca_file);
    assert_string_equal("/etc/c.pem", f->config->certificate_file);
    assert_string_equal("abc", f->config->token);
    assert_null(f->config->token_file);
    assert_string_equal("tenant-a", f->config->namespace_name);
    assert_string_equal(f->path, f->config->origin);
    assert_false(f->config->is_insecure);
}

static void reads_another_context(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f, "{server: \"https://here\"}", "{tokenFile: token}"));
    kubeconfig_free(&f->config);
    f->config = kubeconfig_load(&(struct kubeconfig_sources){.path = f->path, .context = "there"},
                                &f->error);
    assert_string_equal("https://there", f->config->server);
    assert_null(f->config->namespace_name);
    assert_non_null(strstr(f->config->token_file, "/token"));
}

static void keeps_inline_certificates_in_memory(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f, "{server: \"https://h\", certificate-authority-data: Y2E=}",
                     "{client-certificate-data: Y2VydA==, client-key-data: a2V5}"));
    struct kubeconfig *copy = kubeconfig_copy(f->config);
    kubeconfig_free(&f->config);
    assert_content(copy->ca_file, "ca");
    assert_content(copy->certificate_file, "cert");
    assert_content(copy->key_file, "key");
    assert_content(copy->key_file, "key");
    kubeconfig_free(&copy);
}

static void skips_verification_only_when_told(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f, "{server: \"https://h\", insecure-skip-tls-verify: true}", "{}"));
    assert_true(f->config->is_insecure);
    assert_false(load(f, "{server: \"https://h\", insecure-skip-tls-verify: maybe}", "{}"));
    assert_int_equal(ERROR_INVALID, f->error.kind);
}

static void assert_refused(struct fixture *f, const char *cluster, const char *user,
                           const char *words)
{
    assert_false(load(f, cluster, user));
    assert_null(f->config);
    assert_non_null(strstr(f->error.message, words));
    assert_non_null(strstr(f->error.message, f->path));
}

static void refuses_what_it_cannot_do(void **state)
{
    struct fixture *f = *state;
    const char *cluster = "{server: \"https://h\"}";
    assert_refused(f, cluster, "{exec: {command: aws}}", "users with exec are not supported");
    assert_int_equal(ERROR_UNSUPPORTED, f->error.kind);
    assert_refused(f, cluster, "{auth-provider: {name: gcp}}", "auth-provider");
    assert_refused(f, cluster, "{username: me, password: x}", "username");
    assert_refused(f, cluster, "{as: root, token: t}", "impersonation");
    assert_refused(f, "{server: \"https://h\", proxy-url: \"http://p\"}", "{}", "proxy-url");
    assert_refused(f, "{server: \"https://h\", tls-server-name: n}", "{}", "tls-server-name");
}

static void refuses_what_is_wrong(void **state)
{
    struct fixture *f = *state;
    assert_refused(f, "{}", "{}", "server: must be a URL");
    assert_refused(f, "{server: h}", "{}", "server: must be a URL");
    assert_refused(f, "{server: [1]}", "{}", "must be a text, not a sequence");
    assert_refused(f, "{server: \"https://h\", certificate-authority-data: \"*\"}", "{}",
                   "is no base64");
    write_file(f->folder, "config", "current-context: nowhere\n");
    assert_null(kubeconfig_load(&(struct kubeconfig_sources){.path = f->path}, &f->error));
    assert_non_null(strstr(f->error.message, "no context called \"nowhere\""));
}

static void finds_the_file_by_the_environment(void **state)
{
    struct fixture *f = *state;
    assert_true(load(f, "{server: \"https://h\"}", "{}"));
    kubeconfig_free(&f->config);
    char variable[160];
    (void)snprintf(variable, sizeof(variable), "KUBECONFIG=%s:/nowhere", f->path);
    char *const environment[] = {variable, NULL};
    f->config =
        kubeconfig_load(&(struct kubeconfig_sources){.environment = environment}, &f->error);
    assert_non_null(f->config);
    assert_string_equal("https://h", f->config->server);
}

static void takes_the_service_account_of_a_pod(void **state)
{
    struct fixture *f = *state;
    write_file(f->folder, "token", "secret");
    write_file(f->folder, "namespace", "tenant-b\n");
    char host[] = "KUBERNETES_SERVICE_HOST=fd00::1";
    char port[] = "KUBERNETES_SERVICE_PORT=443";
    char *const environment[] = {host, port, NULL};
    struct kubeconfig_sources sources = {.environment = environment, .service_folder = f->folder};
    f->config = kubeconfig_load(&sources, &f->error);
    assert_non_null(f->config);
    assert_string_equal("https://[fd00::1]:443", f->config->server);
    assert_string_equal("tenant-b", f->config->namespace_name);
    assert_null(f->config->token);
    assert_non_null(strstr(f->config->token_file, "/token"));
    assert_non_null(strstr(f->config->ca_file, "/ca.crt"));
}

static void says_when_there_is_nothing(void **state)
{
    struct fixture *f = *state;
    char home[] = "HOME=/nowhere";
    char *const environment[] = {home, NULL};
    struct kubeconfig_sources sources = {.environment = environment, .service_folder = f->folder};
    assert_null(kubeconfig_load(&sources, &f->error));
    assert_int_equal(ERROR_NOT_FOUND, f->error.kind);
    assert_null(kubeconfig_load(&(struct kubeconfig_sources){.path = "/nowhere/x"}, &f->error));
    assert_int_equal(ERROR_NOT_FOUND, f->error.kind);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reads_the_current_context),           TEST(reads_another_context),
        TEST(keeps_inline_certificates_in_memory), TEST(skips_verification_only_when_told),
        TEST(refuses_what_it_cannot_do),           TEST(refuses_what_is_wrong),
        TEST(finds_the_file_by_the_environment),   TEST(takes_the_service_account_of_a_pod),
        TEST(says_when_there_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
