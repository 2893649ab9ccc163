#include "base/stream_options.h"

#include "base/memory.h"

static const char *copy_text(struct arena *arena, const char *text)
{
    return text ? arena_text(arena, bytes_from_text(text)) : NULL;
}

struct stream_options stream_options_copy(const struct stream_options *options, struct arena *texts)
{
    struct stream_options copy = *options;
    copy.host = copy_text(texts, options->host);
    copy.unix_path = copy_text(texts, options->unix_path);
    copy.tls.ca_file = copy_text(texts, options->tls.ca_file);
    copy.tls.certificate_file = copy_text(texts, options->tls.certificate_file);
    copy.tls.key_file = copy_text(texts, options->tls.key_file);
    return copy;
}
