/*
 * Where the API server is and who we are there: a kubeconfig file, or the ServiceAccount that
 * Kubernetes mounts into a pod (client-go/tools/clientcmd, client-go/rest: InClusterConfig).
 *
 * Users of kind `exec` and `auth-provider` run other programs to get at credentials; they are
 * refused, and so is everything else that would change who we are without our knowing it: basic
 * authentication, impersonation, proxies, other TLS names.
 */
#ifndef PETIOLE_EXECUTOR_KUBECONFIG_H
#define PETIOLE_EXECUTOR_KUBECONFIG_H

#include <stdbool.h>

#include "base/error.h"

struct kubeconfig {
    const char *server;           /* "https://10.0.0.1:443", no slash at its end */
    const char *ca_file;          /* NULL: the system's store */
    const char *certificate_file; /* NULL: none */
    const char *key_file;
    const char *token;          /* NULL: none. A secret: never logged */
    const char *token_file;     /* wins over `token`; NULL: none. Changes in time: read it again */
    const char *namespace_name; /* the context's or the pod's; NULL: none */
    const char *origin;         /* the file, or "the pod's ServiceAccount" */
    bool is_insecure;           /* insecure-skip-tls-verify */
    struct arena *arena;        /* owned: all texts */
    /* owned: inline certificates, as files without a name, in memory: ca, certificate, key; -1:
     * none. Their paths are /proc/self/fd/<number>. */
    int descriptors[3];
};

/* Where to look; members that are NULL mean Kubernetes' own places. */
struct kubeconfig_sources {
    const char *path;           /* a kubeconfig, else $KUBECONFIG (the first file of its list) */
    const char *context;        /* else current-context */
    const char *service_folder; /* else /var/run/secrets/kubernetes.io/serviceaccount */
    char *const *environment;   /* "NAME=value"; ends with NULL; NULL: none */
};

/* Reads the kubeconfig that is named; without one the pod's ServiceAccount
 * (KUBERNETES_SERVICE_HOST and _PORT); without that ~/.kube/config. Returns new, or NULL:
 * NOT_FOUND when there is none of these, UNSUPPORTED or INVALID with "file:line: what is wrong". */
struct kubeconfig *kubeconfig_load(const struct kubeconfig_sources *sources, struct error *reterr);

/* Returns new. */
struct kubeconfig *kubeconfig_copy(const struct kubeconfig *kubeconfig);

/* Leaves NULL; accepts NULL. */
void kubeconfig_free(struct kubeconfig **kubeconfig);

#endif
