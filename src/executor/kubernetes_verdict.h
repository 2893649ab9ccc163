/*
 * What an answer of the API server means for whoever asked. Pure. Sources:
 * k8s.io/apimachinery/pkg/api/errors, k8s.io/apiserver/pkg/admission/plugin/resourcequota.
 */
#ifndef PETIOLE_EXECUTOR_KUBERNETES_VERDICT_H
#define PETIOLE_EXECUTOR_KUBERNETES_VERDICT_H

#include "executor/kubernetes_api.h"

/* The verdict on `answer`, of which status, body and message are set. `has_name`: one object was
 * asked for. `error`: why there was none, NULL with an answer. */
enum kubernetes_verdict kubernetes_verdict_of(const struct kubernetes_answer *answer,
                                              const struct error *error, bool has_name);

/* Whether it says that we have no right to do it, which an API server that has just begun says to
 * everybody: it does not know any rights yet. */
bool kubernetes_verdict_is_denial(const struct kubernetes_answer *answer);

#endif
