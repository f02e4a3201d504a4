#include "wait.h"

#include <limits.h>
#include <poll.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "signals.h"

long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int watch_open(void)
{
    return inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
}

bool watch_directory(int watch, const char *directory)
{
    /* IN_CLOSE_WRITE tells of a lock as well: the kernel closes the files of a process that was killed. */
    return inotify_add_watch(watch, directory, IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR) >= 0;
}

void wait_for_news(int watch, long until)
{
    long left = until - now_ms();
    int timeout = left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
    struct pollfd sources[] = {{.fd = signals_fd(), .events = POLLIN}, {.fd = watch, .events = POLLIN}};
    if (poll(sources, 2, timeout) <= 0 || !sources[1].revents)
        return;
    char news[4096]; /* that something changed is enough: the caller looks for itself */
    while (read(watch, news, sizeof news) > 0)
        ;
}
