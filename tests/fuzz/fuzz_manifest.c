/* Manifests (worker/settings_manifest.h): whatever a file says, it is read or refused with a
 * sentence that names the file. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/memory.h"
#include "worker/settings.h"
#include "worker/settings_python.h"

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* What is told to Python processes of it is JSON. */
static void tell(const struct settings *settings)
{
    struct buffer text;
    struct json value;
    buffer_init(&text, (size_t)1 << 20);
    settings_python_append(&text, settings);
    require(text.overflowed || json_parse(buffer_view(&text), &value, NULL));
    buffer_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new(size + 64);
    struct settings settings;
    struct error error = {0};
    char *environment[] = {NULL};
    const struct settings_sources sources = {
        .manifest = arena_copy(arena, bytes_of((const char *)data, size)),
        .manifest_origin = "m.json",
        .environment = environment,
    };
    if (settings_load(&settings, &sources, &error)) {
        tell(&settings);
    } else {
        require(strstr(error.message, "m.json") || strstr(error.message, ": "));
    }
    settings_fini(&settings);
    arena_free(&arena);
    return 0;
}
