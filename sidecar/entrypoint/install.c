#include "install.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "files.h"
#include "names.h"

static int open_self(void)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    /* No /proc: the kernel also tells the path that was executed. */
    const char *executed = (const char *)getauxval(AT_EXECFN);
    return executed ? open(executed, O_RDONLY | O_CLOEXEC) : -1;
}

static bool copy(int from, const struct aside *to)
{
    char block[16384];
    for (;;) {
        ssize_t length = read(from, block, sizeof block);
        if (length == 0)
            return true;
        if (length < 0 && errno != EINTR)
            return false;
        if (length > 0 && !aside_write(to, block, (size_t)length))
            return false;
    }
}

bool install(const char *directory)
{
    int self = open_self();
    if (self < 0)
        return false;
    struct aside aside = aside_open(directory, 0755);
    bool done = aside.fd >= 0 && copy(self, &aside) &&
                aside_publish(&aside, path_in(directory, "", ENTRYPOINT_FILE).text, REPLACE);
    int error = errno;
    if (aside.fd >= 0)
        aside_end(&aside);
    close(self);
    errno = error;
    return done;
}
