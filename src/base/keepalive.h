/*
 * TCP keep-alive: a peer that has gone without a word (a node that died, a firewall that forgot the
 * connection) is noticed within KEEPALIVE_SILENCE_MS, with and without data on the way.
 */
#ifndef PETIOLE_BASE_KEEPALIVE_H
#define PETIOLE_BASE_KEEPALIVE_H

#define KEEPALIVE_SILENCE_MS 45000

/* For a TCP socket; what the system does not allow is left out. */
void keepalive_set(int descriptor);

#endif
