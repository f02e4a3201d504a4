#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "reasons.h"
#include "text.h"

static int held = -1;
static sigset_t before;

bool signals_hold(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t all;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    sigprocmask(SIG_SETMASK, &all, &before);
    held = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    if (held >= 0)
        return true;
    say(INTERNAL_ERROR, " cannot receive signals: ", strerror(errno), (char *)NULL);
    signals_release();
    return false;
}

void signals_release(void)
{
    if (held >= 0)
        close(held);
    held = -1;
    sigprocmask(SIG_SETMASK, &before, NULL);
}

int signals_fd(void)
{
    return held;
}

bool signals_next(struct signalfd_siginfo *signal)
{
    do
        if (read(held, signal, sizeof *signal) != (ssize_t)sizeof *signal)
            return false;
    while (signal->ssi_signo == SIGPIPE && signal->ssi_pid == (unsigned)getpid());
    return true;
}

bool signal_asks_to_stop(const struct signalfd_siginfo *signal)
{
    switch (signal->ssi_signo) {
    case SIGTERM:
    case SIGINT:
    case SIGQUIT:
    case SIGHUP:
        return true;
    default:
        return false;
    }
}

enum asked signal_asks(const struct signalfd_siginfo *signal)
{
    if (!signal_asks_to_stop(signal))
        return NOT_ASKED;
    return signal->ssi_pid == 0 ? ASKED_BY_RUNTIME : ASKED_BY_ARGO;
}

int signals_asked_to_stop(void)
{
    int asked = 0;
    for (struct signalfd_siginfo signal; signals_next(&signal);)
        if (signal_asks_to_stop(&signal))
            asked = (int)signal.ssi_signo;
    return asked;
}
