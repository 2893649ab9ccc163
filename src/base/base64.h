/*
 * Base64 with the standard alphabet and padding, on OpenSSL: message bodies on Redis
 * (kombu/transport/virtual/base.py: Base64), results of pods, certificates in kubeconfigs. White
 * space is not accepted.
 */
#ifndef PETIOLE_BASE_BASE64_H
#define PETIOLE_BASE_BASE64_H

#include "base/memory.h"

/* Appends `plain` encoded. */
void base64_append(struct buffer *buffer, struct bytes plain);

/* Decodes `text` into `arena`; a NUL follows it. False when it is no base64. */
bool base64_decode(struct bytes text, struct arena *arena, struct bytes *ret_plain) MUST_CHECK;

#endif
