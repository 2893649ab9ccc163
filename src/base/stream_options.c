#include "base/stream_options.h"

#include "base/memory.h"

struct stream_options stream_options_copy(const struct stream_options *options, struct arena *texts)
{
    struct stream_options copy = *options;
    copy.host = arena_text_copy(texts, options->host);
    copy.unix_path = arena_text_copy(texts, options->unix_path);
    copy.tls.ca_file = arena_text_copy(texts, options->tls.ca_file);
    copy.tls.certificate_file = arena_text_copy(texts, options->tls.certificate_file);
    copy.tls.key_file = arena_text_copy(texts, options->tls.key_file);
    return copy;
}
