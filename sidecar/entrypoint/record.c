#include "record.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "child.h"
#include "files.h"
#include "names.h"
#include "reasons.h"
#include "signals.h"
#include "text.h"
#include "wait.h"

/* Locked before it can be seen. The descriptor stays open as long as this process lives. */
static void take_lock(const char *directory, const char *name)
{
    struct aside aside = aside_open(directory, 0644);
    if (aside.fd >= 0 && flock(aside.fd, LOCK_EX | LOCK_NB) == 0 &&
        aside_publish(&aside, path_in(directory, LOCK_FILE_PREFIX, name).text, REPLACE))
        return;
    say(OUTPUTS_FAILED, " cannot lock the end of ", name, ": ", strerror(errno), (char *)NULL);
    if (aside.fd >= 0)
        aside_end(&aside);
}

bool record_begun(const char *directory, const char *name)
{
    return access(path_in(directory, LOCK_FILE_PREFIX, name).text, F_OK) == 0;
}

/* The mask of signals that the process handles; all of them when that cannot be known. */
static unsigned long long handled_by(pid_t pid)
{
    char status[4096];
    struct path path;
    text_join(path.text, sizeof path.text, "/proc/", text_number(pid).text, "/status", (char *)NULL);
    if (file_read(path.text, status, sizeof status) < 0)
        return ~0ULL;
    const char *field = strstr(status, "\nSigCgt:");
    return field ? strtoull(field + 8, NULL, 16) : ~0ULL;
}

/* The command was meant to be PID 1, for which the kernel drops a signal that it does not handle: one that
 * comes before it installed its handlers must not kill it now. Without a PID namespace of our own it was
 * not. */
static void pass_on(int signal, pid_t pid)
{
    if (getpid() == 1 && !(handled_by(pid) >> (signal - 1) & 1))
        return;
    kill(pid, signal);
}

void record_end(const char *directory, const char *name, int code, bool stopped)
{
    char end[40];
    text_join(end, sizeof end, text_number(code).text, stopped ? " stopped" : "", (char *)NULL);
    if (!file_write(directory, path_in(directory, EXIT_FILE_PREFIX, name).text, end, REPLACE))
        say(OUTPUTS_FAILED, " cannot record the end of ", name, ": ", strerror(errno), (char *)NULL);
}

int record(const char *directory, const char *name, char *const *command)
{
    if (!signals_hold())
        return become(command);
    take_lock(directory, name);
    pid_t pid = child_fork(OUR_GROUP);
    if (pid < 0) {
        say(OUTPUTS_FAILED, " cannot record the end of ", name, ": ", strerror(errno), (char *)NULL);
        signals_release();
        return become(command);
    }
    if (pid == 0)
        _exit(become(command));

    int code;
    bool stopped = false; /* what it leaves then is not what it would have come to, even with exit code 0 */
    while (!child_ended(pid, &code)) {
        wait_for_news(-1, LONG_MAX);
        for (struct signalfd_siginfo signal; signals_next(&signal);) {
            stopped |= signal_asks_to_stop(&signal);
            if (signal.ssi_signo != SIGCHLD && signal.ssi_code != SI_KERNEL) /* a terminal tells the group */
                pass_on((int)signal.ssi_signo, pid);
        }
    }
    record_end(directory, name, code, stopped);
    return code;
}
