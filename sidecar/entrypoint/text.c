#include "text.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

struct buffer {
    char *next;
    char *end;
};

static bool append(struct buffer *buffer, const char *part)
{
    size_t room = (size_t)(buffer->end - buffer->next), length = strlen(part);
    size_t fits = length < room ? length : room;
    memcpy(buffer->next, part, fits);
    buffer->next += fits;
    return fits == length;
}

static bool append_all(struct buffer *buffer, va_list parts)
{
    for (const char *part; (part = va_arg(parts, const char *));)
        if (!append(buffer, part))
            return false;
    return true;
}

bool text_join(char *out, size_t size, ...)
{
    struct buffer buffer = {out, out + size - 1};
    va_list parts;
    va_start(parts, size);
    bool whole = append_all(&buffer, parts);
    va_end(parts);
    *buffer.next = '\0';
    return whole;
}

struct decimal text_number(long number)
{
    struct decimal decimal;
    char *next = decimal.text + sizeof decimal.text - 1;
    unsigned long left = number < 0 ? 0UL - (unsigned long)number : (unsigned long)number;
    *next = '\0';
    do
        *--next = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *--next = '-';
    memmove(decimal.text, next, strlen(next) + 1);
    return decimal;
}

bool text_parse(const char *text, long *number)
{
    long value = 0;
    if (!*text || strlen(text) > 9) /* nothing we are told comes near 10^9 */
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (*text - '0');
    }
    *number = value;
    return true;
}

/* One write for one line: lines of several processes do not mix. */
static void say_parts(const char *prefix, const char *first, va_list parts)
{
    char line[512];
    struct buffer buffer = {line, line + sizeof line - 1};
    (void)(append(&buffer, prefix) && append(&buffer, first) && append_all(&buffer, parts));
    *buffer.next++ = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)(buffer.next - line));
    (void)ignored; /* there is nobody left to tell */
}

void say(const char *reason, ...)
{
    va_list parts;
    va_start(parts, reason);
    say_parts("stepmemo: reason=", reason, parts);
    va_end(parts);
}

void say_plain(const char *first, ...)
{
    va_list parts;
    va_start(parts, first);
    say_parts("stepmemo: ", first, parts);
    va_end(parts);
}
