#include "worker/check_kubernetes.h"

#include <stdarg.h>

#include "executor/kubernetes_rights.h"

#define MAX_TEXT_BYTES 1024

struct trial {
    struct loop *loop;
    struct kubernetes_api *api;
    check_kubernetes_fn *on_found;
    void *context;
    bool is_answered; /* what is waited for has come */
    bool is_reached;  /* the API server knows us */
};

static void tell(struct trial *trial, bool ok, const char *what, const char *format, ...)
    PRINTF_FORMAT(4, 5);

static void tell(struct trial *trial, bool ok, const char *what, const char *format, ...)
{
    char text[MAX_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    trial->on_found(trial->context, ok, what, text);
}

static void wait_for_answer(struct trial *trial)
{
    while (!trial->is_answered) {
        loop_run_once(trial->loop, true);
    }
    trial->is_answered = false;
}

/* A refused list is an answer too: the rights will name it. Not to be known at all is none. */
static void on_list(void *context, const struct kubernetes_answer *answer)
{
    struct trial *trial = context;
    trial->is_answered = true;
    trial->is_reached = answer->verdict == KUBERNETES_DONE || answer->verdict == KUBERNETES_REFUSED;
    if (!trial->is_reached) {
        tell(trial, false, "cluster", "%s", answer->message);
    }
}

static void on_right(void *context, const struct kubernetes_right *right, bool is_allowed,
                     const struct error *error)
{
    struct trial *trial = context;
    const char *slash = right->subresource[0] ? "/" : "";
    if (error) {
        tell(trial, false, "right", "%s %s%s%s: %s", right->verb, right->resource, slash,
             right->subresource, error->message);
    } else {
        tell(trial, is_allowed, "right", "%s %s%s%s in %s%s%s", right->verb, right->resource, slash,
             right->subresource, kubernetes_api_namespace(trial->api),
             is_allowed ? "" : ": not allowed, and needed to ", is_allowed ? "" : right->purpose);
    }
}

static void on_done(void *context)
{
    struct trial *trial = context;
    trial->is_answered = true;
}

static void try_server(struct trial *trial, const struct kubeconfig *kubeconfig)
{
    (void)kubernetes_api_call(
        trial->api, &(struct kubernetes_request){.resource = "batch/v1 jobs", .query = "limit=1"},
        on_list, trial);
    wait_for_answer(trial);
    if (!trial->is_reached) {
        return;
    }
    tell(trial, true, "cluster", "%s, namespace %s, by %s", kubeconfig->server,
         kubernetes_api_namespace(trial->api), kubeconfig->origin);
    (void)kubernetes_rights_ask(trial->api, on_right, on_done, trial);
    wait_for_answer(trial);
}

void check_kubernetes_run(struct loop *loop, struct settings *settings, char *const *environment,
                          check_kubernetes_fn *on_found, void *context)
{
    struct trial trial = {.loop = loop, .on_found = on_found, .context = context};
    struct kubeconfig_sources sources = {.environment = environment};
    struct error error = {0};
    struct kubeconfig *kubeconfig = kubeconfig_load(&sources, &error);
    if (!kubeconfig) {
        tell(&trial, false, "cluster", "%s", error.message);
        return;
    }
    if (kubeconfig->namespace_name) {
        settings_set_namespace(settings, kubeconfig->namespace_name);
    }
    if (!settings->kubernetes_namespace) {
        (void)error_set(&error, ERROR_INVALID,
                        "kubernetes_namespace is not set, and neither the pod nor %s names one",
                        kubeconfig->origin);
    } else {
        trial.api = kubernetes_api_new(loop, kubeconfig, settings->kubernetes_namespace, &error);
    }
    if (trial.api) {
        try_server(&trial, kubeconfig);
    } else {
        tell(&trial, false, "cluster", "%s", error.message);
    }
    kubernetes_api_free(&trial.api);
    kubeconfig_free(&kubeconfig);
}
