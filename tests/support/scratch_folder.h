/* A folder of a test's own below $TMPDIR or /tmp. */
#ifndef PETIOLE_TESTS_SCRATCH_FOLDER_H
#define PETIOLE_TESTS_SCRATCH_FOLDER_H

struct arena;

/* Makes one and returns its path, allocated in `arena`. */
const char *scratch_folder_make(struct arena *arena);

/* Removes it with all that is in it. */
void scratch_folder_remove(const char *path);

#endif
