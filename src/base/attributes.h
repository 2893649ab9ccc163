/*
 * The compiler extensions that Petiole uses, each spelled once: checked formats, results that must be used,
 * and locals that release what they own at the end of their scope.
 */
#ifndef PETIOLE_BASE_ATTRIBUTES_H
#define PETIOLE_BASE_ATTRIBUTES_H

#define PRINTF_FORMAT(format_index, first_index)                                                   \
    __attribute__((format(printf, format_index, first_index)))
#define MUST_CHECK        __attribute__((warn_unused_result))
#define CLEANUP(function) __attribute__((cleanup(function)))
#define UNUSED            __attribute__((unused))

/* The struct of type `type` whose member `member` lies at `pointer`. */
#define CONTAINER_OF(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

#endif
