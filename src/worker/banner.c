#include "worker/banner.h"

#include <sys/utsname.h>
#include <time.h>

#include "base/attributes.h"
#include "base/memory.h"
#include "worker/settings_bindings.h"

#define MAX_BANNER_BYTES 262144

/* The drawing to the left of the first lines. */
static const char *const art[] = {
    " --------------", "--- ***** -----", "-- ******* ----", "- *** --- * ---",
    "- ** ----------", "- ** ----------", "- ** ----------", "- ** ----------",
    "- *** --- * ---", "-- ******* ----", "--- ***** -----", " --------------",
};

static void append_config(struct buffer *text, const struct banner *banner)
{
    (void)buffer_append_text(text, "[config]\n");
    (void)buffer_format(text, ".> app:         %s\n", banner->app ? banner->app : "petiole");
    (void)buffer_format(text, ".> transport:   %s\n", banner->transport);
    (void)buffer_format(text, ".> results:     %s\n",
                        banner->results ? banner->results : "disabled://");
    (void)buffer_format(text, ".> concurrency: %zu (%s)\n", banner->concurrency, banner->pool);
    (void)buffer_format(
        text, ".> task events: %s\n\n",
        banner->sends_task_events ? "ON" : "OFF (enable -E to monitor tasks in this worker)");
}

static void append_queues(struct buffer *text, const struct banner *banner)
{
    (void)buffer_append_text(text, "[queues]\n");
    for (size_t index = 0; index < banner->queue_count; index++) {
        const struct settings_bindings_queue *queue = &banner->queues[index];
        (void)buffer_format(text, ".> %-16s exchange=%s(%s) key=%s\n", queue->name, queue->exchange,
                            queue->exchange_type, queue->routing_key);
    }
    /* celery/app/amqp.py: Queues.format: a line more behind a single one. */
    (void)buffer_append_text(text, banner->queue_count > 1 ? "" : "\n");
}

static void append_info(struct buffer *text, const struct banner *banner, double wall_s)
{
    struct utsname machine;
    struct tm local;
    char moment[32] = "";
    time_t now = (time_t)wall_s;
    (void)buffer_format(text, "%s %s\n\n", banner->node_name, banner->version);
    if (uname(&machine) == 0 && localtime_r(&now, &local)) {
        (void)strftime(moment, sizeof(moment), "%Y-%m-%d %H:%M:%S", &local);
        (void)buffer_format(text, "%s-%s-%s %s\n\n", machine.sysname, machine.release,
                            machine.machine, moment);
    }
    append_config(text, banner);
    append_queues(text, banner);
}

/* Prints the lines of `text`, each behind its piece of the drawing. */
static void print_beside_art(FILE *file, struct bytes text)
{
    for (size_t line = 0; text.length > 0; line++) {
        size_t end = bytes_find(text, '\n');
        if (line < ARRAY_LENGTH(art)) {
            (void)fprintf(file, "%s %.*s\n", art[line], (int)end, text.data);
        } else {
            (void)fprintf(file, "%16s%.*s\n", "", (int)end, text.data);
        }
        text = bytes_skip(text, end + 1);
    }
}

void banner_print(FILE *file, const struct banner *banner, double wall_s)
{
    struct buffer text;
    buffer_init(&text, MAX_BANNER_BYTES);
    append_info(&text, banner, wall_s);
    (void)fprintf(file, "%s \n", banner->is_colored ? "\033[1;36m" : "");
    print_beside_art(file, buffer_view(&text));
    (void)fprintf(file, "%s\n", banner->is_colored ? "\033[0m" : "");
    buffer_fini(&text);
    if (banner->tasks) {
        (void)fprintf(file, "[tasks]\n");
        for (size_t index = 0; banner->tasks[index]; index++) {
            (void)fprintf(file, "  . %s\n", banner->tasks[index]);
        }
        (void)fprintf(file, "\n");
    }
    (void)fflush(file);
}
