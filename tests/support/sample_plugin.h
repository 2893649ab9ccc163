/* Where the build put the sample plugin (include/samples/petiole_sample.c). */
#ifndef PETIOLE_TESTS_SAMPLE_PLUGIN_H
#define PETIOLE_TESTS_SAMPLE_PLUGIN_H

struct arena;

/* The path of petiole_sample.so of the variant that the running test belongs to: beside the program
 * that PETIOLE_BINARY names, else above the test's own folder. Allocated in `arena`. */
const char *sample_plugin_path(struct arena *arena);

#endif
