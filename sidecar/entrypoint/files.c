#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

struct path path_in(const char *directory, const char *prefix, const char *name)
{
    struct path path;
    if (!text_join(path.text, sizeof path.text, directory, "/", prefix, name, (char *)NULL))
        path.text[0] = '\0';
    return path;
}

/* Every entrypoint is PID 1 of its container, so a PID would not tell them apart. */
static long random_number(void)
{
    unsigned long number;
    if (getrandom(&number, sizeof number, GRND_NONBLOCK) != (ssize_t)sizeof number) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        number = (unsigned long)now.tv_nsec * 2654435761UL ^ (unsigned long)now.tv_sec;
    }
    return (long)(number & LONG_MAX);
}

struct aside aside_open(const char *directory, mode_t mode)
{
    struct aside aside = {.fd = -1};
    for (int attempt = 0; attempt < 8; attempt++) {
        aside.path = path_in(directory, ".aside-", text_number(random_number()).text);
        aside.fd = open(aside.path.text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (aside.fd >= 0 || (errno != EEXIST && errno != EINTR))
            break;
    }
    if (aside.fd >= 0 && fchmod(aside.fd, mode) != 0) {
        int error = errno;
        aside_end(&aside);
        errno = error;
    }
    return aside;
}

bool aside_write(const struct aside *aside, const char *bytes, size_t length)
{
    while (length) {
        ssize_t written = write(aside->fd, bytes, length);
        if (written < 0 && errno != EINTR)
            return false;
        if (written > 0) {
            bytes += written;
            length -= (size_t)written;
        }
    }
    return true;
}

bool aside_publish(const struct aside *aside, const char *final, enum publish how)
{
    if (how == REPLACE)
        return rename(aside->path.text, final) == 0;
    return link(aside->path.text, final) == 0;
}

void aside_end(struct aside *aside)
{
    if (aside->fd >= 0)
        close(aside->fd);
    unlink(aside->path.text);
    aside->fd = -1;
}

bool file_make(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return fd >= 0 && close(fd) == 0;
}

bool file_write(const char *directory, const char *final, const char *text, enum publish how)
{
    struct aside aside = aside_open(directory, 0644);
    if (aside.fd < 0)
        return false;
    bool done = aside_write(&aside, text, strlen(text)) && aside_publish(&aside, final, how);
    int error = errno;
    aside_end(&aside);
    errno = error;
    return done;
}

ssize_t file_read(const char *path, char *text, size_t size)
{
    int fd;
    do
        /* A step can put a link or a FIFO there. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return -1;
    ssize_t length;
    do
        length = read(fd, text, size - 1);
    while (length < 0 && errno == EINTR);
    int error = errno;
    close(fd);
    errno = error;
    if (length < 0)
        return -1;
    while (length > 0 && strchr(" \t\r\n", text[length - 1]))
        length--;
    text[length] = '\0';
    return length;
}
