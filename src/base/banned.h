/*
 * Functions that are easy to get wrong do not compile here. Included by every other header of
 * base/, so that a project file cannot forget it. System headers must be included before it: it
 * poisons names, not calls.
 */
#ifndef PETIOLE_BASE_BANNED_H
#define PETIOLE_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* With clang and _FORTIFY_SOURCE these are macros in glibc, which cannot be poisoned. */
#undef sprintf
#undef vsprintf

#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok gets
#pragma GCC poison atoi atol atoll atof asctime ctime gmtime localtime

#endif
