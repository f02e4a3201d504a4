/* Words put together without stdio, which would be half of the binary. */
#ifndef STEPMEMO_TEXT_H
#define STEPMEMO_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Writes the parts, up to a NULL, one after another; false when they do not fit. */
bool text_join(char *out, size_t size, ...) __attribute__((sentinel));

struct decimal {
    char text[24];
};
/* The number in decimal. */
struct decimal text_number(long number);

/* Reads a decimal number of 0 or more; false for anything else. */
bool text_parse(const char *text, long *number);

/* One log line on stderr, `stepmemo: reason=Code text…`, the parts up to a NULL; a long line is cut. */
void say(const char *reason, ...) __attribute__((sentinel));
/* The same for what is no outcome of memoization, and so has no reason code. */
void say_plain(const char *first, ...) __attribute__((sentinel));

#endif
