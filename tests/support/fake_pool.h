/*
 * The parent of the Python processes and the processes themselves, without Python: what
 * python -m petiole.pool says to the worker, for the tests of the executor. A test's program starts
 * itself as one.
 */
#ifndef PETIOLE_TESTS_SUPPORT_FAKE_POOL_H
#define PETIOLE_TESTS_SUPPORT_FAKE_POOL_H

/* A task of this name is accepted, and ends when its process gets SIGUSR1; any other one ends at
 * once. Both succeed, and leave nothing to store. */
#define FAKE_POOL_HELD_TASK "hold"

/* Serves the worker at the socket that is stdin until it closes: forks as long as no more than `room`
 * processes live, and refuses all others. Returns the exit code. */
int fake_pool_run(int room);

#endif
